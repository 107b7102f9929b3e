"""What a replica keeps at which load, and what a fluid makes of it."""

from __future__ import annotations

import pytest
from trimtab_core import capacity
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile
from trimtab_sim import baselines, curves, laboratory, report, screen, workload, world
from trimtab_sim.baselines import hpa, routes
from trimtab_sim.curves import Curve, Point

from tests.simulator import scenarios

LARGE = VariantKey("default/large", "h100")
PROFILE = CapacityProfile(0.02, 0.001, 10_000.0, 200_000, 128, 20.0)
PROMISE = report.Promise(ttft_s=2.0, itl_s=0.06)
ALIKE = ((1000, 100),)
CURVE = Curve((Point(1.0, 1.0, 4.0, 0.0), Point(2.0, 0.9, 10.0, 0.5), Point(4.0, 0.1, 40.0, 2.5)))


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        pytest.param(0.5, (1.0, 2.0, 0.0), id="below the first: half as many run"),
        pytest.param(1.5, (0.95, 7.0, 0.25), id="in the middle of two"),
        pytest.param(3.0, (0.5, 25.0, 1.5), id="in the middle of the next two"),
        pytest.param(9.0, (0.1, 40.0, 2.5), id="above the last: as at the last"),
    ],
)
def test_between_points_lies_a_line(load: float, expected: tuple[float, float, float]) -> None:
    found = CURVE.at(load)

    assert (found.met, found.running, found.waiting) == pytest.approx(expected)


@pytest.mark.parametrize(("met", "expected"), [(0.95, 1.5), (0.5, 3.0), (0.05, 4.0)])
def test_the_largest_load_that_keeps_a_share(met: float, expected: float) -> None:
    assert CURVE.largest(met) == pytest.approx(expected)


def test_the_guess_is_where_the_mean_promise_ends() -> None:
    # (1 - 20 ms / 60 ms) / (1000 / 10,000 + 1 ms · 100) = 0.667 / 0.2
    assert curves.guess(PROFILE, ALIKE, 0.06) == pytest.approx(10 / 3)


def test_a_measured_curve_falls_from_all_to_none_around_the_guess() -> None:
    curve = curves.measure(PROFILE, PROMISE, ALIKE, requests=600)

    shares = [point.met for point in curve.points]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.99
    assert shares[-1] < 0.6
    # the law of capacity: ITL = a / (1 - λ·(I/P + b·O)); Little: running = λ·(O·ITL + a step and the prompt)
    low = curve.points[0]
    itl = 0.02 / (1 - low.load * 0.2)
    assert low.running == pytest.approx(low.load * (100 * itl + 0.12), rel=0.15)


def test_lengths_are_drawn_with_the_means_of_the_trace() -> None:
    trace = scenarios.flat_trace(minutes=20, rps=10.0)

    found = curves.lengths(trace, seed=1)

    assert len(found) == curves.LENGTHS < len(trace)
    assert sum(pair[0] for pair in found) / len(found) == pytest.approx(trace.mean_input_tokens, rel=0.01)
    assert sum(pair[1] for pair in found) / len(found) == pytest.approx(trace.mean_output_tokens, rel=0.01)


def test_even_arrivals_are_no_worse_than_those_by_chance() -> None:
    even, chance = (curves.measure(PROFILE, PROMISE, ALIKE, even=kind, requests=600) for kind in (True, False))

    assert even.largest(0.95) >= 0.97 * chance.largest(0.95)


def test_above_the_stable_load_a_queue_grows() -> None:
    mix = capacity.Mix(1000.0, 100.0)

    # 0.1 s to read and 100 · (20 + 128) ms / 128 to write: 0.1 + 0.116
    assert curves.stable(PROFILE, mix) == pytest.approx(1 / 0.215625)


def test_a_look_at_static_fleets_is_near_to_their_runs() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=4, rps=12.0), prologue=60.0)
    view = screen.Screen(laboratory.Laboratory(scenario), routes.BEST)

    for count in (4, 7, 9):
        looked = view.look(baselines.StaticPeak({LARGE: count}))
        run = world.simulate(scenario, baselines.StaticPeak({LARGE: count}))
        assert looked.usd == pytest.approx(run.cost_usd, rel=0.05)
        assert looked.attainment == pytest.approx(run.slo_attainment, abs=0.1)


def test_a_look_changes_nothing_in_the_controller() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=2, rps=8.0), prologue=60.0)
    view = screen.Screen(laboratory.Laboratory(scenario), routes.BEST)
    controller = baselines.HpaOnRunning({LARGE: (1, 12)}, hpa.HpaSettings(15.0))

    assert view.look(controller) == view.look(controller)
    assert controller._recommended == {}


def test_an_autoscaler_grows_in_the_fluid_as_its_target_says() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=4, rps=12.0), prologue=300.0)
    view = screen.Screen(laboratory.Laboratory(scenario), routes.BEST)

    few, many = (
        view.look(baselines.HpaOnRunning({LARGE: (1, 20)}, hpa.HpaSettings(target))) for target in (40.0, 10.0)
    )

    assert many.usd > 1.3 * few.usd
    assert many.attainment > few.attainment


def test_a_look_at_a_long_trace_is_at_its_busiest_hours() -> None:
    quiet = list(scenarios.flat_trace(minutes=10, rps=1.0))
    busy = scenarios.flat_trace(minutes=10, rps=8.0)
    late = 10 * 3600.0
    moved = [type(each)(each.number, each.arrival_s + late, each.input_tokens, each.output_tokens) for each in busy]
    trace = workload.Trace((*quiet, *moved), "two stretches")
    found = screen.course(laboratory.Laboratory(scenarios.scenario(trace, prologue=0.0)))

    assert len(found.requests) * found.seconds == screen.LONGEST_SECONDS
    assert found.requests.sum() == len(busy)
