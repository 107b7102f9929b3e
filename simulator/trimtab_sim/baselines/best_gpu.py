"""The best single type of GPU, with perfect hindsight of the type: Trimtab itself on a fleet of one type.

Routing, planning and cache are Trimtab's own; all that differs is that each variant of another accelerator is gone,
so what is left of the difference is what mixing types saves. The variants that remain may have as many replicas as
they need, on demand or not, since the fleet has lost the others; external tiers stay. A type that does not run the
best tier of every class that gets requests is no choice: quality is kept relative to that. The type that keeps the SLO
for the least money is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from trimtab_core import observation
from trimtab_core.api import v1alpha1
from trimtab_core.snapshot import TierState

from trimtab_sim import control, world
from trimtab_sim.baselines import routes

PLENTY = 1000
"""Replicas that a variant may have: more than any scenario needs."""


class BestGpu(control.Trimtab):
    """Trimtab on one type of accelerator.

    Args:
        accelerator: the type, such as ``H100``.
    """

    name = "best-gpu"

    def __init__(self, accelerator: str) -> None:
        super().__init__()
        self.settings = f"Trimtab on {accelerator} alone"


def types(scenario: world.Scenario, classes: Iterable[str]) -> tuple[str, ...]:
    """Accelerators on which alone every one of these classes can be served as well as ever, sorted.

    Args:
        scenario: with tiers of several variants.
        classes: that get requests.
    """
    snapshot = world.first_look(scenario)
    best = routes.best_tiers(snapshot)[scenario.policy_key]
    needed = {tier for name in classes for tier in best.get(name, {})}
    found = {variant.spec.accelerator.type for tier in snapshot.tiers.values() for variant in tier.variants}
    return tuple(
        accelerator
        for accelerator in sorted(found)
        if needed and all(_runs(snapshot.tiers[key], accelerator) for key in needed)
    )


def _runs(tier: TierState, accelerator: str) -> bool:
    return not tier.variants or any(
        variant.spec.accelerator.type == accelerator and variant.spec.replicas.max > 0 for variant in tier.variants
    )


def restrict(scenario: world.Scenario, accelerator: str) -> world.Scenario:
    """The scenario without variants of any other type; tiers that have none left are gone from tiers and policies."""
    kept = {
        observation.key(tier.metadata): left
        for tier in scenario.tiers
        for left in (_only(tier, accelerator),)
        if left is not None
    }
    policies = tuple(_without_gone_tiers(policy, kept) for policy in scenario.policies)
    return dataclasses.replace(scenario, tiers=tuple(kept.values()), policies=policies)


def _only(tier: v1alpha1.InferenceTier, accelerator: str) -> v1alpha1.InferenceTier | None:
    """The tier with the variants of one type; None if it has none. External tiers stay as they are."""
    if tier.spec.external is not None:
        return tier
    variants = [
        variant.model_copy(update={"replicas": variant.replicas.model_copy(update={"max": PLENTY})})
        for variant in tier.spec.variants
        if variant.accelerator.type == accelerator and variant.replicas.max > 0
    ]
    if not variants:
        return None
    return tier.model_copy(update={"spec": tier.spec.model_copy(update={"variants": variants})})


def _without_gone_tiers(
    policy: v1alpha1.RoutingPolicy, kept: Mapping[str, v1alpha1.InferenceTier]
) -> v1alpha1.RoutingPolicy:
    """The policy over the tiers that are left; a class of which none is left keeps its names, and gets no requests."""
    namespace = policy.metadata.namespace
    tiers = [tier for tier in policy.spec.tiers if f"{namespace}/{tier.ref}" in kept]
    classes = []
    for each in policy.spec.classes:
        allow = [name for name in each.allow if f"{namespace}/{name}" in kept]
        classes.append(each.model_copy(update={"allow": allow or each.allow}))
    baseline = policy.spec.baseline_tier if f"{namespace}/{policy.spec.baseline_tier}" in kept else None
    spec = policy.spec.model_copy(update={"tiers": tiers, "classes": classes, "baseline_tier": baseline})
    return policy.model_copy(update={"spec": spec})
