"""The outermost loop of a leader: reconcile on every interval and whenever woken, and never end by an error.

Reads the clock, so that nothing below must. A follower only waits; a leader whose deadline passes stops in the middle
of what it does, and the next leader goes on from status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.snapshot import Snapshot

from trimtab_operator import cluster, errors, kube, lease, meters, reconcile, settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: epoch seconds for people and data, monotonic seconds for deadlines."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


class Loop:
    """Leads and reconciles until told to stop.

    Args:
        api: the API server.
        metrics: where numbers come from.
        config: of the operator.
        meters: the operator's own metrics.
        clock: time.
    """

    def __init__(
        self,
        api: kube.Kube,
        metrics: reconcile.Metrics,
        config: settings.Operator,
        *,
        meters: meters.Meters,
        clock: Clock,
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._config = config
        self._meters = meters
        self._clock = clock
        self._elector = lease.Elector(api, config.lease, monotonic=clock.monotonic, wall=clock.wall)
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()

    def wake(self) -> None:
        """Something changed: look soon."""
        self._woken.set()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopped.set()
        self._woken.set()

    async def run(self) -> None:
        """Lead when possible, until stopped."""
        electing = asyncio.create_task(self._elect())
        try:
            while not self._stopped.is_set():
                standing = self._elector.standing
                if standing.leads(self._clock.monotonic()):
                    await self._lead(standing.epoch)
                else:
                    self._meters.led(leads=False)
                    await self._rest(self._config.lease.retry_seconds / 4)
        finally:
            electing.cancel()
            await asyncio.gather(electing, return_exceptions=True)
            await self._elector.release()

    async def _elect(self) -> None:
        """Look at the Lease again and again."""
        while True:
            try:
                await self._elector.step()
            except errors.OperatorError as error:
                log.error("can't use the Lease: %s", error)  # noqa: TRY400 (the line says it all)
            await asyncio.sleep(self._config.lease.retry_seconds)

    async def _lead(self, epoch: int) -> None:
        """One term: cycles with the memory of this term, until it ends."""
        self._meters.led(leads=True)
        log.info("reconciling", extra={"epoch": epoch})
        port = cluster.KubernetesCluster(
            self._api,
            namespaces=self._config.namespaces,
            epoch=epoch,
            resync_seconds=self._config.resync_seconds,
            clock=self._clock.wall,
        )
        ports, memory = reconcile.Ports(port, self._metrics), reconcile.Memory(epoch)
        while not self._stopped.is_set() and self._leads(epoch):
            self._woken.clear()
            began = self._clock.monotonic()
            outcome = await self._cycle(ports, memory, epoch)
            if outcome is not None:
                memory = outcome.memory
            interval = (
                self._config.loop.interval_seconds if outcome is None else shortest(outcome.snapshot, self._config.loop)
            )
            await self._pause(began, interval)

    def _leads(self, epoch: int) -> bool:
        standing = self._elector.standing
        return standing.epoch == epoch and standing.leads(self._clock.monotonic())

    async def _cycle(self, ports: reconcile.Ports, memory: reconcile.Memory, epoch: int) -> reconcile.Outcome | None:
        """One reconcile, cut short when the term ends; None when it failed."""
        began = self._clock.monotonic()
        work = asyncio.create_task(reconcile.reconcile(ports, memory, self._config.loop, self._clock.wall()))
        while not work.done() and self._leads(epoch):
            await asyncio.wait({work}, timeout=self._config.lease.retry_seconds / 4)
        if not work.done():
            work.cancel()
            log.warning("stopped in the middle: no longer leading", extra={"epoch": epoch})
        try:
            outcome = await work
        except asyncio.CancelledError:
            return None
        except errors.DeposedError as error:
            self._elector.depose(error.epoch)
            self._failed(error)
            return None
        except Exception as error:  # noqa: BLE001 (the outermost loop: the next cycle starts afresh)
            self._failed(error)
            return None
        self._meters.took(self._clock.monotonic() - began)
        self._meters.show(outcome)
        _tell(outcome)
        return outcome

    def _failed(self, error: Exception) -> None:
        """Count and tell a failed cycle; the traceback only where nobody expected it."""
        expected = isinstance(error, errors.OperatorError)
        self._meters.failed(type(error).__name__.removesuffix("Error"))
        log.error("cycle failed: %s", error, exc_info=None if expected else error)

    async def _pause(self, began: float, interval_seconds: float) -> None:
        """Until the next tick, or until woken, but never less than the debounce time."""
        least = began + self._config.debounce_seconds - self._clock.monotonic()
        if least > 0:
            await asyncio.sleep(least)
        await self._rest(began + interval_seconds - self._clock.monotonic())

    async def _rest(self, seconds: float) -> None:
        """Sleep, but wake when woken."""
        try:
            await asyncio.wait_for(self._woken.wait(), max(0.0, seconds))
        except TimeoutError:
            return


def shortest(snapshot: Snapshot, loop: settings.Loop) -> float:
    """Seconds between two cycles: what the most impatient policy asks for, at most the loop's own."""
    asked = [units.duration_seconds(policy.spec.retune.interval) for policy in snapshot.policies.values()]
    return min([*asked, loop.interval_seconds])


def _tell(outcome: reconcile.Outcome) -> None:
    """Log every decision as it was taken."""
    for decision in outcome.decisions:
        log.info(
            "decided: %s",
            decision.action,
            extra={
                "tier": decision.tier,
                "reasons": list(decision.reasons),
                "costBeforeUsdPerHour": round(decision.cost_before_usd_per_hour, 4),
                "costAfterUsdPerHour": round(decision.cost_after_usd_per_hour, 4),
                "epoch": outcome.snapshot.epoch,
            },
        )
    for name, why in outcome.refused.items():
        log.error("refused: %s: %s", name, why)
