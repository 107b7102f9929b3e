"""Bursts that are over before replicas for them could start: what to keep ready for the next ones. Pure.

What is ordered at the sight of a burst that ends within one start-up serves when it is past; what serves the next one
must be there before. How much that should be follows from what came (the newsvendor's question). Of requests that came
``x`` per second when they were as dense as ``y`` per second, capacity for ``c`` per second leaves the share

    sum(x · min(1, late · (y/c)^p)) / sum(x),   p = ln(1/late) / ln(ALL_LATE),

late: as many as may be at the load that is carried, and all at ``ALL_LATE`` times that. Kept is the least ``c`` at
which no more are late than may be. The promise is about requests, so that a burst weighs what it brings.

How long it is kept is a matter of rent: until the next burst, unless the pause has become longer than any that must be
waited for. Pauses after which all together bring no more requests than may be late need not be: the longest are let go.
Decision records 0009 and 0013 have the numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core import surge

Sample = surge.Sample

MEMORY_SECONDS = 7200.0
"""Bursts of longer ago are forgotten: as long as the history reaches."""
FADING_SECONDS = 3600.0
"""Requests of so long ago weigh 37 %."""
ALL_LATE = 1.5
"""Multiple of the load that is carried at which all of a burst is late."""
OVER = 0.5
"""A burst is over when less than this share of its height arrives."""
PART = 0.2
"""A burst that reaches less than this share of the level needs nothing to be kept for it."""
LONGER = 2.0
"""Times the longest pause that must be waited for: where bursts come by chance, few pauses are longer than this, and
no more is ever paid for a pause that doesn't end than twice what one that did has cost."""
BELIEVED = 0.75
"""Share of bursts, with one more that stays, that must have been over before replicas for them could have served:
three of three, six of seven... What has never been seen to end is never taken to."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """What the bursts of a class tell.

    Attributes:
        passed: how many were over within a start-up.
        level: arrivals per second to keep capacity for; 0 while none is expected.
    """

    passed: int
    level: float


def of(
    history: Sequence[Sample], now: float, *, window_seconds: float, horizon_seconds: float, late: float
) -> Bursts | None:
    """The bursts of a history; None where there are none, or where what rises mostly stays.

    Args:
        history: arrivals per second as means over the window, oldest first, the present one last.
        now: epoch seconds.
        window_seconds: over which observers take rates.
        horizon_seconds: until what is ordered now serves.
        late: share of all requests that may miss their promise.
    """
    samples = _usable(history, now)
    rates = _rates(samples, window_seconds)
    onsets = _onsets(samples, rates, window_seconds)
    if not onsets:
        return None
    late = min(max(late, 1e-4), 0.5)
    level = _level(samples, rates, now, late)
    onsets = [onset for onset in onsets if onset.height >= PART * level]
    ended = [_ended(samples, onset, window_seconds, horizon_seconds) for onset in onsets]
    passed, stayed = ended.count(True), ended.count(False)
    if passed < BELIEVED * (passed + stayed + 1):
        return None
    waited = LONGER * _longest(samples, onsets, horizon_seconds, late)
    return Bursts(passed, level if now - onsets[-1].at <= waited else 0.0)


def _usable(history: Sequence[Sample], now: float) -> list[Sample]:
    """What is remembered and can be computed with, in rising order of time."""
    samples: list[Sample] = []
    for at, value in history:
        if now - MEMORY_SECONDS <= at <= now and 0 <= value < math.inf and (not samples or at > samples[-1][0]):
            samples.append((at, value))
    return samples


@dataclass(frozen=True, slots=True)
class _Onset:
    """The begin of a burst, its index among the samples, and the highest rate within a window of it."""

    at: float
    index: int
    height: float


def _rates(samples: Sequence[Sample], window: float) -> list[float]:
    """How dense arrivals were at each sample: within a burst, they are no more bunched than by chance."""
    values = [value for _, value in samples]
    found: list[float] = []
    first = 0
    for index, (at, value) in enumerate(samples):
        while samples[first][0] < at - 2.0 * window:
            first += 1
        # Asked of few: most samples are no rise at all.
        rises = index > first and value >= surge.GROWTH * min(values[first:index])
        found.append(surge.present(samples[first : index + 1], window) if rises else value)
    return found


def _onsets(samples: Sequence[Sample], rates: Sequence[float], window: float) -> list[_Onset]:
    """Where arrivals step up; what rises within one window is one burst."""
    found: list[_Onset] = []
    for index, ((at, value), rate) in enumerate(zip(samples, rates, strict=True)):
        if rate <= value:
            continue
        if found and at - found[-1].at <= window:
            found[-1] = _Onset(found[-1].at, found[-1].index, max(found[-1].height, rate))
        else:
            found.append(_Onset(at, index, rate))
    return found


def _ended(samples: Sequence[Sample], onset: _Onset, window: float, horizon: float) -> bool | None:
    """Whether the burst was over one start-up later; None where nobody knows yet."""
    first, last = onset.at + window, onset.at + max(horizon, 2.0 * window)
    after = [one for one in samples[onset.index :] if first <= one[0] <= last]
    if any(value <= OVER * onset.height for _, value in after):
        return True
    return None if samples[-1][0] < last else False


def _longest(samples: Sequence[Sample], onsets: Sequence[_Onset], horizon: float, late: float) -> float:
    """Seconds of the longest pause between bursts that must be waited for; 0 where none must."""
    spans = [(at, value * (later - at)) for (at, value), (later, _) in itertools.pairwise(samples)]
    may = late * sum(requests for _, requests in spans)
    pauses = (
        (after.at - before.at, sum(requests for at, requests in spans if after.at <= at < after.at + horizon))
        for before, after in itertools.pairwise(onsets)
    )
    for pause, requests in sorted(pauses, reverse=True):
        may -= requests
        if may < 0:
            return pause
    return 0.0


def _level(samples: Sequence[Sample], rates: Sequence[float], now: float, late: float) -> float:
    """The least capacity, in arrivals per second, with which no more requests are late than may be."""
    seen = [
        (math.exp((at - now) / FADING_SECONDS) * value, rate)
        for (at, value), rate in zip(samples, rates, strict=True)
        if value > 0
    ]
    may = late * sum(requests for requests, _ in seen)
    power = math.log(1.0 / late) / math.log(ALL_LATE)
    low, high = 0.0, max((rate for _, rate in seen), default=0.0)
    for _ in range(20):
        middle = (low + high) / 2.0
        missed = sum(requests * min(1.0, late * (rate / middle) ** power) for requests, rate in seen)
        low, high = (middle, high) if missed > may else (low, middle)
    return high
