"""The clock and the queue: order, repeatability, and what the engine refuses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import engine
from trimtab_sim.engine import Order


def test_events_run_in_order_of_time_then_priority_then_scheduling() -> None:
    clock, seen = engine.Engine(), []
    for name, time, order in (
        ("late", 2.0, Order.FINISH),
        ("decide", 1.0, Order.DECIDE),
        ("first arrival", 1.0, Order.ARRIVE),
        ("second arrival", 1.0, Order.ARRIVE),
        ("finish", 1.0, Order.FINISH),
    ):
        clock.at(time, lambda name=name: seen.append(name), order)  # type: ignore[misc]

    clock.run(until=3.0)

    assert seen == ["finish", "first arrival", "second arrival", "decide", "late"]


def test_the_clock_shows_each_events_time_and_then_the_end() -> None:
    clock, seen = engine.Engine(now=10.0), []
    clock.after(2.5, lambda: seen.append(clock.now))

    clock.run(until=60.0)

    assert seen == [12.5]
    assert clock.now == 60.0


def test_an_event_may_schedule_another_for_its_own_time() -> None:
    clock, seen = engine.Engine(), []
    clock.at(1.0, lambda: (seen.append("outer"), clock.at(1.0, lambda: seen.append("inner"))))

    clock.run(until=1.0)

    assert seen == ["outer", "inner"]


def test_events_after_the_end_stay_for_the_next_run() -> None:
    clock, seen = engine.Engine(), []
    clock.at(5.0, lambda: seen.append(5))

    clock.run(until=4.999)
    assert seen == []

    clock.run(until=5.0)
    assert seen == [5]


def test_a_cancelled_event_never_runs() -> None:
    clock, seen = engine.Engine(), []
    event = clock.at(1.0, lambda: seen.append("cancelled"))
    clock.at(2.0, lambda: seen.append("kept"))

    event.cancel()

    assert not event.pending
    assert clock.peek() == 2.0
    clock.run(until=3.0)
    assert seen == ["kept"]


def test_an_empty_queue_has_no_next_event() -> None:
    clock = engine.Engine()

    assert clock.peek() == math.inf
    with pytest.raises(IndexError):
        clock.step()


@pytest.mark.parametrize("time", [0.999, -1.0, math.nan, math.inf])
def test_the_past_and_what_is_no_time_are_refused(time: float) -> None:
    with pytest.raises(ValueError, match=r"the clock stands at 1\.0 s"):
        engine.Engine(now=1.0).at(time, lambda: None)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 1.5, 2.0]), st.sampled_from(list(Order))), max_size=40))
def test_any_schedule_runs_sorted_and_stable(schedule: list[tuple[float, Order]]) -> None:
    clock, seen = engine.Engine(), []
    for number, (time, order) in enumerate(schedule):
        clock.at(time, lambda key=(time, order, number): seen.append(key), order)  # type: ignore[misc]

    clock.run(until=10.0)

    assert seen == sorted(seen)
    assert len(seen) == len(schedule)
