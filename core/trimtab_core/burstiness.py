"""How bunched arrivals are over the few seconds that matter for queueing: the index of dispersion of counts. Pure.

Arrivals are counted in windows of ``WINDOW_SECONDS``. The variance of these counts over their mean is 1 for Poisson
arrivals, at any rate; for independent gaps it approaches their squared coefficient of variation, which is what the
capacity model's ``(1 + c²)/2`` asks for (D. R. Cox, P. A. W. Lewis, *The Statistical Analysis of Series of Events*,
1966). Counts are preferred over gaps because gaps mistake coarse clocks for bursts: on the Mooncake trace, whose
times are multiples of 3 s, c² of the gaps is 8.7 while a 5-second queue sees an index of 2.5. And idle minutes
are no bursts: they inflate c² of the Azure 2023 code trace from 11 (gaps up to 5 s) to 165, where this index reads 20.

A router keeps one counter, the sum of the squared counts; the reader does the rest with the rates of both.
"""

from __future__ import annotations

import math

from trimtab_core import signals

WINDOW_SECONDS = 2.0
"""Length of a counting window: prefill queues live for about a second, decoding ones for ten."""
LEAST_ARRIVALS = 5.0
"""Arrivals that a reading must rest on; fewer say nothing about bursts."""


class Windows:
    """The counting window that is open, for one stream of arrivals."""

    __slots__ = ("_count", "_number")

    def __init__(self) -> None:
        self._number = -1
        self._count = 0

    def arrive(self, now: float) -> int:
        """One arrival at ``now`` (seconds of any clock): by how much the sum of the squared counts grows.

        ``(n + 1)² - n² = 2·n + 1``, so that the sum is exact at any moment, also in the middle of a window.
        """
        number = int(now // WINDOW_SECONDS)
        if number != self._number:
            self._number, self._count = number, 0
        before = self._count
        self._count = before + 1
        return 2 * before + 1


def index(
    arrivals_per_second: signals.Signal, squares_per_second: signals.Signal, *, seconds: float, routers: int = 1
) -> signals.Signal:
    """The index of dispersion of a stream of arrivals; missing while too few arrived to tell.

    Args:
        arrivals_per_second: rate of arrivals over all routers.
        squares_per_second: rate of the sums of squared counts.
        seconds: over which both rates were taken.
        routers: that share the stream. Each sees a part chosen at random, whose excess over 1 is that much smaller
            (thinning: I_part - 1 = (I - 1)/routers), so it is multiplied back.
    """
    rate, squares_rate = signals.known(arrivals_per_second), signals.known(squares_per_second)
    if rate is None or rate * seconds < LEAST_ARRIVALS:
        return signals.Missing("too few arrivals to tell")
    if squares_rate is not None and squares_rate < rate / 2.0:  # every arrival adds at least 1
        return signals.Missing("the routers don't count it")
    windows = max(2.0, seconds / WINDOW_SECONDS * max(1, routers))
    mean = rate * seconds / windows

    def dispersion(parts: list[float]) -> float:
        arrivals, squares = parts
        # Second moment over mean, less the mean; Bessel's correction for the windows that were looked at.
        part = (squares / arrivals - mean) * windows / (windows - 1.0)
        return max(0.0, 1.0 + (part - 1.0) * max(1, routers))

    found = signals.combine((arrivals_per_second, squares_per_second), dispersion)
    return found if isinstance(found, signals.Missing) or math.isfinite(found.value) else signals.Missing("not finite")
