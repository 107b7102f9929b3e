"""What a plan costs in the terms of a snapshot: ceilings from budgets, external spending, the baseline."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping

from trimtab_core import capacity, economics, signals, units
from trimtab_core.snapshot import ClassTraffic, PolicyKey, PolicyState, Snapshot, Weights

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


def missed_per_second(traffic: ClassTraffic) -> float:
    """Arrivals that the cache doesn't answer, per second; zero where they aren't known."""
    arrivals = signals.sound(traffic.arrivals_per_second) or 0.0
    fresh = isinstance(traffic.cache_hit_ratio, signals.Fresh)
    return arrivals * (1.0 - min(1.0, (signals.sound(traffic.cache_hit_ratio) or 0.0) if fresh else 0.0))


def measured_mix(traffic: ClassTraffic) -> capacity.Mix:
    """Mean lengths of the class's requests, with the default for what isn't known."""
    return capacity.Mix(
        signals.sound(traffic.input_tokens) or capacity.DEFAULT_MIX.input_tokens,
        signals.sound(traffic.output_tokens) or capacity.DEFAULT_MIX.output_tokens,
    )


def _month_hours(now: float) -> tuple[float, float]:
    """Hours of the calendar month (UTC) of a moment, and those left of it."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + dt.timedelta(days=32)).replace(day=1)
    return (end - start).total_seconds() / units.SECONDS_PER_HOUR, (
        end - moment
    ).total_seconds() / units.SECONDS_PER_HOUR
