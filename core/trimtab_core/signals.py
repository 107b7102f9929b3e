"""Signals: measured numbers that know how old they are.

A bare float can't say "nobody measured this", and reading a gap as zero is the most repeated fault of
autoscalers. So every measured number is ``Fresh``, ``Stale`` or ``Missing``, and code must choose what
to do with each. NaN, infinity and negative numbers never get past ``read``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fresh:
    """A number recent enough to act on in both directions."""

    value: float
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Stale:
    """An old number: reason enough to hold or to add capacity, never to remove any."""

    value: float
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Missing:
    """No number at all, and why."""

    reason: str


Signal = Fresh | Stale | Missing


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement as an observer delivers it.

    Attributes:
        value: the number, possibly NaN (observers don't judge).
        observed_at: when it was true, in epoch seconds.
    """

    value: float
    observed_at: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a measurement counts.

    Attributes:
        fresh_seconds: up to this age it is fresh.
        stale_seconds: up to this age it is stale; beyond, it is missing.
    """

    fresh_seconds: float = 45.0
    stale_seconds: float = 300.0


def read(sample: Sample | None, now: float, freshness: Freshness) -> Signal:
    """Judge one sample. A sample from the future (clock skew) has age zero."""
    if sample is None:
        return Missing("no sample")
    if not math.isfinite(sample.value) or sample.value < 0:
        return Missing(f"unusable value {sample.value}")
    age = max(0.0, now - sample.observed_at)
    if age <= freshness.fresh_seconds:
        return Fresh(sample.value, age)
    if age <= freshness.stale_seconds:
        return Stale(sample.value, age)
    return Missing(f"last sample is {age:.0f} s old")


def known(signal: Signal) -> float | None:
    """The number if there is one, fresh or stale; None if missing."""
    return None if isinstance(signal, Missing) else signal.value


def sound(signal: Signal) -> float | None:
    """The number if it can be computed with; None if it is missing, or was made without ``read`` and is none."""
    value = known(signal)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def fresh(signal: Signal) -> float | None:
    """The number only if it is fresh."""
    return signal.value if isinstance(signal, Fresh) else None


def combine(signals: Iterable[Signal], with_: Callable[[list[float]], float]) -> Signal:
    """Combine several signals into one that is as good as its worst part.

    The age is that of the oldest part. No parts at all, or one missing part, give ``Missing``.
    """
    values: list[float] = []
    age, stale = 0.0, False
    for signal in signals:
        if isinstance(signal, Missing):
            return signal
        values.append(signal.value)
        age, stale = max(age, signal.age_seconds), stale or isinstance(signal, Stale)
    if not values:
        return Missing("no parts")
    result = with_(values)
    if not math.isfinite(result) or result < 0:
        return Missing(f"unusable result {result}")
    return Stale(result, age) if stale else Fresh(result, age)


def total(signals: Iterable[Signal]) -> Signal:
    """The sum, as good as its worst part."""
    return combine(signals, sum)


def divide(numerator: Signal, denominator: Signal) -> Signal:
    """The quotient; missing where the denominator is zero."""
    if known(denominator) == 0:
        return Missing("nothing to divide by")
    return combine((numerator, denominator), lambda parts: parts[0] / parts[1])
