"""The plan: wanted replicas and weights with their predicted cost and their reasons, and what it changes.

Plans are values. The optimiser makes one, guards make it safer, ``diff`` says what to change; status, log,
metric, command line and benchmark all print the same objects. Must not know how a plan is carried out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from trimtab_core import economics
from trimtab_core import snapshot as snapshots
from trimtab_core.planning import cost
from trimtab_core.planning import inputs as inputs_
from trimtab_core.planning.headroom import Headroom
from trimtab_core.planning.quality_debt import Debt
from trimtab_core.snapshot import PolicyKey, Snapshot, TierKey, Weights

WEIGHT_TOLERANCE = 0.001
"""Smaller differences of a share are not a change: they would only make routers reload."""


class Source(StrEnum):
    """Where a plan came from."""

    OPTIMAL = "Optimal"
    TIME_LIMIT = "TimeLimit"
    PREVIOUS = "Previous"
    FLOOR = "Floor"


class Code(StrEnum):
    """Why a part of a plan is as it is; the fixed list that status and metrics use."""

    DEMAND_UP = "DemandUp"
    DEMAND_DOWN = "DemandDown"
    CHEAPER_VARIANT = "CheaperVariant"
    CHEAPER_TIER = "CheaperTier"
    CAPACITY_NEEDED = "CapacityNeeded"
    QUALITY_NEEDED = "QualityNeeded"
    STEADY = "Steady"
    WOKEN = "Woken"
    IDLE = "Idle"
    SIGNAL_MISSING = "SignalMissing"
    SIGNAL_STALE = "SignalStale"
    BOUNDS = "Bounds"
    STEP_LIMIT = "StepLimit"
    SCALE_DOWN_WINDOW = "ScaleDownWindow"
    PENDING = "Pending"
    CAPACITY_BLOCKED = "CapacityBlocked"
    BUDGET = "Budget"
    NOT_ALLOWED = "NotAllowed"
    PRICE_UNKNOWN = "PriceUnknown"
    PROFILE_UNKNOWN = "ProfileUnknown"
    WEIGHT_STEP = "WeightStep"
    UNHEALTHY = "Unhealthy"
    MANAGEMENT = "Management"
    CONFLICTING_SCALER = "ConflictingScaler"
    OVERRIDE = "Override"
    INFEASIBLE = "Infeasible"
    NOT_FINITE = "NotFinite"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason with the numbers behind it.

    Attributes:
        code: the fixed word.
        message: one sentence for people, with numbers and units.
        tier, variant, policy, request_class: what it is about; empty where it is about the whole plan.
        guard: the guard that changed the plan, or empty when the optimiser speaks.
    """

    code: Code
    message: str
    tier: TierKey = ""
    variant: str = ""
    policy: PolicyKey = ""
    guard: str = ""
    request_class: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another plan that was considered and what it would have cost."""

    name: str
    usd_per_hour: float
    why_not: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the plan should do once in force.

    Attributes:
        usd_per_hour: cost of all wanted replicas and external calls.
        baseline_usd_per_hour: cost of sending everything to the baseline tier, sized for the same demand.
        quality_retention: expected quality over that of always the best tier; 1 where no policy asks.
        utilisation: busiest wanted capacity in use, 0 to 1.
    """

    usd_per_hour: float
    baseline_usd_per_hour: float
    quality_retention: float
    utilisation: float


@dataclass(frozen=True, slots=True, order=True)
class VariantKey:
    """A variant among all tiers."""

    tier: TierKey
    variant: str


@dataclass(frozen=True, slots=True)
class Basis:
    """What one part of a plan was solved from and what came out, so that the next cycle need not solve the same again.

    Attributes:
        part: keys of the part's tiers and policies.
        specs: the user's objects, compared by equality.
        state: all that must be exactly equal: replica counts, phases, holds, evidence, weights in force.
        numbers: all that may move a little: demand, prices, profiles.
        replicas, weights: the optimiser's own choice, before any guard.
        source, binding, reasons, alternatives: as in ``Plan``, for this part.
        prediction: as in ``Plan``, for this part.
        demand_requests_per_second: planned demand; the weight of this part's quality in the whole.
        kept: of each policy, the share of the best quality that the weights in force kept.
    """

    part: tuple[str, ...]
    specs: tuple[object, ...]
    state: tuple[object, ...]
    numbers: tuple[float, ...]
    replicas: Mapping[VariantKey, int]
    weights: Mapping[PolicyKey, Weights]
    source: Source
    prediction: Prediction
    demand_requests_per_second: float
    kept: Mapping[PolicyKey, float]
    binding: str = ""
    reasons: tuple[Reason, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Wanted replicas and weights.

    Attributes:
        replicas: wanted count of every variant of every tier in the snapshot.
        weights: per policy, the wanted weights of each class.
        memory: per variant, what the next cycle must know.
        binding: the constraint that keeps the plan from being cheaper, such as ``quality`` or ``capacity``.
        basis: how each part was solved; for the next call of the optimiser alone.
        headroom: what was learned of each tier so far; its share goes to status, the rest to the next call.
        debts: quality that policies owe; for the next call.
        demand: the inputs of each class that it was made from.
    """

    replicas: Mapping[VariantKey, int]
    weights: Mapping[PolicyKey, Weights]
    memory: Mapping[VariantKey, snapshots.VariantMemory]
    prediction: Prediction
    source: Source
    binding: str = ""
    reasons: tuple[Reason, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    basis: tuple[Basis, ...] = dataclasses.field(default=(), repr=False, compare=False)
    headroom: Mapping[TierKey, Headroom] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    debts: Mapping[PolicyKey, Debt] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    demand: inputs_.Demand = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def with_reason(self, *reasons: Reason) -> Plan:
        """The same plan with further reasons."""
        return dataclasses.replace(self, reasons=self.reasons + reasons)

    def reasons_of(self, tier: TierKey = "", variant: str = "", policy: PolicyKey = "") -> tuple[Reason, ...]:
        """The reasons that concern one tier, variant or policy; those of guards first, as they decided last."""
        found = [
            reason
            for reason in self.reasons
            if (not tier or reason.tier == tier)
            and (not variant or reason.variant in ("", variant))
            and (not policy or reason.policy == policy)
        ]
        return tuple(sorted(found, key=lambda reason: not reason.guard))


@dataclass(frozen=True, slots=True)
class ReplicaChange:
    """A variant's replica count is to change."""

    key: VariantKey
    before: int
    after: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A class's weights are to change."""

    policy: PolicyKey
    request_class: str
    before: Mapping[TierKey, float]
    after: Mapping[TierKey, float]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs between the snapshot and the plan; empty when nothing does."""

    replicas: tuple[ReplicaChange, ...]
    weights: tuple[WeightChange, ...]

    def __bool__(self) -> bool:
        return bool(self.replicas or self.weights)


@dataclass(frozen=True, slots=True)
class Decision:
    """One change as it is told to people: in status, log, Events, report and benchmark.

    Attributes:
        time: epoch seconds; in a report seconds since the start of the run.
        tier: that changes, or gains most.
        action: what is done.
        reasons: the decisive one first.
        cost_before_usd_per_hour: of the whole fleet.
        cost_after_usd_per_hour: of the whole fleet, after all changes of this moment.
        binding: the constraint that keeps the plan from being cheaper.
        inputs: the numbers behind it, with their ages.
        alternatives: other plans and what they would have cost.
        guards: those that changed it.
    """

    time: float
    tier: str
    action: str
    reasons: tuple[str, ...]
    cost_before_usd_per_hour: float
    cost_after_usd_per_hour: float
    binding: str = ""
    inputs: tuple[inputs_.Input, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    guards: tuple[str, ...] = ()


def diff(snapshot: Snapshot, plan: Plan) -> Changes:
    """What must change so that the world is as planned. Sorted, so that equal inputs give equal output."""
    replicas = tuple(
        ReplicaChange(key, before, plan.replicas[key], plan.reasons_of(key.tier, key.variant))
        for key, before in sorted(current_replicas(snapshot).items())
        if plan.replicas.get(key, before) != before
    )
    weights = tuple(
        WeightChange(policy, name, before, after, _reasons_of_class(plan, policy, name))
        for policy, classes in sorted(plan.weights.items())
        for name, after in sorted(classes.items())
        for before in (snapshot.policies[policy].weights.get(name, {}),)
        if differs(before, after)
    )
    return Changes(replicas, weights)


def _reasons_of_class(plan: Plan, policy: PolicyKey, name: str) -> tuple[Reason, ...]:
    return tuple(reason for reason in plan.reasons_of(policy=policy) if reason.request_class in {"", name})


def differs(before: Mapping[TierKey, float], after: Mapping[TierKey, float]) -> bool:
    """Whether two sets of shares differ by more than ``WEIGHT_TOLERANCE`` anywhere."""
    return any(abs(before.get(tier, 0.0) - after.get(tier, 0.0)) > WEIGHT_TOLERANCE for tier in {*before, *after})


def decisions(snapshot: Snapshot, plan: Plan, changes: Changes) -> tuple[Decision, ...]:
    """Every change as it is told to people: one for each variant and one for each class.

    The costs are the whole fleet's, before and after all of these changes: replicas asked for, and external calls
    at the arrivals that are known.
    """
    before = _fleet_usd_per_hour(snapshot, current_replicas(snapshot), {})
    after = _fleet_usd_per_hour(snapshot, plan.replicas, plan.weights)

    def decide(tier: str, action: str, reasons: tuple[Reason, ...], behind: tuple[inputs_.Input, ...]) -> Decision:
        return Decision(
            snapshot.now,
            tier,
            action,
            tuple(reason.message for reason in reasons),
            before,
            after,
            plan.binding,
            behind,
            plan.alternatives,
            tuple(dict.fromkeys(reason.guard for reason in reasons if reason.guard)),
        )

    replicas = tuple(
        decide(
            change.key.tier,
            f"{_short(change.key.tier)}/{change.key.variant} {change.before} → {change.after}",
            change.reasons,
            inputs_.of_users(plan.demand, plan.weights, change.key.tier)
            + inputs_.of_tier(snapshot.tiers[change.key.tier], change.key.variant),
        )
        for change in changes.replicas
    )
    weights = tuple(
        decide(
            _gaining(change),
            f"{change.request_class}: {_shares(change)}",
            change.reasons,
            plan.demand.get(change.policy, {}).get(change.request_class, ()),
        )
        for change in changes.weights
    )
    return replicas + weights


def _fleet_usd_per_hour(
    snapshot: Snapshot, replicas: Mapping[VariantKey, int], weights: Mapping[PolicyKey, Weights]
) -> float:
    return economics.plan_usd_per_hour(snapshot, replicas) + cost.external_usd_per_hour(snapshot, weights)


def _gaining(change: WeightChange) -> TierKey:
    """The tier whose share grows most."""
    return max(
        sorted({*change.before, *change.after}),
        key=lambda tier: change.after.get(tier, 0.0) - change.before.get(tier, 0.0),
        default="",
    )


def _shares(change: WeightChange) -> str:
    """Such as ``small 60 % → 72 %, large 40 % → 28 %``."""
    moved = []
    for tier in sorted({*change.before, *change.after}):
        before, after = change.before.get(tier, 0.0), change.after.get(tier, 0.0)
        if abs(after - before) > WEIGHT_TOLERANCE:
            digits = 0 if f"{before:.0%}" != f"{after:.0%}" else 1
            moved.append(f"{_short(tier)} {before:.{digits}%} → {after:.{digits}%}".replace("%", " %"))
    return ", ".join(moved)


def _short(key: str) -> str:
    """A key without its namespace."""
    return key.rpartition("/")[2]


def current_replicas(snapshot: Snapshot) -> dict[VariantKey, int]:
    """The replica counts that the cluster was last told to run."""
    return {
        VariantKey(tier.key, variant.name): variant.desired
        for tier in snapshot.tiers.values()
        for variant in tier.variants
    }
