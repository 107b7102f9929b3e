"""What the fleet is asked for and what that costs, in the terms of a snapshot: demand, ceilings, external spending."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import capacity, economics, signals, units
from trimtab_core.snapshot import (
    CapacityProfile,
    ClassTraffic,
    PolicyKey,
    PolicyState,
    ReplicaPhase,
    Snapshot,
    TierKey,
    TierState,
    VariantState,
    Weights,
)

LEAST_WEIGHT = 1e-3
"""A class or tier without traffic still counts this little, so that a mix is known before the first request."""
MOST_BURSTINESS = 16.0
"""A larger squared coefficient of variation is an artefact of a short window."""
LEAST_HOURS_LEFT = 1.0
"""A month's rest is never spread over less than an hour."""


def ceiling_usd_per_hour(policy: PolicyState, now: float) -> float:
    """Most that the policy's tiers may cost per hour now; infinite without a budget.

    A monthly budget leaves what isn't spent yet, spread over the hours left of the calendar month (UTC). Unknown
    spending is charged at its worst case: a budget spent evenly, never one that was saved up.
    """
    budget = policy.spec.budget
    if budget is None:
        return math.inf
    ceilings = [math.inf]
    if budget.usd_per_hour is not None:
        ceilings.append(units.decimal_number(budget.usd_per_hour))
    if budget.usd_per_month is not None:
        month = units.decimal_number(budget.usd_per_month)
        hours, left = _month_hours(now)
        spent = signals.sound(policy.spent_usd_month_to_date)
        remaining = month * left / hours if spent is None else max(0.0, month - spent)
        ceilings.append(remaining / max(LEAST_HOURS_LEFT, left))
    return min(ceilings)


def external_usd_per_hour(snapshot: Snapshot, weights: Mapping[PolicyKey, Weights]) -> float:
    """What external APIs cost per hour at the arrivals that are known, with these weights.

    A policy without an entry is counted at the weights in force.
    """
    total = 0.0
    for policy in snapshot.policies.values():
        for name, shares in weights.get(policy.key, policy.weights).items():
            traffic = policy.traffic.get(name)
            for key, share in shares.items():
                tier = snapshot.tiers.get(key)
                if traffic is not None and tier is not None and tier.token_rates is not None:
                    total += economics.external_usd_per_hour(
                        tier.token_rates,
                        requests_per_second=share * missed_per_second(traffic),
                        mix=measured_mix(traffic),
                    )
    return total


@dataclass(frozen=True, slots=True)
class Demand:
    """What one tier is asked for at the weights in force.

    Attributes:
        requests_per_second: known arrivals that the cache doesn't answer.
        mix: the average request.
    """

    requests_per_second: float
    mix: capacity.Mix


def tier_demands(snapshot: Snapshot) -> Mapping[TierKey, Demand]:
    """The demand on every tier; classes without weights count evenly, so that an unused tier has a likely mix."""
    sums: dict[TierKey, list[float]] = {key: [0.0] * 5 for key in snapshot.tiers}
    for policy in snapshot.policies.values():
        for request_class in policy.spec.classes:
            traffic = policy.traffic.get(request_class.name)
            if traffic is None:
                continue
            rate = missed_per_second(traffic)
            for key in policy.tiers:
                if key in sums:
                    share = _share(policy, request_class.name, key)
                    mix = measured_mix(traffic, share)
                    weight = max(rate, LEAST_WEIGHT) * max(share, LEAST_WEIGHT)
                    parts = (mix.input_tokens, mix.output_tokens, mix.burstiness)
                    added = (rate * share, weight, *(weight * part for part in parts))
                    sums[key] = [total + more for total, more in zip(sums[key], added, strict=True)]
    return {key: _demand(found, replicas_asked_for(snapshot.tiers[key])) for key, found in sums.items()}


def _demand(sums: list[float], replicas: int) -> Demand:
    """From sums of requests per second, weights, and weighted input tokens, output tokens and burstiness."""
    requests_per_second, weight, *parts = sums
    if not weight:
        return Demand(0.0, capacity.DEFAULT_MIX)
    inputs, outputs, burstiness = (rounded(part / weight) for part in parts)
    return Demand(requests_per_second, capacity.Mix(inputs, outputs, burstiness=burstiness, replicas=replicas))


def missed_per_second(traffic: ClassTraffic) -> float:
    """Arrivals that the cache doesn't answer, per second; zero where they aren't known."""
    return (signals.sound(traffic.arrivals_per_second) or 0.0) * miss_ratio(traffic)


def miss_ratio(traffic: ClassTraffic) -> float:
    """Share of arrivals that the cache doesn't answer.

    A hit ratio that isn't fresh is not relied on: a cache that has just gone would send everything on at once.
    """
    hits = signals.sound(traffic.cache_hit_ratio) if isinstance(traffic.cache_hit_ratio, signals.Fresh) else None
    return 1.0 - min(1.0, hits or 0.0)


def measured_mix(traffic: ClassTraffic, part: float = 1.0) -> capacity.Mix:
    """Mean lengths and burstiness of the class's requests, with the default for what isn't known.

    Args:
        traffic: of the class.
        part: share of its requests that is meant. Bursts thin out in it: of what makes the whole burstier than
            Poisson's arrivals, the part sees that share.
    """
    excess = max(0.0, (signals.sound(traffic.burstiness) or 1.0) - 1.0)
    return capacity.Mix(
        rounded(signals.sound(traffic.input_tokens) or capacity.DEFAULT_MIX.input_tokens),
        rounded(signals.sound(traffic.output_tokens) or capacity.DEFAULT_MIX.output_tokens),
        burstiness=rounded(min(MOST_BURSTINESS, 1.0 + excess * part)),
    )


def replicas_asked_for(tier: TierState) -> int:
    """Replicas that a tier's requests are dealt out among, at least one."""
    return max(1, sum(variant.desired for variant in tier.variants))


def _share(policy: PolicyState, request_class: str, tier: TierKey) -> float:
    """Share of a class that a tier has by the weights in force; without weights, an even one."""
    weights = policy.weights.get(request_class)
    share = weights.get(tier, 0.0) if weights else 1.0 / len(policy.tiers)
    return share if math.isfinite(share) and share > 0 else 0.0


def carried_per_second(tier: TierState, mix: capacity.Mix, kept: Mapping[str, int] | None = None) -> float:
    """Requests per second that a tier's ready replicas carry by the capacity model within its own SLO.

    Args:
        tier: with own variants; what is unknown of a variant's capacity carries nothing.
        mix: of the requests.
        kept: by variant, how many of the ready replicas count at most; all where None.
    """
    slo, carried = capacity.limits(tier.spec.slo), 0.0
    for variant in tier.variants:
        profile, able = sound_profile(variant), variant.count(ReplicaPhase.READY)
        if profile is not None:
            able = able if kept is None else min(kept.get(variant.name, 0), able)
            carried += able * capacity.admissible_load(profile, mix, slo).requests_per_second
    return carried


def attainment(snapshot: Snapshot, tier: TierState) -> float:
    """Share of requests that must keep their promises: the strictest of the tier's and its policies', below 1."""
    slos = [
        policy.spec.slo
        for policy in snapshot.policies.values()
        if policy.spec.slo is not None and tier.key in policy.tiers
    ]
    return min(0.9999, max(units.ratio(slo.attainment) for slo in (tier.spec.slo, *slos)))


def sound_price(variant: VariantState) -> float | None:
    """USD per replica-hour if it can be computed with; None where it is missing, NaN, infinite or negative."""
    usd = variant.price.usd_per_hour if variant.price is not None else math.nan
    return usd if math.isfinite(usd) and usd >= 0 else None


def sound_profile(variant: VariantState) -> CapacityProfile | None:
    """The variant's profile if it can be computed with; None where a value is missing, NaN or not above zero."""
    profile = variant.profile
    if profile is None:
        return None
    positive = (profile.itl_base_seconds, profile.prefill_tokens_per_second, profile.kv_tokens, profile.max_sequences)
    sound = all(math.isfinite(value) and value > 0 for value in positive)
    slope = profile.itl_per_sequence_seconds
    return profile if sound and math.isfinite(slope) and slope >= 0 else None


def rounded(value: float) -> float:
    """Three significant digits, at least 1: noise in the fourth would only make every question a new one."""
    return float(f"{max(1.0, value):.3g}") if math.isfinite(value) else 1.0


def _month_hours(now: float) -> tuple[float, float]:
    """Hours of the calendar month (UTC) of a moment, and those left of it."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + dt.timedelta(days=32)).replace(day=1)
    return (end - start).total_seconds() / units.SECONDS_PER_HOUR, (
        end - moment
    ).total_seconds() / units.SECONDS_PER_HOUR
