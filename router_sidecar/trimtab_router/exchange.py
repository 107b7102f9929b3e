"""One request's life: admitted → classified → perhaps from the cache → attempts → committed → settled.

Up to the commit point (the first byte of content for the client) a failed attempt is followed by another one.
After it, only the truth: an error event, and the end of the connection. Whatever happens, an exchange settles
exactly once.
"""

from __future__ import annotations

import asyncio
import random
from enum import IntEnum
from typing import Protocol

from trimtab_core import telemetry
from trimtab_core.routing import table

from trimtab_router import (
    admission,
    answers,
    attempt,
    billing,
    cache_store,
    compiled,
    dispatch,
    endpoints,
    errors,
    forwarding,
    heads,
    kinds,
    ledger,
    lookup,
    metrics,
    relay,
    routes,
    server,
    settings,
    settlement,
    sse,
    streams,
)
from trimtab_router.request import Request


class Stage(IntEnum):
    """How far an exchange is."""

    ADMITTED = 0
    HELD = 1
    ASKING = 2
    COMMITTED = 3
    SETTLED = 4


class Router(Protocol):
    """What an exchange needs of the process that it runs in."""

    loop: asyncio.AbstractEventLoop
    limits: settings.Limits
    rng: random.Random
    registry: metrics.Registry
    ledger: ledger.Ledger
    cache: cache_store.MemoryStore
    exchanges: set[Exchange]
    held: set[Exchange]
    draining: bool

    def clock(self) -> float:
        """Monotonic seconds."""

    def epoch_seconds(self) -> int:
        """The wall clock, for ``created`` fields."""


class Exchange:
    """One request from admission to its entry in the ledger."""

    __slots__ = (
        "_admitted", "_attempt", "_attempts", "_billed", "_connection", "_first_at", "_forwarding", "_hold_until",
        "_last_at", "_lookup", "_paused", "_request", "_request_id", "_route", "_router", "_stage", "_table", "_tried",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        in_force: compiled.Table,
        *,
        connection: server.ClientConnection,
        request: Request,
        route: routes.Route,
        request_id: str,
    ) -> None:
        self._router = router
        self._table = in_force
        self._connection = connection
        self._request = request
        self._route = route
        self._request_id = request_id
        self._stage = Stage.ADMITTED
        self._attempt: attempt.Attempt | None = None
        self._attempts = 0
        self._tried: list[endpoints.Endpoint] = []
        self._first_at = self._last_at = self._hold_until = 0.0
        self._paused = False
        self._lookup: lookup.Lookup | None = None
        self._billed: billing.Bill | None = None
        self._admitted: admission.Admission
        self._forwarding: forwarding.Forwarding

    def begin(self) -> None:
        """Admit and serve.

        Raises:
            errors.RouterError: if the request is refused before anything was sent; it is not settled then.
        """
        admitted = admission.admit(self._table, self._request, self._route, self._router.rng)
        self._admitted = admitted
        cache = self._table.data.cache
        if cache is not None and self._answer_from_cache(cache):
            return
        self._forwarding = forwarding.Forwarding(
            self._request, self._route, admitted=admitted, request_id=self._request_id
        )
        self._next()

    # What the connection tells.

    def client_gone(self) -> None:
        """Nobody reads any more: stop the engine, and book what it did."""
        if self._stage is Stage.SETTLED:
            return
        current = self._attempt
        if current is not None:
            current.abort()
        self._settle(ledger.CANCELLED)

    def client_slow(self) -> None:
        """Read no more from the engine."""
        self._paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def client_ready(self) -> None:
        """Read on."""
        self._paused = False
        self._last_at = self._router.clock()
        if self._attempt is not None:
            self._attempt.resume()

    # What time and tables tell.

    def expire(self, now: float) -> None:
        """Break off what takes too long."""
        limits = self._table.data.resilience
        current = self._attempt
        if now - self._request.arrived_at > limits.total_timeout:
            if current is not None:
                current.abort()
            self._give_up(errors.UpstreamTimeout("the request took longer than its total time limit"))
        elif self._stage is Stage.HELD and now > self._hold_until:
            self._give_up(errors.Unavailable("no tier that may serve this request woke in time", retry_after=5))
        elif current is not None and not self._paused:
            streamed = bool(self._admitted.envelope.stream)
            if self._stage is Stage.ASKING and streamed and now - current.started_at > limits.first_byte_timeout:
                current.expire("first-byte-timeout")
            elif self._stage is Stage.COMMITTED and now - self._last_at > limits.idle_timeout:
                current.expire("idle-timeout")

    def wake(self, in_force: compiled.Table) -> None:
        """A new table may have an endpoint for a held request."""
        class_ = in_force.by_name.get(self._admitted.class_.spec.name)
        if self._stage is not Stage.HELD or class_ is None or class_.reach.intervals is None:
            return
        self._table = in_force
        self._admitted.class_ = class_
        if self._admitted.first not in class_.reach.own:
            self._admitted.first = class_.reach.intervals.tiers[0]
        self._next()

    @property
    def held_for(self) -> str:
        """The tier that a held request waits for."""
        return self._admitted.first or ledger.NO_TIER

    # What the attempt tells.

    def relay_for(self, current: attempt.Attempt, content_type: bytes) -> relay.Relay:
        """What becomes of a good answer."""
        stores = self._lookup is not None and self._lookup.stores
        return kinds.choose(
            content_type,
            self._route,
            envelope=self._admitted.envelope,
            rates=current.tier.spec.rates,
            limits=self._router.limits,
            cache=self._table.data.cache if stores else None,
        )

    def passed(self, data: bytes) -> None:
        """Bytes of a stream: the first ones commit."""
        now = self._last_at = self._router.clock()
        data = heads.chunk(data) if self._request.chunks else data
        if self._stage is Stage.ASKING:
            self._stage = Stage.COMMITTED
            self._first_at = now
            current = self._attempt
            assert current is not None
            chunks = self._request.chunks
            extra = b"cache-control: no-cache\r\n" + self._served(current.tier.spec)
            close = self._closes() or not chunks
            data = heads.answer(current.status, current.content_type, extra=extra, chunked=chunks, close=close) + data
        self._connection.write(data)

    def done(self) -> None:
        """The answer is complete and good: send what is left of it, settle, and let the next request come."""
        current = self._attempt
        assert current is not None
        if isinstance(current.relay, relay.WholeRelay):
            body = current.relay.body
            extra = self._served(current.tier.spec, self._bill().cost_usd)
            head = heads.answer(
                current.status, current.content_type, extra=extra, length=len(body), close=self._closes()
            )
            self._connection.write(head + body)
        elif self._request.chunks:
            self._connection.write(heads.LAST_CHUNK)
        self._settle(ledger.OK)
        self._connection.finish(close=self._closes() or not self._request.chunks)

    def refused(self, status: int, body: bytes) -> None:
        """The engine finds the request wrong: say so in OpenAI's shape."""
        self._answer_error(status, answers.normalise_error(status, body))
        self._settle(ledger.CLIENT_ERROR)
        self._connection.finish(close=self._closes())

    def failed(self, failure: attempt.Failure) -> None:
        """Ask somebody else, or tell the client."""
        current, now = self._attempt, self._router.clock()
        assert current is not None
        resilience, policy = self._table.data.resilience, self._table.data.policy
        endpoint = current.endpoint
        if failure.blames and endpoint.failed(resilience, now, at_once=failure.at_once):
            self._router.registry.counter(telemetry.EJECTIONS, policy, endpoint.tier, endpoint.name).add(1)
        if self._stage is Stage.COMMITTED:
            self._break_off(failure.error)
        elif self._attempts <= resilience.max_fallbacks and self._may_repeat(failure):
            self._tried.append(endpoint)
            if self._next(otherwise=failure.error):
                self._router.registry.counter(telemetry.FALLBACKS, policy, endpoint.tier, failure.reason).add(1)
        else:
            self._give_up(failure.error)

    # Own steps.

    def _may_repeat(self, failure: attempt.Failure) -> bool:
        """Inference can be asked twice; of a route passed through nobody knows what asking twice does."""
        return failure.at_once or self._route.shape is not routes.Shape.OTHER or self._request.method == b"GET"

    def _next(self, otherwise: errors.RouterError | None = None) -> bool:
        """Ask the next endpoint, or wait for one, or give up; returns whether one is asked."""
        router, admitted = self._router, self._admitted
        now = router.clock()
        choice, hold = None, admitted.class_.reach.hold_seconds
        if admitted.first is not None:
            choice = dispatch.choose(
                admitted.class_,
                admitted.first,
                closed=admitted.sensitive,
                tried=self._tried,
                now=now,
                rng=router.rng,
            )
        if choice is not None:
            self._ask(choice)
            return True
        if self._stage is Stage.HELD:
            return False
        if otherwise is None and hold > 0:
            self._stage = Stage.HELD
            self._hold_until = now + hold
            router.exchanges.add(self)
            router.held.add(self)
        else:
            self._give_up(otherwise or errors.Unavailable("no tier that may serve this request is up", retry_after=2))
        return False

    def _ask(self, choice: dispatch.Choice) -> None:
        router = self._router
        tier, endpoint = choice
        data = self._forwarding.to(endpoint, tier.spec.model)
        router.held.discard(self)
        router.exchanges.add(self)
        self._stage = Stage.ASKING
        self._attempts += 1
        self._attempt = attempt.Attempt(self, choice, resilience=self._table.data.resilience, clock=router.clock)
        self._attempt.start(data, router.loop)

    def _answer_from_cache(self, cache: table.Cache) -> bool:
        """Answer at once if the cache can; decide what may be stored otherwise."""
        admitted, router, now = self._admitted, self._router, self._router.clock()
        self._lookup = found = lookup.prepare(cache, self._request, self._route, admitted)
        stored = router.cache.get(found.key, now) if found.reads else None
        admitted.class_.cache_results["bypass" if not found.reads else "hit" if stored else "miss"].add(1)
        if stored is None:
            return False
        self._stage = Stage.SETTLED
        times = settlement.Times(self._request.arrived_at, now)
        entry = settlement.hit_entry(stored, admitted=admitted, times=times, request_id=self._request_id)
        router.ledger.settle(entry)
        answer = lookup.answer(
            stored,
            self._route.shape,
            admitted,
            request_id=self._request_id,
            created=router.epoch_seconds(),
            close=self._closes(),
        )
        self._connection.write(answer)
        self._connection.finish(close=self._closes())
        return True

    def _break_off(self, error: errors.RouterError) -> None:
        """After the commit point: an error event instead of ``[DONE]``, and no clean end of the message."""
        current = self._attempt
        self._settle(ledger.FAILED)
        if current is not None and not isinstance(current.relay, streams.EventRelay):
            self._connection.abort()
            return
        event = sse.render(errors.render(error)[1])
        self._connection.write(heads.chunk(event) if self._request.chunks else event)
        self._connection.finish(close=True)

    def _give_up(self, error: errors.RouterError) -> None:
        """Before the commit point: an error answer."""
        if self._stage is Stage.COMMITTED:
            self._break_off(error)
            return
        status, body = errors.render(error)
        self._answer_error(status, body, error.retry_after)
        self._settle(ledger.REJECTED if isinstance(error, errors.Unavailable) else ledger.FAILED)
        self._connection.finish(close=self._closes())

    def _answer_error(self, status: int, body: bytes, retry_after: int | None = None) -> None:
        extra = self._served(self._attempt.tier.spec if self._attempt is not None else None)
        if retry_after is not None:
            extra += b"retry-after: %d\r\n" % retry_after
        close = self._closes()
        self._connection.write(heads.answer(status, heads.JSON, extra=extra, length=len(body), close=close) + body)

    def _served(self, tier: table.Tier | None, cost_usd: float | None = None) -> bytes:
        cache = "off"
        if self._lookup is not None:
            cache = "miss" if self._lookup.reads else "bypass"
        return heads.served(
            request_id=self._request_id,
            model=tier.model if tier is not None else "",
            tier=tier.name if tier is not None else ledger.NO_TIER,
            class_=self._admitted.class_.spec.name,
            cache=cache,
            attempts=self._attempts,
            cost_usd=cost_usd,
        )

    def _closes(self) -> bool:
        return self._router.draining or not self._request.keep_alive

    def _bill(self) -> billing.Bill:
        """Made out once: by then the answer is complete, or over."""
        current = self._attempt
        if self._billed is None:
            self._billed = billing.NOTHING
            if current is not None:
                self._billed = billing.bill(
                    current.relay,
                    body_bytes=len(self._request.body),
                    tier=current.tier.spec,
                    baseline=self._table.data.baseline,
                )
        return self._billed

    def _settle(self, result: str) -> None:
        """Book the request, once; store its answer if it may be."""
        assert self._stage is not Stage.SETTLED
        router, served = self._router, self._attempt
        first_at = self._first_at if self._stage is Stage.COMMITTED else None
        self._stage = Stage.SETTLED
        router.exchanges.discard(self)
        router.held.discard(self)
        bill, now = self._bill(), router.clock()
        router.ledger.settle(
            settlement.entry(
                result,
                admitted=self._admitted,
                served=served,
                bill=bill,
                times=settlement.Times(self._request.arrived_at, now, first_at, self._last_at),
                request_id=self._request_id,
                attempts=self._attempts,
            )
        )
        cache, found = self._table.data.cache, self._lookup
        if result == ledger.OK and cache is not None and found is not None and found.stores:
            assert served is not None
            kept = settlement.store_answer(router.cache, cache, found, served=served, bill=bill, now=now)
            self._admitted.class_.cache_results["store" if kept else "skip"].add(1)
        # Exchange and attempt know each other. Parted here they are freed at once, and their memory is used again
        # while it is still warm, instead of waiting in heaps for the garbage collector.
        self._attempt = None
