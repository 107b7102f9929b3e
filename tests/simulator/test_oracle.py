"""The oracle: nothing that keeps the promise costs less, and it is no lower than it must be."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, control, faults, laboratory, oracle, prompts, report, workload, world
from trimtab_sim.baselines import hpa, routes

from tests.simulator import scenarios

LARGE, SMALL = VariantKey("default/large", "h100"), VariantKey("default/small", "l4")


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([(0, 0), (1, 0), (2, 1)], [(0.5, 0.5), (1.0, 1.0)], id="flat, then one miss for each request"),
        pytest.param([(0, 0), (1, 2), (2, 2)], [(1.0, 0.0)], id="noise above the hull is left out: 0 to 2 at once"),
        pytest.param([(0, 0), (1, 0), (2, 0)], [], id="nothing is ever missed"),
    ],
)
def test_tangents(points: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert [(line.slope, line.offset) for line in oracle.tangents(points)] == expected


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=10))
def test_tangents_lie_below_a_convex_course(steps: list[float]) -> None:
    points, slope, missed = [(0.0, 0.0)], 0.0, 0.0
    for number, step in enumerate(steps, start=1):
        slope += step
        missed += slope
        points.append((float(number), missed))

    for line in oracle.tangents(points):
        assert all(line.slope * load - line.offset <= value + 1e-6 for load, value in points)


def everything_on(counts: Sequence[int]) -> list[control.Controller]:
    return [baselines.StaticPeak({LARGE: count}) for count in counts]


def kept(run: report.Run, scenario: world.Scenario, retention: float) -> bool:
    return run.slo_attainment >= laboratory.Laboratory(scenario).attainment and run.quality_retention >= retention


@pytest.mark.parametrize("seed", range(4))
def test_no_controller_that_keeps_the_promise_costs_less(seed: int) -> None:
    rng = random.Random(seed)
    retention = rng.choice([0.80, 0.90, 0.97])
    tiers = (
        scenarios.tier("small", "0.60", [scenarios.variant("l4", f"{rng.uniform(0.5, 4):.2f}")]),
        scenarios.tier("large", "0.80", [scenarios.variant("h100", "8.00", speed=rng.uniform(0.8, 2.5))]),
    )
    trace = scenarios.flat_trace(minutes=2, rps=rng.uniform(2, 14), seed=seed)
    spec = {"objective": {"qualityRetention": f"{retention}"}}
    scenario = scenarios.scenario(trace, tiers=tiers, policy_spec=spec, prologue=60.0)
    mixed = routes.Routing({"default/chat": {"default": {"default/small": 0.3, "default/large": 0.7}}})
    controllers = [
        *everything_on([1, 3, 6, 11, 16]),
        baselines.HpaOnRunning({LARGE: (1, 8)}, hpa.HpaSettings(20.0)),
        baselines.StaticPeak({LARGE: 2, SMALL: 1}, mixed),
        control.Trimtab(),
    ]

    bound = oracle.optimum(scenario)
    runs = [world.simulate(scenario, controller) for controller in controllers]

    keeping = [run for run in runs if kept(run, scenario, retention)]
    assert keeping
    assert bound.usd > 0
    assert all(run.cost_usd >= bound.usd for run in keeping)


def test_it_is_near_to_what_a_full_fleet_can_do() -> None:
    """With one variant, no choice and a steady load, the bound is near the best static fleet."""
    spec = {"classes": [{"name": "default", "allow": ["large"]}]}
    tiers = (
        scenarios.SMALL,
        scenarios.tier("large", "0.80", [scenarios.variant("h100", "8.00", replicas={"min": 1, "max": 99})]),
    )
    scenario = scenarios.scenario(
        scenarios.flat_trace(minutes=3, rps=40.0), tiers=tiers, policy_spec=spec, prologue=30.0
    )

    costs = [
        run.cost_usd
        for run in (world.simulate(scenario, one) for one in everything_on([20, 22, 24]))
        if kept(run, scenario, 0.0)
    ]
    bound = oracle.optimum(scenario)

    assert costs
    assert 0.75 * min(costs) <= bound.usd <= min(costs)
    assert bound.planned_usd >= bound.usd


def test_minimum_replicas_are_paid_for_whatever_arrives() -> None:
    tiers = (
        scenarios.tier("small", "0.60", [scenarios.variant("l4", "3.00", replicas={"min": 2, "max": 9})]),
        scenarios.LARGE,
    )
    trace = scenarios.flat_trace(minutes=10, rps=0.5)

    bound = oracle.optimum(scenarios.scenario(trace, tiers=tiers, prologue=30.0))

    # 2 × 3 $/h and 1 × 8 $/h over the length of the trace
    assert bound.usd == pytest.approx(14.0 * trace.duration_s / 3600, rel=0.02)


def test_a_provider_is_paid_by_the_token() -> None:
    frontier = scenarios.external("frontier", "0.95", usd="10.00")
    spec = {"tiers": [{"ref": "frontier"}], "classes": [{"name": "default"}]}
    trace = scenarios.flat_trace(minutes=10, rps=2.0)
    scenario = scenarios.scenario(trace, tiers=(frontier,), policy_spec=spec, prologue=0.0)

    usd = sum(request.input_tokens * 2e-6 + request.output_tokens * 10e-6 for request in trace)
    bound = oracle.optimum(scenario)

    # 5 % may miss, none of them for free but those that are served after the run
    assert 0.93 * usd <= bound.usd <= usd
    assert world.simulate(scenario, baselines.StaticPeak({})).cost_usd >= bound.usd


def test_a_price_that_falls_lowers_the_bound_from_then_on() -> None:
    trace = scenarios.flat_trace(minutes=20, rps=20.0)
    spec = {"classes": [{"name": "default", "allow": ["large"]}]}
    dear = scenarios.scenario(trace, policy_spec=spec)
    halved = faults.Faults.model_validate({"priceChanges": [{"at": 600.0, "variant": "large/h100", "factor": 0.5}]})

    before, after = (oracle.optimum(one).usd for one in (dear, dataclasses.replace(dear, faults=halved)))

    # half of the time at half the price: three quarters
    assert after == pytest.approx(0.75 * before, rel=0.05)


def test_maxima_that_cannot_carry_the_trace_are_told_and_left_out() -> None:
    tiers = (
        scenarios.SMALL,
        scenarios.tier("large", "0.80", [scenarios.variant("h100", "8.00", replicas={"min": 0, "max": 1})]),
    )
    spec = {"classes": [{"name": "default", "allow": ["large"]}]}

    bound = oracle.optimum(scenarios.scenario(scenarios.flat_trace(rps=40.0), tiers=tiers, policy_spec=spec))

    assert bound.usd > 0
    assert "maxima can't carry" in bound.notes[0]


def test_repeated_prompts_need_no_capacity_where_there_is_a_cache() -> None:
    mix = prompts.Mix(sensitive=0.0, repeated=0.5)
    trace = scenarios.flat_trace(minutes=10, rps=20.0, mix=mix)
    spec = {"classes": [{"name": "default", "allow": ["large"]}]}
    without = scenarios.scenario(trace, policy_spec=spec)
    with_cache = scenarios.scenario(trace, policy_spec={**spec, "cache": {"ref": "answers"}}, caches=(scenarios.CACHE,))

    assert oracle.optimum(with_cache).usd < 0.65 * oracle.optimum(without).usd


def test_a_promise_that_every_load_keeps_is_bounded_by_what_can_be_served_at_all() -> None:
    large = scenarios.tier("large", "0.80", [scenarios.variant("h100", "8.00")], slo={"e2e": {"p95": "20s"}})
    spec = {"classes": [{"name": "default", "allow": ["large"]}]}
    trace = scenarios.flat_trace(minutes=10, rps=20.0)
    scenario = scenarios.scenario(trace, tiers=(scenarios.SMALL, large), policy_spec=spec)

    # a replica serves fewer than 5 requests a second: 4 of them at least, for what can't wait until the end
    assert oracle.optimum(scenario).usd > 3 * 8.0 * trace.duration_s / 3600


def test_regret_is_cost_above_the_bound() -> None:
    scenario = scenarios.scenario()
    run = world.simulate(scenario, baselines.StaticPeak({LARGE: 3}))

    (judged,) = oracle.with_regret([run], scenario)

    assert judged.regret == pytest.approx(run.cost_usd / oracle.optimum(scenario).usd - 1)
    assert dataclasses.replace(judged, regret=None) == run


def test_classes_that_come_late_have_a_bound() -> None:
    calm = scenarios.flat_trace(minutes=10, rps=3.0, mix=prompts.Mix(sensitive=0.0))
    later = [
        dataclasses.replace(one, arrival_s=one.arrival_s + 601.0) for one in scenarios.flat_trace(minutes=10, rps=3.0)
    ]
    trace = workload.Trace((*calm, *later), "sensitive requests only in the second half")

    assert oracle.optimum(scenarios.scenario(trace, prologue=0.0)).usd > 0


def test_a_trace_of_one_request_has_a_bound() -> None:
    one = workload.Trace((workload.Request(0, 0.0, 100, 10, 0.5, prompt=0),), "one")

    assert oracle.optimum(scenarios.scenario(one, prologue=0.0)).usd >= 0
