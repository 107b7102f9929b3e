"""The workload: requests with their arrival times, and what can be done to a whole trace of them.

A trace gives times and lengths; ``prompts`` adds what a router can tell requests apart by. All transformations take
their randomness as an argument, so that equal seeds give equal traces. Must not know about files or formats.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SECONDS_PER_MINUTE = 60.0
JITTER_SECONDS = 5.0
"""Copies of a request made by ``resample`` lie at most this far from it, in seconds of the trace: far enough that
copies are not a burst of their own, near enough that bursts of the trace remain (they are told apart at 10 s)."""
PEAK_WINDOW_SECONDS = 60.0
"""The window whose peak a trace knows without another pass."""
SAMPLE = 100_000
"""A trace's sample is at most that long."""
_TIED_SHARE = 0.2
"""From this share of equal neighbouring times on, the clock of the trace is taken to be coarse."""


class TraceError(ValueError):
    """A trace that can't be used; the message names the file and line, what was found and what is expected."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the workload.

    Attributes:
        number: position in the trace, from 0.
        arrival_s: seconds since the start of the trace.
        input_tokens, output_tokens: lengths, at least 1.
        difficulty: how much the prompt asks of a model, 0 to 1; synthetic, see ``prompts``.
        sensitive: the prompt holds (made-up) personal data.
        prompt: requests of equal ``prompt`` have equal texts.
        cached_tokens: input tokens that the prefix cache of a warm engine holds, as of an earlier turn.
    """

    number: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    difficulty: float = 0.0
    sensitive: bool = False
    prompt: int = -1
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together: what the KV cache must hold in the end."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Facts:
    """What one pass over a trace tells.

    Attributes:
        count: requests.
        duration_s: time of the last arrival.
        input_tokens, output_tokens: of all requests together.
        peak: most arrivals in any ``PEAK_WINDOW_SECONDS`` that begin with an arrival.
        sample: every n-th request, all of them in a trace of up to ``SAMPLE`` requests.
    """

    count: int
    duration_s: float
    input_tokens: int
    output_tokens: int
    peak: int
    sample: tuple[Request, ...]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Facts:
        """Those of requests in order of arrival."""
        count = input_tokens = output_tokens = peak = 0
        duration_s, stride = 0.0, 1
        recent: deque[float] = deque()
        sample: list[Request] = []
        for count, request in enumerate(requests, start=1):
            duration_s = request.arrival_s
            input_tokens += request.input_tokens
            output_tokens += request.output_tokens
            recent.append(duration_s)
            while recent[0] + PEAK_WINDOW_SECONDS <= duration_s:
                recent.popleft()
            peak = max(peak, len(recent))
            if (count - 1) % stride == 0:
                sample.append(request)
                if len(sample) > SAMPLE:
                    stride, sample = 2 * stride, sample[::2]
        return cls(count, duration_s, input_tokens, output_tokens, peak, tuple(sample))


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival, and where they come from.

    Attributes:
        origin: the requests: a tuple, or anything else that gives the same ones each time it is iterated over. A trace
            of weeks makes its requests anew each time, since it would not fit into memory. It must be picklable.
        source: for people, such as a file name, with every change made to it.
    """

    origin: Iterable[Request]
    source: str

    def __iter__(self) -> Iterator[Request]:
        """The requests, one after the other."""
        return iter(self.origin)

    def __len__(self) -> int:
        """How many requests there are."""
        return len(self.origin) if isinstance(self.origin, tuple) else self.facts.count

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests at once: for traces that fit into memory."""
        return self.origin if isinstance(self.origin, tuple) else tuple(self.origin)

    @functools.cached_property
    def facts(self) -> Facts:
        """What one pass tells; made at the first question and kept."""
        return Facts.of(self.origin)

    @property
    def duration_s(self) -> float:
        """Time of the last arrival."""
        return self.facts.duration_s

    @property
    def mean_rps(self) -> float:
        """Mean arrivals per second; 0 for a trace without extent."""
        return self.facts.count / self.facts.duration_s if self.facts.duration_s > 0 else 0.0

    @property
    def mean_input_tokens(self) -> float:
        """Mean length of the prompts; 0 without requests."""
        return self.facts.input_tokens / max(self.facts.count, 1)

    @property
    def mean_output_tokens(self) -> float:
        """Mean length of the answers; 0 without requests."""
        return self.facts.output_tokens / max(self.facts.count, 1)

    def peak_rps(self, window_s: float) -> float:
        """Most arrivals in any window of that length that begins with an arrival, per second.

        Costs a pass over the trace for windows other than ``PEAK_WINDOW_SECONDS``.
        """
        if window_s == PEAK_WINDOW_SECONDS:
            return self.facts.peak / window_s
        most, recent = 0, deque[float]()
        for request in self:
            recent.append(request.arrival_s)
            while recent[0] + window_s <= request.arrival_s:
                recent.popleft()
            most = max(most, len(recent))
        return most / window_s


def number(requests: Iterable[Request]) -> tuple[Request, ...]:
    """Sorted by arrival, equal times in their order, and numbered from 0; one without a prompt gets its own."""
    ordered = sorted(requests, key=lambda request: request.arrival_s)
    return tuple(
        dataclasses.replace(request, number=at, prompt=request.prompt if request.prompt >= 0 else at)
        for at, request in enumerate(ordered)
    )


def cut(requests: Iterable[Request], *, until_s: float) -> list[Request]:
    """The requests that arrive before ``until_s``."""
    return [request for request in requests if request.arrival_s < until_s]


def compress(requests: Iterable[Request], *, speed: float) -> list[Request]:
    """The same requests in a time that runs ``speed`` times faster."""
    return [dataclasses.replace(request, arrival_s=request.arrival_s / speed) for request in requests]


def spread_ties(requests: list[Request], rng: random.Random) -> list[Request]:
    """Undo a coarse clock: requests of one tick are spread evenly at random until the next tick.

    Some traces are published in ticks of seconds; replayed as they are, each tick would be a burst that never was.
    A trace with few equal times is left alone.
    """
    times = [request.arrival_s for request in requests]
    ties = sum(1 for before, after in itertools.pairwise(times) if before == after)
    if ties < _TIED_SHARE * len(times):
        return requests
    distinct = sorted(set(times))
    gaps = [after - before for before, after in itertools.pairwise(distinct)]
    tick = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    spread = [dataclasses.replace(request, arrival_s=request.arrival_s + rng.random() * tick) for request in requests]
    return sorted(spread, key=lambda request: request.arrival_s)


def resample(requests: list[Request], *, scale: float, rng: random.Random) -> list[Request]:
    """``scale`` times the rate, with the shape kept.

    Each request stays as its own first copy, or is kept with probability ``scale`` if that is below 1. Further copies
    are moved by up to ``JITTER_SECONDS`` either way and take their lengths from a random neighbour in the trace, so
    that a long request does not become many long requests at once.
    """
    if scale == 1.0 or not requests:
        return requests
    end, result = requests[-1].arrival_s, []
    for at, request in enumerate(requests):
        copies = math.floor(scale) + (rng.random() < scale - math.floor(scale))
        for copy in range(copies):
            if copy == 0:
                result.append(request)
                continue
            donor = requests[min(max(at + rng.randint(-50, 50), 0), len(requests) - 1)]
            moved = _reflect(request.arrival_s + rng.uniform(-JITTER_SECONDS, JITTER_SECONDS), end)
            result.append(dataclasses.replace(donor, arrival_s=moved))
    return sorted(result, key=lambda request: request.arrival_s)


def _reflect(time_s: float, end_s: float) -> float:
    """A time folded back into 0 to ``end_s`` at its edges."""
    folded = -time_s if time_s < 0 else time_s
    return max(0.0, 2 * end_s - folded) if folded > end_s else folded
