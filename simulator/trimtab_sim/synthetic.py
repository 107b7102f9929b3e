"""A trace made from published statistics: the default of the demo, free of downloads.

Lengths and arrival statistics are those of the Azure 2023 conversation trace (Azure/AzurePublicDataset,
``AzureLLMInferenceTrace_conv.csv``, CC-BY-4.0; Patel et al., Splitwise, ISCA 2024): quantiles of input and output
length, which are nearly uncorrelated there (-0.11), and a coefficient of variation of inter-arrival times of 1.09.
The course of the load (a calm, a rise, a burst, a fall) is made up, to show in minutes what a day does in hours.
"""

from __future__ import annotations

import bisect
import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        for at, time in enumerate(list(_arrivals(_course(course, duration_s, mean_rps), cv, rng)))
    ]
    if not requests:
        raise TraceError(
            f"no request falls into {minutes:g} minutes at {mean_rps:g} per second; ask for more of either"
        )
    source = f"synthetic, after the statistics of the Azure 2023 conversation trace ({minutes:g} min, seed {seed})"
    return Trace(prompts.assign(workload.number(requests), seed=seed, mix=mix or prompts.Mix()), source)


Window = tuple[float, float, float]
"""Start in seconds, length in seconds, arrivals per second."""
Lengths = Callable[[random.Random, float], tuple[int, int]]
"""Draws input and output tokens for a request that arrives at so many seconds. Picklable, as baselines run in several
processes: a ``Quantiles``, a ``LogNormal``, or a function of a module."""


def from_rates(
    windows: Sequence[Window],
    lengths: Lengths,
    *,
    seed: int,
    source: str,
    mix: prompts.Mix | None = None,
    cv: float = INTER_ARRIVAL_CV,
) -> Trace:
    """A trace after a published course of rates. It makes its requests when asked for them: weeks need no memory.

    Args:
        windows: in order of time; the rate is constant within each and 0 between them. Scale the rates to taste.
        lengths: of the requests.
        seed: equal seeds give equal traces.
        source: for people: what was published, and what was made of it.
        mix: of the synthetic prompts.
        cv: coefficient of variation of the inter-arrival times (Gamma) at constant rate; 1 is Poisson.

    Raises:
        TraceError: naming the window or argument at fault.
    """
    if not (math.isfinite(cv) and cv > 0):
        raise TraceError(f"cv must be a finite number above 0, not {cv:g}")
    ended = 0.0
    for at, (start_s, span_s, rps) in enumerate(windows):
        if not (ended <= start_s < math.inf and 0 < span_s < math.inf and 0 <= rps < math.inf):
            raise TraceError(
                f"window {at} is ({start_s:g}, {span_s:g}, {rps:g}); expected a finite start of at least {ended:g} s, "
                "where the window before ends, a length above 0 s and a rate of at least 0"
            )
        ended = start_s + span_s
    if not any(rps for *_, rps in windows):
        raise TraceError("no window has a rate above 0: expected some requests")
    return Trace(_Stream(tuple(windows), lengths, seed, cv, mix or prompts.Mix()), source)


@dataclass(frozen=True, slots=True)
class _Stream:
    """Requests of a course of rates, made anew for each iteration."""

    windows: tuple[Window, ...]
    lengths: Lengths
    seed: int
    cv: float
    mix: prompts.Mix

    def __iter__(self) -> Iterator[Request]:
        return prompts.label(self._rows(), seed=self.seed, mix=self.mix)

    def _rows(self) -> Iterator[prompts.Row]:
        lengths, rng = self.lengths, random.Random(f"lengths {self.seed}")
        pieces = (_Piece(start_s, span_s, rps, rps) for start_s, span_s, rps in self.windows)
        last = 0.0  # no rounding at the edge of a window makes time go back
        for at, time in enumerate(_arrivals(pieces, self.cv, random.Random(f"rates {self.seed}"))):
            last = max(time, last)
            given, made = lengths(rng, last)
            yield at, last, given, made


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Lengths by published quantiles, input and output apart: (share, tokens) from share 0 to share 1."""

    input: tuple[tuple[float, int], ...] = INPUT_QUANTILES
    output: tuple[tuple[float, int], ...] = OUTPUT_QUANTILES

    def __call__(self, rng: random.Random, time_s: float) -> tuple[int, int]:
        """Input and output tokens of a request."""
        del time_s
        return length(self.input, rng.random()), length(self.output, rng.random())


@dataclass(frozen=True, slots=True)
class Rows:
    """Lengths of random rows of a recorded trace, input and output together."""

    rows: tuple[tuple[int, int], ...]

    def __call__(self, rng: random.Random, time_s: float) -> tuple[int, int]:
        """Input and output tokens of a request."""
        del time_s
        return self.rows[int(rng.random() * len(self.rows))]


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths by log-normal distributions, input and output apart.

    Attributes:
        input, output: (median in tokens, standard deviation of the natural logarithm).
        most: longest input and output.
    """

    input: tuple[float, float]
    output: tuple[float, float]
    most: tuple[int, int] = (32_768, 8_192)

    def __call__(self, rng: random.Random, time_s: float) -> tuple[int, int]:
        """Input and output tokens of a request."""
        del time_s
        given = self.input[0] * math.exp(rng.gauss(0.0, self.input[1]))
        made = self.output[0] * math.exp(rng.gauss(0.0, self.output[1]))
        return min(max(round(given), 1), self.most[0]), min(max(round(made), 1), self.most[1])


def length(quantiles: tuple[tuple[float, int], ...], share: float) -> int:
    """The length below which ``share`` of the requests are: log-linear between the published quantiles."""
    shares, logs = _logarithms(quantiles)
    at = min(max(bisect.bisect_right(shares, share), 1), len(shares) - 1)
    low, low_share = logs[at - 1], shares[at - 1]
    return round(math.exp(low + (share - low_share) / (shares[at] - low_share) * (logs[at] - low)))


@functools.lru_cache(maxsize=64)
def _logarithms(quantiles: tuple[tuple[float, int], ...]) -> tuple[list[float], list[float]]:
    """Shares, and logarithms of lengths."""
    return [share for share, _ in quantiles], [math.log(tokens) for _, tokens in quantiles]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of time in which the rate moves in a straight line; seconds and arrivals per second."""

    begins_s: float
    span_s: float
    first: float
    last: float


def _course(course: Sequence[Phase], duration_s: float, mean_rps: float) -> Iterator[_Piece]:
    shares = sum(phase.share for phase in course)
    unit = sum(phase.share * (phase.begins + phase.ends) / 2 for phase in course) / shares
    begins_s = 0.0
    for phase in course:
        span_s = duration_s * phase.share / shares
        first, last = (mean_rps * rate / unit for rate in (phase.begins, phase.ends))
        yield _Piece(begins_s, span_s, first, last)
        begins_s += span_s


def _arrivals(pieces: Iterable[_Piece], cv: float, rng: random.Random) -> Iterator[float]:
    """Arrival times: a Gamma renewal process in a time that runs as fast as the rate.

    Gaps of mean 1 are drawn in "expected arrivals" and mapped to seconds by the inverse of the integrated rate.
    """
    shape, begun = 1 / cv**2, 0.0
    counted = rng.gammavariate(shape, 1 / shape) * rng.random()  # the process did not begin with an arrival
    for piece in pieces:
        ends = begun + piece.span_s * (piece.first + piece.last) / 2
        while counted < ends:
            slope = (piece.last - piece.first) / piece.span_s
            yield piece.begins_s + _time_of(counted - begun, piece.first, slope)
            counted += rng.gammavariate(shape, 1 / shape)
        begun = ends


def _time_of(count: float, rate: float, slope: float) -> float:
    """Solve rate·t + slope·t²/2 = count for the first t ≥ 0, in the form that doesn't cancel for small slopes."""
    root = math.sqrt(max(rate * rate + 2 * slope * count, 0.0))
    return 2 * count / (rate + root) if rate + root > 0 else 0.0
