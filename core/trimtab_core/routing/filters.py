"""Filters: which endpoints of a tier may take a request now. Each is one question about one endpoint."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What a filter or scorer may see of an endpoint.

    Attributes:
        ready: the table says that it serves.
        in_flight: requests under way through this router.
        capacity: running sequences up to which the SLO holds, at least 1.
        ejected_until: monotonic seconds; it gets nothing before.
    """

    ready: bool
    in_flight: int
    capacity: float
    ejected_until: float


C = TypeVar("C", bound=Candidate)


def is_ready(candidate: Candidate) -> bool:
    """The table lists it as ``Ready``; warming, draining and sleeping ones get nothing new."""
    return candidate.ready


def is_admitted(candidate: Candidate, now: float) -> bool:
    """It is not ejected, or its time is over: then it gets traffic again, and one failure ejects it at once."""
    return candidate.ejected_until <= now


def has_room(candidate: Candidate) -> bool:
    """``in_flight < capacity``."""
    return candidate.in_flight < candidate.capacity


def eligible(candidates: Sequence[C], *, now: float, tried: Collection[C]) -> list[C]:
    """Those that may take a request now: ready, not ejected, not tried before.

    Room is a wish, not a rule: when no endpoint has any, all of them stay, for the engines queue on their own.
    """
    fit = [each for each in candidates if is_ready(each) and is_admitted(each, now) and each not in tried]
    if len(fit) > 1:
        return [each for each in fit if has_room(each)] or fit
    return fit


def last_resort(candidates: Sequence[C], *, tried: Collection[C]) -> list[C]:
    """The ejected endpoint that returns soonest, for when nothing else is left: better asked than refused."""
    ready = [each for each in candidates if is_ready(each) and each not in tried]
    return [min(ready, key=lambda each: each.ejected_until)] if ready else []
