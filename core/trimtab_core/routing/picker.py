"""The picker: one endpoint out of those of a tier. Asked for every request, so its tests stand in its loop.

Filter, score, pick: it walks round the endpoints from a random one on and takes the least loaded of the first
``ENOUGH`` that ``filters`` lets through, going on only while none of them has room. The best of a few random ones is
nearly as even as the best of all, costs the same for any fleet, and keeps routers that don't know of each other from
all choosing one endpoint. A request with an affinity goes to its own endpoint instead, while that is not overloaded.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from trimtab_core.routing import affinity

ENOUGH = 8


class Candidate(Protocol):
    """What the picker may see of an endpoint.

    Attributes:
        name: stable over its life.
        ready: it gets new requests; see ``filters.admits``.
        in_flight: requests under way through this router.
        penalty: requests that it counts as having more; see ``scorers.penalty``.
        capacity: running sequences up to which the SLO holds, at least 1.
    """

    name: str
    ready: bool
    in_flight: int
    penalty: float
    capacity: float


C = TypeVar("C", bound=Candidate)


def pick(candidates: Sequence[C], rng: random.Random, *, tried: Collection[C] = ()) -> C | None:
    """The least loaded candidate; ties go to the first one from a random start. None if none fits.

    Room is a wish, not a rule: when no endpoint has any, the least loaded takes the request, for engines queue on
    their own. Who would rather queue here looks at the endpoint that is picked: it has room if any has.

    Args:
        candidates: of one tier.
        rng: where to start.
        tried: those that have failed this request.
    """
    count = len(candidates)
    start = int(rng.random() * count) if count > 1 else 0
    best, least, seen = None, float("inf"), 0
    for at in range(start - count, start):  # from -1 downwards lists count from their end
        each = candidates[at]
        if each.ready and (not tried or each not in tried):
            load = (each.in_flight + each.penalty) / each.capacity  # scorers.load
            if load < least:
                best, least = each, load
            seen += 1
            if seen >= ENOUGH and least < 1:
                break
    return best


def pick_near(
    candidates: Sequence[C], ring: affinity.Ring[C], place: int, rng: random.Random, *, tried: Collection[C] = ()
) -> C | None:
    """The candidate that a key belongs to, while its load is bounded; else as ``pick``.

    Args:
        candidates: of one tier.
        ring: of the same candidates.
        place: the request's, from ``affinity.key``.
        rng: for ``pick``.
        tried: those that have failed this request.
    """
    total, capacity = 1.0, 0.0
    for each in candidates:
        if each.ready:
            total += each.in_flight + each.penalty
            capacity += each.capacity
    full = 0
    for owner in ring.owners(place):
        if owner.ready and (not tried or owner not in tried):
            most = affinity.limit(owner.capacity, total=total, total_capacity=capacity)
            if owner.in_flight + owner.penalty + 1 <= most:
                return owner
            full += 1
            if full == affinity.FULL_OWNERS:
                break
    return pick(candidates, rng, tried=tried)
