"""What a variant's replicas can really carry, learned while they serve: the law ITL = a + b·n and the prefill rate P.

What engines counted between two readings (``counters``) is linear in the three unknowns: a token took
``y = a + b·n + x/P``, with n sequences and x prompt tokens in a step. They are estimated as multiples of the prior by
recursive least squares in its Kalman form (the unknowns walk randomly, so that old rows are forgotten):

- the prior is the first state, and its covariance says how far priors are off; what traffic never tells apart (with one
  mix of lengths, n and x rise together) stays near the prior;
- a row too far from what was expected (normalised innovation squared above ``GATE``) is an outlier and changes nothing;
  ``RUN`` of them in a row on the same side are a change of the replicas: the estimate moves to their median and starts
  again;
- requests of another shape (mean lengths off by ``SHAPE_CHANGE``) make b uncertain again: a longer context is more
  to read;
- an estimate replaces the prior once enough rows agree and the time at twice the largest n seen is known within
  ``CONFIDENT``; from then on it moves by at most ``LARGEST_STEP`` at a time, and not at all for less than ``DEADBAND``.

Pure: readings come in as values, a state goes out. Readings that are old, go backwards or are no numbers teach nothing.
Decision record 0008 has the numbers.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_core import counters, spreads

PRIOR_DEVIATION: spreads.Row = (0.25, 0.4, 0.4)
"""How far the catalogue's numbers are off, as a share (``benchmarks/bench_capacity.py`` measures it)."""
LOWEST: spreads.Row = (0.2, 0.0, 0.2)
HIGHEST: spreads.Row = (5.0, 5.0, 5.0)
"""Multiples of the prior between which the unknowns are looked for."""
ANY_DEVIATION: spreads.Row = (1.0, 1.0, 1.0)
ANY_LOWEST: spreads.Row = (0.02, 0.0, 0.02)
ANY_HIGHEST: spreads.Row = (20.0, 20.0, 20.0)
"""The same for a model of which nothing is known, whose prior is ``ANY``."""
DRIFT_PER_HOUR = 0.05
"""Standard deviation of the random walk after an hour, as a share of the prior."""
LEAST_NOISE, MOST_NOISE = 0.03, 0.15
"""Of one row, as a share of y: below the first is luck, above the second the row says little."""
IDLE_NOISE = 0.1
"""Added for an engine with one sequence, whose idle time can't be told; falls with the number of sequences."""
GATE = 16.0
RUN = 6
SHAPE_CHANGE = 0.2
SHAPE_SECONDS = 600.0
"""Lengths are averaged over this time, so that chance does not look like a change."""

LEAST_SAMPLES = 12
CONFIDENT = 0.1
REACH = 2.0
"""Times the largest n seen, up to where an estimate must be good before it counts."""
OTHERWISE = 0.15
"""A written law whose steps are off by this share is wrong, whatever the measurement's error."""
LARGEST_STEP = 0.25
DEADBAND = 0.02
SEEN_SECONDS = 86_400.0
"""Time constant with which the largest n seen is forgotten."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Mean tokens per request."""

    input_tokens: float
    output_tokens: float

    @property
    def sound(self) -> bool:
        """Whether both are finite and above 0."""
        return all(math.isfinite(tokens) and tokens > 0 for tokens in (self.input_tokens, self.output_tokens))

    def toward(self, other: Shape, gain: float) -> Shape:
        """A share of the way to another shape."""
        return Shape(
            self.input_tokens + gain * (other.input_tokens - self.input_tokens),
            self.output_tokens + gain * (other.output_tokens - self.output_tokens),
        )

    def differs(self, other: Shape) -> bool:
        """Whether a mean has changed by more than ``SHAPE_CHANGE``."""
        pairs = ((self.input_tokens, other.input_tokens), (self.output_tokens, other.output_tokens))
        return any(abs(math.log(one) - math.log(another)) > math.log1p(SHAPE_CHANGE) for one, another in pairs)


@dataclass(frozen=True, slots=True)
class Law:
    """ITL = itl_base + itl_per_sequence · n, and the prefill rate; seconds and tokens per second."""

    itl_base_seconds: float
    itl_per_sequence_seconds: float
    prefill_tokens_per_second: float

    @property
    def sound(self) -> bool:
        """Whether it can be computed with."""
        values = dataclasses.astuple(self)
        return all(math.isfinite(value) and value >= 0 for value in values) and min(values[0], values[2]) > 0

    def itl_seconds(self, sequences: float, tokens_per_step: float = 0.0) -> float:
        """Length of a step with so many sequences and prompt tokens."""
        decode = self.itl_base_seconds + self.itl_per_sequence_seconds * sequences
        return decode + tokens_per_step / self.prefill_tokens_per_second


ANY = Law(0.015, 0.0003, 15_000.0)
"""Somewhere in the middle of what GPUs do: the prior of a model that the catalogue can't tell the size of."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one variant's replicas; a value, kept from cycle to cycle.

    Attributes:
        prior: what it is measured against.
        multiples: the estimate, as multiples of the prior's a, b and 1/P.
        covariance: of the multiples.
        noise: variance of a row, as a share of y squared.
        samples: rows since the start, or since the last change of the replicas.
        sequences: the largest n seen lately.
        tokens_per_sequence: prompt tokens in a step for each sequence, lately; says where P matters.
        outliers: y over expected y of the last rows, all too far off and on the same side.
        shape, lately: mean lengths for which b holds, None until they are known, and those of now.
        watched_seconds: how long lengths have been averaged, up to ``SHAPE_SECONDS``.
        readings: the last reading of each engine, by replica name.
        law: what the planner may count on; None until there is confidence.
        kv_tokens: the smallest KV cache that an engine says it has; None where none says.
        updated_at: epoch seconds of the newest reading.
    """

    prior: Law
    multiples: spreads.Row = (1.0, 1.0, 1.0)
    covariance: spreads.Matrix = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    noise: float = 0.05**2
    samples: int = 0
    sequences: float = 0.0
    tokens_per_sequence: float = 0.0
    outliers: tuple[float, ...] = ()
    shape: Shape | None = None
    lately: Shape | None = None
    watched_seconds: float = 0.0
    readings: Mapping[str, counters.Reading] = field(default_factory=dict)
    law: Law | None = None
    kv_tokens: int | None = None
    updated_at: float | None = None

    @property
    def deviation(self) -> spreads.Row:
        """How far the prior may be off."""
        return ANY_DEVIATION if self.prior == ANY else PRIOR_DEVIATION

    def bounded(self, values: tuple[float, ...]) -> spreads.Row | None:
        """Multiples within their bounds; None if one is no number."""
        if not all(math.isfinite(value) for value in values):
            return None
        lowest, highest = (ANY_LOWEST, ANY_HIGHEST) if self.prior == ANY else (LOWEST, HIGHEST)
        a, b, c = (min(max(value, low), high) for value, low, high in zip(values, lowest, highest, strict=True))
        return a, b, c

    @property
    def estimate(self) -> Law:
        """The estimate as it is, believed or not."""
        a, b, c = self.multiples
        prior = self.prior
        return Law(prior.itl_base_seconds * a, prior.itl_per_sequence_seconds * b, prior.prefill_tokens_per_second / c)

    @property
    def error(self) -> float:
        """Standard error of the estimate's ITL at ``REACH`` times the largest n seen, as a share of it."""
        sequences = max(1.0, REACH * self.sequences)
        row = _terms(self.prior, sequences, self.tokens_per_sequence * sequences)
        return math.sqrt(max(0.0, spreads.quadratic(self.covariance, row))) / spreads.dot(row, self.multiples)

    @property
    def confident(self) -> bool:
        """Whether the estimate may replace the prior."""
        return self.samples >= LEAST_SAMPLES and self.error <= CONFIDENT


def differs(learned: Learned, written: Law) -> bool:
    """Whether a step takes clearly longer or shorter than somebody wrote, at the largest n seen, beyond all doubt."""
    if learned.law is None or not written.sound:
        return False
    sequences = max(1.0, learned.sequences)
    tokens = learned.tokens_per_sequence * sequences
    off = abs(math.log(learned.law.itl_seconds(sequences, tokens) / written.itl_seconds(sequences, tokens)))
    return off > math.log1p(OTHERWISE)


def begin(prior: Law) -> Learned:
    """Nothing learned yet. ``prior`` must be sound."""
    return Learned(prior, covariance=spreads.diagonal(Learned(prior).deviation))


def resume(prior: Law, law: Law, *, error: float, sequences: float, samples: int) -> Learned:
    """Go on from what was written down: the law stays in force, and is taken for a prior that is nearly right.

    Numbers that can't be used begin anew.
    """
    known = begin(prior)
    multiples = known.bounded(
        (
            law.itl_base_seconds / prior.itl_base_seconds,
            law.itl_per_sequence_seconds / max(prior.itl_per_sequence_seconds, 1e-9),
            prior.prefill_tokens_per_second / law.prefill_tokens_per_second,
        )
        if law.sound and math.isfinite(error + sequences)
        else (math.nan, math.nan, math.nan)
    )
    if multiples is None:
        return known
    deviation = max(0.05, 2.0 * max(0.0, error))
    a, b, c = (min(deviation * multiple, most) for multiple, most in zip(multiples, known.deviation, strict=True))
    return dataclasses.replace(
        known,
        multiples=multiples,
        covariance=spreads.diagonal((a, b, c)),
        samples=max(0, min(samples, LEAST_SAMPLES)),
        sequences=max(0.0, sequences),
        law=law,
    )


def observe(
    before: Learned, readings: Mapping[str, counters.Reading], shape: Shape | None = None, *, steady: bool = True
) -> Learned:
    """Take in the present readings of a variant's engines.

    Args:
        before: what was known.
        readings: fresh ones only, by replica name; one that is missing is forgotten.
        shape: mean lengths of the requests that the variant serves now; None when not measured.
        steady: whether engines work most of the time. Between bursts they idle, nobody counts for how long: taken for
            work, it would make a token seem to take several times as long.
    """
    usable = {name: reading for name, reading in readings.items() if reading.sound}
    kept: dict[str, counters.Reading] = {}
    intervals: list[counters.Interval] = []
    for name, reading in sorted(usable.items()):
        last = before.readings.get(name)
        if last is not None and 0 <= reading.at - last.at < counters.SHORTEST_SECONDS:
            kept[name] = last
            continue
        kept[name] = reading
        found = counters.between(last, reading) if last is not None else None
        if found is not None:
            intervals.append(found)
    newest = max((reading.at for reading in kept.values()), default=None)
    now = before.updated_at if newest is None else max(newest, before.updated_at or newest)
    elapsed = 0.0 if now is None or before.updated_at is None else now - before.updated_at
    caches = [int(reading.kv_tokens) for reading in usable.values() if reading.kv_tokens >= 1]
    learned = dataclasses.replace(
        before, readings=kept, updated_at=now, kv_tokens=min(caches, default=before.kv_tokens)
    )
    if shape is not None and shape.sound and elapsed > 0:
        learned = _reshaped(learned, shape, elapsed)
    if not intervals or not steady:
        return learned
    learned = _drifted(learned, elapsed)
    for interval in intervals:
        learned = update(learned, interval)
    return _in_force(learned)


def update(learned: Learned, interval: counters.Interval) -> Learned:
    """One step of the filter: an outlier is counted, any other row moves the estimate."""
    row = _terms(learned.prior, interval.sequences, interval.tokens_per_step)
    expected = spreads.dot(row, learned.multiples)
    if not math.isfinite(expected) or expected <= 0:
        return learned
    scaled = (row[0] / expected, row[1] / expected, row[2] / expected)
    innovation = interval.itl_seconds / expected - 1.0
    spread = spreads.apply(learned.covariance, scaled)
    noise = learned.noise + (IDLE_NOISE / interval.sequences) ** 2
    variance = max(0.0, spreads.dot(scaled, spread)) + noise
    if innovation * innovation > GATE * variance:
        return _outlier(learned, 1.0 + innovation)
    gain = (spread[0] / variance, spread[1] / variance, spread[2] / variance)
    multiples = learned.bounded(tuple(m + g * innovation for m, g in zip(learned.multiples, gain, strict=True)))
    if multiples is None:
        return learned
    measured = learned.noise + 0.05 * (innovation * innovation * noise / variance - noise)
    gain_of_sight = 1.0 / min(learned.samples + 1, 50)
    ratio = interval.tokens_per_step / interval.sequences
    return dataclasses.replace(
        learned,
        multiples=multiples,
        covariance=spreads.reduced(learned.covariance, gain, spread),
        noise=min(MOST_NOISE**2, max(LEAST_NOISE**2, measured)),
        samples=learned.samples + 1,
        sequences=max(interval.sequences, learned.sequences * math.exp(-interval.seconds / SEEN_SECONDS)),
        tokens_per_sequence=learned.tokens_per_sequence + gain_of_sight * (ratio - learned.tokens_per_sequence),
        outliers=(),
    )


def _outlier(learned: Learned, factor: float) -> Learned:
    """Count a row that was too far off; after a run of them on one side the replicas are others than they were."""
    same_side = [one for one in learned.outliers if (one > 1) == (factor > 1)]
    run = (*same_side, factor) if len(same_side) == len(learned.outliers) else (factor,)
    if len(run) < RUN:
        return dataclasses.replace(learned, outliers=run)
    moved = learned.bounded(tuple(multiple * statistics.median(run) for multiple in learned.multiples))
    return dataclasses.replace(
        learned,
        multiples=moved or learned.multiples,
        covariance=spreads.diagonal(learned.deviation),
        noise=0.05**2,
        samples=0,
        outliers=(),
    )


def _reshaped(learned: Learned, shape: Shape, elapsed: float) -> Learned:
    """Follow the mean lengths; when they have changed for good, b must be learned again."""
    watched = min(learned.watched_seconds + elapsed, SHAPE_SECONDS)
    lately = (learned.lately or shape).toward(shape, min(1.0, elapsed / watched))
    learned = dataclasses.replace(learned, lately=lately, watched_seconds=watched)
    if watched < SHAPE_SECONDS:
        return learned
    if learned.shape is None or not lately.differs(learned.shape):
        return dataclasses.replace(learned, shape=learned.shape or lately)
    (aa, _, ac), _, (_, _, cc) = learned.covariance
    widened = ((aa, 0.0, ac), (0.0, learned.deviation[1] ** 2, 0.0), (ac, 0.0, cc))
    return dataclasses.replace(learned, shape=lately, covariance=widened, samples=0)


def _drifted(learned: Learned, elapsed: float) -> Learned:
    """Trust the past a little less, never less than the prior is trusted."""
    walk = DRIFT_PER_HOUR**2 * elapsed / 3600.0
    grown = [learned.covariance[i][i] + walk for i in range(3)]
    shrink = [min(1.0, most / math.sqrt(max(size, 1e-12))) for size, most in zip(grown, learned.deviation, strict=True)]
    a, b, c = (
        tuple((grown[i] if i == j else learned.covariance[i][j]) * shrink[i] * shrink[j] for j in range(3))
        for i in range(3)
    )
    return dataclasses.replace(learned, covariance=((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2])))


def _in_force(learned: Learned) -> Learned:
    """Bring the law in force nearer to the estimate, if that is to be trusted and the difference matters."""
    if not learned.confident:
        return learned
    now, aim = learned.law or learned.prior, learned.estimate
    least = 0.05 * learned.prior.itl_per_sequence_seconds
    stepped = Law(
        _toward(now.itl_base_seconds, aim.itl_base_seconds),
        _toward(max(now.itl_per_sequence_seconds, least), aim.itl_per_sequence_seconds),
        _toward(now.prefill_tokens_per_second, aim.prefill_tokens_per_second),
    )
    x = learned.tokens_per_sequence
    matters = any(
        abs(aim.itl_seconds(n, x * n) / now.itl_seconds(n, x * n) - 1.0) > DEADBAND
        for n in (1.0, learned.sequences, REACH * learned.sequences)
    )
    prefill = abs(math.log(aim.prefill_tokens_per_second / now.prefill_tokens_per_second)) > 4 * DEADBAND
    if learned.law is not None and not matters and not prefill:
        return learned
    return dataclasses.replace(learned, law=stepped)


def _toward(now: float, aim: float) -> float:
    """The aim, or as near to it as one step goes."""
    return min(max(aim, now * (1.0 - LARGEST_STEP)), now * (1.0 + LARGEST_STEP))


def _terms(prior: Law, sequences: float, tokens_per_step: float) -> spreads.Row:
    """What each part of the prior adds to a step, in seconds."""
    per_sequence = max(prior.itl_per_sequence_seconds, 1e-9)
    return prior.itl_base_seconds, per_sequence * sequences, tokens_per_step / prior.prefill_tokens_per_second
