"""One plan by the shipped planner for the demand that was seen, as it should be once all replicas are up. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import economics, observation, signals
from trimtab_core.api import findings
from trimtab_core.planning import cost, inputs, optimizer
from trimtab_core.planning.plan import Plan, VariantKey
from trimtab_core.snapshot import PolicyKey, ReplicaPhase, Snapshot, TierState, Weights

from trimtab_cli import manifests
from trimtab_cli.pages import wording
from trimtab_cli.preview import side, watch
from trimtab_cli.preview.demand import Seen

_ROUNDS = 4
"""Weights follow replicas that are ready, and those follow the plan: it settles within two rounds."""
_NO_STEP = 1000
_LONG_AGO_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Planned:
    """One set of manifests, planned for.

    Attributes:
        snapshot: what the planner saw, with the replicas that run now.
        plan: with all wanted replicas up.
        first: the plan for the replicas that run now: its alternatives count from there.
    """

    snapshot: Snapshot
    plan: Plan
    first: Plan


def plan(bundle: manifests.Bundle, seen: Seen) -> Planned:
    """What the planner wants for this demand, without its patience: no step limit, no waiting for start-ups."""
    now = _snapshot(bundle, seen, seen.replicas, seen.weights)
    first = settled = optimizer.optimize(now)
    for _ in range(_ROUNDS):
        again = optimizer.optimize(_snapshot(bundle, seen, settled.replicas, settled.weights))
        done = again.replicas == settled.replicas and again.weights == settled.weights
        settled = again
        if done:
            break
    return Planned(now, settled, first)


def _snapshot(
    bundle: manifests.Bundle, seen: Seen, replicas: Mapping[VariantKey, int], weights: Mapping[PolicyKey, Weights]
) -> Snapshot:
    """What the operator would see if these replicas ran, all of them ready."""
    variants = {
        VariantKey(observation.key(tier.metadata), variant.name): _running(
            VariantKey(observation.key(tier.metadata), variant.name), replicas, seen.now
        )
        for tier in bundle.tiers
        for variant in tier.spec.variants
    }
    observed = observation.Observation(
        tiers=bundle.tiers,
        policies=bundle.policies,
        caches=bundle.caches,
        variants=variants,
        answers=seen.answers,
        engines={},
    )
    snapshot = observation.snapshot(observed, now=seen.now, epoch=1)
    policies = {
        key: dataclasses.replace(
            policy,
            weights=_known(weights.get(key, {}), snapshot),
            traffic={
                name: dataclasses.replace(traffic, history=seen.history.get((key, name), traffic.history))
                for name, traffic in policy.traffic.items()
            },
        )
        for key, policy in snapshot.policies.items()
    }
    tiers = {key: _impatient(tier) for key, tier in snapshot.tiers.items()}
    return dataclasses.replace(snapshot, policies=policies, tiers=tiers)


def _running(key: VariantKey, replicas: Mapping[VariantKey, int], now: float) -> observation.ObservedVariant:
    count = replicas.get(key, 0)
    members = tuple(
        observation.ObservedReplica(f"{key.variant}-{at}", ReplicaPhase.READY, now - _LONG_AGO_SECONDS)
        for at in range(count)
    )
    return observation.ObservedVariant(count, members, told=count)


def _known(weights: Weights, snapshot: Snapshot) -> Weights:
    """The shares of tiers that are in the manifests; a class whose shares don't add up any more starts anew."""
    kept = {
        name: {tier: share for tier, share in shares.items() if tier in snapshot.tiers}
        for name, shares in weights.items()
    }
    return {name: shares for name, shares in kept.items() if abs(sum(shares.values()) - 1) < 0.01}  # noqa: PLR2004


def _impatient(tier: TierState) -> TierState:
    scaling = tier.spec.scaling.model_copy(update={"max_step_up": _NO_STEP})
    return dataclasses.replace(tier, spec=tier.spec.model_copy(update={"scaling": scaling}))


def unseen(planned: Planned) -> list[str]:
    """Policies of which no demand is known, each with the reason of its first class."""
    found = []
    for key, policy in planned.snapshot.policies.items():
        arrivals = [traffic.arrivals_per_second for traffic in policy.traffic.values()]
        missing = [signal.reason for signal in arrivals if isinstance(signal, signals.Missing)]
        if arrivals and len(missing) == len(arrivals):
            found.append(f"{key} ({missing[0]})")
    return found


def wanted(planned: Planned, doubts: Sequence[findings.Finding]) -> side.Side:
    """The plan in numbers."""
    plan_ = planned.plan
    unkept = [finding.text() for finding in doubts]
    unkept += [f"{reason.policy}: {reason.message}" for reason in watch.broken(plan_)]
    return side.Side(
        usd_per_hour=plan_.prediction.usd_per_hour,
        attainment=None,
        quality_retention=plan_.prediction.quality_retention,
        latencies=[],
        replicas=_counted(plan_.replicas),
        shares=_shares(planned.snapshot, plan_.weights),
        checks=_budgets(planned.snapshot, plan_),
        unkept=unkept,
    )


def present(planned: Planned) -> side.Side | None:
    """What runs now in numbers; None where nothing shows it."""
    snapshot = planned.snapshot
    replicas = {
        VariantKey(tier.key, variant.name): variant.desired
        for tier in snapshot.tiers.values()
        for variant in tier.variants
    }
    if not any(replicas.values()):
        return None
    usd = economics.plan_usd_per_hour(snapshot, replicas) + cost.external_usd_per_hour(snapshot, {})
    weights = {key: policy.weights for key, policy in snapshot.policies.items()}
    return side.Side(
        usd_per_hour=usd,
        attainment=None,
        quality_retention=None,
        latencies=[],
        replicas=_counted(replicas),
        shares=_shares(snapshot, weights),
        checks=(),
        unkept=(),
    )


def details(planned: Planned) -> list[tuple[str, str]]:
    """Demand by class, the binding constraint, and the alternatives, as (name, text) pairs."""
    told = [
        (f"demand of {name}", _demand(found))
        for classes in planned.plan.demand.values()
        for name, found in classes.items()
    ]
    told += [
        (f"SLO met of {key} now", wording.percent(met, 1))
        for key, policy in planned.snapshot.policies.items()
        for met in (signals.known(policy.slo_attainment),)
        if met is not None
    ]
    used = wording.percent(planned.plan.prediction.utilisation)
    told.append(("busiest tier", f"{used} of what its replicas carry within the SLO"))
    told.append(("binding constraint", planned.first.binding or "none"))
    alternatives = planned.first.alternatives
    return told + [(one.name, f"{wording.usd(one.usd_per_hour)}/h, {one.why_not}") for one in alternatives]


def _demand(found: Sequence[inputs.Input]) -> str:
    """The inputs of one class in a line."""
    parts = []
    for one in found:
        age = wording.age(one.age_seconds)
        parts.append(f"{one.name} {wording.given(one)}" + (f" ({age or one.note})" if age or one.value is None else ""))
    return ", ".join(parts)


def _counted(replicas: Mapping[VariantKey, int]) -> dict[str, tuple[float, int]]:
    return {
        f"{key.tier.rpartition('/')[2]}/{key.variant}": (float(count), count) for key, count in sorted(replicas.items())
    }


def _shares(snapshot: Snapshot, weights: Mapping[PolicyKey, Weights]) -> dict[str, float]:
    """Share of all requests that the cache doesn't answer, by tier."""
    sent: dict[str, float] = {}
    for key, policy in snapshot.policies.items():
        for name, traffic in policy.traffic.items():
            for tier, share in weights.get(key, {}).get(name, {}).items():
                short = tier.rpartition("/")[2]
                sent[short] = sent.get(short, 0.0) + share * cost.missed_per_second(traffic)
    whole = sum(sent.values())
    return {tier: rate / whole for tier, rate in sorted(sent.items())} if whole else {}


def _budgets(snapshot: Snapshot, plan_: Plan) -> list[side.Check]:
    """Every policy's ceilings beside what its tiers would cost."""
    found: list[side.Check] = []
    for key, policy in snapshot.policies.items():
        own = {variant: count for variant, count in plan_.replicas.items() if variant.tier in policy.tiers}
        alone = dataclasses.replace(snapshot, policies={key: policy})
        usd = economics.plan_usd_per_hour(snapshot, own) + cost.external_usd_per_hour(alone, plan_.weights)
        found += side.budget_checks(key, policy.spec.budget, usd)
    return found
