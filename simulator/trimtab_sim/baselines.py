"""The controllers that Trimtab is compared with, as their authors describe them, each in its best setting.

Both send every request to the best tier that its class may use, which is what most platforms do, served by that
tier's cheapest on-demand variant, without a cache. Their replica counts are not bounded by the variants' ``max``: a
baseline must not look bad for want of hardware.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import capacity, units
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.routing import publish
from trimtab_core.signals import known
from trimtab_core.snapshot import Replica, ReplicaPhase, Snapshot, TierState, VariantState, Weights

from trimtab_sim.control import Orders

_NO_PREDICTION = Prediction(0.0, 0.0, 1.0, 0.0)


def best_tiers(snapshot: Snapshot) -> dict[str, Weights]:
    """Per policy, all of each class on the best tier that it may use."""
    found: dict[str, Weights] = {}
    for policy in snapshot.policies.values():
        namespace = policy.key.partition("/")[0]
        classes: dict[str, Mapping[str, float]] = {}
        for each in policy.spec.classes:
            allowed = [key for key in policy.tiers if key in snapshot.tiers]
            named = {f"{namespace}/{name}" for name in each.allow}
            allowed = [key for key in allowed if not named or key in named]
            if allowed:
                classes[each.name] = {max(allowed, key=lambda key: (_quality(snapshot.tiers[key]), key)): 1.0}
        found[policy.key] = classes
    return found


def cheapest_variant(tier: TierState) -> VariantState | None:
    """The variant that serves a request within the tier's SLO for the least money, on demand if there is one.

    None for an external tier.
    """
    usable = [
        variant for variant in tier.variants if variant.price is not None and variant.spec.replicas.max > 0
    ] or list(tier.variants)
    bought = [variant for variant in usable if variant.spec.capacity_type is not CapacityType.SPOT] or usable
    return min(bought, key=lambda variant: _usd_per_request(tier, variant), default=None)


def _usd_per_request(tier: TierState, variant: VariantState) -> float:
    profile = variant.profile or publish.UNKNOWN_PROFILE
    load = capacity.admissible_load(profile, capacity.DEFAULT_MIX, capacity.limits(tier.spec.slo))
    return (variant.price.usd_per_hour if variant.price else math.inf) * load.seconds_per_request


def _quality(tier: TierState) -> float:
    return units.ratio(tier.spec.model.quality)


def serving_variants(snapshot: Snapshot, tiers: Iterable[str]) -> dict[VariantKey, VariantState]:
    """The variants that a baseline runs: one for each of these tiers that has replicas of its own."""
    found = {}
    for key in sorted(tiers):
        variant = cheapest_variant(snapshot.tiers[key])
        if variant is not None:
            found[VariantKey(key, variant.name)] = variant
    return found


def _plan(snapshot: Snapshot, counts: Mapping[VariantKey, int]) -> Plan:
    """All requests to the best tiers, these replicas, and nothing else."""
    replicas = {
        VariantKey(tier.key, variant.name): counts.get(VariantKey(tier.key, variant.name), 0)
        for tier in snapshot.tiers.values()
        for variant in tier.variants
    }
    return Plan(replicas, best_tiers(snapshot), {}, _NO_PREDICTION, Source.FLOOR)


class StaticPeak:
    """A fixed number of replicas, on all day.

    Args:
        counts: replicas of each serving variant.
    """

    name = "static-peak"
    uses_cache = False

    def __init__(self, counts: Mapping[VariantKey, int]) -> None:
        self.counts = dict(counts)
        self.settings = ", ".join(f"{count} × {_told(key)}" for key, count in sorted(counts.items()))

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """It never changes its mind; once a minute keeps the table fresh."""
        del snapshot
        return 60.0

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """Its replicas, and nothing else."""
        return dict(_plan(snapshot, self.counts).replicas)

    def step(self, snapshot: Snapshot) -> Orders:
        """The same as ever."""
        return Orders(_plan(snapshot, self.counts))


@dataclass(frozen=True, slots=True)
class HpaSettings:
    """A HorizontalPodAutoscaler ``autoscaling/v2`` on waiting requests; the defaults are those of Kubernetes 1.36.

    Attributes:
        target: AverageValue of ``vllm:num_requests_waiting`` per pod.
        tolerance: relative distance from the target that changes nothing.
        sync_seconds: time between two evaluations.
        up_ratio, up_pods: replicas may grow by the larger of these in one period of 15 s.
        down_window_seconds: the highest recommendation of this long counts when scaling down.
    """

    target: float
    tolerance: float = 0.10
    sync_seconds: float = 15.0
    up_ratio: float = 1.0
    up_pods: int = 4
    down_window_seconds: float = 300.0


class HpaOnQueue:
    """The HPA's own arithmetic, one autoscaler for each serving variant.

    Source: kubernetes ``pkg/controller/podautoscaler`` (``replica_calculator.go``, ``horizontal.go``). A pod without a
    metric counts as 0 when scaling up and as the target when scaling down; ``periodSeconds`` of the policies equals the
    sync period, so each evaluation may use a policy's whole allowance.

    Args:
        bounds: minReplicas and maxReplicas of each serving variant.
        settings: of all its autoscalers.
        shorten: by how much a demonstration has shortened times: divides sync period and window.
    """

    name = "hpa-queue"
    uses_cache = False

    def __init__(
        self, bounds: Mapping[VariantKey, tuple[int, int]], settings: HpaSettings, *, shorten: float = 1.0
    ) -> None:
        self._bounds = bounds
        self._settings = settings
        self._shorten = shorten
        self._recommended: dict[VariantKey, deque[tuple[float, int]]] = {}
        limits = ", ".join(f"{low} to {high} × {_told(key)}" for key, (low, high) in sorted(bounds.items()))
        self.settings = f"target {settings.target:g} waiting per pod, {limits}"

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """The sync period."""
        del snapshot
        return self._settings.sync_seconds / self._shorten

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """The minimum of each autoscaler; the prologue lets it grow."""
        return dict(_plan(snapshot, {key: low for key, (low, _) in self._bounds.items()}).replicas)

    def step(self, snapshot: Snapshot) -> Orders:
        """Evaluate every autoscaler."""
        counts = {
            key: self._decide(key, snapshot.tiers[key.tier].variant(key.variant), snapshot.now) for key in self._bounds
        }
        return Orders(_plan(snapshot, counts))

    def _decide(self, key: VariantKey, variant: VariantState, now: float) -> int:
        current = variant.desired
        pods = [one for one in variant.replicas if one.phase in (ReplicaPhase.READY, ReplicaPhase.PENDING)]
        proposal = recommend([_waiting(one) for one in pods], current, self._settings)
        history = self._recommended.setdefault(key, deque())
        wanted = stabilise(proposal, current, now, history, self._settings, self._shorten)
        low, high = self._bounds[key]
        return min(max(wanted, low), high)


def _waiting(replica: Replica) -> float | None:
    """The pod's metric; None while it has none."""
    return known(replica.waiting) if replica.phase is ReplicaPhase.READY else None


def recommend(metrics: Sequence[float | None], current: int, settings: HpaSettings) -> int:
    """Replicas that the metric asks for, before limits and windows.

    Args:
        metrics: of each pod, None where missing.
        current: replicas in the scale.
        settings: target and tolerance.
    """
    found = [value for value in metrics if value is not None]
    missing = len(metrics) - len(found)
    if not found:  # no metric at all: the HPA does nothing
        return current
    ratio = sum(found) / len(found) / settings.target
    if not missing:
        within = abs(1 - ratio) <= settings.tolerance
        return current if within else _ceil(ratio * len(found))
    if ratio == 1:
        return current
    assumed = settings.target if ratio < 1 else 0.0
    rebalanced = (sum(found) + missing * assumed) / len(metrics) / settings.target
    turned = (ratio < 1 < rebalanced) or (rebalanced < 1 < ratio)
    if abs(1 - rebalanced) <= settings.tolerance or turned:
        return current
    proposal = _ceil(rebalanced * len(metrics))
    against = (rebalanced < 1 and proposal > current) or (rebalanced > 1 and proposal < current)
    return current if against else proposal


def stabilise(  # noqa: PLR0917 (the HPA's own inputs)
    proposal: int,
    current: int,
    now: float,
    history: deque[tuple[float, int]],
    settings: HpaSettings,
    shorten: float = 1.0,
) -> int:
    """The replica count after stabilisation window and growth limit; keeps the recommendation in ``history``."""
    while history and history[0][0] <= now - settings.down_window_seconds / shorten:
        history.popleft()
    history.append((now, proposal))
    held = min(current, max(count for _, count in history))
    wanted = max(proposal, held)
    limit = max(current + settings.up_pods, _ceil(current * (1 + settings.up_ratio)))
    return min(wanted, limit)


def _told(key: VariantKey) -> str:
    return f"{key.tier.partition('/')[2] or key.tier}/{key.variant}"


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)
