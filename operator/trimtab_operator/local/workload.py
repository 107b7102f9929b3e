"""Reading rendered objects: which programs a set of Deployments and ConfigMaps asks this machine to run. Pure.

Knows the shapes of ``render`` and nothing of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import PolicyKey

from trimtab_operator import labels
from trimtab_operator.local import failures

Manifest = dict[str, Any]
"""One rendered object, as ``reconcile.Manifest``."""

_KUBERNETES_GRACE_SECONDS = 30


class Role(StrEnum):
    """What a workload's container is."""

    ENGINE = "engine"
    ROUTER = "router"


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """One Deployment, as far as it concerns a machine that runs its containers as processes.

    Attributes:
        replicas: wanted count; None where an autoscaler would write it.
        variant: what an engine serves; None for routers.
        policy: what a router serves; empty for engines.
        args, environment: of the container, as rendered.
        configs: ConfigMap name by the folder that it is mounted at.
        grace_seconds: that a pod gets to end.
        digest: of the pod template; another digest means another generation of replicas.
    """

    namespace: str
    name: str
    role: Role
    replicas: int | None
    variant: VariantKey | None
    policy: PolicyKey
    image: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    configs: Mapping[str, str]
    grace_seconds: float
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def read(objects: Iterable[Manifest]) -> dict[tuple[str, str], Workload]:
    """The workloads of all Deployments, by namespace and name. Raises CannotRunError for one that is neither kind."""
    found = [_read_deployment(manifest) for manifest in objects if manifest["kind"] == "Deployment"]
    return {workload.key: workload for workload in found}


def marks(objects: Iterable[Manifest]) -> dict[str, dict[str, str | None]]:
    """What pods are told: the annotations of Pod manifests, by pod name; None takes one away."""
    return {
        manifest["metadata"]["name"]: dict(manifest["metadata"].get("annotations") or {})
        for manifest in objects
        if manifest["kind"] == "Pod"
    }


def routed_names(objects: Iterable[Manifest]) -> set[str]:
    """Names of all replicas that the routing tables among the ConfigMaps send requests to."""
    names: set[str] = set()
    for manifest in objects:
        if manifest["kind"] != "ConfigMap":
            continue
        for text in manifest.get("data", {}).values():
            try:
                table = tables.decode(text.encode())
            except tables.TableError:
                continue
            names |= {end.name for tier in table.tiers for end in tier.endpoints if end.state == "Ready"}
    return names


def _read_deployment(manifest: Manifest) -> Workload:
    """One Deployment."""
    metadata, spec = manifest["metadata"], manifest["spec"]
    template = spec["template"]
    namespace, pod = metadata.get("namespace", "default"), template["spec"]
    told = {**(metadata.get("labels") or {}), **(template["metadata"].get("labels") or {})}
    role, variant, policy = _role(f"Deployment {namespace}/{metadata['name']}", namespace, told)
    container = pod["containers"][0]
    return Workload(
        namespace=namespace,
        name=metadata["name"],
        role=role,
        replicas=spec.get("replicas"),
        variant=variant,
        policy=policy,
        image=container["image"],
        args=tuple(container.get("args") or ()),
        environment={one["name"]: one["value"] for one in container.get("env") or () if "value" in one},
        configs=_configs(pod, container),
        grace_seconds=float(pod.get("terminationGracePeriodSeconds", _KUBERNETES_GRACE_SECONDS)),
        digest=hashlib.sha256(json.dumps(pod, sort_keys=True).encode()).hexdigest()[:12],
    )


def _role(where: str, namespace: str, told: Mapping[str, str]) -> tuple[Role, VariantKey | None, PolicyKey]:
    """What a Deployment is for, by its labels."""
    if labels.VARIANT in told and labels.TIER in told:
        return Role.ENGINE, VariantKey(f"{namespace}/{told[labels.TIER]}", told[labels.VARIANT]), ""
    if labels.POLICY in told:
        return Role.ROUTER, None, f"{namespace}/{told[labels.POLICY]}"
    raise failures.CannotRunError(
        f"{where} is neither an engine nor a router: its labels name no variant and no policy"
    )


def _configs(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, str]:
    """Folder → ConfigMap name, for the container's mounts."""
    sources = {
        volume["name"]: volume["configMap"]["name"] for volume in pod.get("volumes") or () if "configMap" in volume
    }
    mounts = container.get("volumeMounts") or ()
    return {mount["mountPath"]: sources[mount["name"]] for mount in mounts if mount["name"] in sources}
