"""What one replica keeps at which load, measured on the simulated engine itself.

A few replicas behind a router that picks the one with the fewest requests serve lengths drawn from the trace, at one
steady rate after the other. What share of the requests keeps the promise, and how many run and wait meanwhile, is the
variant's curve: ``screen`` reads from it what a fleet would look like, ``oracle`` how far it could be driven.
Knows nothing of controllers.
"""

from __future__ import annotations

import bisect
import functools
import math
import random
from dataclasses import dataclass

from trimtab_core import capacity
from trimtab_core.snapshot import CapacityProfile

from trimtab_sim import engine, replicas, report, workload

REPLICAS = 6
"""Behind the router: enough that it can even out the load, as in a fleet."""
REQUESTS = 2400
"""For each point; the first ones (``WARM``) find the steady state and are not counted."""
LOADS = (0.25, 0.5, 0.65, 0.75, 0.85, 0.95, 1.1)
"""Of a guess at the largest load of use, in which the mean time between two tokens reaches its limit."""
LENGTHS = 1024
"""How many pairs of lengths are drawn from a trace."""
_BLOCKS = 32
WARM = 0.2
"""Share of the requests that find the steady state."""

Lengths = tuple[tuple[int, int], ...]
"""Input and output tokens of requests."""


@dataclass(frozen=True, slots=True)
class Point:
    """A replica at one steady load.

    Attributes:
        load: requests per second on one replica.
        met: share of them that keeps the promise.
        running, waiting: mean requests in the engine.
    """

    load: float
    met: float
    running: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by rising load; ``met`` never rises with it."""

    points: tuple[Point, ...]

    def at(self, load: float) -> Point:
        """Between two points: a straight line. Below the first: as there, with fewer running; above: as at the last."""
        first, last = self.points[0], self.points[-1]
        if load <= first.load:
            share = load / first.load
            return Point(load, first.met, first.running * share, first.waiting * share)
        if load >= last.load:
            return Point(load, last.met, last.running, last.waiting)
        after = bisect.bisect_right(self.points, load, key=lambda point: point.load)
        low, high = self.points[after - 1], self.points[after]
        share = (load - low.load) / (high.load - low.load)

        def between(start: float, end: float) -> float:
            return start + share * (end - start)

        return Point(
            load, between(low.met, high.met), between(low.running, high.running), between(low.waiting, high.waiting)
        )

    def largest(self, met: float) -> float:
        """The largest load at which at least this share is kept; that of the first point where none does."""
        best = self.points[0].load
        for low, high in zip(self.points, self.points[1:], strict=False):
            if high.met >= met:
                best = high.load
            elif low.met >= met:
                best = low.load + (low.met - met) / max(low.met - high.met, 1e-12) * (high.load - low.load)
        return best


def lengths(trace: workload.Trace, seed: int) -> Lengths:
    """Pairs of lengths as they come in the trace, in random order, with nearly its means.

    They are spread evenly over blocks of rising input lengths, and within each over rising output lengths: drawn
    blindly, so few of them would miss the means of long-tailed lengths by several percent, and every load with them.
    """
    pairs = sorted((request.input_tokens, request.output_tokens) for request in trace.facts.sample)
    if len(pairs) > LENGTHS:
        block = math.ceil(len(pairs) / _BLOCKS)
        blocks = [sorted(pairs[at : at + block], key=lambda pair: pair[1]) for at in range(0, len(pairs), block)]
        ordered = [pair for each in blocks for pair in each]
        pairs = [ordered[int((at + 0.5) * len(ordered) / LENGTHS)] for at in range(LENGTHS)]
    random.Random(f"lengths {seed}").shuffle(pairs)
    return tuple(pairs)


def guess(profile: CapacityProfile, found: Lengths, itl_seconds: float | None) -> float:
    """The load, in requests per second, at which the mean promise still holds.

    With λ requests per second of I input and O output tokens, tokens are ``a / (1 - λ·(I/P + b·O))`` seconds apart
    (``capacity``), so that their limit L is reached at ``λ = (1 - a/L) / (I/P + b·O)``; slots and KV cache hold
    ``n / (O · step)`` requests.
    """
    count = max(1, len(found))
    inputs = sum(pair[0] for pair in found) / count
    outputs = sum(pair[1] for pair in found) / count
    base = profile.itl_base_seconds
    slack = 1.0 if itl_seconds is None else max(0.05, 1.0 - base / itl_seconds)
    stable = slack / (inputs / profile.prefill_tokens_per_second + profile.itl_per_sequence_seconds * outputs + 1e-9)
    slots = max(1.0, min(float(profile.max_sequences), profile.kv_tokens / (inputs + outputs)))
    step = base + profile.itl_per_sequence_seconds * slots
    work = inputs / profile.prefill_tokens_per_second + outputs * step / slots
    return min(stable, 1.0 / max(work, 1e-9))


@functools.lru_cache(maxsize=256)
def measure(
    profile: CapacityProfile,
    promise: report.Promise,
    found: Lengths,
    *,
    even: bool = False,
    requests: int = REQUESTS,
    loads: tuple[float, ...] = LOADS,
) -> Curve:
    """The curve of a variant.

    Args:
        profile: of its replicas.
        promise: that must be kept.
        found: lengths of the requests, served in turn.
        even: requests come in at equal distances, the kindest way; otherwise by chance (Poisson).
        requests: for each point.
        loads: where it is measured, as shares of ``guess``.
    """
    if not found:
        raise ValueError("a curve needs lengths of requests")
    top = guess(profile, found, promise.itl_s)
    points: list[Point] = []
    for share in loads:
        point = _point(profile, promise, found, share * top, even=even, requests=requests)
        met = min(point.met, points[-1].met) if points else point.met
        points.append(Point(point.load, met, point.running, point.waiting))
    return Curve(tuple(points))


def _point(
    profile: CapacityProfile, promise: report.Promise, found: Lengths, load: float, *, even: bool, requests: int
) -> Point:
    """One steady load, simulated."""
    pool = _Pool(profile, promise, warm=int(WARM * requests))
    rng, at, gap = random.Random("curve"), 0.0, 1.0 / (load * REPLICAS)
    for number in range(requests):
        at += gap if even else rng.expovariate(1.0 / gap)
        pool.arrive(workload.Request(number, at, *found[number % len(found)]))
    return pool.finish(load, at)


class _Pool:
    """Replicas behind a router that picks the one with the fewest requests."""

    def __init__(self, profile: CapacityProfile, promise: report.Promise, *, warm: int) -> None:
        self._clock = engine.Engine(0.0)
        self._processors = [replicas.Processor(self._clock, profile) for _ in range(REPLICAS)]
        self._flying = [0] * REPLICAS
        self._promise = promise
        self._warm = warm
        self._counted = self._met = 0
        self._looks = self._running = self._waiting = 0

    def arrive(self, request: workload.Request) -> None:
        """A request comes in at its time."""
        self._clock.run(until=request.arrival_s)
        if request.number >= self._warm:
            self._looks += 1
            self._running += sum(one.running for one in self._processors)
            self._waiting += sum(one.waiting for one in self._processors)
        chosen = min(range(REPLICAS), key=self._flying.__getitem__)
        processor = self._processors[chosen]
        if not processor.fits(request):
            return

        def done(job: replicas.Job) -> None:
            self._flying[chosen] -= 1
            self._settle(job)

        self._flying[chosen] += 1
        processor.submit(replicas.Job(request, done))

    def finish(self, load: float, at: float) -> Point:
        """The point, once all requests that can still keep their promise have ended."""
        self._clock.run(until=at + self._patience())
        looks = max(1, self._looks) * REPLICAS
        return Point(load, self._met / max(1, self._looks), self._running / looks, self._waiting / looks)

    def _patience(self) -> float:
        limit = self._promise.e2e_s
        return 120.0 if limit is None else min(limit, 600.0)

    def _settle(self, job: replicas.Job) -> None:
        if job.request.number < self._warm or job.first_token_at is None or job.finished_at is None:
            return
        arrived = job.request.arrival_s
        self._met += self._promise.met(job.first_token_at - arrived, job.itl_seconds, job.finished_at - arrived)


def stable(profile: CapacityProfile, mix: capacity.Mix) -> float:
    """Requests per second above which a replica's queue grows without end: reading and decoding take all its time."""
    work = mix.input_tokens / profile.prefill_tokens_per_second
    slots = max(1.0, min(float(profile.max_sequences), profile.kv_tokens / (mix.input_tokens + mix.output_tokens)))
    step = profile.itl_base_seconds + profile.itl_per_sequence_seconds * slots
    return 1.0 / (work + mix.output_tokens * step / slots)
