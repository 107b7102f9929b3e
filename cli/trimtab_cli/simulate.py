"""``trimtab simulate``: the manifests on a trace in simulated time, beside baselines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from trimtab_core import units
from trimtab_sim import control, prompts, report, search, traces, workload, world

from trimtab_cli import failure, manifests

DEFAULT_MINUTES = 60.0
"""Length of the synthetic trace."""
SYNTHETIC_RPS = 5.53
MANY_REQUESTS = 20_000
"""From so many on baselines are simulated in several processes; starting them takes a second or two."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f", "--filename", "paths", required=True, multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifest, or folder of manifests. May be given several times.",
)  # fmt: skip
@click.option(
    "--trace", "trace_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Azure CSV, t_s,input_tokens,output_tokens CSV or Mooncake JSONL, plain or gzip; synthetic when absent.",
)  # fmt: skip
@click.option("--minutes", type=float, help="Length of the replay; all of the trace when absent.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Replay so many times faster.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="So many times the request rate.")
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds give equal results.")
@click.option(
    "--policy", default="", metavar="NAMESPACE/NAME", help="The policy that gets the trace; the first when absent."
)
@click.option(
    "--baselines", "baseline_names", default="all", show_default=True, metavar="all|none|NAMES",
    help=f"Comma-separated: {', '.join(search.NAMES)}.",
)  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all results here.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(  # noqa: PLR0913 (one argument for each option)
    paths: tuple[Path, ...],
    *,
    trace_file: Path | None,
    minutes: float | None,
    speed: float,
    scale: float,
    seed: int,
    policy: str,
    baseline_names: str,
    json_file: Path | None,
    debug: bool,
) -> None:
    """Replay a trace in simulated time, beside baselines in their best settings.

    Exit code 0: the SLO was kept. 1: Trimtab's run missed it. 2: manifests, trace or options can't be used.
    """
    names = _names(baseline_names)
    try:
        objects = _objects(paths)
        trace = _trace(trace_file, minutes=minutes, speed=speed, scale=scale, seed=seed)
        scenario = world.Scenario(
            objects.tiers, objects.policies, objects.caches, trace, world.Settings(seed=seed), policy
        )
        runs = _run(scenario, names)
    except (manifests.ManifestError, workload.TraceError, world.ScenarioError) as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error
    wanted = search.wanted_attainment(scenario)
    _print(runs, scenario, wanted)
    if json_file is not None:
        _write(json_file, runs, scenario, wanted)
    if runs[0].slo_attainment < wanted:
        raise failure.Finding(
            f"the SLO was missed: {runs[0].slo_attainment:.2%} of the requests met it, {wanted:.2%} are promised"
        )


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


def _objects(paths: Sequence[Path]) -> manifests.Bundle:
    bundle = manifests.load(paths)
    if bundle.findings:
        first = bundle.findings[0]
        more = f" (and {len(bundle.findings) - 1} more: see `trimtab validate`)" if len(bundle.findings) > 1 else ""
        raise manifests.ManifestError(first.text() + more)
    return bundle


def _trace(file: Path | None, *, minutes: float | None, speed: float, scale: float, seed: int) -> workload.Trace:
    if file is not None:
        return traces.load(file, minutes=minutes, speed=speed, scale=scale, seed=seed)
    return traces.synthesize(
        minutes=DEFAULT_MINUTES if minutes is None else minutes, seed=seed, mean_rps=SYNTHETIC_RPS * scale * speed
    )


class _Meter(Protocol):
    """Where progress is told."""

    def run(self, what: str) -> world.Progress:
        """A run begins; the function takes the share that is done."""
        ...


class _Quiet:
    """In a pipe: nothing."""

    def run(self, what: str) -> world.Progress:
        del what
        return lambda _: None


class _Bar:
    """On a terminal: one line that says what runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=1.0)

    def run(self, what: str) -> world.Progress:
        self._progress.update(self._task, description=what, completed=0.0)
        return lambda share: self._progress.update(self._task, completed=share)


@contextmanager
def _meter() -> Iterator[_Meter]:
    if not sys.stderr.isatty():
        yield _Quiet()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


def _run(scenario: world.Scenario, names: Sequence[str]) -> tuple[report.Run, ...]:
    with _meter() as meter:
        ours = world.simulate(scenario, control.Trimtab(), meter.run("trimtab"))
        workers = (os.cpu_count() or 1) if len(scenario.trace.requests) >= MANY_REQUESTS else 1
        return ours, *search.run_baselines(scenario, names, lambda what: _ignore(meter.run(what)), workers=workers)


def _ignore(_: world.Progress) -> None:
    """Baseline runs are short and many: their description is progress enough."""


def _print(runs: Sequence[report.Run], scenario: world.Scenario, wanted: float) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    trace = scenario.trace
    console.print(f"{trace.source}: {len(trace.requests)} requests in {units.format_duration(round(trace.duration_s))}")
    console.print(f"prompts: {prompts.Mix()}", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in _COLUMNS:
        table.add_column(title, justify="right" if justify else "left", no_wrap=True)
    for run in runs:
        table.add_row(*_row(run, runs[0], wanted))
    console.print(table)
    for run in runs:
        told = "; ".join((run.settings, *run.notes[1:]) if run.settings else run.notes[1:])
        if told:
            console.print(f"{run.controller}: {told}", style="dim")


_COLUMNS = (
    ("controller", False), ("cost", True), ("$/1k req", True), ("saved", True), ("SLO met", True), ("TTFT p95", True),
    ("ITL p95", True), ("e2e p95", True), ("GPU h", True), ("GPU use", True), ("changes", True), ("quality", True),
    ("share by tier", False),
)  # fmt: skip


def _row(run: report.Run, ours: report.Run, wanted: float) -> tuple[str, ...]:
    saved = "" if run is ours else f"{ours.saved_against(run):+.1%}"
    kept = f"{run.slo_attainment:.2%}" + ("" if run.slo_attainment >= wanted else " missed")
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in run.share_by_tier.items())
    return (
        run.controller,
        units.format_usd(run.cost_usd),
        units.format_usd(run.usd_per_1k_requests),
        saved,
        kept,
        _seconds(run.ttft_p95_s),
        _seconds(run.itl_p95_s),
        _seconds(run.e2e_p95_s),
        f"{run.gpu_hours:.2f}",
        f"{run.gpu_utilisation:.0%}",
        str(run.replica_changes),
        f"{run.quality_retention:.1%}",
        shares,
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else units.format_duration(float(f"{value:.3g}"))


def _write(file: Path, runs: Sequence[report.Run], scenario: world.Scenario, wanted: float) -> None:
    trace = scenario.trace
    document = report.document(
        runs,
        trace=trace.source,
        prompts=str(prompts.Mix()),
        policy=scenario.policy_key,
        seed=scenario.settings.seed,
        slo_attainment_wanted=wanted,
        duration_s=trace.duration_s,
    )
    try:
        file.write_text(json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise failure.Usage(f"--json {file}: can't be written: {error.strerror or error}") from error
