"""The optimiser: what it buys, where it sends requests, and what it says about it."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core import signals
from trimtab_core.planning import cost, guards, loads, optimizer, problem
from trimtab_core.planning import plan as plans
from trimtab_core.planning.plan import Code, Source
from trimtab_core.snapshot import TierState, VariantMemory

from . import fleets
from .fleets import CARRIES, NOW, key

LOAD = 0.85 * CARRIES
"""Requests per second that one replica is planned to take."""


def one_tier(rate: float | signals.Signal, *, ready: int = 1, **changes: object) -> fleets.Snapshot:
    """One tier of one variant, one class."""
    small = fleets.tier("small", "0.8", fleets.variant(ready=ready, **changes))  # type: ignore[arg-type]
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}, weights={"all": {"small": 1.0}})
    return fleets.snapshot((small,), (chat,))


@pytest.mark.parametrize(
    ("rate", "replicas"),
    [
        pytest.param(0.0, 1, id="idle keeps the one replica that may not sleep"),
        pytest.param(0.5 * LOAD, 1, id="half a replica's load needs one"),
        pytest.param(3.3 * LOAD, 4, id="3.3 loads and their noise need four"),
        pytest.param(100 * LOAD, 10, id="no more than max"),
    ],
)
def test_replicas_follow_demand(rate: float, replicas: int) -> None:
    assert optimizer.optimize(one_tier(rate)).replicas[key("small")] == replicas


def test_the_cheapest_variant_per_work_is_bought_not_the_cheapest_per_hour() -> None:
    # The fast one costs 2 for four to five units of work, the slow one 1 for one: 7.5 units take two fast ones.
    slow, fast = fleets.variant("slow", usd=1.0), fleets.variant("fast", usd=2.0, has=fleets.profile(4.0))
    world = fleets.snapshot(
        (fleets.tier("small", "0.8", slow, fast),),
        (fleets.policy("chat", ("small",), {"all": fleets.traffic(7.5 * LOAD)}),),
    )
    replicas = optimizer.optimize(world).replicas
    assert (replicas[key("small", "slow")], replicas[key("small", "fast")]) == (0, 2)


def two_tiers(retention: str, *, rate: float = 100.0, **objective: str) -> fleets.Snapshot:
    """A weak cheap tier and a strong dear one, with plenty of both ready."""
    small = fleets.tier("small", "0.6", fleets.variant(ready=60, most=100, usd=1.0))
    large = fleets.tier("large", "0.9", fleets.variant(ready=60, most=100, usd=8.0))
    spec = {"objective": {"qualityRetention": retention, **objective}}
    return fleets.snapshot(
        (small, large), (fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(rate)}, spec=spec),)
    )


@pytest.mark.parametrize(
    ("retention", "strong_share"),
    [
        pytest.param("0", 0.0, id="no promise: all to the cheap tier"),
        pytest.param("1", 1.0, id="the best quality: all to the best tier"),
        # Failures grow linearly with complexity (m = 0.6): the share s of easiest prompts loses 0.3·(0.4·s + 0.6·s²).
        # To keep 0.9625·0.9 = 0.86625 at most 0.03375 may be lost: s = 0.213 to the weak tier at most.
        pytest.param("0.9625", 0.787, id="a promise between: the hardest four fifths"),
    ],
)
def test_shares_keep_the_promised_quality_and_no_more(retention: str, strong_share: float) -> None:
    plan = optimizer.optimize(two_tiers(retention))
    shares = plan.weights["default/chat"]["all"]
    # More than needed may be strong: splits inside a quarter count at its mean, and spare capacity is used.
    assert strong_share - 1e-6 <= shares.get("default/large", 0.0) <= strong_share + 0.06
    assert plan.prediction.quality_retention >= float(retention) - 1e-6


def test_a_score_that_is_measured_to_tell_more_sends_less_to_the_better_tier() -> None:
    found = {
        told: optimizer.optimize(two_tiers("0.9625", discrimination=told)).weights["default/chat"]["all"][
            "default/large"
        ]
        for told in ("0", "0.6", "1")
    }
    # The share s of easiest prompts loses 0.3·s·(1 - m·(1 - s)), at most 0.03375: s = 0.1125, 0.213 and 0.335.
    assert found == {
        "0": pytest.approx(0.8875, abs=0.06),
        "0.6": pytest.approx(0.787, abs=0.06),
        "1": pytest.approx(0.665, abs=0.06),
    }
    assert found["0"] > found["0.6"] > found["1"]


def test_a_plan_is_cheaper_than_its_baseline_and_says_what_binds() -> None:
    plan = optimizer.optimize(two_tiers("0.95"))
    assert plan.prediction.usd_per_hour < plan.prediction.baseline_usd_per_hour
    assert plan.binding == "quality"
    assert {"replicas as they are", "every request to the baseline tier"} <= {a.name for a in plan.alternatives}


def test_nothing_moved_keeps_the_last_solution_and_says_so() -> None:
    world = one_tier(2 * LOAD, ready=3)
    first = optimizer.optimize(world)
    second = optimizer.optimize(world, previous=guards.guard(first, world))
    assert second.replicas == first.replicas
    assert [reason.code for reason in second.reasons][-1] is Code.STEADY


@pytest.mark.parametrize(
    "rate", [signals.Missing("scrape failed"), signals.Stale(0.1, 100.0)], ids=["missing arrivals", "stale arrivals"]
)
def test_demand_that_is_not_fresh_takes_nothing_away(rate: signals.Signal) -> None:
    assert optimizer.optimize(one_tier(rate, ready=5)).replicas[key("small")] == 5


def test_a_variant_that_did_not_come_up_is_left_for_the_next_cheapest() -> None:
    cheap = fleets.variant("cheap", usd=1.0, pending=2, age=1000.0)  # past twice its 120 s
    dear = fleets.variant("dear", usd=1.5)
    world = fleets.snapshot(
        (fleets.tier("small", "0.8", cheap, dear),),
        (fleets.policy("chat", ("small",), {"all": fleets.traffic(1.5 * LOAD)}),),
    )
    plan = guards.guard(optimizer.optimize(world), world)
    assert (plan.replicas[key("small", "cheap")], plan.replicas[key("small", "dear")]) == (0, 2)
    assert plan.memory[key("small", "cheap")].blocked_until == NOW + 600.0


def test_a_decision_names_the_change_the_numbers_and_the_fleet_cost() -> None:
    world = one_tier(3.3 * LOAD, ready=2)
    plan = guards.guard(optimizer.optimize(world), world)
    (decision,) = plans.decisions(world, plan, plans.diff(world, plan))
    assert decision.action == "small/l4 2 → 4"
    assert (decision.cost_before_usd_per_hour, decision.cost_after_usd_per_hour) == (2.0, 4.0)
    planned = problem.view(world, problem.Settings()).loads["default/chat", "all"].planned
    each = 0.85 * fleets.carries(cost.rounded(planned / CARRIES))
    assert f"2 replicas can carry {2 * each:.3g} req/s" in decision.reasons[0]


def test_an_empty_world_gives_an_empty_plan() -> None:
    plan = optimizer.optimize(fleets.snapshot(()))
    assert (dict(plan.replicas), plan.source) == ({}, Source.OPTIMAL)


def test_a_recommendation_is_told_and_not_taken() -> None:
    small: TierState = fleets.tier("small", "0.8", fleets.variant(ready=2), scaling={"management": "Recommend"})
    world = fleets.snapshot((small,), (fleets.policy("chat", ("small",), {"all": fleets.traffic(3.3 * LOAD)}),))
    plan = guards.guard(optimizer.optimize(world), world)
    assert plan.replicas[key("small")] == 2
    assert any(r.code is Code.MANAGEMENT and "4 replicas would be best instead of 2" in r.message for r in plan.reasons)


def test_a_whole_scale_down_takes_window_and_steps() -> None:
    world = one_tier(0.5 * LOAD, ready=4)
    waiting = guards.guard(optimizer.optimize(world), world)
    assert waiting.replicas[key("small")] == 4
    assert waiting.memory[key("small")].fewer_since == NOW
    later = one_tier(0.5 * LOAD, ready=4, memory=VariantMemory(fewer_since=NOW - 301))
    assert guards.guard(optimizer.optimize(later), later).replicas[key("small")] == 3


@pytest.mark.parametrize(
    ("attainment", "expected"), [("0.95", 0.7), ("0.99", 0.825), ("0.6", 0.4)], ids=["usual", "strict", "lax"]
)
def test_a_stricter_promise_is_planned_for_a_rarer_demand(attainment: str, expected: float) -> None:
    """1 - 0.3·(1 %/5 %)^⅓ = 0.825, 1 - 0.3·(40 %/5 %)^⅓ = 0.4."""
    slo = {"e2e": {"p95": "45s"}, "attainment": attainment}
    chat = fleets.policy("chat", (), {"all": fleets.traffic(1.0)}, spec={"slo": slo, "tiers": [{"ref": "small"}]})
    world = fleets.snapshot((), (chat,))
    assert loads.quantile(world, chat, problem.Settings().quantile) == pytest.approx(expected, abs=1e-3)


def test_rates_over_a_short_window_are_planned_for_with_more_room() -> None:
    """Over three seconds counts vary twenty times as much as over a minute."""
    world = one_tier(3.3 * LOAD, ready=2)
    minute, moment = (
        problem.view(dataclasses.replace(world, window_seconds=seconds), problem.Settings()).loads[
            "default/chat", "all"
        ]
        for seconds in (60.0, 3.0)
    )
    assert moment.planned > minute.planned
    assert moment.now == minute.now
