"""Sizes: how many tokens a request takes at most, before anybody has counted them.

A prompt's tokens are bounded by what prompts of its class have taken for each byte so far; an answer's by the bound
that the client set, else by what answers of the class have taken. Both start high, so that ignorance reserves too much.
"""

from __future__ import annotations

import math

import msgspec

FIRST_TOKENS_PER_BYTE = 0.5
"""Twice what English takes; less than dense scripts or digits may."""
FIRST_OUTPUT_TOKENS = 4096
MARGIN = 1.5
TEMPLATE_TOKENS = 64
"""What chat templates put around a conversation."""
_LEARNED_AFTER = 32
_PER_ROUND = 256


class Size(msgspec.Struct, frozen=True):
    """Tokens of one request at most."""

    input_tokens: int
    output_tokens: int


class _Highest:
    """The highest of the last 256 to 512 values."""

    __slots__ = ("_before", "_count", "_now", "seen")

    def __init__(self) -> None:
        self._before = self._now = 0.0
        self._count = self.seen = 0

    def add(self, value: float) -> None:
        if self._count >= _PER_ROUND:
            self._before, self._now, self._count = self._now, 0.0, 0
        self._now = max(self._now, value)
        self._count += 1
        self.seen += 1

    @property
    def value(self) -> float:
        return max(self._before, self._now)


class Sizes:
    """What requests of one class have taken."""

    __slots__ = ("_outputs", "_per_byte")

    def __init__(self) -> None:
        self._per_byte, self._outputs = _Highest(), _Highest()

    def observe(self, *, body_bytes: int, input_tokens: int, output_tokens: int) -> None:
        """Learn from an answered request."""
        if body_bytes > 0 and input_tokens > 0:
            self._per_byte.add(max(0, input_tokens - TEMPLATE_TOKENS) / body_bytes)
            self._outputs.add(output_tokens)

    def worst(self, body_bytes: int, *, bound: int | None, answers: int = 1) -> Size:
        """The most that a request may take.

        Args:
            body_bytes: size of its body.
            bound: output tokens of one answer that it asks for at most; None if it does not say.
            answers: that it asks for.
        """
        per_byte = FIRST_TOKENS_PER_BYTE
        if self._per_byte.seen >= _LEARNED_AFTER:
            per_byte = min(1.0, MARGIN * self._per_byte.value)
        outputs = bound if bound is not None else self._worst_output()
        return Size(TEMPLATE_TOKENS + math.ceil(body_bytes * per_byte), outputs * max(1, answers))

    def _worst_output(self) -> int:
        if self._outputs.seen < _LEARNED_AFTER:
            return FIRST_OUTPUT_TOKENS
        return math.ceil(MARGIN * max(16.0, self._outputs.value))
