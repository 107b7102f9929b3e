"""
What the engine will answer, decided whole at admission. Pure and deterministic by prompt, seed and choice index.

A real engine finds its answer token by token; here it is known before the first step, so the scheduler only counts
and the stream only slices. Length: with `ignore_eos` exactly `max_tokens`; else a length drawn from the prompt's
hash, uniform between half and one and a half times the configured mean and never under `min_tokens`, of which the
last is the end-of-sequence token (it counts in usage and adds no text).
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
from collections.abc import Sequence

from trimtab_sim.engine_sim import book, tokens

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OPENING_WORDS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerRequest:
    """
    What an answer depends on.

    Attributes:
        prompt: Token ids of the prompt.
        max_tokens: Upper bound of generated tokens, at least 1.
        mean_tokens: Mean natural length in tokens, used unless `ignore_eos`.
        seed: The request's seed; None counts as a seed of its own.
        choice: Index among `n` choices.
        min_tokens: No end of sequence and no stop string before so many tokens.
        ignore_eos: Run to `max_tokens`.
        stop: Strings that end the answer and are cut from it.
        keep_stop: Leave the stop string in the text (`include_stop_str_in_output`).
        forced_text: Text that a grammar forces (JSON by schema, a tool call); None for prose.

    """

    prompt: Sequence[int]
    max_tokens: int
    mean_tokens: int
    seed: int | None = None
    choice: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    forced_text: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """
    A whole answer; the three lists run in parallel, one entry a generated token.

    Attributes:
        ids: Token ids, the end-of-sequence token included.
        deltas: Text that becomes visible with each token.
        fragments: `deltas` as the inside of a JSON string, UTF-8.
        finish_reason: `stop` or `length`.
        stop_reason: The stop string that ended it, or None.

    """

    ids: list[int]
    deltas: list[str]
    fragments: list[bytes]
    finish_reason: str
    stop_reason: str | None

    def text(self, count: int) -> str:
        """Return the visible text after `count` tokens."""
        return "".join(self.deltas[:count])


def prompt_digest(prompt: Sequence[int], *, seed: int | None, choice: int) -> int:
    """Return a 128-bit number that is the same for the same prompt, seed and choice in every process."""
    digest = hashlib.blake2b(array.array("I", prompt).tobytes(), digest_size=16)
    digest.update(f"/{seed}/{choice}".encode())
    return int.from_bytes(digest.digest(), "big")


def plan_answer(request: AnswerRequest) -> Answer:
    """Return the answer to a request; equal requests give equal answers."""
    number = prompt_digest(request.prompt, seed=request.seed, choice=request.choice)
    if request.forced_text is not None:
        whole = _from_text(request.forced_text, max_tokens=request.max_tokens)
    else:
        whole = _from_ring(request, number)
    return _apply_stop(whole, request) if request.stop else whole


def _natural_tokens(request: AnswerRequest, number: int) -> int:
    fraction = (number >> 64 & 0xFFFF) / 0x10000
    return max(1, request.min_tokens + 1, round(request.mean_tokens * (0.5 + fraction)))


def _from_ring(request: AnswerRequest, number: int) -> Answer:
    natural = request.max_tokens + 1 if request.ignore_eos else _natural_tokens(request, number)
    ended = natural <= request.max_tokens
    count = natural - 1 if ended else request.max_tokens
    ring = book.ring()
    opening = _opening(number)
    ids = tokens.encode(opening)
    deltas = book.split_deltas(ids)
    fragments = [delta.encode() for delta in deltas]
    start = ring.starts[number % len(ring.starts)]
    while len(ids) < count:
        end = start + count - len(ids)
        ids += ring.ids[start:end]
        deltas += ring.deltas[start:end]
        fragments += ring.fragments[start:end]
        start = 0
    del ids[count:], deltas[count:], fragments[count:]
    return _ended(ids, deltas, fragments) if ended else Answer(ids, deltas, fragments, "length", None)


def _opening(number: int) -> str:
    """Return a few made-up words that make answers to different prompts differ from the first token on."""
    words = []
    for _ in range(_OPENING_WORDS):
        letters = []
        for _ in range(tokens.PIECE_LENGTH - 1):
            number, digit = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[digit])
        words.append("".join(letters) + " ")
    return "".join(words)


def _ended(ids: list[int], deltas: list[str], fragments: list[bytes]) -> Answer:
    return Answer([*ids, tokens.EOS], [*deltas, ""], [*fragments, b""], "stop", None)


def _from_text(text: str, *, max_tokens: int) -> Answer:
    ids = tokens.encode(text)
    whole = len(ids) < max_tokens
    del ids[max_tokens:]
    deltas = book.split_deltas(ids)
    fragments = [book.escape(delta) for delta in deltas]
    return _ended(ids, deltas, fragments) if whole else Answer(ids, deltas, fragments, "length", None)


def _apply_stop(whole: Answer, request: AnswerRequest) -> Answer:
    """Cut the answer at the first stop string, and hold back text that could still become part of one."""
    text = whole.text(len(whole.ids))
    ends: list[int] = []
    for delta in whole.deltas:
        ends.append((ends[-1] if ends else 0) + len(delta))
    free = ends[min(request.min_tokens, len(ends)) - 1] if request.min_tokens else 0
    found = [
        (at + len(word), at, word)
        for word in request.stop
        if word and (at := text.find(word, max(0, free - len(word)))) >= 0
    ]
    held = 0 if request.keep_stop else max(map(len, request.stop)) - 1
    if not found:
        return _with_text(whole, ends, visible=len(text), held=held)
    end, at, word = min(found)
    count = next(index for index, total in enumerate(ends) if total >= end) + 1
    cut = dataclasses.replace(whole, ids=whole.ids[:count], finish_reason="stop", stop_reason=word)
    return _with_text(cut, ends[:count], visible=end if request.keep_stop else at, held=held, text=text)


def _with_text(answer: Answer, ends: list[int], *, visible: int, held: int, text: str | None = None) -> Answer:
    """Return the answer with `visible` characters of text, `held` of them withheld until the last token."""
    source = answer.text(len(answer.ids)) if text is None else text
    deltas: list[str] = []
    shown = 0
    for end in ends:
        upto = max(shown, min(visible, end - held))
        deltas.append(source[shown:upto])
        shown = upto
    if deltas:
        deltas[-1] += source[shown:visible]
    return dataclasses.replace(answer, deltas=deltas, fragments=[book.escape(delta) for delta in deltas])
