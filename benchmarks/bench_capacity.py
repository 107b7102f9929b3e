"""The capacity model beside measured engines and simulated ones.

    python benchmarks/bench_capacity.py [--json FILE]

1. Priors: the catalogue's step times against measured runs of vLLM (silicon sample of ai-dynamo/aiconfigurator, dev
   rows; the constants were fitted to these rows, so that this is how well a roofline can fit, not a forecast).
2. Learning: cells are one model on one hardware with one shape of requests, measured at five and more held numbers of
   requests. The shipped filter starts at the catalogue's prior and sees the points of a cell in random order, each four
   times; what it says is held against a point that it did not see (one inside the range left out; the upper half, where
   it may reach to twice what was seen), beside the least-squares line through the same points.
3. Convergence: engines of the simulator that take 25 % longer than the prior says; minutes of counters, read every
   15 s, until the law in force is within 5 %.
4. Tails: 95th percentiles at the admissible load and below, of simulated pools with Gamma arrivals.

Data: ``TRIMTAB_DATA`` or ``../shared/data``; parts 1 and 2 are skipped without it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from fit import capacity_priors
from fit.capacity_priors import Row
from trimtab_core import capacity, counters, learning
from trimtab_core.capacity import Limits, Mix
from trimtab_core.catalog import profiles
from trimtab_core.snapshot import CapacityProfile
from trimtab_sim import engine, replicas
from trimtab_sim.workload import Request

HERE = pathlib.Path(__file__).parent
SEED = 20251122
FILE = f"perf/{capacity_priors.SILICON}"
LEAST_POINTS = 5
PASSES = 4
"""Times that a point is shown to the filter: its rows are long means, where a scrape's are short and many."""

H100 = CapacityProfile(0.0063, 0.00013, 40_000.0, 400_000, 256, 60.0)
L4 = CapacityProfile(0.020, 0.0008, 8_000.0, 120_000, 128, 60.0)
ROOMY = CapacityProfile(0.020, 0.0008, 8_000.0, 1_000_000, 1000, 60.0)
LARGE = CapacityProfile(0.0246, 0.00008, 8_000.0, 388_000, 256, 60.0)
TAILS = [
    ("chat, 8B on H100, ITL", H100, Mix(1024.0, 256.0), Limits(itl_seconds=0.03)),
    ("chat, 8B on L4, ITL", L4, Mix(1000.0, 200.0), Limits(itl_seconds=0.06)),
    ("chat, 405B on 8 H100, ITL", LARGE, Mix(1000.0, 200.0), Limits(itl_seconds=0.06)),
    ("chat, 8B, much KV, TTFT", ROOMY, Mix(1000.0, 200.0), Limits(ttft_seconds=1.6)),
    ("chat, 8B on L4, e2e", L4, Mix(1000.0, 200.0), Limits(e2e_seconds=20.0)),
]
REQUESTS = 6000

Result = dict[str, object]


def result(
    name: str, value: float, target: float | None, beside: Result | None = None, *, unit: str = "ratio"
) -> Result:
    """One row of the report; a target is an upper bound."""
    met = None if target is None else value <= target
    return {
        "name": name, "value": value, "unit": unit, "target": target, "comparison": "<=", "met": met,
        "beside": beside or {},
    }  # fmt: skip


def median_error(errors: Sequence[float]) -> float:
    """Of relative errors, by size."""
    return statistics.median(map(abs, errors))


def high(errors: Sequence[float]) -> float:
    """The 90th percentile of their sizes."""
    return sorted(map(abs, errors))[int(0.9 * len(errors))]


# Measured engines -----------------------------------------------------------------------------------------------


def priors(rows: Sequence[Row]) -> Iterator[Result]:
    """How far the catalogue is off, dense models and mixtures apart."""
    for name, part, target in (
        ("dense models", [row for row in rows if not row.mixture], 0.15),
        ("mixtures of experts", [row for row in rows if row.mixture], 0.25),
    ):
        errors = [found / row.itl_seconds - 1 for row in part if (found := capacity_priors.predicted(row))]
        beside: Result = {"p90": high(errors), "bias": statistics.median(errors), "rows": len(errors)}
        yield result(f"prior of {name}: median error of ITL", median_error(errors), target, beside)


def cells(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one model, hardware, shape and run, by rising number of requests; with enough points and a prior."""
    found: defaultdict[tuple[object, ...], dict[float, Row]] = defaultdict(dict)
    for row in rows:
        key = (row.model, row.accelerator, row.count, row.method, row.input_tokens, row.output_tokens, row.run)
        found[key].setdefault(row.requests, row)
    ordered = [[points[requests] for requests in sorted(points)] for _, points in sorted(found.items(), key=str)]
    return [cell for cell in ordered if len(cell) >= LEAST_POINTS and _prior(cell[0]) is not None]


def _prior(row: Row) -> learning.Law | None:
    found = profiles.prior(row.model, row.accelerator, row.count, row.method)
    if found is None:
        return None
    return learning.Law(found.itl_base_seconds, found.itl_per_sequence_seconds, found.prefill_tokens_per_second)


def learned(points: Sequence[Row]) -> learning.Law:
    """What the shipped filter makes of the points, shown in random order."""
    prior = _prior(points[0])
    assert prior is not None
    state, rng = learning.begin(prior), random.Random(SEED)  # noqa: S311 (seeded on purpose)
    for _ in range(PASSES):
        for row in rng.sample(points, len(points)):
            state = learning.update(state, counters.Interval(15.0, row.itl_seconds, row.sequences, row.tokens_per_step))
    return state.estimate


def line(points: Sequence[Row]) -> tuple[float, float]:
    """The least-squares line of ITL over sequences, in relative errors."""
    weights = np.array([1.0 / row.itl_seconds for row in points])
    terms = np.array([[1.0, row.sequences] for row in points]) * weights[:, None]
    (a, b), *_ = np.linalg.lstsq(terms, np.ones(len(points)), rcond=None)
    return float(a), float(b)


def unseen(seen: Sequence[Row], held: Sequence[Row]) -> Iterator[tuple[float, float]]:
    """Relative errors at points that were not seen: of the filter, and of the line."""
    law, (a, b) = learned(seen), line(seen)
    for row in held:
        ours = law.itl_seconds(row.sequences, row.tokens_per_step)
        yield ours / row.itl_seconds - 1, (a + b * row.sequences) / row.itl_seconds - 1


def learning_rows(rows: Sequence[Row]) -> Iterator[Result]:
    """The filter beside least squares on all cells."""
    inside, beyond, same = list[tuple[float, float]](), list[tuple[float, float]](), list[tuple[float, float]]()
    found = cells(rows)
    for cell in found:
        for at in range(1, len(cell) - 1):
            inside += unseen([*cell[:at], *cell[at + 1 :]], [cell[at]])
        half = (len(cell) + 1) // 2
        reach = learning.REACH * 1.05 * cell[half - 1].sequences
        beyond += unseen(cell[:half], [row for row in cell[half:] if row.sequences <= reach])
        same += unseen(cell, cell)
    for name, errors, target in (
        ("a point inside the range, not seen", inside, 0.05),
        ("twice the sequences seen", beyond, 0.15),
        ("the points that were seen", same, None),
    ):
        ours, theirs = zip(*errors, strict=True)
        beside: Result = {
            "p90": high(ours), "least squares": median_error(theirs), "its p90": high(theirs), "points": len(errors),
            "cells": len(found),
        }  # fmt: skip
        yield result(f"learned law at {name}: median error", median_error(ours), target, beside)


# Simulated engines ----------------------------------------------------------------------------------------------


def serve(
    profile: CapacityProfile, mix: Mix, rate: float, *, count: int = REQUESTS, every: float = math.inf
) -> Iterator[tuple[float, list[replicas.Processor], list[replicas.Job]]]:
    """A pool in which each request takes the emptiest engine: its state after every so many seconds and at the end."""
    clock, rng, done = engine.Engine(), random.Random(SEED), list[replicas.Job]()  # noqa: S311 (seeded on purpose)
    pool = [replicas.Processor(clock, profile) for _ in range(round(mix.replicas))]
    shape = 1.0 / mix.burstiness
    at, sent = 0.0, 0

    def arrive() -> None:
        nonlocal at, sent
        lengths = rng.expovariate(1.0 / mix.input_tokens), rng.expovariate(1.0 / mix.output_tokens)
        request = Request(sent, clock.now, max(1, round(lengths[0])), max(2, round(lengths[1])))
        least = min(one.running + one.waiting for one in pool)
        taker = rng.choice([one for one in pool if one.running + one.waiting == least])
        taker.submit(replicas.Job(request, done.append))
        sent += 1
        if sent < count:
            at += rng.gammavariate(shape, 1.0 / (shape * rate * mix.replicas))
            clock.at(at, arrive, engine.Order.ARRIVE)

    clock.at(0.0, arrive, engine.Order.ARRIVE)
    for number in itertools.count(1):
        until = min(number * every, 1e9)
        clock.run(until=until)
        if len(done) == count:
            break
        yield until, pool, done
    yield clock.now, pool, done


def convergence() -> Iterator[Result]:
    """Minutes until engines that take 25 % longer than the prior says are known within 5 %, at half their load."""
    for name, truth, load in (("8B on H100", H100, 6.0), ("8B on L4", L4, 0.9)):
        prior = learning.Law(
            truth.itl_base_seconds / 1.25, truth.itl_per_sequence_seconds / 1.25, truth.prefill_tokens_per_second * 1.25
        )
        real = learning.Law(truth.itl_base_seconds, truth.itl_per_sequence_seconds, truth.prefill_tokens_per_second)
        state, reached = learning.begin(prior), math.inf
        for now, pool, _ in serve(truth, Mix(1000.0, 200.0, replicas=2), load, every=15.0):
            readings = {}
            for number, one in enumerate(pool):
                one.advance()
                readings[str(number)] = counters.Reading(now, one.gap_seconds, one.gaps, one.prompt_tokens)
            state = learning.observe(state, readings)
            n = learning.REACH * state.sequences
            tokens = state.tokens_per_sequence * n
            off = abs((state.law or prior).itl_seconds(n, tokens) / real.itl_seconds(n, tokens) - 1)
            reached = min(reached, now) if off <= 0.05 else math.inf
        yield result(f"{name}, 25 % slower than its prior: known within 5 %", reached / 60.0, 5.0, unit="minutes")


def tails() -> Iterator[Result]:
    """Predicted over simulated 95th percentiles at the admissible load and 80 % of it."""
    for burstiness in (1.0, 4.0, 10.0):
        ratios: list[float] = []
        for name, profile, lengths, limits in TAILS:
            for pool, share in itertools.product((1, 4), (1.0, 0.8)):
                mix = Mix(lengths.input_tokens, lengths.output_tokens, burstiness=burstiness, replicas=pool)
                rate = share * capacity.admissible_load(profile, mix, limits).requests_per_second
                *_, (_, _, jobs) = serve(profile, mix, rate)
                measured = _tail(jobs, limits)
                predicted = _predicted(profile, mix, limits, rate)
                ratios.append(predicted / measured)
                print(f"  {name:26} c²={burstiness:4.0f} x{pool} at {share:.0%}: {predicted:.4g} s | {measured:.4g} s")
        errors = [math.log(ratio) for ratio in ratios]
        beside: Result = {"p90": high(errors), "bias": statistics.median(errors), "cases": len(errors)}
        yield result(f"95 % tails with c² = {burstiness:.0f}: median error", median_error(errors), 0.15, beside)


def _tail(jobs: Sequence[replicas.Job], limits: Limits) -> float:
    """The simulated 95th percentile of what is promised; the run-in left out."""
    settled = [job for job in jobs if job.request.number > REQUESTS // 10]
    if limits.itl_seconds is not None:
        values = [job.itl_seconds for job in settled if job.itl_seconds is not None]
    elif limits.ttft_seconds is not None:
        values = [job.first_token_at - job.submitted_at for job in settled if job.first_token_at is not None]
    else:
        values = [job.finished_at - job.submitted_at for job in settled if job.finished_at is not None]
    return sorted(values)[int(0.95 * len(values))]


def _predicted(profile: CapacityProfile, mix: Mix, limits: Limits, rate: float) -> float:
    """The tail that the model predicts at a rate: the promise at which that rate would be the admissible load."""
    low, top = 1e-4, 1e3
    for _ in range(40):
        middle = math.sqrt(low * top)
        asked = Limits(
            middle if limits.ttft_seconds is not None else None,
            middle if limits.itl_seconds is not None else None,
            middle if limits.e2e_seconds is not None else None,
        )
        load = capacity.admissible_load(profile, mix, asked)
        low, top = (low, middle) if load.feasible and load.requests_per_second >= rate else (middle, top)
    return top


def main() -> int:
    """Measure, print and write the rows; 0 if all targets are met."""
    parser = argparse.ArgumentParser(description="The capacity model beside measured and simulated engines.")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/capacity.json", help="where to write the rows")
    options = parser.parse_args()
    rows: list[Result] = []
    if (capacity_priors.DATA / capacity_priors.SILICON).exists():
        measured = list(dict.fromkeys(capacity_priors.silicon(capacity_priors.DATA / capacity_priors.SILICON)))
        rows += [*priors(measured), *learning_rows(measured)]
    else:
        print(f"skipped: {capacity_priors.DATA / capacity_priors.SILICON} is not here; set TRIMTAB_DATA")
    rows += [*convergence(), *tails()]
    for row in rows:
        beside = row["beside"]
        assert isinstance(beside, dict)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in beside.items())
        verdict = "" if row["met"] is None else "met" if row["met"] else "MISSED"
        print(f"{row['name']:75} {row['value']:8.3f} {verdict:6} {shown}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": "python benchmarks/bench_capacity.py", "seed": SEED, "data": FILE, "rows": rows}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
