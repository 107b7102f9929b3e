"""What a usual week looks like: mean arrivals in 10-minute bins, small enough to travel in every snapshot. Pure.

A bin is closed when its 10 minutes are over, from the samples that were seen in them; a bin of which less than half
was seen is left as it was, since missing is not zero. It is written three hours later: until then the past that
forecasts are scored on would know its own future, and what turns out to have been an outage can still be dropped.
A bin that was seen before moves half of the way to the new value, so that one strange week weighs a half and the week
after it a quarter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BIN_SECONDS = 600.0
DAY_BINS = 144
WEEK_BINS = 7 * DAY_BINS
UNKNOWN = -1.0
"""Value of a bin that was never seen; rates are never negative."""
SHARE_OF_NEW = 0.5
LEAST_SHARE_SEEN = 0.5
"""Part of a bin's time that samples must span for it to be written."""
DELAY_BINS = 18
"""Closed bins that wait: three hours, as long as the history that forecasts are scored on, and more."""
HOLE_RATIO, HOLE_BINS = 0.05, 6
"""Up to an hour below a twentieth of the bin before, and then more again, is a hole in what was kept."""
LEAST_CHANGES = 72
"""Pairs of bins from which the usual change is known: half a day."""
FLOOR_RATIO = 0.05
"""Share of the mean bin that is added to both sides of a ratio, so that empty bins give no infinite ones."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One period of bins that repeats.

    Attributes:
        bins: arrivals per second of each, ``UNKNOWN`` where never seen.
        floor: a small rate for ratios.
    """

    bins: tuple[float, ...]
    floor: float

    def at(self, moment: float) -> float | None:
        """Arrivals per second at ``moment`` (epoch seconds), between the middles of two bins; None in a gap."""
        position = moment / BIN_SECONDS - 0.5
        number = math.floor(position)
        share = position - number
        count = len(self.bins)
        before, after = self.bins[number % count], self.bins[(number + 1) % count]
        return None if before < 0 or after < 0 else before + (after - before) * share

    def covers(self, moment: float) -> bool:
        """Whether it says anything about ``moment``."""
        return self.at(moment) is not None


@dataclass(frozen=True, slots=True)
class Season:
    """The bins of the week from Thursday 00:00 UTC (where the epoch began), and the one that is being filled.

    Attributes:
        week_bins: arrivals per second, ``UNKNOWN`` where never seen.
        open_number: number of the bin that is being filled, counted from the epoch; -1 before the first sample.
        open_sum, open_count: of its samples.
        open_first, open_last: epoch seconds of its first and last sample.
        waiting: closed bins that are not written yet, by number and arrivals per second.
        week, day: the shapes to forecast by; None before a bin of yesterday or last week is known.
        change: how much a bin differs from the one before, as a share of it: one standard deviation, None while few
            are known.
    """

    week_bins: tuple[float, ...] = (UNKNOWN,) * WEEK_BINS
    open_number: int = -1
    open_sum: float = 0.0
    open_count: int = 0
    open_first: float = 0.0
    open_last: float = 0.0
    waiting: tuple[tuple[int, float], ...] = ()
    week: Shape | None = None
    day: Shape | None = None
    change: float | None = None

    def add(self, at: float, arrivals_per_second: float) -> Season:
        """The season with one more sample; one that is no number, or older than the open bin, changes nothing.

        Args:
            at: epoch seconds.
            arrivals_per_second: mean over a time that is short against a bin.
        """
        if not (math.isfinite(at) and math.isfinite(arrivals_per_second)) or arrivals_per_second < 0:
            return self
        number = int(at // BIN_SECONDS)
        if number < self.open_number:
            return self
        if number == self.open_number:
            return dataclasses.replace(
                self,
                open_sum=self.open_sum + arrivals_per_second,
                open_count=self.open_count + 1,
                open_last=max(self.open_last, at),
            )
        return dataclasses.replace(
            self._closed(number - DELAY_BINS),
            open_number=number,
            open_sum=arrivals_per_second,
            open_count=1,
            open_first=at,
            open_last=at,
        )

    def without(self, start: float, end: float) -> Season:
        """The season without the bins that wait and overlap ``start`` to ``end`` (epoch seconds): nobody could call."""
        kept = tuple(
            (number, value)
            for number, value in self.waiting
            if (number + 1) * BIN_SECONDS <= start or number * BIN_SECONDS >= end
        )
        found = self if len(kept) == len(self.waiting) else dataclasses.replace(self, waiting=kept)
        inside = self.open_number * BIN_SECONDS < end and start < (self.open_number + 1) * BIN_SECONDS
        return dataclasses.replace(found, open_sum=0.0, open_count=0) if inside and found.open_count else found

    def _closed(self, due: int) -> Season:
        """The season with the open bin waiting, if enough of it was seen, and all bins before ``due`` written."""
        waiting = self.waiting
        if self.open_count > 1 and self.open_last - self.open_first >= LEAST_SHARE_SEEN * BIN_SECONDS:
            waiting = (*waiting, (self.open_number, self.open_sum / self.open_count))
        ripe = [(number, value) for number, value in waiting if number < due]
        if not ripe:
            return dataclasses.replace(self, waiting=waiting)
        bins = list(self.week_bins)
        for number, value in ripe:
            _take(bins, number, value)
        return dataclasses.replace(shaped(self, tuple(bins)), waiting=waiting[len(ripe) :])


def shaped(season: Season, week_bins: tuple[float, ...]) -> Season:
    """The season with other bins, and the shapes that follow from them."""
    known = [value for value in week_bins if value >= 0]
    floor = max(1e-6, FLOOR_RATIO * sum(known) / len(known)) if known else 1e-6
    day = tuple(_mean(week_bins[place::DAY_BINS]) for place in range(DAY_BINS))
    return dataclasses.replace(
        season,
        week_bins=week_bins,
        week=Shape(week_bins, floor),
        day=Shape(day, floor),
        change=_change(week_bins, floor),
    )


def of(past: Iterable[tuple[float, float]]) -> Season:
    """The season of means over whole bins, such as a database gives them for the time before a start.

    Args:
        past: (end of the bin, arrivals per second), oldest first; unusable ones are left out, and so are holes:
            at most an hour of nothing between bins of something.
    """
    bins = [UNKNOWN] * WEEK_BINS
    before, held = 0.0, list[tuple[int, float]]()
    for end, value in past:
        if not (math.isfinite(end) and math.isfinite(value)) or value < 0:
            continue
        bin_ = (round(end / BIN_SECONDS) - 1, value)
        if value < HOLE_RATIO * before and len(held) < HOLE_BINS:
            held.append(bin_)
            continue
        for number, mean in [*(held if value < HOLE_RATIO * before else ()), bin_]:
            _take(bins, number, mean)
        before, held = value, []
    for number, mean in held:
        _take(bins, number, mean)
    return shaped(Season(), tuple(bins))


def total(seasons: Sequence[Season | None]) -> Season | None:
    """What all of them add up to, where all are known; None without any, or where one has not begun."""
    bins = tuple(one.week_bins for one in seasons if one is not None and one.week is not None)
    return _total(bins) if bins and len(bins) == len(seasons) else None


@functools.lru_cache(maxsize=64)
def _total(bins: tuple[tuple[float, ...], ...]) -> Season:
    """Bins change every 10 minutes and are asked for every cycle."""
    return shaped(Season(), tuple(_sum(values) for values in zip(*bins, strict=True)))


def _take(bins: list[float], number: int, value: float) -> None:
    """Write one bin; ``number`` counts from the epoch."""
    place = number % WEEK_BINS
    before = bins[place]
    bins[place] = value if before < 0 else before + SHARE_OF_NEW * (value - before)


def _change(bins: Sequence[float], floor: float) -> float | None:
    """The share of changes that lie within one standard deviation of a normal law, 68 %, lie within this."""
    changes = sorted(
        abs(after - before) / (before + floor)
        for before, after in itertools.pairwise(bins)
        if before >= 0 and after >= 0
    )
    return changes[int(0.68 * len(changes))] if len(changes) >= LEAST_CHANGES else None


def _sum(values: Sequence[float]) -> float:
    return UNKNOWN if min(values) < 0 else sum(values)


def _mean(values: Sequence[float]) -> float:
    """Of those that are known."""
    known = [value for value in values if value >= 0]
    return sum(known) / len(known) if known else UNKNOWN
