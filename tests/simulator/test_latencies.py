"""Latencies in bounded memory: exact while they are few, to one percent when they are many."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import latencies


def collected(values: Iterable[float], *, fold: bool = False) -> latencies.Latencies:
    made = latencies.Latencies()
    made.fresh.extend(values)
    if fold:
        made.fold()
    return made


def test_few_values_are_exact() -> None:
    assert collected(range(1, 101)).percentile(0.95) == 95
    assert collected([]).percentile() is None
    assert collected([], fold=True).percentile() is None


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_buckets_are_off_by_one_percent_at_most(values: list[float], share: float) -> None:
    exact = collected(values).percentile(share)

    assert collected(values, fold=True).percentile(share) == pytest.approx(exact, rel=0.0101)


def test_values_may_come_before_and_after_folding() -> None:
    made = collected([1.0] * 90, fold=True)
    made.fresh.extend([5.0] * 10)

    assert made.percentile(0.90) == pytest.approx(1.0, rel=0.01)
    assert made.percentile(0.91) == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize("fold", [(False, False), (True, False), (False, True), (True, True)])
def test_joined_collections_hold_what_both_held(fold: tuple[bool, bool]) -> None:
    rng = random.Random(1)
    values = [rng.expovariate(0.5) for _ in range(1000)]
    first, second = collected(values[:300], fold=fold[0]), collected(values[300:], fold=fold[1])

    first.join(second)

    assert first.percentile() == pytest.approx(sorted(values)[949], rel=0.01 if any(fold) else 1e-6)
    assert second.percentile() == pytest.approx(sorted(values[300:])[664], rel=0.01)


def test_no_time_at_all_is_no_time_at_all() -> None:
    """The cache answers in nothing; no logarithm is taken of it."""
    assert collected([0.0] * 10, fold=True).percentile() == 0.0
    assert collected([0.0] * 9 + [2.0], fold=True).percentile(1.0) == pytest.approx(2.0, rel=0.01)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    rng, made = random.Random(1), latencies.Latencies()
    for _ in range(5):
        made.fresh.extend(rng.lognormvariate(0, 1) for _ in range(latencies.EXACT))
        made.fold()

    assert len(made.fresh) == 0
    # a log-normal of deviation 1 spans some ±4.5 deviations: 9 / ln 1.02 = 454 buckets
    assert len(made._buckets) < 500
