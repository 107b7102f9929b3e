"""How much of the admissible load may be planned with: learned for each tier from promises kept and missed.

``capacity.admissible_load`` is a model: a fleet may do better or worse for what it doesn't know, such as uneven lengths
or neighbours on one machine. How misses grow with load is known: the share of requests that miss a promise, over the
share that may, is close to

    k · load⁴,   load = demand / what ready replicas carry by the model,

with k = 1 where the model is right (simulated at loads of 0.8 to 1.5 of one replica: 0.9 to 1.3 times load⁴). So one
number is learned, k: misses counted over misses expected at the loads that were there, recent ones weighing more, with
a prior worth a few misses. Planned is with the load at which just as much is missed as may be, ``k^(-1/4)``, and with
little more than what has been seen to work.

What is missed while replicas carry more than was planned with, while others are starting, and until the queues are
gone, tells of too few replicas and not of k. What was counted by a profile that has turned out wrong tells nothing:
when a step of a variant takes clearly longer or shorter than was thought, k is learned anew, from no more than the
share that learning starts with. Signals that aren't fresh change nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import recall, signals
from trimtab_core.planning import cost
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase, Snapshot, TierKey, TierState

LEAST, MOST = 0.5, 1.0
"""Bounds of the share. The model knows of pools and bursts, so nothing beyond it is planned with: what fits into slots
and KV cache ends at a cliff, of which no miss tells beforehand."""
POWER = 4.0
"""How steeply misses grow with load."""
PRIOR_MISSES = 5.0
"""Misses that the prior is worth: many enough not to be moved by one, few enough to be overruled by a fair sample."""
MEMORY_SECONDS = 1800.0
"""Time constant of what is remembered of kept and missed promises."""
REACH = 1.25
"""No share is planned with that is further above the highest load that has been carried lately."""
OVERLOADED = 1.1
"""Multiple of the planned share from which on replicas count as overloaded."""
QUEUEING = 0.25
"""Waiting requests over running ones from which on replicas are overloaded, whatever arrives."""
LONGEST_START_SECONDS = 900.0
"""What hasn't come up after so long is no longer waited for."""
RECOVERY_SECONDS = 120.0
"""So long after it, misses are still laid to an overload: rates look back a minute, and answers take theirs."""
OTHER_LAW, COMPARED_SEQUENCES = 0.05, 32.0
"""A profile is another one when a step of so many sequences, or a prompt, takes this share longer or shorter."""
LONGEST_STEP_SECONDS = 60.0
"""A longer gap between two cycles counts as this."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is known of one tier.

    Attributes:
        utilisation: share of the admissible load to plan with.
        prior: the same before anything was learned by this process: what status says, as learned by the one before.
        expected, missed: requests that were expected to miss a promise, and that did; recent ones weigh more.
        seen: highest load that was carried lately, as a share of the admissible.
        at: epoch seconds of the last look.
        overloaded_at: epoch seconds of the last look that found too few replicas.
        profiles: by variant, what the load was told by.
    """

    utilisation: float
    prior: float
    expected: float = 0.0
    missed: float = 0.0
    seen: float = 0.0
    at: float = math.nan
    overloaded_at: float = -math.inf
    profiles: Mapping[str, CapacityProfile] = dataclasses.field(default_factory=dict)


def learn(
    snapshot: Snapshot, demands: Mapping[TierKey, cost.Demand], before: Mapping[TierKey, Headroom]
) -> dict[TierKey, Headroom]:
    """One step for every tier with replicas of its own.

    Args:
        snapshot: what is seen now.
        demands: on its tiers, see ``cost.tier_demands``.
        before: of the cycle before; a tier that it doesn't know begins with what its status says.
    """
    return {
        key: _step(snapshot, tier, demands[key], before.get(key) or Headroom(tier.utilisation, tier.utilisation))
        for key, tier in snapshot.tiers.items()
        if tier.variants
    }


def _step(snapshot: Snapshot, tier: TierState, demand: cost.Demand, before: Headroom) -> Headroom:
    now, load = snapshot.now, _load(tier, demand)
    before = _by_profiles(tier, before, now)
    if load > OVERLOADED * before.utilisation or _queues(tier) or _starts(tier, now):
        return dataclasses.replace(before, at=now, overloaded_at=now)
    judged, missed = signals.fresh(tier.judged_per_second), signals.fresh(tier.missed_per_second)
    elapsed = min(LONGEST_STEP_SECONDS, now - before.at) if math.isfinite(before.at) else 0.0
    if not judged or missed is None or elapsed <= 0 or not load or now - before.overloaded_at <= RECOVERY_SECONDS:
        return dataclasses.replace(before, at=now)
    kept = math.exp(-elapsed / MEMORY_SECONDS)
    allowed = 1.0 - cost.attainment(snapshot, tier)
    after = dataclasses.replace(
        before,
        expected=kept * before.expected + elapsed * judged * min(1.0, allowed * load**POWER),
        missed=kept * before.missed + elapsed * min(missed, judged),
        seen=max(load, kept * before.seen),
        at=now,
    )
    k = (before.prior**-POWER * PRIOR_MISSES + after.missed) / (PRIOR_MISSES + after.expected)
    share = min(k ** (-1.0 / POWER), max(before.prior, REACH * after.seen))
    return dataclasses.replace(after, utilisation=min(max(share, LEAST), MOST))


def _by_profiles(tier: TierState, before: Headroom, now: float) -> Headroom:
    """What is known as far as it was told by the profiles of now."""
    profiles = {variant.name: found for variant in tier.variants if (found := cost.sound_profile(variant)) is not None}
    known = before.profiles
    if any(_another(profile, known[name]) for name, profile in profiles.items() if name in known):
        anew = min(before.prior, recall.START_UTILISATION)
        return Headroom(anew, anew, at=before.at, overloaded_at=now, profiles=profiles)
    return before if known.keys() == profiles.keys() else dataclasses.replace(before, profiles={**profiles, **known})


def _another(now: CapacityProfile, before: CapacityProfile) -> bool:
    """Whether replicas have turned out to be clearly slower or faster."""

    def seconds(profile: CapacityProfile) -> tuple[float, float]:
        step = profile.itl_base_seconds + COMPARED_SEQUENCES * profile.itl_per_sequence_seconds
        return step, 1.0 / profile.prefill_tokens_per_second

    return any(abs(new / old - 1.0) > OTHER_LAW for new, old in zip(seconds(now), seconds(before), strict=True))


def _queues(tier: TierState) -> bool:
    """Whether more requests wait in the engines than pass through in a moment."""
    replicas = [replica for variant in tier.variants for replica in variant.replicas]
    running = sum(signals.sound(replica.running) or 0.0 for replica in replicas)
    return sum(signals.sound(replica.waiting) or 0.0 for replica in replicas) > QUEUEING * running


def _starts(tier: TierState, now: float) -> bool:
    """Whether replicas are starting, so that more was planned for than serves."""
    return any(
        replica.phase is ReplicaPhase.PENDING and now - replica.created_at <= LONGEST_START_SECONDS
        for variant in tier.variants
        for replica in variant.replicas
    )


def _load(tier: TierState, demand: cost.Demand) -> float:
    """Demand over what the ready replicas carry by the model."""
    carried = cost.carried_per_second(tier, demand.mix)
    return demand.requests_per_second / carried if carried else math.inf
