"""Rates, increases and last values as Prometheus defines them, with the arithmetic beside each case."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import series, telemetry
from trimtab_core.signals import Sample
from trimtab_core.telemetry import Family, Kind, Operation, Query

COUNTER = Family("requests_total", Kind.COUNTER, "", ("policy", "class"))
GAUGE = Family("running", Kind.GAUGE, "")


def points(*pairs: tuple[float, float]) -> list[Sample]:
    """Samples from (time, value) pairs."""
    return [Sample(value, at) for at, value in pairs]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param(points((10, 100), (20, 110), (30, 120), (40, 130), (50, 140), (60, 150)), 60, id="steady 1/s"),
        # grew 50 over 50 s; the 10 s before the first sample are within 1.1 distances, so 50 * 60 / 50
        pytest.param(points((10, 100), (20, 110), (30, 5), (40, 15), (50, 25), (60, 35)), 54, id="restart at 30"),
        # 35 - 100 + 110 = 45 over 50 s, extrapolated to 60 s: 54
        pytest.param(points((40, 100), (50, 110), (60, 120)), 25, id="young series"),
        # 20 over 20 s; 40 s to the start is more than 1.1 * 10, so half a distance: 20 * 25 / 20
        pytest.param(points((40, 0), (50, 10), (60, 20)), 20, id="young series from zero"),
        # it was zero at 40, so nothing is added before
        pytest.param(points((10, 100), (20, 110), (30, 120)), 35, id="stopped series"),
        # 20 over 20 s, +10 s at the start, +5 s (half a distance) at the end: 20 * 35 / 20
        pytest.param(points((10, 7), (60, 7)), 0, id="idle"),
    ],
)
def test_an_increase_over_sixty_seconds(samples: list[Sample], expected: float) -> None:
    assert series.increase(samples, start=0, end=60) == pytest.approx(expected)
    assert series.rate(samples, start=0, end=60) == pytest.approx(expected / 60)


@pytest.mark.parametrize("samples", [[], points((30, 5)), points((-10, 5), (0, 6), (70, 9))])
def test_fewer_than_two_samples_in_the_window_are_no_answer(samples: list[Sample]) -> None:
    assert series.increase(samples, start=0, end=60) is None
    assert series.rate(samples, start=0, end=60) is None


def test_a_nan_sample_stays_a_nan_for_the_reader_to_judge() -> None:
    result = series.rate(points((10, 1), (20, math.nan), (30, 3), (40, math.nan)), start=0, end=60)

    assert result is not None
    assert math.isnan(result)


@given(
    st.lists(st.floats(0, 1000), min_size=2, max_size=30),
    st.integers(0, 29),
)
def test_growth_is_never_negative_and_a_restart_never_hides_what_came_after(steps: list[float], restart: int) -> None:
    value, samples = 0.0, []
    for index, step in enumerate(steps):
        value = step if index == restart else value + step
        samples.append(Sample(value, 10.0 * (index + 1)))

    grown = series.increase(samples, start=0, end=10.0 * len(steps))

    assert grown is not None
    assert grown >= sum(steps[1:]) - steps[0] - 1e-6 if restart == 0 else grown >= -1e-9
    assert math.isfinite(grown)


@given(st.floats(0.1, 50), st.integers(3, 40))
def test_a_steady_counter_has_its_own_rate(per_second: float, count: int) -> None:
    samples = [Sample(1000 + per_second * 5 * index, 5.0 * index) for index in range(count)]

    found = series.rate(samples, start=0, end=5.0 * (count - 1))

    # the sample at the start itself lies outside the window (left open), the growth is extrapolated back over it
    assert found == pytest.approx(per_second)


def test_the_last_value_is_the_newest_until_it_is_too_old() -> None:
    samples = points((10, 1), (20, 2), (30, 3))

    assert series.last(samples, now=25) == Sample(2, 20)
    assert series.last(samples, now=330) == Sample(3, 30)
    assert series.last(samples, now=331) is None
    assert series.last(samples, now=5) is None


def counter_query(**changes: object) -> Query:
    settings: dict[str, object] = {"by": ("policy", "class"), "window_seconds": 60.0} | changes
    return Query(COUNTER, Operation.RATE, **settings)  # type: ignore[arg-type]


def filled_store() -> series.Store:
    """Two routers: class a at 1/s through each, class b at 0.5/s through the first only."""
    store = series.Store()
    for at in range(0, 121, 10):
        for router in ("r1", "r2"):
            store.add("requests_total", {"policy": "p", "class": "a"}, Sample(100.0 + at, at), source=router)
        store.add("requests_total", {"policy": "p", "class": "b"}, Sample(50.0 + at / 2, at), source="r1")
    return store


def test_rates_of_several_routers_are_added_by_the_labels_asked_for() -> None:
    store = filled_store()

    by_class = store.answer(counter_query(), now=120)
    by_policy = store.answer(counter_query(by=("policy",)), now=120)

    assert [(answer.labels, round(answer.value, 6)) for answer in by_class] == [(("p", "a"), 2.0), (("p", "b"), 0.5)]
    assert [(answer.labels, round(answer.value, 6)) for answer in by_policy] == [(("p",), 2.5)]
    assert all(answer.observed_at == 120 for answer in by_class)


def test_a_condition_on_labels_leaves_the_rest_out() -> None:
    answers = filled_store().answer(counter_query(where=(("class", "b"),)), now=120)

    assert [answer.labels for answer in answers] == [("p", "b")]


def test_the_answer_tells_how_old_its_newest_sample_is() -> None:
    (answer, _) = filled_store().answer(counter_query(), now=150)

    assert answer.observed_at == 120


def test_what_nobody_measured_has_no_answer() -> None:
    store = filled_store()

    assert store.answer(Query(GAUGE, Operation.LAST, ()), now=120) == ()
    assert store.answer(counter_query(), now=1000) == ()


def test_a_target_that_went_away_loses_its_gauges_and_keeps_its_growth() -> None:
    store = filled_store()
    store.add("running", {}, Sample(7, 120), source="r1")
    store.add("running", {}, Sample(5, 120), source="r2")

    store.end("r2", at=121)

    assert [answer.value for answer in store.answer(Query(GAUGE, Operation.LAST, ()), now=125)] == [7]
    assert store.answer(counter_query(), now=121)[0].value > 1.9


def test_the_growth_of_a_target_that_went_away_is_as_old_as_the_window() -> None:
    """A failed scrape ends its series, and the rate falls from then on because samples lack: it must not look fresh."""
    store = series.Store()
    for at in (100, 110, 120):
        store.add("requests_total", {"policy": "p"}, Sample(at, at), source="r1")
    query = Query(COUNTER, Operation.RATE, ("policy",), window_seconds=60)
    assert store.answer(query, 125)[0].observed_at == 120

    store.end("r1", at=125)

    assert store.answer(query, 126)[0].observed_at == 126 - 60


def test_a_target_that_comes_back_counts_again() -> None:
    store = series.Store()
    store.add("running", {}, Sample(5, 120), source="r2")
    store.end("r2", at=121)
    store.add("running", {}, Sample(6, 130), source="r2")

    assert [answer.value for answer in store.answer(Query(GAUGE, Operation.LAST, ()), now=131)] == [6]


def test_a_series_that_a_scrape_no_longer_shows_has_ended_and_keeps_its_growth() -> None:
    store = series.Store()
    store.add("running", {"version": "1"}, Sample(1, 120), source="r1")
    store.add("running", {"version": "2"}, Sample(1, 130), source="r1")
    store.add("running", {"version": "3"}, Sample(1, 120), source="r2")

    store.end_absent("r1", at=130)

    by_version = Query(GAUGE, Operation.LAST, ("version",))
    assert [answer.labels for answer in store.answer(by_version, now=131)] == [("2",), ("3",)]


def test_samples_out_of_order_are_dropped_and_old_ones_forgotten() -> None:
    store = series.Store(retention_seconds=100)
    for at, value in ((0, 1.0), (10, 2.0), (10, 99.0), (5, 99.0), (200, 3.0)):
        store.add("running", {}, Sample(value, at))

    assert store.answer(Query(GAUGE, Operation.LAST, ()), now=50) == ()  # the early samples are beyond the retention
    assert [answer.value for answer in store.answer(Query(GAUGE, Operation.LAST, ()), now=200)] == [3.0]

    store.forget(before=201)

    assert store.answer(Query(GAUGE, Operation.LAST, ()), now=200) == ()


def test_a_histogram_is_asked_by_its_suffix() -> None:
    store = series.Store()
    for at in (0, 10, 20):
        store.add("trimtab_router_ttft_seconds_sum", {"policy": "p"}, Sample(at * 2.0, at))

    query = Query(telemetry.TTFT, Operation.INCREASE, ("policy",), window_seconds=20, suffix="_sum")

    assert store.answer(query, now=20)[0].value == pytest.approx(40)
