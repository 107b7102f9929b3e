"""The optimiser: replicas and weights from one program, for each part of the fleet on its own.

``optimize`` never raises on bad data and always returns a plan within bounds; ``source`` says how it came about.
For each connected part it (1) keeps the last solution if nothing that matters moved, else (2) solves the program
for planned demand, which says how many replicas to want; (3) leaves the weights in force as they are while the replicas
that are ready keep every promise with them, and otherwise solves a second, continuous program for the nearest weights
that do; and (4) falls back to the previous plan, or to holding what runs, should the solver find nothing. Weights
follow replicas that exist, not wishes: else each change of mind of the first program would move traffic to and fro.
Safety is the guards' job, not this module's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import losses, units, waves
from trimtab_core.planning import (
    cost,
    explain,
    headroom,
    inputs,
    limits,
    problem,
    program,
    quality_debt,
    spot_cover,
    swaps,
)
from trimtab_core.planning.plan import (
    Alternative,
    Basis,
    Code,
    Plan,
    Prediction,
    Reason,
    Source,
    VariantKey,
    current_replicas,
)
from trimtab_core.snapshot import (
    PolicyKey,
    ReplicaPhase,
    Snapshot,
    TierKey,
    TierState,
    VariantMemory,
    VariantState,
    Weights,
)

Settings = problem.Settings

_WORST = (Source.OPTIMAL, Source.TIME_LIMIT, Source.PREVIOUS, Source.FLOOR)
"""Sources from best to worst; a plan is as good as its worst part."""


def optimize(snapshot: Snapshot, *, previous: Plan | None = None, settings: Settings = Settings()) -> Plan:  # noqa: B008 (frozen)
    """The cheapest plan that keeps every promise, or the one that breaks them in the declared order.

    Args:
        snapshot: all that may be known.
        previous: the last plan, before or after its guards; lets unchanged parts be kept and is the fallback.
        settings: how to plan.
    """
    view = problem.view(snapshot, settings, previous.debts if previous is not None else {})
    before = {basis.part: basis for basis in previous.basis} if previous is not None else {}
    solved, kept = [], 0
    for part in problem.parts(snapshot):
        question = _question(view, part)
        basis = before.get(question.part)
        if basis is not None and _steady(basis, question, settings.tolerance):
            kept += 1
        else:
            basis = _solve(_Asked(snapshot, problem.build(view, part), settings, previous), question)
        solved.append(basis)
    plan = _assemble(snapshot, solved, view.evidence, previous, kept=kept, tolerance=settings.tolerance)
    learned = headroom.learn(snapshot, view.demands, previous.headroom if previous is not None else {})
    served = {policy: share for basis in solved for policy, share in basis.kept.items()}
    debts = quality_debt.count(snapshot, served, view.rates, previous.debts if previous is not None else {})
    return dataclasses.replace(plan, headroom=learned, debts=debts, demand=inputs.of_classes(view))


@dataclass(frozen=True, slots=True)
class _Question:
    """What a part is solved from; see ``plan.Basis``."""

    part: tuple[str, ...]
    specs: tuple[object, ...]
    state: tuple[object, ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One component with all that is needed to answer it."""

    snapshot: Snapshot
    component: problem.Component
    settings: Settings
    previous: Plan | None


def _question(view: problem.View, part: problem.Part) -> _Question:
    """Everything that the solution of a part depends on, cheap to compare."""
    snapshot = view.snapshot
    specs: list[object] = []
    state: list[object] = []
    numbers: list[float] = []
    for key in part.tiers:
        tier = snapshot.tiers[key]
        specs.append(tier.spec)
        state.append(view.evidence.get(key, (limits.Evidence.FRESH,))[0])
        numbers.append(tier.utilisation)
        state.append(spot_cover.needed(tier, cost.attainment(snapshot, tier), snapshot.now) is None)
        state.append(swaps.unsettled(snapshot, tier))
        state += [_variant_state(tier, variant, snapshot.now) for variant in tier.variants]
        for variant in tier.variants:
            numbers.append(variant.price.usd_per_hour if variant.price is not None else -1.0)
            numbers += dataclasses.astuple(variant.profile) if variant.profile is not None else ()
        numbers += dataclasses.astuple(tier.token_rates) if tier.token_rates is not None else ()
    for policy_key in part.policies:
        policy = snapshot.policies[policy_key]
        specs.append(policy.spec)
        numbers.append(cost.ceiling_usd_per_hour(policy, snapshot.now))
        state.append(view.retention[policy_key])
        for request_class in policy.spec.classes:
            load = view.loads[policy_key, request_class.name]
            numbers += [load.now, load.planned, *dataclasses.astuple(load.mix)]
            weights = policy.weights.get(request_class.name, {})
            state += [load.evidence, tuple(sorted((key, round(share, 3)) for key, share in weights.items()))]
    return _Question((*part.tiers, *part.policies), tuple(specs), tuple(state), tuple(numbers))


def _variant_state(tier: TierState, variant: VariantState, now: float) -> tuple[object, ...]:
    """All of a variant that counts and is not a measured number."""
    hold = limits.frozen(tier, variant, now)
    return (
        variant.name,
        variant.desired,
        variant.count(ReplicaPhase.READY),
        limits.live(variant, now),
        limits.failed(variant, now),
        limits.blocked(variant, now),
        limits.doubtful(variant, now),
        *(limits.wait_seconds(tier, variant, now, to_zero=to_zero) > 0 for to_zero in (False, True)),
        limits.wait_seconds(tier, variant, now, to_zero=False) <= limits.startup_seconds(variant),
        hold.code if hold is not None else "",
        variant.price is None,
        variant.profile is None,
    )


def _steady(basis: Basis, question: _Question, tolerance: float) -> bool:
    """Whether the last solution still stands: same objects and states, and no number moved beyond the tolerance.

    Numbers are compared with those that the solution was made from, not with the last cycle's, so that a slow drift is
    noticed as well. A plan that only held what was there is never kept.
    """
    return (
        basis.source in {Source.OPTIMAL, Source.TIME_LIMIT}
        and basis.state == question.state
        and len(basis.numbers) == len(question.numbers)
        and all(
            old == new or abs(old - new) <= tolerance * max(abs(old), abs(new))
            for old, new in zip(basis.numbers, question.numbers, strict=True)
        )
        and basis.specs == question.specs
    )


def _solve(asked: _Asked, question: _Question) -> Basis:
    """Answer one component, whatever the solver says."""
    start = asked.previous.replicas if asked.previous is not None else {}
    found = program.solve(asked.component, asked.settings, program.Goal(start=start))
    if found is None:
        chosen, source = _fallback(asked), Source.PREVIOUS if asked.previous is not None else Source.FLOOR
        counts = chosen.replicas
    else:
        source = Source.OPTIMAL if found.proven else Source.TIME_LIMIT
        chosen = explain.Chosen(
            asked.component, asked.settings, found.replicas, found.weights, found.weights, found.broken
        )
        counts = swaps.due(asked.snapshot, asked.component, found.replicas)
        weights = _for_now(asked, dataclasses.replace(chosen, replicas=counts))
        chosen = dataclasses.replace(chosen, weights=weights)
    return Basis(
        question.part,
        question.specs,
        question.state,
        question.numbers,
        counts,
        chosen.weights,
        source,
        explain.prediction(chosen),
        explain.demand_requests_per_second(asked.component),
        {policy.key: explain.kept(asked.component, policy.key) for policy in asked.component.policies},
        explain.binding(chosen),
        explain.reasons(asked.snapshot, chosen) + _recommendations(asked),
        explain.alternatives(chosen),
    )


def _for_now(asked: _Asked, chosen: explain.Chosen) -> Mapping[PolicyKey, Weights]:
    """The shares for today's demand on the replicas that are ready now.

    Shares in force stay as long as they keep every promise: moving them earns nothing before a replica can go. What may
    go (its window is over) is not counted on any more, so that its share leaves first.
    """
    component = asked.component
    if not any(tier.ready for tier in component.tiers):
        return chosen.planned
    ready = {variant.key: variant.ready for variant in component.variants}
    staying = {
        key: count if _waits(asked, chosen, key) else min(count, chosen.replicas[key]) for key, count in ready.items()
    }
    if explain.stands(chosen, staying):
        return {
            policy.key: {c.name: c.before for c in component.classes if c.policy == policy.key}
            for policy in component.policies
        }
    for carrying in (staying, ready) if staying != ready else (ready,):
        found = program.solve(component, asked.settings, program.Goal(carrying, chosen.planned))
        if found is not None and ("capacity" not in found.broken or carrying is ready):
            return _with_waiting(component, found.weights, chosen.planned)
    return chosen.planned


def _waits(asked: _Asked, chosen: explain.Chosen, key: VariantKey) -> bool:
    """Whether the variant must keep its replicas for now even if fewer are planned."""
    tier = asked.snapshot.tiers[key.tier]
    to_zero = not any(count for other, count in chosen.replicas.items() if other.tier == key.tier)
    return limits.wait_seconds(tier, tier.variant(key.variant), asked.snapshot.now, to_zero=to_zero) > 0


def _with_waiting(
    component: problem.Component, weights: Mapping[PolicyKey, Weights], planned: Mapping[PolicyKey, Weights]
) -> Mapping[PolicyKey, Weights]:
    """The weights, with those of classes that no ready tier serves as planned: they wait for a tier to wake."""
    ready = {tier.key for tier in component.tiers if tier.ready}
    result = {key: dict(classes) for key, classes in weights.items()}
    for request_class in component.classes:
        if request_class.tiers and not ready.intersection(request_class.tiers):
            result[request_class.policy][request_class.name] = planned[request_class.policy][request_class.name]
    return result


def _fallback(asked: _Asked) -> explain.Chosen:
    """What was planned before, else what runs, within bounds; weights likewise, else the best tier."""
    before = asked.previous.replicas if asked.previous is not None else {}
    counts = {v.key: before.get(v.key, v.current) for v in asked.component.variants}
    replicas = {v.key: min(max(counts[v.key], v.low), v.high) for v in asked.component.variants}
    planned = asked.previous.weights if asked.previous is not None else {}
    weights: dict[PolicyKey, dict[str, Mapping[TierKey, float]]] = {}
    for request_class in asked.component.classes:
        known = planned.get(request_class.policy, {}).get(request_class.name) or request_class.before
        kept = program.normalised({key: share for key, share in known.items() if key in request_class.tiers})
        best = sorted(request_class.tiers, key=lambda key: (-sum(request_class.segment_quality[key]), key))[:1]
        weights.setdefault(request_class.policy, {})[request_class.name] = kept or dict.fromkeys(best, 1.0)
    return explain.Chosen(asked.component, asked.settings, replicas, weights, weights, {})


def _recommendations(asked: _Asked) -> tuple[Reason, ...]:
    """What would be done with counts that are not Trimtab's to change, as reasons."""
    held = {v.key: v.hold for v in asked.component.variants if v.hold is not None}
    if not held:
        return ()
    tiers = tuple(
        dataclasses.replace(tier, variants=tuple(_released(asked.snapshot, v) for v in tier.variants))
        for tier in asked.component.tiers
    )
    found = program.solve(dataclasses.replace(asked.component, tiers=tiers), asked.settings)
    if found is None:
        return ()
    return tuple(
        Reason(
            hold.code,
            f"{hold.message}; {found.replicas[key]} replicas would be best instead of {_current(asked, key)}",
            key.tier,
            key.variant,
        )
        for key, hold in held.items()
        if found.replicas[key] != _current(asked, key)
    )


def _released(snapshot: Snapshot, choice: problem.VariantChoice) -> problem.VariantChoice:
    """The choice with the limits that it would have if nothing held it."""
    if choice.hold is None:
        return choice
    variant = snapshot.tiers[choice.key.tier].variant(choice.key.variant)
    low = variant.spec.replicas.min
    high = max(low, variant.spec.replicas.max)
    return dataclasses.replace(choice, low=low, high=high if choice.speed else max(low, min(high, choice.current)))


def _current(asked: _Asked, key: VariantKey) -> int:
    return asked.snapshot.tiers[key.tier].variant(key.variant).desired


def _assemble(
    snapshot: Snapshot,
    solved: list[Basis],
    evidence: problem.Evidences,
    previous: Plan | None,
    *,
    kept: int,
    tolerance: float,
) -> Plan:
    """One plan of all parts."""
    replicas = current_replicas(snapshot)
    weights: dict[PolicyKey, Weights] = {key: policy.weights for key, policy in snapshot.policies.items()}
    for basis in solved:
        replicas.update(basis.replicas)
        weights.update(basis.weights)
    reasons = tuple(reason for basis in solved for reason in basis.reasons)
    if kept:
        message = f"{kept} of {len(solved)} parts moved by less than {tolerance:.0%} since they were planned: kept"
        reasons += (Reason(Code.STEADY, message),)
    return Plan(
        replicas,
        weights,
        _memory(snapshot, replicas, evidence, previous.memory if previous is not None else {}),
        _total_prediction(solved),
        max((basis.source for basis in solved), key=_WORST.index, default=Source.OPTIMAL),
        next((b.binding for b in sorted(solved, key=lambda b: -b.prediction.usd_per_hour)), ""),
        reasons,
        _total_alternatives(solved),
        tuple(solved),
    )


def _memory(
    snapshot: Snapshot,
    replicas: Mapping[VariantKey, int],
    evidence: problem.Evidences,
    before: Mapping[VariantKey, VariantMemory],
) -> dict[VariantKey, VariantMemory]:
    """Since when all evidence asks for fewer replicas, and for how many; evidence that isn't fresh starts anew."""
    memory = {}
    for tier in snapshot.tiers.values():
        fresh = tier.key not in evidence
        begin = snapshot.now - units.duration_seconds(tier.spec.scaling.scale_down_window)
        for variant in tier.variants:
            key = VariantKey(tier.key, variant.name)
            fewer = fresh and replicas[key] < limits.serving(variant, snapshot.now)
            since = variant.memory.fewer_since
            since = (snapshot.now if since is None else min(since, snapshot.now)) if fewer else None
            known = _exact(variant.memory, before.get(key))
            seen = known.losses_per_hour
            if variant.watched_hours:
                seen = losses.rate_per_hour(dataclasses.replace(variant, memory=known))
            struck = waves.learn(
                known.waves,
                snapshot.now,
                served=variant.served,
                lost=variant.lost,
                scarce=limits.failed(variant, snapshot.now) > 0,
                startup_seconds=limits.startup_seconds(variant),
            )
            past = before[key].recent if key in before else ()
            recent = (*(one for one in past if one[0] > begin), (snapshot.now, replicas[key]))
            lost_at = snapshot.now if variant.lost else variant.memory.lost_at
            memory[key] = dataclasses.replace(
                variant.memory, fewer_since=since, losses_per_hour=seen, lost_at=lost_at, waves=struck, recent=recent
            )
    return memory


def _exact(told: VariantMemory, known: VariantMemory | None) -> VariantMemory:
    """What is remembered, with rates as this process knows them: status has two digits, in which nothing fades."""
    if known is None:
        return told
    return dataclasses.replace(told, losses_per_hour=known.losses_per_hour, waves=known.waves)


def _total_prediction(solved: list[Basis]) -> Prediction:
    """Costs add up; quality is weighed by demand; the busiest part is the plan's utilisation."""
    demand = sum(basis.demand_requests_per_second for basis in solved)
    quality = sum(basis.demand_requests_per_second * basis.prediction.quality_retention for basis in solved)
    return Prediction(
        sum(basis.prediction.usd_per_hour for basis in solved),
        sum(basis.prediction.baseline_usd_per_hour for basis in solved),
        quality / demand if demand else 1.0,
        max((basis.prediction.utilisation for basis in solved), default=0.0),
    )


def _total_alternatives(solved: list[Basis]) -> tuple[Alternative, ...]:
    """Alternatives that every part has, added up; those of a single part where there is only one."""
    if len(solved) == 1:
        return solved[0].alternatives
    totals: dict[str, Alternative] = {}
    for basis in sorted(solved, key=lambda basis: -basis.prediction.usd_per_hour):
        for found in basis.alternatives[:2]:
            known = totals.get(found.name)
            usd = found.usd_per_hour + (known.usd_per_hour if known is not None else 0.0)
            totals[found.name] = Alternative(found.name, usd, known.why_not if known is not None else found.why_not)
    return tuple(totals.values())
