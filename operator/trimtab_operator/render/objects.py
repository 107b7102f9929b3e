"""The frame that every rendered object has: identity, labels, owner, and who wrote it."""

from __future__ import annotations

from typing import Any

from trimtab_core.api import v1alpha1

from trimtab_operator import labels

Manifest = dict[str, Any]
Owner = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy


def frame(api_version: str, kind: str, name: str, *, owner: Owner, component: str, epoch: int) -> Manifest:
    """An object without content, owned by a CR: deleting the CR deletes it, with no finalizer anywhere."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "labels": labels.common(owner.metadata.name, component),
            "annotations": {labels.EPOCH: str(epoch)},
            "ownerReferences": [owner_reference(owner)],
        },
    }


def owner_reference(owner: Owner) -> Manifest:
    """The reference that ties an object's life to its CR's."""
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid or "",
        "controller": True,
        "blockOwnerDeletion": False,
    }


def disruption_budget(name: str, selector: dict[str, str], *, owner: Owner, component: str, epoch: int) -> Manifest:
    """Lets one pod go at a time when nodes are drained."""
    budget = frame("policy/v1", "PodDisruptionBudget", name, owner=owner, component=component, epoch=epoch)
    budget["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
    return budget


def locked_down() -> Manifest:
    """A container security context that works for any image: no new privileges, no capabilities."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
