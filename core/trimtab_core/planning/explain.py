"""Why a plan is as it is: reasons with numbers, the alternatives that were not taken, and what binds.

Reads what the solver was asked and what it answered; never changes either.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.planning import limits, problem, quality_debt
from trimtab_core.planning.plan import Alternative, Code, Prediction, Reason, VariantKey, differs
from trimtab_core.snapshot import PolicyKey, Snapshot, TierKey, Weights

USED = 0.01
"""A smaller share is there for probing, not for use."""
LOOK_BACK_INTERVALS = 20
"""Arrivals are compared with those so many control intervals ago: five minutes at the usual 15 s."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One component's answer.

    Attributes:
        replicas: the optimiser's choice.
        planned: the shares that go with these replicas.
        weights: shares that are to be in force now, while replicas may still be starting.
        broken: promises that can't be kept, by kind.
    """

    component: problem.Component
    settings: problem.Settings
    replicas: Mapping[VariantKey, int]
    planned: Mapping[PolicyKey, Weights]
    weights: Mapping[PolicyKey, Weights]
    broken: Mapping[str, float]

    def shares(self, request_class: problem.ClassChoice) -> Mapping[TierKey, float]:
        """The class's planned shares."""
        return self.planned.get(request_class.policy, {}).get(request_class.name, {})

    def work(self, tier: TierKey) -> float:
        """Planned work of the tier, in reference replicas."""
        return sum(
            request_class.load.planned * self.shares(request_class).get(tier, 0.0) * request_class.work.get(tier, 0.0)
            for request_class in self.component.classes
        )

    def requests_per_second(self, tier: TierKey) -> float:
        """Planned requests of the tier."""
        return sum(c.load.planned * self.shares(c).get(tier, 0.0) for c in self.component.classes)

    def carried(self, tier: problem.TierChoice, replicas: Mapping[VariantKey, int]) -> float:
        """Requests per second of the planned mix that these replicas carry with headroom."""
        speed = sum(variant.speed * replicas.get(variant.key, 0) for variant in tier.variants)
        work, requests = self.work(tier.key), self.requests_per_second(tier.key)
        each = requests / work if work else tier.requests_per_second
        return tier.utilisation * speed * each


def prediction(chosen: Chosen) -> Prediction:
    """Cost, baseline, quality and utilisation of the choice at planned demand."""
    component = chosen.component
    usd = sum(variant.usd_per_hour * chosen.replicas[variant.key] for variant in component.variants)
    usd += sum(_external_usd_per_hour(c, chosen.shares(c)) for c in component.classes)
    busiest = 0.0
    for tier in component.tiers:
        speed = sum(variant.speed * chosen.replicas[variant.key] for variant in tier.variants)
        if tier.external_limit is None and chosen.work(tier.key):
            busiest = max(busiest, chosen.work(tier.key) / speed if speed else 1.0)
    return Prediction(usd, baseline_usd_per_hour(chosen), _retention(chosen), min(1.0, busiest))


def demand_requests_per_second(component: problem.Component) -> float:
    """Planned requests of all classes."""
    return sum(request_class.load.planned for request_class in component.classes)


def baseline_usd_per_hour(chosen: Chosen) -> float:
    """Every class on its policy's baseline tier, sized for the same demand in whole replicas of one variant."""
    work: dict[TierKey, float] = {}
    external = 0.0
    tiers = {tier.key: tier for tier in chosen.component.tiers}
    for request_class in chosen.component.classes:
        key = _baseline_tier(chosen, request_class)
        if key is None:
            continue
        if tiers[key].external_limit is not None:
            external += _external_usd_per_hour(request_class, {key: 1.0})
        else:
            work[key] = work.get(key, 0.0) + request_class.load.planned * request_class.work[key]
    return external + sum(_static_usd_per_hour(tiers[key], amount) for key, amount in work.items())


def stands(chosen: Chosen, carrying: Mapping[VariantKey, int]) -> bool:
    """Whether the weights in force keep every promise for today's demand on these replicas.

    Falling short of the quality by less than ``quality_debt.NOISE`` is not worth a move.
    """
    component = chosen.component
    ready = {tier.key for tier in component.tiers if tier.ready}
    for request_class in component.classes:
        before = request_class.before
        sound = math.isclose(
            sum(before.get(key, 0.0) for key in request_class.tiers if key in ready), 1.0, abs_tol=1e-6
        )
        cheap = not any(request_class.external_usd.get(key) for key in before)
        least = min(request_class.min_quality, request_class.best_quality) - quality_debt.NOISE
        if request_class.tiers and not (sound and cheap and _quality(request_class, before) >= least):
            return False
    for tier in component.tiers:
        work = sum(c.load.now * c.before.get(tier.key, 0.0) * c.work.get(tier.key, 0.0) for c in component.classes)
        supply = sum(variant.speed * carrying[variant.key] for variant in tier.variants)
        if tier.external_limit is None and work > tier.ready_utilisation * supply:
            return False
    return all(kept(component, policy.key) >= policy.retention - quality_debt.NOISE for policy in component.policies)


def kept(component: problem.Component, policy: PolicyKey) -> float:
    """Share of the best quality that the weights in force keep of one policy's requests of today."""
    got = best = 0.0
    for request_class in component.classes:
        if request_class.policy == policy and request_class.tiers:
            rate = max(request_class.load.now, problem.IDLE_REQUESTS_PER_SECOND)
            got += rate * _quality(request_class, request_class.before)
            best += rate * request_class.best_quality
    return got / best if best else 1.0


def alternatives(chosen: Chosen) -> tuple[Alternative, ...]:
    """What else could have been done: stay, one tier for everything, the baseline."""
    predicted = prediction(chosen)
    current = {variant.key: variant.current for variant in chosen.component.variants}
    found = [_staying(chosen, current, predicted)]
    if chosen.component.classes:
        baseline = predicted.baseline_usd_per_hour + _kept_anyway(chosen, _baseline_tiers(chosen))
        found.append(Alternative("every request to the baseline tier", baseline, _dearer(baseline, predicted)))
        found += _one_tier(chosen, predicted)
    return tuple(found)


def binding(chosen: Chosen) -> str:
    """The constraint that keeps the plan from being cheaper."""
    for kind in ("budget", "quality", "capacity", "spot"):
        if chosen.broken.get(kind):
            return kind
    cheapest = min((variant.usd_per_hour for variant in chosen.component.variants), default=0.0)
    spent = prediction(chosen).usd_per_hour
    if any(policy.ceiling_usd_per_hour - spent < cheapest for policy in chosen.component.policies):
        return "budget"
    if any(_bought_for_quality(chosen, request_class) for request_class in chosen.component.classes):
        return "quality"
    free = [variant for variant in chosen.component.variants if chosen.replicas[variant.key] > variant.low]
    return "capacity" if free else "bounds"


def _bought_for_quality(chosen: Chosen, request_class: problem.ClassChoice) -> bool:
    """Whether a tier was given more than its least replicas for a class that a cheaper tier with room could serve."""
    tiers = {tier.key: tier for tier in chosen.component.tiers}
    usd = {key: _request_usd(tiers[key], request_class) for key in request_class.tiers}
    roomy = [key for key in usd if _replicas_of(chosen, tiers[key]) < _most(tiers[key])]
    cheapest = min((usd[key] for key in roomy), default=math.inf)
    return any(
        share > USED and usd[key] > cheapest * 1.01 and _replicas_of(chosen, tiers[key]) > _least(tiers[key])
        for key, share in chosen.shares(request_class).items()
    )


def _request_usd(tier: problem.TierChoice, request_class: problem.ClassChoice) -> float:
    """USD per hour of one request per second on a tier, on its cheapest variant."""
    prices = [variant.usd_per_hour / variant.speed for variant in tier.variants if variant.speed]
    own = request_class.work[tier.key] * min(prices, default=0.0)
    return own + request_class.external_usd[tier.key] * units.SECONDS_PER_HOUR


def _replicas_of(chosen: Chosen, tier: problem.TierChoice) -> int:
    return sum(chosen.replicas[variant.key] for variant in tier.variants)


def _least(tier: problem.TierChoice) -> int:
    """Replicas that the tier has anyway; an external tier has none, so that any use of it is bought."""
    least = max(sum(variant.low for variant in tier.variants), int(tier.keep_one))
    return least if tier.external_limit is None else -1


def _most(tier: problem.TierChoice) -> float:
    return sum(v.high for v in tier.variants if v.speed) if tier.external_limit is None else math.inf


def reasons(snapshot: Snapshot, chosen: Chosen) -> tuple[Reason, ...]:
    """Why each changed variant and policy changes, and what could not be done."""
    found = [
        Reason(note.hold.code, note.hold.message, note.tier, note.variant, note.policy)
        for note in chosen.component.notes
    ]
    for tier in chosen.component.tiers:
        found += [
            _replica_reason(snapshot, chosen, tier, variant)
            for variant in tier.variants
            if chosen.replicas[variant.key] != variant.current
        ]
    for request_class in chosen.component.classes:
        found += _class_reasons(chosen, request_class)
    for kind, amount in sorted(chosen.broken.items()):
        found += [_broken_reason(policy.key, kind, amount) for policy in chosen.component.policies]
    return tuple(found)


def _replica_reason(
    snapshot: Snapshot, chosen: Chosen, tier: problem.TierChoice, variant: problem.VariantChoice
) -> Reason:
    """Why one variant's count changes."""
    target = chosen.replicas[variant.key]
    current = {other.key: other.current for other in tier.variants}
    before, after = sum(current.values()), sum(chosen.replicas[key] for key in current)
    demand, carried = chosen.requests_per_second(tier.key), chosen.carried(tier, current)
    numbers = f"{_replicas(before)} carry {carried:.3g} req/s, {demand:.3g} are planned for"
    trend = _trend(snapshot, chosen, tier.key)
    rises = target > variant.current
    opposite = any(
        (chosen.replicas[o.key] > o.current) != rises and chosen.replicas[o.key] != o.current for o in tier.variants
    )
    if limits.clip(variant.current, snapshot.tiers[tier.key].variant(variant.key.variant)) != variant.current:
        code, message = Code.BOUNDS, f"replicas must lie between {variant.low} and {variant.high}"
    elif opposite:
        code, message = Code.CHEAPER_VARIANT, _cheaper(tier, variant)
    elif rises:
        code = Code.WOKEN if not before else Code.DEMAND_UP
        message = f"{trend}{numbers}"
    elif not after:
        code, message = Code.IDLE, f"{trend}{demand:.3g} req/s are planned for"
    else:
        left = chosen.carried(tier, {key: chosen.replicas[key] for key in current})
        code, message = (
            Code.DEMAND_DOWN,
            f"{trend}{_replicas(after)} carry {left:.3g} req/s, {demand:.3g} are planned for",
        )
    return Reason(code, message, tier.key, variant.key.variant)


def _replicas(count: int) -> str:
    return "1 replica can" if count == 1 else f"{count} replicas can"


def _cheaper(tier: problem.TierChoice, variant: problem.VariantChoice) -> str:
    """Prices per unit of work of this variant and of the best other."""

    def price(choice: problem.VariantChoice) -> float:
        return choice.usd_per_hour / choice.speed if choice.speed else math.inf

    own = price(variant)
    best = min((price(other) for other in tier.variants if other.key != variant.key), default=math.inf)
    if not math.isfinite(own):
        return f"{variant.key.variant} can't keep the SLO, other variants can"
    each = f"{variant.key.variant} costs {units.format_usd(own)}/h per unit of work"
    return each if not math.isfinite(best) else f"{each}, the best other variant {units.format_usd(best)}/h"


def _trend(snapshot: Snapshot, chosen: Chosen, tier: TierKey) -> str:
    """How arrivals of the class that matters most to the tier moved, if they did."""
    by_work = sorted(
        chosen.component.classes,
        key=lambda c: (-c.load.planned * chosen.shares(c).get(tier, 0.0), c.policy, c.name),
    )
    if not by_work:
        return ""
    leading = by_work[0]
    traffic = snapshot.policies[leading.policy].traffic.get(leading.name)
    interval = units.duration_seconds(snapshot.policies[leading.policy].spec.retune.interval)
    since = snapshot.now - LOOK_BACK_INTERVALS * interval
    past = [v for at, v in traffic.history if at >= since] if traffic is not None else []
    now = leading.load.now
    if not past or abs(past[0] - now) <= 0.05 * max(past[0], now):
        return f"arrivals of {leading.name} are {now:.3g} req/s; "
    verb = "rose" if now > past[0] else "fell"
    return f"arrivals of {leading.name} {verb} {past[0]:.3g} → {now:.3g} req/s; "


def _class_reasons(chosen: Chosen, request_class: problem.ClassChoice) -> list[Reason]:
    """Why one class's weights are what they are."""
    name, policy = request_class.name, request_class.policy
    if not request_class.tiers:
        message = f"{name}: no allowed tier can serve it, so its requests are refused"
        return [Reason(Code.NOT_ALLOWED, message, policy=policy, request_class=name)]
    found = []
    if request_class.load.evidence is not limits.Evidence.FRESH:
        missing = request_class.load.evidence is limits.Evidence.MISSING
        code = Code.SIGNAL_MISSING if missing else Code.SIGNAL_STALE
        message = f"{name}: {request_class.load.why}; weights and replicas hold"
        found.append(Reason(code, message, policy=policy, request_class=name))
    before, after = request_class.before, chosen.weights.get(policy, {}).get(name, {})
    if not differs(before, after):
        return found
    code, message = _why_moved(chosen, request_class, after)
    return [*found, Reason(code, f"{name}: {message}", policy=policy, request_class=name)]


def _why_moved(chosen: Chosen, request_class: problem.ClassChoice, after: Mapping[TierKey, float]) -> tuple[Code, str]:
    """Why a class's shares change."""
    before = request_class.before
    ready = {tier.key for tier in chosen.component.tiers if tier.ready}
    unready = [key for key in before if before[key] and key not in ready]
    gained, best = _quality(request_class, after), request_class.best_quality
    if unready:
        return Code.UNHEALTHY, f"{', '.join(sorted(unready))} has no ready replica"
    if not before:
        return Code.QUALITY_NEEDED, f"first shares, expected quality {gained:.3f} (best tier {best:.3f})"
    lost = _quality(request_class, before)
    numbers = f"expected quality {lost:.3f} → {gained:.3f} (best tier {best:.3f})"
    full = [tier for tier in chosen.component.tiers if _overloaded(chosen, tier) and before.get(tier.key)]
    if full:
        return Code.CAPACITY_NEEDED, f"{full[0].key} gets more than its ready replicas carry; {numbers}"
    return (Code.QUALITY_NEEDED if gained > lost else Code.CHEAPER_TIER), numbers


def _overloaded(chosen: Chosen, tier: problem.TierChoice) -> bool:
    """Whether today's demand at the weights in force is more than the tier's ready replicas carry."""
    work = sum(c.load.now * c.before.get(tier.key, 0.0) * c.work.get(tier.key, 0.0) for c in chosen.component.classes)
    supply = sum(variant.speed * variant.ready for variant in tier.variants)
    return tier.external_limit is None and work > tier.ready_utilisation * supply


def _broken_reason(policy: PolicyKey, kind: str, amount: float) -> Reason:
    """A promise that no plan can keep."""
    if kind == "budget":
        message = f"the cheapest plan exceeds the budget by {units.format_usd(amount)}/h"
        return Reason(Code.BUDGET, message, policy=policy)
    if kind == "quality":
        message = f"quality falls short of what is asked by {amount:.4f}; no allowed split reaches it"
        return Reason(Code.INFEASIBLE, message, policy=policy)
    if kind == "spot":
        message = f"{amount:.2f} reference replicas too few are not spot for scaling.onDemandShare"
        return Reason(Code.INFEASIBLE, message, policy=policy)
    message = f"demand exceeds what may run by the work of {amount:.2f} reference replicas"
    return Reason(Code.INFEASIBLE, message, policy=policy)


def _quality(request_class: problem.ClassChoice, shares: Mapping[TierKey, float]) -> float:
    """Expected quality of the class with its requests split by rank over these shares."""
    order = sorted(request_class.tiers, key=lambda key: (sum(request_class.segment_quality[key]), key))
    parts = len(next(iter(request_class.segment_quality.values())))
    total, at = 0.0, 0.0
    whole = sum(shares.get(key, 0.0) for key in order) or 1.0
    for key in order:
        until = at + shares.get(key, 0.0) / whole
        total += _between(request_class.segment_quality[key], at * parts, until * parts)
        at = until
    return total / parts


def _between(values: tuple[float, ...], start: float, end: float) -> float:
    """Integral between two positions of the line whose segments have these means: ``quality`` falls linearly."""
    slope = (values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else 0.0
    return (end - start) * (values[0] + slope * ((start + end - 1.0) / 2.0))


def _retention(chosen: Chosen) -> float:
    """Expected quality over that of always the best tier, over all requests."""
    got = best = 0.0
    for request_class in chosen.component.classes:
        if request_class.tiers:
            rate = max(request_class.load.planned, problem.IDLE_REQUESTS_PER_SECOND)
            got += rate * _quality(request_class, chosen.shares(request_class))
            best += rate * request_class.best_quality
    return min(1.0, got / best) if best else 1.0


def _external_usd_per_hour(request_class: problem.ClassChoice, shares: Mapping[TierKey, float]) -> float:
    usd = sum(share * request_class.external_usd.get(key, 0.0) for key, share in shares.items())
    return request_class.load.planned * usd * units.SECONDS_PER_HOUR


def _baseline_tier(chosen: Chosen, request_class: problem.ClassChoice) -> TierKey | None:
    policy = next(policy for policy in chosen.component.policies if policy.key == request_class.policy)
    if policy.baseline in request_class.tiers:
        return policy.baseline
    quality = request_class.segment_quality
    return max(request_class.tiers, key=lambda key: (sum(quality[key]), key), default=None)


def _static_usd_per_hour(tier: problem.TierChoice, work: float) -> float:
    """The cheapest way to do the work with whole replicas of one variant of the tier."""
    options = [
        math.ceil(work / (tier.utilisation * variant.speed) - 1e-9) * variant.usd_per_hour
        for variant in tier.variants
        if variant.speed
    ]
    return min(options, default=0.0)


def _staying(chosen: Chosen, current: Mapping[VariantKey, int], predicted: Prediction) -> Alternative:
    """The replicas as they are."""
    usd = sum(variant.usd_per_hour * current[variant.key] for variant in chosen.component.variants)
    usd += sum(_external_usd_per_hour(c, c.before) for c in chosen.component.classes)
    if dict(chosen.replicas) == dict(current):
        return Alternative("replicas as they are", usd, "chosen")
    for tier in chosen.component.tiers:
        demand, carried = chosen.requests_per_second(tier.key), chosen.carried(tier, current)
        if tier.external_limit is None and demand > carried * (1 + 1e-6):
            return Alternative(
                "replicas as they are", usd, f"{tier.key} carries {carried:.3g} of {demand:.3g} req/s with headroom"
            )
    return Alternative("replicas as they are", usd, _dearer(usd, predicted))


def _baseline_tiers(chosen: Chosen) -> set[TierKey]:
    return {key for each in chosen.component.classes for key in (_baseline_tier(chosen, each),) if key is not None}


def _kept_anyway(chosen: Chosen, used: Container[TierKey]) -> float:
    """USD per hour of the replicas that tiers must keep which wouldn't be used."""
    idle = [tier for tier in chosen.component.tiers if tier.key not in used]
    return sum(variant.low * variant.usd_per_hour for tier in idle for variant in tier.variants)


def _one_tier(chosen: Chosen, predicted: Prediction) -> list[Alternative]:
    """Every request to the cheapest tier that all classes may use."""
    found = []
    classes = [c for c in chosen.component.classes if c.tiers]
    for tier in chosen.component.tiers:
        if not classes or any(tier.key not in c.tiers for c in classes):
            continue
        if tier.external_limit is not None:
            usd = sum(_external_usd_per_hour(c, {tier.key: 1.0}) for c in classes)
        else:
            usd = _static_usd_per_hour(tier, sum(c.load.planned * c.work[tier.key] for c in classes))
        usd += _kept_anyway(chosen, {tier.key})
        quality = [sum(c.segment_quality[tier.key]) / len(c.segment_quality[tier.key]) for c in classes]
        short = min(q / c.best_quality if c.best_quality else 1.0 for q, c in zip(quality, classes, strict=True))
        wanted = max((policy.retention for policy in chosen.component.policies), default=0.0)
        why = f"keeps {short:.3f} of the best quality, {wanted:.3f} is asked" if short < wanted else ""
        found.append(Alternative(f"every request to {tier.key}", usd, why or _dearer(usd, predicted)))
    return sorted(found, key=lambda alternative: (alternative.usd_per_hour, alternative.name))[:1]


def _dearer(usd: float, predicted: Prediction) -> str:
    difference = usd - predicted.usd_per_hour
    if difference > 0:
        return f"{units.format_usd(difference)}/h dearer"
    return "cheaper now, but switching to it doesn't pay or breaks a limit"
