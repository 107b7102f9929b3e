"""How far a tier must be able to do without each of its spot pools, as waves of losses cost more than may be missed.

A wave leaves a tier short for one start-up time. With ω waves an hour it does so for a share

    risk = ω · start-up / 1 h

of all time, in which a share of the requests is late: none while what stays carries the work, all when a part
``ALL_LATE`` of the work is lacking. A part of what attainment allows to be missed may be spent on that:

    Σ_pools risk_p · lacking_p / (ALL_LATE · work)  <=  PART · (1 - attainment)

which the program keeps by spreading over pools, by more spot or by some on demand, whatever costs least. Pools of one
tier belong to one market: what has been seen of one is expected of all, or the planner would flee into the pool that
has not been struck yet, and be there when it is. While one of them has no machine, nothing is covered: that is short, a
second wave within it is rarer than may be missed, and on demand is dear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.planning import limits
from trimtab_core.snapshot import TierState

PART = 0.5
"""Part of what may be missed that waves may take; the rest is for bursts and forecasts."""
ALL_LATE = 0.4
"""Part of the work that has to be lacking for one start-up time until all requests are late."""


@dataclass(frozen=True, slots=True)
class Cover:
    """What waves may do to a tier.

    Attributes:
        share: by spot variant, the part of it that goes at once.
        risk: by spot variant, the share of all time that a wave leaves the tier short.
        bearable: what of the tier's work may be lacking, over all pools and weighted by risk.
    """

    share: Mapping[str, float]
    risk: Mapping[str, float]
    bearable: float


def needed(tier: TierState, attainment: float, now: float) -> Cover | None:
    """What must be covered; None where all waves together are rarer than may be missed, or nothing can be done now.

    Args:
        tier: with what is remembered of its variants' waves.
        attainment: share of the requests that must keep their promises, 0 to 1.
        now: epoch seconds.
    """
    pools = [variant for variant in tier.variants if limits.spot(variant) and variant.spec.replicas.max > 0]
    if not pools or any(limits.blocked(variant, now) or limits.doubtful(variant, now) for variant in pools):
        return None
    per_hour = sum(variant.memory.waves.per_hour for variant in pools) / len(pools)
    risk = {variant.name: per_hour * limits.startup_seconds(variant) / units.SECONDS_PER_HOUR for variant in pools}
    allowed = PART * (1.0 - attainment)
    worst = max(variant.memory.waves.share for variant in pools)
    # Pools share alike as a rule, so of many one matters little.
    late = min(1.0, worst / len(pools) / ALL_LATE)
    if late * sum(risk.values()) <= allowed:
        return None
    return Cover({variant.name: worst for variant in pools}, risk, allowed * ALL_LATE)
