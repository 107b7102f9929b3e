"""Filters: which endpoints of a tier may take a request now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What a filter or scorer may see of an endpoint.

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


def eligible(candidate: Candidate, *, now: float, tried: Collection[Candidate]) -> bool:
    """Whether it may take a request now: it is ready, not ejected, and has not failed this very request."""
    return candidate.ready and candidate.ejected_until <= now and candidate not in tried


def last_resort(candidates: Sequence[C], *, tried: Collection[C]) -> C | None:
    """The ejected endpoint that returns soonest, for when nothing else is left: better asked than refused."""
    left = [each for each in candidates if each.ready and each not in tried]
    return min(left, key=lambda each: each.ejected_until, default=None)
