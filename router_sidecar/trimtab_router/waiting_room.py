"""The waiting room of one tier: requests that wait for an engine to have room, or for the tier to wake from zero.

Both wait in one queue, so that a tier that wakes with one replica is not run over by all that waited for it. Bounded in
count, bytes and time. Whoever would wait longer than it is willing to is told at once.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from trimtab_core.routing import picker, table

from trimtab_router import endpoints, errors, queueing

if TYPE_CHECKING:
    from trimtab_router import compiled

_SMOOTHING = 0.3
"""Weight of the newest look at how many were let go a second."""

_LONGEST_RETRY_AFTER = 60


class Waiter(Protocol):
    """A request that waits. Exactly one of these ends its wait, unless it leaves by itself."""

    def let_in(self, endpoint: endpoints.Endpoint) -> None:
        """It is its turn, and this endpoint has room."""

    def turned_away(self, error: errors.RouterError) -> None:
        """Its place was needed for one that goes before it."""

    def wake(self, in_force: compiled.Table) -> None:
        """Everybody had to leave, because there is a new table."""


class Seat(queueing.Ticket):
    """A request's place in the queue.

    Attributes:
        waiter: whose it is.
        since: monotonic seconds.
    """

    __slots__ = ("since", "waiter")

    def __init__(
        self, waiter: Waiter, tenant: str, *, since: float, deadline: float, size: int, band: int = queueing.NORMAL
    ) -> None:
        super().__init__(tenant, deadline, size=size, band=band)
        self.waiter = waiter
        self.since = since


class WaitingRoom:
    """The waiting requests of one tier. It outlives tables.

    Args:
        loop: to let requests in after whatever made room is done with.
        rng: for the picker.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._rules = table.Resilience()
        self._endpoints: Sequence[endpoints.Endpoint] = ()
        self._queue: queueing.Queue[Seat] = queueing.Queue()
        self._rate = 0.0
        self._let_in = 0
        self._looked_at = 0.0
        self._called = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """Of all requests that wait."""
        return self._queue.bytes

    def follow(self, rules: table.Resilience, served_by: Sequence[endpoints.Endpoint]) -> None:
        """Go by a new table from now on. Who waits must be drained and asked anew what it wants."""
        for each in self._endpoints:
            each.freed = None
        self._rules, self._endpoints = rules, served_by
        self._arm()

    def is_full(self, endpoint: endpoints.Endpoint) -> bool:
        """Whether a request should rather wait than be sent to this endpoint, the least loaded one."""
        rules = self._rules
        if rules.queue_requests == 0:
            return False
        return len(self._queue) > 0 or not self._has_room(endpoint)

    def join(self, seat: Seat, *, patience: float, now: float) -> errors.Overloaded | None:
        """Take a request in; otherwise why not.

        Args:
            seat: of the request.
            patience: seconds that it is willing to wait.
            now: monotonic seconds.
        """
        rules = self._rules
        awake = any(each.ready for each in self._endpoints)
        if awake and self._rate > 0 and self._queue.ahead(seat.band) / self._rate > patience:
            return errors.Overloaded("every engine is full, and the wait would be too long", retry_after=self._soon())
        most = rules.queue_requests if awake and rules.queue_requests else rules.hold_requests
        gone = self._queue.make_room(seat, most=most, most_bytes=rules.queue_bytes)
        if gone is None:
            return errors.Overloaded("every engine is full, and so is the queue", retry_after=self._soon())
        if not self._queue:
            self._looked_at, self._let_in, self._rate = now, 0, 0.0
        self._queue.push(seat)
        self._arm()
        for each in gone:
            error = errors.Overloaded("the place in the queue went to a request before it", retry_after=self._soon())
            each.waiter.turned_away(error)
        return None

    def leave(self, seat: Seat) -> None:
        """A request waits no longer."""
        self._queue.remove(seat)

    def drain(self) -> list[Seat]:
        """Everybody out, in order: the table has changed, and each must decide anew."""
        return list(self._queue.drain())

    def pump(self) -> None:
        """Let in as many as there is room for."""
        self._called = False
        while self._queue:
            endpoint = picker.pick(self._endpoints, self._rng)
            if endpoint is None or (self._rules.queue_requests and not self._has_room(endpoint)):
                return
            seat = self._queue.pop()
            assert seat is not None
            self._let_in += 1
            seat.waiter.let_in(endpoint)
        self._arm()

    def tick(self, now: float) -> None:
        """Endpoints may have come back by themselves; and learn how fast the queue moves."""
        if not self._queue:
            return
        self.pump()
        if now - self._looked_at >= 1.0:
            rate = self._let_in / (now - self._looked_at)
            self._rate = rate if self._rate == 0 else _SMOOTHING * rate + (1 - _SMOOTHING) * self._rate
            self._looked_at, self._let_in = now, 0

    def _soon(self) -> int:
        """Seconds after which asking again makes sense."""
        wait = len(self._queue) / self._rate if self._rate > 0 else 1.0
        return max(1, min(_LONGEST_RETRY_AFTER, math.ceil(wait)))

    def _has_room(self, endpoint: endpoints.Endpoint) -> bool:
        return endpoint.in_flight + endpoint.penalty < endpoint.capacity * self._rules.queue_at

    def _arm(self) -> None:
        """Be told of every request that ends, for as long as somebody waits."""
        freed = self._freed if self._queue else None
        for each in self._endpoints:
            each.freed = freed

    def _freed(self) -> None:
        # Not at once: the endpoint that has room now may be about to be ejected for what it answered.
        if not self._called:
            self._called = True
            self._loop.call_soon(self.pump)
