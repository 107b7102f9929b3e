"""One moment of a running local mode, as values that a view can show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import signals
from trimtab_core.planning.plan import Decision, VariantKey
from trimtab_core.snapshot import ReplicaPhase, Snapshot
from trimtab_operator import reconcile
from trimtab_operator.local.process_runner import Life


@dataclass(frozen=True, slots=True)
class VariantLine:
    """One variant with its replicas by phase. ``usd_per_hour`` is of one replica, None where the price is unknown."""

    tier: str
    name: str
    hardware: str
    ready: int
    pending: int
    draining: int
    usd_per_hour: float | None
    running: float | None


@dataclass(frozen=True, slots=True)
class ClassLine:
    """One class: what it gets and where it goes (tier → share)."""

    policy: str
    name: str
    arrivals_per_second: float | None
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is shown of one moment.

    Attributes:
        usd_per_hour: what all replicas cost, pending and draining ones included.
        baseline_usd_per_hour: what the same traffic would cost on the baseline tier alone, by the planner's estimate.
        attainment: share of recent requests that met the SLO, as the loop measured it; None while unknown.
        decision: the last one that was taken.
    """

    variants: Sequence[VariantLine]
    classes: Sequence[ClassLine]
    usd_per_hour: float
    baseline_usd_per_hour: float
    attainment: float | None
    decision: Decision | None


def take(outcome: reconcile.Outcome, lives: Sequence[Life], decision: Decision | None) -> Picture:
    """The moment after a cycle, with the replicas as they are now."""
    snapshot = outcome.snapshot
    variants = [line for key in sorted(told_or_alive(outcome, lives)) if (line := _variant(snapshot, key, lives))]
    return Picture(
        variants=variants,
        classes=_classes(outcome),
        usd_per_hour=usd_per_hour(snapshot, lives),
        baseline_usd_per_hour=outcome.plan.prediction.baseline_usd_per_hour,
        attainment=signals.known(
            signals.combine((policy.slo_attainment for policy in snapshot.policies.values()), min)
        ),
        decision=decision,
    )


def told_or_alive(outcome: reconcile.Outcome, lives: Sequence[Life]) -> set[VariantKey]:
    """Variants that have replicas or should have some."""
    return {key for key, count in outcome.told.items() if count} | {
        one.variant for one in lives if one.ended_at is None
    }


def usd_per_hour(snapshot: Snapshot, lives: Sequence[Life]) -> float:
    """What the replicas that live cost per hour; an unknown price is left out, as nothing is bought at one."""
    return sum(_price(snapshot, one.variant) or 0.0 for one in lives if one.ended_at is None)


def _variant(snapshot: Snapshot, key: VariantKey, lives: Sequence[Life]) -> VariantLine | None:
    """One variant's line; None for one that is no longer in the manifests."""
    tier = snapshot.tiers.get(key.tier)
    state = next((variant for variant in tier.variants if variant.name == key.variant), None) if tier else None
    if state is None:
        return None
    phases = [one.phase for one in lives if one.variant == key and one.ended_at is None]
    hardware = state.spec.accelerator
    running = [value for replica in state.replicas if (value := signals.known(replica.running)) is not None]
    return VariantLine(
        tier=_short(key.tier),
        name=key.variant,
        hardware=f"{hardware.count} × {hardware.type}" if hardware.count > 1 else hardware.type,
        ready=phases.count(ReplicaPhase.READY),
        pending=phases.count(ReplicaPhase.PENDING) + phases.count(ReplicaPhase.FAILED),
        draining=phases.count(ReplicaPhase.DRAINING),
        usd_per_hour=_price(snapshot, key),
        running=sum(running) if running else None,
    )


def _price(snapshot: Snapshot, key: VariantKey) -> float | None:
    """USD per replica-hour, None where it is unknown or the variant is gone."""
    tier = snapshot.tiers.get(key.tier)
    for variant in tier.variants if tier else ():
        if variant.name == key.variant and variant.price is not None:
            return variant.price.usd_per_hour
    return None


def _classes(outcome: reconcile.Outcome) -> list[ClassLine]:
    """The weights as published."""
    lines = []
    for key, table in sorted(outcome.memory.tables.items()):
        traffic = outcome.snapshot.policies[key].traffic if key in outcome.snapshot.policies else {}
        for found in table.classes:
            measured = traffic.get(found.name)
            arrivals = signals.known(measured.arrivals_per_second) if measured else None
            lines.append(ClassLine(_short(key), found.name, arrivals, found.weights))
    return lines


def _short(key: str) -> str:
    """A key without its namespace."""
    return key.rpartition("/")[2]
