"""Weights move once per interval, however often the loop is woken. Pure.

A cycle that an event woke must follow at once what became ready, failed or was edited; but each cycle may move
weights by a step, and steps that come with every pod event would not be bounded at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trimtab_core import units
from trimtab_core.planning import limits
from trimtab_core.planning import plan as planning
from trimtab_core.snapshot import PolicyKey, PolicyState, Snapshot, Weights

EARLY_SECONDS = 0.5
"""A tick that comes this much early is a tick: timers are not exact."""


def hold(
    plan: planning.Plan, snapshot: Snapshot, moved_at: Mapping[PolicyKey, float], interval_seconds: float
) -> planning.Plan:
    """The plan with the weights in force wherever they moved less than an interval ago.

    A class that has none yet, or that uses a tier which can't serve, moves at once.

    Args:
        plan: after all guards.
        snapshot: with the weights in force.
        moved_at: when each policy's weights last moved, epoch seconds.
        interval_seconds: of the loop, where it is shorter than the policy's.
    """
    weights = {
        key: _hold(snapshot, snapshot.policies[key], wanted)
        if _is_early(snapshot, snapshot.policies[key], moved_at.get(key), interval_seconds)
        else wanted
        for key, wanted in plan.weights.items()
    }
    return dataclasses.replace(plan, weights=weights)


def moved(changes: planning.Changes, moved_at: Mapping[PolicyKey, float], now: float) -> dict[PolicyKey, float]:
    """``moved_at`` after these changes."""
    return {**moved_at, **dict.fromkeys((change.policy for change in changes.weights), now)}


def _is_early(snapshot: Snapshot, policy: PolicyState, moved_at: float | None, interval_seconds: float) -> bool:
    interval = min(interval_seconds, units.duration_seconds(policy.spec.retune.interval))
    return moved_at is not None and snapshot.now < moved_at + interval - min(EARLY_SECONDS, interval / 10)


def _hold(snapshot: Snapshot, policy: PolicyState, wanted: Weights) -> Weights:
    """The weights in force of every class that can still be served by them."""
    return {
        name: policy.weights[name] if name in policy.weights and _is_served(snapshot, policy.weights[name]) else shares
        for name, shares in wanted.items()
    }


def _is_served(snapshot: Snapshot, shares: Mapping[str, float]) -> bool:
    used = [tier for tier, share in shares.items() if share > 0]
    return all(tier in snapshot.tiers and limits.ready(snapshot.tiers[tier]) for tier in used)
