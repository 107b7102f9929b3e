"""How long engines of one tier take to their first byte: learned, for hedging. No clock, no I/O.

A histogram of logarithmic buckets that forgets: every ``_FORGET_EVERY`` observations all counts are halved, so that
what was seen lately counts most.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

_GROWTH = 1.15
_LEAST_SECONDS = 0.001
_BOUNDS = tuple(_LEAST_SECONDS * _GROWTH**step for step in range(90))
"""1 ms to 250 s, each 15 % above the one before: a quantile is known to 15 %."""

_FORGET_EVERY = 1000
ENOUGH = 30
"""Fewer observations than this tell nothing of a 95th percentile."""


class FirstBytes:
    """The distribution of one tier's times to the first byte.

    Attributes:
        hedge_after: seconds after which a second engine may be asked; infinite while nothing is known or none may be.
    """

    __slots__ = ("_counts", "_seen", "hedge_after")

    def __init__(self) -> None:
        self._counts = [0.0] * (len(_BOUNDS) + 1)
        self._seen = 0
        self.hedge_after = math.inf

    def observe(self, seconds: float) -> None:
        """One request's time from being sent to its first byte of content."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._seen += 1
        if self._seen % _FORGET_EVERY == 0:
            self._counts = [count / 2 for count in self._counts]

    def quantile(self, share: float) -> float:
        """The time that this share of requests stayed within, in seconds; infinite while too little was seen."""
        if self._seen < ENOUGH:
            return math.inf
        wanted = share * sum(self._counts)
        for bound, below in zip(_BOUNDS, accumulate(self._counts), strict=False):
            if below >= wanted:
                return bound
        return math.inf

    def learn(self, share: float) -> None:
        """Work out ``hedge_after`` anew.

        Args:
            share: of requests that stay within it; 0 never hedges.
        """
        self.hedge_after = self.quantile(share) if share > 0 else math.inf
