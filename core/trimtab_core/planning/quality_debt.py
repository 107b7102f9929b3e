"""Quality owed by each policy: what bursts take of it is given back afterwards. Pure.

Retention is promised over all requests, but a plan only keeps it for its own moment. While demand outruns what is
ready, weights follow the replicas that there are, and weights in force stay as long as they fall short by little. So
what was served below the promise is counted, in requests times retention, and paid back over the next minutes by a
higher one. That is cheap: after a burst there are more replicas than demand needs, until their window is over.

What was served above the promise, as whole replicas often allow, is set against what falls below it within the hour;
but it never lowers what is planned for. What falls short by less than ``NOISE`` isn't owed: the mix varies more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.snapshot import PolicyKey, Snapshot

NOISE = 0.001
"""Weights in force that fall short of the promise by less stay as they are."""
MEMORY_SECONDS = 3600.0
"""Time constant with which it is forgotten what was owed or given beyond the promise."""
REPAY_SECONDS = 1800.0
"""What is owed is spread over the requests of so long."""
MOST_RAISED = 0.004
"""Most that the promised retention is raised by. The next burst meets the raised weights, and the better tier is the
one that it fills: with 0.01, paid back in ten minutes, bursts of code requests kept 95 % instead of 99 % of the SLO."""
LONGEST_STEP_SECONDS = 60.0
"""A longer gap between two cycles counts as this."""
DIGITS = 4
"""Decimals of the raised promise: it moves slowly, and smaller moves are no reason to plan anew."""


@dataclass(frozen=True, slots=True)
class Debt:
    """What one policy owes.

    Attributes:
        owed: requests times missing retention; below 0 where more was kept than promised.
        at: epoch seconds of the last count.
    """

    owed: float = 0.0
    at: float = math.nan


Debts = Mapping[PolicyKey, Debt]


def count(
    snapshot: Snapshot, kept: Mapping[PolicyKey, float], rates: Mapping[PolicyKey, float], before: Debts
) -> dict[PolicyKey, Debt]:
    """Debts after the time since the last count.

    Args:
        snapshot: what is seen now.
        kept: of each policy, the share of the best quality that the weights in force keep.
        rates: of each policy, requests per second now.
        before: of the last count.
    """
    return {
        key: _counted(
            before.get(key, Debt()), snapshot.now, rates[key] * (_promised(snapshot, key) - NOISE - kept[key])
        )
        for key in snapshot.policies
        if key in kept
    }


def retention(snapshot: Snapshot, policy: PolicyKey, requests_per_second: float, before: Debts) -> float:
    """What the next plan must keep: the promise, and more while something is owed."""
    promised = _promised(snapshot, policy)
    owed = before[policy].owed if policy in before else 0.0
    if owed <= 0.0 or requests_per_second <= 0.0:
        return promised
    raised = min(MOST_RAISED, owed / (requests_per_second * REPAY_SECONDS))
    return max(promised, round(min(1.0, promised + raised), DIGITS))


def _promised(snapshot: Snapshot, policy: PolicyKey) -> float:
    return units.ratio(snapshot.policies[policy].spec.objective.quality_retention)


def _counted(before: Debt, now: float, missing_per_second: float) -> Debt:
    elapsed = min(LONGEST_STEP_SECONDS, max(0.0, now - before.at)) if math.isfinite(before.at) else 0.0
    return Debt(before.owed * math.exp(-elapsed / MEMORY_SECONDS) + elapsed * missing_per_second, now)
