"""Counters become signals through scrapes: late, in samples, with the shipped queries."""

from __future__ import annotations

import pytest
from trimtab_core import answers, observation, telemetry
from trimtab_core.signals import Sample
from trimtab_sim import meters

LABELS = ("default/chat", "simple")


def scraped(made: meters.Meters, at: float, engines: dict[str, observation.EngineReading] | None = None) -> None:
    made.keep(made.sample(at))
    made.keep_engines(engines or {})


def test_a_rate_needs_two_scrapes() -> None:
    made = meters.Meters(window_seconds=60)
    made.count(telemetry.ARRIVALS, LABELS, 10)
    scraped(made, 100.0)
    assert made.answers(100.0)["arrivals_per_second"] == ()

    made.count(telemetry.ARRIVALS, LABELS, 20)
    scraped(made, 105.0)

    # 20 in 5 s; the counter was zero 2.5 s before the first scrape at the earliest, so 30 in 7.5 of 60 s
    (answer,) = made.answers(105.0)["arrivals_per_second"]  # type: ignore[misc]
    assert answer.labels == LABELS
    assert answer.value == pytest.approx(30 / 60)
    assert answer.observed_at == 105.0


def test_what_was_not_scraped_is_not_seen() -> None:
    made = meters.Meters(window_seconds=60)
    for at in (100.0, 105.0):
        made.count(telemetry.ARRIVALS, LABELS, 10)
        scraped(made, at)
    made.count(telemetry.ARRIVALS, LABELS, 1_000_000)

    (answer,) = made.answers(110.0)["arrivals_per_second"]  # type: ignore[misc]

    assert answer.value < 1
    assert answer.observed_at == 105.0


def test_the_table_in_force_tells_that_a_router_was_seen() -> None:
    made = meters.Meters(window_seconds=60)
    assert made.answers(100.0)[answers.TABLES] == ()

    made.serve_by("default/chat", "1.1-abc")
    scraped(made, 100.0)
    made.serve_by("default/chat", "1.2-def")
    scraped(made, 105.0)

    found = {answer.labels for answer in made.answers(105.0)[answers.TABLES]}  # type: ignore[union-attr]
    assert found == {("default/chat", "1.2-def", meters.ROUTER)}


def test_engines_are_those_of_the_last_scrape() -> None:
    made = meters.Meters(window_seconds=60)
    first = {"small-1": observation.EngineReading(running=Sample(3, 100.0))}
    scraped(made, 100.0, first)
    assert made.engines == first

    scraped(made, 105.0, {})

    assert made.engines == {}


def test_every_query_of_a_cycle_is_answered() -> None:
    made = meters.Meters(window_seconds=60)

    assert set(made.answers(0.0)) == set(answers.queries(60))


def test_series_that_nobody_adds_to_are_forgotten_in_the_end() -> None:
    made = meters.Meters(window_seconds=60)
    for hour in range(30):
        made.serve_by("default/chat", f"1.{hour}-abc")
        made.keep(made.sample(3600.0 * hour))

    kept = sum(len(group) for group in made._store._series.values())

    assert kept <= 2
    (answer,) = made.answers(3600.0 * 29)[answers.TABLES]  # type: ignore[misc]
    assert answer.labels[1] == "1.29-abc"
