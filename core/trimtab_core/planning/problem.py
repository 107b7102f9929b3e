"""From a snapshot to the optimiser's question: what demand, which choices, at which price, within which limits.

A *component* is a set of policies and tiers that no request or dollar connects to the rest; each is solved alone.
Every number in it is finite: what is unknown has been replaced by its safe reading here, so that no NaN can
reach the solver. Work is counted in replica-seconds of a tier's *reference* variant (its fastest): variant v carries
``speed_v`` of them per second, and one request of class c takes ``work_c``. Routers spread a tier's requests over its
endpoints by capacity, whatever their class, so ``work_c`` is that of the variant which suits the class worst.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trimtab_core import capacity, economics, losses, quality, surge, units
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import CapacityType, routing_policy
from trimtab_core.planning import cost, limits, loads, quality_debt, spot_cover
from trimtab_core.planning.plan import Code, VariantKey
from trimtab_core.snapshot import (
    CapacityProfile,
    PolicyKey,
    PolicyState,
    ReplicaPhase,
    Snapshot,
    TierKey,
    TierState,
    VariantState,
)

IDLE_REQUESTS_PER_SECOND = 1e-3
"""Demand assumed of a class without any where only shares are decided; it needs no replica."""
STOP_GAP = 1.1
"""A variant whose work costs more than this multiple of the cheapest one's is there to fill a gap."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the optimiser plans.

    Attributes:
        quantile: the forecast's upper quantile that must be carried where 5 % of the requests may miss their promise;
            a stricter promise takes a higher one.
        tolerance: relative change of demand, prices or profiles below which the last solution stands.
        amortisation_seconds: time over which an added replica must pay for itself.
        move_cost: share of a request's cost that moving it to another tier must save.
        segments: parts of equal mass into which a class's complexity range is cut.
        gap: relative distance to the proven optimum at which the solver stops in large parts; small ones are exact.
        time_limit_seconds: for one run of the solver; a part takes two to three.
    """

    quantile: float = 0.7
    tolerance: float = 0.03
    amortisation_seconds: float = 900.0
    move_cost: float = 0.02
    segments: int = 4
    gap: float = 0.01
    time_limit_seconds: float = 1.5


@dataclass(frozen=True, slots=True)
class VariantChoice:
    """One variant as the solver sees it.

    Attributes:
        low, high: between these its count may lie.
        speed: share of the reference variant's load that one replica carries; 0 if it can't be used.
        usd_per_hour: of one replica; the worst case where unknown.
        switch_usd_per_hour: of adding one replica, spread over the amortisation time.
        availability: share of the time that a replica asked for serves, as replicas get lost and must start again.
        spot: it may be taken away at any time.
        doubtful: of the current ones, those that may never serve: nothing is planned with them.
    """

    key: VariantKey
    current: int
    ready: int
    low: int
    high: int
    speed: float
    usd_per_hour: float
    switch_usd_per_hour: float
    hold: limits.Hold | None = None
    availability: float = 1.0
    spot: bool = False
    doubtful: int = 0


@dataclass(frozen=True, slots=True)
class TierChoice:
    """One tier: its variants, or an external API with a limit of requests per second.

    Attributes:
        requests_per_second: of the tier's mix, what one reference replica carries within the tier's SLO.
        keep_one: at least one replica must run, as nothing allows it to sleep.
        ready: it can serve a request now.
        utilisation: share of the admissible load that is planned with.
        ready_utilisation: share up to which ready replicas may be loaded while more are starting.
        on_demand_share: least share of the planned work that replicas which aren't spot must carry alone.
        warm: replicas kept beyond what the work takes, counted in the slowest variant that is of use.
        cover: spot replicas without which the rest must still get by.
        waves: what losses at once may do to it; None where that can be borne.
    """

    key: TierKey
    quality: float
    variants: tuple[VariantChoice, ...]
    requests_per_second: float = 0.0
    external_limit: float | None = None
    keep_one: bool = False
    ready: bool = False
    utilisation: float = 0.85
    ready_utilisation: float = 0.95
    on_demand_share: float = 0.0
    warm: int = 0
    cover: int = 0
    waves: spot_cover.Cover | None = None


@dataclass(frozen=True, slots=True)
class ClassChoice:
    """One class: where it may go and what that takes.

    Attributes:
        tiers: keys that may serve it; a tier without usable capacity isn't among them.
        work: reference replica-seconds per request, by tier; 0 for external tiers.
        external_usd: USD of one request, by tier; 0 for own replicas.
        segment_quality: by tier, expected quality on each segment, easiest first.
        before: weights in force.
        pinned: weights must stay as they are: signals aren't fresh, or no tier is managed.
    """

    policy: PolicyKey
    name: str
    load: loads.Load
    tiers: tuple[TierKey, ...]
    work: Mapping[TierKey, float]
    external_usd: Mapping[TierKey, float]
    segment_quality: Mapping[TierKey, tuple[float, ...]]
    before: Mapping[TierKey, float]
    min_quality: float
    pinned: bool

    @property
    def best_quality(self) -> float:
        """Of always the best tier, which need not be the best on each segment."""
        return max((sum(values) / len(values) for values in self.segment_quality.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """One policy: what must be kept and what may be spent.

    Attributes:
        retention: promised, and what is owed of it (``quality_debt``).
        ceiling_usd_per_hour: infinite without a budget.
        downshift: whether quality gives way before the budget is exceeded.
        baseline: tier that savings are measured against; empty for the one of best quality.
    """

    key: PolicyKey
    retention: float
    ceiling_usd_per_hour: float
    downshift: bool
    tiers: tuple[TierKey, ...]
    baseline: TierKey = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was found while the question was put, for the plan's reasons."""

    hold: limits.Hold
    tier: TierKey = ""
    variant: str = ""
    policy: PolicyKey = ""


@dataclass(frozen=True, slots=True)
class Component:
    """Policies and tiers to be solved together."""

    tiers: tuple[TierChoice, ...]
    classes: tuple[ClassChoice, ...]
    policies: tuple[PolicyChoice, ...]
    notes: tuple[Note, ...] = ()

    @property
    def variants(self) -> tuple[VariantChoice, ...]:
        """All variants, in the order of the tiers."""
        return tuple(variant for tier in self.tiers for variant in tier.variants)


@dataclass(frozen=True, slots=True)
class Part:
    """Keys of one component, before it is built."""

    tiers: tuple[TierKey, ...]
    policies: tuple[PolicyKey, ...]


def parts(snapshot: Snapshot) -> tuple[Part, ...]:
    """The snapshot's connected components, in a fixed order; a tier that no policy uses is one by itself."""
    parent: dict[str, str] = {key: key for key in snapshot.tiers}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    members = {
        policy.key: tuple(key for key in policy.tiers if key in snapshot.tiers) for policy in snapshot.policies.values()
    }
    for tiers in members.values():
        for other in tiers[1:]:
            parent[root(other)] = root(tiers[0])
    tiers_of: dict[str, list[TierKey]] = {}
    policies_of: dict[str, list[PolicyKey]] = {}
    for key in sorted(snapshot.tiers):
        tiers_of.setdefault(root(key), []).append(key)
    for policy_key in sorted(members):
        if members[policy_key]:
            policies_of.setdefault(root(members[policy_key][0]), []).append(policy_key)
    return tuple(Part(tuple(keys), tuple(policies_of.get(top, ()))) for top, keys in sorted(tiers_of.items()))


Evidences = Mapping[TierKey, tuple[limits.Evidence, str]]
"""How far the signals behind each tier's demand may be trusted; tiers that aren't named have fresh ones."""


@dataclass(frozen=True, slots=True)
class View:
    """The snapshot with what all components read of it, computed once.

    Attributes:
        planned: of each tier that gets any, the requests per second that are planned for, at the weights in force.
        rates: of each policy, requests per second now.
        retention: of each policy, the share of the best quality that a plan must keep.
    """

    snapshot: Snapshot
    settings: Settings
    loads: Mapping[loads.Key, loads.Load]
    evidence: Evidences
    demands: Mapping[TierKey, cost.Demand]
    planned: Mapping[TierKey, float]
    rates: Mapping[PolicyKey, float]
    retention: Mapping[PolicyKey, float]


def view(snapshot: Snapshot, settings: Settings, debts: quality_debt.Debts = MappingProxyType({})) -> View:
    """Judge and forecast the demand of every class, and say what quality each policy must keep."""
    found: dict[loads.Key, loads.Load] = {}
    for policy in snapshot.policies.values():
        found |= loads.of_policy(snapshot, policy, settings.quantile)
    rates = dict.fromkeys(snapshot.policies, 0.0)
    planned: dict[TierKey, float] = {}
    for (policy_key, name), load in found.items():
        rates[policy_key] += load.now
        shares = limits.sound_shares(snapshot.policies[policy_key].weights.get(name, {}), snapshot.tiers)
        for tier_key, share in shares.items():
            planned[tier_key] = planned.get(tier_key, 0.0) + share * load.planned
    retention = {key: quality_debt.retention(snapshot, key, rate, debts) for key, rate in rates.items()}
    evidence, demands = limits.tier_evidence(snapshot), cost.tier_demands(snapshot)
    return View(snapshot, settings, found, evidence, demands, planned, rates, retention)


def _shared(
    profile: CapacityProfile, mix: capacity.Mix, slo: capacity.Limits, requests_per_second: float
) -> capacity.Capacity:
    """What one replica carries when as many of its kind share the load as that takes."""
    calm = dataclasses.replace(mix, burstiness=1.0, replicas=1.0)
    carried = capacity.admissible_load(profile, calm, slo).requests_per_second
    replicas = cost.rounded(requests_per_second / carried)
    found = capacity.admissible_load(profile, dataclasses.replace(mix, replicas=replicas), slo)
    if mix.burstiness <= surge.BUNCHED:
        return found
    # Bursts take more replicas than that, which share them in turn; where that ends lies half of the way to that many.
    more = cost.rounded((replicas + requests_per_second / found.requests_per_second) / 2.0)
    return capacity.admissible_load(profile, dataclasses.replace(mix, replicas=more), slo)


def build(view: View, part: Part) -> Component:
    """Put the question for one component."""
    return _Builder(view, part).component()


@dataclass(slots=True)
class _Builder:
    """State while one component is built."""

    view: View
    part: Part
    notes: list[Note] = field(default_factory=list)

    @property
    def snapshot(self) -> Snapshot:
        return self.view.snapshot

    def component(self) -> Component:
        policies = [self.snapshot.policies[key] for key in self.part.policies]
        capacities = {key: self.capacities(self.snapshot.tiers[key]) for key in self.part.tiers}
        tiers = tuple(
            self.tier(self.snapshot.tiers[key], capacities[key], used=bool(policies)) for key in self.part.tiers
        )
        usable = {
            tier.key: tier for tier in tiers if tier.external_limit is not None or any(v.speed for v in tier.variants)
        }
        classes = tuple(
            self.request_class(policy, request_class, usable)
            for policy in policies
            for request_class in policy.spec.classes
        )
        return Component(tiers, classes, tuple(self.policy(policy) for policy in policies), tuple(self.notes))

    def policy(self, policy: PolicyState) -> PolicyChoice:
        budget = policy.spec.budget
        return PolicyChoice(
            policy.key,
            self.view.retention[policy.key],
            cost.ceiling_usd_per_hour(policy, self.snapshot.now),
            budget is None or routing_policy.WhenExceeded.DOWNSHIFT in budget.when_exceeded,
            tuple(key for key in policy.tiers if key in self.snapshot.tiers),
            f"{policy.key.partition('/')[0]}/{policy.spec.baseline_tier}" if policy.spec.baseline_tier else "",
        )

    def capacities(self, tier: TierState) -> Mapping[str, capacity.Capacity]:
        """What each variant carries of the tier's whole mix, within the tier's own SLO."""
        demand_ = self.view.demands[tier.key]
        mix, slo = demand_.mix, capacity.limits(tier.spec.slo)
        planned = self.view.planned.get(tier.key, 0.0)
        found = {}
        for variant in tier.variants:
            profile = cost.sound_profile(variant)
            if profile is None:
                hold = limits.Hold(Code.PROFILE_UNKNOWN, "no profile: its capacity is unknown, so it isn't scaled up")
                self.notes.append(Note(hold, tier.key, variant.name))
                continue
            if cost.sound_price(variant) is None:
                hold = limits.Hold(Code.PRICE_UNKNOWN, "no price could be resolved, so it isn't scaled up")
                self.notes.append(Note(hold, tier.key, variant.name))
            found[variant.name] = _shared(profile, mix, slo, max(demand_.requests_per_second, planned))
        if any(load.feasible for load in found.values()):
            for name in [name for name, load in found.items() if not load.feasible]:
                self.notes.append(Note(limits.Hold(Code.INFEASIBLE, found.pop(name).reason), tier.key, name))
        return found

    def tier(self, tier: TierState, carried: Mapping[str, capacity.Capacity], *, used: bool) -> TierChoice:
        fastest = max((load.requests_per_second for load in carried.values()), default=0.0)
        variants = tuple(
            self.variant(
                tier,
                variant,
                carried[variant.name].requests_per_second / fastest if variant.name in carried else 0.0,
                used=used,
            )
            for variant in tier.variants
        )
        variants = self.with_stays(tier, variants)
        external = tier.spec.external
        return TierChoice(
            tier.key,
            units.ratio(tier.spec.model.quality),
            variants,
            fastest,
            float(external.max_requests_per_second) if external is not None and tier.token_rates is not None else None,
            keep_one=used and tier.spec.scaling.scale_to_zero is None and any(v.high for v in variants),
            ready=limits.ready(tier),
            utilisation=tier.utilisation,
            ready_utilisation=limits.ready_utilisation(tier),
            on_demand_share=units.ratio(tier.spec.scaling.on_demand_share),
            warm=tier.spec.scaling.warm,
            cover=limits.cover(tier),
            waves=spot_cover.needed(tier, cost.attainment(self.snapshot, tier), self.snapshot.now),
        )

    def with_stays(self, tier: TierState, variants: tuple[VariantChoice, ...]) -> tuple[VariantChoice, ...]:
        """The variants, with what a stop-gap costs: it is paid for a scale-down window even if nobody needs it.

        What does the tier's work at about the least price is no stop-gap: it can stay.
        """
        least = min((v.usd_per_hour / v.speed for v in variants if v.speed and v.high), default=0.0)
        stay = units.duration_seconds(tier.spec.scaling.scale_down_window) / self.view.settings.amortisation_seconds
        return tuple(
            dataclasses.replace(v, switch_usd_per_hour=v.switch_usd_per_hour + stay * v.usd_per_hour)
            if v.speed and v.usd_per_hour / v.speed > STOP_GAP * least
            else v
            for v in variants
        )

    def variant(self, tier: TierState, variant: VariantState, speed: float, *, used: bool) -> VariantChoice:
        now, current = self.snapshot.now, variant.desired
        hold = limits.frozen(tier, variant, now)
        bounds, serving = variant.spec.replicas, limits.serving(variant, now)
        low, high = bounds.min, max(bounds.min, bounds.max)
        high = min(high, max(current + tier.spec.scaling.max_step_up, low))
        if cost.sound_price(variant) is None or not speed:
            high = min(high, max(current, low))
        if limits.blocked(variant, now):
            high = min(high, max(serving, low))
        doubtful = limits.doubtful(variant, now)
        if doubtful:
            low = high = min(max(current, low), high)
        if self.view.evidence.get(tier.key, (limits.Evidence.FRESH,))[0] is not limits.Evidence.FRESH:
            low = min(max(low, serving), high)
        if not used:
            high = low
        if hold is not None:
            low = high = max(0, current)
        usd = economics.worst_usd_per_hour(self.snapshot, tier.key, variant)
        switch = usd * limits.startup_seconds(variant) / self.view.settings.amortisation_seconds
        key, ready = VariantKey(tier.key, variant.name), variant.count(ReplicaPhase.READY)
        up = losses.availability(variant, limits.startup_seconds(variant))
        spot = variant.spec.capacity_type is CapacityType.SPOT
        return VariantChoice(key, current, ready, low, high, speed, usd, switch, hold, up, spot, doubtful)

    def request_class(
        self, policy: PolicyState, request_class: v1alpha1.RequestClass, usable: Mapping[TierKey, TierChoice]
    ) -> ClassChoice:
        """The class with the tiers that can really serve it; all that are allowed if none keeps its SLO."""
        load = self.view.loads[policy.key, request_class.name]
        allowed = [key for key in limits.allowed_tiers(self.snapshot, policy, request_class) if key in usable]
        work = {key: self.work(usable[key], policy, request_class, load) for key in allowed}
        keeping = [key for key in allowed if work[key][1]]
        for key in allowed:
            if not work[key][1]:
                self.notes.append(
                    Note(
                        limits.Hold(Code.INFEASIBLE, f"{request_class.name} on {key}: {work[key][2]}"),
                        key,
                        policy=policy.key,
                    )
                )
        tiers = tuple(keeping or allowed)
        complexity = request_class.match.complexity
        low, high = (units.ratio(complexity.min), units.ratio(complexity.max)) if complexity is not None else (0.0, 1.0)
        measured = policy.spec.objective.discrimination
        m = quality.discrimination(
            [usable[key].quality for key in tiers],
            quality.DISCRIMINATION if measured is None else units.ratio(measured),
        )
        cuts = quality.segments(low, max(low, high), self.view.settings.segments if len(tiers) > 1 else 1)
        return ClassChoice(
            policy.key,
            request_class.name,
            load,
            tiers,
            {key: work[key][0] for key in tiers},
            {key: self.external_usd(key, load.mix) for key in tiers},
            {key: tuple(quality.expected(usable[key].quality, *cut, m) for cut in cuts) for key in tiers},
            limits.sound_shares(policy.weights.get(request_class.name, {}), self.snapshot.tiers),
            units.ratio(request_class.min_quality) if request_class.min_quality is not None else 0.0,
            pinned=load.evidence is not limits.Evidence.FRESH or limits.held(self.snapshot, policy) is not None,
        )

    def work(
        self, tier: TierChoice, policy: PolicyState, request_class: v1alpha1.RequestClass, load: loads.Load
    ) -> tuple[float, bool, str]:
        """Reference replica-seconds per request, whether the class's SLO can be kept, and why not.

        Counted is for as many replicas as the whole class would take: where only a part of it goes to the tier, bursts
        are thinner in that part by as much as there are fewer replicas to share them.
        """
        if tier.external_limit is not None:
            return 0.0, True, ""
        state = self.snapshot.tiers[tier.key]
        slo = capacity.limits(state.spec.slo, request_class.slo or policy.spec.slo)
        able = [
            (choice.speed, profile)
            for choice, variant in zip(tier.variants, state.variants, strict=True)
            for profile in (cost.sound_profile(variant),)
            if choice.speed and profile is not None
        ]
        carried = [(speed, _shared(profile, load.mix, slo, load.planned)) for speed, profile in able]
        kept = [found for found in carried if found[1].feasible]
        worst = max(speed * found.seconds_per_request for speed, found in kept or carried)
        return worst, bool(kept), "" if kept else carried[0][1].reason

    def external_usd(self, key: TierKey, mix: capacity.Mix) -> float:
        rates = self.snapshot.tiers[key].token_rates
        if rates is None:
            return 0.0
        usd = economics.external_usd_per_hour(rates, requests_per_second=1.0, mix=mix) / units.SECONDS_PER_HOUR
        return usd if math.isfinite(usd) else economics.UNPRICED_USD_PER_HOUR
