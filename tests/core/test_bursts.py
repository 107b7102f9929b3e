"""Bursts that end before a replica could start: what is kept ready for the next ones, and how long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import bursts

WINDOW, STARTUP, STEP = 60.0, 120.0, 15.0


def rates(*arrivals: tuple[float, float, float], until: float, base: float = 0.0) -> list[bursts.Sample]:
    """What a rate over a minute shows of stretches (from, to, requests per second) above a base."""

    def counted(at: float) -> float:
        return sum(rate * max(0.0, min(at, end) - max(at - WINDOW, begin)) for begin, end, rate in arrivals)

    return [(at, base + counted(at) / WINDOW) for at in (STEP * number for number in range(int(until / STEP) + 1))]


def every(seconds: float, count: int, rate: float = 20.0, lasting: float = 30.0) -> list[tuple[float, float, float]]:
    """So many bursts of one height and length, one after the other."""
    return [(seconds * number, seconds * number + lasting, rate) for number in range(1, count + 1)]


def of(history: list[bursts.Sample], now: float | None = None, late: float = 0.01) -> bursts.Bursts | None:
    """The bursts that are known at the end of a history."""
    now = history[-1][0] if now is None else now
    return bursts.of(history, now, window_seconds=WINDOW, horizon_seconds=STARTUP, late=late)


def test_bursts_that_came_and_went_are_kept_ready_for_until_the_next() -> None:
    found = of(rates(*every(300, 5), until=1700))

    assert found is not None
    assert found.passed == 5
    assert found.level == pytest.approx(20.0, rel=0.1)  # each is known at its full height, though a minute shows 10


@pytest.mark.parametrize(
    "arrivals",
    [
        pytest.param([], id="nothing comes"),
        pytest.param(every(300, 2), id="two of two may be chance"),
        pytest.param([(300, 9000, 20.0)], id="a step that stays"),
        pytest.param([(300 * n, 9000, 10.0 * 2**n) for n in range(1, 6)], id="steps that stay"),
        pytest.param(every(600, 4, lasting=400.0), id="bursts that last longer than a start-up"),
    ],
)
def test_what_rises_is_believed_where_it_was_not_seen_to_pass(arrivals: list[tuple[float, float, float]]) -> None:
    assert of(rates(*arrivals, until=1700)) is None


@pytest.mark.parametrize(
    ("quiet", "kept"),
    [
        pytest.param(300.0, True, id="as long as between two"),
        pytest.param(550.0, True, id="not yet twice as long"),
        pytest.param(700.0, False, id="more than twice as long as ever"),
    ],
)
def test_it_is_kept_for_twice_the_longest_pause(quiet: float, *, kept: bool) -> None:
    found = of(rates(*every(300, 6), until=1800 + quiet))

    assert found is not None
    assert (found.level > 0) == kept


def test_pauses_that_few_requests_come_after_need_not_be_waited_for() -> None:
    # twelve pauses of five minutes and one of an hour, after which a thirteenth of all requests comes
    history = rates(*every(300, 12), (7200, 7230, 20.0), until=8400)

    strict, lenient = of(history, late=0.01), of(history, late=0.2)

    assert strict is not None
    assert strict.level > 0
    assert lenient is not None
    assert lenient.level == 0  # twenty minutes are more than twice five


def test_a_rare_high_burst_counts_by_the_requests_that_it_brings() -> None:
    low, high = every(300, 11), (3600.0, 3630.0, 60.0)
    history = rates(*low, high, until=3800)

    strict, lenient = of(history, late=0.01), of(history, late=0.3)

    # a burst of 60 is 3/14 of all requests: too many for a promise of 99 %, and affordable for one of 70 %
    assert strict is not None
    assert strict.level > 35
    assert lenient is not None
    assert 10 < lenient.level < 25


def test_bursts_are_forgotten_after_two_hours() -> None:
    assert of(rates(*every(300, 5), until=1700), now=1700 + bursts.MEMORY_SECONDS) is None


def test_values_that_are_no_rates_and_samples_to_come_are_left_out() -> None:
    history = rates(*every(300, 5), until=1700)
    spoilt = [*history[:40], (607.0, math.nan), (608.0, math.inf), (609.0, -1.0), *history[41:], (5000.0, 1e9)]

    clean = [sample for sample in spoilt if sample in history]

    assert of(spoilt, now=1700) == of(clean, now=1700)


@given(st.lists(st.floats(0, 1e6), max_size=60), st.floats(0.0, 1.0))
def test_the_level_is_at_most_what_came_at_its_densest(values: list[float], late: float) -> None:
    history = [(STEP * number, value) for number, value in enumerate(values)]

    found = of(history, now=STEP * 60, late=late)

    # a rate that rises within 15 of 60 s may have been four times as dense
    assert found is None or 0 <= found.level <= 4 * max(values) * (1 + 1e-6)


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True)), max_size=40), st.floats(0.0, 1.0))
def test_any_history_gives_a_finite_level_or_none(history: list[bursts.Sample], late: float) -> None:
    found = of(history, now=7000.0, late=late)

    assert found is None or 0 <= found.level < math.inf
