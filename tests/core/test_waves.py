"""What is learned of replicas that are taken together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import waves

STARTUP = 120.0
HOUR = 3600.0


def seen(
    *looks: tuple[float, int, int], before: waves.Waves = waves.UNSEEN, scarce_at: tuple[float, ...] = ()
) -> waves.Waves:
    """What is known after looks of (seconds, replicas that served before, of these lost)."""
    for now, served, lost in looks:
        scarce = now in scarce_at
        before = waves.learn(before, now, served=served, lost=lost, scarce=scarce, startup_seconds=STARTUP)
    return before


A_WAVE = 1 / waves.MEMORY_HOURS
"""What one more wave adds to the rate per hour."""


@pytest.mark.parametrize(
    ("looks", "counted", "share"),
    [
        pytest.param([(0.0, 4, 0)], 0.0, 0.5, id="nothing is lost: the prior"),
        pytest.param([(0.0, 4, 1)], 0.0, 0.5, id="one of four alone is no wave"),
        pytest.param([(0.0, 4, 3)], 1.0, 0.75, id="three of four at once"),
        pytest.param([(0.0, 4, 1), (60.0, 3, 2)], 1.0, 0.75, id="three of four within one start-up are one wave"),
        pytest.param([(0.0, 4, 1), (121.0, 4, 1)], 0.0, 0.5, id="one by one, each made up for"),
        pytest.param([(0.0, 4, 2), (121.0, 4, 4)], 2.0, 1.0, id="two waves"),
        pytest.param([(0.0, 1, 1)], waves.LONE, 1.0, id="the only one"),
        pytest.param([(0.0, 8, 2)], 1.0, 0.4375, id="a small wave: 0.5 less a quarter of 0.25"),
    ],
)
def test_what_goes_within_one_start_up_is_one_event(
    looks: list[tuple[float, int, int]], counted: float, share: float
) -> None:
    found = seen(*looks)

    assert found.per_hour == pytest.approx(waves.PRIOR_PER_HOUR + counted * A_WAVE, rel=0.02)
    assert found.share == pytest.approx(share)


@pytest.mark.parametrize(("served", "share"), [(1, 1.0), (4, 0.4375)])
def test_where_no_machine_is_found_for_the_successor_it_was_a_wave(served: int, share: float) -> None:
    found = seen((0.0, served, 1), (255.0, served - 1, 0), scarce_at=(255.0,))

    assert found.per_hour == pytest.approx(waves.PRIOR_PER_HOUR + A_WAVE, rel=0.02)
    assert found.share == pytest.approx(share)


def test_machines_that_were_scarce_before_anything_was_lost_make_no_wave() -> None:
    assert seen((0.0, 4, 0), (15.0, 4, 0), scarce_at=(0.0, 15.0)).per_hour == waves.PRIOR_PER_HOUR


def test_an_event_is_counted_once_however_long_machines_are_scarce() -> None:
    times = tuple(15.0 * step for step in range(24))
    found = seen((0.0, 1, 1), *((time, 0, 0) for time in times[1:]), scarce_at=times[1:])
    assert found.per_hour == pytest.approx(waves.PRIOR_PER_HOUR + A_WAVE, rel=0.05)


def test_after_a_calm_day_the_prior_is_back() -> None:
    wave = seen((0.0, 4, 4))
    calm = seen(*((900.0 * step, 4, 0) for step in range(1, 97)), before=wave)
    assert calm.per_hour == pytest.approx(waves.PRIOR_PER_HOUR, rel=0.02)
    after_four_hours = seen((4 * HOUR, 4, 0), before=wave)
    assert after_four_hours.per_hour - waves.PRIOR_PER_HOUR == pytest.approx(A_WAVE / math.e)


@pytest.mark.parametrize(
    ("per_hour", "share"), [(None, None), (math.nan, math.nan), (-1.0, 2.0), (math.inf, -0.1)], ids=str
)
def test_what_status_does_not_tell_in_numbers_is_the_prior(per_hour: float | None, share: float | None) -> None:
    assert waves.known(per_hour, share) == waves.UNSEEN


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.integers(0, 50), st.integers(0, 60), st.booleans()),
        max_size=30,
    )
)
def test_whatever_is_seen_rates_and_shares_stay_usable(looks: list[tuple[float, int, int, bool]]) -> None:
    known = waves.UNSEEN
    for now, served, lost, scarce in looks:  # times may even go back
        known = waves.learn(known, now, served=served, lost=lost, scarce=scarce, startup_seconds=STARTUP)
        assert 0 < known.per_hour <= waves.MOST_PER_HOUR
        assert 0 < known.share <= 1
