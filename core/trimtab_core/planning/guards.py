"""Guards: small functions Plan → Plan that can only make a plan safer, each with its reason.

Replica guards move a count into an interval that is known from the snapshot alone. All intervals of one variant
overlap (see ``limits``), and moving a number to the nearest point of one of several overlapping intervals never
takes it out of another it was in; so after all guards have run, in any order, every one of them holds. Weight guards
repair a class whose shares break their rule by moving them to the nearest shares that satisfy *all* weight rules;
once one has, none of the others finds fault. To add a guard: write the function, put its rule into ``limits`` if
the optimiser must plan with it, append it to ``GUARDS``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from trimtab_core import economics, units
from trimtab_core.planning import cost, limits, rises, weight_limits
from trimtab_core.planning.plan import Code, Plan, Reason, VariantKey
from trimtab_core.snapshot import ClassName, PolicyKey, PolicyState, Snapshot, TierKey, TierState, VariantState, Weights

Guard = Callable[[Plan, Snapshot], Plan]
_Ruled = tuple[int, Code, str]
"""A count with the code and message of what moved it."""


def guard(plan: Plan, snapshot: Snapshot) -> Plan:
    """The plan after all guards, with what the next cycle must remember of it."""
    for one in GUARDS:
        plan = one(plan, snapshot)
    return _remember(plan, snapshot)


def complete(plan: Plan, snapshot: Snapshot) -> Plan:
    """Every variant and class of the snapshot has finite, whole values; anything else stays as it is."""
    reasons = [
        _reason("complete", key, Code.NOT_FINITE, f"the plan says {wanted}: {replicas} replicas stay")
        for key, variant in _variants(snapshot)
        for wanted, replicas in ((plan.replicas.get(key), _wanted(plan, key, variant)),)
        if wanted != replicas
    ]
    replicas = {key: _wanted(plan, key, variant) for key, variant in _variants(snapshot)}
    return dataclasses.replace(plan, replicas=replicas).with_reason(*reasons)


def keep_held(plan: Plan, snapshot: Snapshot) -> Plan:
    """Counts that aren't Trimtab's to change stay: management modes, overrides, a second writer."""

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        hold = limits.frozen(tier, variant, snapshot.now)
        if hold is None:
            return wanted, Code.STEADY, ""
        return (
            variant.desired,
            hold.code,
            f"{hold.message}; {wanted} replicas would be best instead of {variant.desired}",
        )

    return _apply(plan, snapshot, "keep_held", rule, held=True)


def keep_bounds(plan: Plan, snapshot: Snapshot) -> Plan:
    """Never outside the user's min and max."""

    def rule(_: TierState, variant: VariantState, wanted: int) -> _Ruled:
        bounds = variant.spec.replicas
        return (
            limits.clip(wanted, variant),
            Code.BOUNDS,
            f"{wanted} wanted, {bounds.min} to {bounds.max} allowed",
        )

    return _apply(plan, snapshot, "keep_bounds", rule)


def cap_step(plan: Plan, snapshot: Snapshot) -> Plan:
    """At most ``scaling.maxStepUp`` more replicas, and a tenth of those that serve fewer, per variant and cycle."""

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        step = tier.spec.scaling.max_step_up
        serving = limits.serving(variant, snapshot.now)
        fewer = limits.step_down(serving)
        low = limits.clip(serving - fewer, variant)
        high = limits.clip(variant.desired + step, variant)
        message = f"{wanted} wanted, at most {step} more or {fewer} fewer than {variant.desired} at once"
        return min(max(wanted, low), high), Code.STEP_LIMIT, message

    return _apply(plan, snapshot, "cap_step", rule)


def hold_without_evidence(plan: Plan, snapshot: Snapshot) -> Plan:
    """Stale or missing demand is never a reason to take a replica away that serves."""
    evidence = limits.tier_evidence(snapshot)

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        found = evidence.get(tier.key)
        if found is None:
            return wanted, Code.STEADY, ""
        code = Code.SIGNAL_MISSING if found[0] is limits.Evidence.MISSING else Code.SIGNAL_STALE
        low = limits.clip(limits.serving(variant, snapshot.now), variant)
        return max(wanted, low), code, f"{found[1]}: {low} replicas stay instead of {wanted}"

    return _apply(plan, snapshot, "hold_without_evidence", rule)


def wait_scale_down(plan: Plan, snapshot: Snapshot) -> Plan:
    """A replica goes only after all evidence asked for fewer for the whole window; the last one after the idle time."""

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        to_zero = not any(_kept(plan, tier, snapshot).values())
        wait = limits.wait_seconds(tier, variant, snapshot.now, to_zero=to_zero)
        low = limits.clip(limits.serving(variant, snapshot.now), variant)
        if wait <= 0:
            remembered = plan.memory.get(VariantKey(tier.key, variant.name), variant.memory)
            highest = min(low, limits.clip(max((count for _, count in remembered.recent), default=0), variant))
            message = f"{highest} replicas were asked for within the window, so not only {wanted} stay"
            return max(wanted, highest), Code.SCALE_DOWN_WINDOW, message
        message = f"{wanted} replicas must be asked for {wait:.0f} s longer before one of {variant.desired} goes"
        return max(wanted, low), Code.SCALE_DOWN_WINDOW, message

    return _apply(plan, snapshot, "wait_scale_down", rule)


def keep_carrying(plan: Plan, snapshot: Snapshot) -> Plan:
    """No replica goes while those that would stay can't carry today's demand at the weights in force.

    The optimiser plans replicas for the weights that it wants; those are reached step by step, and until then the
    tier that loses share still needs what it has. What rose lately is taken to rise on for as long as a replica that is
    bought again would be paid for: giving it back sooner saves nothing.
    """
    demands = {
        key: dataclasses.replace(found, requests_per_second=found.requests_per_second * rises.factor(snapshot, key))
        for key, found in cost.tier_demands(snapshot).items()
    }
    short = {
        key: limits.shortfall(tier, demands[key], _kept(plan, tier, snapshot)) for key, tier in snapshot.tiers.items()
    }

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        if not short[tier.key]:
            return wanted, Code.STEADY, ""
        low = limits.clip(limits.serving(variant, snapshot.now), variant)
        return max(wanted, low), Code.CAPACITY_NEEDED, f"{short[tier.key]}: {low} replicas stay instead of {wanted}"

    return _apply(plan, snapshot, "keep_carrying", rule)


def keep_on_demand(plan: Plan, snapshot: Snapshot) -> Plan:
    """No replica that isn't spot goes while the others of its kind couldn't carry their share of today's demand."""
    demands = cost.tier_demands(snapshot)
    short: dict[TierKey, str] = {}
    for tier in snapshot.tiers.values():
        share, kept = units.ratio(tier.spec.scaling.on_demand_share), _kept(plan, tier, snapshot)
        if share and any(limits.spot(variant) for variant in tier.variants):
            lasting = {v.name: kept[v.name] for v in tier.variants if not limits.spot(v)}
            part = dataclasses.replace(
                demands[tier.key], requests_per_second=share * demands[tier.key].requests_per_second
            )
            short[tier.key] = limits.shortfall(tier, part, lasting)

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        if limits.spot(variant) or not short.get(tier.key):
            return wanted, Code.STEADY, ""
        low = limits.clip(limits.serving(variant, snapshot.now), variant)
        message = f"without spot, {short[tier.key]}: {low} replicas stay instead of {wanted}"
        return max(wanted, low), Code.CAPACITY_NEEDED, message

    return _apply(plan, snapshot, "keep_on_demand", rule)


def keep_awake(plan: Plan, snapshot: Snapshot) -> Plan:
    """A tier that a policy uses and that may not sleep keeps one of the replicas that serve."""
    used = {key for policy in snapshot.policies.values() for key in policy.tiers}
    replicas = dict(plan.replicas)
    reasons = []
    for tier in snapshot.tiers.values():
        if (
            tier.key not in used
            or tier.spec.scaling.scale_to_zero is not None
            or any(_kept(plan, tier, snapshot).values())
        ):
            continue
        able = [v for v in tier.variants if limits.serving(v, snapshot.now) > 0 and limits.clip(1, v) > 0]
        for variant in sorted(able, key=lambda v: (economics.worst_usd_per_hour(snapshot, tier.key, v), v.name))[:1]:
            key = VariantKey(tier.key, variant.name)
            replicas[key] = max(1, _wanted(plan, key, variant))
            message = "scaling.scaleToZero isn't set: the last replica stays"
            reasons.append(_reason("keep_awake", key, Code.BOUNDS, message))
    return dataclasses.replace(plan, replicas=replicas).with_reason(*reasons)


def make_before_break(plan: Plan, snapshot: Snapshot) -> Plan:
    """While a tier has replicas that start, or is given more of one variant, none that serves is taken from another."""

    def starting(tier: TierState) -> bool:
        for variant in tier.variants:
            pending = limits.live(variant, snapshot.now) > variant.count(limits.READY)
            # Compared within the bounds, because another guard may still raise the count to the least.
            wanted = limits.clip(_wanted(plan, VariantKey(tier.key, variant.name), variant), variant)
            if pending or wanted > variant.desired:
                return True
        return False

    growing = {tier.key for tier in snapshot.tiers.values() if starting(tier)}

    def rule(tier: TierState, variant: VariantState, wanted: int) -> _Ruled:
        if tier.key not in growing:
            return wanted, Code.STEADY, ""
        low = limits.clip(limits.serving(variant, snapshot.now), variant)
        return max(wanted, low), Code.PENDING, f"replicas of {tier.key} are starting: {low} stay until they are ready"

    return _apply(plan, snapshot, "make_before_break", rule)


def block_failing(plan: Plan, snapshot: Snapshot) -> Plan:
    """Replicas that didn't come up in time are given back, and their variant isn't tried again for a while."""
    memory = dict(plan.memory)
    for key, variant in _variants(snapshot):
        if limits.failed(variant, snapshot.now):
            until = snapshot.now + limits.BLOCK_SECONDS
            memory[key] = dataclasses.replace(memory.get(key, variant.memory), blocked_until=until)

    def rule(_: TierState, variant: VariantState, wanted: int) -> _Ruled:
        if not limits.blocked(variant, snapshot.now):
            return wanted, Code.STEADY, ""
        high = limits.clip(limits.serving(variant, snapshot.now), variant)
        failed = limits.failed(variant, snapshot.now)
        what = f"{failed} replicas didn't come up in time" if failed else "no capacity was found lately"
        return min(wanted, high), Code.CAPACITY_BLOCKED, f"{what}: {high} replicas instead of {wanted}"

    return _apply(dataclasses.replace(plan, memory=memory), snapshot, "block_failing", rule)


def refuse_unknown(plan: Plan, snapshot: Snapshot) -> Plan:
    """A variant without a price or a profile is never given more replicas."""

    def rule(_: TierState, variant: VariantState, wanted: int) -> _Ruled:
        if cost.sound_price(variant) is None:
            code, what = Code.PRICE_UNKNOWN, "its price"
        elif cost.sound_profile(variant) is None:
            code, what = Code.PROFILE_UNKNOWN, "its capacity"
        else:
            return wanted, Code.STEADY, ""
        high = limits.clip(variant.desired, variant)
        return min(wanted, high), code, f"{what} isn't known: {high} replicas instead of {wanted}"

    return _apply(plan, snapshot, "refuse_unknown", rule)


def reserve_budget(plan: Plan, snapshot: Snapshot) -> Plan:
    """No new replica that a budget can't pay, with all that still runs or drains reserved first.

    Replicas are refused from the dearest variant on. What runs already is not this guard's to remove: the
    optimiser plans below the ceiling, and the other guards decide how fast.
    """
    replicas = {key: _wanted(plan, key, variant) for key, variant in _variants(snapshot)}
    reasons = []
    for policy in sorted(snapshot.policies.values(), key=lambda policy: policy.key):
        ceiling = cost.ceiling_usd_per_hour(policy, snapshot.now)
        if not math.isfinite(ceiling):
            continue
        charges = _charges(policy, snapshot)
        external = cost.external_usd_per_hour(dataclasses.replace(snapshot, policies={policy.key: policy}), {})
        spent = external + sum(c.usd_per_hour * max(replicas[key], c.reserved) for key, c in charges.items())
        for key, charge in sorted(charges.items(), key=lambda item: (-item[1].usd_per_hour, item[0])):
            new = replicas[key] - charge.reserved
            if spent <= ceiling + 1e-9 or new <= 0 or not charge.usd_per_hour:
                continue
            refused = min(new, math.ceil((spent - ceiling) / charge.usd_per_hour - 1e-9))
            replicas[key] -= refused
            spent -= refused * charge.usd_per_hour
            message = (
                f"{refused} more replicas at {units.format_usd(charge.usd_per_hour)}/h would exceed the "
                f"{units.format_usd(ceiling)}/h of {policy.key}"
            )
            reasons.append(_reason("reserve_budget", key, Code.BUDGET, message))
    return dataclasses.replace(plan, replicas=replicas).with_reason(*reasons)


def keep_weights(plan: Plan, snapshot: Snapshot) -> Plan:
    """Weights are finite shares of known tiers that sum to 1, for every class of the snapshot and no other."""
    return _repair(plan, snapshot, "keep_weights", weight_limits.malformed)


def keep_allowed(plan: Plan, snapshot: Snapshot) -> Plan:
    """A class goes only to tiers that it allows; without any, to none: requests fail closed."""
    return _repair(plan, snapshot, "keep_allowed", weight_limits.forbidden)


def leave_unready(plan: Plan, snapshot: Snapshot) -> Plan:
    """No share for a tier that can't serve now, while another can; at once, whatever the step."""
    return _repair(plan, snapshot, "leave_unready", weight_limits.unready)


def cap_weight_step(plan: Plan, snapshot: Snapshot) -> Plan:
    """Shares move by at most ``retune.maxWeightStep`` per cycle, and not at all without fresh demand.

    A swamped tier may lose any share at once while another isn't.
    """
    return _repair(plan, snapshot, "cap_weight_step", weight_limits.too_far)


def keep_probing(plan: Plan, snapshot: Snapshot) -> Plan:
    """A healthy tier that is in use keeps a small share, so that its latency and quality stay known."""
    return _repair(plan, snapshot, "keep_probing", weight_limits.unprobed)


GUARDS: tuple[Guard, ...] = (
    complete,
    block_failing,
    refuse_unknown,
    reserve_budget,
    hold_without_evidence,
    wait_scale_down,
    keep_awake,
    keep_carrying,
    keep_on_demand,
    make_before_break,
    cap_step,
    keep_bounds,
    keep_held,
    keep_weights,
    keep_allowed,
    leave_unready,
    keep_probing,
    cap_weight_step,
)
"""In the order in which their reasons read best; any order is as safe."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Charge:
    """What a variant is charged with: its price, and the replicas that cost money this cycle whatever the plan says."""

    usd_per_hour: float
    reserved: int


def _charges(policy: PolicyState, snapshot: Snapshot) -> dict[VariantKey, _Charge]:
    """The charge of every variant of a policy's tiers; unknown prices at their worst case."""
    return {
        VariantKey(tier.key, variant.name): _Charge(
            economics.worst_usd_per_hour(snapshot, tier.key, variant),
            max(limits.existing(variant), variant.desired, variant.spec.replicas.min),
        )
        for key in policy.tiers
        if key in snapshot.tiers
        for tier in (snapshot.tiers[key],)
        for variant in tier.variants
    }


def _apply(
    plan: Plan,
    snapshot: Snapshot,
    name: str,
    rule: Callable[[TierState, VariantState, int], _Ruled],
    *,
    held: bool = False,
) -> Plan:
    """Apply a rule to every variant's count; held variants are for the guard that holds them alone."""
    replicas = dict(plan.replicas)
    reasons = []
    for tier in snapshot.tiers.values():
        for variant in tier.variants:
            key = VariantKey(tier.key, variant.name)
            if not held and limits.frozen(tier, variant, snapshot.now) is not None:
                continue
            wanted = _wanted(plan, key, variant)
            count, code, message = rule(tier, variant, wanted)
            if count != wanted:
                replicas[key] = count
                reasons.append(_reason(name, key, code, message))
    return dataclasses.replace(plan, replicas=replicas).with_reason(*reasons)


def _repair(plan: Plan, snapshot: Snapshot, name: str, fault: weight_limits.Fault) -> Plan:
    """Replace the shares of every class in which the fault is found."""
    weights: dict[PolicyKey, Weights] = {}
    reasons = []
    drowning = weight_limits.swamped(snapshot)
    for key, policy in snapshot.policies.items():
        planned = plan.weights.get(key, {})
        classes: dict[ClassName, Mapping[TierKey, float]] = {}
        for request_class in policy.spec.classes:
            shares = planned.get(request_class.name, {})
            rules = weight_limits.rules(snapshot, policy, request_class, drowning)
            found = fault(shares, rules)
            if found is None:
                classes[request_class.name] = shares
                continue
            classes[request_class.name] = weight_limits.nearest(shares, rules)
            message = f"{request_class.name}: {found.message}"
            reasons.append(Reason(found.code, message, policy=key, guard=name, request_class=request_class.name))
        weights[key] = classes
    return dataclasses.replace(plan, weights=weights).with_reason(*reasons)


def _wanted(plan: Plan, key: VariantKey, variant: VariantState) -> int:
    """The plan's count if it is one, else the present count."""
    wanted = plan.replicas.get(key)
    sound = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0
    return wanted if sound and wanted is not None else max(0, variant.desired)


def _kept(plan: Plan, tier: TierState, snapshot: Snapshot) -> dict[str, int]:
    """By variant, replicas that serve and that will be kept, whichever guards are still to come.

    Bounds and holds are counted here already: a variant that was switched off (max 0) keeps nothing, even while the
    plan still says so, and a held one keeps what it has.
    """

    def kept(variant: VariantState) -> int:
        if limits.frozen(tier, variant, snapshot.now) is not None:
            return variant.desired
        return limits.clip(_wanted(plan, VariantKey(tier.key, variant.name), variant), variant)

    return {variant.name: min(kept(variant), limits.serving(variant, snapshot.now)) for variant in tier.variants}


def _variants(snapshot: Snapshot) -> list[tuple[VariantKey, VariantState]]:
    return [
        (VariantKey(tier.key, variant.name), variant) for tier in snapshot.tiers.values() for variant in tier.variants
    ]


def _reason(name: str, key: VariantKey, code: Code, message: str) -> Reason:
    return Reason(code, message, key.tier, key.variant, guard=name)


def _remember(plan: Plan, snapshot: Snapshot) -> Plan:
    """Note the time of every change of a count, and what the plan costs now that guards have changed it."""
    memory = {}
    for key, variant in _variants(snapshot):
        found = plan.memory.get(key, variant.memory)
        changed = plan.replicas[key] != variant.desired
        memory[key] = dataclasses.replace(found, last_scaled_at=snapshot.now) if changed else found
    usd = economics.plan_usd_per_hour(snapshot, plan.replicas) + cost.external_usd_per_hour(snapshot, plan.weights)
    prediction = dataclasses.replace(plan.prediction, usd_per_hour=usd)
    return dataclasses.replace(plan, memory=memory, prediction=prediction)
