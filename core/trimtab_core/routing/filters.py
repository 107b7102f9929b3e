"""Filters: whether an endpoint may be sent requests at all. Asked when something about it changes, not per request.

The answer is kept as the one flag ``ready`` that the picker reads. Which tiers a class allows is ``classes``' to say,
and which endpoints have failed a request is told to the picker with each pick. ``/health`` has no say: a frozen or
sleeping vLLM answers it with 200 (seen on 0.32); what counts is the table and the progress that a router sees itself.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab_core.routing import table


class Evidence(NamedTuple):
    """What one router has seen of an endpoint itself.

    Attributes:
        broken: its circuit breaker is open, or half open with its probe under way.
        stalled: it has streams under way and has brought no byte of any for too long.
        busy: it said 429 or 503, and the time that it asked for is not over.
    """

    broken: bool = False
    stalled: bool = False
    busy: bool = False


NOTHING_SEEN = Evidence()


def admits(state: table.EndpointState, seen: Evidence = NOTHING_SEEN) -> bool:
    """Whether the endpoint gets new requests: awake, not draining, and nothing seen that speaks against it.

    Args:
        state: as the table says.
        seen: by this router.
    """
    return state == "Ready" and not (seen.broken or seen.stalled or seen.busy)
