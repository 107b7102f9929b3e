"""The life of one replica as a local process: pending, ready, draining, gone; after a crash, again from the start."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from trimtab_core.snapshot import ReplicaPhase

from trimtab_operator.local import child, failures, ports
from trimtab_operator.local.probe import Probe

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
PROBE_SECONDS = 0.2
TABLE_SETTLE_SECONDS = 1.0
"""Routers watch their table's file; so long after a change no new request comes by the old one."""
STOP_GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL, for a replica whose requests have ended or run out of time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """How to run a container here.

    Attributes:
        argv: program and arguments.
        environment: added to ours.
        port: the port that clients of this process call, on loopback.
        health_path: answers 200 once it serves.
        metrics_port: serves ``/metrics``; the same as ``port`` where there is one listener.
    """

    argv: tuple[str, ...]
    port: int
    metrics_port: int
    health_path: str = "/health"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What a replica needs of the world.

    Attributes:
        clock: epoch seconds.
        environment: that every process starts with.
        say: tells people one thing.
        changed: called when a phase changed, so that the loop can look again.
        unrouted: whether no table in force sends requests to the replica of that name.
    """

    clock: Callable[[], float]
    probe: Probe
    folder: Path
    environment: Mapping[str, str]
    say: Callable[[str], None]
    changed: Callable[[], None]
    unrouted: Callable[[str], bool]


class Replica:
    """One replica. ``live`` runs its whole life; ``leave`` asks it to end.

    Attributes:
        digest: of the template that it was made from.
        created_at, ready_at, left_at, ended_at: epoch seconds; None while not yet so.
        restarts: crashes so far.
        drain_since: when the loop marked it to leave, epoch seconds; None without a mark.
        deletion_cost: the lowest leaves first.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        command: Callable[[], Command],
        *,
        drain_seconds: float,
        surroundings: Surroundings,
    ) -> None:
        self.name = name
        self.digest = digest
        self.phase = ReplicaPhase.PENDING
        self.created_at = surroundings.clock()
        self.ready_at: float | None = None
        self.left_at: float | None = None
        self.ended_at: float | None = None
        self.restarts = 0
        self.drain_since: float | None = None
        self.deletion_cost = 0
        self._make_command = command
        self._command: Command | None = None
        self._child: child.Child | None = None
        self._drain_seconds = drain_seconds
        self._grace_seconds = STOP_GRACE_SECONDS
        self._world = surroundings
        self._leaving = asyncio.Event()

    @property
    def address(self) -> str:
        """``host:port`` for its clients, empty before it has one."""
        return f"{ports.LOOPBACK}:{self._command.port}" if self._command else ""

    @property
    def metrics_address(self) -> str:
        """``host:port`` that serves ``/metrics``, empty before it has one."""
        return f"{ports.LOOPBACK}:{self._command.metrics_port}" if self._command else ""

    @property
    def leaving(self) -> bool:
        """It was asked to end."""
        return self._leaving.is_set()

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return self._child.pid if self._child is not None and self._child.code is None else None

    def leave(self) -> None:
        """Ask it to end: at once if it serves nobody yet, otherwise by draining."""
        if self.phase is ReplicaPhase.READY:
            self._become(ReplicaPhase.DRAINING)
        self.left_at = self.left_at or self._world.clock()
        self._leaving.set()

    async def live(self) -> None:
        """Run until asked to leave; restart after a crash, with growing pauses. Cancelling kills the process."""
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while not self._leaving.is_set():
                lasted = await self._run_once()
                if self._leaving.is_set():
                    break
                self.restarts += 1
                backoff = FIRST_BACKOFF_SECONDS if lasted > LONGEST_BACKOFF_SECONDS else backoff
                self._become(ReplicaPhase.FAILED)
                await self._asked_to_leave(within=backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
        finally:
            if self._child is not None:
                self._child.kill()
                await self._child.wait()
            self.ended_at = self._world.clock()
            self._world.changed()

    def hurry(self, grace_seconds: float) -> None:
        """Ask it to end without draining: SIGTERM at once, SIGKILL after ``grace_seconds``."""
        self._grace_seconds = grace_seconds
        self._drain_seconds = 0.0
        self._leaving.set()

    async def _run_once(self) -> float:
        """One process from start to end; returns how long it lasted, in seconds."""
        started_at = self._world.clock()
        log = self._world.folder / f"{self.name}.log"
        try:
            self._command = self._make_command()
            self._child = await child.Child.start(
                self._command.argv, {**self._world.environment, **self._command.environment}, log
            )
        except (OSError, failures.LocalError) as error:
            self._world.say(f"{self.name} can't be started: {error}")
            return 0.0
        self._become(ReplicaPhase.PENDING)
        ended = asyncio.ensure_future(self._child.wait())
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            await self._watch_start(ended)
            await asyncio.wait({ended, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._part(ended)
            elif not self.leaving:
                self._tell_end(self._child)
        finally:
            ended.cancel()
            leaving.cancel()
        return self._world.clock() - started_at

    async def _watch_start(self, ended: asyncio.Future[int]) -> None:
        """Wait until it answers its health path, ends, or is asked to leave."""
        assert self._command is not None
        address = f"{ports.LOOPBACK}:{self._command.port}"
        if self._command.metrics_port != self._command.port:
            address = self.metrics_address
        while not ended.done() and not self.leaving:
            if await self._world.probe.healthy(address, self._command.health_path):
                if not self.leaving:
                    self.ready_at = self._world.clock()
                    self._become(ReplicaPhase.READY)
                return
            await asyncio.sleep(PROBE_SECONDS)

    async def _part(self, ended: asyncio.Future[int]) -> None:
        """Drain, then stop: no new requests, then those in flight end or run out of time, then SIGTERM and SIGKILL."""
        assert self._child is not None
        if self.phase is ReplicaPhase.DRAINING:
            deadline = self._world.clock() + self._drain_seconds
            while not self._world.unrouted(self.name) and self._in_time(deadline, ended):  # noqa: ASYNC110 (a file)
                await asyncio.sleep(PROBE_SECONDS)
            await asyncio.sleep(min(TABLE_SETTLE_SECONDS, self._drain_seconds))
            while await self._busy() and self._in_time(deadline, ended):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(PROBE_SECONDS)
        await self._child.stop(STOP_GRACE_SECONDS)

    async def _busy(self) -> bool:
        """Whether its engine has requests, or doesn't say."""
        return await self._world.probe.in_flight(self.metrics_address) != 0

    def _in_time(self, deadline: float, ended: asyncio.Future[int]) -> bool:
        """Whether waiting still makes sense."""
        return not ended.done() and self._world.clock() < deadline

    async def _asked_to_leave(self, *, within: float) -> None:
        """Sleep, but wake when asked to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), within)

    def _become(self, phase: ReplicaPhase) -> None:
        """Change phase and say so to the loop."""
        if phase is not self.phase:
            self.phase = phase
            if phase is not ReplicaPhase.DRAINING and phase is not ReplicaPhase.READY:
                self.ready_at = None
            self._world.changed()

    def _tell_end(self, gone: child.Child) -> None:
        """Say that a process ended by itself, with what it last printed."""
        when = "after it had served" if self.phase is ReplicaPhase.READY else "before it served"
        tail = gone.tail().replace("\n", "\n    ")
        said = f"{self.name} ended with code {gone.code} {when}; log {gone.log}"
        self._world.say(f"{said}\n    {tail}" if tail else said)
