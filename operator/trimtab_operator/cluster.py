"""The cluster port on a real API server: observes, applies, writes status and Events."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab_core import observation, recall
from trimtab_core.api import v1alpha1

from trimtab_operator import apply, errors, kube, labels
from trimtab_operator.observe import kubernetes, listing

Manifest = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace and name."""

Own = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy | v1alpha1.CachePolicy

log = logging.getLogger(__name__)


class KubernetesCluster:
    """Implements ``reconcile.Cluster`` for one leader.

    Args:
        api: the API server.
        namespaces: to look after; empty means all.
        epoch: of this leader.
        resync_seconds: how long an object may go without being applied again.
        clock: gives epoch seconds.
    """

    def __init__(
        self,
        api: kube.Kube,
        *,
        namespaces: Sequence[str],
        epoch: int,
        resync_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._clock = clock
        self._observer = listing.Observer(api, namespaces)
        self._applier = apply.Applier(api, epoch=epoch, resync_seconds=resync_seconds)
        self._world = apply.World({}, frozenset())
        self._uids: dict[Identity, str] = {}
        self.unreadable: Mapping[Identity, str] = {}

    async def observe(self) -> observation.Observation:
        """The objects and replicas of all namespaces in scope. Raises errors.ClusterError."""
        lists = await self._observer.look(self._clock())
        found = kubernetes.read(lists)
        if found.unreadable != self.unreadable:
            for (kind, namespace, name), why in sorted(found.unreadable.items()):
                log.error("can't read %s %s/%s: %s", kind, namespace, name, why)
        self.unreadable = found.unreadable
        seen = found.observation
        every: list[Own] = [*seen.tiers, *seen.policies, *seen.caches]
        self._uids = {
            (each.kind, each.metadata.namespace, each.metadata.name): each.metadata.uid or "" for each in every
        }
        self._world = apply.World(lists.children, frozenset(self._uids.values()), _router_pods(lists.pods))
        return seen

    async def apply(self, objects: Sequence[Manifest]) -> None:
        """Make the objects so, and remove what is no longer rendered; see ``apply.Applier``."""
        await self._applier.apply(objects, self._world, self._clock())

    async def write_status(self, statuses: Mapping[Identity, Manifest]) -> None:
        """Write statuses; an object that is gone needs none."""
        await asyncio.gather(*(self._write_one(about, status) for about, status in statuses.items()))

    async def _write_one(self, about: Identity, status: Manifest) -> None:
        kind, namespace, name = about
        body = {
            "apiVersion": v1alpha1.API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "uid": self._uids.get(about) or None},
            "status": status,
        }
        try:
            await self._api.apply(kube.KINDS[kind].path(namespace, name, "status"), body)
        except (errors.NotFoundError, errors.ConflictError):
            log.info("status not written: the object is gone", extra={"object": "/".join(about)})
        except errors.RefusedError as error:
            log.error("status of %s refused: %s", "/".join(about), error)  # noqa: TRY400 (the line says it all)

    async def emit_event(self, about: Identity, reason: str, message: str, *, warning: bool) -> None:
        """Tell people of one decision; an Event that can't be written is only logged."""
        kind, namespace, name = about
        at = recall.rfc3339(int(self._clock()))
        digest = hashlib.sha256(f"{self._uids.get(about)}{reason}{message}{at}".encode()).hexdigest()[:16]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": v1alpha1.API_VERSION,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "uid": self._uids.get(about, ""),
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": labels.MANAGER},
            "reportingComponent": f"{labels.GROUP}/operator",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self._api.create(kube.EVENTS.path(namespace), event)
        except errors.ClusterError as error:
            log.info("event not written: %s", error)


def _router_pods(pods: Sequence[Manifest]) -> dict[tuple[str, str], list[str]]:
    """Router pods by (namespace, policy name), those that start included: they mount the table too."""
    found: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        policy = metadata.get("labels", {}).get(labels.POLICY)
        if policy and not metadata.get("deletionTimestamp"):
            found.setdefault((metadata["namespace"], policy), []).append(metadata["name"])
    return found
