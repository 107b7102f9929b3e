"""Scraped time series and the arithmetic of queries over them, as Prometheus defines it. Pure: no clock, no sockets.

``Store`` is the small in-memory answer to ``telemetry.Query``: whoever scrapes (local mode's direct scraper) or
counts (the simulator) adds samples, and ``answer`` gives what Prometheus would give for ``Query.promql()``:
rates that survive counter resets, extrapolated to the window's edges, summed by labels. One implementation, so
that local mode, simulator and cluster can't disagree about what a number means. Must not know who scrapes.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

from trimtab_core import telemetry
from trimtab_core.signals import Sample
from trimtab_core.telemetry import Answer, Operation

LOOKBACK_SECONDS = 300.0
"""How old the newest sample of a gauge may be and still answer (Prometheus' ``--query.lookback-delta``)."""

_EDGE_FACTOR = 1.1
"""A gap to the window's edge of up to this many mean sample distances counts as the series going on there."""

LabelSet = tuple[tuple[str, str], ...]
"""Label pairs, sorted by name."""


def increase(samples: Sequence[Sample], *, start: float, end: float) -> float | None:
    """By how much a counter grew between ``start`` and ``end`` (epoch seconds), or None with fewer than 2 samples.

    A fall of the counter is a restart from zero. The growth between the first and the last sample is extrapolated to
    the window's edges where the series seems to reach them, never below zero (Prometheus' ``extrapolatedRate``).
    Only samples in ``start < observed_at <= end`` count. NaN samples give NaN: the reader must judge.
    """
    inside = [sample for sample in samples if start < sample.observed_at <= end]
    if len(inside) < 2:  # noqa: PLR2004 (a difference needs two)
        return None
    first, last = inside[0], inside[-1]
    sampled = last.observed_at - first.observed_at
    if sampled <= 0:
        return None
    growth = last.value - first.value
    growth += sum(before.value for before, after in itertools.pairwise(inside) if after.value < before.value)
    mean_distance = sampled / (len(inside) - 1)
    to_start, to_end = first.observed_at - start, end - last.observed_at
    if to_start >= mean_distance * _EDGE_FACTOR:
        to_start = mean_distance / 2
    if growth > 0 and first.value >= 0:  # a counter began at zero at the earliest: not before it would have been zero
        to_start = min(to_start, sampled * first.value / growth)
    if to_end >= mean_distance * _EDGE_FACTOR:
        to_end = mean_distance / 2
    return growth * (sampled + to_start + to_end) / sampled


def rate(samples: Sequence[Sample], *, start: float, end: float) -> float | None:
    """``increase`` per second of the window, or None with fewer than 2 samples in it."""
    grown = increase(samples, start=start, end=end)
    return None if grown is None else grown / (end - start)


def last(samples: Sequence[Sample], *, now: float, lookback_seconds: float = LOOKBACK_SECONDS) -> Sample | None:
    """The newest sample at ``now`` that is not older than the lookback, or None."""
    for sample in reversed(samples):
        if sample.observed_at <= now:
            return sample if now - sample.observed_at <= lookback_seconds else None
    return None


def sum_by(parts: Iterable[tuple[Mapping[str, str], Sample]], by: Sequence[str]) -> tuple[Answer, ...]:
    """Sum values by label values, sorted; a label that a series lacks is the empty text. NaN in a group stays NaN.

    The time of a group is that of its newest part.
    """
    values: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for labels, sample in parts:
        values[tuple(labels.get(name, "") for name in by)].append(sample)
    return tuple(
        Answer(key, math.fsum(part.value for part in group), max(part.observed_at for part in group))
        for key, group in sorted(values.items())
    )


class _Series:
    """The samples of one series, oldest first, and when it ended (its target went away)."""

    __slots__ = ("ended_at", "labels", "samples")

    def __init__(self, labels: LabelSet) -> None:
        self.labels = dict(labels)
        self.samples: deque[Sample] = deque()
        self.ended_at: float | None = None


class Store:
    """Samples of many series, kept for a while, that answers ``telemetry.Query``.

    A series is known by its name, its labels and its source (the scraped target): two routers that export the same
    labels are two series, whose rates are added, as Prometheus does through its ``instance`` label.
    """

    def __init__(self, *, retention_seconds: float = 900.0) -> None:
        self._retention_seconds = retention_seconds
        self._series: dict[str, dict[tuple[LabelSet, str], _Series]] = defaultdict(dict)

    def add(self, name: str, labels: Mapping[str, str], sample: Sample, *, source: str = "") -> None:
        """Add one sample; one that is not newer than the last of its series is dropped, as by Prometheus."""
        key = (tuple(sorted(labels.items())), source)
        series = self._series[name].get(key)
        if series is None:
            series = self._series[name][key] = _Series(key[0])
        samples = series.samples
        if samples and sample.observed_at <= samples[-1].observed_at:
            return
        samples.append(sample)
        series.ended_at = None
        while samples[0].observed_at < sample.observed_at - self._retention_seconds:
            samples.popleft()

    def end(self, source: str, at: float) -> None:
        """The target went away at ``at``: its gauges no longer count, its growth inside windows still does."""
        for group in self._series.values():
            for (_, owner), series in group.items():
                if owner == source and series.ended_at is None:
                    series.ended_at = at

    def end_absent(self, source: str, at: float) -> None:
        """The scrape of ``at`` is complete: series of the source that it did not show have ended, as by Prometheus."""
        for group in self._series.values():
            for (_, owner), series in group.items():
                if owner == source and series.ended_at is None and series.samples[-1].observed_at < at:
                    series.ended_at = at

    def forget(self, before: float) -> None:
        """Drop every series whose newest sample is older than ``before`` (epoch seconds)."""
        for name, group in list(self._series.items()):
            kept = {key: series for key, series in group.items() if series.samples[-1].observed_at >= before}
            if kept:
                self._series[name] = kept
            else:
                del self._series[name]

    def answer(self, query: telemetry.Query, now: float) -> tuple[Answer, ...]:
        """What the query gives at ``now``; empty when no series has what it needs (never zeros in their place)."""
        parts: list[tuple[Mapping[str, str], Sample]] = []
        for series in self._series.get(query.series, {}).values():
            if all(series.labels.get(label, "") == value for label, value in query.where):
                sample = _evaluate(series, query, now)
                if sample is not None:
                    parts.append((series.labels, sample))
        return sum_by(parts, query.by)


def _evaluate(series: _Series, query: telemetry.Query, now: float) -> Sample | None:
    """One series' part of the answer, stamped with the newest sample behind it."""
    samples = list(series.samples)
    if query.operation is Operation.LAST:
        if series.ended_at is not None and series.ended_at <= now:
            return None
        return last(samples, now=now)
    function = rate if query.operation is Operation.RATE else increase
    value = function(samples, start=now - query.window_seconds, end=now)
    if value is None:
        return None
    if series.ended_at is not None and series.ended_at <= now:  # as old as the window: Prometheus shows no time of it
        return Sample(value, now - query.window_seconds)
    newest = bisect.bisect_right(samples, now, key=lambda sample: sample.observed_at) - 1
    return Sample(value, samples[newest].observed_at)
