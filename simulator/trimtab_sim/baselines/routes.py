"""Where a baseline's requests go, and which variants serve them.

Platforms without routing of their own send every request to the best tier that its class may use, without a cache.
To compare autoscalers alone, a baseline can be given Trimtab's own routing instead: fixed weights, and the cache.
Replica counts of what a baseline scales are not bounded by the variants' ``max``: a baseline must not look bad for
want of hardware.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trimtab_core import capacity, units
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.planning import cost, limits
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import PolicyKey, Snapshot, TierKey, TierState, VariantState, Weights

_NO_PREDICTION = Prediction(0.0, 0.0, 1.0, 0.0)
Bounds = Mapping[VariantKey, tuple[int, int]]
"""Least and most replicas of each serving variant."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How a baseline routes.

    Attributes:
        weights: by policy, the fixed weights of each class; None sends each class to the best tier that it may use.
        uses_cache: whether its routers answer from the policy's cache.
        told: for settings; empty where nothing need be said.
    """

    weights: Mapping[PolicyKey, Weights] | None = None
    uses_cache: bool = False
    told: str = ""

    def of(self, snapshot: Snapshot) -> dict[PolicyKey, Weights]:
        """The weights of every policy; classes without fixed ones go to their best tier."""
        best = best_tiers(snapshot)
        return {key: {**classes, **(self.weights or {}).get(key, {})} for key, classes in best.items()}

    def tier_shares(self, snapshot: Snapshot, policy: PolicyKey, classes: Mapping[str, float]) -> dict[TierKey, float]:
        """The share of a policy's requests that each tier gets, from the shares of the classes."""
        shares: dict[TierKey, float] = {}
        weights = self.of(snapshot)[policy]
        for name, part in classes.items():
            for tier, weight in weights.get(name, {}).items():
                shares[tier] = shares.get(tier, 0.0) + part * weight
        return {tier: share for tier, share in shares.items() if share > 0}


BEST = Routing()
"""Every class on the best tier that it may use."""


def best_tiers(snapshot: Snapshot) -> dict[PolicyKey, Weights]:
    """Per policy, all of each class on the best tier that it may use."""
    found: dict[PolicyKey, Weights] = {}
    for policy in snapshot.policies.values():
        classes: dict[str, Mapping[str, float]] = {}
        for each in policy.spec.classes:
            allowed = limits.allowed_tiers(snapshot, policy, each)
            if allowed:
                classes[each.name] = {max(allowed, key=lambda key: (_quality(snapshot.tiers[key]), key)): 1.0}
        found[policy.key] = classes
    return found


def cheapest_variant(tier: TierState) -> VariantState | None:
    """The variant that serves a request within the tier's SLO for the least money, on demand if there is one.

    None for an external tier.
    """
    usable = [
        variant for variant in tier.variants if cost.sound_price(variant) is not None and variant.spec.replicas.max > 0
    ] or list(tier.variants)
    bought = [variant for variant in usable if variant.spec.capacity_type is not CapacityType.SPOT] or usable
    return min(bought, key=lambda variant: _usd_per_request(tier, variant), default=None)


def _usd_per_request(tier: TierState, variant: VariantState) -> float:
    profile = cost.sound_profile(variant) or publish.UNKNOWN_PROFILE
    load = capacity.admissible_load(profile, capacity.DEFAULT_MIX, capacity.limits(tier.spec.slo))
    usd = cost.sound_price(variant)
    return (math.inf if usd is None else usd) * load.seconds_per_request


def _quality(tier: TierState) -> float:
    return units.ratio(tier.spec.model.quality)


def serving_variants(snapshot: Snapshot, tiers: Iterable[TierKey]) -> dict[VariantKey, VariantState]:
    """The variants that a baseline runs: one for each of these tiers that has replicas of its own."""
    found = {}
    for key in sorted(tiers):
        variant = cheapest_variant(snapshot.tiers[key])
        if variant is not None:
            found[VariantKey(key, variant.name)] = variant
    return found


def plan(snapshot: Snapshot, counts: Mapping[VariantKey, int], routing: Routing = BEST) -> Plan:
    """These replicas and nothing else, and the routing's weights."""
    replicas = {
        VariantKey(tier.key, variant.name): counts.get(VariantKey(tier.key, variant.name), 0)
        for tier in snapshot.tiers.values()
        for variant in tier.variants
    }
    return Plan(replicas, routing.of(snapshot), {}, _NO_PREDICTION, Source.FLOOR)


def arrives(snapshot: Snapshot, tier: TierKey, routing: Routing) -> bool:
    """Whether requests are known to come in for a tier: what wakes one that sleeps."""
    for key, classes in routing.of(snapshot).items():
        traffic = snapshot.policies[key].traffic
        for name, shares in classes.items():
            if shares.get(tier) and name in traffic and cost.missed_per_second(traffic[name]) > 0:
                return True
    return False


def told(key: VariantKey) -> str:
    """``tier/variant``, without the namespace."""
    return f"{key.tier.partition('/')[2] or key.tier}/{key.variant}"


def told_bounds(bounds: Bounds) -> str:
    """Such as ``1 to 7 × large/h100``."""
    return ", ".join(f"{low} to {high} × {told(key)}" for key, (low, high) in sorted(bounds.items()))
