"""How fast the simulator is, and how much memory a week of requests takes.

Prints a table and writes ``benchmarks/out/simulator.json``. A fixed synthetic load (lengths by the quantiles of the
Azure 2023 conversation trace, Poisson arrivals, 3 requests/s an endpoint) meets the shipped routing code, and replicas
whose count stands still: what is measured is the simulator, not a planner. Scrapes, snapshots and routing tables are
in it. Time is CPU time of the process, the median of some runs; the week runs in a process of its own, for its peak
memory.

    python benchmarks/bench_simulator.py --requests 10000000
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import pathlib
import resource
import statistics
import sys
import time
from typing import Any

from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, report, synthetic, world
from trimtab_sim.workload import Trace

HERE = pathlib.Path(__file__).parent
SEED = 1
RUNS = 5
FLEETS = (4, 40)
SHORT_REQUESTS = 40_000
RPS_PER_ENDPOINT = 3.0
WEEK_ENDPOINTS = 12
"""Enough for the peak of a week of 10 million requests: 16.5/s on average, 29/s at noon."""
TARGET_PER_SECOND = 30_000.0
TARGET_MB = 500.0
WEEK_SECONDS = 7 * 24 * 3600.0
HOUR_SECONDS = 3600.0
TIER = v1alpha1.InferenceTier.model_validate(
    {
        "apiVersion": "inference.trimtab.dev/v1alpha1",
        "kind": "InferenceTier",
        "metadata": {"name": "only"},
        "spec": {
            "model": {"name": "model", "quality": "0.80"},
            "slo": {"ttft": {"p95": "2s"}, "itl": {"p95": "60ms"}, "attainment": "0.99"},
            "variants": [
                {
                    "name": "gpu",
                    "accelerator": {"type": "L4"},
                    "price": {"usdPerHour": "1.00"},
                    "replicas": {"min": 1, "max": 100},
                    "profile": {
                        "itlBase": "15ms",
                        "itlPerSequence": "300us",
                        "prefillTokensPerSecond": 12_000,
                        "kvTokens": 400_000,
                        "maxSequences": 128,
                        "startup": "60s",
                    },
                }
            ],
        },
    }
)
POLICY = v1alpha1.RoutingPolicy.model_validate(
    {
        "apiVersion": "inference.trimtab.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "chat"},
        "spec": {
            "tiers": [{"ref": "only"}],
            "classes": [{"name": "default"}],
            "objective": {"qualityRetention": "0.90"},
        },
    }
)


def flat(requests: int, rps: float) -> Trace:
    """That many requests at a constant rate, in memory."""
    stream = synthetic.from_rates(
        [(0.0, requests / rps, rps)], synthetic.Quantiles(), seed=SEED, source=f"{rps:g} requests/s", cv=1.0
    )
    return Trace(stream.requests, stream.source)


def week(requests: int) -> Trace:
    """A week with a day's wave between a quarter and seven quarters of the mean, made while it runs."""
    mean = requests / WEEK_SECONDS
    windows = [
        (hour * HOUR_SECONDS, HOUR_SECONDS, mean * (1 - 0.75 * math.cos(2 * math.pi * hour / 24)))
        for hour in range(168)
    ]
    return synthetic.from_rates(windows, synthetic.Quantiles(), seed=SEED, source="a week", cv=1.5)


def simulate(trace: Trace, endpoints: int) -> tuple[report.Run, float]:
    """The run, and the CPU seconds that it took."""
    scenario = world.Scenario((TIER,), (POLICY,), (), trace, world.Settings(seed=SEED, prologue=0.0))
    controller = baselines.StaticPeak({VariantKey("default/only", "gpu"): endpoints})
    began = time.process_time()
    return world.simulate(scenario, controller), time.process_time() - began


def speed(endpoints: int, runs: int) -> dict[str, Any]:
    """Requests a CPU second at a fleet of that size."""
    trace = flat(SHORT_REQUESTS, RPS_PER_ENDPOINT * endpoints)
    simulate(flat(2_000, RPS_PER_ENDPOINT * endpoints), endpoints)  # prompts are judged once for a process
    rates = []
    for _ in range(runs):
        run, seconds = simulate(trace, endpoints)
        rates.append(run.requests / seconds)
    value = statistics.median(rates)
    beside = {"requests": run.requests, "attainment": round(run.slo_attainment, 4), "runs": [round(r) for r in rates]}
    name = f"requests a CPU second, {endpoints} endpoints"
    return row(name, value, "1/s", target=TARGET_PER_SECOND, least=True, beside=beside)


def measure_week(requests: int) -> tuple[int, float, float, float]:
    """Requests, SLO attainment, CPU seconds of the run with all passes over the trace, and peak memory (MB)."""
    run, seconds = simulate(week(requests), WEEK_ENDPOINTS)
    return run.requests, run.slo_attainment, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(requests: int) -> tuple[int, float, float, float]:
    """``measure_week`` in a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_week, (requests,))


def row(
    name: str, value: float, unit: str, *, target: float | None, least: bool, beside: dict[str, Any]
) -> dict[str, Any]:
    """One row of the report; ``least`` if the target is a minimum."""
    comparison = ">=" if least else "<="
    met = None if target is None else value >= target if least else value <= target
    judged = "" if target is None else f"target {comparison} {target:,.0f} {'met' if met else 'MISSED'}"
    print(f"{name:55} {value:10,.0f} {unit:4} {judged}".rstrip())
    return {
        "name": name, "value": value, "unit": unit, "target": target, "comparison": comparison, "met": met,
        "beside": beside,
    }  # fmt: skip


def week_rows(requests: int) -> list[dict[str, Any]]:
    """Memory and speed of the week; of two sizes, so that growth shows.

    The speed has no target of its own: looking at 12 replicas for a week costs the same for any number of requests.
    """
    rows = []
    for asked in sorted({requests // 5, requests}):
        count, attainment, seconds, megabytes = in_own_process(asked)
        beside = {"attainment": round(attainment, 4), "cpu_seconds": round(seconds, 1), "asked_for": asked}
        name = f"{count:,} requests in a week"
        rows.append(row(f"peak memory, {name}", megabytes, "MB", target=TARGET_MB, least=False, beside=beside))
        name = f"requests a CPU second, {name}"
        rows.append(row(name, count / seconds, "1/s", target=None, least=True, beside=beside))
    return rows


def main() -> int:
    """Measure and write the rows; 0 if all targets are met."""
    parser = argparse.ArgumentParser(description="Requests a CPU second, and memory of a week.")
    parser.add_argument("--requests", type=int, default=2_000_000, help="requests of the longer week")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs whose median counts")
    parser.add_argument(
        "--json", type=pathlib.Path, default=HERE / "out/simulator.json", help="where to write the rows"
    )
    options = parser.parse_args()
    rows = [speed(endpoints, options.runs) for endpoints in FLEETS]
    if options.requests:
        rows += week_rows(options.requests)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/bench_simulator.py --requests {options.requests}"
    document = {"command": command, "seed": SEED, "data": "synthetic", "rows": rows}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(each["met"] is not False for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
