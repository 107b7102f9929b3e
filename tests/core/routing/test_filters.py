"""Filters and scorers: who may be sent requests, and how loaded an endpoint counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import filters, scorers, table


@pytest.mark.parametrize(
    ("state", "seen", "admitted"),
    [
        ("Ready", filters.NOTHING_SEEN, True),
        ("Warming", filters.NOTHING_SEEN, False),
        ("Draining", filters.NOTHING_SEEN, False),
        ("Asleep", filters.NOTHING_SEEN, False),
        ("Ready", filters.Evidence(broken=True), False),
        ("Ready", filters.Evidence(stalled=True), False),
        ("Ready", filters.Evidence(busy=True), False),
    ],
)
def test_only_an_endpoint_with_nothing_against_it_is_admitted(
    state: table.EndpointState, seen: filters.Evidence, *, admitted: bool
) -> None:
    assert filters.admits(state, seen) is admitted


@pytest.mark.parametrize(
    ("kv_usage", "share", "penalty"),
    [
        (0.0, 1.0, 0.0),
        (0.8, 1.0, 0.0),
        # Half way from calm to full: half of a quarter of a capacity of 40.
        (0.9, 1.0, 5.0),
        (1.0, 1.0, 10.0),
        (7.0, 1.0, 10.0),
        # A tenth of it may be used after an ejection: nine tenths count as taken.
        (0.0, 0.1, 36.0),
        # The worse of the two, not their sum: it is never worse than full.
        (0.9, 0.1, 36.0),
    ],
)
def test_pressure_and_easing_in_count_as_requests(kv_usage: float, share: float, penalty: float) -> None:
    assert scorers.penalty(40.0, kv_usage=kv_usage, share=share) == pytest.approx(penalty)


def test_load_is_the_share_of_the_capacity_that_is_taken() -> None:
    assert scorers.load(SimpleNamespace(in_flight=5, penalty=3.0, capacity=16.0)) == 0.5


@given(st.floats(1, 1e4), st.floats(-1, 2), st.floats(-1, 2))
def test_a_penalty_lies_between_nothing_and_a_whole_capacity(capacity: float, kv_usage: float, share: float) -> None:
    assert 0 <= scorers.penalty(capacity, kv_usage=kv_usage, share=share) <= capacity
