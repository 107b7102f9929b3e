"""The compiled table: what the data form says, as the hot path wants it. Built whole, then swapped in at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab_core import burstiness, telemetry
from trimtab_core.routing import classes, classifier, promises, table, weights

from trimtab_router import endpoints, ledger, metrics


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A tier with its live endpoints."""

    spec: table.Tier
    endpoints: list[endpoints.Endpoint]


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class with everything that serving it needs.

    Attributes:
        reach: tiers that may serve it, and in which order.
        allowed: their names.
        meters: its series, by tier name.
        slos: what it and the tier promise together, by tier name.
        squares, windows: what tells how bunched its arrivals are.
    """

    spec: table.Class
    reach: classes.Reach[Tier]
    allowed: frozenset[str]
    ranks: weights.RankHistogram
    meters: ledger.Meters
    slos: dict[str, table.Slo]
    arrivals: metrics.Counter
    squares: metrics.Counter
    windows: burstiness.Windows
    complexity: metrics.Histogram
    cache_results: dict[str, metrics.Counter]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table in force; ``rules`` are its classes for ``classes.first``."""

    data: table.RoutingTable
    models: frozenset[str]
    tiers: dict[str, Tier]
    rules: tuple[classes.Rule[Class], ...]
    by_name: dict[str, Class]
    scorer: classifier.Model
    tenants: dict[str, table.Tenant]
    watches_sensitive: bool
    refused: ledger.Meters

    @property
    def version(self) -> str:
        """What the operator calls it."""
        return self.data.version


class Compiler:
    """Compiles tables one after the other; what outlives a table (endpoints, ranks, series) lives here."""

    def __init__(self, registry: metrics.Registry, directory: endpoints.Directory) -> None:
        self._registry = registry
        self._directory = directory
        self._ranks: dict[tuple[str, str], weights.RankHistogram] = {}
        self._windows: dict[tuple[str, str], burstiness.Windows] = {}

    def compile(self, data: table.RoutingTable) -> Table:
        """Compile a checked table.

        Raises:
            table.TableError: if an address, URL, key file or classifier can't be used; nothing has changed then.
        """
        scorer = classifier.compile_model(data.classifier)
        _check_numbers(data)
        live = self._directory.update(data.tiers)
        tiers = {tier.name: Tier(tier, live[tier.name]) for tier in data.tiers}
        compiled = [self._compile_class(data, class_, tiers) for class_ in data.classes]
        return Table(
            data=data,
            models=frozenset(data.models),
            tiers=tiers,
            rules=tuple((classes.compile_match(class_.spec.match), class_) for class_ in compiled),
            by_name={class_.spec.name: class_ for class_ in compiled},
            scorer=scorer,
            tenants={tenant.key_sha256.lower(): tenant for tenant in data.tenants.known if tenant.key_sha256},
            watches_sensitive=any(class_.match.sensitive is not None for class_ in data.classes),
            refused=ledger.Meters(self._registry, data.policy, class_=ledger.NO_TIER, tiers=()),
        )

    def _compile_class(self, data: table.RoutingTable, spec: table.Class, tiers: dict[str, Tier]) -> Class:
        reach = classes.reach(spec, tiers.values())
        names = [tier.spec.name for tier in reach.allowed]
        policy, registry = data.policy, self._registry
        alone = promises.promised(spec, None)
        slos = {name: promises.promised(spec, tier.spec) for name, tier in tiers.items()}
        results = ("hit", "miss", "bypass", "store", "skip")
        return Class(
            spec=spec,
            reach=reach,
            allowed=frozenset(names),
            ranks=self._ranks.setdefault((policy, spec.name), weights.RankHistogram()),
            meters=ledger.Meters(registry, policy, class_=spec.name, tiers=names),
            slos={**slos, ledger.NO_TIER: alone, ledger.CACHE_TIER: alone},
            arrivals=registry.counter(telemetry.ARRIVALS, policy, spec.name),
            squares=registry.counter(telemetry.ARRIVAL_SQUARES, policy, spec.name),
            windows=self._windows.setdefault((policy, spec.name), burstiness.Windows()),
            complexity=registry.histogram(telemetry.COMPLEXITY, policy, spec.name),
            cache_results={each: registry.counter(telemetry.CACHE_RESULTS, policy, spec.name, each) for each in results}
            if data.cache is not None
            else {},
        )


def _check_numbers(data: table.RoutingTable) -> None:
    """Rates, capacities and limits must be numbers that arithmetic can bear."""
    for tier in data.tiers:
        rates = (
            tier.rates.input_usd_per_token,
            tier.rates.output_usd_per_token,
            tier.rates.cached_input_usd_per_token,
        )
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise table.TableError(f"tiers[{tier.name}].rates: every rate must be a finite number of at least 0")
        if not all(math.isfinite(each.capacity) for each in tier.endpoints):
            raise table.TableError(f"tiers[{tier.name}].endpoints: every capacity must be a finite number")
