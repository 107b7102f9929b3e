"""The picker: one endpoint out of those that fit.

Up to ``EXACT`` endpoints are all compared. Among more, a random sample of that size is: the choice of the best
of a few random ones is nearly as even as the best of all, costs the same for any fleet, and keeps routers
that don't know of each other from all choosing one endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from trimtab_core.routing import filters, scorers

EXACT = 8


def pick(
    candidates: Sequence[filters.C],
    rng: random.Random,
    score: Callable[[filters.C], float] = scorers.free_share,
) -> filters.C | None:
    """The candidate of the highest score; ties go to a random one of them; None if there is none."""
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    if len(candidates) > EXACT:
        candidates = rng.sample(candidates, EXACT)
    best: list[filters.C] = []
    highest = float("-inf")
    for candidate in candidates:
        value = score(candidate)
        if value > highest:
            best, highest = [candidate], value
        elif value == highest:
            best.append(candidate)
    return best[0] if len(best) == 1 else best[int(rng.random() * len(best))]
