"""What a scenario's runs are worth: each target as a row with its value, whether it was met, and what stood beside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from trimtab_sim.report import Run

from savings import running, schema

HOLD_SECONDS = 180.0
"""So long must the SLO be kept for a disturbance to be over."""
_UNITS = {
    "saved": "of the cost", "attainment": "of requests", "attainment_gained": "of requests", "regret": "of the optimum",
    "wrong_way_moves": "moves", "reversals_10min_max": "reversals", "recovery_seconds": "s", "failed": "requests",
}  # fmt: skip
_TITLES = {
    "attainment": "SLO met",
    "attainment_gained": "SLO met more often than by",
    "regret": "cost above the offline optimum",
    "wrong_way_moves": "wrong-way moves",
    "reversals_10min_max": "most reversals of a tier in 10 minutes",
    "recovery_seconds": "time until the SLO is kept again",
    "failed": "requests without an answer",
}


def rows(outcome: running.Outcome) -> list[dict[str, Any]]:
    """One row for each target of the scenario, in the form of all benchmarks' files."""
    return [row(outcome, target) for target in outcome.scenario.targets]


def row(outcome: running.Outcome, target: schema.Target) -> dict[str, Any]:
    """One target: a saving counts only where Trimtab itself keeps the SLO."""
    value, beside = _measured(outcome, target)
    limit = target.at_least if target.at_least is not None else target.at_most
    assert limit is not None
    met = value is not None and (value >= limit if target.at_least is not None else value <= limit)
    if target.measure == "saved" and not _keeps(outcome, outcome.ours):
        met = False
        beside = {**beside, "Trimtab missed the SLO": outcome.ours.slo_attainment}
    return {
        "name": f"{outcome.scenario.name}: {_title(target)}",
        "value": None if value is None or not math.isfinite(value) else value,
        "unit": _UNITS[target.measure],
        "target": limit,
        "comparison": ">=" if target.at_least is not None else "<=",
        "met": met,
        "beside": beside,
    }


def recovery_seconds(run: Run, after_s: float, wanted: float) -> float:
    """From ``after_s`` to the first point of the course from which on the SLO is kept over ``HOLD_SECONDS``.

    Infinite if there is none. As exact as the points of the course are apart; single windows hold too few requests
    to tell 98 % from 99.
    """
    for point in run.series:
        if point.t_s < after_s or point.t_s + HOLD_SECONDS > run.duration_s:
            continue
        held = [one for one in run.series if point.t_s <= one.t_s < point.t_s + HOLD_SECONDS]
        arrived = sum(one.arrivals_per_second for one in held)
        met = sum(one.arrivals_per_second * one.slo_attainment for one in held if one.slo_attainment is not None)
        if arrived and met / arrived >= wanted:
            return point.t_s - after_s
    return math.inf


def _measured(outcome: running.Outcome, target: schema.Target) -> tuple[float | None, dict[str, Any]]:
    """The value, None where it could not be had, and what stood beside it."""
    ours = outcome.ours
    if target.measure in {"saved", "attainment_gained"}:
        return _compared(outcome, target)
    if target.measure == "recovery_seconds":
        after_s = (target.after_minutes or 0.0) * 60
        others = {
            name: recovery_seconds(run, after_s, outcome.wanted)
            for name, run in outcome.runs.items()
            if run is not ours
        }
        told = {name: value if math.isfinite(value) else "never" for name, value in others.items()}
        return recovery_seconds(ours, after_s, outcome.wanted), told
    name = "slo_attainment" if target.measure == "attainment" else target.measure
    beside = {other: getattr(run, name, None) for other, run in outcome.runs.items() if run is not ours}
    if target.measure == "regret" and outcome.optimum is not None:
        beside = {
            "optimum $": outcome.optimum.usd,
            "optimum by the planner's own capacity model $": outcome.optimum.planned_usd,
            **beside,
        }
    value = getattr(ours, name, None)
    return None if value is None else float(value), {name: found for name, found in beside.items() if found is not None}


def _compared(outcome: running.Outcome, target: schema.Target) -> tuple[float | None, dict[str, Any]]:
    """Against the cheapest of the runs named that keeps the SLO; if none does, against the one that keeps it best."""
    named = {name: outcome.runs[name] for name in target.against if name in outcome.runs}
    if not named:
        return None, {"not run": ", ".join(target.against)}
    if target.measure == "attainment_gained":
        best = max(named, key=lambda name: named[name].slo_attainment)
        return outcome.ours.slo_attainment - named[best].slo_attainment, {best: named[best].slo_attainment}
    best = _cheapest(outcome, named)
    beside = {f"{name} $": run.cost_usd for name, run in named.items()}
    missed = {f"{name} missed the SLO": run.slo_attainment for name, run in named.items() if not _keeps(outcome, run)}
    return outcome.ours.saved_against(named[best]), {"Trimtab $": outcome.ours.cost_usd, **beside, **missed}


def _cheapest(outcome: running.Outcome, named: dict[str, Run]) -> str:
    keeping = [name for name, run in named.items() if _keeps(outcome, run)]
    if keeping:
        return min(keeping, key=lambda name: named[name].cost_usd)
    return max(named, key=lambda name: named[name].slo_attainment)


def _keeps(outcome: running.Outcome, run: Run) -> bool:
    return run.slo_attainment >= outcome.wanted


def _title(target: schema.Target) -> str:
    against = _listed(target.against)
    if target.measure == "saved":
        return f"saved against the best of {against}" if len(target.against) > 1 else f"saved against {against}"
    return f"{_TITLES[target.measure]} {against}".strip()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
