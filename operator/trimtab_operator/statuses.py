"""The status of every object, as one cycle leaves it. Pure.

Numbers are rounded to what people read, so that noise writes nothing; ages are shown but don't count as a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_core import answers, economics, observation, recall, signals, units
from trimtab_core import snapshot as snapshots
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import fields
from trimtab_core.conditions import Verdict, settle
from trimtab_core.planning import inputs
from trimtab_core.planning import plan as planning
from trimtab_core.routing.table import RoutingTable
from trimtab_core.snapshot import PolicyKey, ReplicaPhase, Snapshot, TierKey

from trimtab_operator import judgement, noise
from trimtab_operator.render import names

Manifest = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace and name."""

DECISIONS_KEPT = 20
REASONS_KEPT = 4
APPLIED_KEPT = 100


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one cycle saw and did, as far as status tells it.

    Attributes:
        told: replica counts that Deployments were given.
        refused: ``Kind namespace/name`` of objects that were not accepted, with the reason.
        tables: as published.
    """

    seen: observation.Observation
    snapshot: Snapshot
    plan: planning.Plan
    changes: planning.Changes
    decisions: tuple[planning.Decision, ...]
    told: Mapping[planning.VariantKey, int]
    refused: Mapping[str, str]
    tables: Mapping[PolicyKey, RoutingTable]
    freshness: signals.Freshness = field(default_factory=signals.Freshness)


@dataclass(frozen=True, slots=True)
class Report:
    """One object's new status.

    Attributes:
        about: the object.
        status: as it should be written.
        changed: whether it differs from what is there by more than ages.
        decisions: that are new.
        verdicts: of this cycle.
        before: conditions that were there.
    """

    about: Identity
    status: Manifest
    changed: bool
    decisions: tuple[planning.Decision, ...]
    verdicts: tuple[Verdict, ...]
    before: Sequence[fields.Condition]


def reports(cycle: Cycle) -> list[Report]:
    """The new status of all objects that were seen."""
    reader = answers.Reader(cycle.seen.answers, cycle.snapshot.now, cycle.freshness)
    costs = {key: _tier_usd_per_hour(cycle.snapshot, tier, reader) for key, tier in cycle.snapshot.tiers.items()}
    return [
        *(_tier(cycle, tier, costs) for tier in cycle.seen.tiers),
        *(_policy(cycle, policy, reader, costs) for policy in cycle.seen.policies),
        *(_cache(cycle, cache, reader) for cache in cycle.seen.caches),
    ]


def _tier(cycle: Cycle, observed: v1alpha1.InferenceTier, costs: Mapping[TierKey, float]) -> Report:
    key, before = observation.key(observed.metadata), observed.status
    state = cycle.snapshot.tiers[key]
    told = sum(count for variant, count in cycle.told.items() if variant.tier == key)
    own = {names.engine_service(observed.metadata.name)}
    own |= {names.engines(observed.metadata.name, variant.name) for variant in state.variants}
    verdicts = tuple(judgement.of_tier(state, told, _of_owner(cycle.refused, observed, own)))
    decisions = _news(
        before.decisions,
        (
            decision
            for change, decision in zip(cycle.changes.replicas, cycle.decisions, strict=False)
            if change.key.tier == key
        ),
    )
    status: Manifest = {
        "observedGeneration": observed.metadata.generation,
        "epoch": cycle.snapshot.epoch,
        "mode": state.spec.scaling.management.value,
        "replicas": sum(cycle.plan.replicas.get(planning.VariantKey(key, v.name), v.desired) for v in state.variants),
        "readyReplicas": sum(variant.count(ReplicaPhase.READY) for variant in state.variants),
        "usdPerHour": noise.decimal(costs[key], 4),
        "sloAttainment": _ratio(state.slo_attainment),
        "utilisation": recall.utilisation_field(cycle.plan.headroom[key].utilisation)
        if key in cycle.plan.headroom
        else before.utilisation,
        "reason": _reason(before.reason, decisions, cycle.plan.reasons_of(tier=key)),
        "variants": [_variant(cycle, observed, variant) for variant in state.variants],
        "signals": _tier_signals(state),
        "decisions": _appended(before.decisions, decisions),
        "conditions": _conditions(before.conditions, verdicts, cycle.snapshot.now, observed.metadata.generation),
    }
    return _report(observed, v1alpha1.InferenceTierStatus, status, (decisions, verdicts))


def _variant(cycle: Cycle, observed: v1alpha1.InferenceTier, state: snapshots.VariantState) -> Manifest:
    """One variant's status, with what the next cycle must remember."""
    key = planning.VariantKey(observation.key(observed.metadata), state.name)
    seen = cycle.seen.variants.get(key, observation.ObservedVariant(desired=None))
    before = next((status for status in observed.status.variants if status.name == state.name), None)
    startup = observation.startup_seconds(seen)
    status: Manifest = {
        "name": state.name,
        "desired": cycle.plan.replicas.get(key, state.desired),
        "ready": state.count(ReplicaPhase.READY),
        "pending": state.count(ReplicaPhase.PENDING),
        "draining": state.count(ReplicaPhase.DRAINING),
        "startup": units.format_duration(round(startup, 1)) if startup is not None else before and before.startup,
        "profile": before.profile.to_dict() if before and before.profile else None,
        **recall.learned_fields(state.learned),
        **recall.memory_fields(cycle.plan.memory.get(key, state.memory)),
    }
    if state.price is not None:
        status |= {
            "usdPerHour": noise.decimal(state.price.usd_per_hour, 6),
            "priceSource": state.price.source[:200],
            "priceAsOf": state.price.as_of or None,
        }
    return status


def _tier_signals(state: snapshots.TierState) -> list[Manifest]:
    """What was measured of a tier."""
    ready = [
        replica for variant in state.variants for replica in variant.replicas if replica.phase is ReplicaPhase.READY
    ]
    shown = {"sloAttainment": state.slo_attainment}
    if ready:
        shown |= {
            "running": signals.total(replica.running for replica in ready),
            "waiting": signals.total(replica.waiting for replica in ready),
            "kvUsage": signals.combine((replica.kv_usage for replica in ready), max),
        }
    return [_signal(name, signal) for name, signal in shown.items()]


def _policy(
    cycle: Cycle, observed: v1alpha1.RoutingPolicy, reader: answers.Reader, costs: Mapping[TierKey, float]
) -> Report:
    key, before = observation.key(observed.metadata), observed.status
    state, table = cycle.snapshot.policies[key], cycle.tables[key]
    usd_per_hour = sum(costs.get(tier, 0.0) for tier in state.tiers)
    applied = [one for one in reader.applied if one.policy == key]
    own = {names.router(observed.metadata.name), names.table(observed.metadata.name)}
    verdicts = tuple(
        judgement.of_policy(
            state,
            cycle.snapshot,
            routers=cycle.seen.routers.get(key, ()),
            applied=applied,
            table=table,
            failure=reader.failure(),
            usd_per_hour=usd_per_hour,
            refused=_of_owner(cycle.refused, observed, own),
        )
    )
    after_replicas = cycle.decisions[len(cycle.changes.replicas) :]
    decisions = _news(
        before.decisions,
        (
            decision
            for change, decision in zip(cycle.changes.weights, after_replicas, strict=True)
            if change.policy == key
        ),
    )
    status: Manifest = {
        "observedGeneration": observed.metadata.generation,
        "epoch": cycle.snapshot.epoch,
        "tableVersion": table.version,
        "applied": _applied(applied),
        "classes": [_class(cycle, state, cls) for cls in state.spec.classes],
        "usdPerHour": noise.decimal(usd_per_hour, 4),
        "spend": recall.spend_fields(state.spent_usd_month_to_date, cycle.snapshot.now),
        **_savings(cycle, state),
        "sloAttainment": _ratio(state.slo_attainment),
        "reason": _reason(before.reason, decisions, cycle.plan.reasons_of(policy=key)),
        "signals": _policy_signals(state, cycle.plan),
        "decisions": _appended(before.decisions, decisions),
        "conditions": _conditions(before.conditions, verdicts, cycle.snapshot.now, observed.metadata.generation),
    }
    return _report(observed, v1alpha1.RoutingPolicyStatus, status, (decisions, verdicts))


def _applied(applied: Sequence[answers.Applied]) -> list[Manifest]:
    """The table that each router serves by; where metrics don't tell routers apart, the tables in use are numbered."""
    named = {one.pod or f"router-{number}": one.version for number, one in enumerate(applied, start=1)}
    return [{"router": name, "version": version} for name, version in sorted(named.items())][:APPLIED_KEPT]


def _class(cycle: Cycle, state: snapshots.PolicyState, cls: v1alpha1.RequestClass) -> Manifest:
    """One class's weights in force."""
    weights = {**state.weights, **cycle.plan.weights.get(state.key, {})}.get(cls.name, {})
    arrivals = signals.known(state.traffic[cls.name].arrivals_per_second)
    return {
        "name": cls.name,
        "weights": recall.weight_fields(weights),
        "arrivalsPerSecond": None if arrivals is None else noise.decimal(arrivals, 3),
    }


def _savings(cycle: Cycle, state: snapshots.PolicyState) -> Manifest:
    """The plan's cost of the part of the fleet that the policy belongs to, and what the baseline would cost."""
    part = next((basis for basis in cycle.plan.basis if state.key in basis.part), None)
    baseline = part.prediction.baseline_usd_per_hour if part else 0.0
    if part is None or baseline <= 0:
        return {}
    planned = {key: count for key, count in cycle.plan.replicas.items() if key.tier in part.part}
    external = part.prediction.usd_per_hour - economics.plan_usd_per_hour(cycle.snapshot, part.replicas)
    cost = economics.plan_usd_per_hour(cycle.snapshot, planned) + max(0.0, external)
    return {"baselineUsdPerHour": noise.decimal(baseline, 3), "savedRatio": f"{1 - cost / baseline:.2f}"}


def _policy_signals(state: snapshots.PolicyState, plan: planning.Plan) -> list[Manifest]:
    """What was measured of a policy's classes, and how wrong their forecasts have been."""
    shown = [_signal("sloAttainment", state.slo_attainment)]
    errors = inputs.forecast_errors(plan.demand)
    for name, traffic in sorted(state.traffic.items()):
        shown += [
            _signal(f"{name}.arrivalsPerSecond", traffic.arrivals_per_second),
            _signal(f"{name}.inputTokens", traffic.input_tokens),
            _signal(f"{name}.outputTokens", traffic.output_tokens),
            _signal(f"{name}.cacheHitRatio", traffic.cache_hit_ratio),
            _signal(f"{name}.burstiness", traffic.burstiness),
        ]
        if (state.key, name) in errors:
            shown.append(_signal(f"{name}.forecastError", signals.Fresh(errors[state.key, name], 0.0)))
    return shown


def _cache(cycle: Cycle, observed: v1alpha1.CachePolicy, reader: answers.Reader) -> Report:
    key = observation.key(observed.metadata)
    users = [
        policy
        for policy in cycle.snapshot.policies.values()
        if policy.spec.cache is not None and f"{policy.key.partition('/')[0]}/{policy.spec.cache.ref}" == key
    ]
    verdicts = tuple(judgement.of_cache([policy.key.partition("/")[2] for policy in users]))
    each = [(policy.key, cls.name) for policy in users for cls in policy.spec.classes]
    arrivals = signals.total(reader.of_class("arrivals_per_second", *one) for one in each)
    hits = signals.total(reader.of_class("cache_results_per_second", *one, result="hit") for one in each)
    status: Manifest = {
        "observedGeneration": observed.metadata.generation,
        "epoch": cycle.snapshot.epoch,
        "exactHitRate": _ratio(signals.divide(hits, arrivals)),
        "conditions": _conditions(
            observed.status.conditions, verdicts, cycle.snapshot.now, observed.metadata.generation
        ),
    }
    return _report(observed, v1alpha1.CachePolicyStatus, status, ((), verdicts))


def _report(
    observed: v1alpha1.InferenceTier | v1alpha1.RoutingPolicy | v1alpha1.CachePolicy,
    form: type[fields.ApiModel],
    status: Manifest,
    told: tuple[tuple[planning.Decision, ...], tuple[Verdict, ...]],
) -> Report:
    """The status in its checked form, and whether it is news."""
    new, old = form.model_validate(status).to_dict(), observed.status.to_dict()
    return Report(
        about=(observed.kind, observed.metadata.namespace, observed.metadata.name),
        status=new,
        changed=not noise.same(new, old),
        decisions=told[0],
        verdicts=told[1],
        before=observed.status.conditions,
    )


def _tier_usd_per_hour(snapshot: Snapshot, tier: snapshots.TierState, reader: answers.Reader) -> float:
    """What a tier costs now: its replicas that run, or what routers count for an external API."""
    if tier.token_rates is not None:
        per_second = signals.known(reader.of_tier("cost_usd_per_second", tier.key))
        return (per_second or 0.0) * units.SECONDS_PER_HOUR
    return sum(
        len([replica for replica in variant.replicas if replica.phase is not ReplicaPhase.FAILED])
        * economics.worst_usd_per_hour(snapshot, tier.key, variant)
        for variant in tier.variants
    )


def _of_owner(refused: Mapping[str, str], owner: Any, own: Iterable[str]) -> dict[str, str]:  # noqa: ANN401 (any CR)
    """The refusals among an owner's objects."""
    wanted = {f"{owner.metadata.namespace}/{name}" for name in own}
    return {what: why for what, why in refused.items() if what.partition(" ")[2] in wanted}


def _news(
    before: Sequence[fields.DecisionRecord], decisions: Iterable[planning.Decision]
) -> tuple[planning.Decision, ...]:
    """The decisions that do not repeat the last one: what is not yet in force is decided again every cycle."""
    last = before[-1].action if before else ""
    return tuple(decision for decision in decisions if decision.action != last)


def _appended(before: Sequence[fields.DecisionRecord], decisions: Sequence[planning.Decision]) -> list[Manifest]:
    """The last decisions, newest last."""
    new = [
        {
            "time": recall.rfc3339(decision.time),
            "action": decision.action[:200],
            "reasons": [reason[:500] for reason in decision.reasons[:REASONS_KEPT]],
            "costBeforeUsdPerHour": noise.decimal(decision.cost_before_usd_per_hour, 4),
            "costAfterUsdPerHour": noise.decimal(decision.cost_after_usd_per_hour, 4),
            "bindingConstraint": decision.binding[:200] or None,
        }
        for decision in decisions
    ]
    return [*(record.to_dict() for record in before), *new][-DECISIONS_KEPT:]


def _reason(
    before: str | None, decisions: Sequence[planning.Decision], reasons: Sequence[planning.Reason]
) -> str | None:
    """The decisive reason of the last decision; before the first one, why there was none."""
    if decisions and decisions[-1].reasons:
        return decisions[-1].reasons[0][:500]
    return before or (reasons[0].message[:500] if reasons else None)


def _conditions(
    before: Sequence[fields.Condition], verdicts: Iterable[Verdict], now: float, generation: int | None
) -> list[Manifest]:
    return [condition.to_dict() for condition in settle(before, verdicts, now=now, generation=generation)]


def _signal(name: str, signal: signals.Signal) -> Manifest:
    """One signal with its age, as status shows it."""
    shown: Manifest = {"name": name[:128], "state": type(signal).__name__}
    if isinstance(signal, signals.Missing):
        return {**shown, "reason": signal.reason[:200]}
    return {
        **shown,
        "value": noise.decimal(signal.value, 3),
        "age": units.format_duration(round(signal.age_seconds, 1)),
    }


def _ratio(signal: signals.Signal) -> str | None:
    """A share from 0 to 1, to the thousandth."""
    value = signals.known(signal)
    return None if value is None else f"{min(1.0, value):.3f}"
