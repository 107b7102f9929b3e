"""Scrapes arrive late, get lost, turn into NaN and show what is gone, and the scraper knows which of them were true."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trimtab_core import observation, telemetry
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile
from trimtab_core.telemetry import Answer
from trimtab_sim import engine, faults, fleet, meters, objects, scrapes

KEY = VariantKey("default/small", "l4")
KIND = fleet.Kind(CapacityProfile(0.02, 0.001, 10_000, 100_000, 64, 30.0), 1.0, 1, 10.0, 60.0)
LABELS = ("default/chat", "simple")


class Wires:
    """Two replicas and a router that counts one request a second, scraped every five seconds."""

    def __init__(self, *, delay: float = 1.0, loss: float = 0.0, **kinds: list[dict[str, Any]]) -> None:
        self.clock = engine.Engine()
        self.meters = meters.Meters(window_seconds=60.0)
        self.fleet = fleet.Fleet(self.clock, {KEY: KIND}, lambda *_: None)
        self.fleet.start(KEY, 2)
        wire = scrapes.Wire(delay, loss, seed=1)
        self.scraper = scrapes.Scraper(self.clock, self.meters, self.fleet, faults.of(kinds, "here"), wire=wire)
        self.meters.serve_by("default/chat", "1-1")
        self._count()
        self._scrape()

    def _count(self) -> None:
        self.meters.count(telemetry.ARRIVALS, LABELS)
        self.clock.after(1.0, self._count, engine.Order.ARRIVE)

    def _scrape(self) -> None:
        self.scraper.scrape()
        self.clock.after(5.0, self._scrape, engine.Order.MEASURE)

    def ask(self, at: float, name: str = "arrivals_per_second") -> tuple[Answer, ...]:
        self.clock.run(until=at)
        found = self.meters.answers(objects.EPOCH_SECONDS + at)[name]
        assert not isinstance(found, observation.QueryFailure)
        return found

    def sound_at(self) -> float:
        return self.scraper.sound_at(*LABELS)

    def age(self, at: float) -> float:
        (answer,) = self.ask(at)
        return objects.EPOCH_SECONDS + at - answer.observed_at


def test_numbers_are_as_old_as_the_last_scrape_and_its_delay() -> None:
    wires = Wires(delay=2.0)

    assert wires.age(101.0) == 6.0  # the scrape of 100 s arrives at 102 s
    assert wires.age(103.0) == 3.0
    assert wires.sound_at() == 100.0
    assert wires.ask(103.0)[0].value == pytest.approx(1.0, abs=0.1)


def test_the_scraper_knows_what_was_true_when_it_was_measured() -> None:
    wires = Wires(metricLoss=[{"from": "100s", "until": "150s", "of": "Routers"}])
    wires.meters.count(telemetry.ARRIVALS, LABELS, 30)
    wires.clock.run(until=121.0)

    # from the scrape of 35 s to that of 95 s, long after the 30
    assert wires.scraper.arrivals(*LABELS, 60.0) == pytest.approx(1.0)
    assert wires.scraper.sound_at("default/chat", "never asked") == 95.0


def test_lost_scrapes_leave_the_last_numbers_to_grow_old() -> None:
    wires = Wires(metricLoss=[{"from": "100s", "until": "150s", "of": "Routers"}])

    assert wires.age(120.0) == 60.0  # as old as the window: nobody says when a series that has ended was seen last
    assert wires.ask(120.0, "tables") == ()  # a router whose scrape failed is not seen
    assert wires.sound_at() == 95.0
    assert wires.age(157.0) == 2.0
    assert wires.ask(157.0, "tables") != ()


def test_engines_that_do_not_answer_keep_their_last_reading() -> None:
    wires = Wires(metricLoss=[{"from": "100s", "until": "150s", "of": "Engines"}])
    wires.clock.run(until=120.0)

    assert {_seconds(reading) for reading in wires.meters.engines.values()} == {95.0}
    assert wires.age(121.0) == 1.0
    assert wires.sound_at() == 120.0


def test_some_scrapes_are_lost_by_chance() -> None:
    wires = Wires(loss=0.5)
    ages = [wires.age(at) for at in range(101, 2001, 5)]

    assert min(ages) == 1.0
    assert max(ages) > 15.0
    assert sum(age > 1.0 for age in ages) / len(ages) == pytest.approx(0.5, abs=0.1)


def test_delayed_scrapes_are_seen_later_and_never_after_younger_ones() -> None:
    wires = Wires(extraDelay=[{"from": "100s", "until": "120s", "by": "30s"}])

    assert wires.age(119.0) == 24.0  # those of 100 s to 115 s are on their way
    assert wires.age(121.5) == 1.5  # the scrape of 120 s overtakes them
    assert wires.age(132.0) == 2.0
    assert wires.sound_at() == 130.0


def test_a_storm_turns_values_into_nan_and_nothing_of_it_is_sound() -> None:
    wires = Wires(nan=[{"from": "100s", "until": "150s"}])

    (answer,) = wires.ask(121.0)
    assert math.isnan(answer.value)
    assert wires.sound_at() == 95.0
    assert all(math.isnan(_sample(reading).value) for reading in wires.meters.engines.values())
    (answer,) = wires.ask(211.0)
    assert answer.value == pytest.approx(1.0, abs=0.1)


def test_a_storm_of_one_in_two_spoils_about_every_other_value() -> None:
    wires = Wires(nan=[{"share": 0.5, "of": "Engines"}])
    found = []
    for at in range(6, 1006, 5):
        wires.clock.run(until=at)
        found += [math.isnan(_sample(reading).value) for reading in wires.meters.engines.values()]

    assert sum(found) / len(found) == pytest.approx(0.5, abs=0.07)
    assert wires.age(1007.0) == 2.0


def test_stale_series_show_a_router_and_engines_that_are_gone() -> None:
    wires = Wires(staleSeries=[{"from": "100s", "until": "150s"}])
    wires.clock.run(until=110.0)
    gone = wires.fleet.of(KEY)[0]
    wires.fleet.lose(KEY, gone)

    tables = {answer.labels[2] for answer in wires.ask(126.0, "tables")}
    assert tables == {"router-0", "router-1"}
    assert _seconds(wires.meters.engines[gone.name]) == 125.0
    # the new router counts from zero; the dead one's rate falls to nothing as it stands still
    (answer,) = wires.ask(146.0)
    assert answer.value == pytest.approx(1.0, abs=0.15)
    assert answer.observed_at == objects.EPOCH_SECONDS + 145.0
    assert {answer.labels[2] for answer in wires.ask(160.0, "tables")} == {"router-1"}
    assert gone.name not in wires.meters.engines


def test_the_truth_is_counted_on_when_a_router_is_replaced() -> None:
    wires = Wires(staleSeries=[{"from": "100s", "until": "150s"}])
    wires.clock.run(until=200.5)

    assert wires.meters.total(telemetry.ARRIVALS) == {LABELS: 201.0}


def _sample(reading: observation.EngineReading) -> Any:
    assert reading.running is not None
    return reading.running


def _seconds(reading: observation.EngineReading) -> float:
    return float(_sample(reading).observed_at - objects.EPOCH_SECONDS)
