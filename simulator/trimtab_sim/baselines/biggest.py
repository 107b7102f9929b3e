"""Every request to the biggest model: what a team does that wants no routing at all.

It differs from the static peak on the best tiers only where a class may not use the tier of best quality; there it
ignores what the class allows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from trimtab_core import observation, units
from trimtab_core.api import v1alpha1

from trimtab_sim import world

NAME = "all-biggest"


def restrict(scenario: world.Scenario) -> world.Scenario:
    """The scenario with one tier in its policy, that of best quality, and every class allowed on it."""
    name = _biggest(scenario)

    def changed(policy: v1alpha1.RoutingPolicy) -> v1alpha1.RoutingPolicy:
        tiers = [tier for tier in policy.spec.tiers if tier.ref == name]
        classes = [each.model_copy(update={"allow": [name] if each.allow else []}) for each in policy.spec.classes]
        update = {"tiers": tiers, "classes": classes, "baseline_tier": None}
        return policy.model_copy(update={"spec": policy.spec.model_copy(update=update)})

    policies = tuple(
        changed(policy) if observation.key(policy.metadata) == scenario.policy_key else policy
        for policy in scenario.policies
    )
    return dataclasses.replace(scenario, policies=policies)


def differs(scenario: world.Scenario, classes: Iterable[str]) -> bool:
    """Whether one of these classes may not use the biggest model."""
    name, wanted = _biggest(scenario), set(classes)
    policy = next(one for one in scenario.policies if observation.key(one.metadata) == scenario.policy_key)
    return any(each.allow and name not in each.allow for each in policy.spec.classes if each.name in wanted)


def _biggest(scenario: world.Scenario) -> str:
    """Name of the policy's tier of best quality."""
    snapshot = world.first_look(scenario)
    known = [key for key in snapshot.policies[scenario.policy_key].tiers if key in snapshot.tiers]
    best = max(known, key=lambda key: (units.ratio(snapshot.tiers[key].spec.model.quality), key))
    return best.partition("/")[2]
