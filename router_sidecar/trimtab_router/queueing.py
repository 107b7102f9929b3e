"""Who waits, and who is next: the bounded queue of one tier. No clock, no I/O: it orders tickets.

First by priority, strictly. Within a priority the tenant that was given least, counted in tokens (the idea of fair
queueing by virtual time, for language models in Sheng et al., OSDI 2024): one that floods the queue waits for its own
requests, not others for them. Among one tenant's requests the earliest deadline. A full queue gives up the request
that would have come last, if the new one comes before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

NORMAL = 1
BATCH = 2
_BANDS = {b"high": 0, b"interactive": 0, b"normal": NORMAL, b"low": BATCH, b"batch": BATCH}
_BAND_COUNT = 3

TOKENS_PER_ANSWER = 256.0
"""What a request is taken to cost beside its prompt; how long its answer gets nobody knows yet."""
BYTES_PER_TOKEN = 4.0

_STALE = 64
"""Tickets that left before their turn may make up half of a heap, beyond so many."""


def band(priority: bytes) -> int:
    """The band of a value of ``X-Trimtab-Priority``; the least one goes first, unknown words count as normal."""
    return _BANDS.get(priority.lower(), NORMAL)


class Ticket:
    """One waiting request.

    Attributes:
        band: from ``band``.
        tenant: empty if unknown.
        deadline: monotonic seconds; when it should have its first byte.
        size: bytes that it holds in memory.
        waiting: in a queue at this moment.
    """

    __slots__ = ("band", "deadline", "size", "tenant", "waiting")

    def __init__(self, tenant: str, deadline: float, *, size: int, band: int = NORMAL) -> None:
        self.band, self.tenant, self.deadline, self.size = band, tenant, deadline, size
        self.waiting = False

    @property
    def cost(self) -> float:
        """Tokens that it is taken to need."""
        return TOKENS_PER_ANSWER + self.size / BYTES_PER_TOKEN


T = TypeVar("T", bound=Ticket)


class _Line(Generic[T]):
    """The tickets of one tenant in one band, by deadline; those that left stay in the heap until they come up."""

    __slots__ = ("count", "heap")

    def __init__(self) -> None:
        self.count = 0
        self.heap: list[tuple[float, int, T]] = []

    def push(self, ticket: T, number: int) -> None:
        heapq.heappush(self.heap, (ticket.deadline, number, ticket))
        self.count += 1

    def pop(self) -> T:
        while True:
            ticket = heapq.heappop(self.heap)[2]
            if ticket.waiting:
                self.count -= 1
                return ticket

    def remove(self) -> None:
        self.count -= 1
        if len(self.heap) > 2 * self.count + _STALE:
            self.heap = [each for each in self.heap if each[2].waiting]
            heapq.heapify(self.heap)

    def last(self) -> T:
        """The one that would come last."""
        return max((each for each in self.heap if each[2].waiting), key=lambda each: each[:2])[2]


class Queue(Generic[T]):
    """The waiting requests of one tier.

    Attributes:
        bytes: of all that wait.
    """

    __slots__ = ("_bands", "_count", "_given", "_now", "_pushed", "bytes")

    def __init__(self) -> None:
        self._bands: tuple[dict[str, _Line[T]], ...] = tuple({} for _ in range(_BAND_COUNT))
        self._given: dict[str, float] = {}
        self._now = 0.0
        self._count = self._pushed = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def ahead(self, band: int) -> int:
        """How many wait in this band and in those before it."""
        return sum(line.count for lines in self._bands[: band + 1] for line in lines.values())

    def push(self, ticket: T) -> None:
        """Let a request wait. Whether there is room for it is ``make_room``'s to say."""
        tenant = ticket.tenant
        if not any(tenant in lines for lines in self._bands):
            # Who comes anew has not saved up for the time it was away.
            self._given[tenant] = max(self._given.get(tenant, 0.0), self._now)
        line = self._bands[ticket.band].get(tenant)
        if line is None:
            line = self._bands[ticket.band][tenant] = _Line()
        self._pushed += 1
        line.push(ticket, self._pushed)
        ticket.waiting = True
        self._count += 1
        self.bytes += ticket.size

    def make_room(self, ticket: T, *, most: int, most_bytes: int) -> list[T] | None:
        """Those that must go so that a new one may wait, taken out already; None if the new one itself must go.

        One goes for a request of a better band, or of a tenant that has fewer waiting in the same band.

        Args:
            ticket: that wants to wait.
            most: requests that may wait.
            most_bytes: of theirs.
        """
        if ticket.size > most_bytes or most < 1:
            return None
        gone: list[T] = []
        while self._count + 1 > most or self.bytes + ticket.size > most_bytes:
            victim = self._victim(ticket)
            if victim is None:
                for each in gone:
                    self.push(each)
                return None
            self.remove(victim)
            gone.append(victim)
        return gone

    def pop(self) -> T | None:
        """The next one; None if nobody waits."""
        for lines in self._bands:
            if lines:
                tenant = min(lines, key=lambda name: (self._given[name], name))
                line = lines[tenant]
                ticket = line.pop()
                self._now = max(self._now, self._given[tenant])
                self._given[tenant] += ticket.cost
                self._left(ticket)
                return ticket
        return None

    def remove(self, ticket: T) -> None:
        """Take one out before its turn; nothing happens if it does not wait here any more."""
        if ticket.waiting:
            ticket.waiting = False
            self._bands[ticket.band][ticket.tenant].remove()
            self._left(ticket)

    def drain(self) -> Iterator[T]:
        """All of them in order; the queue is as new after that."""
        while (ticket := self.pop()) is not None:
            yield ticket

    def _left(self, ticket: T) -> None:
        ticket.waiting = False
        self._count -= 1
        self.bytes -= ticket.size
        lines = self._bands[ticket.band]
        if not lines[ticket.tenant].count:
            del lines[ticket.tenant]
        if not self._count:
            self._given.clear()
            self._now = 0.0
        elif len(self._given) > 2 * self._count + _STALE:
            waiting = {tenant for each in self._bands for tenant in each}
            self._given = {tenant: had for tenant, had in self._given.items() if tenant in waiting}

    def _victim(self, ticket: T) -> T | None:
        for number in range(_BAND_COUNT - 1, -1, -1):
            lines = self._bands[number]
            if not lines:
                continue
            if number < ticket.band:
                return None
            line = max(lines.values(), key=lambda each: each.count)
            own = lines.get(ticket.tenant)
            if number == ticket.band and line.count <= (own.count if own is not None else 0) + 1:
                return None
            return line.last()
        return None
