"""A router in simulated time: the shipped classification, weights and endpoint choice on the shipped table.

Only what needs sockets is left out. One router is simulated: counts in flight are exact, as they are for one router.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core.routing import classes, classifier, features, filters, picker, scorers, table, weights

from trimtab_sim import prompts
from trimtab_sim.workload import Request

_MEAN_RANK = 0.5


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a router finds in a prompt.

    Attributes:
        complexity: score in [0, 1].
        sensitive: a mark of personal data was found.
    """

    complexity: float
    sensitive: bool


@dataclass(frozen=True, slots=True)
class _Traits:
    """A trace's request as classes see it: it asks for the first model of the policy; ``classes.Traits``."""

    complexity: float
    sensitive: bool
    model: str
    tenant: str = ""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)


class Endpoint:
    """One engine as the router sees it; a ``picker.Candidate``."""

    __slots__ = ("capacity", "in_flight", "name", "penalty", "ready")

    def __init__(self, name: str, capacity: float) -> None:
        self.name = name
        self.capacity = capacity
        self.ready = True
        self.in_flight = 0
        self.penalty = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A tier with its endpoints; a ``classes.Live``."""

    spec: table.Tier
    endpoints: list[Endpoint]


@dataclass(slots=True)
class Choice:
    """Where a request goes.

    Attributes:
        request_class: that takes it.
        reach: tiers that may serve that class.
        tier: that should serve it; None if no tier of the class has an endpoint now.
        endpoint: of that tier; None for an external one.
        rank: of its complexity among the class's requests so far, in [0, 1); 0.5, their mean, where one tier has all
            of the class and the router asks nobody.
        external: the tier is served by a provider.
    """

    request_class: table.Class
    reach: classes.Reach[Tier]
    tier: table.Tier | None
    endpoint: Endpoint | None
    rank: float
    external: bool = False


class _Class:
    """A class of the table in force, and the scores that it was split by under this and earlier ones."""

    __slots__ = ("needs_score", "ranks", "reach", "spec")

    def __init__(self, spec: table.Class, reach: classes.Reach[Tier], before: _Class | None) -> None:
        self.spec = spec
        self.reach = reach
        self.needs_score = reach.needs_score
        self.ranks: weights.RankHistogram = weights.RankHistogram() if before is None else before.ranks


class Dispatcher:
    """Routes requests by the table in force.

    Args:
        seed: of all random choices.
        source: of the prompts.
    """

    def __init__(self, seed: int, source: prompts.Source) -> None:
        self._source = source
        self._rng = random.Random(f"dispatch {seed}")
        self._found: dict[Hashable, tuple[Judgement, int | None]] = {}  # the class by its place in the table
        self._classes: list[_Class] = []
        self._endpoints: dict[str, Endpoint] = {}
        self._rules: list[classes.Rule[int]] = []
        self._asks_for = ""
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
        known, self._endpoints = self._endpoints, {}
        tiers = [Tier(tier, [self._adopt(known, each) for each in tier.endpoints]) for tier in new.tiers]
        before = {each.spec.name: each for each in self._classes}
        self._classes = [_Class(each, classes.reach(each, tiers), before.get(each.name)) for each in new.classes]
        if self._table is None or _judges_otherwise(new, self._table):
            self._found.clear()
            self._rules = [(classes.compile_match(each.match), at) for at, each in enumerate(new.classes)]
        self._asks_for = next(iter(new.models), "")
        self._table = new

    def reach(self, name: str) -> classes.Reach[Tier]:
        """The tiers of a class. Raises KeyError for one that is not in the table in force."""
        return {each.spec.name: each.reach for each in self._classes}[name]

    def leave(self, name: str) -> None:
        """An endpoint takes no new requests from now on."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            endpoint.ready = False

    def judge(self, request: Request) -> Judgement:
        """What the classifier says; requests that it can't tell apart are judged once."""
        return _judged(self._model, self._source, _Keyed(self._source.key(request), request))

    def choose(self, request: Request) -> Choice | None:
        """Class, tier and endpoint for a request; None when no class matches or there is no table.

        The rank among the class's scores names the tier, if more than one has a share. If that has no endpoint, others
        are tried in the router's order.
        """
        if self._table is None:
            return None
        of = self._source.key(request)
        judgement, place = self._found.get(of) or self._find_class(of, request)
        if place is None:
            return None
        found, rank = self._classes[place], _MEAN_RANK
        spec, reach = found.spec, found.reach
        if reach.intervals is None:
            return Choice(spec, reach, None, None, rank)
        if found.needs_score:
            rank = found.ranks.rank(judgement.complexity, self._rng)
            first = reach.intervals.owner(rank)
        else:
            first = reach.intervals.tiers[0]
        for tier in reach.order(first, closed=judgement.sensitive):
            endpoint = picker.pick(tier.endpoints, self._rng)
            if endpoint is not None:
                return Choice(spec, reach, tier.spec, endpoint, rank)
            if tier.spec.external is not None:
                return Choice(spec, reach, tier.spec, None, rank, external=True)
        return Choice(spec, reach, None, None, rank)

    def classify(self, judgement: Judgement) -> table.Class | None:
        """The first class that matches; None if none does. Trace requests have no headers and no tenants."""
        place = self._place(judgement)
        return None if place is None else self._classes[place].spec

    def _place(self, judgement: Judgement) -> int | None:
        return classes.first(self._rules, _Traits(judgement.complexity, judgement.sensitive, self._asks_for))

    def _find_class(self, of: Hashable, request: Request) -> tuple[Judgement, int | None]:
        """What the classifier says and the class that takes it, looked up once for requests of one signature."""
        judgement = self.judge(request)
        found = self._found[of] = (judgement, self._place(judgement))
        return found

    def _adopt(self, known: dict[str, Endpoint], listed: table.Endpoint) -> Endpoint:
        endpoint = known.get(listed.name) or Endpoint(listed.name, listed.capacity)
        endpoint.capacity, endpoint.ready = max(1.0, listed.capacity), filters.admits(listed.state)
        endpoint.penalty = scorers.penalty(endpoint.capacity, kv_usage=listed.kv_usage)
        self._endpoints[listed.name] = endpoint
        return endpoint


def _judges_otherwise(new: table.RoutingTable, old: table.RoutingTable) -> bool:
    """Whether a request may find another class than before."""
    return (
        new.classifier != old.classifier
        or new.models != old.models
        or [each.match for each in new.classes] != [each.match for each in old.classes]
    )


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A request that stands for all of its key."""

    key: Hashable
    request: Request = field(compare=False)


@functools.lru_cache(maxsize=1 << 16)
def _judged(model: classifier.Model, source: prompts.Source, of: _Keyed) -> Judgement:
    return judge(model, source.messages(of.request))


def judge(model: classifier.Model, messages: Sequence[prompts.Message]) -> Judgement:
    """Score a prompt and look for marks of personal data, as a router does with the body of a request."""
    body = json.dumps({"model": "auto", "messages": messages}, separators=(",", ":")).encode()
    values = features.extract(messages[-1]["content"], turns=len(messages), context_chars=len(body))
    return Judgement(classifier.score(model, values), bool(features.sensitive_mark(body)))
