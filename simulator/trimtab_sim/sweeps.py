"""How the best setting of one baseline is found: the smallest static fleet, or the cheapest of a grid of settings.

The likely best is simulated first. A run is ended early once it misses more than the promise allows or has cost more
than the best that keeps it, neither of which can change which is best.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

from trimtab_sim import control, laboratory, screen, settings, world
from trimtab_sim.report import Run
from trimtab_sim.tasks import Search, Task

Make = Callable[[settings.Counts, world.Stop | None], Task]
"""A task that runs a static fleet."""
Guess = Callable[[Run], int]
"""The number of a better fleet, from the run of the first one."""
Look = Callable[[control.Controller], screen.Estimate]
"""What a controller would roughly cost and keep."""
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
        if not run.aborted and misses(run) <= allowed:
            high, runs[at] = at, run
        elif at == top:  # no fleet keeps the promise: as good as this one will do
            runs[at] = yield make(rungs[at], None)
            allowed = misses(runs[at]) + round(_ENOUGH * runs[at].requests)
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
    return noted(found, f"smallest of {tried} fleets tried")


def _fineness(rungs: Sequence[settings.Counts], high: int) -> int:
    """Rungs that may be left untried below the best one."""
    return max(1, int(_NEAR * sum(rungs[min(high, len(rungs) - 1)].values())))


def misses(run: Run) -> int:
    """Requests that missed the promise."""
    return round((1 - run.slo_attainment) * run.requests)


def sweep(lab: laboratory.Laboratory, look: Look, controllers: Sequence[control.Controller], tries: int) -> Search:
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
        if hopeless and tried >= tries and misses(run) > lab.misses:
            return noted(run, _none(tried, len(controllers)))
        if not run.aborted and misses(run) <= lab.misses:
            kept = run if kept is None or run.cost_usd < kept.cost_usd else kept
            at = _cheaper(left, looks, at)
        else:
            furthest = max(furthest or (-1, -1), (run.requests, at)) if kept is None else furthest
            at = _safer(left, looks, at)
        if at is None and left:
            at = _first(left, looks, wanted)
    if kept is not None:
        return noted(kept, f"best of {_chosen(tried, len(controllers))}")
    assert furthest is not None
    run = yield Task(copy.deepcopy(controllers[furthest[1]]))
    return noted(run, _none(tried, len(controllers)))


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


def noted(run: Run, note: str) -> Run:
    """The run with one more note."""
    return dataclasses.replace(run, notes=(*run.notes, note))
