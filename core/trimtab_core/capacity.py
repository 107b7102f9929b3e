"""What one replica can carry within its SLO: a continuous-batching engine as a processor-sharing queue.

The model. One engine step yields a token for each of the n running sequences and lasts ``a + b·n`` seconds
(linear in n: 420 fitted cells of measured GPUs, median R² 0.99, ai-dynamo/aiconfigurator silicon sample), plus
the prompt tokens computed in it over the prefill rate P. With λ requests per second of I uncached input and O
output tokens, prefill takes the share ``π = λ·I/P`` of the time, so tokens are ``(a + b·n) / (1 - π)`` apart.

All sequences share the engine equally and the rate depends on n alone. The number in such a queue doesn't
depend on the distribution of lengths beyond its mean (F. P. Kelly, *Reversibility and Stochastic Networks*,
1979, on symmetric queues) and is here negative binomial with

    r = a/b + 1,   p = b·λ·O / (1 - π),   mean n = r·p / (1 - p),   variance = r·p / (1 - p)².

The promise must hold for the tail, so every condition is checked at a tail: of n (normal approximation), or of the
lengths (exponential: the 95th percentile is 3.0 means; the Azure 2023 traces have 2.2 to 3.6). Bursts make tails long,
and replicas that share the load make them short again: where each request takes the emptiest of m replicas, a burst
spreads over all of them and each sees every m-th arrival. So with arrivals of squared coefficient of variation c²,
an engine's own arrivals have c²/m, the variance of its n is that of the pool, times ``(1 + c²)/2`` (the peakedness of
a queue without limits), over m, and of a request's own burst ``h = (c²/m - 1)/2`` others come after it to its engine.

- slots: n <= max sequences, and <= KV tokens / (I + O), the mean footprint of a running sequence (long answers run
  longest: of exponential lengths the mean running one is 2·O long and half written). Whoever finds them taken waits
  for long, so that they must do for all but 0.5 %;
- ITL: a request's mean over its output. To the mean law come those h sequences and two deviations: that of n, and that
  of the prompts computed meanwhile, ``(I/P)·sqrt((1 + c²/m)·λ·ITL/S)``: their number varies as arrivals do, their
  length is exponential, and the unlucky requests are the short ones of S = O/(6 + 180/O) tokens, fewer beyond the
  95th percentile (fitted below), over which the prompts of the h others are spread as well. The tail is that of a Gamma
  distribution (Cornish-Fisher). No step computes more than a chunk, so that ITL never exceeds a step of the tail n and
  a chunk;
- TTFT: tail of a sojourn in prefill and two steps. Prefill serves one prompt after another in I/P and one step for
  each chunk: a GI/M/1 queue, whose sojourn is exponential with mean service/(1 - s), s the root of
  ``s = A((1 - s)/service)`` for the transform A of Gamma intervals (c² = 1 gives M/M/1). The emptiest by sequences is
  not the emptiest by prompts: each engine's intervals have (c² + (m - 1)/2)/m here (fitted);
- e2e: tail of the sum of TTFT and of O·ITL, two exponentials: the sum of the means, and of the tails' excesses the root
  of the sum of squares.

Checked against simulated engines (chunks of 2,048 tokens, exponential lengths, Gamma arrivals with c² of 1, 4 and 10,
pools of 1, 2, 4 and 8, models of 8B to 405B, chats and code, loads of 0.5 to 1). By c² and m, the median over cases of
the predicted over the simulated 95th percentile is 0.86 to 1.08 for ITL, 0.89 to 1.01 for TTFT and 0.95 to 1.01 for
e2e; of the 99th, 0.92 to 1.09, 0.93 to 1.04 and 0.97 to 1.03. The worst are answers of 30 tokens, 0.7 to 1.8.
``benchmarks/bench_capacity.py`` repeats it, and decision record 0008 has the numbers.

The largest such λ is the capacity; one request then takes ``w = 1/λ = I/P + O·(a + b·n)/n`` replica-seconds, so
that the work of different classes on one replica adds up linearly. Must not import pydantic: routers price by it.
"""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from trimtab_core import units

if TYPE_CHECKING:
    from trimtab_core.api.v1alpha1 import LatencySlo


CHUNK_TOKENS = 2048.0
"""Input tokens that one step computes at most: the smaller of vLLM's defaults for max-num-batched-tokens."""
SHORT_OUTPUTS, SHORT_TOKENS, SHORTER = 6.0, 30.0, 0.57
"""The requests at the ITL's 95 % tail are 6·(1 + 30/O) times shorter than the mean, and those further out shorter with
this power of their rarity; fitted to simulated engines."""
ALMOST_ALL = 0.995
"""The tail of running sequences for which slots and KV cache must do."""
LEFT_BY_BURSTS = 0.25
"""Share of the load without bursts that is left with any: what then misses its promise, others cure by sharing."""
UNEVEN_PROMPTS = 0.5
"""How much of its own arrivals' variation an engine of a pool keeps in prefill; fitted as well."""
LEAST_BURSTINESS = 0.25
"""Of an engine's own arrivals, however many share them: routers and lengths are never quite even."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What the requests look like on average.

    Attributes:
        input_tokens, output_tokens: means per request.
        cached_ratio: share of the input tokens found in the engine's prefix cache.
        burstiness: squared coefficient of variation of all inter-arrival times; 1 is Poisson.
        replicas: that share these arrivals, each request taking the emptiest; 1 is a replica by itself.
    """

    input_tokens: float
    output_tokens: float
    cached_ratio: float = 0.0
    burstiness: float = 1.0
    replicas: float = 1.0


DEFAULT_MIX = Mix(input_tokens=1200.0, output_tokens=200.0)
"""Used until lengths are measured; the means of the Azure 2023 conversation trace, rounded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Latency limits in seconds at a tail; None is not promised.

    Attributes:
        quantile: the tail at which they must hold, at least 0.5 and below 1.
    """

    ttft_seconds: float | None = None
    itl_seconds: float | None = None
    e2e_seconds: float | None = None
    quantile: float = 0.95


class Profile(Protocol):
    """The linear law of one replica; ``snapshot.CapacityProfile`` is one."""

    @property
    def itl_base_seconds(self) -> float:
        """Length of a step without sequences, a."""
        ...

    @property
    def itl_per_sequence_seconds(self) -> float:
        """Added by each running sequence, b."""
        ...

    @property
    def prefill_tokens_per_second(self) -> float:
        """Input tokens read per second, P."""
        ...

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit in the KV cache."""
        ...

    @property
    def max_sequences(self) -> int:
        """Sequences that may run at once."""
        ...


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest load that one replica carries within its limits.

    Attributes:
        feasible: whether a lone request meets the limits at all. If not, the numbers describe the load at
            which the promises are missed by half of the best achievable: something must serve the requests.
        sequences: running sequences up to which the limits hold; what a router may put on one endpoint.
        running: mean running sequences at the largest load.
        requests_per_second: the largest load.
        seconds_per_input_token, seconds_per_output_token: replica-seconds that a token takes at that load.
        limit: what binds: ``itl``, ``ttft``, ``e2e``, ``kv`` or ``sequences``.
        reason: why it isn't feasible, with numbers; empty when it is.
    """

    feasible: bool
    sequences: float
    running: float
    requests_per_second: float
    seconds_per_input_token: float
    seconds_per_output_token: float
    limit: str
    reason: str = ""

    @property
    def seconds_per_request(self) -> float:
        """Replica-seconds that one request takes."""
        return 1.0 / self.requests_per_second


@dataclass(frozen=True, slots=True)
class _Load:
    """The replica at one arrival rate: running sequences and seconds, each at its tail where it has one."""

    running: float
    running_tail: float
    running_most: float
    itl_tail: float
    ttft_tail: float
    e2e_tail: float


def limits(*slos: LatencySlo | None) -> Limits:
    """The strictest of several promises, part by part; the tail is the largest attainment, at least 95 %.

    Raises:
        units.UnitError: if a duration of an unchecked object is malformed.
    """
    given = [slo for slo in slos if slo is not None]

    def strictest(part: str) -> float | None:
        percentiles = [getattr(slo, part) for slo in given]
        return min((units.duration_seconds(found.p95) for found in percentiles if found is not None), default=None)

    attainment = max((units.ratio(slo.attainment) for slo in given), default=0.95)
    return Limits(strictest("ttft"), strictest("itl"), strictest("e2e"), min(0.999, max(0.95, attainment)))


def best_achievable(profile: Profile, mix: Mix, quantile: float = 0.95) -> Limits:
    """The latencies of a replica that serves one request at a time: no SLO below them can ever be met."""
    load = _load(profile, replace(mix, burstiness=1.0), 0.0, quantile)
    return Limits(load.ttft_tail, load.itl_tail, load.e2e_tail, quantile)


@functools.lru_cache(maxsize=8192)
def admissible_load(profile: Profile, mix: Mix, limits: Limits) -> Capacity:
    """The largest load of this mix that one replica carries within the limits.

    Never raises for finite, positive input; profile and mix values at or below zero count as tiny. Equal
    questions are answered from memory: fleets ask the same ones every cycle.
    """
    mix = replace(
        mix,
        input_tokens=max(1.0, mix.input_tokens),
        output_tokens=max(1.0, mix.output_tokens),
        cached_ratio=min(1.0, mix.cached_ratio),
    )
    reason = _infeasible(profile, mix, limits)
    aim = _relaxed(profile, mix, limits) if reason else limits
    low, high = _largest(profile, mix, aim)
    if mix.burstiness > max(1.0, mix.replicas):
        low = max(low, LEFT_BY_BURSTS * _largest(profile, replace(mix, burstiness=1.0), aim)[0])
    rate = max(low, 1e-9)
    load = _load(profile, mix, rate, limits.quantile)
    prefill_seconds = 1.0 / profile.prefill_tokens_per_second
    limit = _violated(profile, mix, aim, high) or "sequences"
    decode_seconds = max(0.0, 1.0 / rate - _uncached(mix) * prefill_seconds) / mix.output_tokens
    return Capacity(
        feasible=not reason,
        sequences=max(1.0, load.running_most if limit in {"kv", "sequences"} else load.running_tail),
        running=load.running,
        requests_per_second=rate,
        seconds_per_input_token=prefill_seconds,
        seconds_per_output_token=decode_seconds,
        limit=limit,
        reason=reason,
    )


def _largest(profile: Profile, mix: Mix, limits: Limits) -> tuple[float, float]:
    """The largest load at which all conditions hold, and one just above it."""
    # Above the first bound the queue is unstable; above the second more than the slots would be running.
    stable = 1.0 / (_slope(profile) * mix.output_tokens + _uncached(mix) / profile.prefill_tokens_per_second)
    slots = profile.max_sequences / (mix.output_tokens * max(profile.itl_base_seconds, _slope(profile)))
    low, high = 0.0, min(stable, slots)
    for _ in range(20):  # halves a relative gap of 1 to 1e-6
        middle = (low + high) / 2
        low, high = (low, middle) if _violated(profile, mix, limits, middle) else (middle, high)
    return low, high


def _uncached(mix: Mix) -> float:
    return mix.input_tokens * (1.0 - max(0.0, mix.cached_ratio))


def _slope(profile: Profile) -> float:
    """``b``, kept above zero so that r = a/b stays finite: 0.1 µs is below what can be measured."""
    return max(profile.itl_per_sequence_seconds, 1e-7)


def _length_tail(quantile: float) -> float:
    """Ratio of an exponential's quantile to its mean: 3.0 at 95 %, 4.6 at 99 %."""
    return math.log(1.0 / (1.0 - quantile))


@functools.lru_cache(maxsize=64)
def _normal_tail(quantile: float) -> float:
    """Standard deviations above the mean: 1.64 at 95 %, 2.33 at 99 %."""
    return statistics.NormalDist().inv_cdf(quantile)


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """How uneven the arrivals at one engine of a pool are.

    Attributes:
        own: squared coefficient of variation of the intervals between them.
        prompts: the same, as the queue for prefill feels it.
        pooled: by how much the variance of the running sequences differs from a lone engine's with Poisson arrivals.
        followers: requests of its own burst that come after one to its engine, on average.
    """

    own: float
    prompts: float
    pooled: float
    followers: float


@functools.lru_cache(maxsize=1024)
def _arrivals(burstiness: float, replicas: float) -> _Arrivals:
    """What bursts and sharing do to one engine."""
    burstiness, replicas = max(0.0, burstiness), max(1.0, replicas)
    own = max(LEAST_BURSTINESS, burstiness / replicas)
    prompts = max(LEAST_BURSTINESS, (burstiness + UNEVEN_PROMPTS * (replicas - 1.0)) / replicas)
    return _Arrivals(own, prompts, (1.0 + burstiness) / 2.0 / replicas, max(0.0, own - 1.0) / 2.0)


def _busy_on_arrival(load: float, burstiness: float) -> float:
    """Probability that an arrival finds a GI/M/1 queue busy, for Gamma intervals; below 1.

    The root of ``s = (1 + c²·(1 - s)/load)^(-1/c²)`` by Newton's method from the left: the right side is convex.
    """
    load = min(load, 1.0 - 1e-9)
    if burstiness == 1.0 or load <= 0:
        return max(0.0, load)
    found = 0.0
    for _ in range(8):
        inner = 1.0 + burstiness * (1.0 - found) / load
        value = inner ** (-1.0 / burstiness)
        gap = 1.0 - value / (inner * load)
        if gap <= 0:
            break
        found = min(found + (value - found) / gap, 1.0 - 1e-9)
    return max(found, 0.0)


def _load(profile: Profile, mix: Mix, rate: float, quantile: float) -> _Load:
    """The state of the replica at an arrival rate below its stability limit; at rate 0, of a lone request."""
    slope, arrivals = _slope(profile), _arrivals(mix.burstiness, mix.replicas)
    prefill = _uncached(mix) / profile.prefill_tokens_per_second
    stretch = 1.0 / (1.0 - min(rate * prefill, 1.0 - 1e-12))
    p = min(slope * rate * mix.output_tokens * stretch, 1.0 - 1e-12)
    running = (profile.itl_base_seconds / slope + 1.0) * p / (1.0 - p)
    deviation = math.sqrt(running / (1.0 - p) * arrivals.pooled)
    followers = min(arrivals.followers, running)
    step = profile.itl_base_seconds + slope * max(1.0, running)
    itl = step * stretch
    rare = (1.0 - quantile) / 0.05
    short = mix.output_tokens / (SHORT_OUTPUTS * (1.0 + SHORT_TOKENS / mix.output_tokens)) * rare**SHORTER
    prompts = prefill * math.sqrt((1.0 + arrivals.own) * rate * itl / short)
    burst = slope * followers * stretch + prefill * followers / max(1.0, short * rare)
    normal, tail = _normal_tail(quantile), _length_tail(quantile)
    spread = math.hypot(slope * deviation * stretch, prompts)
    skewed = normal + (normal * normal - 1.0) / 3.0 * min(1.0, spread / itl)
    itl_tail = itl + burst + skewed * spread
    most = running + max(normal, _normal_tail(ALMOST_ALL)) * deviation
    longest = step + slope * (most - running + followers) + CHUNK_TOKENS / profile.prefill_tokens_per_second
    service = prefill + step * _uncached(mix) / CHUNK_TOKENS
    sojourn = service / (1.0 - _busy_on_arrival(rate * service, arrivals.prompts))
    decoding = mix.output_tokens * (itl + slope * followers * stretch) + prefill * followers
    return _Load(
        running,
        running + normal * deviation,
        most,
        min(itl_tail, longest) if rate * prefill < 1.0 else itl_tail,
        tail * sojourn + 2.0 * step,
        sojourn + decoding + (tail - 1.0) * math.hypot(sojourn, decoding) + 2.0 * step,
    )


def _violated(profile: Profile, mix: Mix, limits: Limits, rate: float) -> str:
    """Name of the first condition that fails at this rate; empty if all hold."""
    load = _load(profile, mix, rate, limits.quantile)
    found = {
        "sequences": (load.running_most, float(profile.max_sequences)),
        "kv": (load.running_most, profile.kv_tokens / (mix.input_tokens + mix.output_tokens)),
        "itl": (load.itl_tail, limits.itl_seconds),
        "ttft": (load.ttft_tail, limits.ttft_seconds),
        "e2e": (load.e2e_tail, limits.e2e_seconds),
    }
    return next((name for name, (value, limit) in found.items() if limit is not None and value > limit), "")


def _infeasible(profile: Profile, mix: Mix, limits: Limits) -> str:
    """Why even a lone request misses the limits; empty if it meets them."""
    best = best_achievable(profile, mix, limits.quantile)
    for name, unit in (("itl", "inter-token latency"), ("ttft", "time to first token"), ("e2e", "total time")):
        limit, least = getattr(limits, f"{name}_seconds"), getattr(best, f"{name}_seconds")
        if limit is not None and least is not None and least > limit:
            return (
                f"{unit} of {units.format_duration(limit)} can't be met: a lone request of {mix.input_tokens:.0f} "
                f"in and {mix.output_tokens:.0f} out tokens takes {units.format_duration(round(least, 3))} at the "
                f"{limits.quantile:.0%} tail"
            )
    return ""


def _relaxed(profile: Profile, mix: Mix, limits: Limits) -> Limits:
    """The limits with each one that can't be met put at 1.5 times the best achievable."""
    best = best_achievable(profile, mix, limits.quantile)

    def relax(limit: float | None, least: float | None) -> float | None:
        return limit if limit is None or least is None else max(limit, 1.5 * least)

    return Limits(
        relax(limits.ttft_seconds, best.ttft_seconds),
        relax(limits.itl_seconds, best.itl_seconds),
        relax(limits.e2e_seconds, best.e2e_seconds),
        limits.quantile,
    )
