"""A router in simulated time: the shipped classification, weights and endpoint choice on the shipped table.

Only what needs sockets is left out. One router is simulated: counts in flight are exact, as they are for one router.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab_core.routing import classifier, features, filters, picker, table, weights

from trimtab_sim import prompts
from trimtab_sim.workload import Request


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a router finds in a prompt.

    Attributes:
        complexity: score in [0, 1].
        sensitive: a mark of personal data was found.
    """

    complexity: float
    sensitive: bool


class Endpoint:
    """One engine as the router sees it; a ``filters.Candidate``."""

    __slots__ = ("capacity", "ejected_until", "in_flight", "name", "ready")

    def __init__(self, name: str, capacity: float) -> None:
        self.name = name
        self.capacity = capacity
        self.ready = True
        self.in_flight = 0
        self.ejected_until = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes.

    Attributes:
        request_class: that takes it.
        tier: that should serve it; None if no tier of the class has an endpoint now.
        endpoint: of that tier; None for an external one.
        rank: of its complexity among all requests of the class so far, in [0, 1).
        external: the tier is served by a provider.
    """

    request_class: table.Class
    tier: table.Tier | None
    endpoint: Endpoint | None
    rank: float
    external: bool = False


class Dispatcher:
    """Routes requests by the table in force.

    Args:
        seed: of the synthetic prompts and of all random choices.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = random.Random(f"dispatch {seed}")
        self._found: dict[prompts.Signature, tuple[Judgement, table.Class | None]] = {}
        self._ranks: dict[str, weights.RankHistogram] = {}
        self._seen: dict[str, weights.RankHistogram] = {}
        self._seen_rng = random.Random(f"seen {seed}")
        self._orders: dict[tuple[str, str], tuple[str, ...]] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._by_tier: dict[str, list[Endpoint]] = {}
        self._intervals: dict[str, weights.Intervals | None] = {}
        self._tiers: dict[str, table.Tier] = {}
        self._table: table.RoutingTable | None = None
        self._model = classifier.compile_model(table.Classifier())

    @property
    def in_force(self) -> table.RoutingTable | None:
        """The table in force; None before the first."""
        return self._table

    def install(self, new: table.RoutingTable) -> None:
        """Take a table over: endpoints that stay keep their counts. Raises TableError if the table is no good."""
        table.check(new)
        if self._table is None or new.classifier != self._table.classifier:
            self._model = classifier.compile_model(new.classifier)
        cheap_first = sorted(new.tiers, key=lambda tier: (tier.quality, tier.rates.output_usd_per_token))
        by_quality = [tier.name for tier in cheap_first]
        self._intervals = {each.name: weights.intervals(each.weights, by_quality) for each in new.classes}
        self._tiers = {tier.name: tier for tier in new.tiers}
        self._orders.clear()
        self._ranks = {each.name: self._ranks.get(each.name) or weights.RankHistogram() for each in new.classes}
        self._seen = {each.name: self._seen.get(each.name) or weights.RankHistogram() for each in new.classes}
        self._found.clear()
        known, self._endpoints, self._by_tier = self._endpoints, {}, {}
        for tier in new.tiers:
            self._by_tier[tier.name] = [self._adopt(known, each) for each in tier.endpoints]
        self._table = new

    def leave(self, name: str) -> None:
        """An endpoint takes no new requests from now on."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            endpoint.ready = False

    def judge(self, request: Request) -> Judgement:
        """What the classifier says; requests that it can't tell apart are judged once."""
        return _judged(self._model, prompts.signature(request), self._seed)

    def choose(self, request: Request) -> Choice | None:
        """Class, tier and endpoint for a request; None when no class matches or there is no table.

        The rank among the class's scores names the tier, if more than one has a share. If that has no endpoint, others
        are tried in the router's order.
        """
        if self._table is None:
            return None
        judgement, found = self._find_class(self._table, request)
        if found is None:
            return None
        rank = self._seen[found.name].rank(judgement.complexity, self._seen_rng)
        owned = self._intervals[found.name]
        if owned is None:
            return Choice(found, None, None, rank)
        first = owned.tiers[0]
        if len(owned.tiers) > 1:
            first = owned.owner(self._ranks[found.name].rank(judgement.complexity, self._rng))
        for name in self._order(found, first, closed=judgement.sensitive):
            tier = self._tiers[name]
            endpoint = picker.pick(filters.eligible(self._by_tier[name], now=0.0, tried=()), self._rng)
            if endpoint is not None:
                return Choice(found, tier, endpoint, rank)
            if tier.external is not None:
                return Choice(found, tier, None, rank, external=True)
        return Choice(found, None, None, rank)

    def hold_seconds(self, request_class: table.Class) -> float:
        """How long a request of the class may wait for a tier to wake."""
        return max((self._tiers[name].hold_seconds for name in request_class.allow if name in self._tiers), default=0.0)

    def qualities(self, request_class: table.Class) -> tuple[float, ...]:
        """Prior quality of every tier that the class may use."""
        return tuple(self._tiers[name].quality for name in request_class.allow if name in self._tiers)

    def _find_class(self, rules: table.RoutingTable, request: Request) -> tuple[Judgement, table.Class | None]:
        """What the classifier says and the class that takes it, looked up once for requests of one signature."""
        of = prompts.signature(request)
        found = self._found.get(of)
        if found is None:
            judgement = _judged(self._model, of, self._seed)
            found = self._found[of] = (judgement, classify(rules, judgement))
        return found

    def _adopt(self, known: dict[str, Endpoint], listed: table.Endpoint) -> Endpoint:
        endpoint = known.get(listed.name) or Endpoint(listed.name, listed.capacity)
        endpoint.capacity, endpoint.ready = max(1.0, listed.capacity), listed.state == "Ready"
        self._endpoints[listed.name] = endpoint
        return endpoint

    def _order(self, request_class: table.Class, first: str, *, closed: bool) -> tuple[str, ...]:
        """The tier of the weights, better allowed ones upwards, lesser ones downwards; then the same of other tiers.

        A class that fails closed and a sensitive request have no other tiers.
        """
        closed = closed or request_class.reject_when_unavailable or bool(request_class.match.sensitive)
        key = (request_class.name if not closed else f"{request_class.name} closed", first)
        if key not in self._orders:
            own = [name for name in self._tiers if name in request_class.allow]
            beyond = [] if closed else [name for name in self._tiers if name not in request_class.allow]
            self._orders[key] = (first, *self._around(first, own), *self._around(first, beyond))
        return self._orders[key]

    def _around(self, first: str, names: Sequence[str]) -> tuple[str, ...]:
        quality = self._tiers[first].quality
        others = sorted((name for name in names if name != first), key=lambda name: (self._tiers[name].quality, name))
        better = [name for name in others if self._tiers[name].quality >= quality]
        lesser = [name for name in reversed(others) if self._tiers[name].quality < quality]
        return (*better, *lesser)


@functools.lru_cache(maxsize=1 << 16)
def _judged(model: classifier.Model, of: prompts.Signature, seed: int) -> Judgement:
    return judge(model, prompts.messages(prompts.representative(of), seed))


def judge(model: classifier.Model, messages: Sequence[prompts.Message]) -> Judgement:
    """Score a prompt and look for marks of personal data, as a router does with the body of a request."""
    body = json.dumps({"model": "auto", "messages": messages}, separators=(",", ":")).encode()
    values = features.extract(messages[-1]["content"], turns=len(messages), context_chars=len(body))
    return Judgement(classifier.score(model, values), bool(features.sensitive_mark(body)))


def classify(rules: table.RoutingTable, judgement: Judgement) -> table.Class | None:
    """The first class that matches; None if none does. Trace requests have no headers, tenants or priorities."""
    return next((each for each in rules.classes if _matches(each.match, judgement, rules.models)), None)


def _matches(match: table.Match, judgement: Judgement, models: Sequence[str]) -> bool:
    tests: tuple[Callable[[], bool], ...] = (
        lambda: match.sensitive is None or match.sensitive == judgement.sensitive,
        lambda: match.priority is None and not match.tenants and not match.headers,
        lambda: not match.models or bool(set(match.models) & set(models[:1])),
        lambda: match.complexity_min <= judgement.complexity,
        lambda: judgement.complexity < match.complexity_max or match.complexity_max >= 1,
    )
    return all(test() for test in tests)
