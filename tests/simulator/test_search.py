"""Each baseline is shown in its best setting, and what was tried is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, control, report, search

from tests.simulator import scenarios

LARGE = VariantKey("default/large", "h100")


def run(attainment: float, cost_usd: float, name: str = "any") -> report.Run:
    empty = report.Recorder(10.0).run(name, report.Bill(cost_usd, 1.0, 0.5, 0))
    return dataclasses.replace(empty, slo_attainment=attainment)


def each(simulate: Callable[[control.Controller], report.Run]) -> search.Simulate:
    """What runs one controller, for several."""
    return lambda _, controllers: [simulate(controller) for controller in controllers]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(0.96, 5.0), (0.99, 7.0)], (0.96, 5.0)),
        ([(0.94, 5.0), (0.99, 7.0)], (0.99, 7.0)),
        ([(0.90, 5.0), (0.93, 7.0)], (0.93, 7.0)),
        ([(0.93, 9.0), (0.93, 7.0)], (0.93, 7.0)),
    ],
    ids=["cheapest that keeps it", "the only one", "none: least missed", "none: cheapest of the least missed"],
)
def test_the_best_run(runs: list[tuple[float, float]], expected: tuple[float, float]) -> None:
    chosen = search.best([run(*each) for each in runs], 0.95)

    assert (chosen.slo_attainment, chosen.cost_usd) == expected


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 13])
def test_the_smallest_count_that_keeps_the_slo_is_found(needed: int) -> None:
    tried: list[int] = []

    @each
    def simulate(controller: control.Controller) -> report.Run:
        assert isinstance(controller, baselines.StaticPeak)
        count = controller.counts[LARGE]
        tried.append(count)
        return run(1.0 if count >= needed else 0.5, float(count))

    counts, runs = search.peak_counts(scenarios.scenario(), simulate)

    assert counts == {LARGE: needed}
    assert len(tried) == len(set(tried)) == len(runs)
    assert needed in tried
    assert needed == 1 or needed - 1 in tried


def test_an_slo_that_no_count_keeps_gives_the_smallest_count_that_is_as_good_as_any() -> None:
    @each
    def simulate(controller: control.Controller) -> report.Run:
        assert isinstance(controller, baselines.StaticPeak)
        count = controller.counts[LARGE]
        return run(0.9 if count >= 4 else 0.5, float(count))

    counts, _ = search.peak_counts(scenarios.scenario(), simulate)

    assert counts == {LARGE: 4}


def test_the_hpa_stops_raising_its_minimum_once_the_slo_is_kept() -> None:
    tried: list[str] = []

    @each
    def simulate(controller: control.Controller) -> report.Run:
        tried.append(controller.settings)
        keeps = "5 to 10" in controller.settings and "target 2 " in controller.settings
        return dataclasses.replace(run(0.97 if keeps else 0.9, 1.0), settings=controller.settings)

    chosen = search.hpa_on_queue(scenarios.scenario(), {LARGE: 10}, targets=(1.0, 2.0), simulate=simulate)

    assert chosen.settings == "target 2 waiting per pod, 5 to 10 × large/h100"
    assert [settings.split(", ")[1] for settings in tried[::2]] == [
        "1 to 10 × large/h100",
        "2 to 10 × large/h100",
        "5 to 10 × large/h100",
    ]
    assert chosen.notes[-1] == "best of 6 settings: targets 1, 2, minReplicas from 1 up"


def test_a_minimum_without_hope_is_tried_with_the_most_eager_target_alone_but_for_the_last() -> None:
    tried: list[str] = []

    @each
    def simulate(controller: control.Controller) -> report.Run:
        tried.append(controller.settings)
        return run(0.5, 1.0)

    search.hpa_on_queue(scenarios.scenario(), {LARGE: 4}, targets=(2.0, 1.0), simulate=simulate)

    # of 4 replicas the quarters are 0 (so 1), 1, 2 and 3
    assert [settings.removesuffix(" to 4 × large/h100") for settings in tried] == [
        "target 1 waiting per pod, 1",
        "target 1 waiting per pod, 2",
        "target 1 waiting per pod, 3",
        "target 2 waiting per pod, 3",
    ]


def test_equal_minima_are_tried_once() -> None:
    tried: list[str] = []

    @each
    def simulate(controller: control.Controller) -> report.Run:
        tried.append(controller.settings)
        return run(0.8, 1.0)

    search.hpa_on_queue(scenarios.scenario(), {LARGE: 2}, targets=(1.0,), simulate=simulate)

    # of 2 replicas the quarters are 0, 0.5, 1 and 1.5: a minimum of 1, 1, 1 and 2
    assert tried == ["target 1 waiting per pod, 1 to 2 × large/h100", "target 1 waiting per pod, 2 to 2 × large/h100"]


def test_both_baselines_on_a_real_run() -> None:
    told: list[str] = []

    static, hpa = search.run_baselines(scenarios.scenario(scenarios.flat_trace(rps=6.0)), told=told.append)

    assert (static.controller, hpa.controller) == ("static-peak", "hpa-queue")
    assert static.share_by_tier == hpa.share_by_tier == {"large": 1.0}
    assert static.slo_attainment >= 0.95
    assert static.notes[-1].startswith("smallest of ")
    assert all(name.split(":")[0] in ("static-peak", "hpa-queue") for name in told)


@pytest.mark.process
def test_workers_change_no_result() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=1), prologue=30.0)

    alone, together = (search.run_baselines(scenario, workers=workers) for workers in (1, 2))

    assert [found.to_dict() for found in alone] == [found.to_dict() for found in together]


def test_no_baseline_costs_no_run_and_an_unknown_one_is_named() -> None:
    assert search.run_baselines(scenarios.scenario(), ()) == ()
    with pytest.raises(KeyError, match="hpa-cpu"):
        search.run_baselines(scenarios.scenario(), ("hpa-cpu",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({"slo": {"e2e": {"p95": "5s"}, "attainment": "0.9"}}, 0.9), ({}, 0.95)],
    ids=["the policy's", "the strictest tier's"],
)
def test_the_promise_is_the_policys_or_the_tiers(spec: dict[str, object], expected: float) -> None:
    assert search.wanted_attainment(scenarios.scenario(policy_spec=spec)) == expected
