"""A usual week in 10-minute bins: filled late, moved half of the way, and nothing from gaps and outages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import season

BIN = season.BIN_SECONDS
HOUR = 3600.0
DAY = 86_400.0
START = 20_000 * DAY


def filled(start: float, seconds: float, rate: float, before: season.Season | None = None) -> season.Season:
    """A sample every 15 s."""
    found = before or season.Season()
    for step in range(int(seconds / 15)):
        found = found.add(start + 15 * step, rate)
    return found


def known(found: season.Season) -> int:
    return sum(value >= 0 for value in found.week_bins)


def place(at: float) -> int:
    return int(at // BIN) % season.WEEK_BINS


def test_a_bin_is_written_three_hours_after_it_was_full() -> None:
    early = filled(START, 3 * HOUR + BIN, 4.0)
    assert known(early) == 0
    assert early.day is None
    late = filled(START + 3 * HOUR + BIN, 2 * BIN, 4.0, early)
    assert known(late) == 2
    assert late.week_bins[place(START)] == 4.0


def test_a_bin_that_was_seen_before_moves_half_of_the_way() -> None:
    found = filled(START, 4 * HOUR, 4.0)
    again = filled(START + 7 * DAY, 4 * HOUR, 8.0, found)
    assert again.week_bins[place(START)] == pytest.approx(6.0)


def test_a_bin_of_which_little_was_seen_is_left_as_it_was() -> None:
    found = filled(START, 4 * HOUR, 4.0)
    short = filled(START + 7 * DAY, 200.0, 8.0, found)
    later = filled(START + 7 * DAY + BIN, 4 * HOUR, 4.0, short)
    assert later.week_bins[place(START)] == 4.0


def test_an_outage_leaves_no_trace() -> None:
    calm = filled(START, HOUR, 4.0)
    hole = filled(START + HOUR, 1500.0, 0.0, calm)
    back = filled(START + HOUR + 1500.0, 5 * HOUR, 4.0, hole.without(START + HOUR, START + HOUR + 1500.0))
    bins = [back.week_bins[place(START + step * BIN)] for step in range(10)]
    assert bins[:6] == [4.0] * 6
    # 25 minutes touch the bins 6, 7 and 8; what came later in the last of them counts.
    assert bins[6:8] == [season.UNKNOWN] * 2
    assert bins[9] == 4.0
    assert min(value for value in back.week_bins if value >= 0) == 4.0


def test_the_day_is_the_mean_of_the_days_that_are_known() -> None:
    found = season.of([(START + BIN, 2.0), (START + DAY + BIN, 6.0)])
    assert found.day is not None
    assert found.day.bins[int(START // BIN) % season.DAY_BINS] == 4.0


def test_between_the_middles_of_two_bins_a_shape_is_a_line() -> None:
    shape = season.Shape((1.0, 3.0, season.UNKNOWN), floor=0.1)
    assert shape.at(0.5 * BIN) == 1.0
    assert shape.at(1.0 * BIN) == 2.0
    assert shape.at(1.5 * BIN) is None  # the next bin is not known
    assert shape.at(3.5 * BIN) == 1.0  # and round again
    assert not shape.covers(2.5 * BIN)


def test_means_of_a_database_fill_the_bins_that_they_end() -> None:
    found = season.of([(START + BIN, 5.0), (START + 2 * BIN, math.nan), (START + 3 * BIN, -1.0)])
    assert found.week_bins[place(START)] == 5.0
    assert known(found) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([4, 0, 0, 4], [4, -1, -1, 4], id="a hole"),
        pytest.param([4, 0, 0], [4, 0, 0], id="nothing more so far"),
        pytest.param([4, 1, 0, 1], [4, 1, -1, 1], id="a small one"),
        pytest.param([4, *[0] * 8, 4], [4, *[0] * 8, 4], id="a quiet night"),
    ],
)
def test_an_hour_of_nothing_in_a_database_is_a_hole(values: list[float], expected: list[float]) -> None:
    found = season.of([(START + (number + 1) * BIN, float(value)) for number, value in enumerate(values)])
    assert [found.week_bins[place(START + number * BIN)] for number in range(len(values))] == expected


def test_seasons_add_up_where_all_are_known() -> None:
    one = season.of([(START + BIN, 5.0), (START + 2 * BIN, 1.0)])
    other = season.of([(START + BIN, 2.0)])
    whole = season.total([one, other])
    assert whole is not None
    assert whole.week_bins[place(START)] == 7.0
    assert known(whole) == 1
    assert season.total([]) is None
    assert season.total([one, season.Season()]) is None
    assert season.total([one, None]) is None


@given(st.lists(st.tuples(st.floats() | st.floats(0, 1e6), st.floats() | st.floats(0, 50)), max_size=60))
def test_no_sample_makes_a_bin_that_is_no_rate(samples: list[tuple[float, float]]) -> None:
    found = season.Season()
    for at, value in samples:
        found = found.add(at, value)
    assert all(value == season.UNKNOWN or 0 <= value < math.inf for value in found.week_bins)


def test_a_season_knows_how_much_ten_minutes_change() -> None:
    steady = season.of([(START + (number + 1) * BIN, 100.0) for number in range(144)])
    assert steady.change == 0.0
    jumps = season.of([(START + (number + 1) * BIN, 100.0 if number % 2 else 110.0) for number in range(144)])
    # Up by 10 of 100, down by 10 of 110, each over 5 more for the floor (a twentieth of the mean).
    assert jumps.change == pytest.approx(10 / 105, rel=0.01)
    assert season.of([(START + (number + 1) * BIN, 100.0) for number in range(70)]).change is None
