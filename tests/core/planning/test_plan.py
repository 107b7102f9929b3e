"""Plans as values: what they change, and how that is told."""

from __future__ import annotations

import pytest
from trimtab_core.planning import plan as plans
from trimtab_core.planning.plan import Code, Reason

from . import fleets
from .fleets import key


def world() -> fleets.Snapshot:
    """Two tiers and an external one, one class."""
    tiers = (
        fleets.tier("small", "0.6", fleets.variant(ready=2, usd=1.0)),
        fleets.tier("large", "0.9", fleets.variant(ready=1, usd=10.0)),
        fleets.external("frontier", "0.95"),
    )
    weights = {"all": {"small": 0.6, "large": 0.4}}
    names = ("small", "large", "frontier")
    return fleets.snapshot(tiers, (fleets.policy("chat", names, {"all": fleets.traffic(2.0)}, weights=weights),))


def moved(small: float, large: float) -> dict[str, dict[str, dict[str, float]]]:
    return {"default/chat": {"all": {"default/small": small, "default/large": large}}}


def test_a_plan_that_changes_nothing_has_no_changes() -> None:
    assert not plans.diff(world(), fleets.plan(world()))


def test_shares_that_differ_by_dust_are_no_change() -> None:
    assert not plans.diff(world(), fleets.plan(world(), weights=moved(0.6005, 0.3995)))


def test_changes_carry_their_own_reasons_those_of_guards_first() -> None:
    wanted = fleets.plan(world(), {key("small"): 3}, moved(0.72, 0.28)).with_reason(
        Reason(Code.DEMAND_UP, "demand", "default/small", "l4"),
        Reason(Code.STEP_LIMIT, "step", "default/small", "l4", guard="cap_step"),
        Reason(Code.IDLE, "of another", "default/large", "l4"),
        Reason(Code.CHEAPER_TIER, "cheaper", policy="default/chat", request_class="all"),
        Reason(Code.CHEAPER_TIER, "of another class", policy="default/chat", request_class="other"),
    )
    changes = plans.diff(world(), wanted)
    assert [reason.message for reason in changes.replicas[0].reasons] == ["step", "demand"]
    assert [reason.message for reason in changes.weights[0].reasons] == ["cheaper"]


def test_decisions_say_what_moves_and_what_the_fleet_costs() -> None:
    wanted = fleets.plan(world(), {key("small"): 3, key("large"): 0}, moved(0.72, 0.28))
    found = plans.decisions(world(), wanted, plans.diff(world(), wanted))
    assert [decision.action for decision in found] == [
        "large/l4 1 → 0",
        "small/l4 2 → 3",
        "all: large 40 % → 28 %, small 60 % → 72 %",
    ]
    assert [decision.tier for decision in found] == ["default/large", "default/small", "default/small"]
    assert {(d.cost_before_usd_per_hour, d.cost_after_usd_per_hour) for d in found} == {(12.0, 3.0)}


def test_external_calls_are_part_of_a_decision_s_cost() -> None:
    weights = {"default/chat": {"all": {"default/frontier": 1.0}}}
    wanted = fleets.plan(world(), weights=weights)
    (found,) = plans.decisions(world(), wanted, plans.diff(world(), wanted))
    # 2 req/s x 3,600 s x (1,000 x 1e-6 + 200 x 4e-6) = 12.96 on top of 12 for the replicas
    assert found.cost_after_usd_per_hour == pytest.approx(12.0 + 12.96)
    assert found.tier == "default/frontier"


def test_a_small_move_of_weights_is_told_with_a_decimal() -> None:
    before, after = {"default/small": 0.998, "default/large": 0.002}, {"default/small": 0.996, "default/large": 0.004}
    change = plans.WeightChange("default/chat", "all", before, after, ())

    assert plans._shares(change) == "large 0.2 % → 0.4 %, small 99.8 % → 99.6 %"
