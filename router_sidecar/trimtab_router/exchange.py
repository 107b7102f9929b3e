"""One request's life: admitted → classified → perhaps from the cache → pursued → committed → settled.

Up to the commit point (the first byte of content for the client) its pursuit may ask one engine after the other.
After it, only the truth: an error event, and the end of the connection. Whatever happens, an exchange settles
exactly once.
"""

from __future__ import annotations

import asyncio
import random
from enum import IntEnum
from typing import Protocol

from trimtab_core import telemetry
from trimtab_core.routing import classes, table

from trimtab_router import (
    admission,
    answers,
    attempt,
    billing,
    cache_store,
    compiled,
    errors,
    external,
    heads,
    identity,
    kinds,
    ledger,
    limiting,
    lookup,
    messages,
    metrics,
    pursuit,
    queueing,
    quotas,
    relay,
    routes,
    server,
    settings,
    settlement,
    sse,
    stages,
    streams,
    traceparent,
    witness,
)
from trimtab_router.request import Request

_DEGRADED_RETRY_AFTER = 60
_REJECTIONS = (errors.Unavailable, errors.Overloaded, errors.Degraded)


class Stage(IntEnum):
    """How far an exchange is."""

    OPEN = 0
    COMMITTED = 1
    SETTLED = 2


class Router(Protocol):
    """What an exchange needs of the process that it runs in."""

    loop: asyncio.AbstractEventLoop
    limits: settings.Limits
    rng: random.Random
    registry: metrics.Registry
    ledger: ledger.Ledger
    cache: cache_store.MemoryStore
    exchanges: set[Exchange]
    draining: bool

    def clock(self) -> float:
        """Monotonic seconds."""

    def epoch_seconds(self) -> int:
        """The wall clock, for ``created`` fields."""

    @property
    def witness(self) -> witness.Witness | None:
        """Who is told of each request; None if nobody is."""


class Exchange:
    """One request from admission to its entry in the ledger."""

    __slots__ = (
        "_admitted", "_billed", "_connection", "_first_at", "_grant", "_last_at", "_lookup", "_paused", "_pursuit",
        "_request", "_request_id", "_route", "_router", "_span", "_stage", "_stages", "_table",
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
        self._stage = Stage.OPEN
        self._pursuit: pursuit.Pursuit | None = None
        self._first_at = self._last_at = 0.0
        self._paused = False
        self._lookup: lookup.Lookup | None = None
        self._grant: limiting.Grant | None = None
        self._billed: billing.Bill | None = None
        self._span: traceparent.Span | None = None
        self._stages: stages.Stages | None = None
        self._admitted: admission.Admission

    def begin(self) -> None:
        """Admit and serve.

        Raises:
            errors.RouterError: if the request is refused before anything was sent; it is not settled then.
        """
        if stages.HEADER in self._request.headers:
            self._watch()
        admitted = admission.admit(
            self._table, self._request, self._route, self._router.rng, transport=self._connection.transport
        )
        self._admitted = admitted
        if self._router.witness is not None:
            self._span = self._router.witness.follow(self._request.headers)
        if self._stages is not None:
            self._stages.admitted_at = self._router.clock()
        cache = self._table.data.cache
        if cache is not None and self._answer_from_cache(cache):
            return
        if self._table.data.degraded and self._is_shed():
            self._shed()
            return
        self._pursuit = pursuit.Pursuit(
            self,
            self._router,
            self._table,
            admitted=admitted,
            request=self._request,
            route=self._route,
            request_id=self._request_id,
        )
        limiter = self._table.limiter
        self._router.exchanges.add(self)
        if limiter is None or not admitted.caller.rules:
            try:
                self._pursuit.start()
            except errors.RouterError:
                self._router.exchanges.discard(self)
                raise
        else:
            seconds = self._table.data.resilience.total_timeout
            limiter.reserve(admitted.caller, self._worst(), seconds=seconds, then=self._limited)

    def _watch(self) -> None:
        """Keep the time, if who asks for it may know."""
        callers, transport = self._table.callers, self._connection.transport
        trusted = callers.may_debug(transport) if callers is not None else identity.is_local(transport)
        if trusted and self._request.headers[stages.HEADER] == b"1":
            self._stages = stages.Stages(self._request.arrived_at, self._router.clock())

    def _worst(self) -> quotas.Need:
        """What the request takes at most, wherever it may go."""
        size = self._admitted.size
        assert size is not None
        return quotas.worst(
            self._admitted.class_.dearest, input_tokens=size.input_tokens, output_tokens=size.output_tokens
        )

    def _limited(self, outcome: limiting.Outcome) -> None:
        """The tenant's limits have spoken; the client may have left meanwhile."""
        if isinstance(outcome, errors.RouterError):
            if self._stage is not Stage.SETTLED:
                self.gave_up(outcome)
            return
        pursued = self._pursuit
        if self._stage is Stage.SETTLED or pursued is None:
            outcome.settle()
            return
        self._grant = outcome
        admission.count_arrival(self._admitted.class_, self._request)
        try:
            pursued.start()
        except errors.RouterError as error:
            self.gave_up(error)

    # What the connection tells.

    def client_gone(self) -> None:
        """Nobody reads any more: stop the engine, and book what it did."""
        if self._stage is Stage.SETTLED:
            return
        if self._pursuit is not None:
            self._pursuit.stop(ledger.CANCELLED)
        self._settle(ledger.CANCELLED, 0)

    def client_slow(self) -> None:
        """Read no more from the engine."""
        self._paused = True
        if self._pursuit is not None:
            self._pursuit.pause()

    def client_ready(self) -> None:
        """Read on."""
        self._paused = False
        self._last_at = self._router.clock()
        if self._pursuit is not None:
            self._pursuit.resume()

    # What time tells.

    def expire(self, now: float) -> None:
        """Break off what takes too long."""
        limits = self._table.data.resilience
        pursued = self._pursuit
        assert pursued is not None
        if now - self._request.arrived_at > limits.total_timeout:
            pursued.stop(ledger.FAILED_ATTEMPT)
            self.gave_up(errors.UpstreamTimeout("the request took longer than its total time limit"))
        elif self._stage is Stage.OPEN:
            pursued.expire(now)
        elif not self._paused and now - self._last_at > limits.idle_timeout and pursued.current is not None:
            pursued.current.expire("idle-timeout")

    # What the pursuit tells.

    def relay_for(self, current: attempt.Attempt, content_type: bytes) -> relay.Relay:
        """What becomes of a good answer."""
        stores = self._lookup is not None and self._lookup.stores
        return kinds.choose(
            content_type,
            self._route,
            envelope=self._admitted.envelope,
            rates=external.billed(current.tier.spec, self._request.headers).rates,
            limits=self._router.limits,
            cache=self._table.data.cache if stores else None,
            own=current.endpoint.external is None,
        )

    def passed(self, current: attempt.Attempt, data: bytes) -> None:
        """Bytes of a stream: the first ones commit."""
        now = self._last_at = self._router.clock()
        data = heads.chunk(data) if self._request.chunks else data
        if self._stage is Stage.OPEN:
            self._stage = Stage.COMMITTED
            self._first_at = now
            chunks = self._request.chunks
            extra = b"cache-control: no-cache\r\n" + self._served(current.tier.spec)
            close = self._closes() or not chunks
            data = heads.answer(current.status, current.content_type, extra=extra, chunked=chunks, close=close) + data
        self._connection.write(data)

    def done(self, current: attempt.Attempt) -> None:
        """The answer is complete and good: send what is left of it, settle, and let the next request come."""
        if isinstance(current.relay, relay.WholeRelay):
            body = current.relay.body
            extra = self._served(current.tier.spec, self._bill(current).cost_usd)
            head = heads.answer(
                current.status, current.content_type, extra=extra, length=len(body), close=self._closes()
            )
            self._connection.write(head + body)
        elif self._request.chunks:
            self._connection.write(heads.LAST_CHUNK)
        self._settle(ledger.OK, current.status)
        self._connection.finish(close=self._closes() or not self._request.chunks)

    def refused(self, current: attempt.Attempt, body: bytes) -> None:
        """The engine finds the request wrong: say so in OpenAI's shape."""
        normalise = messages.normalise_error if self._route.anthropic else answers.normalise_error
        self._answer_error(current.status, normalise(current.status, body))
        self._settle(ledger.CLIENT_ERROR, current.status)
        self._connection.finish(close=self._closes())

    def gave_up(self, error: errors.RouterError) -> None:
        """An error answer; after the commit point an error event instead of ``[DONE]``, and no clean end."""
        if self._stage is Stage.COMMITTED:
            self._break_off(error)
            return
        status, body = self._render(error)
        self._answer_error(status, body, error.retry_after, error.extra)
        if isinstance(error, errors.RequestError):
            self._settle(ledger.CLIENT_ERROR, status)
        elif isinstance(error, errors.Limited):
            self._settle(ledger.LIMITED, status)
        else:
            self._settle(ledger.REJECTED if isinstance(error, _REJECTIONS) else ledger.FAILED, status)
        self._connection.finish(close=self._closes())

    # Own steps.

    def _is_shed(self) -> bool:
        """Whether the step of the budget that is in force refuses this request."""
        step, match = self._table.data.degraded, self._admitted.class_.spec.match
        if step == "BatchOnly":
            priority = self._request.headers.get(classes.PRIORITY, b"")
            batch = match.priority is not None and queueing.band(match.priority.encode()) == queueing.BATCH
            return not batch and queueing.band(priority) != queueing.BATCH
        return step == "Reject"

    def _shed(self) -> None:
        data = self._table.data
        self._router.registry.counter(telemetry.SHED, data.policy, self._admitted.class_.spec.name, "budget").add(1)
        kept = "; requests with X-Trimtab-Priority: batch are still served" if data.degraded == "BatchOnly" else ""
        self.gave_up(errors.Degraded(f"the budget of this route is used up{kept}", retry_after=_DEGRADED_RETRY_AFTER))

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
        if router.witness is not None:
            self._tell(entry, None, 200)
        if admitted.caller.rules:
            admission.count_arrival(admitted.class_, self._request)
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
        current = self._pursuit.current if self._pursuit is not None else None
        shown = current.relay if current is not None else None
        self._settle(ledger.FAILED, 0)
        if not isinstance(shown, streams.EventRelay):
            self._connection.abort()
            return
        body = self._render(error)[1]
        event = messages.error_event(body) if self._route.anthropic else sse.render(body)
        self._connection.write(heads.chunk(event) if self._request.chunks else event)
        self._connection.finish(close=True)

    def _render(self, error: errors.RouterError) -> tuple[int, bytes]:
        return messages.render(error) if self._route.anthropic else errors.render(error)

    def _answer_error(self, status: int, body: bytes, retry_after: int | None = None, more: bytes = b"") -> None:
        pursued = self._pursuit
        current = pursued.current if pursued is not None else None
        extra = self._served(current.tier.spec if current is not None else None) + more
        if retry_after is not None:
            extra += b"retry-after: %d\r\n" % retry_after
        close = self._closes()
        self._connection.write(heads.answer(status, heads.JSON, extra=extra, length=len(body), close=close) + body)

    def _served(self, tier: table.Tier | None, cost_usd: float | None = None) -> bytes:
        limits = self._grant.headers if self._grant is not None else b""
        return (
            limits
            + heads.served(
                request_id=self._request_id,
                model=tier.model if tier is not None else "",
                tier=tier.name if tier is not None else ledger.NO_TIER,
                class_=self._admitted.class_.spec.name,
                cache=self._cache_result(),
                attempts=self._pursuit.attempts if self._pursuit is not None else 0,
                cost_usd=cost_usd,
            )
            + (self._timing() if self._stages is not None else b"")
        )

    def _cache_result(self) -> str:
        """What the cache did for a request that an engine was to answer."""
        return "off" if self._lookup is None else "miss" if self._lookup.reads else "bypass"

    def _timing(self) -> bytes:
        current = self._pursuit.current if self._pursuit is not None else None
        assert self._stages is not None
        return self._stages.lines(
            self._router.clock(),
            asked_at=current.started_at if current is not None else None,
            endpoint=current.endpoint.name if current is not None else "",
            score=self._admitted.score,
        )

    def _closes(self) -> bool:
        return self._router.draining or not self._request.keep_alive

    def _bill(self, current: attempt.Attempt) -> billing.Bill:
        """Made out once: by then the answer is complete, or over."""
        if self._billed is None:
            self._billed = billing.bill(
                current.relay,
                body_bytes=len(self._request.body),
                tier=external.billed(current.tier.spec, self._request.headers),
                baseline=self._table.data.baseline,
            )
        return self._billed

    def _settle(self, result: str, status: int) -> None:
        """Book the request, once; store its answer if it may be.

        Args:
            result: one of the ledger's outcomes.
            status: that the client was sent, unless it was committed before; 0 if it was sent none.
        """
        assert self._stage is not Stage.SETTLED
        router, pursued = self._router, self._pursuit
        served = pursued.current if pursued is not None else None
        committed = self._stage is Stage.COMMITTED
        # What broke off before its first content is waste, not anybody's bill; and who is refused pays nothing.
        bill = self._bill(served) if served is not None and (committed or result == ledger.OK) else billing.NOTHING
        self._stage = Stage.SETTLED
        router.exchanges.discard(self)
        if self._grant is not None:
            self._grant.settle(tokens=bill.input_tokens + bill.output_tokens, usd=bill.cost_usd)
        if self._admitted.caller.rules and not bill.estimated:
            self._admitted.class_.sizes.observe(
                body_bytes=len(self._request.body), input_tokens=bill.input_tokens, output_tokens=bill.output_tokens
            )
        now = router.clock()
        if served is not None and served.endpoint.external is not None:
            served.endpoint.pace(served.endpoint.external.used(bill.input_tokens + bill.output_tokens, now), now)
        entry = settlement.entry(
            result,
            admitted=self._admitted,
            served=served,
            bill=bill,
            times=settlement.Times(self._request.arrived_at, now, self._first_at if committed else None, self._last_at),
            request_id=self._request_id,
            attempts=pursued.attempts if pursued is not None else 0,
            wasted_usd=pursued.wasted_usd if pursued is not None else 0.0,
        )
        router.ledger.settle(entry)
        if router.witness is not None:
            self._tell(entry, served, served.status if committed and served is not None else status)
        cache, found = self._table.data.cache, self._lookup
        if result == ledger.OK and cache is not None and found is not None and found.stores:
            assert served is not None
            kept = settlement.store_answer(router.cache, cache, found, served=served, bill=bill, now=now)
            self._admitted.class_.cache_results["store" if kept else "skip"].add(1)
        # Exchange, pursuit and attempt know each other. Parted here they are freed at once, and their memory is used
        # again while it is still warm, instead of waiting in heaps for the garbage collector.
        if pursued is not None:
            pursued.close()
            self._pursuit = None

    def _tell(self, entry: ledger.Entry, served: attempt.Attempt | None, status: int) -> None:
        """Tell the witness of the request: by its entry, and nothing that its client wrote but its id."""
        told = self._router.witness
        assert told is not None
        relayed = served.relay if served is not None else None
        told.ended(
            witness.Record(
                ended_at=told.wall_clock(),
                duration_seconds=entry.e2e_seconds,
                request_id=self._request_id,
                policy=self._table.data.policy,
                operation=self._route.name,
                asked_model=self._admitted.envelope.model,
                model=served.tier.spec.model if served is not None else "",
                class_=entry.meter.class_,
                tier=entry.meter.tier,
                endpoint=served.endpoint.name if served is not None else "",
                own=served is None or served.endpoint.external is None,
                address=(served.endpoint.host, served.endpoint.port) if served is not None else None,
                tenant=entry.tenant,
                status=status,
                result=entry.result,
                streamed=bool(self._admitted.envelope.stream),
                input_tokens=entry.input_tokens,
                cached_input_tokens=entry.cached_input_tokens,
                output_tokens=entry.output_tokens,
                estimated=entry.estimated,
                cost_usd=entry.cost_usd,
                ttft_seconds=entry.ttft_seconds,
                attempts=entry.attempts,
                cache="hit" if entry.result == ledger.CACHED else self._cache_result(),
                finish_reason=relayed.finish_reason if relayed is not None else "",
                span=self._span,
            )
        )
