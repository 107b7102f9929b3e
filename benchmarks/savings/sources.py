"""Traces for scenarios: recorded ones, made-up courses of rates, and requests sampled from published rates."""

from __future__ import annotations

import bisect
import csv
import gzip
import itertools
import math
import os
import pathlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab_sim import prompts, synthetic, traces
from trimtab_sim.workload import Trace, TraceError

from savings import schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
RAMP_SECONDS = 15.0
"""A rate that moves in a straight line is cut into steps of this length."""


def data_folder() -> pathlib.Path:
    """Where the data is: ``TRIMTAB_DATA``, else ``shared/data`` beside the repository."""
    return pathlib.Path(os.environ.get("TRIMTAB_DATA", ROOT.parent / "shared" / "data"))


def missing(scenario: schema.Scenario, folder: pathlib.Path) -> tuple[str, ...]:
    """The files that a scenario needs and that are not there."""
    return tuple(file for file in scenario.data if not (folder / file).is_file())


def load(scenario: schema.Scenario, folder: pathlib.Path) -> Trace:
    """The trace of a scenario.

    Raises:
        TraceError: naming the file and what is wrong with it.
    """
    asked, seed = scenario.trace, scenario.seed
    mix = prompts.Mix(**asked.prompts.model_dump())
    if isinstance(asked, schema.Recorded):
        return traces.load(folder / asked.file, scale=asked.scale, minutes=asked.minutes, seed=seed, mix=mix)
    lengths = _lengths(asked.lengths, folder)
    if isinstance(asked, schema.Course):
        windows, told = list(_course(asked.course)), f"made-up course of rates (CV {asked.cv:g}, seed {seed})"
    else:
        windows = _curve(asked, folder / asked.curve)
        told = f"sampled from {pathlib.Path(asked.curve).name} ({_which(asked)}, CV {asked.cv:g}, seed {seed})"
    return synthetic.from_rates(windows, lengths, seed=seed, source=told, mix=mix, cv=asked.cv)


def _which(asked: schema.Curve) -> str:
    parts = [*asked.select.values(), f"scale {asked.scale:g}"]
    return ", ".join(parts + ([f"first {asked.minutes:g} min"] if asked.minutes else []))


def _course(stretches: Sequence[schema.Stretch]) -> Iterator[synthetic.Window]:
    start_s = 0.0
    for stretch in stretches:
        span_s = stretch.minutes * 60
        if isinstance(stretch.rps, tuple):
            first, last = stretch.rps
            steps = max(1, round(span_s / RAMP_SECONDS))
            for step in range(steps):
                rate = first + (last - first) * (step + 0.5) / steps
                yield start_s + span_s * step / steps, span_s / steps, rate
        else:
            yield start_s, span_s, stretch.rps
        start_s += span_s


def _curve(asked: schema.Curve, path: pathlib.Path) -> list[synthetic.Window]:
    """Windows from one row's time to the next; the last one is as long as the one before it."""
    points: list[tuple[float, float]] = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                if all(row[column] == value for column, value in asked.select.items()):
                    points.append((float(row[asked.time]), float(row[asked.rate])))
            except (KeyError, ValueError) as error:
                raise TraceError(
                    f"{path}:{line}: {error}; expected the columns {asked.time} and {asked.rate}"
                ) from error
    if len(points) < 2:
        raise TraceError(f"{path}: {len(points)} rows of {asked.select}; expected a course of rates")
    origin = points[0][0]
    starts = [(at - origin) * asked.seconds for at, _ in points]
    spans = [after - before for before, after in itertools.pairwise(starts)]
    windows = [
        (start, span, rate / asked.per_seconds * asked.scale)
        for start, span, (_, rate) in zip(starts, [*spans, spans[-1]], points, strict=True)
    ]
    until = math.inf if asked.minutes is None else asked.minutes * 60
    return [(start, min(span, until - start), rate) for start, span, rate in windows if start < until]


def _lengths(asked: schema.Lengths | None, folder: pathlib.Path) -> synthetic.Lengths:
    if asked is None:
        return synthetic.Quantiles()
    if asked.quantiles is not None:
        return synthetic.Quantiles(tuple(asked.quantiles.input), tuple(asked.quantiles.output))
    if asked.mixed is not None:
        shares = itertools.accumulate(kind.share for kind in asked.mixed)
        return Mixed(tuple(shares), tuple(_lengths(kind.lengths, folder) for kind in asked.mixed))
    rows = traces.load(folder / (asked.file or "")).requests
    return synthetic.Rows(tuple((row.input_tokens, row.output_tokens) for row in rows))


@dataclass(frozen=True, slots=True)
class Mixed:
    """Lengths of several kinds of request.

    Attributes:
        limits: the shares of the kinds, added up.
        kinds: how long those of each kind are.
    """

    limits: tuple[float, ...]
    kinds: tuple[synthetic.Lengths, ...]

    def __call__(self, rng: random.Random, time_s: float) -> tuple[int, int]:
        """Input and output tokens of a request."""
        at = bisect.bisect_right(self.limits, rng.random() * self.limits[-1])
        return self.kinds[min(at, len(self.kinds) - 1)](rng, time_s)
