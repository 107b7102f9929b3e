"""Filters: which endpoints of a tier may take a request now. Each answers one question for a list of them."""

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


def ready(candidates: Sequence[C]) -> list[C]:
    """Those that the table lists as ``Ready``; warming, draining and sleeping ones get nothing new."""
    return [each for each in candidates if each.ready]


def admitted(candidates: Sequence[C], now: float) -> list[C]:
    """Those not ejected: ``ejected_until <= now``. After its time one gets traffic again, until its next failure."""
    return [each for each in candidates if each.ejected_until <= now]


def untried(candidates: Sequence[C], tried: Collection[C]) -> list[C]:
    """Those that have not failed this very request."""
    return [each for each in candidates if each not in tried]


def with_room(candidates: Sequence[C]) -> list[C]:
    """Those with ``in_flight < capacity``."""
    return [each for each in candidates if each.in_flight < each.capacity]


def eligible(candidates: Sequence[C], *, now: float, tried: Collection[C]) -> list[C]:
    """Those that may take a request now: ready, not ejected, not tried before.

    Room is a wish, not a rule: when no endpoint has any, all of them stay, for the engines queue on their own.
    """
    fit = admitted(ready(candidates), now)
    if tried:
        fit = untried(fit, tried)
    return with_room(fit) or fit if len(fit) > 1 else fit


def last_resort(candidates: Sequence[C], *, tried: Collection[C]) -> list[C]:
    """The ejected endpoint that returns soonest, for when nothing else is left: better asked than refused."""
    left = untried(ready(candidates), tried)
    return [min(left, key=lambda each: each.ejected_until)] if left else []
