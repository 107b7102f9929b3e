"""The workload: requests with their arrival times, and what can be done to a whole trace of them.

A trace gives times and lengths; ``prompts`` adds what a router can tell requests apart by. All transformations take
their randomness as an argument, so that equal seeds give equal traces. Must not know about files or formats.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

SECONDS_PER_MINUTE = 60.0
JITTER_SECONDS = 5.0
"""Copies of a request made by ``resample`` lie at most this far from it, in seconds of the trace: far enough that
copies are not a burst of their own, near enough that bursts of the trace remain (they are told apart at 10 s)."""
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
    """

    number: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    difficulty: float = 0.0
    sensitive: bool = False
    prompt: int = -1

    @property
    def tokens(self) -> int:
        """Input and output together: what the KV cache must hold in the end."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, and where they come from.

    Attributes:
        source: for people, such as a file name, with every change made to it.
    """

    requests: tuple[Request, ...]
    source: str

    @property
    def duration_s(self) -> float:
        """Time of the last arrival."""
        return self.requests[-1].arrival_s if self.requests else 0.0

    @property
    def mean_rps(self) -> float:
        """Mean arrivals per second; 0 for a trace without extent."""
        return len(self.requests) / self.duration_s if self.duration_s > 0 else 0.0

    def peak_rps(self, window_s: float) -> float:
        """Most arrivals in any window of that length that begins with an arrival, per second."""
        times = [request.arrival_s for request in self.requests]
        most = max((bisect.bisect_left(times, start + window_s) - at for at, start in enumerate(times)), default=0)
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
