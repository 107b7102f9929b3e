"""Decisions out of a JSON file that ``trimtab simulate`` or ``trimtab demo`` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab_core.planning import inputs
from trimtab_core.planning.plan import Alternative, Decision

from trimtab_cli import failure
from trimtab_cli.explanation.account import Account, Outcome
from trimtab_cli.pages import wording

_EXPECTED = "a file that `trimtab simulate --json` or `trimtab demo --json` wrote"
_SETTLED_SECONDS = 60.0
"""Weights act at once; after so long their effect is measured."""


def read(path: Path) -> tuple[list[Decision], Mapping[str, Any]]:
    """The decisions of a file and its first run. Raises failure.Usage with what is wrong and what is expected."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise failure.Usage(f"{path}: can't be read: {error.strerror or error}; name {_EXPECTED}") from error
    except ValueError as error:
        raise failure.Usage(f"{path}: not JSON ({error}); name {_EXPECTED}") from error
    if not isinstance(document, dict) or "decisions" not in document:
        raise failure.Usage(f"{path}: no decisions in it; name {_EXPECTED}")
    try:
        runs = document.get("runs") or [{}]
        return [_decision(one) for one in document["decisions"]], dict(runs[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise failure.Usage(f"{path}: decisions can't be read ({error!r}); name {_EXPECTED}") from error


def _decision(value: Mapping[str, Any]) -> Decision:
    return Decision(
        float(value["time"]),
        str(value["tier"]),
        str(value["action"]),
        tuple(str(reason) for reason in value["reasons"]),
        float(value["cost_before_usd_per_hour"]),
        float(value["cost_after_usd_per_hour"]),
        str(value.get("binding", "")),
        tuple(inputs.Input(**one) for one in value.get("inputs", ())),
        tuple(Alternative(**one) for one in value.get("alternatives", ())),
        tuple(str(one) for one in value.get("guards", ())),
    )


def tell(path: Path, decision: Decision, run: Mapping[str, Any]) -> Account:
    """The account of one of them."""
    untold = (
        ()
        if decision.inputs
        else ("the file keeps no inputs of this decision: `trimtab explain -f DIR --trace FILE --at` has them",)
    )
    return Account(
        time=wording.clock(decision.time),
        source=path.name,
        decision=decision,
        guards=decision.guards,
        inputs=decision.inputs,
        alternatives=decision.alternatives,
        outcome=outcome(decision, run.get("series") or ()),
        untold=untold,
    )


def outcome(decision: Decision, series: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """What came of it, from the run's course: cost and load once it had taken effect."""
    at = decision.time + effect_seconds(decision.inputs)
    point = next((one for one in series if one["t_s"] >= at), None)
    if point is None:
        return []
    after = f"at {wording.clock(point['t_s'])}"
    planned = sum(one.value or 0.0 for one in decision.inputs if one.name == inputs.PLANNED)
    found = [
        Outcome(
            f"cost {after}",
            f"{wording.usd(decision.cost_after_usd_per_hour)}/h",
            f"{wording.usd(point['usd_per_hour'])}/h",
        )
    ]
    if planned:
        arrived = f"{wording.number(point['arrivals_per_second'])} req/s of all classes, before the cache"
        found.append(Outcome(f"load {after}", f"{wording.number(planned)} req/s of these classes", arrived))
    if point.get("slo_attainment") is not None:
        found.append(Outcome(f"SLO met {after}", "", wording.percent(point["slo_attainment"], 1)))
    return found


def effect_seconds(given: Sequence[inputs.Input]) -> float:
    """How long a decision takes to have an effect: a start-up, or for weights until they are measured."""
    startups = [one.value for one in given if one.name == inputs.STARTUP and one.value is not None]
    return max(startups, default=_SETTLED_SECONDS)
