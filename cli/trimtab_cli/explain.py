"""``trimtab explain``: one decision with its inputs and their ages, what else could be done, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from trimtab_core import recall, units

from trimtab_cli import failure, progress, scenarios
from trimtab_cli.explanation import choice, from_file, from_run

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
    which = {name: rest.pop(name) for name in ("tier", "back", "list_all")}
    chosen = choice.Choice(at_s=at_s, as_json=as_json, **which)
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


def _from_file(path: Path, chosen: choice.Choice) -> None:
    decisions, run = from_file.read(path)
    if chosen.list_all:
        chosen.tell_all(decisions)
        return
    found = chosen.one(decisions)
    if found is None:
        raise chosen.missing(len(decisions))
    chosen.show(from_file.tell(path, found, run))


def _from_cluster(what: Sequence[str], namespace: str, kubeconfig: str, chosen: choice.Choice) -> None:
    from trimtab_cli.explanation import from_cluster  # needs the operator's libraries

    if chosen.at_s is not None:
        raise failure.Usage("--at counts from the start of a run; of a tier or policy choose with --back or --list")
    found = from_cluster.read(what[0], namespace, what[1], kubeconfig)
    if chosen.list_all:
        chosen.tell_all(found.decisions, recall.rfc3339)
        return
    decision = chosen.one(found.decisions)
    if decision is None:
        raise chosen.missing(len(found.decisions))
    chosen.show(from_cluster.tell(found, decision))


def _from_run(paths: tuple[Path, ...], wish: scenarios.Wish, chosen: choice.Choice, *, debug: bool) -> None:
    with scenarios.told(debug=debug):
        scenario = scenarios.prepare(paths, wish).scenario
        at_s = scenario.trace.duration_s if chosen.at_s is None else chosen.at_s
        with progress.meter("up to the decision", 1) as meter:
            seen = from_run.run(scenario, at_s, meter.run("trimtab"))
    if chosen.list_all:
        chosen.tell_all(seen.decisions)
        return
    decision = chosen.one(seen.decisions)
    if decision is None and (chosen.tier or seen.decisions):
        raise chosen.missing(len(seen.decisions))
    chosen.show(from_run.tell(seen, decision or from_run.nothing_changed(seen), scenario.trace.source))
