"""Forecasts beside the last value, on the arrivals of public traces, one start-up time ahead.

    python benchmarks/bench_demand.py [--json FILE]

The forecast is asked as the planner asks it: every 15 s it has got the rate of the last minute, up to two hours of
them, the season so far, and the burstiness; it says a mean and an upper value for 60, 240 and 600 s later, and is
held against the rate of the minute that ends then. From the third day on where a trace is that long, else from its
beginning. Reported are the error of the mean (WAPE: sum of absolute errors over sum of arrivals) against that of the
last value, how often the upper value was enough, how much was held ready (upper values over arrivals), and the pinball
loss, which weighs both as the asked quantile does, against last value x 1.2.

Azure 2023 and Mooncake are requests, counted. Azure 2024 and ServeGen are curves with a point every 7 and 10 minutes:
straight lines are drawn between the points and arrivals drawn from them (Poisson, at most 50/s on average), so that
what happens within minutes is missing there, and the last value looks better at short horizons than it is.
Data: the dev rows in ``TRIMTAB_DATA`` or ``../shared/data``; skipped without it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import math
import os
import pathlib
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab_core import burstiness, demand, season, signals

HERE = pathlib.Path(__file__).parent
REQUESTS = ("azure2023_conv", "azure2023_code", "mooncake_conversation")
AZURE_2024 = "traces/azure2024_weekly_rpm_digitised.csv.gz"
SERVEGEN = "traces/servegen_total_rates_10min.csv.gz"
SEED = 20251122
STEP, WINDOW = 15.0, 60.0
HORIZONS = (60.0, 240.0, 600.0)
DAY = 86_400.0
EPOCH = 20_000 * DAY
MOST_PER_SECOND = 50.0
FORECASTS = 400
QUANTILE = 0.9
COVERAGE_SLACK = 0.05
FACTOR = 1.2

Samples = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """What the operator sees of one trace: a rate every 15 s, and how bunched arrivals are."""

    name: str
    samples: Samples
    dispersion: float = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """One forecast and what came: requests per second."""

    mean: float
    upper: float
    last: float
    came: float
    method: str


def curves(data: pathlib.Path) -> Iterator[Curve]:
    """All traces that are here."""
    for name in REQUESTS:
        yield of_requests(name, [float(row["t_s"]) for row in rows(data / f"traces/{name}.csv.gz")])
    for workload in ("conv", "code"):
        points = [
            (float(row["t_min"]) * 60.0, float(row["mid_cal"]) / 60.0)
            for row in rows(data / AZURE_2024)
            if row["workload"] == workload
        ]
        yield of_points(f"azure2024_{workload}", points)
    found = rows(data / SERVEGEN)
    for model in dict.fromkeys(row["model"] for row in found):
        points = [(float(row["t_s"]) + 300.0, float(row["rps"])) for row in found if row["model"] == model]
        yield of_points(f"servegen_{model}", points)


def rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The dev rows of a file."""
    with gzip.open(path, "rt") as file:
        return [row for row in csv.DictReader(file) if row.get("split", "dev") == "dev"]


def of_requests(name: str, times: list[float]) -> Curve:
    """Requests, counted; their burstiness over the whole trace."""
    counts = Counter(int(at // STEP) for at in times)
    windows = burstiness.Windows()
    squares = sum(windows.arrive(at) for at in times)
    index = burstiness.index(
        signals.Fresh(len(times) / times[-1], 0.0), signals.Fresh(squares / times[-1], 0.0), seconds=times[-1]
    )
    return Curve(name, rates([counts[step] for step in range(int(times[-1] // STEP))]), signals.known(index) or 1.0)


def of_points(name: str, points: list[tuple[float, float]]) -> Curve:
    """Poisson arrivals at rates that lie on straight lines between the points."""
    rng = random.Random(f"{SEED} {name}")  # noqa: S311 (seeded on purpose)
    scale = min(1.0, MOST_PER_SECOND / statistics.fmean(rate for _, rate in points))
    counts = []
    for (begin, before), (end, after) in itertools.pairwise(points):
        for step in range(int((end - begin) // STEP)):
            expected = (before + (after - before) * step * STEP / (end - begin)) * scale * STEP
            counts.append(max(0, round(rng.gauss(expected, math.sqrt(expected)))))
    return Curve(name, rates(counts))


def rates(counts: Sequence[int]) -> Samples:
    """The rate of the last minute, every 15 s."""
    width = int(WINDOW // STEP)
    return [
        (EPOCH + (step + 1) * STEP, sum(counts[step + 1 - width : step + 1]) / WINDOW)
        for step in range(width - 1, len(counts))
    ]


def words(curve: Curve, horizon: float) -> Iterator[Word]:
    """Forecasts at even steps through the part of a trace that is judged."""
    samples, ahead = curve.samples, int(horizon // STEP)
    first = int(2 * DAY / STEP) if len(samples) > 3 * DAY / STEP else ahead + 4
    every = max(1, (len(samples) - ahead - first) // FORECASTS)
    history = int(7200.0 / STEP)
    usual = season.Season()
    for index, (now, last) in enumerate(samples[: len(samples) - ahead]):
        usual = usual.add(now, last)
        if index >= first and (index - first) % every == 0:
            found = demand.forecast(
                samples[max(0, index + 1 - history) : index + 1],
                horizon,
                now,
                quantile=QUANTILE,
                season=usual,
                dispersion=curve.dispersion,
            )
            # The planner never plans for less than arrives now.
            yield Word(found.mean, max(found.upper, last), last, samples[index + ahead][1], found.method)


def judge(said: list[Word]) -> dict[str, float]:
    """The figures of one trace at one horizon."""
    whole = sum(word.came for word in said)

    def pinball(uppers: Iterator[float]) -> float:
        return sum(
            QUANTILE * (word.came - upper) if word.came > upper else (1.0 - QUANTILE) * (upper - word.came)
            for word, upper in zip(said, uppers, strict=True)
        )

    by_last = sum(abs(word.last - word.came) for word in said)
    return {
        "wape": sum(abs(word.mean - word.came) for word in said) / whole,
        "wape_last": by_last / whole,
        "covered": sum(word.came <= word.upper for word in said) / len(said),
        "covered_factor": sum(word.came <= FACTOR * word.last for word in said) / len(said),
        "held": sum(word.upper for word in said) / whole,
        "held_factor": FACTOR * sum(word.last for word in said) / whole,
        "pinball_ratio": pinball(word.upper for word in said) / pinball(FACTOR * word.last for word in said),
    }


def row(
    name: str, value: float, *, target: float | None = None, comparison: str = "<=", **beside: float
) -> dict[str, object]:
    """One row of the report."""
    met = None if target is None else value <= target if comparison == "<=" else value >= target
    return {
        "name": name, "value": round(value, 4), "unit": "ratio", "target": target, "comparison": comparison, "met": met,
        "beside": {key: round(each, 4) for key, each in beside.items()},
    }  # fmt: skip


def compare(data: pathlib.Path) -> list[dict[str, object]]:
    """Rows of the report: one for each figure over all traces, then each trace at each horizon."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    print(f"{'trace':24} {'ahead':>5} |  error   last | enough   x1.2 |  held  x1.2 | loss")
    for curve in curves(data):
        for horizon in HORIZONS:
            said = list(words(curve, horizon))
            one = found[curve.name, horizon] = judge(said)
            methods = ", ".join(name for name, _ in Counter(word.method for word in said).most_common(2))
            print(
                f"{curve.name:24} {horizon:4.0f}s | {one['wape']:6.1%} {one['wape_last']:6.1%} | {one['covered']:6.1%} "
                f"{one['covered_factor']:6.1%} | {one['held']:5.2f} {one['held_factor']:5.2f} | "
                f"{one['pinball_ratio']:4.2f}  {methods}"
            )
    mean = {
        horizon: {
            figure: statistics.fmean(one[figure] for (_, at), one in found.items() if at == horizon)
            for figure in next(iter(found.values()))
        }
        for horizon in HORIZONS
    }
    made = []
    for horizon, one in mean.items():
        at = f"{horizon:.0f} s ahead, mean of {len(found) // len(HORIZONS)} traces"
        ratio = statistics.fmean(each["wape"] / each["wape_last"] for (_, h), each in found.items() if h == horizon)
        made += [
            row(f"error over that of the last value, {at}", ratio, target=1.0),
            row(f"upper value was enough, {at}", one["covered"], target=QUANTILE - COVERAGE_SLACK, comparison=">=",
                last_x_1_2=one["covered_factor"]),
            row(f"held ready over what came, {at}", one["held"], last_x_1_2=one["held_factor"]),
            row(f"pinball loss over that of last value x 1.2, {at}", one["pinball_ratio"], target=1.0),
        ]  # fmt: skip
    for (name, horizon), one in found.items():
        made.append(row(f"{name}, {horizon:.0f} s ahead: error", one["wape"], last_value=one["wape_last"]))
        beside = {"held": one["held"], "last_x_1_2": one["covered_factor"], "last_x_1_2_held": one["held_factor"]}
        made.append(row(f"{name}, {horizon:.0f} s ahead: enough", one["covered"], comparison=">=", **beside))
    return made


def main() -> int:
    """Compare and write the rows; 0 if the targets are met or the data is not here."""
    parser = argparse.ArgumentParser(description="Forecasts beside the last value, on public traces.")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/demand.json", help="where to write the rows")
    options = parser.parse_args()
    data = pathlib.Path(os.environ.get("TRIMTAB_DATA", HERE.parent.parent / "shared/data"))
    needed = (AZURE_2024, SERVEGEN, *(f"traces/{name}.csv.gz" for name in REQUESTS))
    missing = [name for name in needed if not (data / name).exists()]
    if missing:
        print(f"skipped: {data / missing[0]} is not here; set TRIMTAB_DATA")
        return 0
    made = compare(data)
    for one in made:
        if one["target"] is not None:
            print(f"{one['name']}: {one['value']} (target {one['comparison']} {one['target']})")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": "python benchmarks/bench_demand.py", "seed": SEED, "data": "traces", "rows": made}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(one["met"] is not False for one in made) else 1


if __name__ == "__main__":
    sys.exit(main())
