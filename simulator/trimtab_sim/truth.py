"""What is so at a moment of a run, whatever controllers are shown: for those who judge controllers, never for them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core import capacity, telemetry
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase

from trimtab_sim import fleet, meters, scrapes, tallies

_DEVIATIONS = 3.0
"""Chance may move a count by so many standard deviations."""
_MIX_WINDOWS = 5
"""The mix of a tier's requests is taken over so many windows: lengths need more requests than rates do."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One moment.

    Attributes:
        at: seconds of the run.
        age: by class, seconds since the newest true number of its arrivals was measured that controllers can have seen.
        ready: replicas that serve and make progress.
        stuck: pending replicas without a machine, or that never come up.
        arrivals: by class, requests a second that had truly arrived in a window, the one before that number was
            measured or the one until now, in which there were fewer.
        noise: by class, by how much arrivals of one window and of one that ended a scrape earlier may differ by chance.
        demand: by class, requests a second that arrived in the last window and that no cache answered.
        mix: by tier name, mean lengths of its requests; ``mean`` where it had none.
    """

    at: float
    age: Mapping[str, float]
    ready: Mapping[VariantKey, int] = field(default_factory=dict)
    stuck: Mapping[VariantKey, int] = field(default_factory=dict)
    arrivals: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    demand: Mapping[str, float] = field(default_factory=dict)
    mix: Mapping[str, capacity.Mix] = field(default_factory=dict)
    mean: capacity.Mix = capacity.DEFAULT_MIX


@dataclass(frozen=True, slots=True)
class _Counts:
    """What had been counted by a time, ever: arrivals and cache hits by class, by tier ended ones with their tokens."""

    at: float
    arrived: Mapping[str, float]
    hits: Mapping[str, float]
    ended: Mapping[str, float]
    inputs: Mapping[str, float]
    outputs: Mapping[str, float]


class Witness:
    """Looks at the world itself.

    Args:
        policy: whose traffic is looked at, ``namespace/name``.
        classes: of that policy.
        counts: what the routers really counted.
        cluster: all replicas.
        scraper: knows what has been seen.
        window: seconds over which arrivals are taken.
        lag: seconds between two scrapes.
        mean: lengths of all requests.
    """

    def __init__(  # noqa: PLR0917 (all that it looks at)
        self,
        policy: str,
        classes: Sequence[str],
        counts: meters.Meters,
        cluster: fleet.Fleet,
        scraper: scrapes.Scraper,
        *,
        window: float,
        lag: float,
        mean: capacity.Mix,
    ) -> None:
        self._policy = policy
        self._classes = tuple(classes)
        self._meters = counts
        self._fleet = cluster
        self._scraper = scraper
        self._window = window
        self._lag = lag
        self._mean = mean
        self._past: deque[_Counts] = deque()

    def look(self, at: float) -> Truth:
        """The truth at ``at`` (seconds of the run), which must not go back."""
        counted = self._count(at)
        self._past.append(counted)
        while len(self._past) > 1 and self._past[1].at <= at - _MIX_WINDOWS * self._window:
            self._past.popleft()
        before = max((one for one in self._past if one.at <= at - self._window), key=lambda one: one.at, default=None)
        before = before or self._past[0]
        ready: Counter[VariantKey] = Counter()
        stuck: Counter[VariantKey] = Counter()
        for key, replica in self._fleet.members():
            ready[key] += replica.phase is ReplicaPhase.READY and not replica.frozen
            stuck[key] += replica.stuck
        now = _rates(before.arrived, counted.arrived, counted.at - before.at)
        hits = _rates(before.hits, counted.hits, counted.at - before.at)
        arrivals = {
            name: min(self._scraper.arrivals(self._policy, name, self._window), now.get(name, 0.0))
            for name in self._classes
        }
        return Truth(
            at=at,
            age={name: at - self._scraper.sound_at(self._policy, name) for name in self._classes},
            ready=ready,
            stuck=stuck,
            arrivals=arrivals,
            noise={
                name: _DEVIATIONS * math.sqrt(2 * rate * self._lag) / self._window for name, rate in arrivals.items()
            },
            demand={name: rate - hits.get(name, 0.0) for name, rate in now.items()},
            mix=_mixes(self._past[0], counted),
            mean=self._mean,
        )

    def _count(self, at: float) -> _Counts:
        arrived, hits, ended, inputs, outputs = (defaultdict[str, float](float) for _ in range(5))
        for labels, value in self._meters.total(telemetry.ARRIVALS).items():
            if labels[0] == self._policy:
                arrived[labels[1]] += value
        for labels, value in self._meters.total(telemetry.CACHE_RESULTS).items():
            if labels[0] == self._policy and labels[2] == tallies.HIT:
                hits[labels[1]] += value
        for labels, value in self._meters.total(telemetry.REQUESTS).items():
            ended[labels[2]] += value if labels[3] == tallies.OK else 0.0
        for labels, value in self._meters.total(telemetry.INPUT_TOKENS).items():
            inputs[labels[2]] += value
        for labels, value in self._meters.total(telemetry.OUTPUT_TOKENS).items():
            outputs[labels[2]] += value
        return _Counts(at, arrived, hits, ended, inputs, outputs)


def _rates(first: Mapping[str, float], last: Mapping[str, float], seconds: float) -> dict[str, float]:
    """By how much each count grew a second."""
    return {name: _grown(last, first, name) / max(seconds, 1.0) for name in last}


def _mixes(first: _Counts, last: _Counts) -> dict[str, capacity.Mix]:
    """Mean lengths by tier of what ended between two counts."""
    ended = {tier: _grown(last.ended, first.ended, tier) for tier in last.ended}
    return {
        tier: capacity.Mix(
            _grown(last.inputs, first.inputs, tier) / count, _grown(last.outputs, first.outputs, tier) / count
        )
        for tier, count in ended.items()
        if count > 0
    }


def _grown(last: Mapping[str, float], first: Mapping[str, float], name: str) -> float:
    return last.get(name, 0.0) - first.get(name, 0.0)
