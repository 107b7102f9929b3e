"""From specs and plan to Kubernetes objects: pure functions, tested against golden YAML.

``render`` gives everything that should exist, in the order in which it must be applied: tables first, so that
routers stop sending before anything leaves; then marks on pods that leave; Deployments, with their counts, last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_core import observation, recall
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing.table import RoutingTable
from trimtab_core.snapshot import PolicyKey

from trimtab_operator import drain, labels
from trimtab_operator.render import monitors, names, router, scalers, table, tier

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What objects are made from.

    Attributes:
        seen: the CRs, and which optional kinds the cluster serves.
        step: replica counts and marks of this cycle.
        tables: the routing table of every policy.
        epoch: of the leader; an annotation on every object.
        prometheus_url: for ScaledObjects.
    """

    seen: observation.Observation
    step: drain.Step
    tables: Mapping[PolicyKey, RoutingTable]
    epoch: int
    prometheus_url: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What should exist, in order of application, and what could not be rendered: ``Kind namespace/name`` → why."""

    objects: list[Manifest]
    refused: Mapping[str, str]


def render(inputs: Inputs) -> Rendered:
    """All objects that should exist."""
    tables: list[Manifest] = []
    refused: dict[str, str] = {}
    for policy in inputs.seen.policies:
        key = observation.key(policy.metadata)
        try:
            tables.append(table.render(policy, inputs.tables[key], epoch=inputs.epoch))
        except table.TooLargeError as error:
            refused[f"ConfigMap {policy.metadata.namespace}/{names.table(policy.metadata.name)}"] = str(error)
    rest = [
        *(made for policy in inputs.seen.policies for made in _policy(policy, inputs)),
        *(made for each in inputs.seen.tiers for made in _tier(each, inputs)),
    ]
    marks = [_mark(mark) for mark in inputs.step.marks]
    return Rendered([*tables, *marks, *sorted(rest, key=lambda made: made["kind"] == "Deployment")], refused)


def _policy(policy: v1alpha1.RoutingPolicy, inputs: Inputs) -> list[Manifest]:
    namespace = policy.metadata.namespace
    tiers = {each.metadata.name: each for each in inputs.seen.tiers if each.metadata.namespace == namespace}
    rendered = router.render(policy, tiers, epoch=inputs.epoch)
    if monitors.POD_MONITOR in inputs.seen.optional_kinds:
        rendered.append(monitors.routers(policy, names.router(policy.metadata.name), epoch=inputs.epoch))
    return rendered


def _tier(each: v1alpha1.InferenceTier, inputs: Inputs) -> list[Manifest]:
    rendered = tier.render(each, epoch=inputs.epoch)
    if rendered and monitors.POD_MONITOR in inputs.seen.optional_kinds:
        rendered.append(monitors.engines(each, names.engine_service(each.metadata.name), epoch=inputs.epoch))
    for variant in each.spec.variants:
        rendered = _scaled(each, variant, rendered, inputs)
    return rendered


def _scaled(
    each: v1alpha1.InferenceTier, variant: v1alpha1.Variant, rendered: list[Manifest], inputs: Inputs
) -> list[Manifest]:
    """The objects with the variant's count in its Deployment, or with the autoscaler that follows it instead.

    A Deployment that somebody else scales gets neither.
    """
    key = VariantKey(observation.key(each.metadata), variant.name)
    seen = inputs.seen.variants.get(key)
    if seen and seen.external_scaler:
        return rendered
    match each.spec.scaling.actuator:
        case v1alpha1.Actuator.HPA:
            return [*rendered, scalers.hpa(each, variant, epoch=inputs.epoch)]
        case v1alpha1.Actuator.KEDA if scalers.SCALED_OBJECT in inputs.seen.optional_kinds:
            made = scalers.scaled_object(each, variant, prometheus_url=inputs.prometheus_url, epoch=inputs.epoch)
            return [*rendered, made]
        case _:
            name = names.engines(each.metadata.name, variant.name)
            count = inputs.step.scale.get(key, 0)
            return [
                scalers.with_count(made, count)
                if made["kind"] == "Deployment" and made["metadata"]["name"] == name
                else made
                for made in rendered
            ]


def _mark(mark: drain.Mark) -> Manifest:
    """A pod's annotations: told to leave since when and how cheap it is to lose, or neither any more."""
    since = None if mark.since is None else recall.rfc3339(mark.since)
    cost = None if mark.since is None else str(mark.deletion_cost)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": mark.replica,
            "namespace": mark.key.tier.partition("/")[0],
            "annotations": {labels.DRAIN_SINCE: since, labels.DELETION_COST: cost},
        },
    }
