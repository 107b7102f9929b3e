"""Arrivals as they reach the routers: the trace with its outages and flash crowds, and the prologue before it.

Requests are made one after the other, so that a trace of weeks needs no memory. Knows nothing of routers.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trimtab_sim import faults
from trimtab_sim.workload import Request, Trace

_LAP_PROMPTS = 6 * 10**9
_CROWD_PROMPTS = 6 * 10**15
"""Far beyond what traces number, and multiples of all that prompts are told apart by: the same kind, another text."""
_JITTER_SECONDS = 1.0
"""Copies made by a flash crowd lie at most this far behind the request that they are copies of."""


@dataclass(frozen=True, slots=True)
class _Troubled:
    """A trace with outages and flash crowds, made anew for each pass."""

    trace: Trace
    outages: Sequence[faults.Period]
    crowds: Sequence[faults.FlashCrowd]
    seed: int

    def __iter__(self) -> Iterator[Request]:
        rng = random.Random(f"crowd {self.seed}")
        later: list[tuple[float, int, Request]] = []  # copies that are not due yet
        made = itertools.count(1)
        for request in self.trace:
            while later and later[0][0] <= request.arrival_s:
                yield heapq.heappop(later)[2]
            if any(outage.holds(request.arrival_s) for outage in self.outages):
                continue
            yield request
            for _ in range(self._copies(request, rng)):
                number = next(made)
                at = request.arrival_s + rng.random() * _JITTER_SECONDS
                copy = dataclasses.replace(request, arrival_s=at, prompt=request.prompt + number * _CROWD_PROMPTS)
                heapq.heappush(later, (at, number, copy))
        while later:
            yield heapq.heappop(later)[2]

    def _copies(self, request: Request, rng: random.Random) -> int:
        """How many more of its kind arrive."""
        factor = math.prod(crowd.factor for crowd in self.crowds if crowd.holds(request.arrival_s))
        more = factor - 1
        return math.floor(more) + (rng.random() < more - math.floor(more))


def offered(trace: Trace, troubles: faults.Faults, seed: int) -> Trace:
    """The trace as it arrives; the trace itself where nothing happens to arrivals.

    Copies that a flash crowd makes ask another question of the same kind and length within a second.
    """
    if not (troubles.outage or troubles.flash_crowd):
        return trace
    told = "; ".join(
        f"{name} {_span(period)}"
        for name, periods in (("outage", troubles.outage), ("flash crowd", troubles.flash_crowd))
        for period in periods
    )
    return Trace(_Troubled(trace, troubles.outage, troubles.flash_crowd, seed), f"{trace.source}; {told}")


def _span(period: faults.Period) -> str:
    return f"{period.begins:.0f} s to {period.ends:.0f} s"


def with_prologue(requests: Iterable[Request], prologue: float, duration: float) -> Iterator[Request]:
    """The requests, and before time 0 their beginning as often as it fits into the prologue (seconds)."""
    span = min(max(120.0, 0.05 * duration), duration, prologue) if prologue > 0 else 0.0
    if span > 0:
        beginning = list(itertools.takewhile(lambda request: request.arrival_s < span, requests))
        for lap in range(math.ceil(prologue / span), 0, -1):
            for request in beginning:
                arrival_s = request.arrival_s - lap * span
                if arrival_s >= -prologue:  # another text, or the laps would fill the cache for the trace
                    prompt = request.prompt + lap * _LAP_PROMPTS
                    yield dataclasses.replace(request, arrival_s=arrival_s, prompt=prompt)
    yield from requests
