"""What bursts take of the promised quality is owed, and paid back slowly."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.planning import optimizer, quality_debt
from trimtab_core.snapshot import Snapshot

from . import fleets
from .fleets import NOW

POLICY = "default/chat"
PROMISED = 0.96
OWED_BELOW = PROMISED - quality_debt.NOISE


def world(at: float = NOW, share_of_large: float = 0.8, rate: float = 10.0) -> Snapshot:
    small = fleets.tier("small", "0.6", fleets.variant(ready=20, most=40, usd=1.0))
    large = fleets.tier("large", "0.9", fleets.variant(ready=20, most=40, usd=8.0))
    chat = fleets.policy(
        "chat",
        ("small", "large"),
        {"all": fleets.traffic(rate)},
        weights={"all": {"small": 1 - share_of_large, "large": share_of_large}},
        spec={"objective": {"qualityRetention": str(PROMISED)}},
    )
    return dataclasses.replace(fleets.snapshot((small, large), (chat,)), now=at)


def count(kept: float, *, seconds: float = 10.0, owed: float = 0.0) -> float:
    before = {POLICY: quality_debt.Debt(owed, NOW - seconds)}
    return quality_debt.count(world(), {POLICY: kept}, {POLICY: 10.0}, before)[POLICY].owed


def test_what_was_served_below_the_promise_is_owed_in_requests() -> None:
    # 10 requests a second for 10 s, each 0.02 below the promise.
    assert count(OWED_BELOW - 0.02) == pytest.approx(100 * 0.02)


def test_what_is_served_above_it_pays_back_and_offsets_what_is_owed_later() -> None:
    assert count(OWED_BELOW + 0.02, owed=5.0) == pytest.approx(5.0 * math.exp(-10 / 3600) - 2.0)
    assert count(OWED_BELOW + 0.02, owed=0.0) == pytest.approx(-2.0)


def test_what_was_given_beyond_the_promise_never_lowers_it() -> None:
    assert quality_debt.retention(world(), POLICY, 10.0, {POLICY: quality_debt.Debt(-1e6, NOW)}) == PROMISED


def test_a_long_gap_between_two_cycles_is_not_all_charged() -> None:
    assert count(OWED_BELOW - 0.02, seconds=7200.0) == pytest.approx(10.0 * 60.0 * 0.02)


def test_the_first_look_charges_nothing() -> None:
    debts = quality_debt.count(world(), {POLICY: 0.5}, {POLICY: 10.0}, {})
    assert debts[POLICY] == quality_debt.Debt(0.0, NOW)


@given(st.floats(0, 1e9), st.floats(0, 1e6))
def test_the_raised_promise_is_never_below_the_promise_and_can_always_be_kept(owed: float, rate: float) -> None:
    raised = quality_debt.retention(world(), POLICY, rate, {POLICY: quality_debt.Debt(owed, NOW)})
    assert PROMISED <= raised <= min(1.0, PROMISED + quality_debt.MOST_RAISED + 1e-9)


def test_nothing_is_owed_of_what_nobody_counted() -> None:
    assert quality_debt.retention(world(), POLICY, 10.0, {}) == PROMISED


def test_the_loop_raises_the_better_tiers_share_after_a_time_of_poorer_answers() -> None:
    first = optimizer.optimize(world(NOW, share_of_large=0.2))
    assert first.debts[POLICY].owed == 0.0
    second = optimizer.optimize(world(NOW + 15, share_of_large=0.2), previous=first)
    assert second.debts[POLICY].owed > 1.0
    usual, repaying = (
        optimizer.optimize(world(NOW + 30), previous=dataclasses.replace(before, basis=()))
        for before in (first, second)
    )
    assert repaying.prediction.quality_retention >= PROMISED
    assert repaying.weights[POLICY]["all"]["default/large"] >= usual.weights[POLICY]["all"]["default/large"]
    owing = dataclasses.replace(second, debts={POLICY: quality_debt.Debt(1e6, NOW + 15)}, basis=())
    most = optimizer.optimize(world(NOW + 30), previous=owing)
    assert most.prediction.quality_retention >= PROMISED + quality_debt.MOST_RAISED - 1e-6
