"""A trace made from published statistics: the default of the demo, free of downloads.

Lengths and arrival statistics are those of the Azure 2023 conversation trace (Azure/AzurePublicDataset,
``AzureLLMInferenceTrace_conv.csv``, CC-BY-4.0; Patel et al., Splitwise, ISCA 2024): quantiles of input and output
length, which are nearly uncorrelated there (-0.11), and a coefficient of variation of inter-arrival times of 1.09.
The course of the load (a calm, a rise, a burst, a fall) is made up, to show in minutes what a day does in hours.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_sim import prompts, workload
from trimtab_sim.workload import Request, Trace, TraceError

INPUT_QUANTILES = (
    (0.0, 2), (0.01, 42), (0.05, 191), (0.10, 369), (0.25, 397), (0.50, 1020), (0.75, 1234), (0.90, 2734),
    (0.95, 4083), (0.99, 4142), (1.0, 14050),
)  # fmt: skip
"""(share, input tokens) of the Azure 2023 conversation trace. From the median up over its whole hour,
below over its first 35 minutes."""
OUTPUT_QUANTILES = (
    (0.0, 7), (0.01, 16), (0.05, 38), (0.10, 49), (0.25, 79), (0.50, 129), (0.75, 394), (0.90, 424),
    (0.95, 451), (0.99, 601), (1.0, 1000),
)  # fmt: skip
"""The same for output tokens."""
INTER_ARRIVAL_CV = 1.09


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the course of the load.

    Attributes:
        name: for people.
        share: of the whole duration.
        begins, ends: rate at its edges, in units of any size; between them the rate moves in a straight line.
    """

    name: str
    share: float
    begins: float
    ends: float


COURSE = (
    Phase("calm", 0.25, 0.4, 0.4),
    Phase("rise", 0.20, 0.4, 1.5),
    Phase("burst", 0.20, 2.2, 2.2),
    Phase("fall", 0.15, 1.4, 0.4),
    Phase("calm again", 0.20, 0.4, 0.4),
)


def synthesize(
    *,
    minutes: float,
    seed: int = 0,
    mean_rps: float = 5.53,
    course: Sequence[Phase] = COURSE,
    cv: float = INTER_ARRIVAL_CV,
    mix: prompts.Mix | None = None,
) -> Trace:
    """Make a trace.

    Args:
        minutes: its length.
        seed: equal seeds give equal traces.
        mean_rps: mean arrivals per second; the default is that of the Azure conversation hour.
        course: how the rate moves; scaled to the mean.
        cv: coefficient of variation of the inter-arrival times (Gamma) at constant rate; 1 is Poisson.
        mix: of the synthetic prompts.

    Raises:
        TraceError: naming the argument at fault, or when not one request falls into so short a trace.
    """
    for name, value in (("minutes", minutes), ("mean_rps", mean_rps), ("cv", cv)):
        if not (math.isfinite(value) and value > 0):
            raise TraceError(f"{name} must be a finite number above 0, not {value:g}")
    rng = random.Random(f"synthetic {seed}")
    duration_s = minutes * workload.SECONDS_PER_MINUTE
    requests = [
        Request(at, time, length(INPUT_QUANTILES, rng.random()), length(OUTPUT_QUANTILES, rng.random()))
        for at, time in enumerate(_arrivals(course, duration_s=duration_s, mean_rps=mean_rps, cv=cv, rng=rng))
    ]
    if not requests:
        raise TraceError(
            f"no request falls into {minutes:g} minutes at {mean_rps:g} per second; ask for more of either"
        )
    source = f"synthetic, after the statistics of the Azure 2023 conversation trace ({minutes:g} min, seed {seed})"
    return Trace(prompts.assign(workload.number(requests), seed=seed, mix=mix or prompts.Mix()), source)


def length(quantiles: Sequence[tuple[float, int]], share: float) -> int:
    """The length below which ``share`` of the requests are: log-linear between the published quantiles."""
    at = min(max(bisect.bisect_right([q for q, _ in quantiles], share), 1), len(quantiles) - 1)
    (low_share, low), (high_share, high) = quantiles[at - 1], quantiles[at]
    within = (share - low_share) / (high_share - low_share)
    return round(math.exp(math.log(low) + within * (math.log(high) - math.log(low))))


def _arrivals(
    course: Sequence[Phase], *, duration_s: float, mean_rps: float, cv: float, rng: random.Random
) -> list[float]:
    """Arrival times: a Gamma renewal process in a time that runs as fast as the rate.

    Gaps of mean 1 are drawn in "expected arrivals" and mapped to seconds by the inverse of the integrated rate.
    """
    shares = sum(phase.share for phase in course)
    unit = sum(phase.share * (phase.begins + phase.ends) / 2 for phase in course) / shares
    shape, counted, times = 1 / cv**2, 0.0, []
    counted += rng.gammavariate(shape, 1 / shape) * rng.random()  # the process did not begin with an arrival
    begun_s, begun_count = 0.0, 0.0
    for phase in course:
        span_s = duration_s * phase.share / shares
        first, last = (mean_rps * rate / unit for rate in (phase.begins, phase.ends))
        ends_at = begun_count + span_s * (first + last) / 2
        while counted < ends_at:
            times.append(begun_s + _time_of(counted - begun_count, first, (last - first) / span_s))
            counted += rng.gammavariate(shape, 1 / shape)
        begun_s, begun_count = begun_s + span_s, ends_at
    return times


def _time_of(count: float, rate: float, slope: float) -> float:
    """Solve rate·t + slope·t²/2 = count for the first t ≥ 0, in the form that doesn't cancel for small slopes."""
    root = math.sqrt(max(rate * rate + 2 * slope * count, 0.0))
    return 2 * count / (rate + root) if rate + root > 0 else 0.0
