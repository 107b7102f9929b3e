"""Who writes the replica count, and how it is told. Pure.

Direct: the count stands in the Deployment. HPA and KEDA: it must not; they follow ``trimtab_replicas_wanted``
inside the variant's bounds, so that their own safety nets stay in force.
"""

from __future__ import annotations

from typing import Any

from trimtab_core import telemetry
from trimtab_core.api import v1alpha1

from trimtab_operator import labels
from trimtab_operator.render import names, objects

Manifest = dict[str, Any]

SCALED_OBJECT = "ScaledObject"
"""Optional kind: KEDA's."""
COMPONENT = "autoscaler"


def with_count(deployment: Manifest, count: int) -> Manifest:
    """The Deployment told how many replicas to run, and that we said so."""
    metadata = deployment["metadata"]
    annotations = {**metadata["annotations"], labels.TOLD: str(count)}
    return {
        **deployment,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {"replicas": count, **deployment["spec"]},
    }


def hpa(tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant, *, epoch: int) -> Manifest:
    """A HorizontalPodAutoscaler that follows the wanted count as an external metric, one replica per unit."""
    name = names.engines(tier.metadata.name, variant.name)
    made = objects.frame(
        "autoscaling/v2", "HorizontalPodAutoscaler", name, owner=tier, component=COMPONENT, epoch=epoch
    )
    metric = {
        "name": telemetry.REPLICAS_WANTED.name,
        "selector": {"matchLabels": {telemetry.TARGET: names.target(tier.metadata.namespace, name)}},
    }
    made["spec"] = {
        "scaleTargetRef": _target(name),
        "minReplicas": max(1, variant.replicas.min),
        "maxReplicas": max(1, variant.replicas.max),
        "metrics": [
            {
                "type": "External",
                "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "1"}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}, "scaleUp": {"stabilizationWindowSeconds": 0}},
    }
    return made


def scaled_object(
    tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant, *, prometheus_url: str, epoch: int
) -> Manifest:
    """A ScaledObject that follows the wanted count, and keeps the last one when Prometheus fails."""
    name = names.engines(tier.metadata.name, variant.name)
    made = objects.frame("keda.sh/v1alpha1", SCALED_OBJECT, name, owner=tier, component=COMPONENT, epoch=epoch)
    target = names.target(tier.metadata.namespace, name)
    query = f'max({telemetry.REPLICAS_WANTED.name}{{{telemetry.TARGET}="{target}"}})'
    made["spec"] = {
        "scaleTargetRef": _target(name),
        "minReplicaCount": variant.replicas.min,
        "maxReplicaCount": max(1, variant.replicas.max),
        "pollingInterval": 5,
        "cooldownPeriod": 0,
        "fallback": {"failureThreshold": 3, "replicas": max(1, variant.replicas.min), "behavior": "currentReplicas"},
        "triggers": [
            {
                "type": "prometheus",
                "metricType": "AverageValue",
                "metadata": {
                    "serverAddress": prometheus_url,
                    "query": query,
                    "threshold": "1",
                    "activationThreshold": "0",
                    "ignoreNullValues": "false",
                },
            }
        ],
    }
    return made


def cpu(target: str, bounds: tuple[int, int], *, owner: objects.Owner, percent: int, epoch: int) -> Manifest:
    """A HorizontalPodAutoscaler on a Deployment's own CPU, for routers."""
    made = objects.frame(
        "autoscaling/v2", "HorizontalPodAutoscaler", target, owner=owner, component=COMPONENT, epoch=epoch
    )
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}
    made["spec"] = {
        "scaleTargetRef": _target(target),
        "minReplicas": bounds[0],
        "maxReplicas": bounds[1],
        "metrics": [{"type": "Resource", "resource": usage}],
    }
    return made


def _target(name: str) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
