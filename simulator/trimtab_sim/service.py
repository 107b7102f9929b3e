"""Requests on their way through a simulated router: cache, choice, hold, retry, and the account at the end.

It does what the HTTP router does, in its order, and counts what that counts; so the controller's signals come from
the same events. Knows nothing of controllers.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_core import burstiness, economics, quality, telemetry
from trimtab_core.routing import promises
from trimtab_core.routing import table as tables

from trimtab_sim import dispatch, engine, meters, prompts, replicas, report
from trimtab_sim.workload import Request

EXTERNAL_TTFT_SECONDS = 0.6
EXTERNAL_ITL_SECONDS = 0.015
"""How fast an external provider answers, whatever the load: assumed, as nobody publishes it."""

OK, CACHED, FAILED, NO_TIER = "ok", "cached", "failed", "none"
HIT, MISS, STORE = "hit", "miss", "store"


Witness = Callable[[Request, report.Outcome], None]
"""Told of each request and how it ended, those of the prologue included."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One request under way."""

    request: Request
    choice: dispatch.Choice
    attempts: int = 0
    deadline: engine.Event | None = None


class _ExactCache:
    """Equal prompt, equal answer: a bounded store in which the answer unused for longest goes first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def get(self, prompt: int, now: float) -> float | None:
        """Quality of the stored answer, or None."""
        entry = self._entries.get(prompt)
        if entry is None or entry[0] < now:
            return None
        self._entries.move_to_end(prompt)
        return entry[1]

    def put(self, prompt: int, *, expires: float, quality_: float, limit: int) -> None:
        """Store an answer."""
        self._entries[prompt] = (expires, quality_)
        self._entries.move_to_end(prompt)
        while len(self._entries) > limit:
            self._entries.popitem(last=False)


class Service:
    """The data plane of one policy.

    Args:
        clock: the engine of events.
        counts: where the router counts.
        recorder: where every request's outcome goes.
        find: the replica of that name, or None when it is gone.
        policy: ``namespace/name``.
        seed: of random choices.
        source: of the prompts.
        witness: told of every request's outcome, if anybody wants to know.
    """

    def __init__(
        self,
        *,
        clock: engine.Engine,
        counts: meters.Meters,
        recorder: report.Recorder,
        find: Callable[[str], replicas.Replica | None],
        policy: str,
        seed: int,
        source: prompts.Source,
        witness: Witness | None = None,
    ) -> None:
        self._clock = clock
        self._meters = counts
        self._recorder = recorder
        self._find = find
        self._policy = policy
        self._source = source
        self._witness = witness
        self._dispatcher = dispatch.Dispatcher(seed, source)
        self._cache = _ExactCache()
        self._rules: tables.RoutingTable | None = None
        self._use_cache = True
        self._promises: dict[tuple[str, str], report.Promise] = {}
        self._priors: dict[str, tuple[tables.Tier | None, float]] = {}
        self._windows: dict[str, burstiness.Windows] = defaultdict(burstiness.Windows)
        self._held: list[_Flight] = []
        self._flights: dict[_Flight, None] = {}  # in order of arrival
        self.external_usd = 0.0

    @property
    def unsettled(self) -> int:
        """Requests that have not ended."""
        return len(self._flights)

    def serve_by(self, rules: tables.RoutingTable, *, use_cache: bool) -> None:
        """Serve by a new table from now on; requests that were held for a tier try again."""
        self._dispatcher.install(rules)
        self._rules, self._use_cache = rules, use_cache
        self._promises.clear()
        self._priors.clear()
        self._meters.serve_by(self._policy, rules.version)
        held, self._held = self._held, []
        for flight in held:
            self._route(flight)

    def leave(self, endpoint: str) -> None:
        """The endpoint takes no new requests."""
        self._dispatcher.leave(endpoint)

    def arrive(self, request: Request) -> None:
        """A request comes in."""
        choice = self._dispatcher.choose(request)
        if choice is None:
            self._record(request, report.Outcome(request.arrival_s, report.FAILED, met=False))
            return
        labels = (self._policy, choice.request_class.name)
        self._meters.count(telemetry.ARRIVALS, labels)
        self._meters.count(telemetry.ARRIVAL_SQUARES, labels, self._windows[labels[1]].arrive(self._clock.now))
        flight = _Flight(request, choice)
        self._flights[flight] = None
        if self._cache_rules is not None:
            found = self._cache.get(request.prompt, self._clock.now)
            self._meters.count(telemetry.CACHE_RESULTS, (*labels, MISS if found is None else HIT))
            if found is not None:
                self._settle(flight, report.CACHE, (0.0, None, 0.0), found)
                return
        self._send(flight)

    def empty_cache(self) -> None:
        """All stored answers are forgotten."""
        self._cache = _ExactCache()

    def give_up(self) -> None:
        """The run is over: what has not ended by now has failed."""
        for flight in list(self._flights):
            self._fail(flight)

    @property
    def _cache_rules(self) -> tables.Cache | None:
        rules = self._rules.cache if self._rules is not None and self._use_cache else None
        return rules if rules is not None and rules.exact else None

    def _route(self, flight: _Flight) -> None:
        """Choose again: the table has changed, or an engine has died."""
        choice = self._dispatcher.choose(flight.request)
        if choice is None:
            self._fail(flight)
            return
        flight.choice = choice
        self._send(flight)

    def _send(self, flight: _Flight) -> None:
        choice = flight.choice
        flight.attempts += 1
        if choice.external and choice.tier is not None:
            self._send_out(flight, choice.tier)
            return
        replica = self._find(choice.endpoint.name) if choice.endpoint is not None else None
        if choice.endpoint is None or replica is None:
            self._hold(flight)
            return
        if not replica.processor.fits(flight.request):
            self._fail(flight)
            return
        choice.endpoint.in_flight += 1
        replica.submit(replicas.Job(flight.request, lambda job: self._done(flight, job)))

    def _send_out(self, flight: _Flight, tier: tables.Tier) -> None:
        """To a provider: a fixed speed, and a price for each token."""
        request = flight.request
        duration = EXTERNAL_TTFT_SECONDS + EXTERNAL_ITL_SECONDS * (request.output_tokens - 1)
        if request.arrival_s >= 0:
            self.external_usd += _usd(tier.rates, request)
        arrived = request.arrival_s

        def finish() -> None:
            waited = self._clock.now - duration - arrived
            itl = EXTERNAL_ITL_SECONDS if request.output_tokens > 1 else None
            self._settle(flight, tier.name, (waited + EXTERNAL_TTFT_SECONDS, itl, waited + duration), None)

        self._clock.after(duration, finish, engine.Order.FINISH)

    def _hold(self, flight: _Flight) -> None:
        """Wait for a tier to wake, as long as the tiers allow; then fail."""
        if flight.deadline is None:
            limit = flight.choice.reach.hold_seconds
            if limit <= 0:
                self._fail(flight)
                return
            flight.deadline = self._clock.after(limit, lambda: self._fail(flight))
        self._held.append(flight)

    def _done(self, flight: _Flight, job: replicas.Job) -> None:
        """An engine has ended a request, or has died under it."""
        choice = flight.choice
        assert choice.tier is not None
        assert choice.endpoint is not None
        choice.endpoint.in_flight -= 1
        if job.finished_at is None or job.first_token_at is None:
            allowed = 1 + (self._rules.resilience.max_fallbacks if self._rules else 0)
            if job.first_token_at is None and flight.attempts < allowed:
                self._route(flight)
            else:
                self._fail(flight)
            return
        arrived = flight.request.arrival_s
        latencies = (job.first_token_at - arrived, job.itl_seconds, job.finished_at - arrived)
        self._settle(flight, choice.tier.name, latencies, None)

    def _settle(
        self,
        flight: _Flight,
        tier: str,
        latencies: tuple[float, float | None, float],
        stored_quality: float | None,
    ) -> None:
        """A complete answer: count it, record it, maybe store it."""
        if not self._end(flight):
            return
        if flight.deadline is not None:
            flight.deadline.cancel()
        request, choice = flight.request, flight.choice
        earned, best = self._quality(request, choice)
        served = choice.tier
        if stored_quality is None:
            self._account(flight, latencies)
            self._store(request, choice, earned)
        else:
            served, earned = None, stored_quality
            self._meters.count(telemetry.REQUESTS, (self._policy, choice.request_class.name, report.CACHE, CACHED))
        met = self._promised(choice.request_class, served).met(*latencies)
        outcome = report.Outcome(request.arrival_s, tier, met, *latencies, quality=earned, best_quality=best)
        self._record(request, outcome)

    def _fail(self, flight: _Flight) -> None:
        if not self._end(flight):
            return
        if flight in self._held:
            self._held.remove(flight)
        choice = flight.choice
        labels = (self._policy, choice.request_class.name, choice.tier.name if choice.tier is not None else NO_TIER)
        self._meters.count(telemetry.REQUESTS, (*labels, FAILED))
        counted = self._promised(choice.request_class, choice.tier)
        for name, limit in (("ttft", counted.ttft_s), ("e2e", counted.e2e_s)):
            if limit is not None:
                self._meters.count(telemetry.SLO_MEASURED, (*labels, name))
        _, best = self._quality(flight.request, choice)
        outcome = report.Outcome(flight.request.arrival_s, report.FAILED, met=False, best_quality=best)
        self._record(flight.request, outcome)

    def _record(self, request: Request, outcome: report.Outcome) -> None:
        self._recorder.add(outcome)
        if self._witness is not None:
            self._witness(request, outcome)

    def _end(self, flight: _Flight) -> bool:
        """Whether it was under way until now: every request ends once."""
        if flight not in self._flights:
            return False
        del self._flights[flight]
        return True

    def _account(self, flight: _Flight, latencies: tuple[float, float | None, float]) -> None:
        """What the router counts when a request ends."""
        request, choice, count = flight.request, flight.choice, self._meters.count
        assert choice.tier is not None
        assert self._rules is not None
        labels = (self._policy, choice.request_class.name, choice.tier.name)
        count(telemetry.REQUESTS, (*labels, OK))
        count(telemetry.INPUT_TOKENS, labels, request.input_tokens)
        count(telemetry.OUTPUT_TOKENS, labels, request.output_tokens)
        count(telemetry.COST_USD, (*labels, ""), _usd(choice.tier.rates, request))
        count(telemetry.BASELINE_USD, labels[:2], _usd(self._rules.baseline, request))
        counted = self._promised(choice.request_class, choice.tier)
        limits = (("ttft", counted.ttft_s), ("itl", counted.itl_s), ("e2e", counted.e2e_s))
        for (name, limit), value in zip(limits, latencies, strict=True):
            if limit is not None and value is not None:
                count(telemetry.SLO_MEASURED, (*labels, name))
                count(telemetry.SLO_MET, (*labels, name), float(value <= limit))

    def _store(self, request: Request, choice: dispatch.Choice, earned: float) -> None:
        rules = self._cache_rules
        if rules is None or request.sensitive:
            return
        self._cache.put(
            request.prompt, expires=self._clock.now + rules.ttl_seconds, quality_=earned, limit=rules.max_entries
        )
        self._meters.count(telemetry.CACHE_RESULTS, (self._policy, choice.request_class.name, STORE))

    def _quality(self, request: Request, choice: dispatch.Choice) -> tuple[float, float]:
        """How good the tier's answer is, and that of the best allowed tier: known outcomes, else estimates by rank."""
        name = choice.request_class.name
        if name not in self._priors:
            allowed = [tier.spec for tier in choice.reach.allowed]
            self._priors[name] = (
                max(allowed, key=lambda tier: tier.quality, default=None),
                quality.discrimination([tier.quality for tier in allowed]),
            )
        best, m = self._priors[name]
        match = choice.request_class.match
        at = match.complexity_min + (match.complexity_max - match.complexity_min) * choice.rank

        def of(tier: tables.Tier | None, otherwise: float) -> float:
            if tier is None:
                return otherwise
            known = self._source.outcome(request, tier.model)
            return quality.expected(tier.quality, at, at, m) if known is None else known

        return of(choice.tier, 0.0), of(best, 1.0)

    def _promised(self, request_class: tables.Class, tier: tables.Tier | None) -> report.Promise:
        """What must hold; a cached answer has no tier."""
        key = (request_class.name, tier.name if tier is not None else "")
        if key not in self._promises:
            self._promises[key] = report.Promise.of(promises.promised(request_class, tier))
        return self._promises[key]


def _usd(rates: tables.Rates, request: Request) -> float:
    return economics.request_usd(
        rates, input_tokens=request.input_tokens, cached_input_tokens=0, output_tokens=request.output_tokens
    )
