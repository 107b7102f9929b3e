"""One reconcile: the sentence that the whole operator is about.

``snapshot = observe`` → ``plan = optimize`` → ``plan = guard`` → ``changes = diff`` → ``objects = render`` →
``apply`` → ``report``. Handlers and timers only wake it. It is level-triggered and restart-safe: what it must
remember is in the objects' status. The same function runs in the cluster and in local mode; only the ports differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from trimtab_core import answers, observation, telemetry, traffic
from trimtab_core.planning import guards, optimizer
from trimtab_core.planning import plan as planning
from trimtab_core.routing import publish
from trimtab_core.routing.table import RoutingTable
from trimtab_core.snapshot import PolicyKey, ReplicaPhase, Snapshot

from trimtab_operator import drain, errors, pace, render, report, statuses
from trimtab_operator import settings as settings_
from trimtab_operator.observe import past as past_

Manifest = dict[str, Any]
"""One Kubernetes object as it would stand in YAML."""


class Cluster(Protocol):
    """Where objects live and replicas run: a Kubernetes API server, or local mode's process runner."""

    async def observe(self) -> observation.Observation:
        """The objects and replicas of all namespaces in scope, with empty ``answers`` and ``engines``.

        Raises:
            errors.ClusterUnreachableError: when the API can't be read; the loop then changes nothing.
        """
        ...

    async def apply(self, objects: Sequence[Manifest]) -> None:
        """Make the objects so, in the order given, and remove what we own and no longer render.

        By server-side apply as field manager ``trimtab``. A ``Pod`` is the exception: it holds nothing but
        annotations that are merged into a replica that runs (null removes one), and it is never created or removed.
        ``labels.DRAIN_SINCE`` on it marks a replica that is told to leave: ``observe`` must give it back as
        ``drain_since``, with phase DRAINING; ``labels.DELETION_COST`` says who goes first when a count falls.

        Raises:
            errors.ObjectsRefusedError: when some objects were refused; the others are applied.
            errors.ClusterUnreachableError: when the API can't be written.
            errors.DeposedError: when another leader acts.
        """
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

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """A query's answers over a period, by label values: (epoch seconds, value) pairs, oldest first, without NaN.

        Nothing where nothing is kept from before a start.

        Raises:
            errors.MetricsError: saying why there is no answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The world that one reconcile acts on."""

    cluster: Cluster
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Memory:
    """What one term of leadership keeps between two cycles: hints only, but for the epoch.

    Attributes:
        epoch: of this leader; in every write.
        snapshot, plan: of the cycle before.
        tables: as last published, by policy.
        moved_at: when each policy's weights last moved, epoch seconds.
        recalled: the metrics were asked what was before.
    """

    epoch: int = 1
    snapshot: Snapshot | None = None
    plan: planning.Plan | None = None
    tables: Mapping[PolicyKey, RoutingTable] = field(default_factory=dict)
    moved_at: Mapping[PolicyKey, float] = field(default_factory=dict)
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cycle saw, decided and did.

    Attributes:
        plan: after the guards.
        told: the replica count that each variant's Deployment was given; above the plan while replicas drain.
        refused: objects that were not accepted, with the reason.
        memory: for the next cycle.
    """

    snapshot: Snapshot
    plan: planning.Plan
    changes: planning.Changes
    decisions: tuple[planning.Decision, ...]
    told: Mapping[planning.VariantKey, int]
    refused: Mapping[str, str]
    memory: Memory


async def reconcile(ports: Ports, memory: Memory, settings: settings_.Loop, now: float) -> Outcome:
    """Look, decide, act, tell: once.

    Args:
        ports: the world.
        memory: of the cycle before; a fresh ``Memory(epoch)`` after a start.
        settings: of the loop.
        now: epoch seconds.

    Raises:
        errors.ClusterUnreachableError: nothing was changed, or not all of it; the next cycle goes on.
        errors.DeposedError: another leader acts.
    """
    seen = await observe(ports, settings, now)
    past = await recall_past(ports.metrics, settings, now) if seen.policies and not memory.recalled else None
    seen = dataclasses.replace(seen, past=past or {})
    judging = dataclasses.replace(settings.judging, window_seconds=settings.window_seconds)
    snapshot = observation.snapshot(seen, now=now, epoch=memory.epoch, previous=memory.snapshot, settings=judging)
    wanted = optimizer.optimize(snapshot, previous=memory.plan)
    plan = pace.hold(guards.guard(wanted, snapshot), snapshot, memory.moved_at, settings.interval_seconds)
    changes = planning.diff(snapshot, plan)
    decisions = planning.decisions(snapshot, plan, changes)
    step = drain.step(seen, snapshot, plan, settle_seconds=settings.settle_seconds)
    tables = publish_tables(seen, drain.marked(snapshot, step.leaving), plan, memory)
    rendered = render.render(render.Inputs(seen, step, tables, memory.epoch, settings.prometheus_url))
    refused = {**rendered.refused, **await apply(ports.cluster, rendered.objects)}
    cycle = statuses.Cycle(seen, snapshot, plan, changes, decisions, step.scale, refused, tables)
    await report.report(ports.cluster, cycle)
    kept = Memory(
        memory.epoch,
        snapshot,
        plan,
        tables,
        pace.moved(changes, memory.moved_at, now),
        memory.recalled or past is not None,
    )
    return Outcome(snapshot, plan, changes, decisions, step.scale, refused, kept)


async def observe(ports: Ports, settings: settings_.Loop, now: float) -> observation.Observation:
    """What the cluster, the metrics and the engines show, as one observation."""
    seen = await ports.cluster.observe()
    addresses = {
        replica.name: replica.address
        for variant in seen.variants.values()
        for replica in variant.replicas
        if replica.address and replica.phase in (ReplicaPhase.READY, ReplicaPhase.DRAINING)
    }
    queries = answers.queries(settings.window_seconds)
    return dataclasses.replace(
        seen,
        answers=await ports.metrics.answers(queries, now) if seen.policies else {},
        engines=await ports.metrics.engines(addresses, now),
    )


async def recall_past(
    metrics: Metrics, settings: settings_.Loop, now: float
) -> Mapping[traffic.PastKey, traffic.Past] | None:
    """What the metrics know from before this term; None where they can't be asked yet."""
    try:
        return await past_.arrivals(metrics, settings, now)
    except errors.MetricsError:
        return None


def publish_tables(
    seen: observation.Observation, snapshot: Snapshot, plan: planning.Plan, memory: Memory
) -> dict[PolicyKey, RoutingTable]:
    """The table of every policy: the one before where nothing in it changed, else the next revision."""
    published: dict[PolicyKey, RoutingTable] = {}
    for key in snapshot.policies:
        before = memory.tables.get(key)
        secrets = publish.Secrets(seen.tenant_keys.get(key, {}))
        revision = before.revision + 1 if before else 1
        table = publish.table(
            snapshot, plan, key, epoch=memory.epoch, revision=revision, secrets=secrets, previous=before
        )
        published[key] = before if before and before.content_hash == table.content_hash else table
    return published


async def apply(cluster: Cluster, objects: Sequence[Manifest]) -> Mapping[str, str]:
    """Apply all objects; what was refused comes back with its reason, so that status can say so."""
    try:
        await cluster.apply(objects)
    except errors.ObjectsRefusedError as error:
        return error.reasons
    return {}
