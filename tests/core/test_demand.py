"""The forecast: a trend where it helps, the last value where it doesn't, and how wrong either was."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import demand

STEP = 15.0


def history(*values: float) -> list[tuple[float, float]]:
    """Samples every 15 s, the last one at time 0."""
    return [((index - len(values) + 1) * STEP, value) for index, value in enumerate(values)]


def test_no_history_is_no_demand() -> None:
    assert demand.forecast([], 120.0, 0.0) == demand.Forecast(0.0, 0.0, "none")


def test_a_steady_rate_is_forecast_as_it_is_with_its_counting_noise() -> None:
    found = demand.forecast(history(*[6.0] * 60), 120.0, 0.0, quantile=0.95)
    assert found.mean == pytest.approx(6.0)
    # 6/s counted over 60 s is known to within sqrt(6/60) = 0.316; the 95 % tail is 1.645 of those.
    assert found.upper == pytest.approx(6.0 + 1.645 * 0.316, abs=0.01)


def test_a_ramp_is_followed_ahead_of_the_last_value() -> None:
    ramp = [2.0 + 0.1 * step for step in range(60)]  # 0.4 more a minute, 7.9 at the end
    found = demand.forecast(history(*ramp), 120.0, 0.0)
    assert found.method == "trend"
    # Two minutes on it is 8.7; the damped trend may fall a little short of it.
    assert 8.2 < found.mean < 8.9


def test_noise_without_a_trend_falls_back_to_the_last_value() -> None:
    rng = random.Random(5)
    found = demand.forecast(history(*[rng.choice([2.0, 10.0]) for _ in range(100)] + [10.0, 2.0, 10.0]), 15.0, 0.0)
    # Alternating: one error is at most that of the other; the fallback must at least know its own error.
    assert found.error > 2.0
    assert found.upper > found.mean + found.error


def test_the_upper_value_carries_the_error_that_was_made() -> None:
    calm = demand.forecast(history(*[5.0] * 50), 60.0, 0.0)
    wild = demand.forecast(history(*[5.0 + 4.0 * math.sin(step) for step in range(49)], 5.0), 60.0, 0.0)
    assert wild.upper - wild.mean > 3 * (calm.upper - calm.mean)


def test_a_jump_is_believed_at_once() -> None:
    found = demand.forecast(history(*[1.0] * 50, 9.0), 120.0, 0.0)
    assert found.upper >= 9.0


def test_a_trend_never_runs_away() -> None:
    found = demand.forecast(history(1.0, 100.0), 900.0, 0.0)
    assert found.mean == 100.0


@pytest.mark.parametrize(
    "sample", [(5.0, math.nan), (5.0, -3.0), (5.0, math.inf), (math.nan, 3.0), (-999.0, 3.0)],
    ids=["NaN", "negative", "infinite", "no time", "out of order"],
)  # fmt: skip
def test_an_unusable_sample_is_as_good_as_none(sample: tuple[float, float]) -> None:
    good = history(4.0, 5.0, 6.0)
    assert demand.forecast([*good, sample], 60.0, 10.0) == demand.forecast(good, 60.0, 10.0)


def test_the_future_is_not_looked_at() -> None:
    assert demand.forecast([(0.0, 4.0), (100.0, 50.0)], 60.0, 10.0).mean == 4.0


@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e3, 1e3) | st.just(math.nan)), max_size=40),
    st.floats(0.0, 900.0),
)
def test_any_history_gives_a_finite_ordered_forecast(samples: list[tuple[float, float]], horizon: float) -> None:
    found = demand.forecast(samples, horizon, 1e4)
    assert 0 <= found.mean <= found.upper < math.inf
