"""The objects of local mode, in memory: what users wrote, what the loop reports, what was told to people."""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trimtab_core.api import v1alpha1

Identity = tuple[str, str, str]
"""Kind, namespace, name."""
Object = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy | v1alpha1.CachePolicy

EVENTS_KEPT = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One message to people, as a Kubernetes Event would carry it."""

    time: float
    about: Identity
    reason: str
    message: str
    warning: bool


def identity(manifest: Object) -> Identity:
    """What tells an object from all others."""
    return manifest.kind, manifest.metadata.namespace, manifest.metadata.name


class Store:
    """Objects with their status, as an API server would keep them: a changed spec is a new generation, status stays."""

    def __init__(self, objects: Iterable[Object] = ()) -> None:
        self._objects: dict[Identity, Object] = {}
        self._statuses: dict[Identity, dict[str, Any]] = {}
        self.events: collections.deque[Event] = collections.deque(maxlen=EVENTS_KEPT)
        self.replace(objects)

    def replace(self, objects: Iterable[Object]) -> None:
        """Take these objects and no others; the status of those that stay is kept."""
        wanted = {identity(manifest): manifest for manifest in objects}
        self._statuses = {key: status for key, status in self._statuses.items() if key in wanted}
        self._objects = {key: self._stamped(key, manifest) for key, manifest in wanted.items()}

    def _stamped(self, key: Identity, manifest: Object) -> Object:
        """The object with identity and generation, which counts up when its spec differs from the one kept."""
        kept = self._objects.get(key)
        generation = 1
        if kept is not None:
            generation = (kept.metadata.generation or 1) + (kept.spec != manifest.spec)
        stamp = {"uid": str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(key))), "generation": generation}
        return manifest.model_copy(update={"metadata": manifest.metadata.model_copy(update=stamp)})

    def tiers(self) -> tuple[v1alpha1.InferenceTier, ...]:
        """All tiers with their status."""
        return tuple(found for found in self._with_status() if isinstance(found, v1alpha1.InferenceTier))

    def policies(self) -> tuple[v1alpha1.RoutingPolicy, ...]:
        """All routing policies with their status."""
        return tuple(found for found in self._with_status() if isinstance(found, v1alpha1.RoutingPolicy))

    def caches(self) -> tuple[v1alpha1.CachePolicy, ...]:
        """All cache policies with their status."""
        return tuple(found for found in self._with_status() if isinstance(found, v1alpha1.CachePolicy))

    def status(self, key: Identity) -> Mapping[str, Any]:
        """What was last reported about an object; empty before the first report."""
        return self._statuses.get(key, {})

    def write_status(self, statuses: Mapping[Identity, dict[str, Any]]) -> None:
        """Keep what the loop reports; a report about an object that is gone is dropped."""
        self._statuses.update({key: dict(status) for key, status in statuses.items() if key in self._objects})

    def _with_status(self) -> Iterator[Object]:
        for key, manifest in sorted(self._objects.items(), key=lambda item: item[0]):
            status = self._statuses.get(key)
            if status is None:
                yield manifest
            else:
                yield type(manifest).model_validate(
                    {**manifest.model_dump(by_alias=True, exclude_none=True, exclude={"status"}), "status": status}
                )
