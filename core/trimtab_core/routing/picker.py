"""The picker: one endpoint out of those that fit.

It walks round the endpoints from a random one on and takes the freest of the first ``ENOUGH`` that fit, going on only
while none of them has room. The best of a few random ones is nearly as even as the best of all, costs the same for
any fleet, and keeps routers that don't know of each other from all choosing one endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from trimtab_core.routing import filters, scorers

ENOUGH = 8


def pick(
    candidates: Sequence[filters.C], rng: random.Random, *, now: float = 0.0, tried: Collection[filters.C] = ()
) -> filters.C | None:
    """The candidate of the highest score; ties go to the first one from a random start. None if none fits.

    Room is a wish, not a rule: when no endpoint has any, the freest takes the request, for engines queue on their own.
    """
    count = len(candidates)
    start = int(rng.random() * count) if count > 1 else 0
    best, highest, seen = None, float("-inf"), 0
    for at in range(start - count, start):  # from -1 downwards lists count from their end
        each = candidates[at]
        if filters.eligible(each, now=now, tried=tried):
            score = scorers.free_share(each)
            if score > highest:
                best, highest = each, score
            seen += 1
            if seen >= ENOUGH and highest > 0:
                break
    return best
