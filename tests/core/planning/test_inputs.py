"""What a decision was made from: every number with its age, the alternatives, and the guards that changed it."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core import signals
from trimtab_core.planning import guards, inputs, optimizer
from trimtab_core.planning import plan as plans
from trimtab_core.snapshot import Price, Snapshot

from . import fleets
from .fleets import NOW


def busy(rate: float | signals.Signal, *, ready: int = 1) -> Snapshot:
    """One tier that is asked for more than it carries."""
    return fleets.snapshot(
        (fleets.tier("small", "0.8", fleets.variant(ready=ready, most=30)),),
        (fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}),),
    )


def decided(world: Snapshot) -> tuple[plans.Decision, ...]:
    plan = guards.guard(optimizer.optimize(world), world)
    return plans.decisions(world, plan, plans.diff(world, plan))


def named(decision: plans.Decision, name: str) -> inputs.Input:
    (found,) = (one for one in decision.inputs if one.name == name)
    return found


def test_a_decision_takes_along_the_demand_that_it_answers_with_its_age() -> None:
    decision = decided(busy(50.0))[0]

    arrivals = named(decision, inputs.ARRIVALS)
    assert (arrivals.about, arrivals.value, arrivals.unit, arrivals.state) == ("all", 50.0, "req/s", "Fresh")
    assert arrivals.age_seconds == 5.0
    assert named(decision, inputs.PLANNED).value == pytest.approx(named(decision, "expected").value, rel=0.5)


def test_a_decision_takes_along_what_runs_and_what_it_costs() -> None:
    decision = decided(busy(50.0))[0]

    assert (named(decision, "asked for").value, named(decision, "ready").value) == (1.0, 1.0)
    assert (named(decision, "price").value, named(decision, "price").unit) == (1.0, "$/h")
    assert named(decision, inputs.STARTUP).value == fleets.PROFILE.startup_seconds


def test_a_decision_says_what_else_could_be_done_and_what_it_would_cost() -> None:
    names = [one.name for one in decided(busy(50.0))[0].alternatives]

    assert names[0] == "replicas as they are"
    assert "every request to the baseline tier" in names


def test_guards_that_changed_a_decision_are_named() -> None:
    world = busy(0.1, ready=5)  # one replica would do, and has been enough for long: one may go at a time
    tier = world.tiers["default/small"]
    memory = dataclasses.replace(tier.variants[0].memory, fewer_since=NOW - 10_000)
    patient = dataclasses.replace(tier, variants=(dataclasses.replace(tier.variants[0], memory=memory),))
    (decision,) = (one for one in decided(dataclasses.replace(world, tiers={tier.key: patient})) if "→ 4" in one.action)

    assert "cap_step" in decision.guards


@pytest.mark.parametrize(
    ("signal", "value", "state", "age", "note"),
    [
        pytest.param(signals.Fresh(2.0, 3.0), 2.0, "Fresh", 3.0, "", id="fresh"),
        pytest.param(signals.Stale(2.0, 90.0), 2.0, "Stale", 90.0, "", id="stale"),
        pytest.param(signals.Missing("no sample"), None, "Missing", None, "no sample", id="missing says why"),
    ],
)
def test_a_signal_keeps_its_state(
    signal: signals.Signal, value: float | None, state: str, age: float | None, note: str
) -> None:
    found = inputs.of_signal("all", "arrivals", signal, "req/s")

    assert (found.value, found.state, found.age_seconds, found.note) == (value, state, age, note)


def test_a_price_says_where_it_comes_from_and_a_missing_one_that_it_is_missing() -> None:
    variant = dataclasses.replace(fleets.variant(), price=Price(2.0, "catalog aws us-east-1", "2026-11-01"))
    told = {one.name: one for one in inputs.of_variant(variant)}
    untold = {one.name: one for one in inputs.of_variant(dataclasses.replace(variant, price=None, profile=None))}

    assert told["price"].note == "catalog aws us-east-1, 2026-11-01"
    assert (untold["price"].value, untold["price"].state) == (None, "Missing")
    assert inputs.STARTUP not in untold


def test_classes_that_send_nothing_to_a_tier_are_not_its_inputs() -> None:
    demand = {"default/chat": {"a": (inputs.Input("a", "arrivals", 1.0, "req/s", "Fresh"),), "b": ()}}

    assert inputs.of_users(demand, {"default/chat": {"a": {"default/large": 1.0}}}, "default/small") == ()
    assert inputs.of_users(demand, {"default/chat": {"a": {"default/large": 1.0}}}, "default/large")[0].about == "a"


def test_plans_are_equal_whatever_they_were_made_from() -> None:
    world = busy(50.0)
    plan = optimizer.optimize(world)

    assert dataclasses.replace(plan, demand={}) == plan
