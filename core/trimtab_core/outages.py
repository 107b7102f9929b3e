"""Times when nobody could call: traffic that drops to nothing at once, and comes back as it was. Pure.

Such a hole says nothing about demand. Read as a trend it would forecast less than nothing, then a flood; read as an
error it would widen every margin for hours; read as a season it would come back each week. So forecasts and seasons
leave it out. Traffic that pauses often is not out: that is how it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Sample = tuple[float, float]
"""Epoch seconds, arrivals per second."""

NOTHING_RATIO = 0.05
"""Below this share of the level before, nothing arrives."""
BACK_RATIO = 0.25
"""From this share of the level before, traffic is back."""
LEAST_EXPECTED = 20.0
"""Arrivals that the level would have brought in one counting window: with fewer, none may be chance (e^-20)."""
LEVEL_SECONDS = 300.0
"""Time constant of the level, and how long it must have been watched."""
DROP_SECONDS = 120.0
"""Half of the level must have been there so shortly before: with rates over a minute, a drop at once takes one."""
EDGE_SECONDS = 60.0
"""Rates are means over the last minute, so that the edges of a hole look like ramps; they are left out with it."""
LONGEST_SECONDS = 3600.0
"""What lasts longer is how traffic is from now on."""
MOST = 2
"""With more holes than this in the history, pauses are the nature of the traffic."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One hole, with its edges.

    Attributes:
        start, end: epoch seconds; ``end`` is infinite while it lasts.
        level: arrivals per second before it.
    """

    start: float
    end: float
    level: float

    def holds(self, moment: float) -> bool:
        """Whether ``moment`` lies in it or on its edges."""
        return self.start - EDGE_SECONDS <= moment <= self.end + EDGE_SECONDS


def find(samples: Sequence[Sample]) -> tuple[Outage, ...]:
    """The outages in a history, oldest first; none where traffic pauses often.

    Args:
        samples: finite, non-negative, in rising order of time.
    """
    found: list[Outage] = []
    open_since, level, before = math.inf, 0.0, -math.inf
    seconds, high_at = 0.0, -math.inf  # how long the level has been watched; when half of it was last there
    for at, value in samples:
        if open_since < math.inf:
            if value >= BACK_RATIO * level:
                found.append(Outage(open_since, at, level))
            elif at - open_since <= LONGEST_SECONDS:
                continue
            open_since = math.inf
            if value < BACK_RATIO * level:
                level, seconds = value, 0.0
        elif seconds >= LEVEL_SECONDS and at - high_at <= DROP_SECONDS and _nothing(value, level):
            open_since = at
            continue
        elapsed = min(at - before, LEVEL_SECONDS)
        level += (value - level) * (1.0 - math.exp(-elapsed / LEVEL_SECONDS) if seconds else 1.0)
        seconds += elapsed if before > -math.inf else 0.0
        before = at
        high_at = at if value >= level / 2.0 else high_at
    if open_since < math.inf:
        found.append(Outage(open_since, math.inf, level))
    return tuple(found) if len(found) <= MOST else ()


def _nothing(value: float, level: float) -> bool:
    """Whether next to nothing arrives where much should."""
    return value < NOTHING_RATIO * level and level * EDGE_SECONDS >= LEAST_EXPECTED
