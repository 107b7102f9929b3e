"""One soak, from the first process to the last row."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field

import processes
import uvloop

from soak import audit, clients, slots, world

_KEPT_SECONDS = 5.0
"""Longer than the router keeps a connection to an engine that nobody uses."""


@dataclass(frozen=True)
class Plan:
    """How a soak goes.

    Attributes:
        seconds: of load.
        streams: requests under way at one time.
        seed: of what is asked, what fails, and when.
        token_seconds: pace of the engines.
        most_tokens: of one answer.
        fault_share: of attempts that engines spoil by themselves.
        gap_seconds: between two happenings, about.
        memory_mib: by how much the router may have grown; None where a run is too short to tell.
    """

    seconds: float
    streams: int
    seed: int = 1
    token_seconds: float = 0.2
    most_tokens: int = 40
    fault_share: float = 0.06
    gap_seconds: float = 6.0
    memory_mib: float | None = 8.0


@dataclass
class Samples:
    """The router's memory over time, in MiB."""

    at: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    open_files: list[int] = field(default_factory=list)

    def take(self, proxy: processes.Proxy, now: float) -> None:
        """One look."""
        pid = proxy.process.pid
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        self.at.append(now)
        self.pss.append(proxy.memory_mib())
        self.rss.append(pages * os.sysconf("SC_PAGE_SIZE") / processes.MIB)
        self.open_files.append(len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())))

    def median(self, start: float, end: float) -> float:
        """Of PSS between two shares of the run."""
        first, last = self.at[0], self.at[-1]
        found = [
            mib
            for at, mib in zip(self.at, self.pss, strict=True)
            if start <= (at - first) / max(1e-9, last - first) <= end
        ]
        return statistics.median(found)


def soak(plan: Plan) -> list[audit.Row]:
    """Run it, and return every row; those that are not met are what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        # Twice the share that each of four engines has of all: two may be gone at one time.
        capacity = max(4.0, plan.streams / 2)
        scene = world.World(pathlib.Path(folder), plan.seed, plan.token_seconds, plan.fault_share, capacity=capacity)
        with world.running(scene) as proxy, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_soak(plan, scene, proxy))


async def _soak(plan: Plan, scene: world.World, proxy: processes.Proxy) -> list[audit.Row]:
    crowd = clients.Crowd(scene.port, plan.seed, plan.most_tokens, plan.token_seconds)
    samples, files_before = Samples(), await _open_files(scene, 0)
    rng = random.Random(plan.seed)  # noqa: S311 (repeatable)
    asides = [
        asyncio.ensure_future(world.turmoil(scene, rng, gap_seconds=plan.gap_seconds)),
        asyncio.ensure_future(_watch(samples, proxy, every=plan.seconds / 200)),
    ]
    began = time.monotonic()
    ending = asyncio.ensure_future(_calm_later(scene, asides[0], plan.seconds))
    await crowd.run(plan.streams, began + plan.seconds)
    took = time.monotonic() - began
    await ending
    asides[1].cancel()
    await asyncio.gather(*asides, return_exceptions=True)
    cpu = proxy.cpu_seconds()
    await asyncio.sleep(_KEPT_SECONDS)
    after = Samples()
    after.take(proxy, 0.0)
    files_after = await _open_files(scene, files_before)
    metrics, still = scene.admin("/metrics"), scene.still()
    code = scene.end_router()
    lines, complaints = scene.lines()
    attempts = [slot for path in sorted(scene.folder.glob("*.slots")) for slot in slots.read(path)]
    evidence = audit.Evidence(crowd.log, lines, attempts, metrics, world.RATES, still=still)
    return [
        *audit.rows(evidence),
        *_process_rows(plan, samples, after, opened=files_after - files_before),
        audit.row("exit code of the router", code, ""),
        audit.row("complaints in the router's log", len(complaints), "lines", beside=dict.fromkeys(complaints[:3], 1)),
        audit.row("what happened", scene.done.total(), "times", 1.0, comparison=">=", beside=scene.done),
        _pace(evidence, took, cpu / took),
    ]


def _pace(evidence: audit.Evidence, took: float, cpu_share: float) -> audit.Row:
    names = ("fallbacks", "hedges", "ejections", "shed", "retries_refused")
    counts = {name: audit.metric(evidence.metrics, f"{name}_total") for name in names}
    beside = {"CPU share": round(cpu_share, 3), **counts}
    return audit.row("requests a second", len(evidence.seen) / took, "1/s", None, beside=beside)


async def _open_files(scene: world.World, most: int) -> int:
    """Once connections that are just closing are gone: the fewest of some looks, or at most ``most``."""
    found = []
    for _ in range(10):
        found.append(scene.open_files())
        if found[-1] <= most:
            break
        await asyncio.sleep(0.1)
    return min(found)


async def _calm_later(scene: world.World, turmoil: asyncio.Task[None], seconds: float) -> None:
    await asyncio.sleep(seconds)
    turmoil.cancel()
    await asyncio.gather(turmoil, return_exceptions=True)
    world.calm(scene)


async def _watch(samples: Samples, proxy: processes.Proxy, *, every: float) -> None:
    while True:
        samples.take(proxy, time.monotonic())
        await asyncio.sleep(every)


def _process_rows(plan: Plan, samples: Samples, after: Samples, *, opened: int) -> list[audit.Row]:
    warm, first, last = samples.median(0.1, 0.2), samples.median(0.1, 0.4), samples.median(0.7, 0.97)
    grown = audit.row(
        "memory (PSS) after a rest, above after warm-up", after.pss[0] - warm, "MiB", plan.memory_mib,
        beside={"warm": round(warm, 1), "rested": round(after.pss[0], 1), "RSS rested": round(after.rss[0], 1)},
    )  # fmt: skip
    slope = audit.row(
        "memory (PSS) of the last third, above the first", last - first, "MiB", plan.memory_mib,
        beside={"first": round(first, 1), "last": round(last, 1), "most": round(max(samples.pss), 1)},
    )  # fmt: skip
    return [
        grown,
        slope,
        audit.row("open files above the start", opened, "files", beside={"most": max(samples.open_files)}),
    ]
