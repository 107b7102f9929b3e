"""Weights come true by rank: the easiest share to the cheapest tier, whatever the scores look like."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import weights

SCORES = {
    "uniform": lambda rng: rng.random(),
    "all in one corner": lambda rng: 0.97 + rng.random() / 50,
    "all the same": lambda _: 0.5,
    "two heaps": lambda rng: rng.choice([0.1, 0.9]),
    "the ends": lambda rng: rng.choice([0.0, 1.0]),
}


@pytest.mark.parametrize("draw", SCORES.values(), ids=SCORES.keys())
def test_shares_come_true_for_any_scores(draw) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    rng = random.Random(7)
    ranks = weights.RankHistogram()
    split = weights.intervals({"small": 0.7, "medium": 0.2, "large": 0.1}, ["small", "medium", "large"])
    assert split is not None
    count = 6000
    got = Counter(split.owner(ranks.rank(draw(rng), rng)) for _ in range(count))
    # Three standard deviations of a share of 6,000 draws are at most 0.018.
    for tier, share in (("small", 0.7), ("medium", 0.2), ("large", 0.1)):
        assert got[tier] / count == pytest.approx(share, abs=0.02)


def test_the_easiest_share_goes_to_the_first_tier() -> None:
    rng = random.Random(7)
    ranks = weights.RankHistogram()
    split = weights.intervals({"small": 0.5, "large": 0.5}, ["small", "large"])
    assert split is not None
    for _ in range(2000):
        ranks.rank(rng.random(), rng)
    assert {split.owner(ranks.rank(0.2, rng)) for _ in range(50)} == {"small"}
    assert {split.owner(ranks.rank(0.8, rng)) for _ in range(50)} == {"large"}


def test_the_rank_follows_traffic_that_changes() -> None:
    rng = random.Random(7)
    ranks = weights.RankHistogram()
    for _ in range(10_000):
        ranks.rank(rng.random() / 2, rng)
    late = [ranks.rank(0.5 + rng.random() / 2, rng) for _ in range(20_000)][-2000:]
    # At first every one of these ranked above all before; in the end they are half of what is ranked above 0.5.
    assert sum(late) / len(late) == pytest.approx(0.5, abs=0.05)


@given(st.lists(st.floats(0, 1), max_size=50), st.integers(0, 2**32))
def test_a_rank_lies_in_0_to_1(scores: list[float], seed: int) -> None:
    rng, ranks = random.Random(seed), weights.RankHistogram()
    assert all(0 <= ranks.rank(score, rng) < 1 for score in scores)


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), max_size=4), st.floats(0, 1, exclude_max=True))
def test_intervals_cover_every_rank_and_leave_out_tiers_without_a_share(shares: dict[str, float], rank: float) -> None:
    split = weights.intervals(shares, "abcd")
    if split is None:
        assert not any(shares.values())
        return
    assert shares[split.owner(rank)] > 0
    assert list(split.bounds) == sorted(split.bounds)
    assert split.bounds[-1] == pytest.approx(1)


def test_the_edges_of_intervals() -> None:
    split = weights.intervals({"a": 0.5, "b": 0.5}, ["a", "b"])
    assert split is not None
    assert [split.owner(rank) for rank in (0.0, 0.4999, 0.5, 0.9999, 1.0)] == ["a", "a", "b", "b", "b"]
