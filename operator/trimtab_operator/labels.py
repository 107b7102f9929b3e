"""Labels and annotations that Trimtab puts on what it owns. One place, so that writers and readers agree."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_core.api import v1alpha1

GROUP = v1alpha1.GROUP
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "trimtab"
"""Field manager of every server-side apply, and value of ``MANAGED_BY``."""

TIER = f"{GROUP}/tier"
VARIANT = f"{GROUP}/variant"
POLICY = f"{GROUP}/policy"

EPOCH = f"{GROUP}/epoch"
"""Leader epoch of the last writer; a lower one must not write over it."""
TOLD = f"{GROUP}/replicas"
"""Replica count that we last wrote to a Deployment; another count in its spec is somebody's edit."""
DRAIN_SINCE = f"{GROUP}/drain-since"
"""On a pod: when it was told to leave, RFC 3339."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""On a pod: the ReplicaSet controller deletes the lowest first."""
TABLE = f"{GROUP}/table"
"""On router pods and routing tables: the table version; changing it on a pod makes its kubelet refresh the mount."""


def common(name: str, component: str) -> dict[str, str]:
    """The recommended labels of an object: ``name`` is the CR's, ``component`` what it is for."""
    return {
        "app.kubernetes.io/name": "trimtab",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        MANAGED_BY: MANAGER,
    }


def engine(tier: str, variant: str = "") -> dict[str, str]:
    """What selects the engine pods of a tier, or of one variant of it."""
    return {TIER: tier, VARIANT: variant} if variant else {TIER: tier}


def router(policy: str) -> dict[str, str]:
    """What selects the router pods of a policy."""
    return {POLICY: policy}


def selector(labels: Mapping[str, str]) -> str:
    """A label selector as the API takes it."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
