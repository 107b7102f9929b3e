"""Scrapes of routers and engines, and what goes wrong with them: loss, delay, NaN, and series that never end.

Says as well, for those who judge a run, until when the numbers that have arrived could be trusted. Knows nothing of
controllers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_core import telemetry
from trimtab_core.observation import EngineReading
from trimtab_core.signals import Sample
from trimtab_core.snapshot import ReplicaPhase

from trimtab_sim import engine, faults, fleet, meters, objects, replicas

_REMEMBERED_SECONDS = 300.0
"""For so long it is known what had truly arrived at the time of a scrape."""
_GAUGES = ("running", "waiting", "kv_usage", "gap_seconds", "gaps", "prompt_tokens")


@dataclass(frozen=True, slots=True)
class Wire:
    """How numbers travel.

    Attributes:
        delay: seconds from a scrape to when it is seen.
        loss: probability that a scrape of the routers, or of an engine, fails.
        seed: of what is lost and spoiled.
    """

    delay: float
    loss: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Scrape:
    """One scrape on its way: pages of routers by name, None where it was lost, and readings of engines by replica."""

    at: float
    router: str
    pages: Mapping[str, meters.Page | None]
    engines: dict[str, EngineReading]


class Scraper:
    """Reads what there is to read, when told to.

    Args:
        clock: the engine of events.
        counts: what the router counts, and where scrapes arrive.
        cluster: whose engines are read.
        troubles: what goes wrong.
        wire: how numbers travel.
    """

    def __init__(
        self, clock: engine.Engine, counts: meters.Meters, cluster: fleet.Fleet, troubles: faults.Faults, *, wire: Wire
    ) -> None:
        self._clock = clock
        self._counts = counts
        self._fleet = cluster
        self._troubles = troubles
        self._wire = wire
        self._rng = random.Random(f"scrapes {wire.seed}")
        self._dead: dict[str, tuple[faults.Period, meters.Page]] = {}
        self._replaced = 0
        self._readings: dict[str, EngineReading] = {}
        self._arrived_at = -math.inf
        self._arrivals: deque[tuple[float, dict[tuple[str, ...], float]]] = deque()
        self._heard_at = -math.inf
        self._sound: dict[tuple[str, ...], float] = {}

    def sound_at(self, policy: str, request_class: str) -> float:
        """When the newest number of a class's arrivals was measured (seconds of the run) that is seen and is true.

        Of a class that never had a request it is the newest scrape of its router.
        """
        return self._sound.get((policy, request_class), self._heard_at)

    def arrivals(self, policy: str, request_class: str, window: float) -> float:
        """Requests a second that had truly arrived in the window before that."""
        until = self.sound_at(policy, request_class)
        within = [counts for at, counts in self._arrivals if until - window <= at <= until]
        if not within:
            return 0.0
        first, last = (counts.get((policy, request_class), 0.0) for counts in (within[0], within[-1]))
        return (last - first) / window

    def scrape(self) -> None:
        """Read routers and engines; controllers see it after the delay."""
        at, troubles = self._clock.now, self._troubles
        self._arrivals.append((at, dict(self._counts.total(telemetry.ARRIVALS))))
        while self._arrivals[0][0] < at - _REMEMBERED_SECONDS:
            self._arrivals.popleft()
        self._replace_router(at)
        lost = any(loss.routers(at) and self._happens(loss.share) for loss in troubles.metric_loss)
        lost = lost or self._happens(self._wire.loss)
        router, page = self._counts.router, self._counts.sample(objects.EPOCH_SECONDS + at)
        pages = {**self._pages_of_dead(at), router: None if lost else self._spoil(page, at)}
        self._readings = self._read(at)
        scrape = _Scrape(at, router, pages, self._readings)
        delay = self._wire.delay + sum(extra.by for extra in troubles.extra_delay if extra.holds(at))
        self._clock.after(delay, functools.partial(self._arrive, scrape), engine.Order.MEASURE)

    def _arrive(self, scrape: _Scrape) -> None:
        """A scrape is seen; one that a later scrape has overtaken is not."""
        if scrape.at <= self._arrived_at:
            return
        self._arrived_at = scrape.at
        now = objects.EPOCH_SECONDS + scrape.at
        for name, page in scrape.pages.items():
            if page is None:
                self._counts.lose(now, router=name)
            else:
                self._counts.keep(page, router=name)
        own = scrape.pages[scrape.router]
        if own is not None:
            self._heard_at = scrape.at
            for family, labels, sample in own:
                if family is telemetry.ARRIVALS and math.isfinite(sample.value):
                    self._sound[labels[telemetry.POLICY], labels[telemetry.CLASS]] = scrape.at
        self._counts.keep_engines(scrape.engines)

    def _happens(self, share: float) -> bool:
        """By chance; certainty and impossibility draw nothing."""
        return share >= 1 or (share > 0 and self._rng.random() < share)

    def _replace_router(self, at: float) -> None:
        """Another router takes over at the beginning of each period in which series never end."""
        due = [period for period in self._troubles.stale_series if period.begins <= at]
        for period in due[self._replaced :]:
            page = self._counts.sample(objects.EPOCH_SECONDS + at)
            self._dead[self._counts.replace_router()] = (period, page)
            self._replaced += 1

    def _pages_of_dead(self, at: float) -> dict[str, meters.Page | None]:
        """What dead routers are still said to show: their last numbers, as if they were of now; nothing in the end."""
        now = objects.EPOCH_SECONDS + at
        pages: dict[str, meters.Page | None] = {
            name: [(family, labels, Sample(sample.value, now)) for family, labels, sample in page]
            for name, (period, page) in self._dead.items()
            if period.holds(at)
        }
        ended = self._dead.keys() - pages.keys()
        self._dead = {name: one for name, one in self._dead.items() if name in pages}
        return {**pages, **dict.fromkeys(sorted(ended))}

    def _spoil(self, page: meters.Page, at: float) -> meters.Page:
        """The page with some values turned into NaN."""
        for storm in self._troubles.nan:
            if storm.routers(at):
                page = [(family, labels, self._spoiled(sample, storm.share)) for family, labels, sample in page]
        return page

    def _spoiled(self, sample: Sample, share: float) -> Sample:
        return Sample(math.nan, sample.observed_at) if self._happens(share) else sample

    def _read(self, at: float) -> dict[str, EngineReading]:
        """Every engine's numbers. One that doesn't answer keeps its last, as the operator's scraper does."""
        now, troubles = objects.EPOCH_SECONDS + at, self._troubles
        found: dict[str, EngineReading] = {}
        if any(period.holds(at) for period in troubles.stale_series):
            found = {name: _at(reading, now) for name, reading in self._readings.items()}
        for _, replica in self._fleet.members():
            replica.processor.advance()
            if replica.phase is ReplicaPhase.PENDING:
                continue
            lost = any(loss.engines(at) and self._happens(loss.share) for loss in troubles.metric_loss)
            if lost or self._happens(self._wire.loss):
                before = self._readings.get(replica.name)
                found |= {} if before is None else {replica.name: before}
                continue
            reading = _reading(replica.processor, now)
            for storm in troubles.nan:
                if storm.engines(at):
                    reading = self._spoiled_reading(reading, storm.share)
            found[replica.name] = reading
        return found

    def _spoiled_reading(self, reading: EngineReading, share: float) -> EngineReading:
        samples = {name: getattr(reading, name) for name in _GAUGES}
        spoiled: dict[str, Any] = {name: self._spoiled(one, share) for name, one in samples.items() if one is not None}
        return dataclasses.replace(reading, **spoiled)


def _reading(processor: replicas.Processor, now: float) -> EngineReading:
    return EngineReading(
        running=Sample(processor.running, now),
        waiting=Sample(processor.waiting, now),
        kv_usage=Sample(processor.kv_usage, now),
        gap_seconds=Sample(processor.gap_seconds, now),
        gaps=Sample(processor.gaps, now),
        prompt_tokens=Sample(processor.prompt_tokens, now),
    )


def _at(reading: EngineReading, now: float) -> EngineReading:
    """The reading as if it were of now."""
    samples = {name: getattr(reading, name) for name in _GAUGES}
    newer: dict[str, Any] = {
        name: dataclasses.replace(one, observed_at=now) for name, one in samples.items() if one is not None
    }
    return dataclasses.replace(reading, **newer)
