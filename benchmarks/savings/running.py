"""Runs a scenario: Trimtab on its manifests, on others beside, and the baselines in their best settings."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_cli import manifests
from trimtab_sim import control, faults, oracle, search, world
from trimtab_sim.report import Point, Run
from trimtab_sim.workload import Trace

from savings import schema, sources

TRIMTAB = control.Trimtab.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario that was run.

    Attributes:
        scenario: as it was run.
        trace, requests, duration_s: what was replayed.
        wanted: share of the requests that had to meet the SLO.
        runs: by name: Trimtab's first, then Trimtab on other manifests, then baselines.
        optimum: what no controller can cost less than; None where it was not asked for.
    """

    scenario: schema.Scenario
    trace: str
    requests: int
    duration_s: float
    wanted: float
    runs: dict[str, Run]
    optimum: oracle.Optimum | None = None

    @property
    def ours(self) -> Run:
        """Trimtab's run on the scenario's own manifests."""
        return self.runs[TRIMTAB]


def baselines_of(scenario: schema.Scenario) -> tuple[str, ...]:
    """The baselines that a scenario names.

    Raises:
        ScenarioFileError: for a name that is none.
    """
    named = [*([] if scenario.baselines == "all" else scenario.baselines), *scenario.by_mean_weights]
    unknown = [name for name in named if name not in search.NAMES]
    if unknown:
        known = ", ".join(search.NAMES)
        raise schema.ScenarioFileError(f"{scenario.name}: baselines: {unknown[0]!r} is none of {known}, or all")
    return tuple(search.NAMES) if scenario.baselines == "all" else tuple(scenario.baselines)


def run(
    scenario: schema.Scenario, folder: pathlib.Path, data: pathlib.Path, known: Mapping[str, Run] | None = None
) -> Outcome:
    """Run everything that the scenario asks for.

    Args:
        scenario: what to run.
        folder: of the scenario's file; manifests are found from there.
        data: where traces are.
        known: baselines by name, of an earlier run of the same scenario; they are not run again.

    Raises:
        ScenarioFileError, ManifestError, FaultError, TraceError, ScenarioError: saying what can't be used.
    """
    trace = sources.load(scenario, data)
    simulated = _world(scenario, paths(scenario.manifests, folder), trace)
    runs = {TRIMTAB: world.simulate(simulated, control.Trimtab())}
    for name, other in scenario.beside.items():
        there = _world(scenario, paths(other, folder), trace)
        runs[name] = dataclasses.replace(world.simulate(there, control.Trimtab()), controller=name)
    runs |= _baselines(scenario, simulated) if known is None else known
    found = oracle.optimum(simulated) if scenario.oracle else None
    if found is not None:
        runs = {
            name: one if name in scenario.beside else dataclasses.replace(one, regret=oracle.regret(one, found))
            for name, one in runs.items()
        }
    ours, wanted = runs[TRIMTAB], search.wanted_attainment(simulated)
    return Outcome(scenario, trace.source, ours.requests, ours.duration_s, wanted, runs, found)


def _baselines(scenario: schema.Scenario, simulated: world.Scenario) -> dict[str, Run]:
    """Each baseline in its best setting, by name."""
    runs = {one.controller: one for one in search.run_baselines(simulated, baselines_of(scenario))}
    weighed = search.run_baselines(simulated, scenario.by_mean_weights, routing=search.MEAN)
    return runs | {f"{one.controller} by mean weights": one for one in weighed}


def fingerprint(scenario: schema.Scenario, folder: pathlib.Path) -> str:
    """What baselines depend on, in short: fleet, load, faults and seed, and not what is said or wanted of them."""
    told = scenario.model_dump_json(exclude={"shows", "not_shown", "targets", "oracle"})
    files = [file for path in paths(scenario.manifests, folder) for file in sorted(path.glob("*")) or [path]]
    return hashlib.sha256("\n".join([told, *(file.read_text() for file in files)]).encode()).hexdigest()


def revived(told: Mapping[str, Any]) -> Run:
    """A run from what ``Run.to_dict`` told of it, without its decisions."""
    fields = {field.name: told[field.name] for field in dataclasses.fields(Run) if field.name in told}
    points = tuple(Point(**point) for point in told["series"])
    return Run(**{**fields, "series": points, "notes": tuple(told["notes"]), "decisions": ()})


def paths(given: schema.Manifests, folder: pathlib.Path) -> list[pathlib.Path]:
    """The files and folders that a scenario in that folder names."""
    return [(folder / one).resolve() for one in ([given] if isinstance(given, str) else given)]


def _world(scenario: schema.Scenario, objects: Sequence[pathlib.Path], trace: Trace) -> world.Scenario:
    """The simulator's scenario: these manifests on the trace."""
    bundle = manifests.load(objects)
    if bundle.findings:
        raise manifests.ManifestError(bundle.findings[0].text())
    settings = world.Settings(seed=scenario.seed, points=scenario.points)
    if scenario.prologue_minutes is not None:
        settings = dataclasses.replace(settings, prologue=scenario.prologue_minutes * 60)
    wrong = _faults(
        scenario, {f"{tier.metadata.name}/{one.name}" for tier in bundle.tiers for one in tier.spec.variants}
    )
    return world.Scenario(bundle.tiers, bundle.policies, bundle.caches, trace, settings, scenario.policy, faults=wrong)


def _faults(scenario: schema.Scenario, variants: Collection[str]) -> faults.Faults:
    """What goes wrong on these variants: a fleet that stands beside another need not have all that can be hit."""
    known = {
        kind: [one for one in listed if "variant" not in one or one["variant"] in variants]
        for kind, listed in scenario.faults.items()
    }
    return faults.of(known, f"{scenario.name}: faults")
