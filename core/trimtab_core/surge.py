"""What arrives right now, where it has risen at once: a rate over a minute shows a step after a minute. Pure.

When arrivals step from r to R, a rate over a window W shows r + (R - r)·t/W after t seconds: a straight line.
So what it has risen by since the rise began, times W over the time since then, is the whole step. The step fell
somewhere between two samples and t is counted from the one before it, so the answer is never too high by that. A rise
that chance may have made, or that lasts longer than the window, is left to the forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Sample = tuple[float, float]
"""Epoch seconds, arrivals per second."""

WINDOW_SECONDS = 60.0
"""Over which observers take rates."""
DEVIATIONS = 5.0
"""A rise of fewer standard deviations of the counts may be chance: one in three million, if arrivals are as bunched as
they are said to be."""
GROWTH = 1.5
"""A rise to less than so many times the level before is no surge."""
_PART = 0.1
"""A sample that adds less than this share to the rise after it is not a part of it, but noise."""


def present(history: Sequence[Sample], dispersion: float = 1.0) -> float:
    """Arrivals per second now: the last sample, or more where a step shows in those before it; 0 without any.

    Args:
        history: fresh rates, oldest first, the present one last.
        dispersion: variance of arrival counts over their mean; 1 is Poisson.
    """
    if not history:
        return 0.0
    at, last = history[-1]
    began, base = at, last
    for earlier, value in reversed(history[:-1]):
        if base - value <= _PART * max(last - value, 0.0):
            break
        if at - earlier >= WINDOW_SECONDS:
            return last
        began, base = earlier, value
    elapsed = at - began
    if elapsed <= 0:
        return last
    chance = DEVIATIONS * math.sqrt(max(1.0, dispersion) * last * elapsed) / WINDOW_SECONDS
    if last - base <= chance or last < GROWTH * base:
        return last
    return base + (last - base) * WINDOW_SECONDS / elapsed
