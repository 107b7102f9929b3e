"""What is true of each object now, as conditions. Pure.

Messages name the fix and hold no number that changes from cycle to cycle: status would be written all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trimtab_core import answers, learning, signals, units
from trimtab_core import snapshot as snapshots
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import prices, profiles
from trimtab_core.conditions import FALSE, TRUE, UNKNOWN, Reason, Type, Verdict
from trimtab_core.routing.table import RoutingTable
from trimtab_core.snapshot import ReplicaPhase, Snapshot

PROPAGATION_SECONDS = 90.0
_SHOWN = 3
"""Names that a message lists before it only counts."""


def of_tier(tier: snapshots.TierState, told: int, refused: Mapping[str, str]) -> list[Verdict]:
    """All verdicts about a tier.

    Args:
        tier: its state.
        told: replicas that its Deployments were told to run, over all variants.
        refused: of its objects, with the reason.
    """
    verdicts = [_tier_ready(tier, told), _applied(refused), _slo_met(tier.slo_attainment, tier.spec.slo)]
    if tier.variants:
        verdicts += [_progressing(tier), _prices(tier), _profiles(tier), _capacity(tier), _scaler(tier)]
    return verdicts


def of_policy(
    policy: snapshots.PolicyState,
    snapshot: Snapshot,
    *,
    routers: Sequence[str],
    applied: Sequence[answers.Applied],
    table: RoutingTable,
    failure: str,
    usd_per_hour: float,
    refused: Mapping[str, str],
) -> list[Verdict]:
    """All verdicts about a policy.

    Args:
        policy: its state.
        snapshot: the world.
        routers: names of its ready routers.
        applied: the tables that its routers serve by, as they say.
        table: the newest.
        failure: why queries failed, or empty.
        usd_per_hour: what its tiers cost now.
        refused: of its objects, with the reason.
    """
    verdicts = [
        _policy_ready(policy, snapshot, bool(routers) or bool(applied)),
        _applied(refused),
        _references(policy, snapshot),
        _metrics(policy, failure),
        _slo_met(policy.slo_attainment, policy.spec.slo),
        _table(applied, table, snapshot.now),
    ]
    if policy.spec.budget and policy.spec.budget.usd_per_hour is not None:
        verdicts.append(_budget(usd_per_hour, units.decimal_number(policy.spec.budget.usd_per_hour)))
    return verdicts


def of_cache(used_by: Sequence[str]) -> list[Verdict]:
    """All verdicts about a cache policy."""
    if used_by:
        return [Verdict(Type.READY, TRUE, Reason.IN_USE, f"Used by {_some(used_by)}.")]
    message = "No RoutingPolicy of this namespace names it in spec.cache.ref."
    return [Verdict(Type.READY, FALSE, Reason.NOT_REFERENCED, message)]


def _tier_ready(tier: snapshots.TierState, told: int) -> Verdict:
    if not tier.variants:
        return Verdict(Type.READY, TRUE, Reason.EXTERNAL, "Served by an external API.")
    if any(variant.count(ReplicaPhase.READY) for variant in tier.variants):
        return Verdict(Type.READY, TRUE, Reason.SERVING, "At least one replica serves.")
    if told == 0:
        return Verdict(Type.READY, TRUE, Reason.SCALED_TO_ZERO, "No replica is wanted; a request wakes the tier.")
    message = "No replica is ready; see the pods' events and logs."
    return Verdict(Type.READY, FALSE, Reason.NO_READY_REPLICA, message)


def _progressing(tier: snapshots.TierState) -> Verdict:
    if any(variant.count(ReplicaPhase.PENDING) for variant in tier.variants):
        return Verdict(Type.PROGRESSING, TRUE, Reason.STARTING, "Replicas are starting.")
    if any(variant.count(ReplicaPhase.DRAINING) for variant in tier.variants):
        return Verdict(Type.PROGRESSING, TRUE, Reason.DRAINING, "Replicas finish their requests and go.")
    return Verdict(Type.PROGRESSING, FALSE, Reason.SETTLED)


def _applied(refused: Mapping[str, str]) -> Verdict:
    if not refused:
        return Verdict(Type.APPLIED, TRUE, Reason.APPLIED)
    first = sorted(refused.items())[:_SHOWN]
    return Verdict(Type.APPLIED, FALSE, Reason.REFUSED, "; ".join(f"{name}: {why}" for name, why in first)[:4000])


def _slo_met(attained: signals.Signal, slo: v1alpha1.LatencySlo | None) -> Verdict:
    wanted = units.ratio((slo or v1alpha1.LatencySlo()).attainment)
    value = signals.known(attained)
    if value is None:
        return Verdict(Type.SLO_MET, UNKNOWN, Reason.NOT_MEASURED, "No recent request was judged.")
    if value >= wanted:
        return Verdict(Type.SLO_MET, TRUE, Reason.MET, f"At least {wanted:.4g} of recent requests were fast enough.")
    return Verdict(Type.SLO_MET, FALSE, Reason.MISSED, f"Fewer than {wanted:.4g} of recent requests were fast enough.")


def _prices(tier: snapshots.TierState) -> Verdict:
    missing = [variant for variant in tier.variants if variant.price is None]
    if not missing:
        return Verdict(Type.PRICE_RESOLVED, TRUE, Reason.RESOLVED)
    found = prices.for_variant(missing[0].spec)
    why = found.reason if isinstance(found, prices.MissingPrice) else "no price for its nodes"
    message = f"variant {missing[0].name}: {why}" + _and_others(len(missing) - 1)
    return Verdict(Type.PRICE_RESOLVED, FALSE, Reason.PRICE_UNKNOWN, message)


def _profiles(tier: snapshots.TierState) -> Verdict:
    missing = [variant for variant in tier.variants if variant.profile is None]
    wrong = [variant.name for variant in tier.variants if _written_wrong(variant)]
    if wrong and not missing:
        message = (
            f"Engines of {_some(wrong)} are not as fast as spec.variants[].profile says, by which is planned: "
            "copy status.variants[].profile there, or remove it"
        )
        return Verdict(Type.PROFILE_KNOWN, FALSE, Reason.PROFILE_DIFFERS, message)
    if not missing:
        return Verdict(Type.PROFILE_KNOWN, TRUE, Reason.KNOWN)
    spec = missing[0].spec
    judged = profiles.explain(tier.spec.model.name, spec.accelerator.type, spec.accelerator.count, spec.quantization)
    why = judged.reason if isinstance(judged, profiles.NoPrior) else "write all of profile"
    message = f"variant {spec.name}: {why}" + _and_others(len(missing) - 1)
    return Verdict(Type.PROFILE_KNOWN, FALSE, Reason.PROFILE_UNKNOWN, message)


def _written_wrong(variant: snapshots.VariantState) -> bool:
    """Whether what is planned with was written down, and engines show something else."""
    profile, learned = variant.profile, variant.learned
    if profile is None or learned is None or variant.spec.profile is None:
        return False
    law = learning.Law(profile.itl_base_seconds, profile.itl_per_sequence_seconds, profile.prefill_tokens_per_second)
    return learning.differs(learned, law)


def _capacity(tier: snapshots.TierState) -> Verdict:
    blocked = [variant.name for variant in tier.variants if variant.memory.blocked_until is not None]
    if blocked:
        message = f"No machine was found for {_some(blocked)}; other variants are tried meanwhile."
        return Verdict(Type.CAPACITY_AVAILABLE, FALSE, Reason.BLOCKED, message)
    failed = [variant.name for variant in tier.variants if variant.count(ReplicaPhase.FAILED)]
    if failed:
        message = f"Replicas of {_some(failed)} failed; see the pods' events and logs."
        return Verdict(Type.CAPACITY_AVAILABLE, FALSE, Reason.REPLICAS_FAILED, message)
    return Verdict(Type.CAPACITY_AVAILABLE, TRUE, Reason.AVAILABLE)


def _scaler(tier: snapshots.TierState) -> Verdict:
    writers = [f"{variant.external_scaler} on {variant.name}" for variant in tier.variants if variant.external_scaler]
    if not writers:
        return Verdict(Type.CONFLICTING_SCALER, FALSE, Reason.SINGLE_WRITER)
    message = f"Replica counts are left to {_some(writers)}: remove it, or set scaling.management to Observe."
    return Verdict(Type.CONFLICTING_SCALER, TRUE, Reason.SECOND_WRITER, message)


def _policy_ready(policy: snapshots.PolicyState, snapshot: Snapshot, routed: bool) -> Verdict:  # noqa: FBT001
    tiers = [snapshot.tiers[key] for key in policy.tiers if key in snapshot.tiers]
    serving = any(
        not tier.variants or any(variant.count(ReplicaPhase.READY) for variant in tier.variants) for tier in tiers
    )
    if not routed and policy.spec.router.mode is v1alpha1.RouterMode.GATEWAY:
        message = "No router is ready; see the events of the router's pods."
        return Verdict(Type.READY, FALSE, Reason.NO_READY_ROUTER, message)
    if not serving:
        return Verdict(Type.READY, FALSE, Reason.NO_READY_TIER, "None of its tiers has a ready replica.")
    if not routed:
        return Verdict(Type.READY, TRUE, Reason.SIDECAR, "Routers run in the pods that ask for them.")
    return Verdict(Type.READY, TRUE, Reason.SERVING)


def _references(policy: snapshots.PolicyState, snapshot: Snapshot) -> Verdict:
    namespace = policy.key.partition("/")[0]
    missing = [key.partition("/")[2] for key in policy.tiers if key not in snapshot.tiers]
    if missing:
        where = f"InferenceTier {_some(missing)} not found in namespace {namespace}"
        message = f"{where}: create it or remove it from spec.tiers."
        return Verdict(Type.REFERENCES_RESOLVED, FALSE, Reason.TIER_NOT_FOUND, message)
    cache = policy.spec.cache
    if cache is not None and f"{namespace}/{cache.ref}" not in snapshot.caches:
        message = f"CachePolicy {cache.ref} not found in namespace {namespace}: create it or remove spec.cache."
        return Verdict(Type.REFERENCES_RESOLVED, FALSE, Reason.CACHE_NOT_FOUND, message)
    return Verdict(Type.REFERENCES_RESOLVED, TRUE, Reason.RESOLVED)


def _metrics(policy: snapshots.PolicyState, failure: str) -> Verdict:
    if failure:
        message = f"Replicas are held: {failure}"[:4000]
        return Verdict(Type.METRICS_AVAILABLE, FALSE, Reason.QUERY_FAILED, message)
    arrivals = [traffic.arrivals_per_second for traffic in policy.traffic.values()]
    if any(isinstance(signal, signals.Missing) for signal in arrivals):
        message = "Replicas are held: no arrivals are known; is the router's /metrics scraped, labels unchanged?"
        return Verdict(Type.METRICS_AVAILABLE, FALSE, Reason.NO_SAMPLES, message)
    if any(isinstance(signal, signals.Stale) for signal in arrivals):
        return Verdict(Type.METRICS_AVAILABLE, UNKNOWN, Reason.STALE, "Arrivals are old: nothing is scaled down.")
    return Verdict(Type.METRICS_AVAILABLE, TRUE, Reason.FRESH)


def _table(applied: Sequence[answers.Applied], table: RoutingTable, now: float) -> Verdict:
    """Whether routers follow. A mount takes up to a minute to change, and metrics say so one scrape later."""
    if not applied:
        return Verdict(Type.TABLE_CURRENT, UNKNOWN, Reason.NO_ROUTER_SEEN, "No router has said what it serves by.")
    if now - table.issued_at < PROPAGATION_SECONDS or all(one.version == table.version for one in applied):
        return Verdict(Type.TABLE_CURRENT, TRUE, Reason.CURRENT)
    message = "A router serves by an older table; it keeps the last good one if it refuses the newest."
    return Verdict(Type.TABLE_CURRENT, FALSE, Reason.ROUTER_BEHIND, message)


def _budget(usd_per_hour: float, limit: float) -> Verdict:
    if usd_per_hour <= limit:
        return Verdict(Type.WITHIN_BUDGET, TRUE, Reason.WITHIN)
    message = f"Its tiers cost more than {units.format_usd(limit)} per hour; what degrades is in budget.whenExceeded."
    return Verdict(Type.WITHIN_BUDGET, FALSE, Reason.EXCEEDED, message)


def _some(found: Iterable[str]) -> str:
    """A few names, and how many more."""
    listed = sorted(found)
    return ", ".join(listed[:_SHOWN]) + _and_others(len(listed) - _SHOWN)


def _and_others(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
