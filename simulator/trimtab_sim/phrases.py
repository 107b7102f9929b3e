# ruff: noqa: E501, SIM905 (texts stay in one piece)
"""The phrases that synthetic prompts are made of; all made up, persons and numbers included (test card numbers)."""

from __future__ import annotations

EASY = (
    "What are your opening hours on Sunday?",
    "Hi! How are you today?",
    "How do I reset my password?",
    "Thanks, that helped. Have a nice day!",
    "Where can I see the status of my order?",
    "Which languages do you speak?",
    "What is the capital of Portugal?",
    "Can I return a pair of shoes after two weeks?",
    "Please remind me what time the store closes.",
    "What does the word 'serendipity' mean?",
    "Tell me a short joke about cats.",
    "Is the blue jacket available in size M?",
)
"""Small talk and questions of fact."""

MIDDLING = (
    "Summarize the conversation above in three sentences for a colleague who was on holiday.",
    "Write a polite e-mail to a customer whose parcel is four days late and offer a voucher.",
    "Compare the monthly and the yearly plan for a team of six people and recommend one.",
    "Rewrite the last paragraph in a friendlier tone and keep it under 80 words.",
    "Draft a product description for a waterproof backpack with five bullet points.",
    "Explain to a beginner how interest on a savings account is calculated, with one example.",
    "List the advantages and the drawbacks of working from home and give a balanced conclusion.",
    "Translate the message above to German and explain the two idioms in it.",
)
"""Writing, comparing, explaining."""

HARD = (
    "Prove that the sum of the first n odd numbers equals n^2 by induction, then derive a closed form for sum_{k=1}^{n} k(k+1) and verify it for n = 5 step by step.",
    "Debug this function and explain the race condition in it:\n```python\nasync def take(pool, lock):\n    if pool.free > 0:\n        await lock.acquire()\n        pool.free -= 1\n    return pool.items.pop()\n```\nThen write a corrected version with tests.",
    "Design a database schema and the SQL queries for a booking system with overlapping time slots, analyze the complexity of each query, and show how to prevent double bookings under concurrent transactions.",
    "A train leaves at 08:15 at 72 km/h, a second one 25 minutes later at 96 km/h on the same line. Calculate when and where it catches up, then generalize the formula to a delay d and speeds v and w. Show every step of the reasoning.",
    "Implement an LRU cache with O(1) operations in Rust, reason about its lifetimes, and compare it with a clock algorithm for a workload with a scan every 10,000 requests.",
    "Given the constraints x + 2y <= 14, 3x - y >= 0 and x - y <= 2, maximize 3x + 4y: derive the vertices, evaluate each, and explain with the dual problem why the solution is optimal.",
)
"""Proofs, code, plans: several steps of reasoning."""

DEMANDS = (
    "Keep the answer short.",
    "Give the reason for every choice.",
    "Consider at least two alternatives and evaluate the trade-offs.",
    "State every assumption that you make, then check it.",
    "Analyze the edge cases and the worst-case complexity.",
    "Finally, derive how the result changes if the input doubles.",
)
"""What may be asked on top, from the least to the most demanding."""

PERSONAL = (
    "My card number is 4111 1111 1111 1111 and it expires in 09/29.",
    "You can reach me at jane.doe@example.com, my social security number is 078-05-1120.",
    "Please charge 5500 0000 0000 0004, the name on the card is John Roe.",
    "My IBAN is GB82 WEST 1234 5698 7654 32, please refund the amount there.",
)
"""Sentences with personal data that nobody owns."""

WORDS = (
    "the order was placed last week and the parcel left the warehouse on the next day as planned then the customer asked whether the address could be changed and the agent wrote that this is possible until the evening there was a note about the colour of the box and a question about the bill which we answered in the same message after that the delivery went as agreed and nobody had further questions for a while we kept the notes here so that everyone in the team can read what happened before and what was promised"
).split()
"""Words of an earlier conversation, to reach a wanted length."""
