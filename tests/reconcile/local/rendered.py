"""Rendered objects in small, and an image table that runs the tiny program instead of an engine."""

from __future__ import annotations

import asyncio
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from trimtab_core.routing import table as tables
from trimtab_operator import labels
from trimtab_operator.local import ports, process_runner, replica, store, workload

PROGRAM = pathlib.Path(__file__).with_name("program.py")


def deployment(
    replicas: int | None, *, name: str = "small-l4", image: str = "vllm:1", variant: str = "l4"
) -> dict[str, Any]:
    told = {labels.TIER: "small", labels.VARIANT: variant}
    pod = {"containers": [{"name": "engine", "image": image, "args": ["--x"]}], "terminationGracePeriodSeconds": 3}
    spec: dict[str, Any] = {"template": {"metadata": {"labels": told}, "spec": pod}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"kind": "Deployment", "metadata": {"name": name, "namespace": "default", "labels": told}, "spec": spec}


def router(*, config: str = "policy-table") -> dict[str, Any]:
    told = {labels.POLICY: "p"}
    container = {
        "name": "router",
        "image": "trimtab-router:1",
        "volumeMounts": [{"name": "table", "mountPath": "/etc/trimtab"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "table", "configMap": {"name": config}}]}
    return {
        "kind": "Deployment",
        "metadata": {"name": "p-router", "namespace": "default", "labels": told},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": told}, "spec": pod}},
    }


def config_map(*names: str) -> dict[str, Any]:
    """A routing table that sends requests to the replicas of these names."""
    table = tables.seal(
        tables.RoutingTable(
            policy="default/p",
            epoch=1,
            revision=1,
            issued_at=0.0,
            models=["auto"],
            tiers=[
                tables.Tier(
                    name="small",
                    model="m",
                    quality=0.5,
                    rates=tables.Rates(0.0, 0.0),
                    endpoints=[tables.Endpoint(name=name, address="127.0.0.1:1") for name in names],
                )
            ],
            classes=[tables.Class(name="default", match=tables.Match(), allow=["small"], weights={"small": 1.0})],
            baseline=tables.Rates(0.0, 0.0),
        )
    )
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "policy-table", "namespace": "default"},
        "data": {"table.json": tables.encode(table).decode()},
    }


def pod(name: str, annotations: dict[str, str | None]) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "default", "annotations": annotations}}


class TinyImage:
    """Runs ``program.py``; ``argv`` replaces the command by another one."""

    def __init__(self, folder: pathlib.Path, *, ready_after: float = 0.0, argv: tuple[str, ...] = ()) -> None:
        self.folder, self.ready_after, self.argv = folder, ready_after, argv
        self.taken: set[int] = set()
        self.started: list[str] = []

    def command(self, container: workload.Workload) -> replica.Command:
        self.started.append(container.image)
        port = ports.free(self.taken)
        program = (sys.executable, "-S", "-E", str(PROGRAM), str(port), str(self.count_file), str(self.ready_after))
        return replica.Command(self.argv or program, port, port)

    @property
    def count_file(self) -> pathlib.Path:
        """Holds the number of running requests that every program reports."""
        return self.folder / "count"


class Stage:
    """A runner over tiny programs, and what it said.

    Use inside a running loop, as an async context manager.
    """

    def __init__(self, folder: pathlib.Path, image: process_runner.Image | None = None) -> None:
        self.said: list[str] = []
        self.changes = 0
        self.image = image or TinyImage(folder)
        self.runner = process_runner.ProcessRunner(
            store.Store(),
            dict.fromkeys(workload.Role, self.image),
            folder=folder,
            clock=time.time,
            say=self.said.append,
            changed=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.close()

    def phases(self) -> list[str]:
        return [life.phase.value for life in self.runner.lives() if life.ended_at is None]

    async def until(self, holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Wait until something holds; what it is waited for is the failure's message."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not in time: {what}; phases {self.phases()}, said {self.said}"
            await asyncio.sleep(0.02)

    async def ready(self, count: int) -> None:
        await self.until(lambda: self.phases() == ["Ready"] * count, f"{count} ready replicas and no others")
