"""Ways to say what a rate will be one horizon later. Each takes the past and gives its word at every sample of it.

All of them walk the samples once, oldest first, and look at nothing that comes later; so their past words can be held
against what came. Steps may be uneven. Pure; must not know which of them is believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimtab_core.season import Season, Shape

Sample = tuple[float, float]
"""Epoch seconds, arrivals per second."""

LAST, LEVEL, MEAN, TREND, DAILY, WEEKLY = "last value", "level", "mean", "trend", "daily season", "weekly season"
LEVEL_SECONDS = 60.0
"""Time constant of the level: two thirds of it are younger than a minute."""
MEAN_SECONDS = 600.0
"""Time constant of the mean, for traffic that comes in bursts around a rate that stays."""
TREND_LEVEL_SECONDS = 90.0
TREND_SECONDS = 400.0
"""Time constants of the trend's level and slope; the slope is slower, or noise would be read as a ramp."""
DAMPING_SECONDS = 700.0
"""A slope is believed to last this long: its effect never exceeds slope × this time."""
SEASON_FACTOR = 2.0
"""A season may at most double or halve the level within one horizon; steeper shapes are artefacts of thin bins."""


def all_of(samples: Sequence[Sample], horizon_seconds: float, season: Season | None) -> Mapping[str, list[float]]:
    """By method, the word given at each sample for ``horizon_seconds`` later; the last value comes first.

    Args:
        samples: finite, non-negative, in rising order of time, at least one.
        horizon_seconds: how far ahead.
        season: what earlier days and weeks looked like, if known.
    """
    level = average(samples, LEVEL_SECONDS)
    found = {
        LAST: [value for _, value in samples],
        LEVEL: level,
        MEAN: average(samples, MEAN_SECONDS),
        TREND: damped_trend(samples, horizon_seconds),
    }
    if season is not None:
        for name, shape in ((DAILY, season.day), (WEEKLY, season.week)):
            if shape is not None and shape.covers(samples[-1][0] + horizon_seconds):
                found[name] = seasonal(samples, level, horizon_seconds, shape)
    return found


def average(samples: Sequence[Sample], memory_seconds: float) -> list[float]:
    """The mean of what came so far, with weights that fall by 63 % in ``memory_seconds``; early on, the plain mean."""
    before, mean = samples[0]
    weight, elapsed, kept = 0.0, -1.0, 1.0
    means: list[float] = []
    for at, value in samples:
        if at - before != elapsed:  # steps are mostly even: the exponential is worked out once
            elapsed = at - before
            kept = math.exp(-elapsed / memory_seconds)
        before = at
        weight = weight * kept + 1.0
        mean += (value - mean) / weight
        means.append(mean)
    return means


def damped_trend(samples: Sequence[Sample], horizon_seconds: float) -> list[float]:
    """Holt's linear trend, damped (E. S. Gardner, E. McKenzie, *Forecasting trends in time series*, 1985)."""
    before, level = samples[0]
    slope, elapsed, reach = 0.0, 0.0, _damped(horizon_seconds)
    step = level_gain = slope_gain = kept = 0.0
    words: list[float] = []
    for at, value in samples:
        if at > before:
            if at - before != elapsed:
                elapsed = at - before
                step = _damped(elapsed)
                level_gain = 1.0 - math.exp(-elapsed / TREND_LEVEL_SECONDS)
                slope_gain = 1.0 - math.exp(-elapsed / TREND_SECONDS)
                kept = math.exp(-elapsed / DAMPING_SECONDS)
            expected, last = level + slope * step, level
            level = expected + level_gain * (value - expected)
            slope *= kept
            slope += slope_gain * ((level - last) / elapsed - slope)
            before = at
        words.append(max(0.0, level + slope * reach))
    return words


def seasonal(samples: Sequence[Sample], level: Sequence[float], horizon_seconds: float, shape: Shape) -> list[float]:
    """The level times the season's ratio between the two moments; the level alone where the season has a gap."""
    words = []
    for (at, _), here in zip(samples, level, strict=True):
        # The level is as old as its time constant.
        now, then = shape.at(at - LEVEL_SECONDS), shape.at(at + horizon_seconds)
        ratio = 1.0 if now is None or then is None else (then + shape.floor) / (now + shape.floor)
        words.append(here * min(SEASON_FACTOR, max(1.0 / SEASON_FACTOR, ratio)))
    return words


def _damped(seconds: float) -> float:
    """Seconds over which a slope counts: the integral of its exponential decay."""
    return DAMPING_SECONDS * (1.0 - math.exp(-seconds / DAMPING_SECONDS))
