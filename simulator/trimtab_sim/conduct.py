"""How a controller behaves: moves that no true and fresh number justifies, and changes of its mind.

**Wrong-way** is to order fewer replicas of a variant, or to lower a healthy tier's share of a class by more than
``NOISE``, while the arrivals of the classes concerned are

- *old*: the newest true number that can have been seen was measured more than ``FRESH_SECONDS`` ago, or
- *understated*: shown as less than was true when they were measured, by more than ``UNDERSTATED`` and chance;

and to order fewer replicas while what is ready and stays could not even serve, however slowly, what truly arrived. (How
much can be carried within the SLO is the controller's own guess, and attainment tells.) Giving back replicas that are
stuck, obeying the user's maximum and saving above the budget's ceiling are justified.

A **reversal** is an order that changes a tier's ordered capacity in the direction opposite to the order before it that
changed it; stuck replicas that are given back are no order. Every controller is judged alike, from the truth and
from what it ordered, never from its reasons. See docs/decisions/0011.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trimtab_core import capacity, economics, signals
from trimtab_core.planning import cost
from trimtab_core.planning import plan as plans
from trimtab_core.planning.plan import Plan, VariantKey
from trimtab_core.snapshot import CapacityProfile, PolicyState, Snapshot, TierState

from trimtab_sim.truth import Truth

FRESH_SECONDS = signals.Freshness().fresh_seconds
"""Up to this age a number counts as fresh, as it does for the planner."""
UNDERSTATED = 0.2
"""Arrivals shown as less than the truth by up to this share are true enough."""
NOISE = 0.01
"""A share lowered by less is no move."""
WINDOW_SECONDS = 600.0
"""Reversals are counted in any window of this length."""
_EPSILON = 1e-9

Profiles = Mapping[VariantKey, CapacityProfile]
"""How fast each variant's replicas really are."""


@dataclass(frozen=True, slots=True)
class WrongMove:
    """One move that nothing true and fresh justifies; ``at`` in seconds of the run."""

    at: float
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} at {self.at:.0f} s: {self.why}"


def wrong_moves(snapshot: Snapshot, plan: Plan, policy: str, *, truth: Truth, profiles: Profiles) -> list[WrongMove]:
    """The wrong-way moves of one cycle.

    Args:
        snapshot: what is in force.
        plan: what the controller ordered.
        policy: ``namespace/name`` of the policy that has traffic; tiers of others are not judged.
        truth: what is so.
        profiles: how fast replicas really are.
    """
    state = snapshot.policies[policy]
    untrue = {one.name: _untrue(state, one.name, truth) for one in state.spec.classes}
    found = []
    for tier in (snapshot.tiers[key] for key in state.tiers if key in snapshot.tiers):
        served = [name for name in untrue if _share(state, name, tier.key) > 0]
        why = next(filter(None, (untrue[name] for name in served or untrue)), "")
        why = why or _shortage(tier, plan, _demand(state, plan, tier.key, truth), truth=truth, profiles=profiles)
        if why and not _saves_above_ceiling(snapshot, plan, state):
            found += [WrongMove(truth.at, what, why) for what in _lowered(tier, plan, truth)]
    for name, why in untrue.items():
        if why:
            found += [WrongMove(truth.at, what, why) for what in _moved_away(snapshot, plan, state, name, truth)]
    return found


def _untrue(policy: PolicyState, name: str, truth: Truth) -> str:
    """Why the arrivals of a class that can be seen are no evidence; empty if they are."""
    age = truth.age.get(name, math.inf)
    if age > FRESH_SECONDS:
        return f"the last true number of {name} is {age:.0f} s old"
    traffic, arrived = policy.traffic.get(name), truth.arrivals.get(name, 0.0)
    shown = signals.known(traffic.arrivals_per_second) if traffic is not None else None
    if shown is not None and arrived - shown > max(UNDERSTATED * arrived, truth.noise.get(name, 0.0)):
        return f"{arrived:.3g} req/s of {name} arrived, {shown:.3g} are shown"
    return ""


def _share(policy: PolicyState, name: str, tier: str) -> float:
    return policy.weights.get(name, {}).get(tier, 0.0)


def _lowered(tier: TierState, plan: Plan, truth: Truth) -> Iterator[str]:
    """Variants that lose replicas which carry something, or will."""
    for variant in tier.variants:
        key = VariantKey(tier.key, variant.name)
        wanted = plan.replicas.get(key, variant.desired)
        above = max(0, variant.desired - max(variant.spec.replicas.max, wanted))
        if variant.desired - wanted > truth.stuck.get(key, 0) + above:
            yield f"{_name(tier.key)}/{variant.name} {variant.desired} → {wanted}"


def _demand(policy: PolicyState, plan: Plan, tier: str, truth: Truth) -> float:
    """Requests a second that truly come to a tier at the weights of the plan."""
    weights = {**policy.weights, **plan.weights.get(policy.key, {})}
    return sum(rate * weights.get(name, {}).get(tier, 0.0) for name, rate in truth.demand.items())


def _shortage(tier: TierState, plan: Plan, demand: float, *, truth: Truth, profiles: Profiles) -> str:
    """What is missing of a tier's demand when only what is ready stays, as far as the plan keeps it; empty if none."""
    mix, served = truth.mix.get(_name(tier.key), truth.mean), 0.0
    for variant in tier.variants:
        key = VariantKey(tier.key, variant.name)
        stays = min(plan.replicas.get(key, variant.desired), truth.ready.get(key, 0))
        if stays > 0:
            served += stays * full_batch(profiles[key], mix)
    return f"{demand:.3g} req/s arrive, what stays can serve {served:.3g}" if demand > served + _EPSILON else ""


def full_batch(profile: CapacityProfile, mix: capacity.Mix) -> float:
    """Requests a second that a replica serves with its batch always full, however late: nothing can serve more.

    n sequences get a token each in a + b·n seconds, and a prompt of I tokens takes I / P of everybody's time.
    """
    footprint = mix.input_tokens + mix.output_tokens / 2
    n = max(1.0, min(profile.max_sequences, profile.kv_tokens / footprint))
    step = profile.itl_base_seconds + profile.itl_per_sequence_seconds * n
    return n / (mix.output_tokens * step + n * mix.input_tokens / profile.prefill_tokens_per_second)


def _saves_above_ceiling(snapshot: Snapshot, plan: Plan, policy: PolicyState) -> bool:
    """Whether more is spent than the policy's budget allows, so that fewer replicas are what the user asked for."""
    ceiling = cost.ceiling_usd_per_hour(policy, snapshot.now)
    before = economics.plan_usd_per_hour(snapshot, plans.current_replicas(snapshot))
    return before > ceiling and economics.plan_usd_per_hour(snapshot, plan.replicas) < before


def _moved_away(  # noqa: PLR0917 (one class of one decision)
    snapshot: Snapshot, plan: Plan, policy: PolicyState, name: str, truth: Truth
) -> Iterator[str]:
    """Healthy tiers whose share of a class is lowered."""
    after = plan.weights.get(policy.key, {}).get(name)
    for key, share in sorted(policy.weights.get(name, {}).items()) if after is not None else ():
        left = after.get(key, 0.0) if after is not None else share
        if key in snapshot.tiers and share - left > NOISE and _healthy(snapshot.tiers[key], truth):
            yield f"{name} on {_name(key)} {share:.0%} → {left:.0%}"


def _healthy(tier: TierState, truth: Truth) -> bool:
    served = any(truth.ready.get(VariantKey(tier.key, variant.name), 0) for variant in tier.variants)
    return served or tier.token_rates is not None


def _name(tier: str) -> str:
    return tier.rpartition("/")[2]


class Directions:
    """In which direction a tier's ordered capacity moved last, and when that turned round."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self.turned_at: dict[str, list[float]] = defaultdict(list)
        """By tier, seconds of the run."""

    def order(self, at: float, tier: str, change: float) -> None:
        """Note that ``change`` of capacity was ordered (any unit, up is positive)."""
        if abs(change) <= _EPSILON:
            return
        direction = 1 if change > 0 else -1
        if self._last.get(tier, direction) != direction:
            self.turned_at[tier].append(at)
        self._last[tier] = direction

    def most(self) -> int:
        """Reversals of the tier that has most."""
        return max(map(len, self.turned_at.values()), default=0)

    def most_within(self, window: float) -> int:
        """Most reversals of one tier in any window of so many seconds that begins with one."""
        return max(
            (sum(first <= at < first + window for at in times) for times in self.turned_at.values() for first in times),
            default=0,
        )


class Watch:
    """Judges every cycle of a run; what happens before time 0 teaches directions alone.

    Args:
        policy: ``namespace/name`` of the policy that has traffic.
        profiles: how fast replicas really are.
        speeds: by variant, requests a second that one replica carries: what capacity is counted in.
        look: the truth at a time of the run.
        shorten: by how much a demonstration has shortened times.
    """

    def __init__(
        self,
        policy: str,
        profiles: Profiles,
        speeds: Mapping[VariantKey, float],
        look: Callable[[float], Truth],
        *,
        shorten: float = 1.0,
    ) -> None:
        self._policy = policy
        self._profiles = profiles
        self._speeds = speeds
        self._look = look
        self._shorten = shorten
        self._directions = Directions()
        self.wrong: list[WrongMove] = []

    def cycle(self, at: float, snapshot: Snapshot, plan: Plan) -> None:
        """Judge what was ordered at ``at`` seconds of the run, before it is carried out."""
        truth = self._look(at)
        for tier in snapshot.tiers.values():
            self._directions.order(at, tier.key, self._change(tier, plan, truth))
        if at < 0:
            self._directions.turned_at.clear()
            return
        self.wrong += wrong_moves(snapshot, plan, self._policy, truth=truth, profiles=self._profiles)

    def reversals_per_hour(self, duration: float) -> float:
        """Of the tier that has most, in a run of so many seconds."""
        return self._directions.most() * 3600.0 / duration if duration > 0 else 0.0

    @property
    def reversals_10min_max(self) -> int:
        """Most reversals of one tier in any ten minutes."""
        return self._directions.most_within(WINDOW_SECONDS / self._shorten)

    def _change(self, tier: TierState, plan: Plan, truth: Truth) -> float:
        """By how much the plan changes a tier's ordered capacity; stuck replicas that are given back had none."""
        change = 0.0
        for variant in tier.variants:
            key = VariantKey(tier.key, variant.name)
            more = plan.replicas.get(key, variant.desired) - variant.desired
            change += self._speeds[key] * (more + min(truth.stuck.get(key, 0), max(0, -more)))
        return change
