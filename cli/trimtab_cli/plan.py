"""``trimtab plan``: what an edit of manifests would change in cost, SLO and quality, before it is merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from trimtab_core import units
from trimtab_sim import search, world

from trimtab_cli import failure, manifests, progress, scenarios
from trimtab_cli.pages import figures, page
from trimtab_cli.preview import changes, document, side, story, table, watch

_PIPE_WIDTH = 160
_NEW = "the policy {policy} is not among the manifests before the edit, so there is no cost to compare with"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@scenarios.manifests_option
@click.option(
    "--against", multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="The manifests before the edit, to compare with. May be given several times.",
)  # fmt: skip
@click.option("--prometheus", default="", metavar="URL", help="Plan for the demand that this Prometheus shows now.")
@scenarios.options
@click.option(
    "--format", "form", type=click.Choice(["table", "markdown"]), default="table", show_default=True,
    help="Markdown is for a comment on a pull request.",
)  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all results here.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with plots here."
)
@scenarios.debug_option
def command(
    paths: tuple[Path, ...],
    *,
    against: tuple[Path, ...],
    prometheus: str,
    form: str,
    json_file: Path | None,
    html_file: Path | None,
    debug: bool,
    **load: Any,  # noqa: ANN401 (the shared options)
) -> None:
    """Predict what manifests cost and keep: on a trace in simulated time, or for the demand that Prometheus shows.

    With --against both sets are predicted on the same load and the difference is shown, as a check of pull requests.
    Exit code 0: the SLO and all budgets are kept. 1: one of them would break. 2: something can't be used.
    """
    wish = scenarios.Wish(**load)
    if prometheus:
        _require_no_load(wish)
    for option, path in (("--json", json_file), ("--html", html_file)):
        scenarios.require_writable(option, path)
    with scenarios.told(debug=debug):
        told = _planned(paths, against, prometheus) if prometheus else _simulated(paths, against, wish)
    _print(told, form)
    scenarios.write("--json", json_file, json.dumps(document.build(told), indent=1, ensure_ascii=False) + "\n")
    if html_file is not None:
        scenarios.write("--html", html_file, page.render(story.build_page(told)))
    if told.after.broken:
        raise failure.Finding(f"{story.verdict(told)}: {told.after.broken[0]}")


def _require_no_load(wish: scenarios.Wish) -> None:
    """The demand is that of Prometheus: options of a trace would be of no effect. Raises failure.Usage."""
    given = {
        "--trace": wish.trace_file is not None,
        "--minutes": wish.minutes is not None,
        "--speed": wish.speed != 1.0,
        "--scale": wish.scale != 1.0,
        "--faults": wish.faults_file is not None,
        "--policy": bool(wish.policy),
    }
    wrong = [name for name, there in given.items() if there]
    if wrong:
        raise failure.Usage(f"--prometheus and {wrong[0]} exclude each other: give the one to plan for")


def _planned(paths: tuple[Path, ...], against: tuple[Path, ...], url: str) -> story.Story:
    """Both sides for the demand of now."""
    from trimtab_cli.preview import live  # needs the operator's libraries, which a check of pull requests has not

    return live.tell(paths, against, url)


def _simulated(paths: tuple[Path, ...], against: tuple[Path, ...], wish: scenarios.Wish) -> story.Story:
    """Both sides on the trace."""
    new = scenarios.prepare(paths, wish)
    old = _before(against, wish, new) if against else None
    with progress.meter("two plans" if old else "one plan", 2 if old else 1) as meter:
        before = _side(old, meter.run("before")) if old else None
        after = _side(new, meter.run("after" if old else "plan"))
    scenario = new.scenario
    trace = scenario.trace
    return story.Story(
        load=f"{trace.source}: {len(trace):,} requests in {units.format_duration(round(trace.duration_s))}",
        before=before,
        after=after,
        changes=changes.between(manifests.load(against), manifests.load(paths)) if against else None,
        tiers=scenarios.tier_names(scenario),
        promised=search.wanted_attainment(scenario),
        limits=figures.strictest_limits(scenarios.routing_rules(scenario)),
        notes=new.notes if old or not against else (*new.notes, _NEW.format(policy=scenario.policy_key)),
        facts=[("Policy", scenario.policy_key), ("Seed", str(wish.seed))],
        titles=("before", "after") if before else ("planned",),
    )


def _before(against: tuple[Path, ...], wish: scenarios.Wish, new: scenarios.Prepared) -> scenarios.Prepared | None:
    """The other side, on the same requests to the policy of the same name; None where that policy is new."""
    asked = scenarios.Wish(**{**_fields(wish), "policy": new.scenario.policy_key})
    try:
        return scenarios.prepare(against, asked, new.scenario.trace)
    except world.ScenarioError:
        return None
    except manifests.ManifestError as error:
        raise manifests.ManifestError(f"--against: {error}") from error


def _fields(wish: scenarios.Wish) -> dict[str, Any]:
    return {name: getattr(wish, name) for name in wish.__slots__}


def _side(prepared: scenarios.Prepared, told: world.Progress) -> side.Side:
    watched = watch.Watched()
    run = world.simulate(prepared.scenario, watched, told)
    return side.simulated(prepared.scenario, run, watched.moments, prepared.doubts)


def _print(told: story.Story, form: str) -> None:
    if form == "markdown":
        click.echo(document.markdown(told))
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(told.load, soft_wrap=True, markup=False)
    for note in told.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
    if told.changes is not None and not told.changes:
        console.print("no field of the manifests differs", style="dim")
    table.show(console, told.lines, told.changes or (), told.titles)
    for name, text in told.details:
        console.print(f"{name}: {text}", style="dim", soft_wrap=True, markup=False)
    console.print()
    for kept, text in told.after.promises:
        verdict = Text("keeps   " if kept else "breaks  ", style="green" if kept else "bold red")
        console.print(verdict + Text(text), soft_wrap=True)
