"""The soak's world: a router process, engine processes that die, freeze and come back, and a table that changes."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec
import processes
from trimtab_core.routing import table

HERE = pathlib.Path(__file__).parent
ENGINES = 6
_SPARE = ENGINES - 1
_TIER_OF = ("small", "small", "small", "large", "large", "small")
RATES = {"small": table.Rates(1e-6, 2e-6, 5e-7), "large": table.Rates(1e-5, 2e-5, 5e-6)}
RULES = table.Resilience(
    connect_timeout=1.0,
    first_byte_timeout=4.0,
    answer_timeout=20.0,
    idle_timeout=3.0,
    stall_after=1.5,
    max_fallbacks=2,
    eject_seconds=1.0,
    ease_in_seconds=2.0,
    hedge_quantile=0.97,
    retry_floor_per_second=5.0,
    queue_requests=1000,
    queue_at=1.5,
)


@dataclass
class Engine:
    """One engine's port and its process of now."""

    number: int
    port: int
    process: subprocess.Popen[bytes] | None = None
    life: int = 0
    well: bool = False


@dataclass
class World:
    """All processes of a soak.

    Attributes:
        folder: for the table, the router's log, and what engines write down.
        seed: of the engines' faults.
        token_seconds: pace of the engines.
        fault_share: of attempts that engines spoil.
        done: how often what happened.
    """

    folder: pathlib.Path
    seed: int
    token_seconds: float
    fault_share: float
    capacity: float
    port: int = field(default_factory=processes.free_port)
    admin_port: int = field(default_factory=processes.free_port)
    engines: list[Engine] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    spare_in: bool = False
    draining: int | None = None
    small_share: float = 0.7
    _revision: int = 0
    _router: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    def start(self) -> processes.Proxy:
        """Start all, and wait until they listen."""
        self.engines = [Engine(number, processes.free_port()) for number in range(ENGINES)]
        for engine in self.engines:
            self.raise_engine(engine)
        self.publish()
        self._log = (self.folder / "router.log").open("wb")
        options = ["--table", str(self.folder / "table.json"), "--port", str(self.port), "--drain-seconds", "5"]
        options += ["--admin-port", str(self.admin_port), "--access-log"]
        command = [sys.executable, "-m", "trimtab_cli", "router", *options]
        self._router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)
        for engine in self.engines:
            assert engine.process is not None
            if not processes.listens(engine.port, engine.process, 20):
                raise SystemExit(f"engine {engine.number} does not start")
        if not processes.listens(self.port, self._router, 20):
            raise SystemExit("the router does not start:\n" + (self.folder / "router.log").read_text())
        return processes.Proxy("router", self.port, self._router)

    def raise_engine(self, engine: Engine) -> None:
        """A new life for an engine, on its old port."""
        engine.life += 1
        path = self.folder / f"{engine.number}.{engine.life}.slots"
        seed, pace, share = str(self.seed), str(self.token_seconds), str(self.fault_share)
        command = [sys.executable, str(HERE / "engine.py"), str(engine.port), str(path), seed, pace, share]
        engine.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        engine.well = True

    def kill(self, engine: Engine) -> None:
        """As the kernel does when memory is out."""
        assert engine.process is not None
        engine.well = False
        engine.process.kill()
        engine.process.wait()

    def publish(self) -> None:
        """Write the table of now beside the old one, and rename it over."""
        self._revision += 1
        qualities = {"small": 0.6, "large": 0.9}
        tiers = [table.Tier(name, name, qualities[name], RATES[name], self._endpoints(name)) for name in RATES]
        weights = {"small": self.small_share, "large": 1.0 - self.small_share}
        classes = [table.Class("default", table.Match(), ["small", "large"], weights, table.Slo(2.0, 1.0, 60.0))]
        data = table.RoutingTable(
            "soak/soak", 1, self._revision, 0.0, ["auto"], tiers, classes, RATES["large"], resilience=RULES
        )
        path = self.folder / "table.new"
        path.write_bytes(table.encode(table.seal(data)))
        path.replace(self.folder / "table.json")

    def _endpoints(self, tier: str) -> list[table.Endpoint]:
        numbers = [number for number in range(ENGINES) if _TIER_OF[number] == tier]
        found = []
        for number in numbers:
            if number != _SPARE or self.spare_in:
                made = table.Endpoint(
                    f"{tier}-{number}", f"127.0.0.1:{self.engines[number].port}", capacity=self.capacity
                )
                draining = number == self.draining
                found.append(msgspec.structs.replace(made, state="Draining") if draining else made)
        return found

    def admin(self, path: str) -> str:
        """What the router says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def still(self) -> int:
        """Requests that any of the router's structures still knows of."""
        asked = sum(each["inFlight"] for each in json.loads(self.admin("/admin/endpoints"))["endpoints"])
        return int(asked + sum(each["requests"] for each in json.loads(self.admin("/admin/waiting"))["rooms"]))

    def open_files(self) -> int:
        """Of the router, without warm connections to engines and the one that asks for them."""
        assert self._router is not None
        warm = sum(each["idleConnections"] for each in json.loads(self.admin("/admin/endpoints"))["endpoints"])
        # The connection that this was asked over is closed a moment later.
        time.sleep(0.1)
        return len(list(pathlib.Path(f"/proc/{self._router.pid}/fd").iterdir())) - int(warm)

    def end_router(self) -> int:
        """Ask it to end, as Kubernetes does; returns its exit code."""
        assert self._router is not None
        self._router.send_signal(signal.SIGTERM)
        return self._router.wait(20)

    def lines(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The access log, and whatever else the router complained of."""
        access, rest = [], []
        for line in (self.folder / "router.log").read_text().splitlines():
            if line.startswith("{"):
                access.append(json.loads(line))
            elif " INFO " not in line:
                rest.append(line)
        return access, rest

    def close(self) -> None:
        """End what is left, frozen or not."""
        for process in [engine.process for engine in self.engines] + [self._router]:
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()


@contextmanager
def running(world: World) -> Iterator[processes.Proxy]:
    """A started world, ended whatever happens."""
    try:
        yield world.start()
    finally:
        world.close()


async def turmoil(world: World, rng: random.Random, *, gap_seconds: float) -> None:
    """Something happens about every ``gap_seconds``, until cancelled; what was begun is then put right by ``calm``."""
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            await asyncio.sleep(gap_seconds * rng.uniform(0.5, 1.5))
            happening = rng.choice((_die, _die, _freeze, _freeze, _drain, _spare, _weigh))
            task = asyncio.ensure_future(happening(world, random.Random(rng.random()), gap_seconds))  # noqa: S311
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def calm(world: World) -> None:
    """Let everything be well again."""
    for engine in world.engines:
        if engine.process is not None and engine.process.poll() is None:
            engine.process.send_signal(signal.SIGCONT)
            engine.well = True
        else:
            world.raise_engine(engine)


def _victim(world: World, rng: random.Random) -> Engine | None:
    """One that is well, as long as most are."""
    well = [engine for engine in world.engines[:_SPARE] if engine.well]
    return rng.choice(well) if len(well) > 3 else None


async def _die(world: World, rng: random.Random, gap_seconds: float) -> None:
    engine = _victim(world, rng)
    if engine is not None:
        world.done["killed"] += 1
        world.kill(engine)
        await asyncio.sleep(rng.uniform(0.2, 1.0) * gap_seconds)
        world.raise_engine(engine)
        world.done["restarted"] += 1


async def _freeze(world: World, rng: random.Random, gap_seconds: float) -> None:
    engine = _victim(world, rng)
    if engine is not None:
        assert engine.process is not None
        world.done["frozen"] += 1
        engine.well = False
        engine.process.send_signal(signal.SIGSTOP)
        # Shorter and longer than the time after which a silent stream is given up.
        await asyncio.sleep(rng.uniform(0.1, 1.2) * max(gap_seconds, RULES.idle_timeout))
        engine.process.send_signal(signal.SIGCONT)
        engine.well = True


async def _drain(world: World, rng: random.Random, gap_seconds: float) -> None:
    if world.draining is None:
        world.done["drained"] += 1
        world.draining = rng.randrange(_SPARE)
        world.publish()
        await asyncio.sleep(gap_seconds)
        world.draining = None
        world.publish()


async def _spare(world: World, rng: random.Random, gap_seconds: float) -> None:
    del rng, gap_seconds
    world.done["endpoint added" if not world.spare_in else "endpoint removed"] += 1
    world.spare_in = not world.spare_in
    world.publish()


async def _weigh(world: World, rng: random.Random, gap_seconds: float) -> None:
    del gap_seconds
    world.done["weights changed"] += 1
    world.small_share = round(rng.uniform(0.3, 0.9), 2)
    world.publish()
