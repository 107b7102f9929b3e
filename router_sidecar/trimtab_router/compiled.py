"""The compiled table: what the data form says, as the hot path wants it. Built whole, then swapped in at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab_core import telemetry
from trimtab_core.routing import classifier, table, weights

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
        orders: tier → tiers to try: itself, then better ones upwards, then lesser ones downwards.
        wider: the same over tiers beyond ``allow``, for classes that fall back to any; else empty.
        allowed: names of the tiers that may serve it.
        intervals: shares of the rank of complexity; None if no tier may serve it.
        needs_score: more than one tier has a share, so the complexity decides.
        meters: its series, by tier name.
        slos: by tier name: the class's own, else the tier's.
    """

    spec: table.Class
    orders: dict[str, tuple[Tier, ...]]
    wider: dict[str, tuple[Tier, ...]]
    allowed: frozenset[str]
    intervals: weights.Intervals | None
    ranks: weights.RankHistogram
    meters: ledger.Meters
    slos: dict[str, table.Slo]
    arrivals: metrics.Counter
    complexity: metrics.Histogram
    cache_results: dict[str, metrics.Counter]

    @property
    def needs_score(self) -> bool:
        """Whether complexity decides inside the class."""
        return self.intervals is not None and len(self.intervals.tiers) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table in force."""

    data: table.RoutingTable
    models: frozenset[str]
    tiers: dict[str, Tier]
    classes: tuple[Class, ...]
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

    def compile(self, data: table.RoutingTable) -> Table:
        """Compile a checked table.

        Raises:
            table.TableError: if an address, URL, key file or classifier can't be used; nothing has changed then.
        """
        scorer = classifier.compile_model(data.classifier)
        _check_numbers(data)
        live = self._directory.update(data.tiers)
        tiers = {tier.name: Tier(tier, live[tier.name]) for tier in data.tiers}
        classes = tuple(self._compile_class(data, class_, tiers) for class_ in data.classes)
        return Table(
            data=data,
            models=frozenset(data.models),
            tiers=tiers,
            classes=classes,
            by_name={class_.spec.name: class_ for class_ in classes},
            scorer=scorer,
            tenants={tenant.key_sha256.lower(): tenant for tenant in data.tenants.known if tenant.key_sha256},
            watches_sensitive=any(class_.match.sensitive is not None for class_ in data.classes),
            refused=ledger.Meters(self._registry, data.policy, class_=ledger.NO_TIER, tiers=()),
        )

    def _compile_class(self, data: table.RoutingTable, spec: table.Class, tiers: dict[str, Tier]) -> Class:
        by_quality = sorted(tiers.values(), key=lambda tier: (tier.spec.quality, tier.spec.name))
        # An empty list means all tiers, but a class that fails closed must name what it trusts.
        closed = spec.reject_when_unavailable or bool(spec.match.sensitive)
        names = frozenset(spec.allow) if spec.allow or closed else frozenset(tiers)
        allowed = [tier for tier in by_quality if tier.spec.name in names]
        shares = dict(spec.weights) if any(spec.weights.values()) else {tier.spec.name: 1.0 for tier in allowed[-1:]}
        # Tiers of equal quality: the cheaper one first, so that the easiest prompts go there.
        cheap_first = sorted(allowed, key=lambda tier: (tier.spec.quality, tier.spec.rates.output_usd_per_token))
        others = [] if closed else [tier for tier in by_quality if tier.spec.name not in names]
        policy, registry = data.policy, self._registry
        labels = [*tiers, ledger.NO_TIER, ledger.CACHE_TIER]
        results = ("hit", "miss", "bypass", "store", "skip")
        return Class(
            spec=spec,
            orders={tier.spec.name: _order(tier, allowed) for tier in allowed},
            wider={tier.spec.name: _order(tier, others) for tier in allowed},
            allowed=names,
            intervals=weights.intervals(shares, [tier.spec.name for tier in cheap_first]),
            ranks=self._ranks.setdefault((policy, spec.name), weights.RankHistogram()),
            meters=ledger.Meters(registry, policy, class_=spec.name, tiers=[tier.spec.name for tier in allowed]),
            slos={tier: _slo(spec, tiers.get(tier)) for tier in labels},
            arrivals=registry.counter(telemetry.ARRIVALS, policy, spec.name),
            complexity=registry.histogram(telemetry.COMPLEXITY, policy, spec.name),
            cache_results={each: registry.counter(telemetry.CACHE_RESULTS, policy, spec.name, each) for each in results}
            if data.cache is not None
            else {},
        )


def _order(first: Tier, tiers: list[Tier]) -> tuple[Tier, ...]:
    """``first`` if it is among them, then those of higher quality upwards, then those of lower downwards."""
    better = [tier for tier in tiers if tier is not first and tier.spec.quality >= first.spec.quality]
    lesser = [tier for tier in reversed(tiers) if tier.spec.quality < first.spec.quality]
    head = [first] if first in tiers else []
    return (*head, *better, *lesser)


def _slo(spec: table.Class, tier: Tier | None) -> table.Slo:
    own = spec.slo
    if tier is None or any(limit is not None for limit in (own.ttft_seconds, own.itl_seconds, own.e2e_seconds)):
        return own
    return tier.spec.slo


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
