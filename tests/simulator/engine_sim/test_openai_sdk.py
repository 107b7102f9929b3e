"""The official OpenAI client, which knows nothing of simulators, is content with every route that it has."""

from __future__ import annotations

import asyncio
import collections.abc
from typing import Any

import openai
import pytest

from . import serving

ASK: list[Any] = [{"role": "user", "content": "What steers a rudder?"}]


def with_client(
    test: collections.abc.Callable[[openai.AsyncOpenAI], collections.abc.Awaitable[None]], **fields: Any
) -> None:
    async def run() -> None:
        async with (
            serving.serving(served_model_name=("sim",), api_key=("key",), **fields) as running,
            openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="key", max_retries=0) as client,
        ):
            await test(client)

    asyncio.run(run())


def test_models_and_chat() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["sim"]
        answer = await client.chat.completions.create(model="sim", messages=ASK, max_tokens=12)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12

    with_client(check)


def test_a_chat_stream_with_usage() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="sim", messages=ASK, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 12

    with_client(check)


def test_log_probabilities_and_token_bytes() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(
            model="sim", messages=ASK, max_tokens=5, logprobs=True, top_logprobs=3
        )
        entries = answer.choices[0].logprobs
        assert entries is not None
        assert entries.content is not None
        text = b"".join(bytes(entry.bytes or ()) for entry in entries.content).decode()
        assert text == answer.choices[0].message.content
        assert all(len(entry.top_logprobs) == 3 for entry in entries.content)

    with_client(check)


def test_completions() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        answer = await client.completions.create(model="sim", prompt=["one", "two"], max_tokens=3, logprobs=2)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.choices[0].logprobs is not None
        stream = await client.completions.create(model="sim", prompt="one", max_tokens=3, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == answer.choices[0].text

    with_client(check)


def test_responses_plain_and_streamed() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        plain = await client.responses.create(model="sim", input="hello", instructions="be short", max_output_tokens=9)
        assert plain.output_text
        assert plain.status == "incomplete"
        stream = await client.responses.create(
            model="sim", input="hello", instructions="be short", max_output_tokens=9, stream=True
        )
        events = [event async for event in stream]
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert deltas == plain.output_text
        assert [event.sequence_number for event in events] == list(range(len(events)))

    with_client(check)


def test_a_tool_call() -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        answer = await client.chat.completions.create(
            model="sim",
            messages=ASK,
            tools=[{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
            tool_choice="required",
        )
        called = answer.choices[0].message.tool_calls
        assert called is not None
        assert called[0].type == "function"
        assert called[0].function.name == "weather"

    with_client(check, tool_call_parser="hermes")


@pytest.mark.parametrize(
    ("model", "error"), [pytest.param("nope", openai.NotFoundError, id="an unknown model is NotFoundError")]
)
def test_errors_become_the_clients_own(model: str, error: type[openai.APIStatusError]) -> None:
    async def check(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(error, match="does not exist"):
            await client.chat.completions.create(model=model, messages=ASK)
        with pytest.raises(openai.BadRequestError, match="temperature must be non-negative"):
            await client.chat.completions.create(model="sim", messages=ASK, temperature=-1)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="other").models.list()

    with_client(check)


def test_the_second_turn_of_a_conversation_finds_the_first_in_the_cache() -> None:
    """The first turn has P + 40 tokens; what the second one repeats of them is cached but for a part of a block."""

    async def check(client: openai.AsyncOpenAI) -> None:
        first = await client.chat.completions.create(model="sim", messages=ASK, max_tokens=40)
        turns: list[Any] = [*ASK, {"role": "assistant", "content": first.choices[0].message.content}]
        second = await client.chat.completions.create(
            model="sim", messages=[*turns, {"role": "user", "content": "And what steers that?"}], max_tokens=5
        )
        assert first.usage is not None
        assert second.usage is not None
        assert second.usage.prompt_tokens_details is not None
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert cached == (first.usage.total_tokens - 1) // 16 * 16  # the last token was never computed

    with_client(check, enable_prompt_tokens_details=True)
