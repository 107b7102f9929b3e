"""Weights move, and replicas go, once per interval, however often the loop is woken. Pure.

A cycle that an event woke must follow at once what became ready, failed or was edited; but each cycle may move
weights by a step and give back one replica, and steps that come with every pod event would not be bounded at all.
More replicas never wait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trimtab_core import units
from trimtab_core.planning import limits
from trimtab_core.planning import plan as planning
from trimtab_core.snapshot import PolicyKey, PolicyState, Snapshot, VariantState, Weights

EARLY_SECONDS = 0.5
"""A tick that comes this much early is a tick: timers are not exact."""


def hold(
    plan: planning.Plan, snapshot: Snapshot, moved_at: Mapping[PolicyKey, float], interval_seconds: float
) -> planning.Plan:
    """The plan with the weights in force, and the replicas asked for, wherever they moved less than an interval ago.

    A class that has no weights yet, or that uses a tier which can't serve, moves at once.

    Args:
        plan: after all guards.
        snapshot: with the weights and counts in force.
        moved_at: when each policy's weights last moved, epoch seconds.
        interval_seconds: of the loop, where it is shorter than the policy's.
    """
    weights = {}
    for key, wanted in plan.weights.items():
        policy = snapshot.policies[key]
        interval = min(interval_seconds, units.duration_seconds(policy.spec.retune.interval))
        early = _is_early(snapshot.now, moved_at.get(key), interval)
        weights[key] = _hold(snapshot, policy, wanted) if early else wanted
    held = {
        key: variant
        for tier in snapshot.tiers.values()
        for variant in tier.variants
        for key in (planning.VariantKey(tier.key, variant.name),)
        if _goes_early(plan.replicas.get(key), variant, now=snapshot.now, interval_seconds=interval_seconds)
    }
    replicas = {**plan.replicas, **{key: variant.desired for key, variant in held.items()}}
    memory = {
        **plan.memory,
        **{
            key: dataclasses.replace(plan.memory[key], last_scaled_at=variant.memory.last_scaled_at)
            for key, variant in held.items()
            if key in plan.memory
        },
    }
    return dataclasses.replace(plan, weights=weights, replicas=replicas, memory=memory)


def moved(changes: planning.Changes, moved_at: Mapping[PolicyKey, float], now: float) -> dict[PolicyKey, float]:
    """``moved_at`` after these changes."""
    return {**moved_at, **dict.fromkeys((change.policy for change in changes.weights), now)}


def _goes_early(wanted: int | None, variant: VariantState, *, now: float, interval_seconds: float) -> bool:
    """Whether a replica would go less than an interval after the count last changed; above the maximum it may."""
    fewer = wanted is not None and wanted < variant.desired
    allowed = variant.desired <= max(variant.spec.replicas.min, variant.spec.replicas.max)
    return fewer and allowed and _is_early(now, variant.memory.last_scaled_at, interval_seconds)


def _is_early(now: float, moved_at: float | None, interval_seconds: float) -> bool:
    return moved_at is not None and now < moved_at + interval_seconds - min(EARLY_SECONDS, interval_seconds / 10)


def _hold(snapshot: Snapshot, policy: PolicyState, wanted: Weights) -> Weights:
    """The weights in force of every class that can still be served by them."""
    return {
        name: policy.weights[name] if name in policy.weights and _is_served(snapshot, policy.weights[name]) else shares
        for name, shares in wanted.items()
    }


def _is_served(snapshot: Snapshot, shares: Mapping[str, float]) -> bool:
    used = [tier for tier, share in shares.items() if share > 0]
    return all(tier in snapshot.tiers and limits.ready(snapshot.tiers[tier]) for tier in used)
