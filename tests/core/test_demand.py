"""The forecast: a method where it helps, the last value where none does, and how wrong it was; outages left out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import demand, forecasters, season

STEP = 15.0
DAY = 86_400.0


def history(*values: float) -> list[tuple[float, float]]:
    """Samples every 15 s, the last one at time 0."""
    return [((index - len(values) + 1) * STEP, value) for index, value in enumerate(values)]


def noisy(rate: Callable[[float], float], count: int = 480, *, seed: int = 5) -> list[tuple[float, float]]:
    """Rates over 60 s of Poisson arrivals, every 15 s up to time 0."""
    rng = random.Random(seed)
    counts = [
        max(0.0, rng.gauss(m, math.sqrt(m))) for m in (STEP * rate((i - count - 2) * STEP) for i in range(count + 3))
    ]
    return history(*[sum(counts[i : i + 4]) / 60.0 for i in range(count)])


def test_no_history_is_no_demand() -> None:
    assert demand.forecast([], 120.0, 0.0) == demand.Forecast(0.0, 0.0, "none")


def test_a_steady_rate_is_forecast_as_it_is_with_its_counting_noise() -> None:
    found = demand.forecast(history(*[6.0] * 60), 120.0, 0.0, quantile=0.95)
    assert found.mean == pytest.approx(6.0)
    # 6/s counted over 60 s is known to within sqrt(6/60) = 0.316; the 95 % tail is 1.645 of those.
    assert found.upper == pytest.approx(6.0 + 1.645 * 0.316, abs=0.01)


def test_arrivals_in_bunches_have_more_counting_noise() -> None:
    found = demand.forecast(history(*[6.0] * 60), 120.0, 0.0, quantile=0.95, dispersion=9.0)
    assert found.upper == pytest.approx(6.0 + 1.645 * 3 * 0.316, abs=0.01)


def test_a_ramp_is_followed_ahead_of_the_last_value() -> None:
    ramp = [2.0 + 0.1 * step for step in range(100)]  # 0.4 more a minute, 11.9 at the end
    found = demand.forecast(history(*ramp), 120.0, 0.0)
    assert found.method == forecasters.TREND
    # Two minutes on it is 12.7; the damped trend falls a little short of it, and a third of the word is the last value's.
    assert 12.0 < found.mean < 12.7
    assert found.error_ratio < 0.9 * found.last_error_ratio
    assert found.upper > 12.7


def test_noise_around_a_rate_that_stays_is_averaged_out() -> None:
    found = demand.forecast(noisy(lambda _: 3.0), 240.0, 0.0)
    assert found.method in {forecasters.MEAN, forecasters.LEVEL, forecasters.TREND}
    assert found.error_ratio < found.last_error_ratio


def test_an_aimless_walk_falls_back_to_the_last_value() -> None:
    rng, value, values = random.Random(8), 50.0, []
    for _ in range(480):
        value *= math.exp(rng.gauss(0, 0.05))
        values.append(value)
    assert demand.forecast(history(*values), 60.0, 0.0).mean == values[-1]


def test_few_past_forecasts_are_not_trusted() -> None:
    # Three of four minutes ago at most: what beat the last value then may have been luck.
    found = demand.forecast(history(*[2.0 + 0.1 * step for step in range(18)]), 240.0, 0.0)
    assert found.method == forecasters.LAST


def test_the_upper_value_carries_the_errors_that_were_made() -> None:
    calm = demand.forecast(history(*[5.0] * 50), 60.0, 0.0)
    wild = demand.forecast(history(*[5.0 + 4.0 * math.sin(step) for step in range(49)], 5.0), 60.0, 0.0)
    assert wild.upper - wild.mean > 3 * (calm.upper - calm.mean)


@pytest.mark.parametrize("horizon", [60.0, 240.0, 600.0])
@pytest.mark.parametrize("quantile", [0.8, 0.95])
def test_the_upper_value_is_exceeded_as_often_as_asked(horizon: float, quantile: float) -> None:
    def rate(at: float) -> float:
        return 8.0 + 3.0 * math.sin(at / 1500.0)

    met, count = 0, 60
    for number in range(count):
        offset = number * 937.0
        past = noisy(lambda at, offset=offset: rate(at + offset), seed=number)  # type: ignore[misc]
        came = noisy(lambda at, offset=offset: rate(at + offset + horizon), count=1, seed=1000 + number)[-1][1]  # type: ignore[misc]
        met += came <= demand.forecast(past, horizon, 0.0, quantile=quantile).upper
    # 60 draws: two standard deviations are 10 points at 80 %, 6 at 95 %.
    assert abs(met / count - quantile) < (0.14 if quantile < 0.9 else 0.08)


def test_a_jump_is_believed_at_once() -> None:
    found = demand.forecast(history(*[1.0] * 50, 9.0), 120.0, 0.0)
    assert found.method == forecasters.LAST
    assert found.mean == 9.0
    assert found.upper > 9.0


def test_a_pause_in_bursty_traffic_gives_no_endless_margin() -> None:
    bursts = [8.0 if step % 12 < 4 else 0.0 for step in range(240)]
    found = demand.forecast(history(*bursts), 60.0, 0.0)
    assert found.upper < 13.0


def test_a_trend_never_runs_away() -> None:
    assert demand.forecast(history(1.0, 100.0), 900.0, 0.0).mean == 100.0


def cut(samples: list[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """The same with nobody able to call from ``start`` to ``end``: rates over 60 s fall and rise within a minute."""

    def share(at: float) -> float:
        return 1.0 - max(0.0, min(at, end) - max(at - 60.0, start)) / 60.0

    return [(at, value * share(at)) for at, value in samples]


@pytest.mark.parametrize("ago", [300.0, 1200.0, 3000.0], ids="{:.0f} s ago".format)
def test_a_forecast_is_not_poisoned_by_an_outage(ago: float) -> None:
    calm = noisy(lambda _: 6.0)
    whole, holed = (demand.forecast(samples, 120.0, 0.0) for samples in (calm, cut(calm, -ago - 480.0, -ago)))
    assert holed.mean == pytest.approx(whole.mean, rel=0.1)
    assert holed.upper == pytest.approx(whole.upper, rel=0.1)
    assert holed.error_ratio < 0.15


def test_while_an_outage_is_young_what_was_before_is_still_carried() -> None:
    found = demand.forecast(cut(noisy(lambda _: 6.0), -200.0, 99.0), 120.0, 0.0)
    assert found.method == "outage"
    assert found.mean < 0.1
    assert found.upper > 6.0


def test_the_first_minute_after_a_long_outage_is_not_poisoned_either() -> None:
    calm = noisy(lambda _: 6.0)
    back = demand.forecast(cut(calm, -1500.0, -50.0), 120.0, 0.0)
    assert back.upper == pytest.approx(demand.forecast(calm, 120.0, 0.0).upper, rel=0.15)


def test_traffic_that_comes_back_stronger_has_its_margin_too() -> None:
    back = [(at, value * (2.0 if at > -30.0 else 1.0)) for at, value in cut(noisy(lambda _: 6.0), -400.0, -45.0)]
    found = demand.forecast(back, 120.0, 0.0)
    assert found.method == "outage"
    assert found.upper > back[-1][1] * 1.05


def test_traffic_that_stays_away_is_believed_in_the_end() -> None:
    found = demand.forecast(cut(noisy(lambda _: 6.0), -1200.0, 99.0), 120.0, 0.0)
    assert found.method != "outage"
    assert found.mean == 0.0


def test_samples_that_are_missing_are_not_zero() -> None:
    calm = noisy(lambda _: 6.0)
    gap = [sample for sample in calm if not -1800.0 < sample[0] < -600.0]
    found = demand.forecast(gap, 120.0, 0.0)
    assert found.mean == pytest.approx(6.0, rel=0.2)
    assert found.upper < 9.0


NOW = 10 * DAY


def usual(rate: Callable[[float], float]) -> season.Season:
    """What three days before ``NOW`` looked like."""
    found = season.Season()
    for step in range(int(3 * DAY / STEP)):
        at = NOW - 3 * DAY + step * STEP
        found = found.add(at, rate(at))
    return found


def at_now(samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(NOW + at, value) for at, value in samples]


def test_a_season_is_used_where_it_foretells_the_rise() -> None:
    def rate(at: float) -> float:
        return 20.0 + 15.0 * math.sin(at / DAY * 2 * math.pi * 4)  # up and down every six hours

    past = at_now(noisy(rate))
    found = demand.forecast(past, 600.0, NOW, season=usual(rate))
    assert found.method in {forecasters.DAILY, forecasters.WEEKLY}
    assert found.error < 0.8 * demand.forecast(past, 600.0, NOW).error
    # It is 20 now and 22.6 in ten minutes; a third of the word is the last value's.
    assert found.mean - past[-1][1] > 1.0


def test_a_season_that_has_nothing_to_do_with_today_is_not_used() -> None:
    past = at_now(noisy(lambda at: 20.0 + 0.001 * at))
    found = demand.forecast(past, 600.0, NOW, season=usual(lambda at: 20.0 + 15.0 * math.cos(at / 600.0)))
    assert found.method not in {forecasters.DAILY, forecasters.WEEKLY}
    assert found.mean == pytest.approx(past[-1][1], rel=0.1)


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
    st.floats(0.5, 0.99),
)
def test_any_history_gives_a_finite_ordered_forecast(
    samples: list[tuple[float, float]], horizon: float, quantile: float
) -> None:
    found = demand.forecast(samples, horizon, 1e4, quantile=quantile)
    assert 0 <= found.mean <= found.upper < math.inf
    assert 0 <= found.error < math.inf


def test_a_calm_season_makes_narrow_margins_where_little_else_is_known() -> None:
    calm = usual(lambda at: 200.0 + 0.001 * (at - NOW))
    past = at_now(history(*[200.0] * 8))
    narrow = demand.forecast(past, 600.0, NOW, season=calm)
    wide = demand.forecast(past, 600.0, NOW)
    assert wide.upper > 240.0  # 200 and 1.64 times 16 % more, which is 252
    assert 200.0 < narrow.upper < 210.0  # counting noise is left: 1.64 times sqrt(200/60)
