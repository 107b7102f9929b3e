"""Scorers: how good an endpoint is for a request, as a number; higher is better. One function, one formula."""

from __future__ import annotations

from trimtab_core.routing import filters


def free_share(candidate: filters.Candidate) -> float:
    """``1 - in_flight / capacity``: the free share of what the endpoint can carry; negative when over it.

    A replica of twice the capacity gets twice the requests, and a queue that grows lowers the score by itself.
    """
    return 1 - candidate.in_flight / candidate.capacity
