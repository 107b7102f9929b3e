"""Affinity: requests that share a prompt's beginning, or a session, meet at one endpoint, where it is cached already.

Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018): a key belongs to the next point on a
ring, and an endpoint that has more than ``BOUND`` times its fair share of what is in flight passes it on. Every router
works out the same owners from the endpoints' names alone, and of ``n`` endpoints one that goes moves 1/n of the keys.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import zlib
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

BOUND = 1.25
"""Most that affinity may give one endpoint, as a multiple of its fair share."""

FREE_SHARE = 0.25
"""Of its capacity, an endpoint takes this much of its keys' requests whatever the others have: it is hardly slower for
it, and a warm cache saves more than evenness."""

OWNERS = 3
"""Endpoints that a key may belong to, in ring order, if those before can't be asked."""

FULL_OWNERS = 2
"""How many of them may be full before the least loaded endpoint of all takes it: a beginning that everybody sends is
soon cached everywhere, and should not fill one engine after the other."""

PREFIX_BYTES = 1024
"""How much of a prompt's beginning makes its key: about 250 tokens. Shorter prompts have none: computing them anew
costs less than an uneven load."""

_POINTS = 32
_POINT_BYTES = 4


class Named(Protocol):
    """What a ring must know of an endpoint: ``name`` is stable over its life."""

    name: str


C = TypeVar("C", bound=Named)


def key(text: bytes, salt: bytes = b"") -> int:
    """The place of a text on every ring, in [0, 2^32). ``salt`` keeps those apart who share no cache."""
    return zlib.crc32(text, zlib.crc32(salt))


def limit(capacity: float, *, total: float, total_capacity: float) -> float:
    """Most requests that affinity may let an endpoint have, the new one counted; never more than its capacity.

    Args:
        capacity: of the endpoint.
        total: requests in flight on all endpoints of the tier that are ready, the new one counted.
        total_capacity: of those endpoints.
    """
    fair = total * capacity / total_capacity
    return min(capacity, max(math.ceil(BOUND * fair), FREE_SHARE * capacity))


class Ring(Generic[C]):
    """The endpoints of one tier on a ring; built when they change."""

    __slots__ = ("_owners", "_points")

    def __init__(self, endpoints: Sequence[C]) -> None:
        placed = sorted(
            ((point, at) for at, each in enumerate(endpoints) for point in _points(each.name)),
            key=lambda item: (item[0], endpoints[item[1]].name),
        )
        self._points = [point for point, _ in placed]
        order = [at for _, at in placed]
        self._owners = [tuple(endpoints[at] for at in _next(order, place)) for place in range(len(order))]

    def owners(self, place: int) -> tuple[C, ...]:
        """The endpoints that a key belongs to, the first one first: up to ``OWNERS`` of them.

        Args:
            place: from ``key``.
        """
        if not self._points:
            return ()
        return self._owners[bisect.bisect_left(self._points, place) % len(self._points)]


def _points(name: str) -> list[int]:
    """Where an endpoint stands: drawn by a cryptographic hash, since names in a row must not stand in a row."""
    found = []
    for part in range(_POINTS * _POINT_BYTES // 64):
        digest = hashlib.blake2b(f"{name}#{part}".encode()).digest()
        found += [int.from_bytes(digest[at : at + _POINT_BYTES]) for at in range(0, len(digest), _POINT_BYTES)]
    return found


def _next(order: Sequence[int], start: int) -> list[int]:
    """The first ``OWNERS`` different endpoints from one point on, clockwise."""
    found: list[int] = []
    for step in range(len(order)):
        at = order[(start + step) % len(order)]
        if at not in found:
            found.append(at)
            if len(found) == OWNERS:
                break
    return found
