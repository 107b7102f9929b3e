"""From what observers saw to the snapshot that the planner sees. Pure: every reading comes in as a value.

The operator's observers, local mode and the simulator all deliver an ``Observation``; ``snapshot`` judges
each number (fresh, stale or missing), drops series of replicas that no longer exist, resolves prices and
profiles, and reads what the loop must remember from the objects' status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_core import signals
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase
from trimtab_core.telemetry import Answer


@dataclass(frozen=True, slots=True)
class QueryFailure:
    """A query that could not be answered, and why; never the same as an empty answer."""

    reason: str


Answers = Mapping[str, tuple[Answer, ...] | QueryFailure]
"""By signal name of ``telemetry.traffic_queries``."""


@dataclass(frozen=True, slots=True)
class EngineReading:
    """The gauges of one engine as last scraped; None where the family is absent."""

    running: signals.Sample | None = None
    waiting: signals.Sample | None = None
    kv_usage: signals.Sample | None = None
    asleep: bool = False


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One pod or process.

    Attributes:
        name: unique in its namespace.
        phase: as the cluster says.
        created_at: epoch seconds.
        ready_at: epoch seconds of the change to ready, None while pending.
        address: ``host:port`` of the engine, empty while unknown.
    """

    name: str
    phase: ReplicaPhase
    created_at: float
    ready_at: float | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class ObservedVariant:
    """What the cluster says of one variant.

    Attributes:
        desired: replica count of its Deployment, or None while there is no Deployment yet.
        external_scaler: another writer on that count, or empty.
        node_labels: labels of a node that runs it, for the price.
    """

    desired: int | None
    replicas: tuple[ObservedReplica, ...] = ()
    external_scaler: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that was seen at one moment."""

    tiers: tuple[v1alpha1.InferenceTier, ...]
    policies: tuple[v1alpha1.RoutingPolicy, ...]
    caches: tuple[v1alpha1.CachePolicy, ...]
    variants: Mapping[VariantKey, ObservedVariant]
    answers: Answers
    engines: Mapping[str, EngineReading]
