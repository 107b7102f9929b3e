"""Dispatch: which endpoint a request goes to next. The picker is core's; this walks the tiers."""

from __future__ import annotations

import random
from collections.abc import Collection

from trimtab_core.routing import picker

from trimtab_router import compiled, endpoints

Choice = tuple[compiled.Tier, endpoints.Endpoint]


def choose(
    class_: compiled.Class,
    first: str,
    *,
    closed: bool,
    tried: Collection[endpoints.Endpoint],
    now: float,
    rng: random.Random,
) -> Choice | None:
    """The next endpoint to ask, None if nothing that may serve is there.

    In this order: the tier that the weights chose, the other allowed ones (better upwards, then lesser
    downwards), tiers beyond the class's own if it falls back to any, and at last an ejected endpoint of an
    allowed tier. A class that fails closed has no tiers beyond its own.

    Args:
        class_: the request's.
        first: the tier that the weights chose.
        closed: never leave the class's own tiers, whatever the class says: the request is sensitive.
        tried: endpoints that failed it already.
        now: monotonic seconds.
        rng: breaks ties.
    """
    for tier in class_.reach.order(first, closed=closed):
        endpoint = picker.pick(tier.endpoints, rng, now=now, tried=tried)
        if endpoint is not None:
            return tier, endpoint
    for tier in class_.reach.own[first]:
        endpoint = picker.last_resort(tier.endpoints, tried=tried)
        if endpoint is not None:
            return tier, endpoint
    return None
