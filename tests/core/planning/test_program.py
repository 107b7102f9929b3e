"""The program: what it weighs, what gives way first, and what it must not mix up."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trimtab_core import signals
from trimtab_core.planning import cost, guards, limits, optimizer, problem, program
from trimtab_core.planning.plan import Code, Plan, Source
from trimtab_core.snapshot import Snapshot, VariantMemory

from . import fleets
from .fleets import CARRIES, NOW, key

LOAD = 0.85 * CARRIES
"""Requests per second that one replica is planned to take."""


def shares(plan: Plan, name: str = "all") -> dict[str, float]:
    """A class's weights by short tier name."""
    return {tier.rpartition("/")[2]: share for tier, share in plan.weights["default/chat"][name].items()}


def codes(plan: Plan) -> set[Code]:
    return {reason.code for reason in plan.reasons}


def two(rate: float, *, spec: dict[str, object], ready: int = 9, most: int = 40) -> Snapshot:
    """A weak tier at 1 USD and a strong one at 10, both of the same speed."""
    small = fleets.tier("small", "0.6", fleets.variant(ready=ready, most=most, usd=1.0))
    large = fleets.tier("large", "0.9", fleets.variant(ready=ready, most=most, usd=10.0))
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(rate)}, spec=spec)
    return fleets.snapshot((small, large), (chat,))


BEST = {"qualityRetention": "1"}


def test_downshift_gives_up_quality_before_the_budget() -> None:
    spec = {"objective": BEST, "budget": {"usdPerHour": "25", "whenExceeded": ["Downshift"]}}
    plan = optimizer.optimize(two(4 * LOAD, spec=spec))
    # All on the strong tier would take five at 10 USD; 25 USD pay two of them and five weak ones.
    assert plan.prediction.usd_per_hour <= 25
    assert plan.prediction.quality_retention < 1
    assert Code.INFEASIBLE in codes(plan)
    assert plan.binding == "quality"


def test_without_downshift_the_budget_gives_way_to_nothing_but_load() -> None:
    spec = {"objective": BEST, "budget": {"usdPerHour": "25", "whenExceeded": ["Reject"]}}
    plan = optimizer.optimize(two(4 * LOAD, spec=spec))
    assert plan.prediction.usd_per_hour <= 25
    assert shares(plan) == {"large": 1.0}
    assert any("demand exceeds what may run" in reason.message for reason in plan.reasons)


def test_a_budget_below_the_least_replicas_is_said_not_raised() -> None:
    small = fleets.tier("small", "0.6", fleets.variant(ready=3, least=3, usd=2.0))
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(1.0)}, spec={"budget": {"usdPerHour": "4"}})
    plan = optimizer.optimize(fleets.snapshot((small,), (chat,)))
    assert plan.replicas[key("small")] == 3
    assert any("exceeds the budget by $2.00/h" in reason.message for reason in plan.reasons)


def test_least_quality_of_a_class_moves_only_that_class() -> None:
    spec = {
        "objective": {"qualityRetention": "0"},
        "classes": [{"name": "all"}, {"name": "picky", "minQuality": "0.9"}],
    }
    world = two(3.0, spec=spec)
    chat = fleets.policy(
        "chat", ("small", "large"), {"all": fleets.traffic(3 * LOAD), "picky": fleets.traffic(LOAD)}, spec=spec
    )
    plan = optimizer.optimize(fleets.snapshot(tuple(world.tiers.values()), (chat,)))
    assert shares(plan, "picky")["large"] == pytest.approx(1.0)
    assert shares(plan, "all")["small"] > 0.6  # the strong tier's spare capacity may take the rest


def test_an_external_tier_takes_what_own_replicas_would_cost_more_for() -> None:
    # One request of 1,000 + 200 tokens costs 0.0018 USD outside; 0.01/s are 0.065 USD/h against 10 for a replica.
    large = fleets.tier("large", "0.9", fleets.variant(usd=10.0), scaling={"scaleToZero": {}})
    outside = fleets.external("frontier", "0.9")
    chat = fleets.policy("chat", ("large", "frontier"), {"all": fleets.traffic(0.01)})
    plan = optimizer.optimize(fleets.snapshot((large, outside), (chat,)))
    assert (plan.replicas[key("large")], shares(plan)) == (0, {"frontier": 1.0})


def test_an_external_rate_limit_holds() -> None:
    small = fleets.tier("small", "0.9", fleets.variant(ready=1, most=40, usd=50.0), scaling={"maxStepUp": 40})
    outside = fleets.external("frontier", "0.9", limit=2)
    chat = fleets.policy("chat", ("small", "frontier"), {"all": fleets.traffic(10.0)})
    world = fleets.snapshot((small, outside), (chat,))
    plan = optimizer.optimize(world)
    planned = problem.view(world, problem.Settings()).loads["default/chat", "all"].planned
    assert plan.replicas[key("small")] == math.ceil((planned - 2.0) / LOAD)


def test_an_idle_tier_that_may_sleep_is_put_to_sleep_and_woken_by_the_first_request() -> None:
    def world(rate: float, ready: int) -> Snapshot:
        small = fleets.tier("small", "0.8", fleets.variant(ready=ready), scaling={"scaleToZero": {}})
        past = tuple((fleets.NOW - 15.0 * step, 0.2) for step in range(40, 4, -1))
        chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(rate, history=past)})
        return fleets.snapshot((small,), (chat,))

    asleep = optimizer.optimize(world(0.0, 1))
    assert asleep.replicas[key("small")] == 0
    assert Code.IDLE in codes(asleep)
    woken = optimizer.optimize(world(0.02, 0))
    assert woken.replicas[key("small")] >= 1
    assert Code.WOKEN in codes(woken)


def test_traffic_goes_only_where_replicas_are_ready_while_more_are_starting() -> None:
    # Quality asks for the strong tier; it has no replica yet, so its share waits, and its replicas are ordered.
    small = fleets.tier("small", "0.6", fleets.variant(ready=4))
    large = fleets.tier("large", "0.9", fleets.variant(ready=0, usd=10.0))
    chat = fleets.policy(
        "chat",
        ("small", "large"),
        {"all": fleets.traffic(LOAD)},
        spec={"objective": BEST},
        weights={"all": {"small": 1.0}},
    )
    plan = optimizer.optimize(fleets.snapshot((small, large), (chat,)))
    assert shares(plan) == {"small": 1.0}
    assert plan.replicas[key("large")] == 2


def test_what_ready_replicas_cannot_carry_is_spread_evenly() -> None:
    # 3 + 1 ready replicas and the load of 8: both are overloaded by the same ratio, 2.
    small, large = (
        fleets.tier(name, "0.8", fleets.variant(ready=count, usd=1.0)) for name, count in (("small", 3), ("large", 1))
    )
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(8 * CARRIES)})
    plan = optimizer.optimize(fleets.snapshot((small, large), (chat,)))
    assert shares(plan) == pytest.approx({"small": 0.75, "large": 0.25}, abs=0.01)


def test_parts_that_share_nothing_are_solved_alone_and_shared_tiers_together() -> None:
    tiers = tuple(fleets.tier(name, "0.8", fleets.variant(ready=1)) for name in "abcde")
    policies = (
        fleets.policy("one", ("a", "b"), {"all": fleets.traffic(1.0)}),
        fleets.policy("two", ("b", "c"), {"all": fleets.traffic(1.0)}),
        fleets.policy("three", ("d",), {"all": fleets.traffic(1.0)}),
    )
    found = problem.parts(fleets.snapshot(tiers, policies))
    assert [(part.tiers, part.policies) for part in found] == [
        (("default/a", "default/b", "default/c"), ("default/one", "default/two")),
        (("default/d",), ("default/three",)),
        (("default/e",), ()),
    ]


def test_a_tier_that_no_policy_uses_keeps_its_least() -> None:
    world = fleets.snapshot((fleets.tier("small", "0.8", fleets.variant(ready=5, least=2)),))
    assert optimizer.optimize(world).replicas[key("small")] == 2


def test_a_shared_tier_carries_both_policies() -> None:
    tiers = (fleets.tier("small", "0.8", fleets.variant(ready=1)),)
    policies = tuple(fleets.policy(name, ("small",), {"all": fleets.traffic(1.5 * LOAD)}) for name in ("one", "two"))
    assert optimizer.optimize(fleets.snapshot(tiers, policies)).replicas[key("small")] == 4  # 3 and noise


def test_a_part_whose_demand_moved_is_solved_again_and_the_other_kept() -> None:
    def world(rate: float) -> Snapshot:
        tiers = tuple(fleets.tier(name, "0.8", fleets.variant(ready=2)) for name in "ab")
        rates = {"a": 1.5 * LOAD, "b": rate}
        return fleets.snapshot(
            tiers, tuple(fleets.policy(n, (n,), {"all": fleets.traffic(r)}) for n, r in rates.items())
        )

    first = optimizer.optimize(world(1.5 * LOAD))
    second = optimizer.optimize(world(3.5 * LOAD), previous=first)
    assert (second.replicas[key("a")], second.replicas[key("b")]) == (2, 4)
    assert second.reasons[-1].message == "1 of 2 parts moved by less than 3% since they were planned: kept"


def test_equal_questions_get_equal_answers() -> None:
    world = two(7.3 * LOAD, spec={"objective": {"qualityRetention": "0.95"}})
    assert optimizer.optimize(world) == optimizer.optimize(world)


def test_a_solver_that_finds_nothing_leaves_what_runs_and_sends_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "solve", lambda *_: None)
    plan = optimizer.optimize(two(4 * LOAD, spec={"objective": BEST}, ready=3))
    assert (plan.replicas[key("small")], plan.replicas[key("large")]) == (3, 3)
    assert (shares(plan), plan.source) == ({"large": 1.0}, Source.FLOOR)


def test_a_solver_that_finds_nothing_falls_back_to_the_plan_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = optimizer.optimize(two(2 * LOAD, spec={"objective": BEST}, ready=3))
    monkeypatch.setattr(program, "solve", lambda *_: None)
    plan = optimizer.optimize(two(4 * LOAD, spec={"objective": BEST}, ready=3), previous=before)
    assert (plan.replicas, plan.weights, plan.source) == (before.replicas, before.weights, Source.PREVIOUS)


def test_unfresh_classes_keep_their_shares_while_others_move_around_them() -> None:
    spec = {"classes": [{"name": "blind"}, {"name": "seen"}]}
    demand = {
        "blind": fleets.traffic(signals.Missing("down"), history=((fleets.NOW - 60, LOAD),)),
        "seen": fleets.traffic(LOAD),
    }
    weights = {"blind": {"small": 0.5, "large": 0.5}, "seen": {"small": 0.5, "large": 0.5}}
    world = two(0.0, spec={})
    chat = fleets.policy("chat", ("small", "large"), demand, weights=weights, spec=spec)
    plan = optimizer.optimize(fleets.snapshot(tuple(world.tiers.values()), (chat,)))
    assert shares(plan, "blind") == pytest.approx({"small": 0.5, "large": 0.5})
    assert Code.SIGNAL_MISSING in codes(plan)


def test_a_variant_too_slow_for_the_promise_is_not_bought_and_named() -> None:
    slow = fleets.variant("slow", usd=0.1, has=fleets.profile(0.1))  # 105 ms a token, 60 are promised
    world = fleets.snapshot(
        (fleets.tier("small", "0.8", slow, fleets.variant("good", usd=1.0)),),
        (fleets.policy("chat", ("small",), {"all": fleets.traffic(LOAD)}),),
    )
    plan = optimizer.optimize(world)
    assert plan.replicas[key("small", "slow")] == 0
    assert any(
        r.code is Code.INFEASIBLE and r.variant == "slow" and "60ms can't be met" in r.message for r in plan.reasons
    )


def test_a_promise_that_no_variant_can_keep_gets_the_least_bad_plan_and_the_reason() -> None:
    slow = fleets.variant("slow", ready=1, usd=0.1, most=50, has=fleets.profile(0.1))
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(1.0)})
    plan = optimizer.optimize(fleets.snapshot((fleets.tier("small", "0.8", slow),), (chat,)))
    assert plan.replicas[key("small", "slow")] > 1
    assert shares(plan) == {"small": 1.0}
    assert any(reason.code is Code.INFEASIBLE for reason in plan.reasons)


def test_a_first_plan_comes_to_rest_under_steady_demand() -> None:
    """Optimise, guard, apply, repeat: within the weight steps nothing changes any more."""
    world = two(4 * LOAD, spec={"objective": {"qualityRetention": "0.9"}}, ready=6)
    plan: Plan | None = None
    for _ in range(14):
        previous, plan = plan, guards.guard(optimizer.optimize(world, previous=plan), world)
        chat = world.policies["default/chat"]
        moved = fleets.PolicyState(chat.key, chat.spec, chat.tiers, chat.traffic, plan.weights[chat.key])
        world = Snapshot(world.now, 1, world.tiers, {chat.key: moved})
    assert plan is not None
    assert previous is not None
    assert (plan.replicas, plan.weights) == (previous.replicas, previous.weights)


def test_weights_in_force_stay_while_they_keep_every_promise() -> None:
    """All on the weak tier would be cheaper, but no replica can go yet: moving requests would earn nothing."""
    weights = {"all": {"small": 0.5, "large": 0.5}}
    small = fleets.tier("small", "0.6", fleets.variant(ready=2, usd=1.0))
    large = fleets.tier("large", "0.9", fleets.variant(ready=2, usd=10.0))
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(LOAD)}, weights=weights)
    plan = optimizer.optimize(fleets.snapshot((small, large), (chat,)))
    assert plan.replicas[key("large")] == 1
    assert shares(plan) == {"small": 0.5, "large": 0.5}


def test_replicas_whose_window_is_over_are_emptied_before_they_go() -> None:
    """Three strong replicas at 0.9 of their load, one is to go: share moves to the weak tier first, then it goes."""
    memory = VariantMemory(fewer_since=fleets.NOW - 301.0)
    small = fleets.tier("small", "0.6", fleets.variant(ready=4, usd=1.0))
    large = fleets.tier("large", "0.9", fleets.variant(ready=3, usd=10.0, memory=memory))
    weights = {"all": {"small": 0.1, "large": 0.9}}
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(2.8 * CARRIES)}, weights=weights)
    world = fleets.snapshot((small, large), (chat,))
    wanted = optimizer.optimize(world)
    assert wanted.replicas[key("large")] == 1
    each = 0.952 * fleets.carries(
        cost.rounded(problem.view(world, problem.Settings()).loads["default/chat", "all"].planned / CARRIES)
    )
    assert shares(wanted)["large"] * 2.8 * CARRIES == pytest.approx(each, rel=0.01)  # what the one that stays may carry
    plan = guards.guard(wanted, world)
    assert shares(plan)["large"] == pytest.approx(0.8)  # ten points at once
    assert plan.replicas[key("large")] == 3  # until the weights in force allow it


def test_paying_an_external_api_ends_as_soon_as_own_replicas_can_carry() -> None:
    small = fleets.tier("small", "0.9", fleets.variant(ready=2, usd=1.0))
    weights = {"all": {"frontier": 1.0}}
    chat = fleets.policy("chat", ("small", "frontier"), {"all": fleets.traffic(LOAD)}, weights=weights)
    plan = optimizer.optimize(fleets.snapshot((small, fleets.external("frontier", "0.9")), (chat,)))
    assert shares(plan) == {"small": 1.0}


def spot_and_not(rate: float, **scaling: object) -> Snapshot:
    """A tier on spot at 1 USD and on demand at 3, both of the same speed."""
    small = fleets.tier(
        "small", "0.6", fleets.variant(ready=4, usd=3.0), fleets.variant("spot", ready=4, usd=1.0, capacity_type="Spot"),
        scaling=scaling,
    )  # fmt: skip
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)})
    return fleets.snapshot((small,), (chat,))


def test_all_is_spot_where_no_share_must_be_safe() -> None:
    plan = optimizer.optimize(spot_and_not(3.4 * LOAD))
    assert (plan.replicas[key("small")], plan.replicas[key("small", "spot")]) == (0, 4)


def test_half_of_the_work_is_safe_where_half_must_be() -> None:
    plan = optimizer.optimize(spot_and_not(3.4 * LOAD, onDemandShare="0.5"))
    assert (plan.replicas[key("small")], plan.replicas[key("small", "spot")]) == (2, 2)


def test_a_share_that_cannot_be_safe_is_said_and_the_rest_planned() -> None:
    small = fleets.tier(
        "small", "0.6", fleets.variant(most=1, usd=3.0), fleets.variant("spot", usd=1.0, capacity_type="Spot"),
        scaling={"onDemandShare": "1"},
    )  # fmt: skip
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(2.6 * LOAD)})
    plan = optimizer.optimize(fleets.snapshot((small,), (chat,)))
    assert (plan.replicas[key("small")], plan.replicas[key("small", "spot")]) == (1, 2)
    assert any("scaling.onDemandShare" in reason.message for reason in plan.reasons)


def test_warm_replicas_are_kept_beyond_what_the_work_takes() -> None:
    assert sum(optimizer.optimize(spot_and_not(1.6 * LOAD)).replicas.values()) == 2
    assert sum(optimizer.optimize(spot_and_not(1.6 * LOAD, warm=2)).replicas.values()) == 4


def on_spot(rate: float, *, losses_per_hour: float, **state: Any) -> Snapshot:
    """A tier on spot at 1 USD and on demand at 3; two minutes to start."""
    memory = VariantMemory(losses_per_hour=losses_per_hour, lost_at=state.pop("lost_at", None))
    spot = fleets.variant("spot", usd=1.0, capacity_type="Spot", memory=memory, **state)
    small = fleets.tier("small", "0.6", fleets.variant(usd=3.0), spot)
    return fleets.snapshot((small,), (fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}),))


def test_what_is_lost_at_once_now_and_then_is_not_missed() -> None:
    """Ten losses per replica-hour and two minutes to start: with three replicas one loss is usual, and three aren't rare."""
    rate = 2.6 * LOAD
    calm, wild = (on_spot(rate, losses_per_hour=losses, ready=3) for losses in (0.0, 10.0))
    assert optimizer.optimize(calm).replicas[key("small", "spot")] == 3
    cover = limits.cover(wild.tiers["default/small"])
    assert cover == 3  # Poisson of mean 1: more than two in 8 % of cases, more than three in 2 %
    left = optimizer.optimize(wild).replicas[key("small", "spot")] - cover
    assert (left - 1) * program.CRISIS * CARRIES < rate <= left * program.CRISIS * CARRIES


def test_where_one_was_lost_the_next_is_not_counted_on() -> None:
    world = on_spot(1.6 * LOAD, losses_per_hour=0.0, lost_at=NOW - 30, ready=1, pending=1)
    plan = optimizer.optimize(world)
    assert (plan.replicas[key("small")], plan.replicas[key("small", "spot")]) == (1, 2)


@pytest.mark.parametrize(
    "lost_at", [pytest.param(None, id="none was lost"), pytest.param(NOW - 241, id="two start-ups ago")]
)
def test_a_pending_replica_is_counted_on_where_none_was_lost_lately(lost_at: float | None) -> None:
    world = on_spot(1.6 * LOAD, losses_per_hour=0.0, lost_at=lost_at, ready=1, pending=1)
    plan = optimizer.optimize(world)
    assert (plan.replicas[key("small")], plan.replicas[key("small", "spot")]) == (0, 2)


def test_spot_pools_of_one_price_share_alike() -> None:
    """A wave of preemptions takes one of them."""
    pools = [fleets.variant(f"spot-{zone}", usd=1.0, capacity_type="Spot") for zone in "ab"]
    small = fleets.tier("small", "0.6", *pools)
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(3.4 * LOAD)})
    plan = optimizer.optimize(fleets.snapshot((small,), (chat,)))
    assert [plan.replicas[key("small", f"spot-{zone}")] for zone in "ab"] == [2, 2]


@pytest.mark.parametrize(
    ("dear", "expected"),
    [pytest.param(1.05, (2, 1), id="stays with what runs"), pytest.param(1.4, (0, 3), id="moves to what is cheaper")],
)
def test_what_has_become_dearer_is_left_if_that_pays(dear: float, expected: tuple[int, int]) -> None:
    """Two of three replicas run on what now costs more: a swap costs 120 of 900 seconds of the new one's price, 13 %."""
    due = VariantMemory(fewer_since=NOW - 200)  # of 300 seconds: what is ordered now serves when it may go
    small = fleets.tier(
        "small", "0.6", fleets.variant(ready=2, usd=dear, memory=due), fleets.variant("other", ready=1, usd=1.0)
    )
    chat = fleets.policy("chat", ("small",), {"all": fleets.traffic(2.4 * LOAD)})
    plan = optimizer.optimize(fleets.snapshot((small,), (chat,)))
    assert (plan.replicas[key("small")], plan.replicas[key("small", "other")]) == expected
