"""The compiled table: what the data form says, as the hot path wants it. Built whole, then swapped in at once."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_core import burstiness, telemetry
from trimtab_core.routing import affinity, classes, classifier, promises, table, weights

from trimtab_router import (
    endpoints,
    first_bytes,
    identity,
    ledger,
    limiting,
    metrics,
    retry_budget,
    sizes,
    waiting_room,
)

Ring = affinity.Ring[endpoints.Endpoint]


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A tier with its live endpoints, and what this router has learned of it.

    Attributes:
        ring: for requests that belong together; None where there is nothing to choose.
        room: where requests wait for it.
        queues: they wait there while its endpoints are full.
        first_bytes: how long its engines take.
    """

    spec: table.Tier
    endpoints: list[endpoints.Endpoint]
    ring: Ring | None
    room: waiting_room.WaitingRoom
    first_bytes: first_bytes.FirstBytes
    queues: bool


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class with everything that serving it needs.

    Attributes:
        reach: tiers that may serve it, and in which order.
        allowed: their names.
        meters: its series, by tier name.
        slos: what it and the tier promise together, by tier name.
        squares, windows: what tells how bunched its arrivals are.
        sizes: what its requests have taken.
        dearest: rates that no tier it may reach is above, tier by tier of what it may reach.
        keyed: some tier of it has a choice of endpoints, so that it matters where a request belongs.
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
    sizes: sizes.Sizes
    dearest: table.Rates
    keyed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table in force.

    Attributes:
        rules: its classes for ``classes.first``.
        retries: what may be asked again; it outlives tables.
        callers: who may call; None if nobody is told apart.
        limiter: of what they may use; None if nobody is limited.
        hedges: a second engine may be asked for a late first byte.
    """

    data: table.RoutingTable
    models: frozenset[str]
    tiers: dict[str, Tier]
    rules: tuple[classes.Rule[Class], ...]
    by_name: dict[str, Class]
    scorer: classifier.Model
    callers: identity.Callers | None
    limiter: limiting.Limiter | None
    watches_sensitive: bool
    refused: ledger.Meters
    retries: retry_budget.RetryBudget
    hedges: bool

    @property
    def version(self) -> str:
        """What the operator calls it."""
        return self.data.version


class Compiler:
    """Compiles tables one after the other; what outlives a table (endpoints, ranks, series, queues) lives here.

    Args:
        registry: of all series.
        directory: of all endpoints.
        loop: that the router runs on.
        rng: of the router.
        clock: monotonic seconds.
        wall_clock: epoch seconds.
        processes: that serve on one port with this one: what each counts in memory would hold in none.
    """

    def __init__(
        self,
        registry: metrics.Registry,
        directory: endpoints.Directory,
        *,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        processes: int = 1,
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._loop, self._rng, self._clock = loop, rng, clock
        self._retries: retry_budget.RetryBudget | None = None
        self._first_bytes: dict[str, first_bytes.FirstBytes] = {}
        self._rings: dict[str, tuple[list[endpoints.Endpoint], Ring]] = {}
        self.rooms: dict[str, waiting_room.WaitingRoom] = {}
        self._wall_clock, self._processes = wall_clock, processes
        self.limiters: list[limiting.Limiter] = []
        self._sizes: dict[tuple[str, str], sizes.Sizes] = {}
        self._ranks: dict[tuple[str, str], weights.RankHistogram] = {}
        self._windows: dict[tuple[str, str], burstiness.Windows] = {}

    def compile(self, data: table.RoutingTable) -> Table:
        """Compile a checked table.

        Raises:
            table.TableError: if an address, URL, key file or classifier can't be used; nothing has changed then.
        """
        scorer = classifier.compile_model(data.classifier)
        _check_numbers(data)
        callers = identity.Callers(data.tenants) if data.tenants != table.Tenants() else None
        limiter = self._limiter(data) if callers is not None and callers.limits else None
        live = self._directory.update(data.tiers, self._clock())
        tiers = {tier.name: self._compile_tier(data.resilience, tier, live[tier.name]) for tier in data.tiers}
        compiled = [self._compile_class(data, class_, tiers) for class_ in data.classes]
        return Table(
            data=data,
            models=frozenset(data.models),
            tiers=tiers,
            rules=tuple((classes.compile_match(class_.spec.match), class_) for class_ in compiled),
            by_name={class_.spec.name: class_ for class_ in compiled},
            scorer=scorer,
            callers=callers,
            limiter=limiter,
            watches_sensitive=any(class_.match.sensitive is not None for class_ in data.classes),
            refused=ledger.Meters(self._registry, data.policy, class_=ledger.NO_TIER, tiers=()),
            retries=self._budget(data.resilience),
            hedges=data.resilience.hedge_quantile > 0,
        )

    def _compile_tier(self, rules: table.Resilience, spec: table.Tier, live: list[endpoints.Endpoint]) -> Tier:
        room = self.rooms.get(spec.name)
        if room is None:
            room = self.rooms[spec.name] = waiting_room.WaitingRoom(self._loop, self._rng)
        room.follow(rules, live)
        learned = self._first_bytes.setdefault(spec.name, first_bytes.FirstBytes())
        learned.learn(rules.hedge_quantile)
        return Tier(spec, live, self._ring(spec.name, live), room, learned, rules.queue_requests > 0)

    def _ring(self, tier: str, live: list[endpoints.Endpoint]) -> Ring | None:
        """Most tables change weights alone, and hundreds of endpoints take milliseconds to place."""
        if len(live) < 2:  # noqa: PLR2004 (nothing to choose)
            self._rings.pop(tier, None)
            return None
        known = self._rings.get(tier)
        if known is None or known[0] != live:
            known = self._rings[tier] = (live, affinity.Ring(live))
        return known[1]

    def _limiter(self, data: table.RoutingTable) -> limiting.Limiter:
        """The one that is there, so that counts outlive tables; another store begins anew."""
        store = data.tenants.store
        if store.kind == "Memory" and self._processes > 1:
            raise table.TableError(
                f"tenants.store: limits in memory hold for one process and this router has {self._processes}: "
                "start it with --workers 1, or set the store to a Redis"
            )
        for known in self.limiters:
            if known.store == store:
                return known
        made = limiting.Limiter(
            store,
            data.policy,
            registry=self._registry,
            clock=self._clock,
            wall_clock=self._wall_clock,
            trust=self._directory.trust,
        )
        self.limiters.append(made)
        return made

    def _budget(self, rules: table.Resilience) -> retry_budget.RetryBudget:
        if self._retries is None:
            self._retries = retry_budget.RetryBudget(rules)
        self._retries.follow(rules)
        return self._retries

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
            sizes=self._sizes.setdefault((policy, spec.name), sizes.Sizes()),
            dearest=_dearest([tier.spec.rates for order in reach.wider.values() for tier in order]),
            keyed=any(tier.ring is not None for tier in reach.allowed),
        )


def _dearest(rates: list[table.Rates]) -> table.Rates:
    """Rates that none of these is above, whatever is cached."""
    inputs = max((max(each.input_usd_per_token, each.cached_input_usd_per_token) for each in rates), default=0.0)
    return table.Rates(inputs, max((each.output_usd_per_token for each in rates), default=0.0), inputs)


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
