"""How far a tier's demand goes up from here if it goes on as it did: what giving a replica back has to reckon with.

A replica that is given back and then bought again costs its start-up, in which it serves nobody, and a scale-down
window, for which it is kept at least. So giving it back pays only if it is not missed for that long:

    horizon = start-up + scale-down window

and by then demand will be higher by ``slope · horizon``, with the slope of the last window (its later half over its
earlier half). A fall promises nothing: that is for forecasts to find.
"""

from __future__ import annotations

from trimtab_core import units
from trimtab_core.planning import limits
from trimtab_core.snapshot import Snapshot, TierKey

MOST = 2.0
"""No rise is taken to go on beyond this multiple of what arrives."""
LEAST_SAMPLES = 3
"""Each half of the window needs as many."""


def factor(snapshot: Snapshot, key: TierKey) -> float:
    """Demand on the tier when a replica given back now would pay, over that of now; from 1 to ``MOST``."""
    tier = snapshot.tiers[key]
    if not tier.variants:
        return 1.0
    window = units.duration_seconds(tier.spec.scaling.scale_down_window)
    early, late = _halves(snapshot, key, window)
    if late <= early:
        return 1.0
    horizon = window + max(limits.startup_seconds(variant) for variant in tier.variants)
    # The halves' middles are half a window apart, and the later one lies a quarter of it back.
    slope = (late - early) / (window / 2)
    now = late + slope * window / 4
    return min(MOST, 1.0 + slope * horizon / now)


def _halves(snapshot: Snapshot, key: TierKey, window: float) -> tuple[float, float]:
    """Mean arrivals on the tier in the earlier and in the later half of the last window; zeros where unknown."""
    early, late = 0.0, 0.0
    for policy in snapshot.policies.values():
        for name, traffic in policy.traffic.items():
            share = policy.weights.get(name, {}).get(key, 0.0)
            begin, middle = snapshot.now - window, snapshot.now - window / 2
            before = [rate for at, rate in traffic.history if begin <= at < middle]
            since = [rate for at, rate in traffic.history if middle <= at <= snapshot.now]
            if share <= 0 or min(len(before), len(since)) < LEAST_SAMPLES:
                continue
            early += share * sum(before) / len(before)
            late += share * sum(since) / len(since)
    return early, late
