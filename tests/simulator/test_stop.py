"""Runs that end early once they have told enough: what is pruned would have failed as a whole run, too."""

from __future__ import annotations

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, engine, report, world

from tests.simulator import scenarios

SCENARIO = scenarios.scenario(scenarios.flat_trace(minutes=6, rps=4.0))
LARGE = VariantKey("default/large", "h100")


def run(replicas: int, stop: world.Stop | None = None) -> report.Run:
    return world.simulate(SCENARIO, baselines.StaticPeak({LARGE: replicas}), stop=stop)


@pytest.fixture(scope="module")
def overloaded() -> report.Run:
    return run(1)


@pytest.fixture(scope="module")
def served() -> report.Run:
    return run(4)


def misses(whole: report.Run) -> int:
    return round((1 - whole.slo_attainment) * whole.requests)


def test_bounds_that_hold_change_nothing(served: report.Run) -> None:
    bounded = run(4, world.Stop(misses=misses(served), usd=served.cost_usd))

    assert bounded == served
    assert bounded.aborted == ""


def test_more_misses_than_allowed_end_the_run(overloaded: report.Run) -> None:
    assert misses(overloaded) > 100

    ended = run(1, world.Stop(misses=50))

    assert ended.aborted.startswith("more than 50 misses after ")
    assert ended.requests < overloaded.requests / 4


@pytest.mark.parametrize("replicas", [1, 2])
def test_whoever_waits_is_a_miss_before_the_answer_comes_but_never_a_false_one(replicas: int) -> None:
    whole = run(replicas)
    allowed = misses(whole)

    assert allowed > 100
    assert run(replicas, world.Stop(misses=allowed)) == whole
    assert run(replicas, world.Stop(misses=allowed // 2)).aborted != ""


def test_a_bill_above_the_bound_ends_the_run(served: report.Run) -> None:
    ended = run(4, world.Stop(usd=served.cost_usd / 2))

    assert ended.aborted.startswith(f"more than ${served.cost_usd / 2:.2f} after ")
    # 4 replicas at $8 an hour: half of the bill is reached at half of the time, and seen within a scrape (5 s)
    per_second = 4 * 8 / 3600
    assert served.cost_usd / 2 < ended.cost_usd <= served.cost_usd / 2 + 5 * per_second + 1e-9


def test_halting_forgets_what_was_to_come() -> None:
    clock, seen = engine.Engine(), list[float]()
    clock.at(1.0, clock.halt)
    clock.at(2.0, lambda: seen.append(clock.now))

    clock.run(until=3.0)

    assert (seen, clock.peek()) == ([], float("inf"))
