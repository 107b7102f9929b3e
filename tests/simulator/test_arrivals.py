"""Arrivals with outages and flash crowds, and the prologue before them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import arrivals, faults
from trimtab_sim.workload import Request, Trace

TRACE = Trace(tuple(Request(at, float(at), 100 + at, 50, prompt=at) for at in range(600)), "one a second")


def troubled(trace: Trace = TRACE, **kinds: list[dict[str, Any]]) -> list[Request]:
    return list(arrivals.offered(trace, faults.of(kinds, "here"), seed=3))


def test_without_such_faults_the_trace_arrives_as_it_is() -> None:
    assert arrivals.offered(TRACE, faults.of({"coldCache": [{"at": "1m"}]}, "here"), seed=3) is TRACE


def test_nothing_arrives_in_an_outage_and_all_else_does() -> None:
    found = troubled(outage=[{"from": "100s", "until": "200s"}, {"from": "590s"}])

    assert [request.number for request in found] == [*range(100), *range(200, 590)]


def test_a_flash_crowd_asks_so_many_times_as_often() -> None:
    found = troubled(flashCrowd=[{"from": "100s", "until": "200s", "factor": 10}])

    crowd = [request for request in found if 100 <= request.arrival_s < 201]
    assert len(found) == 500 + 1000
    assert len(crowd) in {1000, 1001}
    assert [request.arrival_s for request in found] == sorted(request.arrival_s for request in found)
    assert len({request.prompt for request in found}) == len(found)  # the same kind, but other questions
    assert {request.input_tokens for request in crowd} <= set(range(200, 302))


def test_a_fraction_of_a_crowd_comes_by_chance() -> None:
    found = troubled(flashCrowd=[{"factor": 1.5}])

    assert len(found) == pytest.approx(900, abs=50)


def test_crowds_at_the_same_time_multiply_and_an_outage_keeps_them_out() -> None:
    twice = troubled(flashCrowd=[{"factor": 2}, {"from": "300s", "factor": 3}])
    dark = troubled(flashCrowd=[{"factor": 5}], outage=[{}])

    assert len(twice) == 300 * 2 + 300 * 6
    assert dark == []


def test_every_pass_gives_the_same_and_the_source_says_what_was_done() -> None:
    made = arrivals.offered(TRACE, faults.of({"flashCrowd": [{"until": "1m", "factor": 1.7}]}, "here"), seed=3)

    assert list(made) == list(made) == list(pickle.loads(pickle.dumps(made)))
    assert made.source == "one a second; flash crowd 0 s to 60 s"


@given(st.lists(st.floats(0, 300), max_size=30), st.floats(1, 8), st.integers(0, 5))
def test_times_never_go_back(times: list[float], factor: float, seed: int) -> None:
    trace = Trace(tuple(Request(at, time, 10, 10, prompt=at) for at, time in enumerate(sorted(times))), "any")
    crowd = faults.Faults(flash_crowd=(faults.FlashCrowd(begins=50.0, ends=250.0, factor=factor),))

    found = [request.arrival_s for request in arrivals.offered(trace, crowd, seed)]

    assert found == sorted(found)
    assert len(found) >= len(times)


def test_the_prologue_repeats_the_beginning_with_other_texts() -> None:
    found = list(arrivals.with_prologue(TRACE, 240.0, 600.0))

    before = [request for request in found if request.arrival_s < 0]
    assert [request.arrival_s for request in before] == [float(at) for at in range(-240, 0)]
    assert [request.input_tokens for request in before[:120]] == [request.input_tokens for request in before[120:]]
    assert len({request.prompt for request in found}) == len(found)


def test_no_prologue_is_no_prologue() -> None:
    assert tuple(arrivals.with_prologue(TRACE, 0.0, 600.0)) == TRACE.requests
