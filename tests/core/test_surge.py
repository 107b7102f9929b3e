"""A step in arrivals is seen whole while the rate over a minute still shows a part of it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import surge

WINDOW = 60.0


def rates(before: float, after: float, *, step_at: float, until: float, every: float = 15.0) -> list[surge.Sample]:
    """What a rate over a minute shows when arrivals step at a time."""
    return [
        (at, before + (after - before) * min(max(at - step_at, 0.0), 60.0) / 60.0)
        for at in (every * number for number in range(int(until / every) + 1))
    ]


@pytest.mark.parametrize("seen", [15.0, 30.0, 45.0])
def test_a_step_is_seen_whole_from_the_first_sample_after_it(seen: float) -> None:
    found = rates(1.0, 10.0, step_at=300.0, until=300.0 + seen)

    assert found[-1][1] < 8.0
    assert surge.present(found, WINDOW) == pytest.approx(10.0)


def test_a_step_between_two_samples_is_seen_in_part_and_never_exaggerated() -> None:
    found = [
        surge.present(rates(1.0, 10.0, step_at=305.0, until=until), WINDOW) for until in (315.0, 330.0, 345.0, 360.0)
    ]

    # 10 of 15 s, 25 of 30 s, 40 of 45 s; then the rise is a minute old, and the rate is left alone
    assert found == pytest.approx([7.0, 8.5, 9.0, 9.25])


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([], 0.0, id="nothing known"),
        pytest.param([(0.0, 4.0)], 4.0, id="one sample"),
        pytest.param([(0.0, 4.0), (15.0, 4.1)], 4.1, id="noise"),
        pytest.param([(0.0, 0.02), (15.0, 0.1)], 0.1, id="five arrivals more may be chance"),
        pytest.param([(0.0, 40.0), (15.0, 50.0)], 50.0, id="a quarter more is no surge"),
        pytest.param([(0.0, 8.0), (15.0, 2.0)], 2.0, id="a fall"),
        pytest.param([(0.0, 0.0), (15.0, 2.0)], 8.0, id="from nothing"),
        pytest.param([(0.0, 1.0), (300.0, 9.0)], 9.0, id="too long ago to compare"),
        pytest.param([(0.0, 0.99), (15.0, 1.0), (30.0, 3.0)], 1.0 + 2.0 * 4, id="noise before it is no part of it"),
        pytest.param([(0.0, 1.0), (15.0, 3.0), (30.0, 2.0), (45.0, 6.0)], 2.0 + 4.0 * 4, id="since the last fall"),
    ],
)
def test_rises_and_what_is_none(history: list[surge.Sample], expected: float) -> None:
    assert surge.present(history, WINDOW) == pytest.approx(expected)


def test_bunched_arrivals_need_a_larger_rise() -> None:
    history = [(0.0, 1.0), (15.0, 3.0)]

    assert surge.present(history, WINDOW) == pytest.approx(9.0)
    assert surge.present(history, WINDOW, dispersion=16.0) == 3.0


def test_a_steady_stream_hardly_ever_surges() -> None:
    rng = random.Random(7)
    counts = [sum(rng.random() < 0.4 for _ in range(10)) for _ in range(20_000)]  # of every 5 s, 0.8 a second
    series = [(5.0 * at, sum(counts[at - 12 : at]) / 60.0) for at in range(12, len(counts), 3)]

    false = sum(surge.present(series[max(0, at - 8) : at], WINDOW) > series[at - 1][1] for at in range(1, len(series)))

    assert false <= 1


@given(
    st.lists(st.tuples(st.floats(1.0, 90.0), st.floats(0.0, 100.0)), min_size=1, max_size=12),
    st.floats(1.0, 20.0),
)
def test_it_is_finite_and_never_below_the_last_sample(steps: list[tuple[float, float]], dispersion: float) -> None:
    at, history = 0.0, []
    for elapsed, value in steps:
        at += elapsed
        history.append((at, value))

    found = surge.present(history, WINDOW, dispersion)

    assert history[-1][1] <= found < math.inf


def ramp(start: float, end: float, *, seconds: int = 120, every: int = 15) -> list[surge.Sample]:
    """A rate that rises in a straight line after two quiet minutes."""
    quiet = [(float(at), start) for at in range(0, 120, every)]
    rise = [(120.0 + at, start + (end - start) * at / seconds) for at in range(0, seconds + 1, every)]
    return [*quiet, *rise]


def test_a_ramp_goes_on_until_what_is_ordered_serves() -> None:
    """From 20 to 32 in two minutes: 6 a minute; half a window late and ten seconds ahead is 4 more."""
    assert surge.ahead(ramp(20.0, 32.0), 10.0, WINDOW) == pytest.approx(36.0)


def test_no_ramp_is_carried_on_for_long_or_beyond_half_as_much_again() -> None:
    assert surge.ahead(ramp(20.0, 32.0), 600.0, WINDOW) == pytest.approx(32.0 + 6.0 * (30.0 + 30.0) / 60.0)
    assert surge.ahead(ramp(2.0, 40.0, seconds=60), 600.0, WINDOW) == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("history", "dispersion"),
    [
        pytest.param(ramp(20.0, 20.0), 1.0, id="level"),
        pytest.param(ramp(20.0, 24.0), 1.0, id="what chance may have made"),
        pytest.param(ramp(20.0, 8.0), 1.0, id="a fall"),
        pytest.param(ramp(20.0, 32.0), 9.0, id="arrivals in bursts"),
        pytest.param([(0.0, 5.0), (300.0, 40.0)], 1.0, id="nothing was seen for minutes"),
        pytest.param([(0.0, 5.0)], 1.0, id="a single sample"),
    ],
)
def test_what_is_no_ramp_stays_as_it_is(history: list[surge.Sample], dispersion: float) -> None:
    assert surge.ahead(history, 60.0, WINDOW, dispersion) == history[-1][1]


def test_without_samples_nothing_comes() -> None:
    assert surge.ahead([], 60.0, WINDOW) == 0.0


def test_a_single_request_where_none_came_is_no_surge() -> None:
    history = [(0.0, 0.0), (1.0, 0.0), (2.0, 1 / WINDOW)]
    assert surge.present(history, WINDOW) == 1 / WINDOW


def test_over_a_short_window_a_step_is_whole_sooner() -> None:
    """A step from 2 to 10 a second that a window of 6 s shows a third of after two."""
    history = [(0.0, 2.0), (1.0, 2.0), (2.0, 2.0), (3.0, 2.0 + 8.0 / 6.0), (4.0, 2.0 + 16.0 / 6.0)]
    assert surge.present(history, 6.0) == pytest.approx(10.0)
