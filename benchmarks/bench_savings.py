"""Scenarios on public traces and made-up faults: what Trimtab's decisions cost and keep, beside tuned baselines.

    python benchmarks/bench_savings.py [--only NAME,NAME] [--ours] [--quick] [--jobs N] [--json FILE]

Runs ``benchmarks/scenarios/*.yaml`` (all whose data is present; the rest is reported as skipped, never as met), prints
a table for each, and writes the rows, and for each scenario a picture into docs/images/benchmarks/. ``--only`` replaces
these scenarios in an existing file and leaves the others. ``--ours`` runs Trimtab again and takes the baselines from
the file, where fleet, load, faults and seed are the same; of these best-gpu and those by mean weights follow Trimtab
and are as old as the file. ``--quick`` runs shorter or thinner traces, for a look: its file and pictures go to build/;
with ``--json`` pictures lie beside the file. Equal seeds give equal tables, wherever the planner proves its optimum;
where a part of it stops at its time limit instead, the machine's speed can show.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import pathlib
import sys
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from savings import picture, running, schema, sources, targets
from trimtab_cli import manifests
from trimtab_sim import faults, world
from trimtab_sim.report import Run
from trimtab_sim.workload import TraceError

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = HERE / "scenarios"
PICTURES = HERE.parent / "docs" / "images" / "benchmarks"
COMMAND = "python benchmarks/bench_savings.py"
_USAGE = (schema.ScenarioFileError, manifests.ManifestError, faults.FaultError, TraceError, world.ScenarioError)
_LEFT_OUT = ("decisions",)

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """Folders: of scenario files, of data, and where pictures go; and the command that is told."""

    scenarios: pathlib.Path
    data: pathlib.Path
    pictures: pathlib.Path
    command: str = COMMAND


def load(only: Sequence[str], folder: pathlib.Path) -> list[schema.Scenario]:
    """The scenarios of these names in a folder, all where none is given.

    Raises:
        ScenarioFileError: for a file that can't be used, or a name that no file has.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    unknown = [name for name in only if name not in paths]
    if unknown:
        raise schema.ScenarioFileError(f"--only {unknown[0]}: no such scenario; there are {', '.join(paths)}")
    found = [schema.load(paths[name]) for name in (only or paths)]
    for scenario in found:
        running.baselines_of(scenario)
    return found


def measure(scenario: schema.Scenario, places: Places, known: Sequence[Result] = ()) -> Result:
    """Run one scenario, draw its picture, and tell it as plain types; or why it was skipped.

    Args:
        scenario: to run.
        places: where things are.
        known: earlier results, whose baselines are taken where the scenario is still the same.
    """
    told: Result = {"name": scenario.name, "shows": scenario.shows, "seed": scenario.seed, "rows": [], "runs": []}
    absent = sources.missing(scenario, places.data)
    if absent:
        return {**told, "skipped": f"{absent[0]} is not in {places.data}"}
    mark = running.fingerprint(scenario, places.scenarios)
    outcome = running.run(scenario, places.scenarios, places.data, _known(known, scenario, mark))
    places.pictures.mkdir(parents=True, exist_ok=True)
    drawn = places.pictures / f"{scenario.name}.svg"
    drawn.write_text(picture.draw(outcome), encoding="utf-8")
    runs = [{"name": name, **run.to_dict()} for name, run in outcome.runs.items()]
    return {
        **told,
        "fingerprint": mark,
        "command": f"{places.command} --only {scenario.name}",
        "manifests": [_told(path) for path in running.paths(scenario.manifests, places.scenarios)],
        "trace": outcome.trace,
        "requests": outcome.requests,
        "duration_s": outcome.duration_s,
        "wanted": outcome.wanted,
        "rows": targets.rows(outcome),
        "runs": [{key: value for key, value in run.items() if key not in _LEFT_OUT} for run in runs],
        "picture": f"images/benchmarks/{drawn.name}",
        "not_shown": scenario.not_shown,
    }


def _known(results: Sequence[Result], scenario: schema.Scenario, mark: str) -> dict[str, Run] | None:
    """The baselines of an earlier result of the same scenario; None without one."""
    for result in results:
        if result["name"] == scenario.name and result.get("fingerprint") == mark:
            names = {running.TRIMTAB, *scenario.beside}
            return {one["name"]: running.revived(one) for one in result["runs"] if one["name"] not in names}
    return None


def _told(path: pathlib.Path) -> str:
    """A path as readers know it: from the repository's root, if it lies there."""
    root = HERE.parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def results(
    scenarios: Sequence[schema.Scenario], jobs: int, places: Places, known: Sequence[Result] = ()
) -> Iterator[Result]:
    """All results in the order of the scenarios, as they come in."""
    one = functools.partial(measure, places=places, known=known)
    if jobs <= 1 or len(scenarios) <= 1:
        yield from map(one, scenarios)
        return
    with futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(one, scenarios)


def show(result: Result) -> None:
    """The table of one scenario."""
    print(f"\n{result['name']}: {result['shows']}")
    if result.get("skipped"):
        print(f"  skipped: {result['skipped']}")
        return
    print(f"  {result['trace']}: {result['requests']} requests in {result['duration_s'] / 60:.0f} min")
    print(f"  {'run':14} {'cost $':>10} {'SLO met':>9} {'GPU h':>8} {'GPU use':>8} {'changes':>8} {'regret':>7}")
    for run in result["runs"]:
        regret = "" if run.get("regret") is None else f"{run['regret']:.1%}"
        print(
            f"  {run['name']:14} {run['cost_usd']:>10.2f} {run['slo_attainment']:>9.2%} {run['gpu_hours']:>8.2f} "
            f"{run['gpu_utilisation']:>8.0%} {run['replica_changes']:>8} {regret:>7}  {run['settings']}"
        )
    for row in result["rows"]:
        value = "none" if row["value"] is None else f"{row['value']:.4g}"
        what = row["name"].partition(": ")[2]
        print(f"  {'met   ' if row['met'] else 'MISSED'} {what}: {value}, wanted {row['comparison']} {row['target']:g}")


def read(path: pathlib.Path) -> list[Result]:
    """The results in a file; none where there is no file."""
    return list(json.loads(path.read_text())["scenarios"]) if path.exists() else []


def write(path: pathlib.Path, new: Sequence[Result], command: str = COMMAND) -> None:
    """Write the file; scenarios that were not run now stay as they stand in it."""
    merged = {result["name"]: result for result in [*read(path), *new]}
    ordered = [merged[name] for name in sorted(merged)]
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "command": command,
        "seed": None,
        "data": "public traces named in each scenario, development rows; list prices of the catalogue",
        "rows": [row for result in ordered for row in result["rows"]],
        "scenarios": ordered,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 0 if every target was met, 1 if one was missed, 2 for input that can't be used."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="NAMES", help="comma-separated names of scenarios")
    parser.add_argument("--ours", action="store_true", help="run Trimtab alone where the file has the baselines")
    parser.add_argument("--quick", action="store_true", help="shorter or thinner traces, for a look")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scenarios run at once")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the rows (benchmarks/out/savings.json)")
    parser.add_argument("--scenarios", type=pathlib.Path, default=SCENARIOS, help="folder of scenario files")
    given = parser.parse_args(arguments)
    build = HERE.parent / "build" / "savings"
    path = given.json or (build / "quick.json" if given.quick else HERE / "out" / "savings.json")
    pictures = path.parent if given.json else build if given.quick else PICTURES
    command = f"{COMMAND} --quick" if given.quick else COMMAND
    places = Places(given.scenarios, sources.data_folder(), pictures, command)
    done: list[Result] = []
    try:
        scenarios = load([name.strip() for name in given.only.split(",") if name.strip()], given.scenarios)
        scenarios = [scenario.hurried() for scenario in scenarios] if given.quick else scenarios
        for result in results(scenarios, given.jobs, places, read(path) if given.ours else ()):
            show(result)
            done.append(result)
            write(path, [result], command)
    except _USAGE as error:
        print(f"bench_savings: {error}", file=sys.stderr)
        return 2
    return 1 if any(not row["met"] for result in done for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
