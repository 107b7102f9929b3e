"""The demo from its options to its exit code: prepare, replay, simulate the baselines, tell."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import platform
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from trimtab_core import observation, units
from trimtab_core.api import v1alpha1
from trimtab_operator.local import adapt, session, store
from trimtab_sim import prompts, report, search, traces, workload, world

from trimtab_cli import failure, running
from trimtab_cli.demonstration import live, replay, results
from trimtab_cli.pages import page, runs, wording

SHORTEST_MINUTES = 0.2
LONGEST_RUN_IN_SECONDS = 10.0
"""How long the beginning of the trace is sent before anything is counted; a quarter of a shorter replay."""
WORKERS = min(4, os.cpu_count() or 1)
MOST_OUTPUT_TOKENS_PER_SECOND, MOST_INPUT_TOKENS_PER_SECOND = 5_000.0, 30_000.0
"""Means that two cores can simulate, with bursts of twice as much."""
STREAM_INTERVAL = 8
"""Tokens in one event of a stream: 2 cores relay some 2,000 events a second, and this makes them 16,000 tokens."""
_INTERRUPTED = 128 + signal.SIGINT
_PIPE_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line.

    Attributes:
        scale: how many times the trace's rate, a number or ``auto``.
        mean_rps: mean rate of the synthetic trace, before ``speed`` and ``scale``; what ``auto`` scales others to.
        time_scale: divides start-ups, windows and intervals.
    """

    trace_file: Path | None
    minutes: float
    speed: float
    scale: str
    paths: tuple[Path, ...]
    seed: int
    json_file: Path | None
    html_file: Path | None
    port: int
    baselines: bool
    debug: bool
    mean_rps: float
    time_scale: float


def run(wish: Wish) -> int:
    """Do it all; returns the exit code.

    Raises:
        failure.Usage: for options, files or ports that can't be used.
        failure.Finding: when the SLO was missed or the fleet did not come up.
    """
    console = Console(highlight=False)
    objects = running.objects_of(wish.paths or (quickstart(),), debug=wish.debug)
    trace = load_trace(wish)
    for path in (wish.json_file, wish.html_file):
        require_writable(path)
    with running.folder(keep=wish.debug) as folder, running.told(debug=wish.debug):
        plan = make_plan(wish, objects, trace, folder)
        found = _measure(plan, console)
    if isinstance(found, int):
        return found
    try:
        others = _baselines(plan, console) if wish.baselines else ()
    except KeyboardInterrupt:
        return _INTERRUPTED
    story = tell(plan, found, others, wish)
    print_story(story, console)
    write_files(wish, story, trace)
    if not story.held:
        kept = f"{story.ours.slo_attainment:.2%} of the requests met it, {story.promised:.2%} are promised"
        raise failure.Finding(f"the SLO was missed: {kept}")
    return 0


def quickstart() -> Path:
    """The manifests of the demo: those of the package, or of the source tree that it is run from.

    Raises:
        failure.Usage: if neither is there.
    """
    packaged = Path(str(importlib.resources.files("trimtab_cli"))) / "quickstart"
    for path in (packaged, Path(__file__).parents[3] / "examples" / "quickstart"):
        if path.is_dir():
            return path
    raise failure.Usage("the quickstart is not in this installation; name manifests with -f")


def load_trace(wish: Wish) -> workload.Trace:
    """The trace that was asked for. Raises failure.Usage."""
    for name, value in (("minutes", wish.minutes), ("speed", wish.speed)):
        if not (math.isfinite(value) and value > 0):
            raise failure.Usage(f"--{name} {value:g}: write a number above 0")
    if wish.minutes < SHORTEST_MINUTES:
        raise failure.Usage(f"--minutes {wish.minutes:g} is too short to see anything; at least {SHORTEST_MINUTES:g}")
    scale = _number_above_zero(wish.scale)
    try:
        if wish.trace_file is None:
            mean_rps = wish.mean_rps * wish.speed * (scale or 1.0)
            return traces.synthesize(minutes=wish.minutes, seed=wish.seed, mean_rps=mean_rps)
        if scale is None:
            scale = fitting_scale(_read(wish, wish.trace_file, 1.0), wish.mean_rps)
        return _read(wish, wish.trace_file, scale)
    except (workload.TraceError, OSError) as error:
        if wish.debug:
            raise
        raise failure.Usage(f"--trace: {error}") from error


def _read(wish: Wish, path: Path, scale: float) -> workload.Trace:
    return traces.load(path, minutes=wish.minutes, speed=wish.speed, scale=scale, seed=wish.seed)


def _number_above_zero(text: str) -> float | None:
    """The value of ``--scale``; None for ``auto``. Raises failure.Usage."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise failure.Usage(f"--scale {text}: write a number above 0, or auto")
    return value


def fitting_scale(trace: workload.Trace, mean_rps: float) -> float:
    """How many times its rate a trace should be replayed: up to the demo's own rate and tokens, two digits."""
    seconds = max(trace.duration_s, 1.0)
    outputs = sum(request.output_tokens for request in trace.requests) / seconds
    inputs = sum(request.input_tokens for request in trace.requests) / seconds
    rate = len(trace.requests) / seconds
    fitting = min(mean_rps / rate, MOST_OUTPUT_TOKENS_PER_SECOND / outputs, MOST_INPUT_TOKENS_PER_SECOND / inputs)
    return float(f"{fitting:.2g}")


def require_writable(path: Path | None) -> None:
    """Make sure before the work that a result can be written after it. Raises failure.Usage."""
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir():
        raise failure.Usage(f"{path}: the folder {folder} does not exist")
    if not os.access(path if path.exists() else folder, os.W_OK) or path.is_dir():
        raise failure.Usage(f"{path} can't be written; name another file")


def make_plan(wish: Wish, objects: Sequence[store.Object], trace: workload.Trace, folder: Path) -> replay.Plan:
    """The replay."""
    duration_s = wish.minutes * workload.SECONDS_PER_MINUTE
    if wish.trace_file is not None:
        duration_s = min(duration_s, max(trace.duration_s, 1.0))
    return replay.Plan(
        objects=objects,
        trace=trace,
        options=session.Options(folder, wish.port, wish.time_scale, stream_interval=STREAM_INTERVAL),
        duration_s=duration_s,
        run_in_s=min(LONGEST_RUN_IN_SECONDS, duration_s / 4),
        seed=wish.seed,
        note=f"shortened for the demo: start-ups, windows and control intervals ÷ {wish.time_scale:g}",
    )


def _measure(plan: replay.Plan, console: Console) -> replay.Result | int:
    """The replay's result, or the exit code of an interruption."""
    kept: list[replay.Result] = []
    with live.View(console, time.monotonic) as view:

        async def whole() -> int:
            kept.append(await replay.replay(plan, view))
            return 0

        code = running.until_stopped(whole(), view.say)
    return kept[0] if kept else code


def _baselines(plan: replay.Plan, console: Console) -> Sequence[report.Run]:
    """The baselines on the same trace, profiles and shortened times, now that nothing is measured any more."""
    adapted = adapt.adapt(plan.objects, plan.options.time_scale)
    scenario = world.Scenario(
        tuple(found for found in adapted if isinstance(found, v1alpha1.InferenceTier)),
        tuple(found for found in adapted if isinstance(found, v1alpha1.RoutingPolicy)),
        tuple(found for found in adapted if isinstance(found, v1alpha1.CachePolicy)),
        plan.trace,
        world.Settings(seed=plan.seed, shorten=plan.options.time_scale),
        observation.key(plan.policy.metadata),
    )
    if not console.is_terminal:
        console.print("simulating the baselines")
        return search.run_baselines(scenario, workers=WORKERS)
    with console.status("simulating the baselines") as status:
        return search.run_baselines(scenario, told=lambda what: status.update(f"simulating {what}"), workers=WORKERS)


def tell(plan: replay.Plan, found: replay.Result, others: Sequence[report.Run], wish: Wish) -> results.Story:
    """Everything that is to be told."""
    tiers = [item for item in plan.objects if isinstance(item, v1alpha1.InferenceTier)]
    facts = [
        ("Prompts", str(prompts.Mix())),
        ("Seed", str(plan.seed)),
        ("Machine", f"{os.cpu_count()} cores, Python {platform.python_version()}"),
        ("Finished", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())),
        ("Again", _again(wish)),
    ]
    facts += [("Failed requests", f"{count} × {text}") for text, count in found.errors]
    return results.Story(
        runs=(found.run, *others),
        promised=found.promised,
        limits=found.limits,
        health=found.health,
        errors=found.errors,
        trace=f"{plan.trace.source}: {len(plan.trace.requests):,} requests in {wording.clock(plan.duration_s)}",
        time_scale=plan.options.time_scale,
        stream_interval=plan.options.stream_interval,
        run_in_s=plan.run_in_s,
        facts=facts,
        tiers=[tier.metadata.name for tier in sorted(tiers, key=lambda tier: units.ratio(tier.spec.model.quality))],
        answered=found.answered,
    )


def _again(wish: Wish) -> str:
    """The command that repeats the run."""
    words = ["trimtab demo", f"--minutes {wish.minutes:g}", f"--seed {wish.seed}"]
    if wish.trace_file is not None:
        words.append(f"--trace {wish.trace_file.name}")
    words += [f"--speed {wish.speed:g}"] * (wish.speed != 1) + [f"--scale {wish.scale}"] * (wish.scale != "auto")
    words += [f"-f {path.name}" for path in wish.paths]
    return " ".join(words)


def print_story(story: results.Story, console: Console) -> None:
    """The table and what one must know to read it."""
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print()
    console.print(results.headline(story), style="bold")
    table = Table(box=None, pad_edge=False, header_style="dim")
    told = results.columns(story)
    table.add_column("")
    for column in told:
        table.add_column(f"{column.name}\n({column.origin})", justify="right")
    for at, name in enumerate(runs.NUMBERS):
        table.add_row(name, *(column.cells[at] for column in told))
    console.print(table)
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in story.ours.share_by_tier.items())
    console.print(f"answered by: {shares}; {len(story.ours.decisions)} decisions")
    for label, text in results.honesty(story):
        console.print(f"{label}: {text}", style="dim")
    for text, count in story.errors[:3]:
        console.print(f"failed {count} ×: {text}", style="red", markup=False)


def write_files(wish: Wish, story: results.Story, trace: workload.Trace) -> None:
    """Write the JSON file and the report where they were asked for. Raises failure.Usage."""
    texts: list[tuple[Path | None, str]] = [
        (wish.json_file, json.dumps(_document(story, trace, wish), indent=1, ensure_ascii=False) + "\n"),
        (wish.html_file, page.render(results.build_page(story))),
    ]
    for path, text in texts:
        if path is None:
            continue
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise failure.Usage(f"{path}: can't be written: {error.strerror or error}") from error


def _document(story: results.Story, trace: workload.Trace, wish: Wish) -> dict[str, object]:
    """The JSON file."""
    return report.document(
        story.runs,
        trace=trace.source,
        prompts=str(prompts.Mix()),
        seed=wish.seed,
        slo_attainment_wanted=story.promised,
        duration_s=story.ours.duration_s,
        time_scale=story.time_scale,
        run_in_s=story.run_in_s,
        load_client={
            "sent": story.health.sent,
            "late_p99_s": story.health.late_p99,
            "late_max_s": story.health.late_max,
            "lag_p99_s": story.health.lag_p99,
            "lag_max_s": story.health.lag_max,
        },
        errors=[{"error": text, "requests": count} for text, count in story.errors],
    )
