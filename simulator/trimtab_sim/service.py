"""Requests on their way through a simulated router: cache, choice, hold, retry, and the account at the end.

It does what the HTTP router does, in its order, and counts what that counts; so the controller's signals come from
the same events. Knows nothing of controllers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from trimtab_core import economics, telemetry
from trimtab_core.routing import promises
from trimtab_core.routing import table as tables

from trimtab_sim import dispatch, engine, meters, prompts, replicas, report, tallies
from trimtab_sim.workload import Request

EXTERNAL_TTFT_SECONDS = 0.6
EXTERNAL_ITL_SECONDS = 0.015
"""How fast an external provider answers, whatever the load: assumed, as nobody publishes it."""


Witness = Callable[[Request, report.Outcome], None]
"""Told of each request and how it ended, those of the prologue included."""


class _Flight(replicas.Job):
    """One request under way."""

    __slots__ = ("attempts", "choice", "deadline", "of")

    def __init__(
        self, request: Request, done: Callable[[_Flight], None], choice: dispatch.Choice, of: tallies.Class
    ) -> None:
        super().__init__(request, done)
        self.choice = choice
        self.of = of
        self.attempts = 0
        self.deadline: engine.Event | None = None


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
        self._cache_rules: tables.Cache | None = None
        self._left = False
        self._classes: dict[str, tallies.Class] = {}
        self._held: dict[_Flight, None] = {}  # in order of arrival, as these
        self._flights: dict[_Flight, None] = {}
        # made-up prompts have no known outcomes: nobody needs to ask for each request
        self._outcome = None if isinstance(source, prompts.Synthetic) else source.outcome
        self.external_usd = 0.0
        counts.gather(self._pour)

    @property
    def unsettled(self) -> int:
        """Requests that have not ended."""
        return len(self._flights)

    def serve_by(self, rules: tables.RoutingTable, *, use_cache: bool) -> None:
        """Serve by a new table from now on; requests that were held for a tier try again.

        A table of equal content is no new one, as for the operator, unless endpoints have left since the last.
        """
        equal = self._rules is not None and rules.content_hash == self._rules.content_hash
        if equal and use_cache == self._use_cache and not self._left:
            return
        self._left, self._use_cache = False, use_cache
        self._pour()
        self._dispatcher.install(rules)
        self._rules = rules
        self._cache_rules = rules.cache if use_cache and rules.cache is not None and rules.cache.exact else None
        for spec in rules.classes:
            allowed = [tier.spec for tier in self._dispatcher.reach(spec.name).allowed]
            self._classes.setdefault(spec.name, tallies.Class()).rule(spec, rules, allowed)
        self._meters.serve_by(self._policy, rules.version)
        held, self._held = self._held, {}
        for flight in held:
            self._route(flight)

    def overdue(self) -> int:
        """Requests under way (those of the prologue not counted) that will miss the SLO whatever happens to them."""
        now, count = self._clock.now, 0
        for flight in self._flights:
            arrived, of = flight.request.arrival_s, flight.of
            if arrived >= 0:
                first = now if flight.first_token_at is None else flight.first_token_at
                count += first - arrived > of.loosest_ttft_s or now - arrived > of.loosest_e2e_s
        return count

    def leave(self, endpoint: str) -> None:
        """The endpoint takes no new requests."""
        self._left = True
        self._dispatcher.leave(endpoint)

    def arrive(self, request: Request) -> None:
        """A request comes in."""
        choice = self._dispatcher.choose(request)
        if choice is None:
            self._record(request, report.Outcome(request.arrival_s, report.FAILED, met=False))
            return
        of, now = self._classes[choice.request_class.name], self._clock.now
        of.arrivals += 1
        of.squares += of.windows.arrive(now)
        flight = _Flight(request, self._done, choice, of)
        self._flights[flight] = None
        if self._cache_rules is not None:
            found = self._cache.get(request.prompt, now)
            if found is not None:
                of.hits += 1
                self._settle(flight, (0.0, None, 0.0), found)
                return
            of.misses += 1
        self._send(flight)

    def empty_cache(self) -> None:
        """All stored answers are forgotten."""
        self._cache = _ExactCache()

    def give_up(self) -> None:
        """The run is over: what has not ended by now has failed."""
        for flight in list(self._flights):
            self._fail(flight)

    def _pour(self) -> None:
        """The counters are about to be read, or the rules of counting change."""
        if self._rules is not None:
            for name, of in self._classes.items():
                of.pour(self._policy, name, self._meters, self._rules.baseline)

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
        endpoint = choice.endpoint
        replica = self._find(endpoint.name) if endpoint is not None else None
        if flight.deadline is not None and (replica is not None or choice.external):  # its tier is awake in time
            flight.deadline.cancel()
            flight.deadline = None
        if endpoint is None or replica is None:
            if choice.external and choice.tier is not None:
                self._send_out(flight, choice.tier)
            else:
                self._hold(flight)
        elif flight.tokens > replica.processor.kv_tokens:
            self._fail(flight)
        else:
            endpoint.in_flight += 1
            replica.submit(flight)

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
            self._settle(flight, (waited + EXTERNAL_TTFT_SECONDS, itl, waited + duration))

        self._clock.after(duration, finish, engine.Order.FINISH)

    def _hold(self, flight: _Flight) -> None:
        """Wait for a tier to wake, as long as the tiers allow; then fail."""
        if flight.deadline is None:
            limit = flight.choice.reach.hold_seconds
            if limit <= 0:
                self._fail(flight)
                return
            flight.deadline = self._clock.after(limit, lambda: self._fail(flight))
        self._held[flight] = None

    def _done(self, flight: _Flight) -> None:
        """An engine has ended a request, or has died under it."""
        endpoint = flight.choice.endpoint
        assert endpoint is not None
        endpoint.in_flight -= 1
        first, finished, request = flight.first_token_at, flight.finished_at, flight.request
        if finished is None or first is None:
            allowed = 1 + (self._rules.resilience.max_fallbacks if self._rules else 0)
            if first is None and flight.attempts < allowed:
                self._route(flight)
            else:
                self._fail(flight)
            return
        arrived, gaps = request.arrival_s, request.output_tokens - 1
        self._settle(flight, (first - arrived, (finished - first) / gaps if gaps else None, finished - arrived))

    def _settle(self, flight: _Flight, latencies: tallies.Latencies, stored_quality: float | None = None) -> None:
        """A complete answer: count it, record it, maybe store it. One from the cache has the quality of what it was."""
        if flight not in self._flights:
            return
        del self._flights[flight]
        if flight.deadline is not None:
            flight.deadline.cancel()
        request, choice, of = flight.request, flight.choice, flight.of
        tally = of.tier(choice.tier if stored_quality is None else None)
        met = tally.add(request, flight.cached_tokens, latencies)
        earned, best = self._quality(flight)
        if stored_quality is not None:
            earned = stored_quality
        elif self._cache_rules is not None and not request.sensitive:
            of.stores += 1
            expires = self._clock.now + self._cache_rules.ttl_seconds
            self._cache.put(request.prompt, expires=expires, quality_=earned, limit=self._cache_rules.max_entries)
        if self._witness is None:
            self._recorder.count(request.arrival_s, tally.name, latencies, (earned, best), met=met)
        else:
            qualities = {"quality": earned, "best_quality": best}
            self._record(request, report.Outcome(request.arrival_s, tally.name, met, *latencies, **qualities))

    def _fail(self, flight: _Flight) -> None:
        if flight not in self._flights:
            return
        del self._flights[flight]
        self._held.pop(flight, None)
        choice = flight.choice
        tier = choice.tier.name if choice.tier is not None else tallies.NO_TIER
        labels = (self._policy, choice.request_class.name, tier)
        self._meters.count(telemetry.REQUESTS, (*labels, tallies.FAILED))
        promise = promises.promised(choice.request_class, choice.tier)
        for name, limit in (("ttft", promise.ttft_seconds), ("e2e", promise.e2e_seconds)):
            if limit is not None:
                self._meters.count(telemetry.SLO_MEASURED, (*labels, name))
        _, best = self._quality(flight)
        arrived = flight.request.arrival_s
        self._record(flight.request, report.Outcome(arrived, report.FAILED, met=False, best_quality=best))

    def _record(self, request: Request, outcome: report.Outcome) -> None:
        self._recorder.add(outcome)
        if self._witness is not None:
            self._witness(request, outcome)

    def _quality(self, flight: _Flight) -> tuple[float, float]:
        """How good the tier's answer is, and that of the best allowed tier: known outcomes, else estimates by rank."""
        tier, best = flight.choice.tier, flight.of.best
        earned = 0.0 if tier is None else self._quality_of(tier, flight)
        if best is None:
            return earned, 1.0
        return earned, earned if best is tier else self._quality_of(best, flight)

    def _quality_of(self, tier: tables.Tier, flight: _Flight) -> float:
        known = None if self._outcome is None else self._outcome(flight.request, tier.model)
        return flight.of.quality(tier.quality, flight.choice.rank) if known is None else known


def _usd(rates: tables.Rates, request: Request) -> float:
    return economics.request_usd(
        rates, input_tokens=request.input_tokens, cached_input_tokens=0, output_tokens=request.output_tokens
    )
