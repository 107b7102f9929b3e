"""What an API server shows, as an observation: lists in, values out. Pure; ``listing`` makes the lists.

Objects that can't be read are named and left alone, never treated as gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic
from trimtab_core import observation, recall
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase

from trimtab_operator import kube, labels

Object = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace and name."""

_GIVEN_UP = frozenset(
    {"CrashLoopBackOff", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "RunContainerError"}
)
"""Why a container waits that will not start by waiting."""

Own = TypeVar("Own", v1alpha1.InferenceTier, v1alpha1.RoutingPolicy, v1alpha1.CachePolicy)


@dataclass(frozen=True, slots=True)
class Lists:
    """What was listed, as JSON. ``children`` are all objects that Trimtab made, most of them by metadata alone.

    Attributes:
        nodes: labels of nodes by name.
        tenant_keys: per policy, hashes of tenants' keys.
        optional: kinds of other projects that the cluster serves.
    """

    tiers: Sequence[Object] = ()
    policies: Sequence[Object] = ()
    caches: Sequence[Object] = ()
    deployments: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    hpas: Sequence[Object] = ()
    scaled_objects: Sequence[Object] = ()
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tenant_keys: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    children: Mapping[Identity, Object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """An observation, and the CRs that could not be read: identity → why."""

    observation: observation.Observation
    unreadable: Mapping[Identity, str]


def read(lists: Lists) -> Read:
    """What the lists say."""
    unreadable: dict[Identity, str] = {}
    tiers = _parse(v1alpha1.InferenceTier, lists.tiers, unreadable)
    policies = _parse(v1alpha1.RoutingPolicy, lists.policies, unreadable)
    caches = _parse(v1alpha1.CachePolicy, lists.caches, unreadable)
    seen = observation.Observation(
        tiers=tiers,
        policies=policies,
        caches=caches,
        variants=_variants(lists),
        answers={},
        engines={},
        tenant_keys=lists.tenant_keys,
        routers=_routers(lists.pods),
        optional_kinds=lists.optional,
    )
    return Read(seen, unreadable)


def _parse(form: type[Own], found: Iterable[Object], unreadable: dict[Identity, str]) -> tuple[Own, ...]:
    """The objects in their typed form, sorted. A status that is not understood is dropped: it is ours to rewrite."""
    parsed: list[Own] = []
    for each in found:
        metadata = each.get("metadata", {})
        whole = {**each, "apiVersion": v1alpha1.API_VERSION, "kind": form.__name__}
        if metadata.get("deletionTimestamp"):
            continue
        try:
            parsed.append(form.model_validate(whole))
        except pydantic.ValidationError:
            try:
                parsed.append(form.model_validate({**whole, "status": {}}))
            except pydantic.ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                identity = (form.__name__, metadata.get("namespace", ""), metadata.get("name", ""))
                unreadable[identity] = f"{where}: {first['msg']}"
    return tuple(sorted(parsed, key=lambda one: (one.metadata.namespace, one.metadata.name)))


def _variants(lists: Lists) -> dict[VariantKey, observation.ObservedVariant]:
    """Every Deployment of engines with its pods."""
    pods: dict[VariantKey, list[Object]] = defaultdict(list)
    for pod in lists.pods:
        key = _variant_key(pod["metadata"])
        if key is not None and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded"):
            pods[key].append(pod)
    writers = _writers(lists)
    found: dict[VariantKey, observation.ObservedVariant] = {}
    for deployment in lists.deployments:
        metadata = deployment["metadata"]
        key = _variant_key(metadata)
        if key is None:
            continue
        told = metadata.get("annotations", {}).get(labels.TOLD)
        group = pods.get(key, [])
        found[key] = observation.ObservedVariant(
            desired=deployment.get("spec", {}).get("replicas"),
            replicas=tuple(sorted((replica(pod) for pod in group), key=lambda one: one.name)),
            external_scaler=writers.get((metadata["namespace"], metadata["name"]), ""),
            node_labels=_node_labels(group, lists.nodes),
            told=int(told) if told is not None and told.isdecimal() else None,
        )
    return found


def _variant_key(metadata: Object) -> VariantKey | None:
    """Which variant an object belongs to, by its labels."""
    given = metadata.get("labels", {})
    tier, variant = given.get(labels.TIER), given.get(labels.VARIANT)
    return VariantKey(f"{metadata['namespace']}/{tier}", variant) if tier and variant else None


def replica(pod: Object) -> observation.ObservedReplica:
    """One engine pod."""
    metadata, status = pod["metadata"], pod.get("status", {})
    ready: Object = next((one for one in status.get("conditions", ()) if one.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    leaving = metadata.get("deletionTimestamp") is not None
    marked = recall.epoch_seconds(metadata.get("annotations", {}).get(labels.DRAIN_SINCE))
    if leaving or marked is not None:
        phase = ReplicaPhase.DRAINING
    elif is_ready:
        phase = ReplicaPhase.READY
    else:
        phase = ReplicaPhase.FAILED if _has_given_up(status) else ReplicaPhase.PENDING
    address = status.get("podIP", "")
    return observation.ObservedReplica(
        name=metadata["name"],
        phase=phase,
        created_at=_began(metadata, status),
        ready_at=recall.epoch_seconds(ready.get("lastTransitionTime")) if is_ready else None,
        address=f"{address}:{_port(pod)}" if address else "",
        drain_since=None if leaving else marked,
    )


def _began(metadata: Object, status: Object) -> float:
    """When the start that is under way, or the last one, began: of the pod, or of a container that came up anew.

    Counted from the pod's creation, the first restart after a day would be a start that takes too long.
    """
    moments = [metadata.get("creationTimestamp")]
    for container in status.get("containerStatuses") or ():
        if container.get("restartCount"):
            moments.append((container.get("state", {}).get("running") or {}).get("startedAt"))
            moments.append((container.get("lastState", {}).get("terminated") or {}).get("finishedAt"))
    return max(recall.epoch_seconds(moment) or 0.0 for moment in moments)


def _has_given_up(status: Object) -> bool:
    """Whether a container waits for something that waiting will not bring."""
    return any(
        (container.get("state", {}).get("waiting") or {}).get("reason") in _GIVEN_UP
        for part in ("containerStatuses", "initContainerStatuses")
        for container in status.get(part) or ()
    )


def _port(pod: Object) -> int:
    """The engine's port: the one that is named, else the first."""
    ports = [port for one in pod.get("spec", {}).get("containers", ()) for port in one.get("ports") or ()]
    named = next((port for port in ports if port.get("name") == "http"), ports[0] if ports else {})
    return int(named.get("containerPort", 8000))


def _routers(pods: Iterable[Object]) -> dict[str, tuple[str, ...]]:
    """The ready routers of each policy."""
    found: dict[str, list[str]] = defaultdict(list)
    for pod in pods:
        metadata = pod["metadata"]
        policy = metadata.get("labels", {}).get(labels.POLICY)
        if policy and replica(pod).phase is ReplicaPhase.READY:
            found[f"{metadata['namespace']}/{policy}"].append(metadata["name"])
    return {policy: tuple(sorted(names)) for policy, names in found.items()}


def _writers(lists: Lists) -> dict[tuple[str, str], str]:
    """Autoscalers that are not ours, by the Deployment that they write to."""
    scaled = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): is_ours(one["metadata"])
        for one in lists.scaled_objects
    }
    found: dict[tuple[str, str], str] = {}
    for kind, each in (("HorizontalPodAutoscaler", lists.hpas), (kube.SCALED_OBJECTS.name, lists.scaled_objects)):
        for one in each:
            metadata, target = one["metadata"], one.get("spec", {}).get("scaleTargetRef", {})
            makers = [owner["name"] for owner in metadata.get("ownerReferences", ()) if owner["kind"] == "ScaledObject"]
            ours = is_ours(metadata) or any(scaled.get((metadata["namespace"], maker)) for maker in makers)
            if not ours and target.get("kind", "Deployment") == "Deployment" and target.get("name"):
                found.setdefault((metadata["namespace"], target["name"]), f"{kind} {metadata['name']}")
    return found


def is_ours(metadata: Object) -> bool:
    """Whether Trimtab made the object."""
    return bool(metadata.get("labels", {}).get(labels.MANAGED_BY) == labels.MANAGER)


def _node_labels(pods: Iterable[Object], nodes: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """The labels of a node that runs the variant; of the first by name, so that they don't change with the order."""
    used = sorted(name for pod in pods if (name := pod.get("spec", {}).get("nodeName")) in nodes)
    return nodes[used[0]] if used else {}
