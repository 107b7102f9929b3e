"""Each way to forecast by itself: what it says on a constant, on a line, on a shape, and at uneven steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import forecasters, season

times = st.lists(st.floats(0.5, 300.0), min_size=1, max_size=40).map(
    lambda steps: [1e6 + sum(steps[: number + 1]) for number in range(len(steps))]
)


@given(times, st.floats(0, 1e4), st.floats(1, 900))
def test_a_constant_is_forecast_as_itself_by_every_method(at: list[float], value: float, horizon: float) -> None:
    samples = [(moment, value) for moment in at]
    for name, words in forecasters.all_of(samples, horizon, None).items():
        assert words == pytest.approx([value] * len(samples), rel=1e-9), name


@given(
    times.flatmap(lambda at: st.tuples(st.just(at), st.lists(st.floats(0, 1e4), min_size=len(at), max_size=len(at))))
)
def test_no_word_looks_at_what_comes_later(world: tuple[list[float], list[float]]) -> None:
    samples = list(zip(*world, strict=True))
    whole = forecasters.all_of(samples, 60.0, None)
    half = forecasters.all_of(samples[: (len(samples) + 1) // 2], 60.0, None)
    for name, words in half.items():
        assert whole[name][: len(words)] == words


def test_an_average_early_on_is_the_plain_mean_and_later_forgets() -> None:
    samples = [(15.0 * number, float(value)) for number, value in enumerate((4, 8, 6, 2))]
    # e^(-15/6000) is close to 1.
    assert forecasters.average(samples, 6000.0) == pytest.approx([4.0, 6.0, 6.0, 5.0], rel=0.01)
    steps = [(15.0 * number, 0.0 if number < 100 else 10.0) for number in range(105)]
    # Five samples of 75 s: all but e^(-75/60) = 29 % of the weight is theirs.
    assert forecasters.average(steps, 60.0)[-1] == pytest.approx(10.0 * (1 - math.exp(-75 / 60)), rel=0.01)


def test_a_damped_trend_goes_on_along_a_line_and_ends() -> None:
    line = [(15.0 * number, 5.0 + 0.01 * 15 * number) for number in range(400)]
    last = line[-1][1]
    near, far = (forecasters.damped_trend(line, horizon)[-1] for horizon in (60.0, 900.0))
    assert last < near < last + 0.01 * 60
    assert near < far < last + 0.01 * 700  # never more than slope times damping time


def test_a_falling_trend_stops_at_nothing() -> None:
    samples = [(15.0 * number, max(0.0, 60.0 - number)) for number in range(60)]
    assert forecasters.damped_trend(samples, 900.0)[-1] == 0.0


def test_a_season_moves_the_level_by_its_ratio_and_at_most_doubles_it() -> None:
    shape = season.Shape((10.0, 10.0, 15.0, 90.0), floor=0.0)
    at = 0.5 * season.BIN_SECONDS + forecasters.LEVEL_SECONDS
    words = forecasters.seasonal([(at, 4.0)], [4.0], 600.0 - forecasters.LEVEL_SECONDS, shape)
    assert words == [4.0]
    words = forecasters.seasonal([(at, 4.0)], [4.0], 1200.0 - forecasters.LEVEL_SECONDS, shape)
    assert words == [pytest.approx(6.0)]
    words = forecasters.seasonal([(at, 4.0)], [4.0], 1800.0 - forecasters.LEVEL_SECONDS, shape)
    assert words == [8.0]


def test_seasons_that_say_nothing_of_the_moment_are_not_asked() -> None:
    empty = season.of([(600.0, 5.0)])
    assert set(forecasters.all_of([(1e6, 3.0)], 60.0, empty)) == {
        forecasters.LAST,
        forecasters.LEVEL,
        forecasters.MEAN,
        forecasters.TREND,
    }
