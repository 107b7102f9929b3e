"""The arrivals of the headline experiment: a recorded hour of requests, and days of published rates.

Lengths are those of the recorded hour's requests, input and output of one request together.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import pathlib

from trimtab_sim import synthetic, traces
from trimtab_sim.workload import Trace

HOUR = "traces/azure2023_conv.csv.gz"
RATES = "traces/azure2024_weekly_rpm_digitised.csv.gz"
MINUTES_PER_DAY = 1440.0


def hour(data: pathlib.Path, *, scale: float, seed: int) -> Trace:
    """The recorded requests (35 minutes of development rows), at ``scale`` times their rate."""
    return traces.load(data / HOUR, scale=scale, seed=seed)


def days(
    data: pathlib.Path, workload: str, *, first: int, count: int, speed: float, mean_rps: float, seed: int
) -> Trace:
    """Requests sampled after the published rates of whole days, thinned to a mean rate.

    Args:
        data: the folder of all data.
        workload: ``conv`` or ``code``.
        first: number of the first day, from 0.
        count: how many days.
        speed: how many times faster they pass: loads rise and fall that much more steeply than they did.
        mean_rps: mean arrivals per second over them.
        seed: equal seeds give equal traces.
    """
    with gzip.open(data / RATES, "rt", encoding="utf-8") as file:
        points = [
            (float(row["t_min"]) - first * MINUTES_PER_DAY, float(row["mid_cal"]))
            for row in csv.DictReader(file)
            if row["workload"] == workload and first <= float(row["t_min"]) / MINUTES_PER_DAY < first + count
        ]
    spans = [after - before for (before, _), (after, _) in itertools.pairwise(points)]
    spans.append(count * MINUTES_PER_DAY - points[-1][0])
    mean = sum(span * rate for span, (_, rate) in zip(spans, points, strict=True)) / sum(spans)
    spans_s = [60 * span / speed for span in spans]
    starts_s = itertools.accumulate(spans_s, initial=0.0)  # a window begins exactly where the one before it ends
    windows = [
        (start_s, span_s, mean_rps * rate / mean)
        for start_s, span_s, (_, rate) in zip(starts_s, spans_s, points, strict=False)
    ]
    lengths = synthetic.Rows(tuple((one.input_tokens, one.output_tokens) for one in traces.load(data / HOUR)))
    told = f"Azure 2024 {workload}, {count} days from day {first}, {speed:g} times as fast, {mean_rps:g} requests/s"
    return synthetic.from_rates(windows, lengths, seed=seed, source=f"{told}, seed {seed}")
