"""How bunched arrivals are, from one counter: 1 for Poisson at any rate, more for bursts, and gaps are none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import burstiness, signals

SECONDS = 600.0


def measured(times: list[float], *, routers: int = 1) -> float:
    """The index over 600 s of arrivals that routers take in random turns."""
    rng = random.Random(7)
    windows = [burstiness.Windows() for _ in range(routers)]
    squares = sum(rng.choice(windows).arrive(at) for at in times)
    found = burstiness.index(
        signals.Fresh(len(times) / SECONDS, 1.0),
        signals.Fresh(squares / SECONDS, 2.0),
        seconds=SECONDS,
        routers=routers,
    )
    assert isinstance(found, signals.Fresh)
    assert found.age_seconds == 2.0
    return found.value


def poisson(rate: float, *, each: int = 1) -> list[float]:
    rng, at, times = random.Random(3), 0.0, list[float]()
    while (at := at + rng.expovariate(rate / each)) < SECONDS:
        times += [at] * each
    return times


@given(st.lists(st.floats(0, 100), max_size=60).map(sorted))
def test_the_counter_is_the_sum_of_squared_counts_at_any_moment(times: list[float]) -> None:
    windows, total = burstiness.Windows(), 0
    for number, at in enumerate(times, start=1):
        total += windows.arrive(at)
        counts: dict[int, int] = {}
        for one in times[:number]:
            slot = int(one // burstiness.WINDOW_SECONDS)
            counts[slot] = counts.get(slot, 0) + 1
        assert total == sum(count**2 for count in counts.values())


@pytest.mark.parametrize("rate", [0.5, 5.0, 50.0])
def test_poisson_arrivals_have_an_index_of_one_at_any_rate(rate: float) -> None:
    assert measured(poisson(rate)) == pytest.approx(1.0, abs=0.2)


def test_arrivals_in_groups_of_eight_have_an_index_of_eight() -> None:
    # A compound Poisson count of groups of m has variance m²·g and mean m·g.
    assert measured(poisson(4.0, each=8)) == pytest.approx(8.0, rel=0.2)


def test_arrivals_at_even_times_have_none() -> None:
    assert measured([0.5 * number for number in range(1200)]) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("routers", [2, 4])
def test_routers_that_share_a_stream_tell_of_the_whole_stream(routers: int) -> None:
    # Each of two routers sees a half, whose index is 1 + 7/2 = 4.5.
    assert measured(poisson(8.0, each=8), routers=routers) == pytest.approx(8.0, rel=0.25)


def test_too_few_arrivals_tell_nothing() -> None:
    found = burstiness.index(signals.Fresh(0.05, 1.0), signals.Fresh(0.1, 1.0), seconds=60.0)
    assert isinstance(found, signals.Missing)  # 3 arrivals


def test_no_squares_are_no_index() -> None:
    gone = signals.Missing("no series")
    assert burstiness.index(signals.Fresh(5.0, 1.0), gone, seconds=60.0) == gone
    assert isinstance(burstiness.index(gone, gone, seconds=60.0), signals.Missing)


def test_routers_that_do_not_count_squares_tell_no_burstiness() -> None:
    found = burstiness.index(signals.Fresh(5.0, 1.0), signals.Fresh(0.0, 1.0), seconds=60.0)
    assert found == signals.Missing("the routers don't count it")
