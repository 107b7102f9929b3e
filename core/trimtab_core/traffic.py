"""A policy's demand and success as signals: from answers to ``ClassTraffic`` and SLO attainment. Pure.

Demand is arrivals, never completions. Means per request come from what ended; while nothing ends there is no
mean, and the last one known ages until it is too old to use. Few requests move a mean little: it counts about as many
as it needs. Must not know where answers come from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from trimtab_core import answers as answering
from trimtab_core import burstiness, learning, outages, recall, signals, telemetry
from trimtab_core import season as seasons
from trimtab_core.api import v1alpha1
from trimtab_core.signals import Signal
from trimtab_core.snapshot import ClassTraffic, PolicyState, Snapshot

NO_TRAFFIC = ClassTraffic(signals.Missing("no sample"), signals.Missing("no sample"), signals.Missing("no sample"))
HIT = "hit"
"""Result label of a request that the cache answered."""
COUNTING_SECONDS = 60.0
"""Window of the rates, where nobody shortened it: of how many requests a reading speaks."""
GAP_SECONDS = 30.0
"""Arrivals that were not fresh for longer have a gap; a shorter one lowers a rate by less than half, for a moment."""
ENOUGH_REQUESTS = 200.0
"""A window with so many ended requests has the mean lengths; one with fewer moves the known ones by its share of them.

Lengths scatter by about their mean (Azure 2023), so that 200 of them give a mean to 7 %.
"""
BURSTINESS_SECONDS = 600.0
"""Time constant over which burstiness is known; a minute of 30 windows gives it to 25 % only."""
LARGEST_WEIGHT = 4.0
"""A reading of burstiness counts by its arrivals, at most so many times as much as a usual one."""


class Held:
    """The cycle before, from which a number that can't be had now counts on, older and older.

    So a gap goes from fresh to stale to missing by its age, whether one query fails or Prometheus is gone.
    """

    def __init__(self, previous: Snapshot | None, now: float, freshness: signals.Freshness) -> None:
        self._previous = previous
        self._now = now
        self._freshness = freshness

    def of_class(self, policy: str, request_class: str) -> ClassTraffic:
        """The traffic of a class as known before; all missing if it was not."""
        state = self._previous.policies.get(policy) if self._previous else None
        return state.traffic.get(request_class, NO_TRAFFIC) if state else NO_TRAFFIC

    def attainment(self, policy: str) -> Signal:
        """The SLO attainment of a policy as known before."""
        state = self._previous.policies.get(policy) if self._previous else None
        return state.slo_attainment if state else signals.Missing("no sample")

    @property
    def elapsed(self) -> float:
        """Seconds since the cycle before."""
        return max(0.0, self._now - self._previous.now) if self._previous else 0.0

    def lacked(self, history: tuple[tuple[float, float], ...]) -> bool:
        """Whether fresh arrivals had been lacking for a while at the cycle before; the history holds what there was."""
        return self._previous is not None and bool(history) and self._previous.now - history[-1][0] > GAP_SECONDS

    def began(self, history: tuple[tuple[float, float], ...], seconds: float) -> bool:
        """Whether this process saw arrivals begin less than so long ago: a window that began empty seems a burst."""
        return self._previous is not None and (not history or self._now - history[0][0] < seconds)

    def older(self, signal: Signal, before: Signal) -> Signal:
        """The signal, or where it is missing the one before with its age now."""
        if not isinstance(signal, signals.Missing) or isinstance(before, signals.Missing) or self._previous is None:
            return signal
        observed_at = self._previous.now - before.age_seconds
        aged = signals.read(signals.Sample(before.value, observed_at), self._now, self._freshness)
        return signal if isinstance(aged, signals.Missing) else aged


@dataclasses.dataclass(frozen=True, slots=True)
class Past:
    """What a database knows of a class from before this process started.

    Attributes:
        recent: (epoch seconds, arrivals per second) of the last hours, as in ``ClassTraffic.history``.
        bins: (end of the bin, arrivals per second) of whole 10-minute bins of the last week or weeks.
    """

    recent: tuple[tuple[float, float], ...] = ()
    bins: tuple[tuple[float, float], ...] = ()


PastKey = tuple[str, str]
"""Policy (``namespace/name``) and class."""


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """What policies are asked for and how well they answer, as of one moment.

    Attributes:
        reader: this cycle's answers.
        held: the cycle before.
        now: epoch seconds.
        history_seconds: how much of the past the forecast sees.
        past: of classes that the cycle before does not know.
    """

    reader: answering.Reader
    held: Held
    now: float
    history_seconds: float
    past: Mapping[PastKey, Past] = dataclasses.field(default_factory=dict)

    def policy(self, key: str, observed: v1alpha1.RoutingPolicy) -> PolicyState:
        """One policy (key ``namespace/name``) with the traffic of all its classes."""
        traffic = {
            cls.name: self.with_history(key, cls.name, self.of_class(key, cls.name, observed))
            for cls in observed.spec.classes
        }
        attainment = self.held.older(_policy_attainment(self.reader, key, observed), self.held.attainment(key))
        return PolicyState(
            key=key,
            spec=observed.spec,
            tiers=tuple(f"{observed.metadata.namespace}/{tier.ref}" for tier in observed.spec.tiers),
            traffic=traffic,
            weights=recall.weights(observed),
            spent_usd_month_to_date=recall.spent(observed, self.now),
            slo_attainment=attainment,
        )

    def of_class(self, key: str, name: str, observed: v1alpha1.RoutingPolicy) -> ClassTraffic:
        """The traffic of one class now, or as it was where it can't be had.

        Token means are taken over the requests that a tier of the policy answered: those from the cache have none.
        """
        before, older = self.held.of_class(key, name), self.held.older
        tiers = frozenset(tier.ref for tier in observed.spec.tiers)
        arrivals, back_since = self.settled(self.reader.of_class("arrivals_per_second", key, name), before)
        ended, inputs, outputs = (
            self.reader.of_class(f"{what}_per_second", key, name, tiers=tiers)
            for what in ("requests", "input_tokens", "output_tokens")
        )
        hits: Signal = signals.Missing("no cache")
        if observed.spec.cache is not None:
            answered = self.reader.of_class("cache_results_per_second", key, name, result=HIT)
            hits = older(_share(answered, arrivals), before.cache_hit_ratio)
        share = min(1.0, (signals.known(ended) or 0.0) * COUNTING_SECONDS / ENOUGH_REQUESTS)
        return ClassTraffic(
            arrivals_per_second=older(arrivals, before.arrivals_per_second),
            input_tokens=older(_moved(before.input_tokens, signals.divide(inputs, ended), share), before.input_tokens),
            output_tokens=older(
                _moved(before.output_tokens, signals.divide(outputs, ended), share), before.output_tokens
            ),
            cache_hit_ratio=hits,
            burstiness=older(self.burstiness(key, name, arrivals, before), before.burstiness),
            back_since=back_since,
        )

    def settled(self, arrivals: Signal, before: ClassTraffic) -> tuple[Signal, float | None]:
        """Arrivals after a gap, stale until a whole window is behind it, and since when they are seen again.

        A rate is growth over its window: while the gap lies in that, it is too low, and no reason to remove anything.
        Cycles without a fresh reading don't count: that moment moves on with them.
        """
        since = before.back_since
        if not isinstance(arrivals, signals.Fresh):
            return arrivals, None if since is None else since + self.held.elapsed
        if since is None and self.held.lacked(before.history):
            since = self.now
        if since is None or self.now - since >= COUNTING_SECONDS:
            return arrivals, None
        return signals.Stale(arrivals.value, COUNTING_SECONDS), since

    def burstiness(self, key: str, name: str, arrivals: Signal, before: ClassTraffic) -> Signal:
        """How bunched a class's arrivals are: the known value, moved by this reading as far as its arrivals weigh."""
        if not isinstance(arrivals, signals.Fresh):  # put right after a gap, they don't go with what was counted
            return signals.Missing("arrivals aren't settled")
        if isinstance(before.burstiness, signals.Missing) and self.held.began(before.history, COUNTING_SECONDS):
            return signals.Missing("its window isn't whole yet")
        squares = self.reader.of_class("arrival_squares_per_second", key, name)
        reading = burstiness.index(
            arrivals, squares, seconds=COUNTING_SECONDS, routers=max(1, self.reader.routers(key))
        )
        rate = signals.known(arrivals)
        if rate is None or not before.history:
            return reading
        usual = sum(value for _, value in before.history) / len(before.history)
        weight = min(LARGEST_WEIGHT, rate / usual) if usual > 0 else 1.0
        elapsed = max(0.0, self.now - before.history[-1][0])
        return _moved(before.burstiness, reading, 1.0 - math.exp(-weight * elapsed / BURSTINESS_SECONDS))

    def with_history(self, key: str, name: str, traffic: ClassTraffic) -> ClassTraffic:
        """The traffic with the past of its arrivals, this cycle's fresh reading last, and its season."""
        before = self.held.of_class(key, name)
        history, season = before.history, before.season
        if not history and season is None and (key, name) in self.past:
            past = self.past[key, name]
            history, season = past.recent, seasons.of(past.bins)
        kept = [point for point in history if self.now - self.history_seconds <= point[0] < self.now]
        arrivals = signals.fresh(traffic.arrivals_per_second)
        if arrivals is not None:
            kept.append((self.now, arrivals))
            season = _grown(season or seasons.Season(), kept)
        return dataclasses.replace(traffic, history=tuple(kept), season=season)


def tier_attainment(reader: answering.Reader, tier: str) -> Signal:
    """Share of a tier's recent requests that met the promise that was met least; missing without requests."""
    measured = reader.tier_values("slo_measured_per_second", tier, telemetry.SLO)
    return _least(
        signals.divide(
            reader.of_tier("slo_met_per_second", tier, slo=promise, zero=True),
            reader.of_tier("slo_measured_per_second", tier, slo=promise),
        )
        for promise in measured
    )


def tier_misses(reader: answering.Reader, tier: str) -> tuple[Signal, Signal]:
    """Requests of a tier per second that were held against a promise, and those that missed one.

    Misses of several promises add up, as if no request ever missed two: never too few.
    """
    judged, missed = [], []
    for promise in reader.tier_values("slo_measured_per_second", tier, telemetry.SLO):
        measured = reader.of_tier("slo_measured_per_second", tier, slo=promise)
        met = reader.of_tier("slo_met_per_second", tier, slo=promise, zero=True)
        judged.append(measured)
        missed.append(signals.combine((measured, met), lambda parts: max(0.0, parts[0] - parts[1])))
    return signals.combine(judged, max), signals.total(missed)


def tier_shape(reader: answering.Reader, tier: str) -> learning.Shape | None:
    """Mean lengths of the requests that a tier answers now; None where they are not known for certain."""
    ended = reader.of_tier("requests_per_second", tier)
    inputs, outputs = (reader.of_tier(f"{what}_tokens_per_second", tier) for what in ("input", "output"))
    means = (signals.fresh(signals.divide(tokens, ended)) for tokens in (inputs, outputs))
    input_tokens, output_tokens = means
    if input_tokens is None or output_tokens is None:
        return None
    return learning.Shape(input_tokens, output_tokens)


def _policy_attainment(reader: answering.Reader, key: str, observed: v1alpha1.RoutingPolicy) -> Signal:
    """The same over all classes of a policy."""
    parts: list[Signal] = []
    for promise in sorted(reader.policy_values("slo_measured_per_second", key, telemetry.SLO)):
        names = [cls.name for cls in observed.spec.classes]
        met = signals.total(reader.of_class("slo_met_per_second", key, name, slo=promise) for name in names)
        measured = signals.total(reader.of_class("slo_measured_per_second", key, name, slo=promise) for name in names)
        parts.append(signals.divide(met, measured))
    return _least(parts)


def _least(parts: Iterable[Signal]) -> Signal:
    """The smallest of the shares that could be had, at most 1 (rates of two counters may disagree by a sample)."""
    known = [part for part in parts if not isinstance(part, signals.Missing)]
    if not known:
        return signals.Missing("nothing was judged")
    return signals.combine(known, lambda values: min(1.0, *values))


def _moved(before: Signal, reading: Signal, share: float) -> Signal:
    """The known value moved by a share of the way to the reading; the reading alone where nothing was known."""
    known = signals.known(before)
    if known is None or isinstance(reading, signals.Missing):
        return reading
    return dataclasses.replace(reading, value=known + share * (reading.value - known))


def _grown(season: seasons.Season, history: list[tuple[float, float]]) -> seasons.Season:
    """The season with the newest sample of a history; whenever a bin is full, without what was an outage."""
    grown = season.add(*history[-1])
    if grown.open_number != season.open_number:
        for hole in outages.find(history):
            grown = grown.without(hole.start - outages.EDGE_SECONDS, hole.end + outages.EDGE_SECONDS)
    return grown


def _share(part: Signal, whole: Signal) -> Signal:
    """The quotient, at most 1."""
    quotient = signals.divide(part, whole)
    return (
        quotient
        if isinstance(quotient, signals.Missing)
        else dataclasses.replace(quotient, value=min(1.0, quotient.value))
    )
