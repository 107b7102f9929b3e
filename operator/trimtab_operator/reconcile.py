"""One reconcile: the sentence that the whole operator is about.

``snapshot = observe`` → ``plan = optimize`` → ``plan = guard`` → ``changes = diff`` → ``objects = render`` →
``apply`` → ``report``. Handlers and timers only wake it. It is level-triggered and restart-safe: what it must
remember is in the objects' status. The same function runs in the cluster and in local mode; only the ports differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trimtab_core import observation, telemetry

Manifest = dict[str, Any]
"""One Kubernetes object as it would stand in YAML."""


class Cluster(Protocol):
    """Where objects live and replicas run: a Kubernetes API server, or local mode's process runner."""

    async def observe(self) -> observation.Observation:
        """The objects and replicas of all namespaces in scope, with empty ``answers`` and ``engines``.

        Raises:
            errors.ClusterUnreachable: when the API can't be read; the loop then changes nothing.
        """
        ...

    async def apply(self, objects: Sequence[Manifest]) -> None:
        """Make the objects so, by server-side apply as field manager ``trimtab``; prune what is no longer rendered."""
        ...

    async def write_status(self, statuses: Mapping[tuple[str, str, str], Manifest]) -> None:
        """Write status, by (kind, namespace, name)."""
        ...

    async def emit_event(self, about: tuple[str, str, str], reason: str, message: str, *, warning: bool) -> None:
        """Tell people of one decision."""
        ...


class Metrics(Protocol):
    """Where numbers come from: Prometheus, or direct scraping."""

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Answer every query; one that can't be answered is a ``QueryFailure``, never an empty tuple."""
        ...

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        """Read the engines' gauges, by replica name; ``addresses`` maps names to ``host:port``."""
        ...
