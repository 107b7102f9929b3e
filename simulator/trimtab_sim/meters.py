"""What the simulated routers and engines count, and how it is seen: late, in samples, through the shipped queries.

Controllers get the same ``telemetry`` queries answered by the same arithmetic (``series``) as in a cluster: a number
is as old as the last scrape plus its delay, rates need two samples, and an idle class shows only if a router was seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from trimtab_core import answers, observation, series, telemetry
from trimtab_core.signals import Sample
from trimtab_core.telemetry import Family

ROUTER = "router-0"


class Meters:
    """Counters of one router, and the store that scrapes fill.

    Args:
        window_seconds: over which rates are asked for.
    """

    def __init__(self, *, window_seconds: float) -> None:
        self._queries = answers.queries(window_seconds)
        self._store = series.Store(retention_seconds=3 * window_seconds)
        self._counters: dict[str, dict[tuple[str, ...], float]] = {}
        self._families: dict[str, Family] = {}
        self._tables: dict[str, str] = {}
        self._engines: dict[str, observation.EngineReading] = {}

    def count(self, family: Family, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add to a counter; ``labels`` are values in the order of ``family.labels``."""
        group = self._counters.get(family.name)
        if group is None:
            group = self._counters[family.name] = {}
            self._families[family.name] = family
        group[labels] = group.get(labels, 0.0) + amount

    def serve_by(self, policy: str, version: str) -> None:
        """The router now serves a policy by that table."""
        self._tables[policy] = version

    def sample(self, at: float) -> list[tuple[Family, dict[str, str], Sample]]:
        """What a scrape of the router at ``at`` (epoch seconds) finds; ``keep`` makes it visible."""
        found = [
            (family, dict(zip(family.labels, labels, strict=True)), Sample(value, at))
            for name, family in self._families.items()
            for labels, value in self._counters[name].items()
        ]
        for policy, version in self._tables.items():
            labels = {telemetry.POLICY: policy, "version": version, "pod": ROUTER}
            found.append((telemetry.TABLE_INFO, labels, Sample(1.0, at)))
        return found

    def keep(
        self,
        sampled: Iterable[tuple[Family, dict[str, str], Sample]],
        engines: dict[str, observation.EngineReading],
    ) -> None:
        """A scrape has arrived; controllers see it from now on."""
        at = float("-inf")
        for family, labels, sample in sampled:
            self._store.add(family.name, labels, sample, source=ROUTER)
            at = sample.observed_at
        self._store.end_absent(ROUTER, at)
        self._engines = engines

    @property
    def engines(self) -> dict[str, observation.EngineReading]:
        """The engines' gauges as last scraped, by replica name."""
        return self._engines

    def answers(self, now: float) -> answers.Answers:
        """Every query of a cycle, answered from what has arrived by ``now`` (epoch seconds)."""
        return {name: self._store.answer(query, now) for name, query in self._queries.items()}
