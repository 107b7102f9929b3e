"""Runs that searches ask for, and the processes that make them.

A search is a generator: it asks for runs, gets them, and returns the best. So several can share processes, and how many
processes there are changes no result.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Self

from trimtab_core.api import v1alpha1

from trimtab_sim import control, world
from trimtab_sim.report import Run


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


_scenario: world.Scenario | None = None
"""Of a worker process; sent once, as a long trace takes a second."""


def _begin(packed: bytes) -> None:
    """A worker starts. Ctrl-C is the parent's to tell of, once."""
    global _scenario  # noqa: PLW0603 (a worker has one scenario for all its life)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _scenario = pickle.loads(packed)  # noqa: S301 (made by the parent)
    gc.freeze()  # what lives as long as the worker need not be looked through again and again


def _work(task: Task) -> Run:
    assert _scenario is not None
    return task.run(_scenario)


class Pool:
    """Runs the tasks of searches, several at once if there are workers."""

    def __init__(self, scenario: world.Scenario, told: Callable[[str], None], workers: int) -> None:
        self._scenario = scenario
        self._told = told
        self._workers = workers
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
        """The result of each search. One that is not ready begins when another's run has made it so.

        The first searches go first whenever a worker is free, so that one which needs many runs, one after the other,
        doesn't end long after all others.
        """
        results: list[Run | None] = [None] * len(searches)
        waiting = list(range(len(searches)))
        asked: dict[int, Task] = {}
        under_way: dict[futures.Future[Run], int] = {}

        def go_on(at: int, run: Run | None) -> None:
            """Give a search its run, and note what it asks for next."""
            task = _next(searches[at], run, results, at)
            if task is not None:
                asked[at] = task

        while waiting or asked or under_way:
            for at in [at for at in waiting if ready(at)]:
                waiting.remove(at)
                go_on(at, None)
            while asked and len(under_way) < self._workers:
                first = min(asked)
                task = asked.pop(first)
                self._told(f"{task.controller.name}: {task.controller.settings}")
                if self._executor is None:
                    go_on(first, task.run(self._scenario))
                    break
                under_way[self._executor.submit(_work, task)] = first
            if under_way:
                done, _ = futures.wait(under_way, return_when=futures.FIRST_COMPLETED)
                for future in sorted(done, key=under_way.__getitem__):
                    go_on(under_way.pop(future), future.result())
        return results


def _next(search: Search, run: Run | None, results: list[Run | None], at: int) -> Task | None:
    """The next task of a search; None once it has its result, which is noted."""
    try:
        return next(search) if run is None else search.send(run)
    except StopIteration as ended:
        results[at] = ended.value
        return None
