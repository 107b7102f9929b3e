"""Making a cluster as rendered: server-side apply of what changed, marks on pods, and removal of what is no longer.

An object is sent when its rendering differs from the last one sent, when somebody touched it since, or when a resync
is due; otherwise a cycle with nothing to do costs no call. Nothing that another owner controls is ever taken over, and
a write by a leader of a higher epoch ends this one's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_operator import errors, kube, labels
from trimtab_operator.render import table

Manifest = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace and name."""

HAND_OVER = "trimtab-handover"
"""Field manager that keeps a replica count in place while an autoscaler takes over from us."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sent:
    """What was last sent of one object, what it looked like afterwards, and when (epoch seconds)."""

    digest: str
    version: str
    at: float


@dataclass(frozen=True, slots=True)
class World:
    """What the cluster showed before this write.

    Attributes:
        children: all objects that Trimtab made.
        owners: uids of the CRs that were read: only their objects may be removed.
        routers: names of router pods by (namespace, policy name).
    """

    children: Mapping[Identity, Manifest]
    owners: Collection[str]
    routers: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)


class Applier:
    """Writes for one leader.

    Args:
        api: the API server.
        epoch: of this leader; a higher one in any object means that it was deposed.
        resync_seconds: how long an object may go without being sent.
    """

    def __init__(self, api: kube.Kube, *, epoch: int, resync_seconds: float) -> None:
        self._api = api
        self._epoch = epoch
        self._resync_seconds = resync_seconds
        self._sent: dict[Identity, _Sent] = {}

    async def apply(self, objects: Sequence[Manifest], world: World, now: float) -> None:
        """Send what must be sent, step by step: tables, marks on pods, the rest, Deployments; then remove.

        Raises:
            errors.DeposedError: before anything is written.
            errors.ObjectsRefusedError: after all others were.
            errors.ClusterUnreachableError: at once; the next cycle goes on.
        """
        self._check_epoch(world.children.values())
        refused: dict[str, str] = {}
        for step in _steps(objects):
            results = await asyncio.gather(*(self._one(each, world, now) for each in step), return_exceptions=True)
            for each, result in zip(step, results, strict=True):
                if isinstance(result, errors.AccessDeniedError | errors.RefusedError | errors.ConflictError):
                    kind, namespace, name = identity(each)
                    refused[f"{kind} {namespace}/{name}"] = str(result)
                elif isinstance(result, errors.NamespaceEndsError):
                    log.info("left out: %s", result)
                elif isinstance(result, BaseException):
                    raise result
        wanted = {identity(each) for each in objects}
        await self._prune(wanted, world)
        self._sent = {me: sent for me, sent in self._sent.items() if me in wanted}
        if refused:
            raise errors.ObjectsRefusedError(refused)

    async def _one(self, each: Manifest, world: World, now: float) -> None:
        """One object, if it is due."""
        if each["kind"] == kube.PODS.name:
            await self._mark(each)
            return
        me, digest = identity(each), _digest(each)
        live, sent = world.children.get(me), self._sent.get(me)
        if (
            live
            and sent
            and sent.digest == digest
            and sent.version == version(live)
            and now - sent.at < self._resync_seconds
        ):
            return
        kind = kube.KINDS[each["kind"]]
        path = kind.path(me[1], me[2])
        if live is None:
            await self._refuse_foreign(each, path)
        elif kind is kube.DEPLOYMENTS:
            await self._hand_over(each, live, path)
        applied = await self._api.apply(path, each)
        self._sent[me] = _Sent(digest, version(applied), now)
        log.info("applied", extra={"object": "/".join(me), "epoch": self._epoch})
        if kind is kube.CONFIG_MAPS and labels.TABLE in each["metadata"]["annotations"]:
            await self._nudge(each, world)

    async def _mark(self, each: Manifest) -> None:
        """Merge annotations into a pod; one that is gone needs none."""
        _, namespace, name = identity(each)
        try:
            await self._api.merge(
                kube.PODS.path(namespace, name), {"metadata": {"annotations": each["metadata"]["annotations"]}}
            )
        except errors.NotFoundError:
            log.info("pod is gone", extra={"object": f"Pod/{namespace}/{name}"})

    async def _nudge(self, routes: Manifest, world: World) -> None:
        """Touch a policy's router pods: a kubelet refreshes their mounts when a pod changes, else once a minute."""
        metadata = routes["metadata"]
        policy = metadata["labels"].get(labels.POLICY, "")
        note = {"metadata": {"annotations": {labels.TABLE: metadata["annotations"][labels.TABLE]}}}
        for name in world.routers.get((metadata["namespace"], policy), ()):
            try:
                await self._api.merge(kube.PODS.path(metadata["namespace"], name), note)
            except (errors.NotFoundError, errors.AccessDeniedError, errors.ConflictError) as error:
                log.info("router not nudged: %s", error)

    async def _hand_over(self, each: Manifest, live: Manifest, path: str) -> None:
        """Before we let go of a replica count, have it owned under another name: else it would fall to its default."""
        was_ours = labels.TOLD in live["metadata"].get("annotations", {})
        count = live.get("spec", {}).get("replicas")
        if was_ours and "replicas" not in each["spec"] and count is not None:
            held = {name: each[name] for name in ("apiVersion", "kind")}
            held |= {"metadata": {"name": each["metadata"]["name"]}, "spec": {"replicas": count}}
            await self._api.apply(path, held, manager=HAND_OVER)

    async def _refuse_foreign(self, each: Manifest, path: str) -> None:
        """Refuse to take over an object that carries the name but is not ours."""
        try:
            live = await self._api.get(path)
        except errors.NotFoundError:
            return
        wanted = owner_uid(each["metadata"])
        if owner_uid(live["metadata"]) != wanted:
            raise errors.RefusedError("an object of that name exists and is not Trimtab's: rename or delete it")

    async def _prune(self, wanted: set[Identity], world: World) -> None:
        """Remove what we made for CRs that were read and no longer render it. Tables stay with their policy."""
        for me, live in sorted(world.children.items()):
            metadata = live["metadata"]
            is_table = metadata.get("labels", {}).get("app.kubernetes.io/component") == table.COMPONENT
            if me in wanted or is_table or owner_uid(metadata) not in world.owners or metadata.get("deletionTimestamp"):
                continue
            try:
                await self._api.delete(kube.KINDS[me[0]].path(me[1], me[2]), uid=metadata["uid"])
            except (errors.NotFoundError, errors.ConflictError):
                continue
            log.info("removed", extra={"object": "/".join(me), "epoch": self._epoch})

    def _check_epoch(self, children: Iterable[Manifest]) -> None:
        """Stop if any object was written by a later leader. Raises errors.DeposedError."""
        for live in children:
            text = live["metadata"].get("annotations", {}).get(labels.EPOCH, "")
            if text.isdecimal() and int(text) > self._epoch:
                name = f"{live['metadata'].get('namespace')}/{live['metadata']['name']}"
                message = f"{name} was written at epoch {text}, this leader has {self._epoch}"
                raise errors.DeposedError(message, epoch=int(text))


def identity(each: Manifest) -> Identity:
    """Kind, namespace and name of an object."""
    return each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]


def owner_uid(metadata: Manifest) -> str:
    """Uid of the controlling owner, or empty."""
    owners = metadata.get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def version(live: Manifest) -> str:
    """What changes when somebody changes the object: its generation where it has one, else its resource version.

    A Deployment's status changes all the time and its generation with its spec alone; an autoscaler has no generation,
    so its spec itself is compared. Annotations count too: they hold the count that we told.
    """
    metadata = live["metadata"]
    annotations = metadata.get("annotations", {})
    generation = metadata.get("generation")
    if generation:
        return f"{metadata.get('uid')}/{generation}/{annotations.get(labels.TOLD)}/{annotations.get(labels.EPOCH)}"
    if "minReplicas" in live.get("spec", {}):
        return f"{metadata.get('uid')}/{_digest(live['spec'])}/{annotations.get(labels.EPOCH)}"
    return f"{metadata.get('uid')}/{metadata.get('resourceVersion')}"


def _digest(each: Manifest) -> str:
    return hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()


def _steps(objects: Sequence[Manifest]) -> list[list[Manifest]]:
    """The objects in groups that must follow one another: runs of tables, pods, others and Deployments."""
    steps: list[list[Manifest]] = []
    last = ""
    for each in objects:
        kind = each["kind"] if each["kind"] in ("Pod", "Deployment", "ConfigMap") else "other"
        if kind != last:
            steps.append([])
        steps[-1].append(each)
        last = kind
    return steps
