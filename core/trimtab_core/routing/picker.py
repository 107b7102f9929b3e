"""The picker: one endpoint out of those of a tier. Asked for every request, so its tests stand in its loop.

It walks round the endpoints from a random one on and takes the freest of the first ``ENOUGH`` that fit, going on only
while none of them has room. An endpoint fits if it is ready, not ejected, and has not failed this very request; it is
freer the smaller ``in_flight / capacity`` is, so that a replica of twice the capacity gets twice the requests, and a
queue that grows keeps others away by itself. The best of a few random ones is nearly as even as the best of all, costs
the same for any fleet, and keeps routers that don't know of each other from all choosing one endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

ENOUGH = 8


class Candidate(Protocol):
    """What the picker may see of an endpoint.

    Attributes:
        ready: the table says that it serves; warming, draining and sleeping ones get nothing new.
        in_flight: requests under way through this router.
        capacity: running sequences up to which the SLO holds, at least 1.
        ejected_until: monotonic seconds; it gets nothing before. After its time it gets traffic again, until its next
            failure.
    """

    ready: bool
    in_flight: int
    capacity: float
    ejected_until: float


C = TypeVar("C", bound=Candidate)


def pick(candidates: Sequence[C], rng: random.Random, *, now: float = 0.0, tried: Collection[C] = ()) -> C | None:
    """The freest candidate; ties go to the first one from a random start. None if none fits.

    Room is a wish, not a rule: when no endpoint has any, the freest takes the request, for engines queue on their own.

    Args:
        candidates: of one tier.
        rng: where to start.
        now: monotonic seconds.
        tried: those that have failed this request.
    """
    count = len(candidates)
    start = int(rng.random() * count) if count > 1 else 0
    best, least, seen = None, float("inf"), 0
    for at in range(start - count, start):  # from -1 downwards lists count from their end
        each = candidates[at]
        if each.ready and each.ejected_until <= now and (not tried or each not in tried):
            load = each.in_flight / each.capacity
            if load < least:
                best, least = each, load
            seen += 1
            if seen >= ENOUGH and least < 1:
                break
    return best


def last_resort(candidates: Sequence[C], *, tried: Collection[C]) -> C | None:
    """The ejected endpoint that returns soonest, for when nothing else is left: better asked than refused."""
    left = [each for each in candidates if each.ready and each not in tried]
    return min(left, key=lambda each: each.ejected_until, default=None)
