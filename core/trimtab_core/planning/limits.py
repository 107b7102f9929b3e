"""Between which counts a variant may move this cycle, and between which shares a class's weights may.

Everything here reads the snapshot alone, never a plan: the optimiser plans within these limits where it can, and
each guard enforces one of them. Because of that the guards' order can't matter: every floor is at most the replicas
that serve, and every ceiling is at least as many, so all intervals of a variant overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from trimtab_core import losses, signals, units
from trimtab_core.api import v1alpha1
from trimtab_core.planning import cost
from trimtab_core.planning.plan import Code
from trimtab_core.snapshot import ClassTraffic, PolicyState, ReplicaPhase, Snapshot, TierKey, TierState, VariantState

DEADLINE_STARTUPS = 2.0
"""A pending replica counts as supply for this many start-up times."""
UNKNOWN_STARTUP_SECONDS = 300.0
"""Assumed where no profile says: an image pull and loading of a mid-sized model."""
STEP_DOWN_PART = 10
"""At most one in so many replicas of a variant goes in one cycle."""
MOST_COVERED = 100
"""Losses at once beyond this are no longer counted."""
BLOCK_SECONDS = 600.0
"""How long a variant whose replicas didn't come up is not tried again."""


READY_MARGIN = 1.12
"""While others start or go, replicas may be loaded this much more than is planned with."""
READY = ReplicaPhase.READY
"""For counting replicas that serve."""


class Evidence(IntEnum):
    """How far the signals behind a decision may be trusted; the larger, the worse."""

    FRESH = 0
    STALE = 1
    MISSING = 2


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something must stay as it is."""

    code: Code
    message: str


def startup_seconds(variant: VariantState) -> float:
    """From creation to the first answer; a guess where no profile says."""
    known = variant.profile.startup_seconds if variant.profile is not None else math.nan
    return known if math.isfinite(known) and known >= 0 else UNKNOWN_STARTUP_SECONDS


def overdue(variant: VariantState, now: float) -> int:
    """Pending replicas past their deadline: they no longer count as supply."""
    patience = DEADLINE_STARTUPS * startup_seconds(variant)
    return sum(
        1
        for replica in variant.replicas
        if replica.phase is ReplicaPhase.PENDING and not now <= replica.created_at + patience
    )


def failed(variant: VariantState, now: float) -> int:
    """Replicas that were asked for and won't serve.

    Never more than are missing: pods of a past failure that still lie around, already replaced, don't count.
    """
    missing = variant.desired - live(variant, now)
    return max(0, min(missing, variant.count(ReplicaPhase.FAILED) + overdue(variant, now)))


def live(variant: VariantState, now: float) -> int:
    """Replicas that serve or will in time: what capacity may be planned with."""
    return variant.count(ReplicaPhase.READY) + variant.count(ReplicaPhase.PENDING) - overdue(variant, now)


def existing(variant: VariantState) -> int:
    """Replicas that cost money now: all but the failed ones, draining ones included."""
    return len(variant.replicas) - variant.count(ReplicaPhase.FAILED)


def serving(variant: VariantState, now: float) -> int:
    """Replicas asked for less those that failed: giving those back takes no capacity away."""
    return variant.desired - failed(variant, now)


def step_down(serving: int) -> int:
    """Replicas of a variant that may go in one cycle: one, or a tenth of many."""
    return max(1, serving // STEP_DOWN_PART)


def wait_seconds(tier: TierState, variant: VariantState, now: float, *, to_zero: bool) -> float:
    """How much longer all evidence must ask for fewer replicas before one may go; at most 0 when it may.

    Args:
        tier: the variant's tier.
        variant: remembers since when fewer are asked for.
        now: epoch seconds.
        to_zero: whether the tier's last replica is to go.
    """
    scaling, since = tier.spec.scaling, variant.memory.fewer_since
    window = units.duration_seconds(scaling.scale_down_window)
    if scaling.scale_to_zero is not None and to_zero:
        window = max(window, units.duration_seconds(scaling.scale_to_zero.after))
    waited = 0.0 if since is None or not math.isfinite(since) else now - since
    return max(window - waited, 1.0) if since is None else window - waited


def clip(count: int, variant: VariantState) -> int:
    """The count within the user's bounds; a max below min counts as min."""
    bounds = variant.spec.replicas
    return min(max(count, bounds.min), max(bounds.min, bounds.max))


def blocked(variant: VariantState, now: float) -> bool:
    """Whether no capacity could be found for it lately, so that other variants must be tried."""
    until = variant.memory.blocked_until
    return (until is not None and until > now) or failed(variant, now) > 0


def doubtful(variant: VariantState, now: float) -> int:
    """Pending replicas of a spot variant that has just lost some: where one was taken, the next may not be had.

    They stay ordered, but nothing is planned with them until they serve; after their deadline they have failed.
    """
    lost_at = now if variant.lost else variant.memory.lost_at
    if lost_at is None or not spot(variant) or not math.isfinite(lost_at):
        return 0
    if now - lost_at > DEADLINE_STARTUPS * startup_seconds(variant):
        return 0
    return max(0, live(variant, now) - variant.count(READY))


def cover(tier: TierState) -> int:
    """Spot replicas that may be lost at once: more than so many within one start-up are rarer than misses may be.

    Losses are counted as independent at the measured rate, so that a wave shows as a higher rate.
    """
    expected = sum(
        max(0, variant.desired) * losses.rate_per_hour(variant) * startup_seconds(variant) / units.SECONDS_PER_HOUR
        for variant in tier.variants
        if spot(variant)
    )
    allowed = 1.0 - min(0.9999, units.ratio(tier.spec.slo.attainment))
    count, term = 0, math.exp(-expected)
    tail = 1.0 - term
    while tail > allowed and count < MOST_COVERED:
        count += 1
        term *= expected / count
        tail -= term
    return count


def frozen(tier: TierState, variant: VariantState, now: float) -> Hold | None:
    """Why the variant's count is not Trimtab's to change; None where it is."""
    if variant.external_scaler:
        return Hold(Code.CONFLICTING_SCALER, f"{variant.external_scaler} writes the replica count as well")
    until = variant.memory.override_until
    if until is not None and until > now:
        left = units.format_duration(round(until - now))
        return Hold(Code.OVERRIDE, f"a manual edit holds for another {left}")
    management = tier.spec.scaling.management
    if management is not v1alpha1.Management.AUTO:
        return Hold(Code.MANAGEMENT, f"management is {management.value}")
    return None


def spot(variant: VariantState) -> bool:
    """Whether its replicas may be taken away at any time."""
    return variant.spec.capacity_type is v1alpha1.CapacityType.SPOT


def ready(tier: TierState) -> bool:
    """Whether the tier can serve a request now."""
    if tier.token_rates is not None:
        return True
    return any(variant.count(ReplicaPhase.READY) for variant in tier.variants)


def shortfall(tier: TierState, demand: cost.Demand, kept: Mapping[str, int]) -> str:
    """What is missing when only these replicas serve the demand on the tier; empty if they carry it.

    Args:
        tier: with own variants; what is unknown of a variant's capacity carries nothing.
        demand: on the tier at the weights in force.
        kept: by variant, replicas that serve and stay.
    """
    carried = cost.carried_per_second(tier, demand.mix, kept) * ready_utilisation(tier)
    if demand.requests_per_second <= carried:
        return ""
    return f"{demand.requests_per_second:.3g} req/s arrive, what would stay carries {carried:.3g}"


def ready_utilisation(tier: TierState) -> float:
    """Share of the admissible load up to which ready replicas may be loaded while others start or go."""
    return tier.utilisation * READY_MARGIN


def allowed_tiers(snapshot: Snapshot, policy: PolicyState, request_class: v1alpha1.RequestClass) -> tuple[TierKey, ...]:
    """Tiers that may serve the class, in the policy's order; those that don't exist are left out.

    ``allow`` names tiers of the policy's namespace; empty allows all of the policy's.
    """
    namespace = policy.key.partition("/")[0]
    named = {f"{namespace}/{name}" for name in request_class.allow}
    return tuple(key for key in policy.tiers if key in snapshot.tiers and (not named or key in named))


def held(snapshot: Snapshot, policy: PolicyState) -> Hold | None:
    """Why a policy's weights aren't Trimtab's to change: none of the tiers with replicas is managed by it."""
    modes = {
        tier.spec.scaling.management
        for key in policy.tiers
        for tier in (snapshot.tiers.get(key),)
        if tier is not None and tier.variants
    }
    if not modes or v1alpha1.Management.AUTO in modes:
        return None
    return Hold(Code.MANAGEMENT, f"management of all tiers is {', '.join(sorted(mode.value for mode in modes))}")


def sound_shares(shares: Mapping[TierKey, float], tiers: Iterable[TierKey]) -> dict[TierKey, float]:
    """The finite positive shares of these tiers, scaled down where they exceed 1 together."""
    kept = {key: shares[key] for key in tiers if key in shares and math.isfinite(shares[key]) and shares[key] > 0}
    total = sum(kept.values())
    return {key: share / total for key, share in kept.items()} if total > 1 else kept


def evidence_of(traffic: ClassTraffic | None) -> tuple[Evidence, str]:
    """How far a class's demand may be trusted, and why no further."""
    if traffic is None:
        return Evidence.MISSING, "nothing was measured"
    arrivals = traffic.arrivals_per_second
    if isinstance(arrivals, signals.Missing):
        return Evidence.MISSING, arrivals.reason
    if signals.sound(arrivals) is None:
        return Evidence.MISSING, f"unusable value {arrivals.value}"
    if isinstance(arrivals, signals.Stale):
        return Evidence.STALE, f"the last value is {arrivals.age_seconds:.0f} s old"
    return Evidence.FRESH, ""


def tier_evidence(snapshot: Snapshot) -> Mapping[TierKey, tuple[Evidence, str]]:
    """For each tier, the worst evidence of the classes that it serves now or may serve.

    A tier without a share is what a class falls back on: while nothing is known of the class, it stays as well.
    """
    worst: dict[TierKey, tuple[Evidence, str]] = {}
    for policy in snapshot.policies.values():
        for request_class in policy.spec.classes:
            evidence, why = evidence_of(policy.traffic.get(request_class.name))
            weights = policy.weights.get(request_class.name, {})
            served = [key for key, share in weights.items() if share > 0]
            tiers = dict.fromkeys((*served, *allowed_tiers(snapshot, policy, request_class)))
            message = f"arrivals of {request_class.name} in {policy.key}: {why}"
            for key in tiers:
                if evidence > worst.get(key, (Evidence.FRESH, ""))[0]:
                    worst[key] = (evidence, message)
    return worst
