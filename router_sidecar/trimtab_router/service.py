"""The router process: everything that lives longer than one request, and the front door of requests."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Iterable

from trimtab_core import telemetry

from trimtab_router import (
    access_log,
    cache_store,
    compiled,
    endpoints,
    errors,
    exchange,
    heads,
    ledger,
    messages,
    metrics,
    openai,
    otlp,
    routes,
    server,
    settings,
    tables,
    tls,
    witness,
)
from trimtab_router.request import Request

log = logging.getLogger("trimtab.router")

_TICK_SECONDS = 0.1
_SWEEP_TICKS = 10
_DRAIN_POLL_SECONDS = 0.05


class Service:
    """One router process.

    Args:
        options: what it was started with.
        loop: that it runs on.
        clock: monotonic seconds.
        wall_clock: epoch seconds.
    """

    def __init__(
        self,
        options: settings.Settings,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.limits = options.limits
        self.loop = loop
        self.rng = random.Random(options.seed)  # noqa: S311 (spreads load; guards nothing)
        self.registry = metrics.Registry()
        self.directory = endpoints.Directory(functools.cache(lambda: tls.asking(options.upstream_ca)))
        self.ledger = ledger.Ledger()
        self.cache = cache_store.MemoryStore()
        self.connections: set[server.ClientConnection] = set()
        self.exchanges: set[exchange.Exchange] = set()
        self.draining = False
        self.sinks: list[access_log.AccessLog | otlp.Exporter] = []
        self.clock = clock
        self._wall_clock = wall_clock
        self._instance = f"{self.rng.getrandbits(64):016x}"
        self.witness = self._make_witness(options)
        self._requests = 0
        self._options = options
        self._compiler = compiled.Compiler(
            self.registry,
            self.directory,
            loop=loop,
            rng=self.rng,
            clock=clock,
            wall_clock=wall_clock,
            processes=options.processes,
        )
        self.tables = tables.TableFile(
            options.table, self._compiler, registry=self.registry, in_force=self._table_changed
        )
        self.registry.read_gauge(telemetry.IN_FLIGHT, self._read_in_flight)
        self.registry.read_gauge(telemetry.HELD, self._read_held)
        self.registry.read_gauge(telemetry.QUEUED, self._read_queued)
        self.registry.read_gauge(telemetry.TABLE_INFO, self._read_table_info)
        self.registry.read_gauge(telemetry.LIMIT_USED, self._read_limits)
        self.registry.read_gauge(telemetry.STORE_WAITING, self._read_store_waiting)

    def _make_witness(self, options: settings.Settings) -> witness.Witness | None:
        log_ = access_log.AccessLog(self.registry) if options.access_log else None
        traces = None
        if options.otlp_endpoint is not None:
            traces = otlp.Exporter(
                otlp.collector(options.otlp_endpoint),
                self.registry,
                instance=self._instance,
                trust=self.directory.trust,
            )
        self.sinks = [sink for sink in (log_, traces) if sink is not None]
        if not self.sinks:
            return None
        return witness.Witness(log_, traces, ratio=options.otlp_ratio, rng=self.rng, wall_clock=self._wall_clock)

    def epoch_seconds(self) -> int:
        """The wall clock, whole seconds."""
        return int(self._wall_clock())

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a table is in force and the process is not going down."""
        return self.tables.current is not None and not self.draining

    # The front door.

    def accept(self, connection: server.ClientConnection, incoming: Request) -> server.Exchange | None:
        """Serve one request; None if it is answered at once."""
        request_id = self._request_id(incoming)
        served = None
        try:
            served = self._route(connection, incoming, request_id)
        except errors.RouterError as error:
            self._count_refusal()
            self._answer_error(connection, incoming, error, request_id=request_id, close=not incoming.keep_alive)
        except Exception:  # an outermost loop: the fault of one request must not become that of others
            log.exception("a request failed inside the router")
            fault = errors.Internal("the router failed; its log says why")
            self._answer_error(connection, incoming, fault, request_id=request_id, close=True)
        return served

    def refuse(self, connection: server.ClientConnection, error: errors.RouterError) -> None:
        """Answer a request that could not be read."""
        self._count_refusal()
        status, body = errors.render(error)
        self._tell_refusal(status, "", 0.0)
        connection.write(heads.answer(status, heads.JSON, extra=_retry(error), length=len(body), close=True) + body)

    def _route(self, connection: server.ClientConnection, incoming: Request, request_id: str) -> server.Exchange | None:
        route = routes.find(incoming.path)
        if route is None:
            if incoming.method == b"OPTIONS" and incoming.path == b"*":
                self._answer(connection, incoming, 204, kind=b"", extra=b"allow: GET, HEAD, POST, DELETE, OPTIONS\r\n")
                return None
            raise errors.UnknownPath(f"unknown path {incoming.path[:200].decode('latin-1')}")
        if incoming.method == b"OPTIONS":
            self._answer(connection, incoming, 204, kind=b"", extra=b"allow: %b\r\n" % route.allow)
            return None
        if incoming.method not in route.methods and not (incoming.method == b"HEAD" and b"GET" in route.methods):
            allowed = route.allow.decode()
            raise errors.WrongMethod(f"{incoming.method.decode()} is not allowed here; use {allowed}")
        if route.shape in (routes.Shape.HEALTH, routes.Shape.READY):
            self.answer_health(connection, incoming, route)
            return None
        table = self.tables.current
        if table is None:
            raise errors.Unavailable("this router has no routing table yet", retry_after=1)
        if route.shape is routes.Shape.MODELS:
            self._answer_models(connection, incoming, table)
            return None
        if incoming.method == b"HEAD":
            raise errors.WrongMethod("HEAD is not allowed here")
        served = exchange.Exchange(
            self, table, connection=connection, request=incoming, route=route, request_id=request_id
        )
        served.begin()
        return served

    def answer_health(self, connection: server.ClientConnection, incoming: Request, route: routes.Route) -> None:
        """``/healthz``: the process lives. ``/readyz``: send it requests."""
        if route.shape is routes.Shape.HEALTH or self.ready:
            self._answer(connection, incoming, 200, b"ok\n", kind=heads.TEXT)
        else:
            why = b"draining\n" if self.draining else b"no routing table yet\n"
            self._answer(connection, incoming, 503, why, kind=heads.TEXT)

    def _answer_models(self, connection: server.ClientConnection, incoming: Request, table: compiled.Table) -> None:
        created = int(table.data.issued_at)
        if incoming.path == b"/v1/models":
            body = openai.models_list(list(table.data.models), created)
        else:
            name = incoming.path.removeprefix(b"/v1/models/").decode("latin-1")
            if name not in table.models:
                raise errors.UnknownModel(f"The model `{name[:128]}` does not exist", param="model")
            body = openai.model_object(name, created)
        self._answer(connection, incoming, 200, body)

    def _answer(
        self,
        connection: server.ClientConnection,
        incoming: Request,
        status: int,
        body: bytes = b"",
        *,
        kind: bytes = heads.JSON,
        extra: bytes = b"",
    ) -> None:
        close = self.draining or not incoming.keep_alive
        length = len(body) if kind else None
        head = heads.answer(status, kind, extra=extra, length=length, close=close)
        connection.write(head if incoming.method == b"HEAD" else head + body)
        connection.finish(close=close)

    def _answer_error(
        self,
        connection: server.ClientConnection,
        incoming: Request,
        error: errors.RouterError,
        *,
        request_id: str,
        close: bool,
    ) -> None:
        anthropic = incoming.path.startswith(routes.MESSAGES)
        status, body = messages.render(error) if anthropic else errors.render(error)
        self._tell_refusal(status, request_id, self.clock() - incoming.arrived_at)
        close = close or self.draining
        extra = b"x-request-id: %b\r\n%b" % (request_id.encode(), _retry(error))
        connection.write(heads.answer(status, heads.JSON, extra=extra, length=len(body), close=close) + body)
        connection.finish(close=close)

    def _request_id(self, incoming: Request) -> str:
        given = incoming.headers.get(b"x-request-id")
        if given is not None and heads.is_token(given):
            return given.decode()
        self._requests += 1
        return f"{self._instance}{self._requests:016x}"

    def _tell_refusal(self, status: int, request_id: str, seconds: float) -> None:
        if self.witness is not None:
            table = self.tables.current
            policy = table.data.policy if table is not None else ""
            self.witness.ended(witness.Record(self._wall_clock(), seconds, request_id, policy=policy, status=status))

    def _count_refusal(self) -> None:
        table = self.tables.current
        if table is not None:
            table.refused[ledger.NO_TIER].result(ledger.INVALID).add(1)

    # What happens by itself.

    async def tick(self) -> None:
        """Expire what takes too long, flush the ledger, and close what is idle; for ever."""
        count = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            count += 1
            try:
                self._tick(self.clock(), sweep=count % _SWEEP_TICKS == 0)
            except Exception:  # an outermost loop: without it nothing would ever time out again
                log.exception("a tick failed")

    def _tick(self, now: float, *, sweep: bool) -> None:
        for each in tuple(self.exchanges):
            each.expire(now)
        self.ledger.flush()
        self._tick_endpoints(now, sweep=sweep)
        if sweep:
            for connection in tuple(self.connections):
                connection.expire(now)
            for endpoint in self.directory.all():
                endpoint.pool.close_old(now)
            self.directory.reread_keys()

    def _tick_endpoints(self, now: float, *, sweep: bool) -> None:
        """Endpoints stall and come back, budgets move on, and who waits may be let in."""
        table = self.tables.current
        if table is None:
            return
        rules = table.data.resilience
        for endpoint in self.directory.all():
            endpoint.tick(rules, now)
        table.retries.slide(now)
        for tier in table.tiers.values():
            tier.room.tick(now)
            if sweep and table.hedges:
                tier.first_bytes.learn(rules.hedge_quantile)

    def _table_changed(self, table: compiled.Table) -> None:
        """Whoever waits must decide anew: its tier may have gone, or another one may have woken."""
        rooms = self._compiler.rooms
        waiting = [seat.waiter for room in rooms.values() for seat in room.drain()]
        for name in rooms.keys() - table.tiers.keys():
            del rooms[name]
        for waiter in waiting:
            waiter.wake(table)

    async def drain(self, seconds: float) -> bool:
        """Let requests under way end; returns whether all did in time. Idle connections are closed at once."""
        self.draining = True
        until = self.clock() + seconds
        while True:
            for connection in tuple(self.connections):
                if not connection.busy and connection.transport is not None:
                    connection.transport.close()
            if not self.exchanges:
                break
            if self.clock() >= until:
                log.warning("drain: %d requests did not end in time", len(self.exchanges))
                break
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        done = not self.exchanges
        for connection in tuple(self.connections):
            if connection.busy and not done:
                connection.abort()
        self.ledger.flush()
        for endpoint in self.directory.all():
            endpoint.pool.close()
        return done

    async def close(self) -> None:
        """Tell the shared stores of limits, the log and the collector what they have not heard of yet."""
        for each in self._compiler.limiters:
            await each.close()
        for sink in self.sinks:
            await sink.flush()

    # Gauges.

    def _read_in_flight(self) -> Iterable[tuple[metrics.Labels, float]]:
        table = self.tables.current
        if table is None:
            return []
        policy = table.data.policy
        return [
            ((policy, name), float(sum(each.in_flight for each in tier.endpoints)))
            for name, tier in table.tiers.items()
        ]

    def _read_held(self) -> Iterable[tuple[metrics.Labels, float]]:
        return self._read_waiting(awake=False)

    def _read_queued(self) -> Iterable[tuple[metrics.Labels, float]]:
        return self._read_waiting(awake=True)

    def _read_waiting(self, *, awake: bool) -> Iterable[tuple[metrics.Labels, float]]:
        """Who waits in tiers with an endpoint that is up, or in those without."""
        table = self.tables.current
        if table is None:
            return []
        counts = {
            name: len(tier.room)
            for name, tier in table.tiers.items()
            if any(each.ready for each in tier.endpoints) is awake
        }
        return [((table.data.policy, name), float(counts.get(name, 0))) for name in table.tiers]

    def _read_limits(self) -> Iterable[tuple[metrics.Labels, float]]:
        table = self.tables.current
        if table is None or table.limiter is None or table.callers is None:
            return []
        return [
            ((table.data.policy, label, rule.name), share)
            for caller in table.callers.known
            for label in (self.registry.tenant_label(caller.name),)
            if label != telemetry.OTHER  # shares of many do not add up
            for rule, share in table.limiter.shares(caller)
        ]

    def _read_store_waiting(self) -> Iterable[tuple[metrics.Labels, float]]:
        table, limiters = self.tables.current, self._compiler.limiters
        if table is None or not limiters:
            return []
        return [((table.data.policy,), float(sum(each.waiting for each in limiters)))]

    def _read_table_info(self) -> Iterable[tuple[metrics.Labels, float]]:
        table = self.tables.current
        return [] if table is None else [((table.data.policy, table.version), 1.0)]


def _retry(error: errors.RouterError) -> bytes:
    return error.extra if error.retry_after is None else b"retry-after: %d\r\n%b" % (error.retry_after, error.extra)
