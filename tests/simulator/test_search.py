"""Each baseline is shown in its best setting, and what was tried is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot
from trimtab_sim import baselines, control, laboratory, report, screen, search, settings, sweeps, tasks, world
from trimtab_sim.baselines import routes

from tests.simulator import scenarios

LARGE = VariantKey("default/large", "h100")
LAB = laboratory.Laboratory(scenarios.scenario())
"""Of some 700 requests, one in twenty may miss the SLO."""
COUNT = len(LAB.trace)


def run(attainment: float, cost_usd: float, name: str = "any", *, arrived: int = COUNT) -> report.Run:
    empty = report.Recorder(10.0).run(name, report.Bill(cost_usd, 1.0, 0.5, 0))
    return dataclasses.replace(empty, slo_attainment=attainment, requests=arrived)


def drive(found: tasks.Search, simulate: Callable[[tasks.Task], report.Run]) -> tuple[report.Run, list[tasks.Task]]:
    """The search's result and all that it asked for; runs are ended early as the simulator does it."""
    asked: list[tasks.Task] = []
    task = next(found)
    while True:
        asked.append(task)
        whole, stop = simulate(task), task.stop or world.Stop()
        missed = round((1 - whole.slo_attainment) * whole.requests)
        over = stop.misses is not None and missed > stop.misses
        dear = stop.usd is not None and whole.cost_usd > stop.usd
        if over or dear:
            share = 0.5 if dear else max(0.0, 1 - missed / COUNT)
            whole = dataclasses.replace(whole, aborted="enough", requests=int(COUNT * share))
        try:
            task = found.send(whole)
        except StopIteration as ended:
            best: report.Run = ended.value
            return best, asked


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


RUNGS = [{LARGE: count} for count in range(1, 21)]


def fleet(counts: settings.Counts, stop: world.Stop | None) -> tasks.Task:
    return tasks.Task(baselines.StaticPeak(counts), stop)


@pytest.mark.parametrize("guess", [1, 5, 14, 20])
@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 13, 20])
def test_the_smallest_fleet_that_keeps_the_slo_is_found(needed: int, guess: int) -> None:
    def simulate(task: tasks.Task) -> report.Run:
        assert isinstance(task.controller, baselines.StaticPeak)
        count = task.controller.counts[LARGE]
        return run(1.0 if count >= needed else 0.5, float(count))

    found, asked = drive(sweeps.static_peak(LAB, RUNGS, guess - 1, fleet), simulate)

    counts = [task.controller.counts[LARGE] for task in asked]  # type: ignore[attr-defined] # of a StaticPeak
    assert found.cost_usd == needed
    assert needed == 1 or needed - 1 in counts
    assert len(counts) == len(set(counts))
    assert found.notes[-1] == f"smallest of {len(counts)} fleets tried"


def test_an_slo_that_no_fleet_keeps_gives_the_smallest_that_is_as_good_as_any() -> None:
    def simulate(task: tasks.Task) -> report.Run:
        assert isinstance(task.controller, baselines.StaticPeak)
        count = task.controller.counts[LARGE]
        return run(0.9 if count >= 4 else 0.5, float(count))

    found, _ = drive(sweeps.static_peak(LAB, RUNGS, 2, fleet), simulate)

    assert (found.cost_usd, found.slo_attainment) == (4.0, 0.9)


@pytest.mark.parametrize("better", [0, 8, 9, 19])
def test_the_first_run_leads_to_a_better_guess(better: int) -> None:
    def simulate(task: tasks.Task) -> report.Run:
        assert isinstance(task.controller, baselines.StaticPeak)
        count = task.controller.counts[LARGE]
        return run(1.0 if count >= 10 else 0.5, float(count))

    found, asked = drive(sweeps.static_peak(LAB, RUNGS, 4, fleet, lambda _: better), simulate)

    assert found.cost_usd == 10.0
    assert asked[0].stop is None  # run to its end
    assert asked[1].controller.settings == f"{max(6, better + 1)} × large/h100"


class Setting:
    """A controller that is only a number."""

    name = "setting"
    uses_cache = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.settings = f"number {number}"

    def interval_seconds(self, snapshot: Snapshot) -> float:
        return 15.0

    def initial(self, snapshot: Snapshot) -> dict[VariantKey, int]:
        return {}

    def step(self, snapshot: Snapshot) -> control.Orders:
        raise AssertionError("never run here")


def swept(
    truth: Sequence[tuple[float, float]], looks: Sequence[tuple[float, float]], tries: int
) -> tuple[report.Run, list[tasks.Task]]:
    """A sweep over settings of which (attainment, USD) are known, and of what they look like."""

    def number(controller: control.Controller) -> int:
        assert isinstance(controller, Setting)
        return controller.number

    def look(controller: control.Controller) -> screen.Estimate:
        attainment, usd = looks[number(controller)]
        return screen.Estimate(usd, attainment)

    found = sweeps.sweep(LAB, look, [Setting(at) for at in range(len(truth))], tries)
    return drive(found, lambda task: run(*truth[number(task.controller)], f"{number(task.controller)}"))


pairs = st.tuples(st.sampled_from([0.5, 0.9, 0.94, 0.96, 0.99]), st.integers(1, 50).map(float))


@effort(deadline=None)
@given(st.lists(st.tuples(pairs, pairs), min_size=1, max_size=12))
def test_pruning_finds_the_same_best_as_running_everything(
    both: list[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    truth = [pair for pair, _ in both]
    whole = search.best([run(*pair) for pair in truth], 0.95)

    found, asked = swept(truth, [look for _, look in both], search.ALL)

    if whole.slo_attainment >= 0.95:
        assert (found.slo_attainment >= 0.95, found.cost_usd) == (True, whole.cost_usd)
        assert len(asked) == len(truth)
    else:
        assert found.slo_attainment < 0.95
        assert "none of " in found.notes[-1]
        assert asked[-1].stop is None  # the one that is shown is run to its end


def test_a_right_look_needs_one_run_and_the_next_cheaper_ones() -> None:
    truth = [(0.80, 1.0), (0.93, 2.0), (0.97, 3.0), (0.99, 4.0), (0.99, 9.0)]

    found, asked = swept(truth, truth, 2)

    assert found.cost_usd == 3.0
    assert [task.controller.settings for task in asked] == ["number 2", "number 1"]
    assert asked[1].stop == world.Stop(misses=LAB.misses, usd=3.0)
    assert found.notes[-1].startswith("best of 2 simulated of 5 settings")


def test_a_setting_that_only_looked_good_leads_to_a_safer_one() -> None:
    truth = [(0.90, 1.0), (0.94, 2.0), (0.97, 3.0)]
    looks = [(0.96, 1.0), (0.97, 2.0), (0.98, 3.0)]

    found, asked = swept(truth, looks, 3)

    assert found.cost_usd == 3.0
    assert [task.controller.settings for task in asked] == ["number 0", "number 1", "number 2"]


def test_a_single_try_goes_for_one_that_looks_safe_and_on_if_it_is_not() -> None:
    truth = [(0.949, 1.0), (0.94, 2.0), (0.97, 3.0), (0.98, 4.0)]
    looks = [(0.951, 1.0), (0.954, 2.0), (0.97, 3.0), (0.98, 4.0)]

    found, asked = swept(truth, looks, 1)

    # 0.951 is nearer to 0.95 than 0.003; number 1 looked safe and was not
    assert [task.controller.settings for task in asked] == ["number 1", "number 2"]
    assert found.cost_usd == 3.0


@pytest.mark.parametrize(
    ("requests", "expected"),
    [(5_000, 4), (100_000, 3), (247_000, 1), (10_000_000, 1)],
    ids=["as many as ever", "2,000,000 / (100,000 × 6)", "2,000,000 / (247,000 × 6)", "at least one"],
)
def test_long_traces_allow_fewer_tries(requests: int, expected: int) -> None:
    assert search.affordable(requests, tuple(search.NAMES)) == expected


def test_where_nothing_keeps_the_slo_the_one_that_came_nearest_is_shown_whole() -> None:
    truth = [(0.50, 1.0), (0.93, 5.0), (0.80, 3.0)]

    found, asked = swept(truth, truth, search.ALL)

    assert (found.slo_attainment, found.cost_usd, found.aborted) == (0.93, 5.0, "")
    assert "keeps the SLO: the one that came nearest" in found.notes[-1]
    assert len(asked) == 4


def test_where_all_look_hopeless_one_is_run_to_its_end() -> None:
    truth = [(0.50, 1.0), (0.90, 5.0), (0.80, 3.0)]

    found, asked = swept(truth, truth, 1)

    assert (found.slo_attainment, found.aborted) == (0.90, "")
    assert [task.stop for task in asked] == [None]


def test_the_promise_is_the_policys_or_the_tiers() -> None:
    spec = {"slo": {"e2e": {"p95": "5s"}, "attainment": "0.9"}}

    assert search.wanted_attainment(scenarios.scenario(policy_spec=spec)) == 0.9
    assert search.wanted_attainment(scenarios.scenario()) == 0.95


def test_every_grid_makes_controllers_of_its_baseline() -> None:
    ground = settings.make(LAB, routes.BEST, {LARGE: 4})

    for name, grid in search._GRIDS.items():
        made = settings.controllers(grid, ground)
        assert all(one.initial(LAB.snapshot)[LARGE] == 4 for one in made)
        assert {one.name for one in made} == {name}
        assert len({one.settings for one in made}) > 3


def test_two_baselines_on_a_real_run() -> None:
    told: list[str] = []

    static, hpa = search.run_baselines(scenarios.scenario(scenarios.flat_trace(rps=6.0)), told=told.append)

    assert (static.controller, hpa.controller) == ("static-peak", "hpa-queue")
    assert static.share_by_tier == hpa.share_by_tier == {"large": 1.0}
    assert static.slo_attainment >= 0.95
    assert static.notes[-1].startswith("smallest of ")
    assert all(name.split(":")[0] in ("static-peak", "hpa-queue") for name in told)


def test_every_baseline_runs_beside_the_others_in_the_order_of_names() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=1), prologue=60.0)

    found = search.run_baselines(scenario, tuple(reversed(search.NAMES)), tries=1)

    assert [one.controller for one in found] == list(search.NAMES)
    assert all(one.requests == len(scenario.trace) and not one.aborted for one in found)
    by_name = {one.controller: one for one in found}
    assert by_name["all-biggest"].cost_usd == by_name["static-peak"].cost_usd
    assert by_name["all-biggest"].notes[-1] == "the same as static-peak, which runs it too"


def test_under_trimtabs_mean_routing_only_the_autoscaling_differs() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=2), prologue=60.0)
    ours = world.simulate(scenario, control.Trimtab())

    static, running = search.run_baselines(scenario, ("static-peak", "hpa-running"), routing="mean", tries=1)

    for one in (static, running):
        assert one.share_by_tier["small"] == pytest.approx(ours.share_by_tier["small"], abs=0.1)
        assert one.settings.endswith("Trimtab's mean routing and cache")


@pytest.mark.process
def test_workers_change_no_result() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=1), prologue=30.0)
    names = ("static-peak", "hpa-queue", "knative")

    alone, together = (search.run_baselines(scenario, names, workers=workers) for workers in (1, 2))

    assert [found.to_dict() for found in alone] == [found.to_dict() for found in together]


def test_trimtab_runs_beside_them_and_all_are_told_their_regret() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=1), prologue=30.0)

    runs = search.run_beside(scenario, ("static-peak",))
    alone = search.run_beside(scenario, ())

    assert [one.controller for one in runs] == ["trimtab", "static-peak"]
    assert all(one.regret is not None for one in runs)
    assert alone[0].to_dict() == runs[0].to_dict()
    assert dataclasses.replace(runs[0], regret=None).to_dict() == world.simulate(scenario, control.Trimtab()).to_dict()


def test_no_baseline_costs_no_run_and_an_unknown_one_is_named() -> None:
    assert search.run_baselines(scenarios.scenario(), ()) == ()
    with pytest.raises(KeyError, match="hpa-cpu"):
        search.run_baselines(scenarios.scenario(), ("hpa-cpu",))


@pytest.mark.parametrize(
    "changes",
    [
        {"tiers": (scenarios.SMALL, scenarios.external("large", "0.90"))},
        {
            "tiers": (
                scenarios.tier(
                    "small",
                    "0.60",
                    [scenarios.variant("l4", "1.00", price=None, accelerator={"type": "Unheard"})],
                    scaling={"scaleToZero": {"after": "1m", "hold": "60s"}},
                ),
                scenarios.tier(
                    "large", "0.80", [scenarios.variant("h100", "8.00")], scaling={"scaleToZero": {"after": "1m"}}
                ),
            )
        },
    ],
    ids=["external best tier", "no price and scale to zero"],
)
def test_any_manifests_can_be_run(changes: dict[str, object]) -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=0.5), prologue=30.0, **changes)

    found = search.run_baselines(scenario, tuple(search.NAMES), tries=1)

    assert {one.controller for one in found} >= set(search.NAMES) - {"best-gpu"}
    assert all(one.requests == len(scenario.trace) for one in found)
