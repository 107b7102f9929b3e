"""What a simulated router counts of requests that end, kept as plain sums until a scrape asks for them.

A request touches a dozen counters. Here it adds to a few numbers of its class and tier, and says at once whether the
promise was kept and how good the answer is; ``pour`` makes Prometheus' counters of them. Money is worked out then as
well: it is linear in tokens.
"""

from __future__ import annotations

import math

from trimtab_core import burstiness, economics, quality, telemetry
from trimtab_core.routing import promises
from trimtab_core.routing import table as tables

from trimtab_sim import meters, report
from trimtab_sim.workload import Request

OK, CACHED, FAILED, NO_TIER = "ok", "cached", "failed", "none"
HIT, MISS, STORE = "hit", "miss", "store"
Latencies = tuple[float, float | None, float]
"""TTFT, ITL and end to end, seconds."""


class Tier:
    """Requests of one class that one tier has served.

    Attributes:
        name: of the tier; ``report.CACHE`` for answers of the cache.
        spec: of the tier; None for the cache.
        prior: quality of the tier's answers averaged over all prompts.
    """

    __slots__ = (
        "_cached_tokens",
        "_e2e_kept",
        "_input_tokens",
        "_itl_kept",
        "_itl_measured",
        "_limits",
        "_output_tokens",
        "_requests",
        "_ttft_kept",
        "name",
        "prior",
        "spec",
    )  # fmt: skip

    def __init__(self, name: str, spec: tables.Tier | None, of: tables.Class) -> None:
        self.name = name
        self.rule(spec, of)
        self._clear()

    def rule(self, spec: tables.Tier | None, of: tables.Class) -> None:
        """A new table is in force."""
        self.spec = spec
        self.prior = 0.0 if spec is None else spec.quality
        limits = promises.promised(of, spec)
        self._limits = (limits.ttft_seconds, limits.itl_seconds, limits.e2e_seconds)

    def add(self, request: Request, cached_tokens: int, latencies: Latencies) -> bool:
        """An answer has ended; whether every promised latency held. What could not be measured can't be missed."""
        ttft_s, itl_s, e2e_s = latencies
        ttft_limit, itl_limit, e2e_limit = self._limits
        met = True
        self._requests += 1
        self._input_tokens += request.input_tokens
        self._output_tokens += request.output_tokens
        self._cached_tokens += cached_tokens
        if ttft_limit is not None:
            if ttft_s <= ttft_limit:
                self._ttft_kept += 1
            else:
                met = False
        if itl_limit is not None and itl_s is not None:
            self._itl_measured += 1
            if itl_s <= itl_limit:
                self._itl_kept += 1
            else:
                met = False
        if e2e_limit is not None:
            if e2e_s <= e2e_limit:
                self._e2e_kept += 1
            else:
                met = False
        return met

    def pour(self, policy: str, class_: str, counts: meters.Meters, baseline: tables.Rates) -> None:
        """Make counters of the sums, and begin anew."""
        requests, spec = self._requests, self.spec
        if not requests:
            return
        if spec is None:
            counts.count(telemetry.REQUESTS, (policy, class_, self.name, CACHED), requests)
            self._clear()
            return
        labels = (policy, class_, self.name)
        counts.count(telemetry.REQUESTS, (*labels, OK), requests)
        counts.count(telemetry.INPUT_TOKENS, labels, self._input_tokens)
        counts.count(telemetry.OUTPUT_TOKENS, labels, self._output_tokens)
        if self._cached_tokens:
            counts.count(telemetry.CACHED_TOKENS, labels, self._cached_tokens)
        counts.count(telemetry.COST_USD, (*labels, ""), self._usd(spec.rates))
        counts.count(telemetry.BASELINE_USD, labels[:2], self._usd(baseline))
        kept = (self._ttft_kept, self._itl_kept, self._e2e_kept)
        measured = (requests, self._itl_measured, requests)
        for name, limit, of, by in zip(("ttft", "itl", "e2e"), self._limits, measured, kept, strict=True):
            if limit is not None and of:
                counts.count(telemetry.SLO_MEASURED, (*labels, name), of)
                counts.count(telemetry.SLO_MET, (*labels, name), by)
        self._clear()

    def _usd(self, rates: tables.Rates) -> float:
        return economics.request_usd(
            rates,
            input_tokens=self._input_tokens,
            cached_input_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
        )

    def _clear(self) -> None:
        self._requests = self._input_tokens = self._cached_tokens = self._output_tokens = 0
        self._ttft_kept = self._itl_measured = self._itl_kept = self._e2e_kept = 0


class Class:
    """Requests of one class.

    Attributes:
        arrivals: since the last ``pour``.
        squares: growth of the sum of squared counts since then; ``burstiness``.
        hits, misses, stores: of the cache since then.
        windows: counts how bunched arrivals are.
        tiers: by name, ``report.CACHE`` among them.
        best: the tier of best quality that the class may use; None if it may use none.
        m: how well complexity tells its tiers apart; ``quality``.
        loosest_ttft_s, loosest_e2e_s: the longest that any tier may take; infinite where one promises nothing.
    """

    __slots__ = (
        "_low", "_width", "arrivals", "best", "hits", "loosest_e2e_s", "loosest_ttft_s", "m", "misses", "spec",
        "squares", "stores", "tiers", "windows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.windows = burstiness.Windows()
        self.tiers: dict[str, Tier] = {}
        self.best: tables.Tier | None = None
        self.m = 0.0
        self.loosest_ttft_s = self.loosest_e2e_s = math.inf
        self._clear()

    def rule(self, spec: tables.Class, table: tables.RoutingTable, allowed: list[tables.Tier]) -> None:
        """A new table is in force.

        Args:
            spec: of the class.
            table: that it stands in.
            allowed: the tiers that it may use.
        """
        self.spec = spec
        self._low = spec.match.complexity_min
        self._width = spec.match.complexity_max - self._low
        self.best = max(allowed, key=lambda tier: tier.quality, default=None)
        self.m = quality.discrimination([tier.quality for tier in allowed])
        listed = {tier.name: tier for tier in table.tiers}
        for name, tier in self.tiers.items():
            tier.rule(listed.get(name, tier.spec), spec)
        slos = [promises.promised(spec, tier) for tier in table.tiers]
        self.loosest_ttft_s = max((_or_inf(slo.ttft_seconds) for slo in slos), default=math.inf)
        self.loosest_e2e_s = max((_or_inf(slo.e2e_seconds) for slo in slos), default=math.inf)

    def tier(self, spec: tables.Tier | None) -> Tier:
        """The sums of a tier; of the cache for None."""
        name = report.CACHE if spec is None else spec.name
        found = self.tiers.get(name)
        if found is None:
            found = self.tiers[name] = Tier(name, spec, self.spec)
        return found

    def quality(self, prior: float, rank: float) -> float:
        """How good an answer is expected to be at a rank of complexity within the class."""
        at = self._low + self._width * rank
        return quality.expected(prior, at, at, self.m)

    def pour(self, policy: str, name: str, counts: meters.Meters, baseline: tables.Rates) -> None:
        """Make counters of the sums, and begin anew."""
        labels = (policy, name)
        if self.arrivals:
            counts.count(telemetry.ARRIVALS, labels, self.arrivals)
            counts.count(telemetry.ARRIVAL_SQUARES, labels, self.squares)
        for result, number in ((HIT, self.hits), (MISS, self.misses), (STORE, self.stores)):
            if number:
                counts.count(telemetry.CACHE_RESULTS, (*labels, result), number)
        for tier in self.tiers.values():
            tier.pour(policy, name, counts, baseline)
        self._clear()

    def _clear(self) -> None:
        self.arrivals = self.squares = self.hits = self.misses = self.stores = 0


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit
