"""The headline: one model for everything, then tiers and the planner, then the cache and 8-bit weights as well.

    python benchmarks/bench_headline.py [--trace conv|code|hour] [--quick] [--json FILE]

Three rows on the same arrivals: (a) every request to the biggest model, on the cheapest fixed fleet that keeps the SLO;
(b) routing by tiers, replicas and weights by the planner; (c) the same with 8-bit weights and an exact cache. All three
run through the shipped code in simulated time. What an answer was worth is the known outcome of the model that gave it,
so a change in accuracy is measured, with a 95 % interval over the prompts. Times and prompts come from different
sources and are paired at random; how often a prompt comes again is assumed, and row (c) is told for several shares.

The arrivals follow the rates of four days of the Azure 2024 conversation (or code) service, which pass twelve times as
fast, or are the recorded 35 minutes of the Azure 2023 conversation trace; development rows only. Decision record 0014.
``--measure`` prints what the manifests state about the models: it is measured on the other half of the prompts.
Data: ``TRIMTAB_DATA`` or ``../shared/data``; skipped without it, or without pyarrow.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from fit import complexity
from headline import arrivals, experiment, outcomes, picture
from trimtab_sim import control, known_prompts
from trimtab_sim.workload import Trace

HERE = pathlib.Path(__file__).resolve().parent
MANIFESTS = HERE / "headline" / "manifests"
PICTURES = HERE.parent / "docs" / "images" / "benchmarks"
SEED = 20251122
ATTAINMENT = 0.99
FOLDS = 5
"""Of the other half, to measure the score by fits that have not seen the prompt."""
REPEATS = 0.20
"""Assumed for the table."""
CURVE = (0.0, 0.20, 0.35, 0.50)
RPS, QUICK_RPS = 20.0, 5.0
DAYS, SPEED = 4, 12.0
HOUR_SCALE, QUICK_HOUR_SCALE = 5.0, 2.0
NAMES = ("biggest model", "tiers + planner", "+ cache + 8 bit")
PUBLISHED = {
    "cost": (-0.70, -0.80),
    "latency": (185 / 320 - 1, 112 / 320 - 1),
    "quality": (-0.008, -0.012),
    "use": (0.74, 0.81),
}
"""What such a stack is published to reach, rows (b) and (c): cost and mean latency against row (a), points of accuracy,
GPU use (row (a): 28 %)."""


def trace(data: pathlib.Path, name: str, *, quick: bool) -> Trace:
    """The arrivals of that name, without prompts."""
    if name == "hour":
        return arrivals.hour(data, scale=QUICK_HOUR_SCALE if quick else HOUR_SCALE, seed=SEED)
    rps, count = (QUICK_RPS, 1) if quick else (RPS, DAYS)
    return arrivals.days(data, name, first=0, count=count, speed=SPEED, mean_rps=rps, seed=SEED)


@dataclasses.dataclass(frozen=True)
class Bench:
    """One fleet on one trace."""

    fleet: experiment.Fleet
    source: known_prompts.Known
    trace: Trace

    def row(self, at: int, repeats: float) -> experiment.Row:
        """Row (a), (b) or (c) by its number."""
        file = MANIFESTS / (f"{self.fleet.name}-quantised.yaml" if at == 2 else f"{self.fleet.name}.yaml")
        asked = known_prompts.assign(self.trace, repeats=repeats, seed=SEED)
        asked = Trace(asked.requests, asked.source)  # made once: several runs go over it
        world = experiment.scenario(file, asked, self.source, SEED)
        controller = control.Trimtab() if at else experiment.static_peak(world, ATTAINMENT)
        print(f"... {NAMES[at]}, {repeats:.0%} repeated", file=sys.stderr, flush=True)
        return experiment.run(NAMES[at], world, controller, self.fleet.biggest)


def cells(row: experiment.Row, first: experiment.Row) -> dict[str, str]:
    """What the table tells of a row beside the first one."""
    return {
        "$/month": f"{row.usd_per_month:,.0f}",
        "saved": f"{1 - row.usd_per_month / first.usd_per_month:.0%}",
        "mean e2e": f"{row.e2e_mean_s:.2f} s",
        "P95 e2e": f"{row.e2e_p95_s:.2f} s",
        "mean TTFT": f"{row.ttft_mean_s * 1000:.0f} ms",
        "P95 TTFT": f"{row.ttft_p95_s * 1000:.0f} ms",
        "accuracy, points": f"{100 * row.quality_change:+.2f} ± {100 * row.quality_margin:.2f}",
        "GPU use": f"{row.gpu_use:.0%}",
        "GPUs": f"{row.mean_gpus:.1f}",
        "SLO": f"{row.slo_attainment:.1%}",
    }


def show(rows: Sequence[experiment.Row]) -> None:
    """Print the table."""
    for at, row in enumerate(rows):
        told = cells(row, rows[0])
        if not at:
            print(f"{'row':16}" + "".join(f"{title:>{len(title) + 4}}" for title in told) + "  served by")
        line = "".join(f"{value:>{len(title) + 4}}" for title, value in told.items())
        print(f"{row.name:16}{line}  " + ", ".join(f"{tier} {share:.0%}" for tier, share in row.share_by_tier.items()))


def results(rows: Sequence[experiment.Row], curve: picture.Curve) -> list[dict[str, Any]]:
    """Rows of the report: what is compared with the published figures, then the plain measurements."""
    first, found = rows[0], list[dict[str, Any]]()
    for at, row in enumerate(rows[1:]):
        cost, latency = row.usd_per_month / first.usd_per_month - 1, row.e2e_mean_s / first.e2e_mean_s - 1
        found += [
            _row(
                f"cost of {row.name} against the first row",
                cost,
                "change",
                target=PUBLISHED["cost"][at],
                comparison="<=",
            ),
            _row(f"mean latency of {row.name}", latency, "change", target=PUBLISHED["latency"][at], comparison="<="),
            _row(
                f"accuracy of {row.name}",
                row.quality_change,
                "change",
                target=PUBLISHED["quality"][at],
                comparison=">=",
                margin=row.quality_margin,
            ),
            _row(
                f"GPU use of {row.name}",
                row.gpu_use,
                "share",
                target=PUBLISHED["use"][at],
                comparison=">=",
                biggest=first.gpu_use,
            ),
        ]
    for row in rows:
        found.append(
            _row(f"SLO attainment of {row.name}", row.slo_attainment, "share", target=ATTAINMENT, comparison=">=")
        )
        beside = {
            "e2e P95 s": row.e2e_p95_s,
            "TTFT mean s": row.ttft_mean_s,
            "TTFT P95 s": row.ttft_p95_s,
            "GPUs": row.mean_gpus,
        }
        found.append(
            _row(f"cost of {row.name}", row.usd_per_month, "USD/month", **beside, **{"e2e mean s": row.e2e_mean_s})
        )
    for share, usd in curve:
        found.append(
            _row(f"cost of the last row with {share:.0%} repeated", usd / first.usd_per_month - 1, "change", usd=usd)
        )
    return found


def _row(
    name: str, value: float, unit: str, *, target: float | None = None, comparison: str = "<=", **beside: float
) -> dict[str, Any]:
    met = None if target is None else value <= target if comparison == "<=" else value >= target
    return {
        "name": name, "value": value, "unit": unit, "target": target, "comparison": comparison, "met": met,
        "beside": beside,
    }  # fmt: skip


def measure(found: list[outcomes.Answered]) -> None:
    """Print what the manifests state, measured on the half that is not told of; m by fits on other folds of it."""
    rows = complexity.Rows.of(found)
    fitted = rows.halves == outcomes.FIT
    folds = np.arange(len(fitted)) % FOLDS
    scores = np.zeros(len(fitted))
    for fold in range(FOLDS):
        left_out = folds == fold
        scores[left_out] = complexity.fit(rows, fitted & ~left_out).scores(rows)[left_out]
    for fleet in experiment.FLEETS.values():
        asked = experiment.prompts(fleet, found, outcomes.FIT)
        source = known_prompts.Known(asked, seed=SEED)
        at = {text: score for text, score, half in zip(rows.texts, scores, fitted, strict=True) if half}
        ranked = np.array([at[prompt.text] for prompt in asked if prompt.text in at])
        print(f"{fleet.name}: {len(asked)} prompts")
        for model in asked[0].outcomes:
            told = f"  {model} quality {source.mean(model):.3f}"
            if model in fleet.models and model != fleet.biggest:
                gaps = [one.outcomes[fleet.biggest] - one.outcomes[model] for one in asked if one.text in at]
                told += f", discrimination {6 * complexity.area(ranked, np.array(gaps)) - 3:.2f}"
            print(told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 0 if all published figures are reached or the data is not here."""
    parser = argparse.ArgumentParser(description="One model for everything, then tiers, then cache and 8-bit weights.")
    parser.add_argument("--trace", choices=("conv", "code", "hour"), default="conv", help="which arrivals")
    parser.add_argument("--fleet", choices=tuple(experiment.FLEETS), default="mixed", help="which prompts and models")
    parser.add_argument("--quick", action="store_true", help="a quarter of the load and no curve; writes to build/")
    parser.add_argument("--measure", action="store_true", help="print the models' qualities on the other half")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the rows")
    options = parser.parse_args(arguments)
    data = pathlib.Path(os.environ.get("TRIMTAB_DATA", HERE.parent.parent / "shared" / "data"))
    absent = outcomes.missing(data / "routing")
    if absent:
        print(f"skipped: {absent}")
        return 0
    found = outcomes.read(data / "routing")
    if options.measure:
        measure(found)
        return 0
    fleet = experiment.FLEETS[options.fleet]
    source = known_prompts.Known(experiment.prompts(fleet, found, outcomes.JUDGE), seed=SEED)
    bench = Bench(fleet, source, trace(data, options.trace, quick=options.quick))
    print(f"{bench.trace.source}; {len(source.prompts)} prompts; {REPEATS:.0%} repeated (assumed)")
    rows = [bench.row(at, REPEATS) for at in range(3)]
    show(rows)
    curve = [] if options.quick else _curve(bench, rows[2])
    name = "headline"
    if (options.trace, options.fleet) != ("conv", "mixed"):
        name = f"headline-{options.fleet}-{options.trace}"
    path = options.json or (HERE.parent / "build" if options.quick else HERE / "out") / f"{name}.json"
    told = {
        "command": f"python benchmarks/bench_headline.py --trace {options.trace} --fleet {options.fleet}",
        "seed": SEED,
        "data": f"routing/*.parquet; {bench.trace.source}; {REPEATS:.0%} of the prompts repeated (assumed)",
        "rows": results(rows, curve),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n")
    if curve:
        drawing = (PICTURES if options.json is None else path.parent) / f"{name}.svg"
        drawing.parent.mkdir(parents=True, exist_ok=True)
        drawing.write_text(picture.draw(rows, curve, f"{fleet.name} prompts on {bench.trace.source.partition(',')[0]}"))
    return 0 if all(row["met"] is not False for row in results(rows, curve)) else 1


def _curve(bench: Bench, known: experiment.Row) -> list[tuple[float, float]]:
    """Cost of row (c) at every share of repeats; the table's own is known."""
    found = [(share, known if share == REPEATS else bench.row(2, share)) for share in CURVE]
    for share, row in found:
        told = f"{row.share_by_tier.get('cache', 0.0):.0%} from the cache, SLO {row.slo_attainment:.1%}"
        print(f"{share:4.0%} repeated: {row.usd_per_month:9,.0f} $/month, {told}")
    return [(share, row.usd_per_month) for share, row in found]


if __name__ == "__main__":
    sys.exit(main())
