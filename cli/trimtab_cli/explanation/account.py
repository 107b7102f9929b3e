"""One decision with all that is known of it, and how it is printed. Pure but for the console that it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from trimtab_core.planning import inputs
from trimtab_core.planning.plan import Alternative, Decision

from trimtab_cli.pages import wording

_CENT = 0.005


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was expected of a decision, and what came of it.

    Attributes:
        name: of the number.
        expected, came: as texts.
    """

    name: str
    expected: str
    came: str


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that can be told of one decision.

    Attributes:
        time: when it was taken, as its source tells time.
        source: where this comes from.
        decision: as taken.
        guards: those that changed the decision; what they said is among the reasons.
        inputs: with their ages.
        alternatives: with their cost.
        holding: what guards say of the plan in force.
        weights: (class, shares) pairs in force.
        outcome: one horizon later; empty while it is not known.
        untold: what this source does not keep, and where to find it.
    """

    time: str
    source: str
    decision: Decision
    guards: Sequence[str]
    inputs: Sequence[inputs.Input]
    alternatives: Sequence[Alternative]
    holding: Sequence[str] = ()
    weights: Sequence[tuple[str, str]] = ()
    outcome: Sequence[Outcome] = ()
    untold: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        decision = self.decision
        return {
            "time": self.time,
            "source": self.source,
            "tier": decision.tier,
            "action": decision.action,
            "reasons": list(decision.reasons),
            "cost_before_usd_per_hour": decision.cost_before_usd_per_hour,
            "cost_after_usd_per_hour": decision.cost_after_usd_per_hour,
            "binding": decision.binding,
            "guards": list(self.guards),
            "holding": list(self.holding),
            "inputs": [dataclasses.asdict(one) for one in self.inputs],
            "alternatives": [dataclasses.asdict(one) for one in self.alternatives],
            "weights": [{"class": name, "shares": shares} for name, shares in self.weights],
            "outcome": [dataclasses.asdict(one) for one in self.outcome],
            "untold": list(self.untold),
        }


def cost(decision: Decision) -> str:
    """The fleet's cost before and after, or the one where it stays."""
    before, after = decision.cost_before_usd_per_hour, decision.cost_after_usd_per_hour
    if abs(before - after) < _CENT:
        return f"{wording.usd(after)}/h, unchanged"
    return f"{wording.usd(before)} → {wording.usd(after)}/h, {wording.usd_change(before, after)}"


def show(console: Console, told: Account) -> None:
    """Print an account, part by part; parts of which nothing is known are left out."""
    decision = told.decision
    console.print(Text(decision.action, style="bold"))
    _pairs(
        console,
        [
            ("when", told.time),
            ("where", decision.tier),
            ("fleet", cost(decision)),
            ("binding", decision.binding or "nothing"),
            ("source", told.source),
        ],
    )
    _part(console, "why", decision.reasons)
    _part(console, "guards that changed it", told.guards)
    _inputs(console, told.inputs)
    _alternatives(console, told.alternatives)
    _part(console, "guards that hold the plan in force", told.holding)
    if told.weights:
        _part(console, "weights in force", [f"{name}: {shares}" for name, shares in told.weights])
    if told.outcome:
        _table(
            console,
            "outcome",
            ("", "expected", "came"),
            [(one.name, one.expected, one.came) for one in told.outcome],
        )
    for text in told.untold:
        console.print(Text(text, style="dim"))


def _pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(name, Text(text))
    console.print(table)


def _part(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print()
        console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"- {line}"), soft_wrap=True)


def _inputs(console: Console, found: Sequence[inputs.Input]) -> None:
    if found:
        rows = [
            (one.about, one.name, wording.given(one), one.state, wording.age(one.age_seconds), one.note)
            for one in found
        ]
        _table(console, "inputs", ("of", "what", "value", "state", "age", ""), rows)


def _alternatives(console: Console, alternatives: Sequence[Alternative]) -> None:
    if alternatives:
        rows = [(one.name, f"{wording.usd(one.usd_per_hour)}/h", one.why_not) for one in alternatives]
        _table(console, "alternatives", ("", "cost", "why not"), rows)


def _table(console: Console, title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in titles:
        table.add_column(name, justify="right" if name in {"value", "cost", "age"} else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def listing(console: Console, decisions: Sequence[tuple[str, Decision]]) -> None:
    """All decisions in order, a line each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("time", "where", "action", "$/h", "decisive reason"):
        table.add_column(name, justify="right" if name in {"time", "$/h"} else "left", overflow="fold")
    for time, one in decisions:
        reason = one.reasons[0] if one.reasons else ""
        after = f"{one.cost_after_usd_per_hour:.2f}"
        table.add_row(time, Text(one.tier), Text(one.action), after, Text(reason))
    console.print(table)
