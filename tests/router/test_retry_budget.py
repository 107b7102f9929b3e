"""The retry budget: never more further attempts than a share of the requests, and a few for little traffic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import first_bytes, retry_budget

RULES = table.Resilience(retry_share=0.2, retry_floor_per_second=1.0, retry_window=10.0)


def withdrawn(budget: retry_budget.RetryBudget, now: float, wanted: int) -> int:
    return sum(budget.withdraw(now) for _ in range(wanted))


def test_a_share_of_the_requests_and_a_floor_may_be_asked_again() -> None:
    budget = retry_budget.RetryBudget(RULES)
    budget.arrived += 1000
    # A fifth of 1000, and one a second for ten seconds.
    assert withdrawn(budget, 0.0, 500) == 210
    assert budget.refused == 290


def test_without_traffic_the_floor_comes_back_with_time() -> None:
    budget = retry_budget.RetryBudget(RULES)
    assert withdrawn(budget, 0.0, 50) == 10
    for now in range(1, 12):
        budget.slide(float(now))
    assert withdrawn(budget, 11.0, 50) == 10


def test_requests_of_long_ago_give_nothing_any_more() -> None:
    budget = retry_budget.RetryBudget(RULES)
    budget.arrived += 1000
    for now in range(1, 30):
        budget.slide(float(now))
    assert withdrawn(budget, 30.0, 500) == 10


def test_a_share_of_nothing_without_a_floor_forbids_every_further_attempt() -> None:
    budget = retry_budget.RetryBudget(table.Resilience(retry_share=0.0, retry_floor_per_second=0.0))
    budget.arrived += 1000
    assert not budget.withdraw(1.0)


def test_a_new_table_changes_the_share_at_once() -> None:
    budget = retry_budget.RetryBudget(RULES)
    budget.arrived += 1000
    budget.follow(table.Resilience(retry_share=0.01, retry_floor_per_second=0.0))
    assert withdrawn(budget, 0.0, 500) == 10


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=80),
    st.floats(0, 1),
    st.floats(0, 5),
)
def test_whenever_something_is_asked_again_the_window_before_has_earned_it(
    steps: list[tuple[int, int]], share: float, floor: float
) -> None:
    rules = table.Resilience(retry_share=share, retry_floor_per_second=floor, retry_window=10.0)
    budget = retry_budget.RetryBudget(rules)
    history: list[tuple[int, int]] = []
    for second, (arrived, wanted) in enumerate(steps):
        budget.slide(float(second))
        budget.arrived += arrived
        history.append((arrived, withdrawn(budget, float(second), wanted)))
        # Requests of the window and of the tenth of a window before it, which is one second; retries of the window.
        # Looked at when something is asked again: later on, what it was earned by may have left the window before it.
        earned = share * sum(count for count, _ in history[-11:]) + floor * 10.0
        assert not history[-1][1] or sum(count for _, count in history[-10:]) <= earned + 1e-6


def test_too_few_first_bytes_tell_no_quantile() -> None:
    learned = first_bytes.FirstBytes()
    for _ in range(first_bytes.ENOUGH - 1):
        learned.observe(0.1)
    assert learned.quantile(0.95) == math.inf
    learned.observe(0.1)
    assert learned.quantile(0.95) == pytest.approx(0.1, rel=0.15)


def test_first_bytes_of_lately_count_most() -> None:
    learned = first_bytes.FirstBytes()
    for _ in range(2000):
        learned.observe(0.1)
    for _ in range(4000):
        learned.observe(2.0)
    assert learned.quantile(0.5) == pytest.approx(2.0, rel=0.15)


def test_hedging_that_is_off_never_comes() -> None:
    learned = first_bytes.FirstBytes()
    for _ in range(100):
        learned.observe(0.1)
    learned.learn(0.0)
    assert learned.hedge_after == math.inf
    learned.learn(0.9)
    assert learned.hedge_after == pytest.approx(0.1, rel=0.15)


@given(st.lists(st.floats(0.001, 200), min_size=first_bytes.ENOUGH, max_size=300), st.floats(0.01, 1))
def test_a_quantile_is_within_a_bucket_of_the_true_one(values: list[float], share: float) -> None:
    learned = first_bytes.FirstBytes()
    for value in values:
        learned.observe(value)
    true = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    assert true * (1 - 1e-9) <= learned.quantile(share) <= true * 1.16
