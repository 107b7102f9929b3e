"""How many requests will arrive one start-up time ahead: a forecast that knows how wrong it has been.

Several methods walk over the history side by side (``forecasters``). At each past sample each is asked for the value
one horizon later and scored when that value is known. Each word counts two thirds and the last value one: the
mean of two forecasts mostly errs less than either (J. M. Bates, C. W. J. Granger, *The combination of forecasts*,
1969). The one whose recent absolute error is the smallest is taken, if it beats the last value by more than luck may.

The upper value adds the quantile of the errors that this forecast really made at that horizon, whatever their
distribution, joined by the change that is usual in so much time, and never less than the counting noise of arrivals
that are as bunched as they are. A present value beyond nearly all errors of a method means that it no longer holds: the
last value does. Outages are left out of all of it (``outages``). Measured on public traces in
``docs/decisions/0009-forecasts.md``. Pure; unusable samples (NaN, negative, out of order) are dropped.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core import forecasters, outages
from trimtab_core.forecasters import Sample
from trimtab_core.season import Season

MEMORY_SECONDS = 7200.0
"""Errors are never learned from longer ago."""
LEAST_MEMORY_SECONDS = 1800.0
MEMORY_HORIZONS = 16.0
"""Errors are learned from the last 16 horizons, within the two bounds above."""
LONGEST_STEP_SECONDS = 60.0
"""Rates are means over a minute: samples further apart than that would leave arrivals out."""
STEPS_PER_HORIZON = 8.0
SCORES_NEEDED = 4
"""Past forecasts that must have been scored before their error is trusted."""
ADVANTAGE = 1.0
"""Over this many divided by the independent past errors, as a share, a method must beat the last value: 20 % better
while there are 5 of them, 2 % with 50. Fewer tell luck from skill badly."""
UNFORESEEN = 0.95
"""A present value beyond this quantile of a method's errors is nothing that it saw coming: the last value is taken."""
COUNTING_SECONDS = 60.0
"""Window over which observers count arrivals; the counting noise of a rate λ is sqrt(λ / window)."""
SCALE_FLOOR = 2.0
"""Errors are relative to this many times the usual level, or to the forecast where that is more.

On public traces margins that only grow with the forecast once it is far above the usual level cost 6 to 12 % less
(pinball loss) than margins in proportion to it: after a pause the latter have nothing to be in proportion to.
"""
PRIOR_SPREAD = 0.16
"""Standard deviation of the change in 10 minutes on the wider of the public traces; a season knows its own."""
PRIOR_SECONDS = 600.0
PRIOR_WEIGHT = 3.0
"""Independent past errors that the prior counts for."""
OUTAGE = "outage"
"""Method of a forecast made while traffic has vanished at once."""
HELD_SECONDS = 600.0
"""So long after traffic has vanished at once, what it was before is still carried."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Arrivals per second at the horizon.

    Attributes:
        mean: expected.
        upper: not exceeded with the asked probability; at least ``mean``.
        method: of ``forecasters``, or ``OUTAGE``, or ``none`` without any sample.
        error: weighted mean absolute error of the forecast at this horizon on the history, requests per second.
        scored: number of past forecasts behind the error.
        error_ratio: the error over the mean of what came.
        last_error_ratio: the same of the last value, to compare.
    """

    mean: float
    upper: float
    method: str
    error: float = 0.0
    scored: int = 0
    error_ratio: float = 0.0
    last_error_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class _Past:
    """What past forecasts are held against.

    Attributes:
        samples: the history without outages.
        pairs: (index of the sample when it was made, index of the sample that it was for, weight), oldest first.
        effective: number of independent errors that these are worth: overlapping ones repeat each other.
        level: weighted mean of what came, arrivals per second.
    """

    samples: list[Sample]
    pairs: list[tuple[int, int, float]]
    effective: float
    level: float

    def error(self, words: Sequence[float]) -> float:
        """Weighted mean absolute error."""
        total = sum(weight * abs(words[made] - self.samples[due][1]) for made, due, weight in self.pairs)
        return total / sum(weight for *_, weight in self.pairs)

    def scale(self, word: float) -> float:
        """What an error of a forecast is relative to."""
        return max(word, SCALE_FLOOR * self.level)

    def tail(self, words: Sequence[float], quantile: float) -> float:
        """The quantile of the relative errors."""
        found = sorted(
            ((self.samples[due][1] - words[made]) / (self.scale(words[made]) or 1.0), weight)
            for made, due, weight in self.pairs
        )
        left = quantile * sum(weight for _, weight in found)
        for error, weight in found:
            left -= weight
            if left <= 0:
                return error
        return found[-1][0]


def forecast(
    history: Sequence[Sample],
    horizon_seconds: float,
    now: float,
    *,
    quantile: float = 0.95,
    season: Season | None = None,
    dispersion: float = 1.0,
) -> Forecast:
    """Arrivals per second ``horizon_seconds`` after ``now``.

    Args:
        history: past arrivals, oldest first, the present one last; samples after ``now`` are ignored.
        horizon_seconds: one start-up time; zero asks for the present.
        now: epoch seconds.
        quantile: probability with which ``upper`` is not exceeded, at least 0.5 and below 1.
        season: what earlier days and weeks looked like.
        dispersion: variance of arrival counts over their mean; 1 is Poisson.
    """
    horizon = max(horizon_seconds, 1.0)
    seen = _usable(history, now, horizon)
    if not seen:
        return Forecast(0.0, 0.0, "none")
    quantile = min(max(quantile, 0.5), 0.9999)
    holes = outages.find(seen)
    last_at, last = seen[-1]
    out = next((hole for hole in holes if hole.holds(last_at)), None)
    samples = [sample for sample in seen if not any(hole.holds(sample[0]) for hole in holes)]
    if not samples or (out is not None and out.end == math.inf and now - out.start > HELD_SECONDS):
        samples, out = seen, None
    found = _best(samples, horizon, quantile=quantile, season=season, dispersion=dispersion)
    if out is not None:
        return Forecast(
            last,
            max(last + found.upper - found.mean, found.upper),
            OUTAGE,
            found.error,
            found.scored,
            found.error_ratio,
        )
    return found


def _best(
    samples: list[Sample], horizon: float, *, quantile: float, season: Season | None, dispersion: float
) -> Forecast:
    """The forecast of the method that did best, with its upper value."""
    asked = forecasters.all_of(samples, horizon, season)
    last = asked[forecasters.LAST]
    words = {
        name: [(2.0 * one + other) / 3.0 for one, other in zip(word, last, strict=True)] for name, word in asked.items()
    }
    past = _past(samples, horizon)
    change = PRIOR_SPREAD if season is None or season.change is None else season.change

    def upper(word: Sequence[float], quantile: float = quantile) -> float:
        tail = statistics.NormalDist().inv_cdf(quantile)
        spread = tail * change * math.sqrt(horizon / PRIOR_SECONDS)
        known = past.tail(word, quantile) if past.pairs else spread
        relative = (past.effective * known + PRIOR_WEIGHT * spread) / (past.effective + PRIOR_WEIGHT)
        noise = tail * math.sqrt(max(1.0, dispersion) * max(word[-1], last[-1]) / COUNTING_SECONDS)
        return word[-1] + max(relative * past.scale(word[-1]), noise, 0.0)

    if len(past.pairs) < SCORES_NEEDED:
        return Forecast(last[-1], upper(last), forecasters.LAST)
    errors = {name: past.error(word) for name, word in words.items()}
    handicap = 1.0 - min(0.5, ADVANTAGE / max(1.0, past.effective))
    method = min(errors, key=lambda name: errors[name] * (handicap if name == forecasters.LAST else 1.0))
    if last[-1] > upper(words[method], max(quantile, UNFORESEEN)):
        method = forecasters.LAST
    word, error = words[method], errors[method]
    usual = past.level or 1.0
    by_last = errors[forecasters.LAST] / usual
    return Forecast(word[-1], upper(word), method, error, len(past.pairs), error / usual, by_last)


def _past(samples: list[Sample], horizon: float) -> _Past:
    """Every pair of samples one horizon apart, the recent ones weighing more."""
    times = [at for at, _ in samples]
    memory = _memory(horizon)
    begin = bisect.bisect_left(times, times[-1] - memory)
    pairs, made, squares = [], 0, 0.0
    for due in range(begin, len(times)):
        origin = times[due] - horizon
        while made + 1 < due and times[made + 1] <= origin:
            made += 1
        # In a gap there is nothing to forecast from.
        if times[made] <= origin and origin - times[made] <= 2.0 * LONGEST_STEP_SECONDS:
            weight = math.exp((times[due] - times[-1]) / (memory / 2.0))
            squares += weight * weight
            pairs.append((made, due, weight))
    weights = sum(weight for *_, weight in pairs)
    if not pairs:
        return _Past(samples, pairs, 0.0, samples[-1][1])
    seconds = (times[-1] - times[pairs[0][1]]) / len(pairs) if len(pairs) > 1 else horizon
    effective = weights * weights / squares * min(1.0, max(seconds, 1.0) / horizon)
    level = sum(weight * samples[due][1] for _, due, weight in pairs) / weights
    return _Past(samples, pairs, effective, level)


def _usable(history: Sequence[Sample], now: float, horizon: float) -> list[Sample]:
    """Finite, non-negative samples up to now in rising order of time, as far back and as close as they are needed."""
    rising: list[Sample] = []
    for at, value in history:
        # No number compares as true with NaN.
        if value >= 0 and at <= now and (not rising or at > rising[-1][0]) and value < math.inf and at > -math.inf:
            rising.append((at, value))
    step = min(LONGEST_STEP_SECONDS, horizon / STEPS_PER_HORIZON) * (1.0 - 1e-6)
    reach = _memory(horizon) + horizon + 2.0 * forecasters.MEAN_SECONDS  # the methods need a run-up
    samples: list[Sample] = []
    next_at = math.inf
    for sample in reversed(rising):
        if sample[0] <= next_at:
            if samples and samples[0][0] - sample[0] > reach:
                break
            samples.append(sample)
            next_at = sample[0] - step
    samples.reverse()
    return samples


def _memory(horizon: float) -> float:
    """Seconds of the past that errors are learned from."""
    return min(MEMORY_SECONDS, max(LEAST_MEMORY_SECONDS, MEMORY_HORIZONS * horizon))
