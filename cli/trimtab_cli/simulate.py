"""``trimtab simulate``: the manifests on a trace in simulated time, beside baselines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from trimtab_core import units
from trimtab_sim import control, oracle, prompts, report, search, world

from trimtab_cli import failure, progress, scenarios
from trimtab_cli.pages import figures, page, wording
from trimtab_cli.simulation import story, table

MANY_REQUESTS = 20_000
"""From so many on baselines are simulated in several processes; starting them takes a second or two."""
_PIPE_WIDTH = 200


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@scenarios.manifests_option
@scenarios.options
@click.option(
    "--baselines", "baseline_names", default="all", show_default=True, metavar="all|none|NAMES",
    help=f"Comma-separated: {', '.join(search.NAMES)}.",
)  # fmt: skip
@click.option(
    "--routing", type=click.Choice([search.BEST, search.MEAN]), default=search.BEST, show_default=True,
    help="Where baselines send requests: to the best tier, or by fixed weights, the mean of Trimtab's own.",
)  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all results here.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with plots here."
)
@scenarios.debug_option
def command(
    paths: tuple[Path, ...],
    *,
    baseline_names: str,
    routing: str,
    json_file: Path | None,
    html_file: Path | None,
    debug: bool,
    **load: Any,  # noqa: ANN401 (the shared options)
) -> None:
    """Replay a trace in simulated time, beside baselines in their best settings and the offline optimum.

    Exit code 0: the SLO was kept. 1: Trimtab's run missed it, or a promise of the manifests can't be kept. 2:
    manifests, trace, faults or options can't be used.
    """
    names, wish = _names(baseline_names), scenarios.Wish(**load)
    for option, path in (("--json", json_file), ("--html", html_file)):
        scenarios.require_writable(option, path)
    with scenarios.told(debug=debug):
        prepared = scenarios.prepare(paths, wish)
        runs = _run(prepared.scenario, names, routing)
    told = _story(prepared, runs, wish)
    _print(told)
    scenarios.write("--json", json_file, json.dumps(_document(told, prepared), indent=1) + "\n")
    if html_file is not None:
        scenarios.write("--html", html_file, page.render(story.build_page(told)))
    _judge(told, prepared)


def _names(text: str) -> tuple[str, ...]:
    if text in ("all", "none"):
        return tuple(search.NAMES) if text == "all" else ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in search.NAMES]
    if unknown or not names:
        known = ", ".join(search.NAMES)
        raise failure.Usage(
            f"--baselines {text}: {unknown[0] if unknown else 'nothing'} is none of {known}, all or none"
        )
    return names


def _run(scenario: world.Scenario, names: Sequence[str], routing: str) -> tuple[report.Run, ...]:
    whole = f"Trimtab and {wording.count(len(names), 'baseline')}" if names else "Trimtab"
    with progress.meter(whole, 1 + len(names) * search.TRIES) as meter:
        workers = (os.cpu_count() or 1) if names and len(scenario.trace) >= MANY_REQUESTS else 1
        if workers > 1:
            return search.run_beside(scenario, names, meter.told, workers=workers, routing=routing)
        ours = world.simulate(scenario, control.Trimtab(), meter.run("trimtab"))
        others = search.run_baselines(scenario, names, meter.told, routing=routing)
        if not names:
            return (ours,)
        meter.told("the offline optimum")
        return oracle.with_regret((ours, *others), scenario)


def _story(prepared: scenarios.Prepared, runs: Sequence[report.Run], wish: scenarios.Wish) -> story.Story:
    scenario = prepared.scenario
    trace = scenario.trace
    facts = [("Policy", scenario.policy_key), ("Seed", str(wish.seed))]
    if wish.faults_file is not None:
        facts.append(("Faults", wish.faults_file.name))
    return story.Story(
        runs=runs,
        promised=search.wanted_attainment(scenario),
        limits=figures.strictest_limits(scenarios.routing_rules(scenario)),
        tiers=scenarios.tier_names(scenario),
        trace=f"{trace.source}: {len(trace)} requests in {units.format_duration(round(trace.duration_s))}",
        prompts=str(prompts.Mix()),
        notes=[*prepared.notes, *(finding.text() for finding in prepared.doubts)],
        facts=facts,
    )


def _print(told: story.Story) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(told.trace, soft_wrap=True)
    console.print(f"prompts: {told.prompts}", style="dim", soft_wrap=True)
    for note in told.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
    table.show(console, told.runs, told.promised)


def _document(told: story.Story, prepared: scenarios.Prepared) -> dict[str, object]:
    scenario = prepared.scenario
    return report.document(
        told.runs,
        trace=scenario.trace.source,
        prompts=told.prompts,
        policy=scenario.policy_key,
        seed=scenario.settings.seed,
        slo_attainment_wanted=told.promised,
        duration_s=scenario.trace.duration_s,
        notes=list(told.notes),
    )


def _judge(told: story.Story, prepared: scenarios.Prepared) -> None:
    """Raise failure.Finding where a promise was missed, or can't be kept at all."""
    found = [f"a promise can't be kept: {doubt.text()}" for doubt in prepared.doubts[:1]]
    if told.ours.slo_attainment < told.promised:
        met = f"{told.ours.slo_attainment:.2%} of the requests met it, {told.promised:.2%} are promised"
        found.insert(0, f"the SLO was missed: {met}")
    if found:
        raise failure.Finding("; ".join(found))
