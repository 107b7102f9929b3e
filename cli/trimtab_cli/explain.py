"""``trimtab explain``: one decision with its inputs and their ages, what else could be done, and what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from trimtab_core import recall, units
from trimtab_core.planning.plan import Decision

from trimtab_cli import failure, progress, scenarios
from trimtab_cli.explanation import account, from_file, from_run
from trimtab_cli.pages import wording

_PIPE_WIDTH = 200
_USAGE = "write `tier NAME`, `policy NAME`, a JSON file, or -f DIR --trace FILE --at 12m"
_KINDS = ("tier", "policy")
_OBJECT = 2
"""Words that name an object: its kind and its name."""


class Moment(click.ParamType[float]):
    """A time since the start, such as 12m or 1h30m."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        try:
            return units.duration_seconds(str(value))
        except units.UnitError as error:
            self.fail(str(error), param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", nargs=-1, metavar="[tier NAME | policy NAME | FILE.json]")
@click.option(
    "-f", "--filename", "paths", multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifests: their simulation is run up to --at and its plan is explained in full.",
)  # fmt: skip
@scenarios.options
@click.option("--at", "at_s", type=Moment(), help="The decision in force then, since the start; the last when absent.")
@click.option("--tier", default="", metavar="NAME", help="Only decisions about this tier.")
@click.option("--back", type=click.IntRange(0), default=0, help="So many decisions before that one.")
@click.option("--list", "list_all", is_flag=True, help="List all decisions instead, a line each.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of the tier or policy in the cluster.")
@click.option("--kubeconfig", default="", metavar="FILE", help="Instead of the pod's account or the default file.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@scenarios.debug_option
def command(
    what: tuple[str, ...],
    *,
    paths: tuple[Path, ...],
    at_s: float | None,
    as_json: bool,
    debug: bool,
    **rest: Any,  # noqa: ANN401 (which decision, and the shared options)
) -> None:
    """Explain one decision: inputs with their ages, reasons, guards, alternatives with their cost, and the outcome.

    From a cluster's status, from the JSON file of a simulation or demo, or from a simulation that is run again up to
    the moment in question. Exit code 0: explained. 1: there is no such decision. 2: something can't be used.
    """
    chosen = _Choice(at_s, rest.pop("tier"), rest.pop("back"), list_all=rest.pop("list_all"), as_json=as_json)
    namespace, kubeconfig = rest.pop("namespace"), rest.pop("kubeconfig")
    if bool(what) == bool(paths):
        raise failure.Usage(f"nothing to explain: {_USAGE}" if not what else f"two things to explain: {_USAGE}")
    if paths:
        _from_run(paths, scenarios.Wish(**rest), chosen, debug=debug)
    elif len(what) == _OBJECT and what[0] in _KINDS:
        _from_cluster(what, namespace, kubeconfig, chosen)
    elif len(what) == 1 and what[0] not in _KINDS:
        _from_file(Path(what[0]), chosen)
    else:
        raise failure.Usage(f"{' '.join(what)}: {_USAGE}")


class _Choice:
    """Which decision is wanted, and how it is printed."""

    def __init__(self, at_s: float | None, tier: str, back: int, *, list_all: bool, as_json: bool) -> None:
        self.at_s = at_s
        self.tier = tier
        self.list_all = list_all
        self._back = back
        self._as_json = as_json

    def kept(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions that are in question."""
        return [
            one
            for one in decisions
            if (self.at_s is None or one.time <= self.at_s)
            and (not self.tier or self.tier in {one.tier, one.tier.rpartition("/")[2]})
        ]

    def one(self, decisions: Sequence[Decision]) -> Decision | None:
        """The one that is wanted; None where there is none."""
        kept = self.kept(decisions)
        return kept[-1 - self._back] if len(kept) > self._back else None

    def show(self, told: account.Account) -> None:
        """Print an account."""
        if self._as_json:
            click.echo(json.dumps(told.to_dict(), indent=1, ensure_ascii=False))
        else:
            account.show(_console(), told)

    def list(self, decisions: Sequence[Decision], clock: Any = wording.clock) -> None:  # noqa: ANN401 (a function)
        """Print all that are in question."""
        kept = [(clock(one.time), one) for one in self.kept(decisions)]
        if self._as_json:
            told = [
                {"time": time, "tier": one.tier, "action": one.action, "reasons": one.reasons} for time, one in kept
            ]
            click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        else:
            account.listing(_console(), kept)

    def missing(self, count: int) -> failure.Finding:
        """There is no such decision."""
        about = f" about {self.tier}" if self.tier else ""
        until = f" up to {wording.clock(self.at_s)}" if self.at_s is not None else ""
        return failure.Finding(f"no such decision{about}{until}: there are {count} in all; see --list")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def _from_file(path: Path, chosen: _Choice) -> None:
    decisions, run = from_file.read(path)
    if chosen.list_all:
        chosen.list(decisions)
        return
    found = chosen.one(decisions)
    if found is None:
        raise chosen.missing(len(decisions))
    chosen.show(from_file.tell(path, found, run))


def _from_cluster(what: Sequence[str], namespace: str, kubeconfig: str, chosen: _Choice) -> None:
    from trimtab_cli.explanation import from_cluster  # needs the operator's libraries

    if chosen.at_s is not None:
        raise failure.Usage("--at counts from the start of a run; of a tier or policy choose with --back or --list")
    found = from_cluster.read(what[0], namespace, what[1], kubeconfig)
    if chosen.list_all:
        chosen.list(found.decisions, recall.rfc3339)
        return
    decision = chosen.one(found.decisions)
    if decision is None:
        raise chosen.missing(len(found.decisions))
    chosen.show(from_cluster.tell(found, decision))


def _from_run(paths: tuple[Path, ...], wish: scenarios.Wish, chosen: _Choice, *, debug: bool) -> None:
    with scenarios.told(debug=debug):
        scenario = scenarios.prepare(paths, wish).scenario
        at_s = scenario.trace.duration_s if chosen.at_s is None else chosen.at_s
        with progress.meter("up to the decision", 1) as meter:
            seen = from_run.run(scenario, at_s, meter.run("trimtab"))
    if chosen.list_all:
        chosen.list(seen.decisions)
        return
    decision = chosen.one(seen.decisions)
    if decision is None and (chosen.tier or seen.decisions):
        raise chosen.missing(len(seen.decisions))
    chosen.show(from_run.tell(seen, decision or from_run.nothing_changed(seen), scenario.trace.source))
