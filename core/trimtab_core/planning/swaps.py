"""One variant for another: what is to replace replicas that can't go yet is ordered when it can be of use.

The program plans as if every replica could go at once. Those that serve stay for a scale-down window, so what it would
buy in their place is for a while paid for twice and needed by nobody; and as often as not its mind has changed by then,
which ends in a tier that holds both, and goes up and down for nothing. So beyond what the tier lacks with all that it
has, replicas are ordered only when one of those that they replace may go by the time they serve, and could not go
without them; and not within two windows of another change. What may go already stays as far as its successors wait.

Spot is left out: there a swap is for safety as often as for money.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimtab_core import units
from trimtab_core.planning import limits, problem
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot, TierState

CALM_WINDOWS = 2.0
"""A swap that nobody waits for comes after so many scale-down windows without a change."""
ROUNDING = 1e-6
"""Less than this share of a replica isn't lacking."""


def due(snapshot: Snapshot, component: problem.Component, replicas: Mapping[VariantKey, int]) -> dict[VariantKey, int]:
    """The counts without what is ordered too early.

    Args:
        snapshot: what runs, and since when fewer of it are asked for.
        component: of which the counts are.
        replicas: as planned.
    """
    result = dict(replicas)
    for tier in component.tiers:
        result |= _of_tier(snapshot, tier, result)
    return result


def unsettled(snapshot: Snapshot, tier: TierState) -> bool:
    """Whether the tier's counts were changed lately."""
    calm = CALM_WINDOWS * units.duration_seconds(tier.spec.scaling.scale_down_window)
    changed = (variant.memory.last_scaled_at for variant in tier.variants)
    return any(at is not None and 0 <= snapshot.now - at < calm for at in changed)


def _of_tier(snapshot: Snapshot, tier: problem.TierChoice, replicas: Mapping[VariantKey, int]) -> dict[VariantKey, int]:
    """What changes of one tier's counts."""
    state = snapshot.tiers[tier.key]
    served = {v.key: limits.serving(state.variant(v.key.variant), snapshot.now) for v in tier.variants}
    added = [v for v in tier.variants if v.speed and replicas[v.key] > max(v.current, served[v.key])]
    leaving = [v for v in tier.variants if v.speed and replicas[v.key] < served[v.key]]
    if not added or not leaving or any(v.spot for v in (*added, *leaving)):
        return {}
    waits = {v.key: _wait_seconds(snapshot, state, v.key.variant) for v in leaving}
    lacking = sum(v.speed * (replicas[v.key] - served[v.key]) for v in tier.variants)
    # What is too much goes first, as nothing goes while others start.
    too_much = lacking + sum(
        v.speed * min(limits.step_down(served[v.key]), _gone(v, served, replicas)) for v in leaving
    )
    early = too_much <= 0 or (lacking <= 0 and unsettled(snapshot, state))
    changed: dict[VariantKey, int] = {}
    missing = lacking
    for variant in sorted(added, key=lambda v: (v.usd_per_hour / v.speed, v.key)):
        wanted = replicas[variant.key] - served[variant.key]
        if early or min(waits.values()) > limits.startup_seconds(state.variant(variant.key.variant)):
            needed = max(0, math.ceil(missing / variant.speed - ROUNDING))
            changed[variant.key] = max(variant.current, served[variant.key] + min(wanted, needed))
        missing -= variant.speed * (changed.get(variant.key, replicas[variant.key]) - served[variant.key])
    waiting = sum(v.speed * (replicas[v.key] - changed.get(v.key, replicas[v.key])) for v in added)
    return changed | _kept([v for v in leaving if waits[v.key] <= 0], served, replicas, waiting)


def _kept(
    free: Sequence[problem.VariantChoice],
    served: Mapping[VariantKey, int],
    replicas: Mapping[VariantKey, int],
    waiting: float,
) -> dict[VariantKey, int]:
    """Counts of those that may go, with as many kept as make up for successors that wait; dear ones go first."""
    kept = {}
    for variant in sorted(free, key=lambda v: (v.usd_per_hour / v.speed, v.key)):
        stay = min(_gone(variant, served, replicas), max(0, math.ceil(waiting / variant.speed - ROUNDING)))
        kept[variant.key] = replicas[variant.key] + stay
        waiting -= variant.speed * stay
    return kept


def _gone(variant: problem.VariantChoice, served: Mapping[VariantKey, int], replicas: Mapping[VariantKey, int]) -> int:
    return served[variant.key] - replicas[variant.key]


def _wait_seconds(snapshot: Snapshot, tier: TierState, variant: str) -> float:
    return limits.wait_seconds(tier, tier.variant(variant), snapshot.now, to_zero=False)
