"""What ``simulate``, ``plan`` and ``explain`` begin with: manifests and a trace, from options that they share.

Mistakes become one line with exit code 2. Promises that no fleet can keep are not mistakes of this kind: the planner
must find its least bad plan for them, so they are kept as ``doubts`` and told at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from trimtab_core import units
from trimtab_core.api import findings
from trimtab_core.catalog import accelerators
from trimtab_core.planning.plan import Plan, Prediction, Source
from trimtab_core.routing import publish
from trimtab_core.routing import table as tables
from trimtab_sim import faults, traces, workload, world

from trimtab_cli import failure, manifests
from trimtab_cli.pages import wording

DEFAULT_MINUTES = 60.0
"""Length of the synthetic trace."""
SYNTHETIC_RPS = 5.53
UNKEPT = frozenset({"slo-infeasible", "budget-below-minimum", "quality-unreachable"})
"""Findings that say that a promise can't be kept; there is a least bad plan all the same."""
LONG_GAP_SECONDS = 300.0
LONG_GAP_MEANS = 20.0
"""A gap is worth telling from this length, and from so many mean times between requests."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wish:
    """The load that was asked for; see ``options``."""

    trace_file: Path | None
    minutes: float | None
    speed: float
    scale: float
    seed: int
    policy: str
    faults_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario, with what people must be told of it.

    Attributes:
        notes: of the trace, such as long gaps.
        doubts: promises of the manifests that can't be kept.
    """

    scenario: world.Scenario
    notes: tuple[str, ...]
    doubts: tuple[findings.Finding, ...]


def options(function: Function) -> Function:
    """The options of the load, for all commands that simulate; their values make a ``Wish``."""
    for option in reversed(
        (
            click.option(
                "--trace", "trace_file", type=click.Path(path_type=Path), metavar="FILE",
                help="Azure CSV, t_s,input_tokens,output_tokens CSV or Mooncake JSONL, plain or gzip; "
                "synthetic when absent.",
            ),
            click.option("--minutes", type=float, help="Length of the replay; all of the trace when absent."),
            click.option("--speed", type=float, default=1.0, show_default=True, help="Replay so many times faster."),
            click.option("--scale", type=float, default=1.0, show_default=True, help="So many times the request rate."),
            click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds give equal results."),
            click.option(
                "--policy", default="", metavar="NAMESPACE/NAME",
                help="The policy that gets the trace; the first when absent.",
            ),
            click.option(
                "--faults", "faults_file", type=click.Path(path_type=Path), metavar="FILE",
                help="YAML of what goes wrong and when: preemptions, failures, lost metrics, price changes, …",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


manifests_option = click.option(
    "-f", "--filename", "paths", required=True, multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifest, or folder of manifests. May be given several times.",
)  # fmt: skip
debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@contextlib.contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Manifests, traces and options that can't be used become one line with exit code 2."""
    try:
        yield
    except (manifests.ManifestError, workload.TraceError, world.ScenarioError, faults.FaultError) as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error


def prepare(paths: Sequence[Path], wish: Wish, trace: workload.Trace | None = None) -> Prepared:
    """The scenario of some manifests and the load that was asked for.

    Args:
        paths: of the manifests.
        wish: the load.
        trace: that load, where it was read before.

    Raises:
        manifests.ManifestError, workload.TraceError, faults.FaultError, world.ScenarioError: naming what can't be
            used, where, and the fix.
    """
    bundle, doubts = objects(paths)
    trace = trace or load(wish)
    scenario = world.Scenario(
        tiers=bundle.tiers,
        policies=bundle.policies,
        caches=bundle.caches,
        trace=trace,
        settings=world.Settings(seed=wish.seed),
        policy=wish.policy,
        faults=faults.NONE if wish.faults_file is None else faults.load(wish.faults_file),
    )
    scenario.policy_key  # noqa: B018 (raises where the policy is not there)
    return Prepared(scenario, (*gaps(trace), *too_long(scenario), *strangers(bundle)), doubts)


def objects(paths: Sequence[Path]) -> tuple[manifests.Bundle, tuple[findings.Finding, ...]]:
    """Manifests that can be planned for, and the promises among them that can't be kept.

    Raises:
        manifests.ManifestError: with the first of the other findings.
    """
    bundle = manifests.load(paths)
    wrong = [finding for finding in bundle.findings if finding.code not in UNKEPT]
    if wrong:
        more = f" (and {len(wrong) - 1} more: see `trimtab validate`)" if len(wrong) > 1 else ""
        raise manifests.ManifestError(wrong[0].text() + more)
    return bundle, bundle.findings


def load(wish: Wish) -> workload.Trace:
    """The trace. Raises workload.TraceError."""
    if wish.trace_file is not None:
        return traces.load(wish.trace_file, minutes=wish.minutes, speed=wish.speed, scale=wish.scale, seed=wish.seed)
    minutes = DEFAULT_MINUTES if wish.minutes is None else wish.minutes
    return traces.synthesize(minutes=minutes, seed=wish.seed, mean_rps=SYNTHETIC_RPS * wish.scale * wish.speed)


def gaps(trace: workload.Trace) -> tuple[str, ...]:
    """A note on long gaps, if there are any: recordings break off, and a controller sees an idle fleet then.

    Only traces that are in memory are looked at: those that are made anew at each pass have no recorder to break.
    """
    if not isinstance(trace.origin, tuple) or not len(trace):
        return ()
    least = max(LONG_GAP_SECONDS, LONG_GAP_MEANS * trace.duration_s / len(trace))
    times = itertools.chain([0.0], (request.arrival_s for request in trace))
    found = [(after - before, before) for before, after in itertools.pairwise(times) if after - before >= least]
    if not found:
        return ()
    longest, begin = max(found)
    note = (
        f"{wording.count(len(found), 'gap')} of {units.format_duration(round(least))} or more without a request, "
        f"the longest {units.format_duration(round(longest))} from {wording.clock(begin)}: replayed as recorded; "
        "cut the trace, or use --minutes, if the recording broke off"
    )
    return (note,)


def too_long(scenario: world.Scenario) -> tuple[str, ...]:
    """A note on requests that no replica can hold, in traces that are in memory; an external API may hold anything."""
    tiers = world.first_look(scenario).tiers.values()
    sizes = [one.profile.kv_tokens for tier in tiers for one in tier.variants if one.profile is not None]
    if not isinstance(scenario.trace.origin, tuple) or not sizes or any(tier.token_rates is not None for tier in tiers):
        return ()
    most = max(sizes)
    count = sum(1 for request in scenario.trace if request.tokens > most)
    note = (
        f"{wording.count(count, 'request')} of more tokens than the {most:,} of the largest KV cache: no replica can "
        "hold them, so they fail; correct the trace, or add a variant with more memory"
    )
    return (note,) if count else ()


def strangers(bundle: manifests.Bundle) -> tuple[str, ...]:
    """A note on accelerators that the catalogue doesn't know, where price and profile are written out."""

    def fix(name: str) -> str:
        near = accelerators.suggest(name)
        return f"; if it is misspelled, write {near}" if near else ""

    return tuple(
        f"tier {tier.metadata.name}, variant {variant.name}: accelerator {variant.accelerator.type!r} is not in the "
        f"catalogue: its price and profile are taken as written{fix(variant.accelerator.type)}"
        for tier in bundle.tiers
        for variant in tier.spec.variants
        if accelerators.find(variant.accelerator.type) is None and variant.replicas.max > 0
    )


def routing_rules(scenario: world.Scenario) -> tables.RoutingTable:
    """The table of the policy that gets the trace, before anything is planned: its classes and promises."""
    nothing = Plan({}, {}, {}, Prediction(0.0, 0.0, 1.0, 0.0), Source.FLOOR)
    return publish.table(world.first_look(scenario), nothing, scenario.policy_key, epoch=1, revision=1)


def tier_names(scenario: world.Scenario) -> list[str]:
    """All tiers, cheapest answers first."""
    ordered = sorted(scenario.tiers, key=lambda tier: (units.ratio(tier.spec.model.quality), tier.metadata.name))
    return [tier.metadata.name for tier in ordered]


def require_writable(option: str, path: Path | None) -> None:
    """Make sure before the work that a result can be written after it. Raises failure.Usage."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise failure.Usage(f"{option} {path}: can't be written: the folder {path.parent} does not exist")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise failure.Usage(f"{option} {path}: can't be written; name another file")


def write(option: str, path: Path | None, text: str) -> None:
    """Write a result. Raises failure.Usage."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise failure.Usage(f"{option} {path}: can't be written: {error.strerror or error}") from error
