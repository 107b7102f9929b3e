"""A policy's router as Kubernetes objects: a Deployment and a Service, or a sidecar for other pods. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import fields
from trimtab_core.routing import publish, publish_tenants

from trimtab_operator import labels
from trimtab_operator.render import names, objects, patch, scalers, table

Manifest = dict[str, Any]

COMPONENT = "router"
CONTAINER = "router"
PORT_NAME = "http"
ADMIN_PORT_NAME = "admin"
ADMIN_PORT = 8081
LET_GO_SECONDS = 5
"""preStop: endpoint slices that still name the pod are given this long to let go."""
LONGEST_DRAIN_SECONDS = 600
SHUTDOWN_MARGIN_SECONDS = 10
CPU_PERCENT = 60
"""A router is CPU-bound; more routers before latency suffers."""
SNIPPET = "pod.json"
EVERYWHERE = "0.0.0.0"  # noqa: S104 (a pod is called on its own address)
RESOURCES = {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
SIDECAR_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
"""A router at rest has about 33 MiB resident; the rest is for bodies and cached answers."""


def render(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier], *, epoch: int) -> list[Manifest]:
    """All objects of a policy's router but for its table.

    Args:
        policy: the object.
        tiers: its tiers by name, for the keys of external ones.
        epoch: of the leader.
    """
    if policy.spec.router.mode is v1alpha1.RouterMode.SIDECAR:
        return [_sidecar(policy, tiers, epoch)]
    name = names.router(policy.metadata.name)
    selector = labels.router(policy.metadata.name)
    bounds = policy.spec.router.replicas
    deployment = _deployment(policy, tiers, epoch)
    rendered = [
        _service(policy, epoch),
        objects.disruption_budget(name, selector, owner=policy, component=COMPONENT, epoch=epoch),
    ]
    if bounds.max > bounds.min:
        limits = (bounds.min, bounds.max)
        rendered.append(scalers.cpu(name, limits, owner=policy, percent=CPU_PERCENT, epoch=epoch))
    else:
        deployment = scalers.with_count(deployment, bounds.min)
    return [*rendered, deployment]


def container(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier]) -> Manifest:
    """The router's container; in a Deployment, or as a sidecar, which only its own pod can call."""
    router = policy.spec.router
    sidecar = router.mode is v1alpha1.RouterMode.SIDECAR
    ready = {"httpGet": {"path": "/readyz", "port": ADMIN_PORT_NAME}}
    alive = {"httpGet": {"path": "/healthz", "port": ADMIN_PORT_NAME}}
    made: Manifest = {
        "name": CONTAINER,
        "image": router.image,
        "args": [
            "router",
            *("--table", f"{table.FOLDER}/{table.FILE}"),
            *("--host", "127.0.0.1" if sidecar else EVERYWHERE),
            # Probes and Prometheus call it from outside the pod; its views answer callers inside alone.
            *("--admin-host", EVERYWHERE),
            *("--port", str(router.port)),
            *("--admin-port", str(ADMIN_PORT)),
            *("--drain-seconds", str(drain_seconds(policy))),
            *_telling(policy),
        ],
        "ports": [
            {"name": PORT_NAME, "containerPort": router.port},
            {"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT},
        ],
        "resources": router.resources or (SIDECAR_RESOURCES if sidecar else RESOURCES),
        "startupProbe": {**alive, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": LET_GO_SECONDS}}},
        "securityContext": {**objects.locked_down(), "runAsNonRoot": True, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "table", "mountPath": table.FOLDER, "readOnly": True}],
    }
    if _keys(policy, tiers):
        made["volumeMounts"].append({"name": "keys", "mountPath": publish.KEY_FOLDER, "readOnly": True})
    return made


def _telling(policy: v1alpha1.RoutingPolicy) -> list[str]:
    """Arguments for what the router tells of single requests; by default nothing."""
    router = policy.spec.router
    made = ["--access-log"] if router.access_log else []
    if router.otlp_endpoint is not None:
        made += ["--otlp-endpoint", router.otlp_endpoint, "--otlp-ratio", str(router.otlp_ratio)]
    return made


def volumes(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier]) -> list[Manifest]:
    """The router's volumes: its table, and the keys of external tiers. A router starts without either."""
    table_map = {"name": names.table(policy.metadata.name), "optional": True}
    made: list[Manifest] = [{"name": "table", "configMap": table_map}]
    keys = _keys(policy, tiers)
    if keys:
        made.append({"name": "keys", "projected": {"sources": keys}})
    return made


def drain_seconds(policy: v1alpha1.RoutingPolicy) -> int:
    """How long requests under way may go on after SIGTERM: as long as any request may take, within reason."""
    return min(LONGEST_DRAIN_SECONDS, math.ceil(units.duration_seconds(policy.spec.resilience.total_timeout)))


def _keys(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier]) -> list[Manifest]:
    """One file per external tier with a key, named like the tier, and those that tenants' limits need."""
    tenants = policy.spec.tenants
    named = (
        (tenants.salt_secret_ref, publish_tenants.SALT_FILE),
        (tenants.store.password_secret_ref, publish_tenants.STORE_PASSWORD_FILE),
    )
    found = [_key_file(secret, path) for secret, path in named if secret is not None]
    for reference in policy.spec.tiers:
        tier = tiers.get(reference.ref)
        secret = tier.spec.external.api_key_secret_ref if tier and tier.spec.external else None
        if secret:
            found.append(_key_file(secret, reference.ref))
    return found


def _key_file(secret: fields.SecretKeyRef, path: str) -> Manifest:
    return {"secret": {"name": secret.name, "items": [{"key": secret.key, "path": path}], "optional": True}}


def _deployment(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier], epoch: int) -> Manifest:
    name = names.router(policy.metadata.name)
    selector = labels.router(policy.metadata.name)
    made = objects.frame("apps/v1", "Deployment", name, owner=policy, component=COMPONENT, epoch=epoch)
    made["metadata"]["labels"] |= selector
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }
    template: Manifest = {
        "metadata": {
            "labels": {**labels.common(policy.metadata.name, COMPONENT), **selector},
            "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": LET_GO_SECONDS + drain_seconds(policy) + SHUTDOWN_MARGIN_SECONDS,
            "topologySpreadConstraints": [spread],
            "containers": [container(policy, tiers)],
            "volumes": volumes(policy, tiers),
        },
    }
    made["spec"] = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 3,
        "template": patch.merge(template, policy.spec.router.pod_template or {}),
    }
    return made


def _service(policy: v1alpha1.RoutingPolicy, epoch: int) -> Manifest:
    """What clients call."""
    name = names.router(policy.metadata.name)
    service = objects.frame("v1", "Service", name, owner=policy, component=COMPONENT, epoch=epoch)
    service["metadata"]["labels"] |= labels.router(policy.metadata.name)
    service["spec"] = {
        "selector": labels.router(policy.metadata.name),
        "ports": [{"name": PORT_NAME, "port": policy.spec.router.port, "targetPort": PORT_NAME}],
    }
    return service


def _sidecar(policy: v1alpha1.RoutingPolicy, tiers: dict[str, v1alpha1.InferenceTier], epoch: int) -> Manifest:
    """What makes the router a native sidecar of other pods: an init container that goes on, and its volumes."""
    native = {**container(policy, tiers), "restartPolicy": "Always"}
    snippet = {
        "metadata": {"labels": labels.router(policy.metadata.name)},
        "spec": {"initContainers": [native], "volumes": volumes(policy, tiers)},
    }
    made = objects.frame(
        "v1", "ConfigMap", names.sidecar(policy.metadata.name), owner=policy, component="sidecar", epoch=epoch
    )
    made["metadata"]["labels"] |= labels.router(policy.metadata.name)
    made["data"] = {SNIPPET: json.dumps(snippet, indent=2, sort_keys=True)}
    return made
