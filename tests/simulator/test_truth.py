"""The truth is what is so, whatever has been seen of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trimtab_core import capacity, telemetry
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile
from trimtab_sim import engine, faults, fleet, meters, replicas, scrapes, tallies, truth

KEY = VariantKey("default/small", "l4")
KIND = fleet.Kind(CapacityProfile(0.02, 0.001, 10_000, 100_000, 64, 30.0), 1.0, 1, 10.0, 60.0)
POLICY, CLASS, TIER = "default/chat", "simple", "small"
MEAN = capacity.Mix(900.0, 90.0)


class World:
    """Requests of one class at a rate that can be changed, half of them from the cache."""

    def __init__(self, **kinds: list[dict[str, Any]]) -> None:
        self.clock = engine.Engine()
        self.meters = meters.Meters(window_seconds=60.0)
        self.start: replicas.Start | None = None
        self.fleet = fleet.Fleet(self.clock, {KEY: KIND}, lambda *_: None, start=lambda _: self.start)
        wire = scrapes.Wire(1.0)
        self.scraper = scrapes.Scraper(self.clock, self.meters, self.fleet, faults.of(kinds, "here"), wire=wire)
        self.witness = truth.Witness(
            POLICY, (CLASS, "other"), self.meters, self.fleet, self.scraper, window=60.0, lag=5.0, mean=MEAN
        )
        self.every = 1.0
        self._count()
        self._scrape()

    def _count(self) -> None:
        self.meters.count(telemetry.ARRIVALS, (POLICY, CLASS))
        self.meters.count(telemetry.CACHE_RESULTS, (POLICY, CLASS, tallies.HIT), 0.5)
        self.meters.count(telemetry.REQUESTS, (POLICY, CLASS, TIER, tallies.OK), 0.5)
        self.meters.count(telemetry.INPUT_TOKENS, (POLICY, CLASS, TIER), 500.0)
        self.meters.count(telemetry.OUTPUT_TOKENS, (POLICY, CLASS, TIER), 100.0)
        self.clock.after(self.every, self._count, engine.Order.ARRIVE)

    def _scrape(self) -> None:
        self.scraper.scrape()
        self.clock.after(5.0, self._scrape, engine.Order.MEASURE)

    def look(self, until: float) -> truth.Truth:
        """The truth at a time, looked at every 15 s as a watch does."""
        at = 15.0 * math.ceil((self.clock.now + 1e-9) / 15.0)
        while at < until:
            self.clock.run(until=at)
            self.witness.look(at)
            at += 15.0
        self.clock.run(until=until)
        return self.witness.look(until)


def test_demand_is_what_arrived_in_the_last_minute_without_the_cached() -> None:
    found = World().look(300.0)

    assert found.arrivals[CLASS] == pytest.approx(1.0, abs=0.05)
    assert found.demand[CLASS] == pytest.approx(0.5, abs=0.03)
    assert found.mix[TIER] == capacity.Mix(1000.0, 200.0)
    assert found.mean == MEAN
    assert found.age == {CLASS: 5.0, "other": 5.0}  # the scrape of 300 s is seen at 301 s
    assert found.arrivals["other"] == 0.0


def test_arrivals_are_those_of_the_time_when_the_number_was_measured_or_fewer() -> None:
    made = World(metricLoss=[{"from": "200s"}])
    made.look(200.0)
    made.every = 0.1

    grown = made.look(240.0)
    assert grown.age[CLASS] == 45.0
    assert grown.arrivals[CLASS] == pytest.approx(1.0, abs=0.05)  # more came since, which nobody could see
    assert grown.demand[CLASS] > 2.0

    made.every = 1e9
    assert made.look(330.0).arrivals[CLASS] == 0.0  # and now none at all


def test_what_starts_for_ever_is_stuck_and_what_is_frozen_serves_nobody() -> None:
    made = World()
    made.fleet.start(KEY, 3)
    made.start = replicas.Start(0.0, math.inf)
    made.fleet.scale(KEY, 5)
    made.start = None
    made.fleet.scale(KEY, 6)
    made.fleet.of(KEY)[0].freeze()

    found = made.look(10.0)

    assert found.ready == {KEY: 2}
    assert found.stuck == {KEY: 2}
