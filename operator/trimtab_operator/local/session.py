"""Local mode as one thing: objects, processes, scraper and the very loop that runs in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from trimtab_operator import errors, reconcile
from trimtab_operator.local import adapt, images, ports, process_runner, store, workload
from trimtab_operator.observe import scrape

SHORTEST_PAUSE_SECONDS = 0.5
"""Between two cycles, however often the loop is woken."""


@dataclass(frozen=True, slots=True)
class Options:
    """How local mode runs.

    Attributes:
        folder: for configs and logs; must exist and be empty.
        port: of the first policy's router.
        time_scale: divides start-up times, windows and intervals; at least 1.
        interval_seconds: between two cycles; None takes what the policies ask for.
        stream_interval: tokens in one event of a simulated engine's stream.
    """

    folder: Path
    port: int = 8080
    time_scale: float = 1.0
    interval_seconds: float | None = None
    stream_interval: int = 1


class Session:
    """A running local mode. Use as an async context manager; ``run`` until stopped.

    Args:
        objects: validated manifests.
        options: how to run them.
        clock: gives epoch seconds.
        say: tells people one thing.
        decided: called with every cycle's outcome.

    Raises:
        failures.PortBusyError: when somebody else sits on the port.

    """

    def __init__(
        self,
        objects: Sequence[store.Object],
        options: Options,
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
        decided: Callable[[reconcile.Outcome], None] = lambda _: None,
    ) -> None:
        ports.require(options.port)
        self._options = options
        self._clock = clock
        self._say = say
        self._decided = decided
        self._woken = asyncio.Event()
        self._refused: dict[str, str] = {}
        self.store = store.Store()
        self.replace(objects)
        table: dict[workload.Role, process_runner.Image] = {
            workload.Role.ENGINE: images.SimulatedEngine(self.store, say, stream_interval=options.stream_interval),
            workload.Role.ROUTER: images.LocalRouter(options.folder, options.port),
        }
        self.runner = process_runner.ProcessRunner(
            self.store, table, folder=options.folder, clock=clock, say=say, changed=self._woken.set
        )
        self.scraper = scrape.Scraper(self.runner.routers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.close()
        await self.scraper.close()

    def replace(self, objects: Sequence[store.Object]) -> None:
        """Take other manifests from the next cycle on, which begins at once."""
        adapted = adapt.adapt(objects, self._options.time_scale)
        self.store.replace(adapted)
        self.settings = adapt.loop(adapted, self._options.time_scale, self._options.interval_seconds)
        self._woken.set()

    async def run(self) -> None:
        """Reconcile again and again: at every change of a replica, and at the latest after the interval."""
        memory = reconcile.Memory()
        world = reconcile.Ports(self.runner, self.scraper)
        while True:
            self._woken.clear()
            try:
                outcome = await reconcile.reconcile(world, memory, self.settings, self._clock())
            except errors.OperatorError as error:
                self._say(f"this cycle failed: {error}")
            except Exception as error:  # noqa: BLE001 (the outermost loop: the next cycle may do better)
                self._say(f"this cycle failed, which is a fault of Trimtab: {type(error).__name__}: {error}")
            else:
                memory = outcome.memory
                self._tell_refused(dict(outcome.refused))
                self._decided(outcome)
            await self._pause()

    async def _pause(self) -> None:
        """Until something changed, or the interval is over."""
        await asyncio.sleep(min(SHORTEST_PAUSE_SECONDS, self.settings.interval_seconds))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._woken.wait(), max(0.0, self.settings.interval_seconds - SHORTEST_PAUSE_SECONDS)
            )

    def _tell_refused(self, refused: dict[str, str]) -> None:
        """Say what can't be run here, once."""
        for name, why in refused.items():
            if self._refused.get(name) != why:
                self._say(f"{name}: {why}")
        self._refused = refused
