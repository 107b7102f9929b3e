"""Targets of a scenario: which run is compared, when a value counts as met, and when a disturbance is over."""

from __future__ import annotations

import math
from typing import Any

import pytest
from savings import running, schema, targets
from trimtab_sim.report import Point, Run


def run(name: str = "trimtab", *, usd: float = 10.0, kept: float = 0.99, **changes: Any) -> Run:
    plain: dict[str, Any] = {
        "controller": name, "requests": 1000, "cost_usd": usd, "usd_per_1k_requests": usd, "slo_attainment": kept,
        "ttft_p95_s": 0.1, "itl_p95_s": 0.02, "e2e_p95_s": 2.0, "gpu_hours": 1.0, "gpu_utilisation": 0.5,
        "replica_changes": 0, "share_by_tier": {}, "failed": 0, "duration_s": 600.0, "expected_quality": 0.8,
        "quality_retention": 1.0,
    }  # fmt: skip
    return Run(**plain | changes)


def row(target: dict[str, Any], *runs: Run) -> dict[str, Any]:
    asked = schema.Target.model_validate(target)
    fields = {"name": "x", "shows": "What the test is there to show.", "manifests": "m", "targets": [target]}
    scenario = schema.Scenario.model_validate({**fields, "trace": {"course": [{"minutes": 1.0, "rps": 1.0}]}})
    outcome = running.Outcome(scenario, "made up", 1000, 600.0, 0.99, {one.controller: one for one in runs})
    return targets.row(outcome, asked)


SAVED = {"measure": "saved", "against": ["hpa", "keda"], "at_least": 0.30}


def test_a_saving_is_taken_against_the_cheapest_that_keeps_the_slo() -> None:
    found = row(SAVED, run(usd=7), run("hpa", usd=10), run("keda", usd=8, kept=0.98))
    assert found["value"] == pytest.approx(0.3)  # 1 - 7/10: keda is cheaper, but misses
    assert found["met"] is True
    assert found["beside"]["keda missed the SLO"] == 0.98


def test_where_none_keeps_it_the_saving_is_against_the_one_that_keeps_it_best() -> None:
    found = row(SAVED, run(usd=7), run("hpa", usd=10, kept=0.9), run("keda", usd=8, kept=0.95))
    assert found["value"] == pytest.approx(1 - 7 / 8)


def test_a_saving_of_a_run_that_misses_the_slo_is_not_met() -> None:
    found = row(SAVED, run(usd=1, kept=0.98), run("hpa", usd=10))
    assert found["value"] == pytest.approx(0.9)
    assert found["met"] is False
    assert found["beside"]["Trimtab missed the SLO"] == 0.98


def test_a_saving_against_nothing_that_was_run_is_none_and_not_met() -> None:
    found = row(SAVED, run())
    assert (found["value"], found["met"]) == (None, False)


@pytest.mark.parametrize(
    ("target", "changes", "value", "met"),
    [
        ({"measure": "attainment", "at_least": 0.99}, {"kept": 0.99}, 0.99, True),
        ({"measure": "attainment", "at_least": 0.99}, {"kept": 0.9899}, 0.9899, False),
        ({"measure": "regret", "at_most": 0.15}, {"regret": 0.15}, 0.15, True),
        ({"measure": "regret", "at_most": 0.15}, {}, None, False),
        ({"measure": "wrong_way_moves", "at_most": 0}, {"wrong_way_moves": 1}, 1, False),
        ({"measure": "reversals_10min_max", "at_most": 1}, {"reversals_10min_max": 1}, 1, True),
        ({"measure": "failed", "at_most": 0}, {"failed": 2}, 2, False),
    ],
    ids=["kept", "nearly kept", "regret", "regret unknown", "wrong way", "reversals", "failed"],
)
def test_a_value_of_the_run_is_held_against_its_limit(
    target: dict[str, Any], changes: dict[str, Any], value: float | None, *, met: bool
) -> None:
    found = row(target, run(**changes))
    assert (found["value"], found["met"]) == (value, met)


def test_gained_attainment_is_the_difference_to_the_other_fleet() -> None:
    target = {"measure": "attainment_gained", "against": ["bought"], "at_least": 0.0}
    found = row(target, run(kept=0.985), run("bought", kept=0.99))
    assert found["value"] == pytest.approx(-0.005)
    assert found["met"] is False


def course(*attained: float | None, step: float = 60.0) -> dict[str, Any]:
    points = tuple(
        Point(at * step, 0.0 if kept is None else 10.0, {}, {}, 1.0, slo_attainment=kept)
        for at, kept in enumerate(attained)
    )
    return {"series": points, "duration_s": step * len(attained)}


@pytest.mark.parametrize(
    ("attained", "seconds"),
    [
        ((1, 1, 1, 1, 1, 1, 1, 1), 0),
        ((1, 1, 0, 0, 1, 1, 1, 1), 120),  # two bad minutes from minute 2 on
        ((0, 0, 1, 1, 1, 1, 1, 1), 0),  # over before the disturbance
        ((1, 1, 0, None, 1, 1, 1, 1), 60),  # nothing arrived: only what came counts
        ((1, 1, 0, 1, 0, 1, 1, 1), 180),  # one good minute does not hold
        ((1, 1, 0, 0, 0, 0, 0, 0), math.inf),
    ],
    ids=["never", "two minutes", "before", "silence", "relapse", "never again"],
)
def test_a_disturbance_is_over_when_the_slo_is_kept_for_three_minutes(
    attained: tuple[float | None, ...], seconds: float
) -> None:
    assert targets.recovery_seconds(run(**course(*attained)), 120.0, 0.99) == seconds


def test_no_recovery_is_no_number_and_not_met() -> None:
    target = {"measure": "recovery_seconds", "after_minutes": 0.0, "at_most": 60.0}
    found = row(target, run(**course(0, 0, 0, 0, 0)))
    assert (found["value"], found["met"]) == (None, False)
