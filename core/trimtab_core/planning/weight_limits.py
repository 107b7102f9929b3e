"""The rules of one class's weights this cycle, what breaks them, and the nearest shares that keep them all.

The rules come from the snapshot alone, as a least and a most share per tier. Some shares always satisfy all of
them: the least shares sum to at most 1, because none exceeds the share in force, and the most shares to at
least 1, because what unusable tiers give up is added to every other's room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.planning import cost, limits
from trimtab_core.planning.plan import Code
from trimtab_core.snapshot import PolicyState, Snapshot, TierKey, TierState

NOISE = 1e-6
"""Shares closer than this are equal."""
SWAMPED = 1.2
"""A tier is swamped by so many times what its ready replicas are planned to carry at most: its queue only grows."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one class's shares must satisfy.

    Attributes:
        allowed: tiers that may serve the class at all.
        usable: those of them that can serve now; all allowed ones while none can.
        before: shares in force, of allowed tiers.
        step: most that a share may move, besides what unusable tiers give up.
        freed: share in force that has to find another tier, or may.
        probe: least share of a usable own tier in use.
        probed: tiers that the least share is for.
        hold: why nothing may move; None when it may.
        swamped: usable tiers that may lose any share at once, as each request more makes all others wait.
    """

    allowed: tuple[TierKey, ...]
    usable: tuple[TierKey, ...]
    before: Mapping[TierKey, float]
    step: float
    freed: float
    probe: float
    probed: frozenset[TierKey]
    hold: limits.Hold | None = None
    swamped: frozenset[TierKey] = frozenset()

    def least(self, tier: TierKey) -> float:
        """Least share of a usable tier."""
        before = self.before.get(tier, 0.0)
        floor = min(self.probe, before) if tier in self.probed else 0.0
        return floor if tier in self.swamped else max(0.0, before - self.step, floor)

    def most(self, tier: TierKey) -> float:
        """Largest share of a usable tier."""
        return min(1.0, self.before.get(tier, 0.0) + self.step + self.freed)


Fault = Callable[[Mapping[TierKey, float], Rules], limits.Hold | None]
"""Finds what breaks one rule; None if nothing does. A share that is no number counts for ``malformed`` only."""


def rules(
    snapshot: Snapshot,
    policy: PolicyState,
    request_class: v1alpha1.RequestClass,
    drowning: frozenset[TierKey] | None = None,
) -> Rules:
    """The rules of one class in this snapshot; ``drowning`` is ``swamped(snapshot)``, if it is at hand."""
    allowed = limits.allowed_tiers(snapshot, policy, request_class)
    usable = tuple(key for key in allowed if limits.ready(snapshot.tiers[key])) or allowed
    before = limits.sound_shares(policy.weights.get(request_class.name, {}), allowed)
    hold = limits.held(snapshot, policy) or _blind(policy, request_class)
    drowning = (swamped(snapshot) if drowning is None else drowning) & set(usable)
    leaving = frozenset() if hold is not None or len(drowning) == len(usable) else drowning
    return Rules(
        allowed,
        usable,
        before,
        0.0 if hold is not None else units.ratio(policy.spec.retune.max_weight_step),
        max(0.0, 1.0 - sum(before.get(key, 0.0) for key in usable if key not in leaving)),
        units.ratio(policy.spec.retune.probe_share),
        frozenset(key for key in usable if before.get(key, 0.0) > 0 and _probed(snapshot.tiers[key])),
        hold,
        leaving,
    )


def swamped(snapshot: Snapshot) -> frozenset[TierKey]:
    """Tiers with ready replicas to which far more comes, at the weights in force, than those carry.

    Such a tier is left at once: it misses every promise while a tenth of its share a cycle looks for another.
    """
    demands = cost.tier_demands(snapshot)
    found = set()
    for key, tier in snapshot.tiers.items():
        carried = cost.carried_per_second(tier, demands[key].mix)
        if carried and demands[key].requests_per_second > SWAMPED * max(1.0, tier.utilisation) * carried:
            found.add(key)
    return frozenset(found)


def _blind(policy: PolicyState, request_class: v1alpha1.RequestClass) -> limits.Hold | None:
    """Why the class's demand is no reason to move anything; None where it is."""
    evidence, why = limits.evidence_of(policy.traffic.get(request_class.name))
    if evidence is limits.Evidence.FRESH:
        return None
    code = Code.SIGNAL_MISSING if evidence is limits.Evidence.MISSING else Code.SIGNAL_STALE
    return limits.Hold(code, f"arrivals can't be trusted: {why}")


def _probed(tier: TierState) -> bool:
    """Whether a share must stay for probing: not where it costs money per call, nor where it would keep one awake."""
    return tier.token_rates is None and tier.spec.scaling.scale_to_zero is None


def malformed(shares: Mapping[TierKey, float], rules: Rules) -> limits.Hold | None:
    """Shares that are no shares: NaN, negative, above 1, or not summing to 1 (nothing, if no tier is allowed)."""
    values = list(shares.values())
    if not all(math.isfinite(share) and 0 <= share <= 1 for share in values):
        return limits.Hold(Code.NOT_FINITE, "a share of the plan is not a number from 0 to 1")
    if not values and not rules.allowed:
        return None
    if not math.isclose(sum(values), 1.0, abs_tol=1e-9):
        return limits.Hold(Code.NOT_FINITE, f"the plan's shares sum to {sum(values):.6f}, not 1")
    return None


def forbidden(shares: Mapping[TierKey, float], rules: Rules) -> limits.Hold | None:
    """A share of a tier that the class doesn't allow."""
    outside = sorted(key for key, share in shares.items() if key not in rules.allowed and share != 0)
    if not outside:
        return None
    return limits.Hold(Code.NOT_ALLOWED, f"not allowed: {', '.join(outside)}")


def unready(shares: Mapping[TierKey, float], rules: Rules) -> limits.Hold | None:
    """A share of a tier that can't serve now while another can."""
    found = sorted(key for key in rules.allowed if key not in rules.usable and shares.get(key, 0.0) > NOISE)
    return limits.Hold(Code.UNHEALTHY, f"no ready endpoint: {', '.join(found)}") if found else None


def too_far(shares: Mapping[TierKey, float], rules: Rules) -> limits.Hold | None:
    """A share that moves further than the step."""
    for key in rules.usable:
        before, share = rules.before.get(key, 0.0), shares.get(key, 0.0)
        least = 0.0 if key in rules.swamped else max(0.0, before - rules.step)
        if share > rules.most(key) + NOISE or share < least - NOISE:
            code = rules.hold.code if rules.hold is not None else Code.WEIGHT_STEP
            limit = rules.hold.message if rules.hold is not None else f"at most {rules.step:.0%} moves at once"
            return limits.Hold(code, f"{limit}; {key} wanted {before:.0%} → {share:.0%}".replace("%", " %"))
    return None


def unprobed(shares: Mapping[TierKey, float], rules: Rules) -> limits.Hold | None:
    """A usable tier in use whose share falls below the probe share."""
    for key in sorted(rules.probed):
        if shares.get(key, 0.0) < min(rules.probe, rules.before[key]) - NOISE:
            return limits.Hold(Code.WEIGHT_STEP, f"{key} keeps {rules.probe:.1%} for probing".replace("%", " %"))
    return None


def nearest(shares: Mapping[TierKey, float], rules: Rules) -> dict[TierKey, float]:
    """Shares that keep all rules, moved from the given ones no more than needed; empty if no tier is allowed.

    Each share is first brought between its least and its most; what is then missing from (or above) 1 is spread in
    proportion to the room that each tier has left. Shares that are no numbers count as those in force.
    """
    if not rules.usable:
        return {}
    start = limits.sound_shares(shares, rules.usable) or dict(rules.before)
    result = {key: min(max(start.get(key, 0.0), rules.least(key)), rules.most(key)) for key in rules.usable}
    short = 1.0 - sum(result.values())
    room = {key: rules.most(key) - share if short > 0 else share - rules.least(key) for key, share in result.items()}
    total = sum(room.values())
    if total > 0:
        result = {key: share + short * room[key] / total for key, share in result.items()}
    return _exact(result)


def _exact(shares: Mapping[TierKey, float]) -> dict[TierKey, float]:
    """Without dust, and summing to 1 as floats do."""
    kept = {key: share for key, share in shares.items() if share > NOISE}
    if not kept:
        return {}
    largest = max(sorted(kept), key=lambda key: kept[key])
    kept[largest] += 1.0 - sum(kept.values())
    return kept
