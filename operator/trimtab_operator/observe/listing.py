"""Listing what an API server has. Everything is listed anew each cycle: a list can't miss what a watch lost."""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_core.routing import publish

from trimtab_operator import errors, kube, labels
from trimtab_operator.observe import kubernetes

Object = dict[str, Any]

DISCOVERY_SECONDS = 60.0
"""How long the kinds of other projects, nodes' labels and tenants' keys are taken as known."""
_OWNED = labels.selector({labels.MANAGED_BY: labels.MANAGER})


class Observer:
    """Lists what ``kubernetes.read`` needs.

    Args:
        api: the API server.
        namespaces: to look at; empty means all.
    """

    def __init__(self, api: kube.Kube, namespaces: Sequence[str] = ()) -> None:
        self._api = api
        self._namespaces = tuple(namespaces)
        self._known = kubernetes.Lists()
        self._known_until = 0.0
        self._keys_of: list[tuple[str, int | None]] = []

    async def look(self, now: float) -> kubernetes.Lists:
        """List everything. Raises errors.ClusterError."""
        expired = now >= self._known_until
        if expired:
            nodes, optional_kinds = await self._nodes(), await self._optional()
            self._known = dataclasses.replace(self._known, nodes=nodes, optional=optional_kinds)
        optional = self._known.optional
        watched = (*kube.OWN, kube.DEPLOYMENTS, kube.PODS, kube.HPAS)
        tiers, policies, caches, deployments, pods, hpas = await asyncio.gather(
            *(self._list(kind, selector=_OWNED if kind in (kube.DEPLOYMENTS, kube.PODS) else "") for kind in watched)
        )
        scaled = await self._list(kube.SCALED_OBJECTS) if kube.SCALED_OBJECTS.name in optional else []
        asked = [(each["metadata"]["uid"], each["metadata"].get("generation")) for each in policies]
        if expired or asked != self._keys_of:
            self._known = dataclasses.replace(self._known, tenant_keys=await self._tenant_keys(policies))
            self._keys_of = asked
        if expired:
            self._known_until = now + DISCOVERY_SECONDS
        children = await self._children(optional, {"Deployment": deployments, "HorizontalPodAutoscaler": hpas})
        return kubernetes.Lists(
            tiers, policies, caches, deployments, pods, hpas, scaled,
            self._known.nodes, self._known.tenant_keys, optional, children,
        )  # fmt: skip

    async def _children(
        self, optional: frozenset[str], listed: Mapping[str, Sequence[Object]]
    ) -> dict[kubernetes.Identity, Object]:
        """All objects that Trimtab made: those that were listed already, the others by metadata."""
        kinds = [*kube.CHILDREN, *(kind for kind in kube.OPTIONAL if kind.name in optional)]
        rest = [kind for kind in kinds if kind.name not in listed]
        found = await asyncio.gather(*(self._list(kind, selector=_OWNED, metadata_only=True) for kind in rest))
        groups = {**listed, **{kind.name: group for kind, group in zip(rest, found, strict=True)}}
        return {
            (kind, one["metadata"]["namespace"], one["metadata"]["name"]): one
            for kind, group in groups.items()
            for one in group
            if kubernetes.is_ours(one["metadata"])
        }

    async def _list(self, kind: kube.Kind, *, selector: str = "", metadata_only: bool = False) -> list[Object]:
        """All objects of a kind in scope. Raises errors.KindMissingError for one of ours that is not installed."""
        scopes = self._namespaces if self._namespaces and kind.namespaced else ("",)
        try:
            pages = await asyncio.gather(
                *(self._api.items(kind.path(scope), selector=selector, metadata_only=metadata_only) for scope in scopes)
            )
        except errors.NotFoundError as error:
            raise errors.KindMissingError(
                f"the API server serves no {kind.plural} of {kind.api_version}: kubectl apply --server-side -f crds/"
            ) from error
        return [one for page in pages for one in page]

    async def _nodes(self) -> dict[str, Mapping[str, str]]:
        """Labels of all nodes; none where a namespaced installation may not see them."""
        try:
            nodes = await self._list(kube.NODES, metadata_only=True)
        except errors.AccessDeniedError:
            return {}
        return {node["metadata"]["name"]: node["metadata"].get("labels", {}) for node in nodes}

    async def _optional(self) -> frozenset[str]:
        """Which kinds of other projects the API server serves."""
        found = set()
        for kind in kube.OPTIONAL:
            try:
                served = await self._api.get(f"/apis/{kind.api_version}")
            except (errors.NotFoundError, errors.AccessDeniedError):
                continue
            if any(resource.get("kind") == kind.name for resource in served.get("resources", ())):
                found.add(kind.name)
        return frozenset(found)

    async def _tenant_keys(self, policies: Sequence[Object]) -> dict[str, dict[str, tuple[str, ...]]]:
        """Hashes of tenants' keys, per policy; a tenant whose Secret can't be read has none."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for policy in policies:
            namespace = policy["metadata"]["namespace"]
            hashes = found.setdefault(f"{namespace}/{policy['metadata']['name']}", {})
            for tenant in policy.get("spec", {}).get("tenants", {}).get("known") or ():
                first, further = tenant.get("apiKeySecretRef"), tenant.get("furtherKeySecretRefs") or ()
                references = [reference for reference in (first, *further) if reference]
                texts = [await self._secret(namespace, reference) for reference in references]
                if any(texts):
                    hashes[tenant["name"]] = tuple(publish.key_hash(text) for text in texts if text)
        return found

    async def _secret(self, namespace: str, reference: Object) -> str:
        """One key of a Secret; empty if it is not there, not ours to read, or not text."""
        try:
            secret = await self._api.get(kube.SECRETS.path(namespace, reference["name"]))
            return base64.b64decode(secret.get("data", {}).get(reference["key"], "")).decode().strip()
        except (errors.NotFoundError, errors.AccessDeniedError, binascii.Error, UnicodeDecodeError):
            return ""
