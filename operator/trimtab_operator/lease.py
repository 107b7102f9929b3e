"""Who leads: one Lease, and an epoch that counts its changes of hands.

A leader may act until its own deadline, which lies before the moment from which another may take over; so two never
act at once, whatever the clocks say: only this process's monotonic clock is compared with itself. The epoch goes into
every write and a lower one is refused, should the deadline ever not be enough.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trimtab_operator import errors, kube, settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last look at the Lease gave.

    Attributes:
        epoch: of this process's leadership; 0 while it follows.
        until: monotonic seconds until which it may act.
    """

    epoch: int = 0
    until: float = 0.0

    def leads(self, monotonic: float) -> bool:
        """Whether this process may act now."""
        return self.epoch > 0 and monotonic < self.until


class Elector:
    """Takes and keeps the Lease.

    Args:
        api: the API server.
        lease: names and times.
        monotonic: this process's clock, seconds that never go back.
        wall: epoch seconds, only written for people to read.
    """

    def __init__(
        self,
        api: kube.Kube,
        lease: settings.Lease,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._api = api
        self._lease = lease
        self._monotonic = monotonic
        self._wall = wall
        self._seen = ""
        self._seen_at = 0.0
        self._outranked_by = 0
        self.standing = Standing()

    async def step(self) -> Standing:
        """Look, and take or renew where that is due. An API server that can't be reached changes nothing."""
        began = self._monotonic()
        try:
            self.standing = await self._try(began)
        except errors.ConflictError:
            self.standing = Standing()  # somebody else was faster
        except errors.ClusterUnreachableError as error:
            log.warning("lease not renewed: %s", error)
        return self.standing

    def depose(self, epoch: int) -> None:
        """Stop leading: a write of that epoch was seen, higher than ours. The next term, if any, goes above it.

        Should the Lease still be ours, it was deleted and counted from one again: then we lead on, at a higher epoch.
        """
        self.standing = Standing()
        self._outranked_by = max(self._outranked_by, epoch)

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait for its end."""
        if not self.standing.epoch:
            return
        self.standing = Standing()
        try:
            live = await self._api.get(self._path)
            if live["spec"].get("holderIdentity") == self._lease.identity:
                spec = {**live["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(self._path, {**live, "spec": spec})
        except errors.ClusterError as error:
            log.info("lease not given back: %s", error)

    @property
    def _path(self) -> str:
        return kube.LEASES.path(self._lease.namespace, self._lease.name)

    async def _try(self, began: float) -> Standing:
        """One look at the Lease. Raises errors.ClusterError."""
        try:
            live = await self._api.get(self._path)
        except errors.NotFoundError:
            return await self._create(began)
        spec = live.get("spec") or {}
        holder, epoch = spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0)
        if holder == self._lease.identity and self.standing.epoch == epoch:
            await self._api.replace(self._path, {**live, "spec": self._spec(epoch, since=spec.get("acquireTime"))})
            return Standing(epoch, began + self._lease.renew_seconds)
        recounted = holder == self._lease.identity and self._outranked_by > epoch
        if not recounted and not self._is_free(spec, began):
            return Standing()
        mine = max(epoch, self._outranked_by) + 1
        await self._api.replace(self._path, {**live, "spec": self._spec(mine)})
        log.info("leading", extra={"epoch": mine})
        return Standing(mine, began + self._lease.renew_seconds)

    async def _create(self, began: float) -> Standing:
        """The first Lease of all."""
        body = {
            "apiVersion": kube.LEASES.api_version,
            "kind": kube.LEASES.name,
            "metadata": {"name": self._lease.name, "namespace": self._lease.namespace},
            "spec": self._spec(1),
        }
        await self._api.create(kube.LEASES.path(self._lease.namespace), body)
        log.info("leading", extra={"epoch": 1})
        return Standing(1, began + self._lease.renew_seconds)

    def _is_free(self, spec: dict[str, Any], now: float) -> bool:
        """Whether nobody holds it, or its holder has been silent for its duration as measured here."""
        mark = f"{spec.get('holderIdentity')}/{spec.get('renewTime')}/{spec.get('leaseTransitions')}"
        if mark != self._seen:
            self._seen, self._seen_at = mark, now
        duration = float(spec.get("leaseDurationSeconds") or self._lease.duration_seconds)
        return not spec.get("holderIdentity") or now - self._seen_at >= duration

    def _spec(self, epoch: int, since: str | None = None) -> dict[str, Any]:
        """The Lease as held by us."""
        now = dt.datetime.fromtimestamp(self._wall(), dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._lease.identity,
            "leaseDurationSeconds": round(self._lease.duration_seconds),
            "acquireTime": since or now,
            "renewTime": now,
            "leaseTransitions": epoch,
        }
