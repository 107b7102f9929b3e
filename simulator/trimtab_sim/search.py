"""The best setting of each baseline, found by running the simulator: fairness costs a few runs.

"Best" is the cheapest run that keeps the SLO; where none does, the one that misses it least. Every setting of a
baseline's grid (``settings``) is first looked at in a fluid model (``screen``); then the promising ones are simulated
(``sweeps``), baselines sharing the processes (``tasks``). What was tried is told in the run's notes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

from trimtab_sim import baselines, control, laboratory, oracle, screen, settings, sweeps, tasks, world
from trimtab_sim.baselines import best_gpu, biggest, recording, routes
from trimtab_sim.report import Run

NAMES = {
    baselines.StaticPeak.name: "every request to the best tier, on the fewest replicas that keep the SLO at the peak",
    baselines.HpaOnQueue.name: "every request to the best tier, scaled by an HPA on waiting requests, best setting",
    baselines.HpaOnRunning.name: "the same, by an HPA on running requests, best setting",
    baselines.Keda.name: "the same, by a KEDA ScaledObject on running and waiting requests, best setting",
    baselines.Knative.name: "the same, by Knative's autoscaler on concurrency, with panic mode, best setting",
    baselines.Wva.name: "the same, over all variants by llm-d's Workload Variant Autoscaler (V2), best setting",
    baselines.LastValue.name: "the same, by the last value times a factor, best factor",
    baselines.BestGpu.name: "Trimtab on one type of GPU alone, the best type known beforehand",
    biggest.NAME: "every request to the biggest model, whatever its class allows, on a static peak",
}
"""Every baseline and what it is, in the order of reports."""
SIMPLE = (baselines.StaticPeak.name, baselines.HpaOnQueue.name)
"""Those that a demonstration shows."""
TRIES = 4
"""Settings of a baseline that are simulated, unless the trace is long or more are asked for."""
ALL = 10**9
"""As ``tries``: every setting."""
BUDGET = 2_000_000
"""Requests that all sweeps together may simulate before fewer settings of each are tried."""
BEST, MEAN = "best", "mean"
"""Ways to route: to the best tier, or as Trimtab does in the mean."""
_GRIDS: Mapping[str, settings.Grid] = {
    baselines.HpaOnQueue.name: settings.waiting,
    baselines.HpaOnRunning.name: settings.running,
    baselines.Keda.name: settings.scaled_objects,
    baselines.Knative.name: settings.concurrency,
    baselines.Wva.name: settings.tokens,
    baselines.LastValue.name: settings.last_values,
}
_MOST = 4.0
"""No static fleet of more than so many times the capacity model's guess is tried."""


def run_baselines(
    scenario: world.Scenario,
    names: Sequence[str] = SIMPLE,
    told: Callable[[str], None] | None = None,
    *,
    workers: int = 1,
    routing: str | routes.Routing = BEST,
    tries: int | None = None,
) -> tuple[Run, ...]:
    """The best run of each named baseline, in the order of ``NAMES``.

    Args:
        scenario: the same that Trimtab ran on.
        names: keys of ``NAMES``; KeyError for another.
        told: called with a description before every simulated run.
        workers: processes to use; more than 1 pays for long traces only, and changes no result.
        routing: where baselines send requests: ``best``, each to the best tier that its class may use; ``mean``, by
            fixed weights, the demand-weighted mean of Trimtab's own (which costs a run of Trimtab); or a routing.
            ``best-gpu`` and ``all-biggest`` have their own and are the same under any.
        tries: settings of a baseline that are simulated, the likely best first; by the length of the trace when None.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise KeyError(unknown[0])
    if not names:
        return ()
    told = told or (lambda _: None)
    with tasks.Pool(scenario, told, workers) as pool:
        if routing == MEAN:
            told(f"{control.Trimtab.name}: for its mean routing")
            routing = mean_routing(scenario)
        return _all(scenario, names, pool, routing if isinstance(routing, routes.Routing) else routes.BEST, tries)


def run_beside(
    scenario: world.Scenario,
    names: Sequence[str] = SIMPLE,
    told: Callable[[str], None] | None = None,
    *,
    workers: int = 1,
    routing: str | routes.Routing = BEST,
    tries: int | None = None,
) -> tuple[Run, ...]:
    """Trimtab's run, and the best run of each named baseline, all with their regret.

    The same as ``run_baselines``, in less time: Trimtab runs beside the baselines, and once where they take its mean
    routing over.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise KeyError(unknown[0])
    told = told or (lambda _: None)
    ours: list[tasks.Search] = []
    # The optimum is sought by this process while others simulate.
    with tasks.Pool(scenario, told, workers) as pool, futures.ThreadPoolExecutor(1) as here:
        sought = here.submit(oracle.optimum, scenario) if workers > 1 else None
        first: Run | None = None
        if routing == MEAN:
            told(control.Trimtab.name)
            recorded = recording.Recording()
            first = world.simulate(scenario, recorded)
            routing = recorded.routing()
        else:
            ours = [_single(tasks.Task(control.Trimtab()))]
        using = routing if isinstance(routing, routes.Routing) else routes.BEST
        found = _all(scenario, names, pool, using, tries, ours)
        known = sought.result() if sought is not None else None
    return oracle.with_regret(found if first is None else (first, *found), scenario, known)


def _single(task: tasks.Task) -> tasks.Search:
    return (yield task)


def _all(  # noqa: PLR0917 (what two ways in have in common)
    scenario: world.Scenario,
    names: Sequence[str],
    pool: tasks.Pool,
    routing: routes.Routing,
    tries: int | None,
    first: Sequence[tasks.Search] = (),
) -> tuple[Run, ...]:
    """The results of the first searches, then of all named baselines."""
    if not names:
        return tuple(run for run in pool.drive(first) if run is not None)
    lab = laboratory.Laboratory(scenario)
    bench = _Bench(lab, routing)
    same = routing is routes.BEST and biggest.NAME in names and not biggest.differs(scenario, lab.classes)
    wanted = {baselines.StaticPeak.name if same and name == biggest.NAME else name for name in names}
    # Those with many runs one after the other, or long ones, first.
    ordered = sorted((name for name in NAMES if name in wanted), key=_GRIDS.keys().__contains__)
    tries = affordable(len(lab.trace), ordered) if tries is None else tries
    probes = [] if baselines.StaticPeak.name in wanted or not wanted & _GRIDS.keys() else [bench.probe()]
    searches = [*probes, *first, *(bench.search(name, tries) for name in ordered)]
    waiting = {len(probes) + len(first) + at for at, name in enumerate(ordered) if name in _GRIDS}
    runs = pool.drive(searches, lambda at: at not in waiting or bench.peak is not None)[len(probes) :]
    found = dict(zip(ordered, runs[len(first) :], strict=True))
    if same:
        found[biggest.NAME] = _renamed(found[baselines.StaticPeak.name])
    others = [found[name] for name in NAMES if name in names]
    return tuple(run for run in (*runs[: len(first)], *others) if run is not None)


def _renamed(static: Run | None) -> Run | None:
    """The static peak in the place of all-biggest, where there is no difference."""
    if static is None:
        return None
    return sweeps.noted(
        dataclasses.replace(static, controller=biggest.NAME), "the same as static-peak, which runs it too"
    )


def affordable(requests: int, names: Sequence[str]) -> int:
    """How many settings of each of these baselines are simulated on a trace of so many requests; at least one."""
    sweeps = sum(1 for name in names if name in _GRIDS)
    return min(TRIES, max(1, BUDGET // max(1, requests * sweeps)))


def mean_routing(scenario: world.Scenario) -> routes.Routing:
    """Fixed weights as Trimtab has in the mean of a run of its own, weighed by demand."""
    ours = recording.Recording()
    world.simulate(scenario, ours)
    return ours.routing()


def wanted_attainment(scenario: world.Scenario) -> float:
    """The share of requests that must meet the SLO: the policy's, else the strictest of its tiers."""
    return laboratory.Laboratory(scenario).attainment


def best(runs: Sequence[Run], target: float) -> Run:
    """The cheapest run that keeps the SLO; if none does, the one of highest attainment."""
    keeping = [run for run in runs if run.slo_attainment >= target]
    if keeping:
        return min(keeping, key=lambda run: run.cost_usd)
    return max(runs, key=lambda run: (run.slo_attainment, -run.cost_usd))


class _Bench:
    """Searches on one scenario under one routing.

    The first run of a static fleet says how far looks can be trusted, and the smallest one that keeps the promise is
    the peak from which settings are made: sweeps wait for it.
    """

    def __init__(self, lab: laboratory.Laboratory, routing: routes.Routing, make: sweeps.Make | None = None) -> None:
        self.routing = routing
        self.peak: settings.Counts | None = None
        self._lab = lab
        self._make = make or (lambda counts, stop: tasks.Task(baselines.StaticPeak(counts, routing), stop))
        self._screen = screen.Screen(lab, routing)
        self._rungs = settings.fleets(settings.loads(lab, routing), _MOST)
        self._first = self._least_fleet()

    def search(self, name: str, tries: int) -> tasks.Search:
        """The search of one baseline."""
        if name == baselines.StaticPeak.name:
            return self.static_peak()
        if name == best_gpu.BestGpu.name:
            return single_type(self._lab)
        if name == biggest.NAME:
            return all_biggest(self._lab)
        return self._sweep(_GRIDS[name], tries)

    def static_peak(self) -> tasks.Search:
        """The search of the smallest fleet, which calibrates the looks by its first run."""
        run = yield from sweeps.static_peak(self._lab, self._rungs, self._first, self._make, self._calibrate)
        told = {self._make(counts, None).controller.settings: counts for counts in self._rungs}
        self.peak = self._rungs[self._first] if run is None else told[run.settings]
        return run

    def probe(self) -> tasks.Search:
        """The run of the first guess alone, to calibrate the looks."""
        run = yield self._make(self._rungs[self._first], None)
        self.peak = self._rungs[self._calibrate(run)]
        return run

    def _sweep(self, grid: settings.Grid, tries: int) -> tasks.Search:
        assert self.peak is not None
        ground = settings.make(self._lab, self.routing, self.peak)
        return (yield from sweeps.sweep(self._lab, self._screen.look, settings.controllers(grid, ground), tries))

    def _calibrate(self, run: Run) -> int:
        self._screen.calibrate(self._make(self._rungs[self._first], None).controller, run.slo_attainment)
        return self._least_fleet()

    def _least_fleet(self) -> int:
        return min(_least(self._keeps, len(self._rungs)), len(self._rungs) - 1)

    def _keeps(self, at: int) -> bool:
        return self._screen.look(self._make(self._rungs[at], None).controller).attainment >= self._lab.attainment


def _least(holds: Callable[[int], bool], count: int) -> int:
    """The first of so many numbers for which something holds that holds for all after it; ``count`` if for none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def single_type(lab: laboratory.Laboratory) -> tasks.Search:
    """Trimtab on each type of GPU that can serve all classes as well as ever: the cheapest that keeps the promise."""
    kept: Run | None = None
    furthest: tuple[int, tasks.Task] | None = None
    found = best_gpu.types(lab.scenario, lab.classes)
    for accelerator in found:
        part = best_gpu.restrict(lab.scenario, accelerator)
        stop = world.Stop(misses=lab.misses, usd=None if kept is None else kept.cost_usd)
        task = tasks.Task(best_gpu.BestGpu(accelerator), stop if len(found) > 1 else None, part.tiers, part.policies)
        run = yield dataclasses.replace(task, controller=best_gpu.BestGpu(accelerator))
        if not run.aborted and (sweeps.misses(run) <= lab.misses or len(found) == 1):
            kept = run
        elif furthest is None or run.requests > furthest[0]:
            furthest = (run.requests, task)
    told = f"of {', '.join(found)}" if len(found) > 1 else "the only type that serves every class as well as ever"
    if kept is not None:
        return sweeps.noted(kept, told)
    if furthest is None:
        return None
    run = yield dataclasses.replace(furthest[1], stop=None)
    return sweeps.noted(run, f"{told}; none keeps the SLO: the one that came nearest")


def all_biggest(lab: laboratory.Laboratory) -> tasks.Search:
    """The static peak of the biggest model, whatever classes allow."""
    part = biggest.restrict(lab.scenario)

    def make(counts: settings.Counts, stop: world.Stop | None) -> tasks.Task:
        return tasks.Task(baselines.StaticPeak(counts, name=biggest.NAME), stop, part.tiers, part.policies)

    return (yield from _Bench(laboratory.Laboratory(part), routes.BEST, make).static_peak())
