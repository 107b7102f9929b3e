"""A tier as Kubernetes objects: a Deployment per variant, its disruption budget, one Service. Pure.

The pod template depends on the spec alone, never on what was learned or planned: another number of replicas must
not restart engines. Facts about vLLM's life cycle are from its 0.32 release as measured on CPU.
"""

from __future__ import annotations

import math
from typing import Any

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import accelerators, profiles

from trimtab_operator import labels
from trimtab_operator.render import names, objects, patch

Manifest = dict[str, Any]

COMPONENT = "engine"
CONTAINER = "engine"
PORT_NAME = "http"
LET_GO_SECONDS = 5
"""preStop: endpoints and tables that still name the pod are given this long to let go; vLLM serves meanwhile."""
SHUTDOWN_MARGIN_SECONDS = 15
"""vLLM was gone up to 3 s after its --shutdown-timeout; the kubelet must not kill it before."""
LONGEST_LOAD_SECONDS = 3600
"""A large model from a cold registry and slow disk takes half an hour; only then does a start count as failed."""
STARTUP_PERIOD_SECONDS = 2


def render(tier: v1alpha1.InferenceTier, *, epoch: int) -> list[Manifest]:
    """All objects of a tier but for its replica counts; nothing for an external one."""
    if not tier.spec.variants:
        return []
    rendered = [_service(tier, epoch)]
    for variant in tier.spec.variants:
        name = names.engines(tier.metadata.name, variant.name)
        selector = labels.engine(tier.metadata.name, variant.name)
        rendered.append(deployment(tier, variant, epoch=epoch))
        rendered.append(objects.disruption_budget(name, selector, owner=tier, component=COMPONENT, epoch=epoch))
    return rendered


def deployment(tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant, *, epoch: int) -> Manifest:
    """The Deployment of one variant, without a replica count."""
    selector = labels.engine(tier.metadata.name, variant.name)
    name = names.engines(tier.metadata.name, variant.name)
    made = objects.frame("apps/v1", "Deployment", name, owner=tier, component=COMPONENT, epoch=epoch)
    made["metadata"]["labels"] |= selector
    template: Manifest = {
        "metadata": {
            "labels": {**labels.common(tier.metadata.name, COMPONENT), **selector},
            "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
        },
        "spec": _pod(tier, variant),
    }
    made["spec"] = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "progressDeadlineSeconds": LONGEST_LOAD_SECONDS + 600,
        "revisionHistoryLimit": 3,
        "template": patch.merge(template, tier.spec.engine.pod_template or {}),
    }
    return made


def arguments(tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant) -> list[str]:
    """The command line of vLLM: what Trimtab relies on first, then the tier's and the variant's own arguments."""
    model = tier.spec.model
    given = variant.profile.max_sequences if variant.profile else None
    rendered = {
        "--model": (model.source or model.name).removeprefix("hf://"),
        "--served-model-name": model.name,
        "--port": str(tier.spec.engine.port),
        "--max-num-seqs": str(given or profiles.DEFAULT_MAX_SEQUENCES),
        "--tensor-parallel-size": str(variant.accelerator.count),
        "--shutdown-timeout": str(drain_seconds(tier)),
    }
    if variant.quantization:
        rendered["--quantization"] = variant.quantization
    own = [*tier.spec.engine.args, *variant.args]
    return [
        *(word for flag, value in rendered.items() for word in (flag, value)),
        "--enable-prompt-tokens-details",
        "--enable-request-id-headers",
        *own,
    ]


def drain_seconds(tier: v1alpha1.InferenceTier) -> int:
    """How long requests in flight may take to finish, whole seconds."""
    return math.ceil(units.duration_seconds(tier.spec.drain.timeout))


def _pod(tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant) -> Manifest:
    """The pod: one engine, on a machine that has its accelerators, with time to load and time to leave."""
    tolerations = [{"key": _resource(variant), "operator": "Exists", "effect": "NoSchedule"}, *variant.tolerations]
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": LET_GO_SECONDS + drain_seconds(tier) + SHUTDOWN_MARGIN_SECONDS,
        "tolerations": tolerations,
        "containers": [_container(tier, variant)],
        "volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
    }
    if variant.node_selector:
        pod["nodeSelector"] = dict(variant.node_selector)
    affinity = _affinity(variant)
    if affinity:
        pod["affinity"] = {"nodeAffinity": affinity}
    return pod


def _container(tier: v1alpha1.InferenceTier, variant: v1alpha1.Variant) -> Manifest:
    engine = tier.spec.engine
    health = {"httpGet": {"path": "/health", "port": PORT_NAME}}
    return {
        "name": CONTAINER,
        "image": engine.image,
        "args": arguments(tier, variant),
        "env": [variable.to_dict() for variable in engine.env],
        "ports": [{"name": PORT_NAME, "containerPort": engine.port}],
        "resources": {"limits": {_resource(variant): str(variant.accelerator.count)}},
        # The port refuses until the model is loaded; only then do the other two probes begin.
        "startupProbe": {
            **health,
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 2,
            "failureThreshold": LONGEST_LOAD_SECONDS // STARTUP_PERIOD_SECONDS,
        },
        "readinessProbe": {**health, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": LET_GO_SECONDS}}},
        "securityContext": objects.locked_down(),
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],  # noqa: S108 (tensor parallel workers talk there)
    }


def _resource(variant: v1alpha1.Variant) -> str:
    """The extended resource that nodes offer for this accelerator."""
    known = accelerators.find(variant.accelerator.type)
    return known.resource if known else accelerators.NVIDIA_RESOURCE


def _affinity(variant: v1alpha1.Variant) -> Manifest:
    """Nodes that any of the catalogue's label sets names; empty for an accelerator that it does not know."""
    known = accelerators.find(variant.accelerator.type)
    if known is None:
        return {}
    terms = [
        {
            "matchExpressions": [
                {"key": label, "operator": "In", "values": sorted(values)} for label, values in sorted(selector.items())
            ]
        }
        for selector in known.selectors
    ]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _service(tier: v1alpha1.InferenceTier, epoch: int) -> Manifest:
    """A headless Service, for people and monitors; routers know the replicas from their table."""
    name = names.engine_service(tier.metadata.name)
    service = objects.frame("v1", "Service", name, owner=tier, component=COMPONENT, epoch=epoch)
    service["metadata"]["labels"] |= labels.engine(tier.metadata.name)
    service["spec"] = {
        "clusterIP": "None",
        "selector": labels.engine(tier.metadata.name),
        "ports": [{"name": PORT_NAME, "port": tier.spec.engine.port, "targetPort": PORT_NAME}],
    }
    return service
