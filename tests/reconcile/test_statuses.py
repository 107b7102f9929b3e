"""Statuses as people read them, and what counts as a change."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_core import signals, units
from trimtab_core.api import v1alpha1
from trimtab_operator import noise

from . import world


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.0, 3, "0"),
        (12.3456, 3, "12.3"),
        (0.000123456, 3, "0.000123"),
        (1234567.0, 3, "1230000"),
        (1.861, 4, "1.861"),
        (-0.5, 3, "0"),
    ],
)
def test_decimals_are_plain_and_short(value: float, digits: int, expected: str) -> None:
    assert noise.decimal(value, digits) == expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        pytest.param(
            {"signals": [{"name": "a", "age": "1s"}]}, {"signals": [{"name": "a", "age": "9s"}]}, True, id="ages"
        ),
        pytest.param({"learning": {"samples": 9}}, {"learning": {"samples": 30}}, True, id="how much was learned"),
        pytest.param({"spend": {"usd": "9"}}, {"spend": {"usd": "1"}}, True, id="what was spent since"),
        pytest.param({"spend": {"usd": "0"}}, {}, False, id="the first time that spending is counted"),
        pytest.param({"signals": [{"value": "100"}]}, {"signals": [{"value": "104"}]}, True, id="noise"),
        pytest.param({"signals": [{"value": "100"}]}, {"signals": [{"value": "110"}]}, False, id="more than noise"),
        pytest.param({"value": "0"}, {"value": "0.004"}, True, id="noise near zero"),
        pytest.param({"savedRatio": "-0.02"}, {"savedRatio": "-0.02"}, True, id="a negative ratio"),
        pytest.param({"savedRatio": "-0.5"}, {"savedRatio": "0.5"}, False, id="another sign"),
        pytest.param({"startup": "50s"}, {"startup": "51.5s"}, True, id="a duration"),
        pytest.param({"startup": "50s"}, {"startup": "1m30s"}, False, id="another duration"),
        pytest.param({"replicas": 100}, {"replicas": 101}, False, id="a count is never noise"),
        pytest.param({"usdPerHour": "100"}, {"usdPerHour": "101"}, False, id="nor is money"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, False, id="a field more"),
        pytest.param({"conditions": [{"status": "True"}]}, {"conditions": []}, False, id="a condition less"),
        pytest.param({"value": "12"}, {"value": "odd"}, False, id="what is no number"),
    ],
)
def test_what_counts_as_a_change(new: Any, old: Any, expected: bool) -> None:  # noqa: FBT001
    assert noise.same(new, old) is expected


def steady(**rates: float) -> world.World:
    made = world.World(world.tier(), world.policy(cache={"ref": "answers"}), cache(), **(rates or {"default": 10.0}))
    made.cycle(8)
    return made


def cache() -> v1alpha1.CachePolicy:
    return v1alpha1.CachePolicy.model_validate({"metadata": {"name": "answers", "namespace": "default", "uid": "c"}})


def test_a_tiers_status_says_what_runs_what_it_costs_and_why() -> None:
    made = steady()
    status = made.cluster.statuses["InferenceTier", "default", "small"]
    count = made.cluster.count()
    assert (status["replicas"], status["readyReplicas"], status["mode"]) == (count, count, "Auto")
    assert status["usdPerHour"] == str(count)  # $1 per replica-hour
    assert status["sloAttainment"] == "1.000"
    variant = status["variants"][0]
    assert (variant["usdPerHour"], variant["priceSource"], variant["startup"]) == ("1", "spec", "30s")
    assert {signal["name"] for signal in status["signals"]} == {"sloAttainment", "running", "waiting", "kvUsage"}
    assert status["reason"]


def test_a_policys_status_says_weights_tables_and_savings() -> None:
    made = steady()
    status = made.cluster.statuses["RoutingPolicy", "default", "chat"]
    table = made.memory.tables["default/chat"]
    assert status["tableVersion"] == table.version
    assert status["applied"] == [{"router": "router-1", "version": "1.1-abc"}]
    assert status["classes"] == [{"name": "default", "weights": {"small": "1"}, "arrivalsPerSecond": "10"}]
    assert float(status["usdPerHour"]) == made.cluster.count()
    assert float(status["savedRatio"]) <= 1


def test_a_cache_says_who_uses_it() -> None:
    status = steady().cluster.statuses["CachePolicy", "default", "answers"]
    assert status["conditions"][0]["message"] == "Used by chat."
    lonely = world.World(cache())
    lonely.cycle()
    assert lonely.cluster.condition("answers", "CachePolicy", "Ready")["reason"] == "NotReferenced"


def test_the_last_twenty_decisions_are_kept_newest_last() -> None:
    made = steady()
    about = ("InferenceTier", "default", "small")
    old = [{"time": f"2026-01-01T00:00:{number:02}Z", "action": f"old {number}"} for number in range(20)]
    made.cluster.statuses[about] = {**made.cluster.statuses[about], "decisions": old}
    made.metrics.rates["default"] = 60.0
    made.cycle(2)
    decisions = made.cluster.statuses[about]["decisions"]
    assert len(decisions) == 20
    assert decisions[0]["action"] == "old 1"
    assert decisions[-1]["action"].startswith("small/l4 ")


def test_a_decision_that_is_not_yet_in_force_is_told_once() -> None:
    made = steady()
    made.cluster.refuses["small--l4"] = "quota exceeded"
    made.metrics.rates["default"] = 60.0
    made.cycle(6)
    decisions = [each["action"] for each in made.cluster.statuses["InferenceTier", "default", "small"]["decisions"]]
    told = [message for about, reason, message, _ in made.cluster.events if reason == "Decided" and about == "small"]
    assert len(decisions) == len(set(decisions))
    assert len(told) == len(set(told))


def test_attainment_below_the_promise_is_a_condition_with_an_event() -> None:
    made = steady()
    made.metrics.attainment = 0.80
    made.cycle(2)
    assert made.cluster.condition("small", "InferenceTier", "SloMet")["status"] == "False"
    missed = [each for each in made.cluster.events if each[1] == "Missed"]
    assert missed
    assert all(warning for *_, warning in missed)
    made.metrics.attainment = 1.0
    made.cycle(2)
    assert made.cluster.condition("small", "InferenceTier", "SloMet")["status"] == "True"


def test_a_price_that_nobody_knows_is_a_condition_with_the_fix() -> None:
    reserved = {"name": "l4", "accelerator": {"type": "L4"}, "capacityType": "Reserved", "profile": world.PROFILE}
    made = world.World(world.tier(variants=[reserved]), world.policy(), default=5.0)
    made.cycle(2)
    condition = made.cluster.condition("small", "InferenceTier", "PriceResolved")
    assert condition["status"] == "False"
    assert "set price.usdPerHour" in condition["message"]


def learning(**profile: object) -> world.World:
    """Replicas that take 40 ms at ten sequences, where the written profile says 30 ms and 5 % of prefill."""
    variant = {
        "name": "l4", "accelerator": {"type": "L4"}, "price": {"usdPerHour": "1"}, "replicas": {"min": 1, "max": 10},
        "profile": profile,
    }  # fmt: skip
    made = world.World(world.tier(variants=[variant]), world.policy(), default=5.0)
    made.metrics.itl_seconds = 0.040
    made.cycle(24)
    return made


def test_what_engines_show_is_in_status_and_makes_a_wrong_profile_a_condition_with_the_fix() -> None:
    made = learning(**world.PROFILE)
    variant = made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]
    assert variant["learning"]["samples"] >= 12
    shown = {name: units.duration_seconds(variant["profile"][name]) for name in ("itlBase", "itlPerSequence")}
    assert (shown["itlBase"] + 10.5 * shown["itlPerSequence"]) / 0.95 == pytest.approx(0.040, rel=0.05)
    condition = made.cluster.condition("small", "InferenceTier", "ProfileKnown")
    assert (condition["status"], condition["reason"]) == ("False", "ProfileDiffers")
    assert "copy status.variants[].profile there" in condition["message"]


def test_where_nothing_is_written_what_is_learned_is_planned_with_and_survives_a_restart() -> None:
    made = learning(startup="30s")
    assert made.cluster.condition("small", "InferenceTier", "ProfileKnown")["status"] == "True"
    before = made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]["profile"]
    assert made.memory.snapshot is not None
    planned = made.memory.snapshot.tiers["default/small"].variants[0].profile
    made.restart()
    made.metrics.itl_seconds = None
    made.cycle(2)
    assert made.memory.snapshot is not None
    assert made.memory.snapshot.tiers["default/small"].variants[0].profile == planned
    assert made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]["profile"] == before


def test_what_is_learned_writes_status_when_it_changes_and_not_with_every_sample() -> None:
    made = learning(startup="30s")
    writes = made.cluster.status_writes
    made.cycle(20)
    assert made.cluster.status_writes == writes


def test_a_budget_that_is_exceeded_is_said() -> None:
    made = world.World(world.tier(), world.policy(budget={"usdPerHour": "0.5"}), default=5.0)
    made.cycle(4)
    assert made.cluster.condition("chat", "RoutingPolicy", "WithinBudget")["status"] == "False"


def test_a_router_that_stays_behind_is_said_after_a_while() -> None:
    made = steady()
    made.cycle(10)
    assert made.cluster.condition("chat", "RoutingPolicy", "TableCurrent")["status"] == "False"  # it says 1.1-abc
    young = world.World(default=5.0)
    young.cycle()
    assert young.cluster.condition("chat", "RoutingPolicy", "TableCurrent")["status"] == "True"


def test_spending_is_counted_from_the_first_cycle_and_goes_on_after_a_restart() -> None:
    made = steady()
    status = made.cluster.statuses["RoutingPolicy", "default", "chat"]
    assert 0 <= float(status["spend"]["usd"]) < 1.0
    spent = made.memory.snapshot.policies["default/chat"].spent_usd_month_to_date
    # Every replica costs $1 per hour; eight cycles of 15 s are two minutes.
    assert 0 < signals.known(spent) < 10 * 120 / 3600


def test_status_tells_how_wrong_forecasts_have_been_and_how_bunched_arrivals_are() -> None:
    shown = {each["name"]: each for each in steady().cluster.statuses["RoutingPolicy", "default", "chat"]["signals"]}
    assert shown["default.forecastError"]["value"] == "0"  # the rate has been the same all the time
    assert shown["default.burstiness"]["state"] == "Missing"  # this world counts no squares
