"""Synthetic prompts for traces that hold lengths only: made-up texts of a wanted length and difficulty, seeded.

The router's real classifier runs on these texts, in the simulator and in the demo's HTTP load alike, so a request must
read like what it stands for: small talk and questions of fact (easy), writing and comparing (middling), code, proofs
and plans in several steps (hard). A few hold made-up personal data, a few repeat an earlier prompt. **The mix is an
assumption**, not a measurement: no public trace holds times and texts together. Knows nothing of classification.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from trimtab_sim import phrases
from trimtab_sim.engine_sim import tokens
from trimtab_sim.workload import Request

Message = dict[str, str]
"""One chat message: ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What the prompts are like; shares from 0 to 1. The rest, after easy and middling, is hard.

    Attributes:
        easy, middling: shares of difficulty below 1/3 and from 1/3 to 2/3.
        sensitive: share of prompts that hold personal data.
        repeated: share of requests that repeat an earlier prompt word for word.
    """

    easy: float = 0.60
    middling: float = 0.25
    sensitive: float = 0.04
    repeated: float = 0.05

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(f"mix: {field.name} must lie in 0 to 1, not {getattr(self, field.name):g}")
        if self.easy + self.middling > 1:
            raise ValueError(f"mix: easy + middling is {self.easy + self.middling:g}; at most 1 can be shared out")

    def __str__(self) -> str:
        hard = 1 - self.easy - self.middling
        return (
            f"{self.easy:.0%} easy, {self.middling:.0%} middling, {hard:.0%} hard; "
            f"{self.sensitive:.0%} sensitive, {self.repeated:.0%} repeated (synthetic prompts, assumed shares)"
        )


_HISTORY_FROM_TOKENS = 24
_LEVELS = 12
_VARIANTS = 6
_HISTORY_ANSWER = "noted."
_RANDOM_WORDS = 8
_PROSE = " ".join(phrases.WORDS) + " "
_WORD_STARTS = tuple(at + 1 for at, letter in enumerate(_PROSE[:-1]) if letter == " ")
_REPEAT_REACH = 300
_BANDS = 3


Row = tuple[int, float, int, int]
"""Number, seconds, input tokens and output tokens of a request that has no prompt yet."""


def assign(requests: Iterable[Request], *, seed: int, mix: Mix) -> tuple[Request, ...]:
    """Give every request its prompt; see ``label``."""
    rows = ((one.number, one.arrival_s, one.input_tokens, one.output_tokens) for one in requests)
    return tuple(label(rows, seed=seed, mix=mix))


def label(rows: Iterable[Row], *, seed: int, mix: Mix) -> Iterator[Request]:
    """Give one request after the other its prompt: how hard, whether sensitive, and which earlier one it repeats.

    A repeated prompt takes the lengths of the prompt that it repeats, since equal texts have equal lengths.
    """
    draw = random.Random(f"prompts {seed}").random
    repeated, sensitive_share = mix.repeated, mix.sensitive
    originals: deque[Request] = deque(maxlen=_REPEAT_REACH)
    for number, arrival_s, given, made in rows:
        if originals and draw() < repeated:
            source = originals[-1 - int(draw() ** 2 * len(originals))]
            yield dataclasses.replace(source, number=number, arrival_s=arrival_s)
            continue
        difficulty, sensitive = _difficulty(draw, mix), draw() < sensitive_share
        request = Request(number, arrival_s, given, made, difficulty, sensitive, number)
        yield request
        if not sensitive:  # nobody asks for the same personal matter again
            originals.append(request)


def _difficulty(draw: Callable[[], float], mix: Mix) -> float:
    which, within = draw(), draw()
    band = 0 if which < mix.easy else 1 if which < mix.easy + mix.middling else 2
    return (band + within) / _BANDS


def messages(request: Request, seed: int) -> list[Message]:
    """The prompt as chat messages: earlier conversation up to the wanted length, then the question.

    The length is counted with the tokenizer of ``engine_sim``, right to within a few tokens; chat templates add some.
    """
    rng = random.Random(f"prompt {seed} {request.prompt}")
    question = _question(request)
    missing = request.input_tokens - len(tokens.encode(question))
    if missing < 0:
        question = _shorten(question, request.input_tokens)
    if missing < _HISTORY_FROM_TOKENS:
        return [{"role": "user", "content": question}]
    return [*_history(missing, rng), {"role": "user", "content": question}]


def text(request: Request, seed: int) -> str:
    """All of the prompt in one piece, for ``/v1/completions`` and for counting."""
    return "\n".join(message["content"] for message in messages(request, seed))


Signature = tuple[int, int, bool, int]
"""Level, variant, sensitivity, and twice the binary logarithm of the length."""


def signature(request: Request) -> Signature:
    """All that a classifier can tell of a prompt, but for the words of the padding and the exact length.

    Classifying one request of a signature serves for all, which keeps a simulated request at microseconds.
    """
    half_octaves = round(math.log2(request.input_tokens) * 2)
    return _level(request), request.prompt % _VARIANTS, request.sensitive, half_octaves


def representative(of: Signature) -> Request:
    """A request of that signature."""
    level, variant, sensitive, half_octaves = of
    return Request(0, 0.0, max(1, round(2 ** (half_octaves / 2))), 1, (level + 0.5) / _LEVELS, sensitive, variant)


class Source(Hashable, Protocol):
    """Where a trace's prompts come from, and what is known of the answers to them."""

    def key(self, request: Request) -> Hashable:
        """Requests of equal key read alike to a classifier, which judges one of them for all."""
        ...

    def messages(self, request: Request) -> list[Message]:
        """The prompt as chat messages."""
        ...

    def outcome(self, request: Request, model: str) -> float | None:
        """How good a model's answer is known to be, 0 to 1; None where only the tier's prior can tell."""
        ...


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Made-up prompts; nothing is known of the answers to them."""

    seed: int

    def key(self, request: Request) -> Signature:
        """All that a classifier can tell."""
        return signature(request)

    def messages(self, request: Request) -> list[Message]:
        """A prompt of the request's signature."""
        return messages(representative(signature(request)), self.seed)

    def outcome(self, request: Request, model: str) -> float | None:
        """Nothing is known."""
        del request, model
        return None


def _level(request: Request) -> int:
    return min(int(request.difficulty * _LEVELS), _LEVELS - 1)


def _question(request: Request) -> str:
    """The question alone: by difficulty its kind, then more demands the harder it is within the kind."""
    per_band = _LEVELS // _BANDS
    band, step = divmod(_level(request), per_band)
    pool = (phrases.EASY, phrases.MIDDLING, phrases.HARD)[band]
    variant = request.prompt % _VARIANTS
    parts = [pool[(variant + step) % len(pool)], *(phrases.DEMANDS[at] for at in range(1, 1 + (step if band else 0)))]
    if request.sensitive:
        parts.insert(0, phrases.PERSONAL[variant % len(phrases.PERSONAL)])
    return " ".join(parts)


def _shorten(question: str, wanted: int) -> str:
    """The first words of a question that are at most ``wanted`` tokens; at least one character."""
    words = question.split(" ")
    while len(words) > 1 and len(tokens.encode(" ".join(words))) > wanted:
        words = words[: max(1, int(len(words) * 0.8))]
    shortened = " ".join(words)
    return shortened if len(tokens.encode(shortened)) <= wanted else shortened.lower()[: 4 * wanted]


def _history(wanted_tokens: int, rng: random.Random) -> list[Message]:
    """One earlier turn of plain words, 4 characters a token, that is ``wanted_tokens`` long with its answer.

    It begins with random words, so that prompts share no prefix that an engine's prefix cache could find.
    """
    length = 4 * (wanted_tokens - len(tokens.encode(_HISTORY_ANSWER)))
    begins = " ".join(rng.choices(phrases.WORDS, k=_RANDOM_WORDS)) + " "
    skipped = rng.choice(_WORD_STARTS)
    laps = (length + skipped) // len(_PROSE) + 1
    content = (begins + (_PROSE * laps)[skipped:])[:length]
    return [
        {"role": "user", "content": content},
        {"role": "assistant", "content": _HISTORY_ANSWER},
    ]
