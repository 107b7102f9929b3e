"""A router in this process between scripted engines and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop
from trimtab_core.routing import table
from trimtab_router import main, service, settings

from . import engines, wire

SMALL_RATES = table.Rates(1e-6, 2e-6, 5e-7)
LARGE_RATES = table.Rates(1e-5, 2e-5, 5e-6)
QUICK = table.Resilience(
    connect_timeout=1.0,
    first_byte_timeout=1.0,
    idle_timeout=1.0,
    total_timeout=20.0,
    max_fallbacks=1,
    eject_after=3,
    eject_seconds=30.0,
)


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario on the loop that production runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def tier(name: str, *ports: int, quality: float = 0.5, **fields: Any) -> table.Tier:
    """A tier of engines on loopback ports."""
    endpoints = [table.Endpoint(f"{name}-{index}", f"127.0.0.1:{port}") for index, port in enumerate(ports)]
    fields.setdefault("rates", SMALL_RATES)
    fields.setdefault("endpoints", endpoints)
    return table.Tier(name, fields.pop("model", name), quality, **fields)


def class_(name: str = "default", allow: tuple[str, ...] = ("small",), **fields: Any) -> table.Class:
    """A class; all of it goes to the first of its tiers unless weights are given."""
    weights = fields.pop("weights", {allow[0]: 1.0} if allow else {})
    return table.Class(name, fields.pop("match", table.Match()), list(allow), weights, **fields)


def make_table(*tiers: table.Tier, classes: tuple[table.Class, ...] = (), **fields: Any) -> table.RoutingTable:
    """A sealed table; by default one class that may use all tiers and uses the first."""
    classes = classes or (class_(allow=tuple(each.name for each in tiers)),)
    fields = {
        "policy": "ns/chat",
        "epoch": 1,
        "revision": 1,
        "issued_at": 1_700_000_000.0,
        "models": ["auto"],
        "baseline": LARGE_RATES,
        "resilience": QUICK,
        **fields,
    }
    return table.seal(table.RoutingTable(tiers=list(tiers), classes=list(classes), **fields))


def two_tiers(small: int, large: int, **fields: Any) -> table.RoutingTable:
    """A tier that takes everything, and a better one to fall back to."""
    return make_table(tier("small", small), tier("large", large, quality=0.9), **fields)


class Scene:
    """What a scenario holds: the router, its ports, and its table file."""

    def __init__(self, router: service.Service, *, port: int, admin_port: int, path: pathlib.Path) -> None:
        self.router, self.port, self.admin_port, self.path = router, port, admin_port, path

    async def ask(self, body: dict[str, Any] | bytes | None = None, **headers: Any) -> wire.Reply:
        """One request on a connection of its own."""
        async with await wire.Client.open(self.port) as client:
            client.send(wire.request(wire.chat() if body is None else body, **headers))
            return await client.reply()

    async def get(self, path: str, *, admin: bool = False) -> wire.Reply:
        async with await wire.Client.open(self.admin_port if admin else self.port) as client:
            client.send(wire.request(path=path, method="GET"))
            return await client.reply()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a family's series that have these labels."""
        text = (await self.get("/metrics", admin=True)).body.decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.partition("{")[0] == f"trimtab_router_{name}"]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))

    def publish(self, data: table.RoutingTable | bytes) -> None:
        """Replace the table file, as a ConfigMap volume does, and have it looked at."""
        write_table(self.path, data)
        self.router.tables.look()

    async def quiet(self) -> None:
        """Wait until no request is under way."""
        async with asyncio.timeout(10):
            while self.router.exchanges:
                await asyncio.sleep(0.005)
        self.router.ledger.flush()


def write_table(path: pathlib.Path, data: table.RoutingTable | bytes) -> None:
    """Write beside and rename: never a half-written file, always another inode."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data if isinstance(data, bytes) else table.encode(data))
    beside.replace(path)


@contextlib.asynccontextmanager
async def router(data: table.RoutingTable | bytes | None, **options: Any) -> AsyncIterator[Scene]:
    """A running router; ``None`` for one without a table yet."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.json"
        if data is not None:
            write_table(path, data)
        sockets = (main.bind("127.0.0.1", 0), main.bind("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
        options = {"seed": 1, "drain_seconds": 0.2, **options}
        started = settings.Settings(table=path, port=ports[0], admin_port=ports[1], **options)
        async with main.running(started, sockets) as running:
            yield Scene(running, port=ports[0], admin_port=ports[1], path=path)


@contextlib.asynccontextmanager
async def engine(script: engines.Script = engines.talk) -> AsyncIterator[engines.Engine]:
    """A running engine."""
    made = await engines.Engine(script).start()
    try:
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def one_engine(
    script: engines.Script = engines.talk, **fields: Any
) -> AsyncIterator[tuple[Scene, engines.Engine]]:
    """The usual scene: one engine, one tier, one class."""
    async with engine(script) as made, router(make_table(tier("small", made.port), **fields)) as scene:
        yield scene, made


@contextlib.asynccontextmanager
async def two_engines(
    first: engines.Script, second: engines.Script = engines.talk, **fields: Any
) -> AsyncIterator[tuple[Scene, engines.Engine, engines.Engine]]:
    """An engine of a tier that takes everything, and one of a better tier to fall back to."""
    async with (
        engine(first) as one,
        engine(second) as other,
        router(two_tiers(one.port, other.port, **fields)) as scene,
    ):
        yield scene, one, other


def closed_port() -> int:
    """A port on which nobody listens."""
    return closed_ports(1)[0]


def closed_ports(count: int) -> list[int]:
    """Different ports on which nobody listens."""
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(main.bind("127.0.0.1", 0)) for _ in range(count)]
        return [each.getsockname()[1] for each in bound]


def closed_run(count: int) -> int:
    """The first of so many ports in a row on which nobody listens."""
    while True:
        first = closed_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(main.PortBusyError):
            for port in range(first, first + count):
                stack.enter_context(main.bind("127.0.0.1", port))
            return first
