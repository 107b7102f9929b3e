"""What arrives right now, and soon, where it rises: a rate over a minute shows a step after a minute. Pure.

When arrivals step from r to R, a rate over a window W shows r + (R - r)·t/W after t seconds: a straight line.
So what it has risen by since the rise began, times W over the time since then, is the whole step. The step fell
somewhere between two samples and t is counted from the one before it, so the answer is never too high by that. A rise
that chance may have made is none.

A rise that goes on for longer than the window is a ramp: the rate is that of half a window ago, and what is ordered now
serves one start-up later. It is taken to go on until then, as forecasts scored on calmer times don't, but never to more
than half as much again: most ramps end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Sample = tuple[float, float]
"""Epoch seconds, arrivals per second."""

LEAST_ARRIVALS = 8.0
"""A rise by fewer requests than that is none: one that comes where none came is no surge."""
DEVIATIONS = 5.0
"""A rise of fewer standard deviations of the counts may be chance: one in three million, if arrivals are as bunched as
they are said to be."""
GROWTH = 1.5
"""A rise to less than so many times the level before is no surge."""
RAMP_DEVIATIONS = 4.0
"""The same for a ramp, which is asked about with every sample but answered within bounds."""
RAMP_MOST = 1.5
"""No ramp is carried on beyond this multiple of what arrives."""
LONGEST_RAMP = 0.5
"""No ramp is carried on for longer than this part of the window."""
BUNCHED = 4.0
"""Arrivals bunched more than this come in bursts, which are no ramps."""
_PART = 0.1
"""A sample that adds less than this share to the rise after it is not a part of it, but noise."""


def present(history: Sequence[Sample], window_seconds: float, dispersion: float = 1.0) -> float:
    """Arrivals per second now: the last sample, or more where a step shows in those before it; 0 without any.

    Args:
        history: fresh rates, oldest first, the present one last.
        window_seconds: over which observers take them.
        dispersion: variance of arrival counts over their mean; 1 is Poisson.
    """
    if not history:
        return 0.0
    at, last = history[-1]
    began, base = at, last
    for earlier, value in reversed(history[:-1]):
        if base - value <= _PART * max(last - value, 0.0):
            break
        if at - earlier >= window_seconds:
            return last
        began, base = earlier, value
    elapsed = at - began
    if elapsed <= 0:
        return last
    chance = max(LEAST_ARRIVALS, DEVIATIONS * math.sqrt(max(1.0, dispersion) * last * elapsed)) / window_seconds
    if last - base <= chance or last < GROWTH * base:
        return last
    return base + (last - base) * window_seconds / elapsed


def ahead(history: Sequence[Sample], seconds: float, window_seconds: float, dispersion: float = 1.0) -> float:
    """Arrivals per second so many seconds from now if a ramp goes on; those of now where there is none, 0 without any.

    Args:
        history: fresh rates, oldest first, the present one last.
        seconds: until what is ordered now serves.
        window_seconds: over which observers take them.
        dispersion: variance of arrival counts over their mean; 1 is Poisson.
    """
    if not history:
        return 0.0
    at, last = history[-1]
    earlier, value = next(((then, rate) for then, rate in reversed(history) if at - then >= window_seconds), (at, last))
    if at <= earlier or at - earlier > 2 * window_seconds or dispersion > BUNCHED:
        return last
    deviation = math.sqrt(max(1.0, dispersion) * (last + value) / window_seconds)
    chance = max(LEAST_ARRIVALS / window_seconds, RAMP_DEVIATIONS * deviation)
    if last - value <= chance:
        return last
    slope = (last - value) / (at - earlier)
    return min(RAMP_MOST * last, last + slope * (min(seconds, window_seconds * LONGEST_RAMP) + window_seconds / 2))
