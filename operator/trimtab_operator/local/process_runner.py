"""The cluster port on one machine: runs what rendered Deployments say as local processes.

Objects live in a ``store.Store``; ConfigMaps become files; each Deployment replica becomes a process of the program
that its image stands for. Nothing outlives the runner: every child is in a process group of its own and dies with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from trimtab_core import observation, recall
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase

from trimtab_operator import labels
from trimtab_operator.local import group, store, workload
from trimtab_operator.local import replica as replicas
from trimtab_operator.local.probe import HttpProbe, Probe

_REAP_SECONDS = 2.0
"""From SIGKILL to the end of a process, on a busy machine."""


class Image(Protocol):
    """What a container image stands for on this machine."""

    def command(self, container: workload.Workload) -> replicas.Command:
        """How to run one more replica of it, on ports of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Life:
    """One engine replica from its first process to its end, for the bill. Times in epoch seconds.

    Attributes:
        left_at: when it was told to leave.
    """

    name: str
    variant: VariantKey
    created_at: float
    ready_at: float | None
    left_at: float | None
    ended_at: float | None
    phase: ReplicaPhase


class ProcessRunner:
    """Implements ``reconcile.Cluster`` with processes of this machine.

    Args:
        objects: where manifests and their status are.
        images: what to run for each role of a workload.
        folder: takes the files of ConfigMaps and the logs.
        clock: gives epoch seconds.
        say: tells people one thing.
        changed: called when a replica changed its phase, so that the loop can look at once.

    """

    def __init__(
        self,
        objects: store.Store,
        images: Mapping[workload.Role, Image],
        *,
        folder: Path,
        clock: Callable[[], float],
        say: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        probe: Probe | None = None,
    ) -> None:
        self.objects = objects
        self.folder = folder
        self._images = images
        self._clock = clock
        self._probe = probe or HttpProbe()
        self._groups: dict[tuple[str, str], group.Group] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._routed: set[str] = set()
        self._numbers = itertools.count(1)
        self._surroundings = replicas.Surroundings(
            clock=clock,
            probe=self._probe,
            folder=folder,
            environment=os.environ,
            say=say,
            changed=changed,
            unrouted=lambda name: name not in self._routed,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace_seconds: float = 3.0) -> None:
        """Stop every process, without draining; after ``grace_seconds`` by SIGKILL."""
        for members in self._groups.values():
            for one in members.alive():
                one.hurry(grace_seconds)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_seconds + _REAP_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def observe(self) -> observation.Observation:
        """The objects, and the replicas of every variant."""
        return observation.Observation(
            tiers=self.objects.tiers(),
            policies=self.objects.policies(),
            caches=self.objects.caches(),
            variants={
                members.workload.variant: self._observed(members)
                for members in self._groups.values()
                if members.workload.variant is not None
            },
            answers={},
            engines={},
            routers=self._ready_routers(),
        )

    async def apply(self, objects: Sequence[workload.Manifest]) -> None:
        """Make the objects so: files first, then processes. Workloads that are no longer among them are let go."""
        for manifest in objects:
            if manifest["kind"] == "ConfigMap":
                write_config(self.folder, manifest)
        self._routed = workload.routed_names(objects)
        self._mark(workload.marks(objects))
        wanted = workload.read(objects)
        for key, found in wanted.items():
            if key in self._groups:
                self._groups[key].workload = found
            else:
                self._groups[key] = group.Group(found, self._start)
        for key, members in self._groups.items():
            count = _count(members.workload) if key in wanted else 0
            await members.settle(count, self._probe)

    async def write_status(self, statuses: Mapping[tuple[str, str, str], workload.Manifest]) -> None:
        """Keep the statuses with the objects."""
        self.objects.write_status(statuses)

    async def emit_event(self, about: tuple[str, str, str], reason: str, message: str, *, warning: bool) -> None:
        """Keep the event for whoever shows it."""
        self.objects.events.append(store.Event(self._clock(), about, reason, message, warning))

    def routers(self) -> dict[str, str]:
        """Routers that run, name → address of their metrics; what the scraper asks for."""
        return {
            one.name: one.metrics_address
            for members in self._groups.values()
            if members.workload.role is workload.Role.ROUTER
            for one in members.alive()
            if one.metrics_address
        }

    def serves(self) -> bool:
        """Whether every policy has a router that serves."""
        found = self._ready_routers()
        return bool(found) and all(found.values())

    def entrances(self) -> dict[str, str]:
        """Where clients call, policy → address of its router, whether that already serves or not."""
        return {
            members.workload.policy: one.address
            for members in self._groups.values()
            if members.workload.role is workload.Role.ROUTER
            for one in members.staying()
            if one.address
        }

    def lives(self) -> tuple[Life, ...]:
        """Every engine replica that ever was, in order of creation."""
        found = [
            Life(one.name, members.workload.variant, one.created_at, one.ready_at, one.left_at, one.ended_at, one.phase)
            for members in self._groups.values()
            if members.workload.variant is not None
            for one in members.replicas
        ]
        return tuple(sorted(found, key=lambda life: (life.created_at, life.name)))

    def pids(self) -> set[int]:
        """Processes that run now."""
        return {one.pid for members in self._groups.values() for one in members.alive() if one.pid is not None}

    def _start(self, container: workload.Workload) -> replicas.Replica:
        """Make a replica and set it going."""
        image = self._images[container.role]
        one = replicas.Replica(
            f"{container.name}-{next(self._numbers)}",
            container.digest,
            lambda: image.command(container),
            drain_seconds=container.grace_seconds,
            surroundings=self._surroundings,
        )
        self._groups[container.key].replicas.append(one)
        self._tasks[one.name] = asyncio.get_running_loop().create_task(one.live())
        return one

    def _mark(self, told: Mapping[str, Mapping[str, str | None]]) -> None:
        """Note what replicas are told; an annotation that is not named stays as it is."""
        for members in self._groups.values():
            for one in members.alive():
                annotations = told.get(one.name, {})
                if labels.DRAIN_SINCE in annotations:
                    one.drain_since = recall.epoch_seconds(annotations[labels.DRAIN_SINCE])
                if labels.DELETION_COST in annotations:
                    one.deletion_cost = int(annotations[labels.DELETION_COST] or 0)

    def _observed(self, members: group.Group) -> observation.ObservedVariant:
        """One variant's replicas as the loop sees them."""
        return observation.ObservedVariant(
            desired=_count(members.workload),
            replicas=tuple(
                observation.ObservedReplica(
                    name=one.name,
                    phase=one.phase if one.drain_since is None else ReplicaPhase.DRAINING,
                    created_at=one.created_at,
                    ready_at=one.ready_at,
                    address=one.address,
                    drain_since=None if one.leaving else one.drain_since,
                )
                for one in members.alive()
            ),
            told=_count(members.workload),
        )

    def _ready_routers(self) -> dict[str, tuple[str, ...]]:
        """Per policy, the routers that serve."""
        return {
            members.workload.policy: tuple(one.name for one in members.alive() if one.phase is ReplicaPhase.READY)
            for members in self._groups.values()
            if members.workload.role is workload.Role.ROUTER
        }


def _count(wanted: workload.Workload) -> int:
    """Replicas to run here: one router per policy is enough for one machine; a count left to an autoscaler is one."""
    if wanted.role is workload.Role.ROUTER:
        return 1
    return 1 if wanted.replicas is None else wanted.replicas


def config_folder(folder: Path, namespace: str, name: str) -> Path:
    """Where the files of a ConfigMap are."""
    return folder / "configs" / namespace / name


def write_config(folder: Path, manifest: workload.Manifest) -> None:
    """Write a ConfigMap's files, each by an atomic rename; a reader never sees half of one."""
    metadata = manifest["metadata"]
    target = config_folder(folder, metadata.get("namespace", "default"), metadata["name"])
    target.mkdir(parents=True, exist_ok=True)
    for name, text in manifest.get("data", {}).items():
        path = target / name
        with contextlib.suppress(FileNotFoundError):
            if path.read_text() == text:
                continue
        fresh = path.with_name(f".{name}.new")
        fresh.write_text(text)
        fresh.replace(path)
