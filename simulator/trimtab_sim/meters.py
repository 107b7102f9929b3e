"""What the simulated routers and engines count, and how it is seen: late, in samples, through the shipped queries.

Controllers get the same ``telemetry`` queries answered by the same arithmetic (``series``) as in a cluster: a number
is as old as the last scrape plus its delay, rates need two samples, and an idle class shows only if a router was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trimtab_core import answers, observation, series, telemetry
from trimtab_core.signals import Sample
from trimtab_core.telemetry import Family

ROUTER = "router-0"
"""The router that a run begins with."""
Page = list[tuple[Family, dict[str, str], Sample]]
"""What a scrape of a router finds: family, labels and value of each series."""


_KEPT_SECONDS = 2 * series.LOOKBACK_SECONDS
"""How long a series without new samples is kept: longer than any query looks back."""


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
        self._pours: list[Callable[[], None]] = []
        self._sweep_at = 0.0
        self.router = ROUTER
        """The router of the moment."""
        self._began: dict[str, dict[tuple[str, ...], float]] = {}
        """What the counters stood at when the present router began: its own begin at zero."""

    def gather(self, pour: Callable[[], None]) -> None:
        """``pour`` is called before counters are read: who counts often keeps sums of his own until then."""
        self._pours.append(pour)

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

    def total(self, family: Family) -> Mapping[tuple[str, ...], float]:
        """What has truly been counted of a family, whichever router did, by label values."""
        self._pour()
        return self._counters.get(family.name, {})

    def replace_router(self) -> str:
        """Another router takes over, whose counters begin at zero; the name of the one that is gone."""
        self._pour()
        gone, number = self.router, int(self.router.rpartition("-")[2])
        self.router = f"router-{number + 1}"
        self._began = {name: dict(group) for name, group in self._counters.items()}
        return gone

    def sample(self, at: float) -> Page:
        """What a scrape of the router at ``at`` (epoch seconds) finds; ``keep`` makes it visible."""
        self._pour()
        found: Page = []
        for name, family in self._families.items():
            began = self._began.get(name, {})
            for labels, value in self._counters[name].items():
                if not began or value != began.get(labels):  # a series appears with its first event
                    own = value - began.get(labels, 0.0)
                    found.append((family, dict(zip(family.labels, labels, strict=True)), Sample(own, at)))
        for policy, version in self._tables.items():
            shown = {telemetry.POLICY: policy, "version": version, "pod": self.router}
            found.append((telemetry.TABLE_INFO, shown, Sample(1.0, at)))
        return found

    def keep(self, page: Page, *, router: str = ROUTER) -> None:
        """A scrape of that router has arrived; controllers see it from now on."""
        at = float("-inf")
        for family, labels, sample in page:
            self._store.add(family.name, labels, sample, source=router)
            at = sample.observed_at
        self._store.end_absent(router, at)
        if at >= self._sweep_at:  # every table in force leaves a series behind: thousands in a week
            self._store.forget(at - _KEPT_SECONDS)
            self._sweep_at = at + _KEPT_SECONDS

    def lose(self, at: float, *, router: str = ROUTER) -> None:
        """The scrape of ``at`` (epoch seconds) failed: the router's gauges no longer count, as in Prometheus."""
        self._store.end(router, at)

    def keep_engines(self, readings: dict[str, observation.EngineReading]) -> None:
        """Readings of all engines have arrived."""
        self._engines = readings

    def _pour(self) -> None:
        for pour in self._pours:
            pour()

    @property
    def engines(self) -> dict[str, observation.EngineReading]:
        """The engines' gauges as last scraped, by replica name."""
        return self._engines

    def answers(self, now: float) -> answers.Answers:
        """Every query of a cycle, answered from what has arrived by ``now`` (epoch seconds)."""
        return {name: self._store.answer(query, now) for name, query in self._queries.items()}
