"""The best setting of each baseline, found by running the simulator: fairness costs a few runs.

"Best" is the cheapest run that keeps the SLO; where none does, the one that misses it least. Every setting of a
baseline's grid (``settings``) is first looked at in a fluid model (``screen``); then the promising ones are simulated,
the likely best first. A run is ended early once it misses more than the promise allows or has cost more than the best
that keeps it, neither of which can change which is best. What was tried is told in the run's notes.

Each baseline is searched by itself, as a generator that asks for runs and gets them: so searches can share processes,
and how many there are changes no result.
"""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Self

from trimtab_core.api import v1alpha1

from trimtab_sim import baselines, control, laboratory, oracle, screen, settings, world
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
_NEAR = 0.02
"""A static peak is found to within this share of its replicas."""
_ENOUGH = 0.002
"""Where no fleet keeps the promise: attainment this near to the best reachable counts as reached."""
_SURE = 0.003
"""Where one setting alone is simulated, it must look this much better than what is promised."""
_HOPELESS = 0.02
"""Where all look so much worse than what is promised, one is simulated, to its end."""
_MORE = 4
"""Further settings that are simulated if none has kept the promise."""
_WORSE = 0.10
"""A look that is worse by no more than this may be wrong."""
_MOST = 4.0
"""No static fleet of more than so many times the capacity model's guess is tried."""


@dataclass(frozen=True)
class Task:
    """A run that a search asks for.

    Attributes:
        controller: a fresh one.
        stop: when the run has told enough.
        tiers, policies: instead of the scenario's.
    """

    controller: control.Controller
    stop: world.Stop | None = None
    tiers: tuple[v1alpha1.InferenceTier, ...] | None = None
    policies: tuple[v1alpha1.RoutingPolicy, ...] | None = None

    def run(self, scenario: world.Scenario) -> Run:
        """Simulate it."""
        if self.tiers is not None:
            scenario = dataclasses.replace(scenario, tiers=self.tiers)
        if self.policies is not None:
            scenario = dataclasses.replace(scenario, policies=self.policies)
        return world.simulate(scenario, self.controller, stop=self.stop)


Search = Generator[Task, Run, Run | None]
"""Asks for runs, gets them, and returns the best; None where there is nothing to run."""
Make = Callable[[settings.Counts, world.Stop | None], Task]
"""A task that runs a static fleet."""
Guess = Callable[[Run], int]
"""The number of a better fleet, from the run of the first one."""
Look = Callable[[control.Controller], screen.Estimate]
"""What a controller would roughly cost and keep."""


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
    with _Pool(scenario, told, workers) as pool:
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
    ours: list[Search] = []
    with _Pool(scenario, told, workers) as pool:
        first: Run | None = None
        if routing == MEAN:
            told(control.Trimtab.name)
            recorded = recording.Recording()
            first = world.simulate(scenario, recorded)
            routing = recorded.routing()
        else:
            ours = [_single(Task(control.Trimtab()))]
        using = routing if isinstance(routing, routes.Routing) else routes.BEST
        found = _all(scenario, names, pool, using, tries, ours)
    return oracle.with_regret(found if first is None else (first, *found), scenario)


def _single(task: Task) -> Search:
    return (yield task)


def _all(  # noqa: PLR0917 (what two ways in have in common)
    scenario: world.Scenario,
    names: Sequence[str],
    pool: _Pool,
    routing: routes.Routing,
    tries: int | None,
    first: Sequence[Search] = (),
) -> tuple[Run, ...]:
    """The results of the first searches, then of all named baselines."""
    if not names:
        return tuple(run for run in pool.drive(first) if run is not None)
    lab = laboratory.Laboratory(scenario)
    bench = _Bench(lab, routing)
    same = routing is routes.BEST and biggest.NAME in names and not biggest.differs(scenario, lab.classes)
    wanted = {baselines.StaticPeak.name if same and name == biggest.NAME else name for name in names}
    ordered = [name for name in NAMES if name in wanted]
    tries = affordable(len(lab.trace), ordered) if tries is None else tries
    probes = [] if baselines.StaticPeak.name in wanted or not wanted & _GRIDS.keys() else [bench.probe()]
    searches = [*probes, *first, *(bench.search(name, tries) for name in ordered)]
    waiting = {len(probes) + len(first) + at for at, name in enumerate(ordered) if name in _GRIDS}
    runs = pool.drive(searches, lambda at: at not in waiting or bench.calibrated)[len(probes) :]
    found = dict(zip(ordered, runs[len(first) :], strict=True))
    if same:
        found[biggest.NAME] = _renamed(found[baselines.StaticPeak.name])
    others = [found[name] for name in NAMES if name in names]
    return tuple(run for run in (*runs[: len(first)], *others) if run is not None)


def _renamed(static: Run | None) -> Run | None:
    """The static peak in the place of all-biggest, where there is no difference."""
    if static is None:
        return None
    return _noted(dataclasses.replace(static, controller=biggest.NAME), "the same as static-peak, which runs it too")


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

    The first run of a static fleet says how far looks can be trusted: all searches but that one wait for it.
    """

    def __init__(self, lab: laboratory.Laboratory, routing: routes.Routing, make: Make | None = None) -> None:
        self.routing = routing
        self.calibrated = False
        self._lab = lab
        self._make = make or (lambda counts, stop: Task(baselines.StaticPeak(counts, routing), stop))
        self._screen = screen.Screen(lab, routing)
        self._rungs = settings.fleets(settings.loads(lab, routing), _MOST)
        self._first = self._least_fleet()

    def search(self, name: str, tries: int) -> Search:
        """The search of one baseline."""
        if name == baselines.StaticPeak.name:
            return self.static_peak()
        if name == best_gpu.BestGpu.name:
            return single_type(self._lab)
        if name == biggest.NAME:
            return all_biggest(self._lab)
        return self._sweep(_GRIDS[name], tries)

    def static_peak(self) -> Search:
        """The search of the smallest fleet, which calibrates the looks by its first run."""
        return static_peak(self._lab, self._rungs, self._first, self._make, self._calibrate)

    def probe(self) -> Search:
        """The run of the first guess alone, to calibrate the looks."""
        run = yield self._make(self._rungs[self._first], None)
        self._calibrate(run)
        return run

    def _sweep(self, grid: settings.Grid, tries: int) -> Search:
        ground = settings.make(self._lab, self.routing, self._rungs[self._first])
        return (yield from sweep(self._lab, self._screen.look, settings.controllers(grid, ground), tries))

    def _calibrate(self, run: Run) -> int:
        self._screen.calibrate(self._make(self._rungs[self._first], None).controller, run.slo_attainment)
        self._first, self.calibrated = self._least_fleet(), True
        return self._first

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


def static_peak(  # noqa: PLR0917 (the ground of a search)
    lab: laboratory.Laboratory,
    rungs: Sequence[settings.Counts],
    first: int,
    make: Make,
    guess: Guess | None = None,
) -> Search:
    """The fewest replicas that keep the promise.

    The first guess is run to its end, and may lead to a better one. From there the fleet is made smaller as long as the
    promise holds, or larger until it does, in growing steps; then the smallest between the last two is found by
    halving, in large fleets to within 2 %. Where no fleet keeps it, the smallest is taken that is as good as the
    largest.

    Args:
        lab: the scenario.
        rungs: fleets, each larger than the one before.
        first: the guess among them.
        make: of a task from a fleet and a bound.
        guess: the next one, from the first run.
    """
    allowed, runs, tried = lab.misses, dict[int, Run](), 0
    top, low, high = len(rungs) - 1, -1, len(rungs)
    at, step = min(first, top), 1
    while high - low > _fineness(rungs, high) or at == top:
        run = yield make(rungs[at], world.Stop(misses=allowed) if tried or guess is None else None)
        tried += 1
        if not run.aborted and _misses(run) <= allowed:
            high, runs[at] = at, run
        elif at == top:  # no fleet keeps the promise: as good as this one will do
            runs[at] = yield make(rungs[at], None)
            allowed = _misses(runs[at]) + round(_ENOUGH * runs[at].requests)
            tried, low, high = tried + 1, -1, at
        else:
            low = at
        if tried == 1 and guess is not None:
            guessed = guess(run)
            at = max(low + 1, min(guessed, high - 1, top))
        elif low >= 0 and high <= top:
            at = (low + high) // 2
        else:
            at = max(0, at - step) if high <= top else min(top, at + step)
            step *= 2
        if at in runs or at == low:
            break
    found = runs[high]
    return _noted(found, f"smallest of {tried} fleets tried")


def _fineness(rungs: Sequence[settings.Counts], high: int) -> int:
    """Rungs that may be left untried below the best one."""
    return max(1, int(_NEAR * sum(rungs[min(high, len(rungs) - 1)].values())))


def _misses(run: Run) -> int:
    return round((1 - run.slo_attainment) * run.requests)


def sweep(
    lab: laboratory.Laboratory, look: Look, controllers: Sequence[control.Controller], tries: int = ALL
) -> Search:
    """The cheapest of these controllers that keeps the promise.

    The cheapest that looks as if it kept the promise is simulated first. From one that keeps it the search goes to the
    next cheaper one; from one that does not, to the cheapest that looks safer than it.

    Args:
        lab: the scenario.
        look: what one would roughly cost and keep.
        controllers: new ones.
        tries: how many are simulated; a few more if none of them keeps the promise.
    """
    looks = [look(controller) for controller in controllers]
    wanted = lab.attainment + (_SURE if tries == 1 else 0.0)
    left = sorted(range(len(controllers)), key=lambda at: (looks[at].usd, at))
    kept: Run | None = None
    furthest: tuple[int, int] | None = None
    at: int | None = _first(left, looks, wanted)
    tried = 0
    while at is not None and (tried < tries or (kept is None and tried < tries + _MORE)):
        left.remove(at)
        stop = world.Stop(misses=lab.misses, usd=None if kept is None else kept.cost_usd)
        hopeless = kept is None and all(one.attainment < lab.attainment - _HOPELESS for one in looks)
        run = yield Task(copy.deepcopy(controllers[at]), None if hopeless else stop)
        tried += 1
        if hopeless and tried >= tries and _misses(run) > lab.misses:
            return _noted(run, _none(tried, len(controllers)))
        if not run.aborted and _misses(run) <= lab.misses:
            kept = run if kept is None or run.cost_usd < kept.cost_usd else kept
            at = _cheaper(left, looks, at)
        else:
            furthest = max(furthest or (-1, -1), (run.requests, at)) if kept is None else furthest
            at = _safer(left, looks, at)
        if at is None and left:
            at = _first(left, looks, wanted)
    if kept is not None:
        return _noted(kept, f"best of {_chosen(tried, len(controllers))}")
    assert furthest is not None
    run = yield Task(copy.deepcopy(controllers[furthest[1]]))
    return _noted(run, _none(tried, len(controllers)))


def _chosen(tried: int, count: int) -> str:
    return f"{tried} simulated of {count} settings, chosen by a look at each in a fluid model"


def _none(tried: int, count: int) -> str:
    return f"none of {_chosen(tried, count)}, keeps the SLO: the one that came nearest"


def _first(left: Sequence[int], looks: Sequence[screen.Estimate], wanted: float) -> int:
    """The cheapest that looks as if it kept the promise, else the one that comes nearest."""
    keeping = [at for at in left if looks[at].attainment >= wanted]
    return keeping[0] if keeping else max(left, key=lambda at: (looks[at].attainment, -looks[at].usd))


def _cheaper(left: Sequence[int], looks: Sequence[screen.Estimate], than: int) -> int | None:
    """The next cheaper one that doesn't look much worse; else the next dearer one that is near."""
    usd, met = looks[than].usd, looks[than].attainment
    below = [at for at in left if looks[at].usd <= usd and looks[at].attainment >= met - _WORSE]
    above = [at for at in left if usd < looks[at].usd <= (1 + _WORSE) * usd]
    return below[-1] if below else above[0] if above else None


def _safer(left: Sequence[int], looks: Sequence[screen.Estimate], than: int) -> int | None:
    """The cheapest that looks safer."""
    return next((at for at in left if looks[at].attainment > looks[than].attainment), None)


def single_type(lab: laboratory.Laboratory) -> Search:
    """Trimtab on each type of GPU that can serve all classes as well as ever: the cheapest that keeps the promise."""
    kept: Run | None = None
    furthest: tuple[int, Task] | None = None
    found = best_gpu.types(lab.scenario, lab.classes)
    for accelerator in found:
        part = best_gpu.restrict(lab.scenario, accelerator)
        stop = world.Stop(misses=lab.misses, usd=None if kept is None else kept.cost_usd)
        task = Task(best_gpu.BestGpu(accelerator), stop if len(found) > 1 else None, part.tiers, part.policies)
        run = yield dataclasses.replace(task, controller=best_gpu.BestGpu(accelerator))
        if not run.aborted and (_misses(run) <= lab.misses or len(found) == 1):
            kept = run
        elif furthest is None or run.requests > furthest[0]:
            furthest = (run.requests, task)
    told = f"of {', '.join(found)}" if len(found) > 1 else "the only type that serves every class as well as ever"
    if kept is not None:
        return _noted(kept, told)
    if furthest is None:
        return None
    run = yield dataclasses.replace(furthest[1], stop=None)
    return _noted(run, f"{told}; none keeps the SLO: the one that came nearest")


def all_biggest(lab: laboratory.Laboratory) -> Search:
    """The static peak of the biggest model, whatever classes allow."""
    part = biggest.restrict(lab.scenario)

    def make(counts: settings.Counts, stop: world.Stop | None) -> Task:
        return Task(baselines.StaticPeak(counts, name=biggest.NAME), stop, part.tiers, part.policies)

    return (yield from _Bench(laboratory.Laboratory(part), routes.BEST, make).static_peak())


def _noted(run: Run, note: str) -> Run:
    return dataclasses.replace(run, notes=(*run.notes, note))


_scenario: world.Scenario | None = None
"""Of a worker process; sent once, as a long trace takes a second."""


def _begin(packed: bytes) -> None:
    """A worker starts. Ctrl-C is the parent's to tell of, once."""
    global _scenario  # noqa: PLW0603 (a worker has one scenario for all its life)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _scenario = pickle.loads(packed)  # noqa: S301 (made by the parent)


def _work(task: Task) -> Run:
    assert _scenario is not None
    return task.run(_scenario)


class _Pool:
    """Runs the tasks of searches, several at once if there are workers."""

    def __init__(self, scenario: world.Scenario, told: Callable[[str], None], workers: int) -> None:
        self._scenario = scenario
        self._told = told
        self._executor: futures.ProcessPoolExecutor | None = None
        if workers > 1:
            context = multiprocessing.get_context("spawn")  # not forked: progress bars have threads
            packed = pickle.dumps(scenario)
            self._executor = futures.ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(packed,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def drive(self, searches: Sequence[Search], ready: Callable[[int], bool] = lambda _: True) -> list[Run | None]:
        """The result of each search. One that is not ready begins when another's run has made it so."""
        results: list[Run | None] = [None] * len(searches)
        waiting = deque(range(len(searches)))
        under_way: dict[futures.Future[Run], int] = {}

        def go_on(at: int, run: Run | None) -> None:
            """Give a search its run, and its next tasks to the workers, or do them here where there are none."""
            while (task := _next(searches[at], run, results, at)) is not None:
                future = self._submit(task)
                if future is not None:
                    under_way[future] = at
                    return
                run = task.run(self._scenario)

        while waiting or under_way:
            for at in [at for at in waiting if ready(at)]:
                waiting.remove(at)
                go_on(at, None)
            if under_way:
                done, _ = futures.wait(under_way, return_when=futures.FIRST_COMPLETED)
                for future in sorted(done, key=under_way.__getitem__):
                    go_on(under_way.pop(future), future.result())
        return results

    def _submit(self, task: Task) -> futures.Future[Run] | None:
        self._told(f"{task.controller.name}: {task.controller.settings}")
        return self._executor.submit(_work, task) if self._executor is not None else None


def _next(search: Search, run: Run | None, results: list[Run | None], at: int) -> Task | None:
    """The next task of a search; None once it has its result, which is noted."""
    try:
        return next(search) if run is None else search.send(run)
    except StopIteration as ended:
        results[at] = ended.value
        return None
