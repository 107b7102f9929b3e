"""Dispatch: which endpoint a request goes to next. The picker is core's; this walks the tiers."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from trimtab_core.routing import picker

from trimtab_router import breaker, compiled, endpoints

Choice = tuple[compiled.Tier, endpoints.Endpoint]


def choose(
    tiers: Sequence[compiled.Tier],
    rng: random.Random,
    *,
    place: int | None = None,
    tried: Collection[endpoints.Endpoint] = (),
) -> Choice | None:
    """The next endpoint to ask, None if none of these tiers has one that may be sent requests now.

    Args:
        tiers: those that may serve, in their order; see ``classes.Reach``.
        rng: breaks ties.
        place: of the request on every tier's ring; None if it may go anywhere.
        tried: endpoints that failed it already.
    """
    for tier in tiers:
        if place is None or tier.ring is None:
            endpoint = picker.pick(tier.endpoints, rng, tried=tried)
        else:
            endpoint = picker.pick_near(tier.endpoints, tier.ring, place, rng, tried=tried)
        if endpoint is not None:
            return tier, endpoint
    return None


def last_resort(tiers: Sequence[compiled.Tier], *, now: float, tried: Collection[endpoints.Endpoint]) -> Choice | None:
    """One that is ejected or stalled, for when nothing else is left: better asked than refused.

    What asked for a rest gets it. Of the first tier that has any: one that moves, and that would be back soonest.

    Args:
        tiers: the allowed ones, in their order.
        now: monotonic seconds.
        tried: endpoints that failed it already.
    """
    for tier in tiers:
        left = [
            each
            for each in tier.endpoints
            if each.state == "Ready" and each not in tried and each.busy_until <= now and not _is_probed(each)
        ]
        if left:
            return tier, min(left, key=lambda each: (each.stalled, each.breaker.opened_until))
    return None


def resting(tiers: Sequence[compiled.Tier], now: float) -> tuple[compiled.Tier, float] | None:
    """The tier whose endpoint asked for the shortest rest, and the seconds left of it; None if none rests."""
    found = [(tier, each.busy_until - now) for tier in tiers for each in tier.endpoints if each.busy_until > now]
    return min(found, key=lambda item: item[1], default=None)


def _is_probed(endpoint: endpoints.Endpoint) -> bool:
    """One request is finding out whether it lives; more of them would find out no more."""
    return endpoint.breaker.state is breaker.State.HALF_OPEN and endpoint.breaker.probing
