"""What an engine did between two readings of its counters: how long tokens took, with how many others, behind what.

Each engine counts the times between output tokens, their number, and the prompt tokens that it computed. Between two
readings τ seconds apart a token took ``y = Δ gap seconds / Δ gaps``, on average ``n = Δ gap seconds / τ`` sequences
were decoding (each adds one second of gaps a second: an average over all of τ, where the gauge of running requests
knows two moments), and a step computed ``x = Δ prompt tokens · y / τ`` prompt tokens. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OWN_SEQUENCE = 0.5
"""Sequences that a token sees beyond the average over time: itself counts whenever it is there."""
SHORTEST_SECONDS, LONGEST_SECONDS = 4.0, 300.0
"""Between two readings: shorter intervals hold too few tokens, in longer ones anything may have happened."""
LEAST_GAPS = 50.0
LEAST_SEQUENCES = 0.5
"""An engine that idles most of the time says nothing about its steps' number."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One engine's counters at one moment.

    Attributes:
        at: epoch seconds.
        gap_seconds, gaps: sum and number of times between output tokens, ever.
        prompt_tokens: input tokens computed, ever.
        kv_tokens: tokens that fit in the KV cache; 0 where the engine does not say.
    """

    at: float
    gap_seconds: float
    gaps: float
    prompt_tokens: float
    kv_tokens: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether all of it are finite numbers of at least 0."""
        values = (self.at, self.gap_seconds, self.gaps, self.prompt_tokens, self.kv_tokens)
        return all(math.isfinite(value) and value >= 0 for value in values)


@dataclass(frozen=True, slots=True)
class Interval:
    """What one engine did between two readings.

    Attributes:
        seconds: its length.
        itl_seconds: mean time between two output tokens, above 0.
        sequences: mean number that were decoding.
        tokens_per_step: prompt tokens computed in a step.
    """

    seconds: float
    itl_seconds: float
    sequences: float
    tokens_per_step: float


def between(last: Reading, now: Reading) -> Interval | None:
    """What an engine did meanwhile; None if it restarted, idled, or the readings are too near or too far apart."""
    seconds = now.at - last.at
    gap_seconds, gaps = now.gap_seconds - last.gap_seconds, now.gaps - last.gaps
    tokens = now.prompt_tokens - last.prompt_tokens
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS or min(gap_seconds, tokens) < 0 or gaps < LEAST_GAPS:
        return None
    sequences, itl = gap_seconds / seconds, gap_seconds / gaps
    if sequences < LEAST_SEQUENCES or itl <= 0:
        return None
    # Prompts come whether the engine idles or not, and those that find it idle delay nobody: their mean is over all
    # of the time, where that of sequences is over tokens.
    return Interval(seconds, itl, max(1.0, sequences + OWN_SEQUENCE), tokens * itl / seconds)
