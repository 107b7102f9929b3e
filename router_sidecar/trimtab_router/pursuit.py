"""The pursuit of an answer: whom one request is sent to, when it waits, and what follows a failure.

Up to the commit point a failed attempt is followed by another one, as long as the policy's count and the retry budget
allow; a stream whose first byte is late may be asked of a second engine, and the slower one is broken off. What such
attempts cost is booked as waste, never billed. It knows no client: the exchange behind it does.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Protocol

from trimtab_core import telemetry
from trimtab_core.routing import classes

from trimtab_router import (
    admission,
    attempt,
    billing,
    compiled,
    dispatch,
    endpoints,
    errors,
    forwarding,
    ledger,
    metrics,
    placing,
    queueing,
    relay,
    routes,
    waiting_room,
)
from trimtab_router.request import Request

_HOLD_RETRY_AFTER = 5
_RETRY_AFTER = 2


class Process(Protocol):
    """What a pursuit needs of the process that it runs in."""

    loop: asyncio.AbstractEventLoop
    rng: random.Random
    registry: metrics.Registry

    def clock(self) -> float:
        """Monotonic seconds."""


class Owner(Protocol):
    """The exchange, as a pursuit sees it. Exactly one of ``done``, ``refused`` and ``gave_up`` ends a pursuit."""

    def relay_for(self, current: attempt.Attempt, content_type: bytes) -> relay.Relay:
        """What becomes of a good answer of this type."""

    def passed(self, current: attempt.Attempt, data: bytes) -> None:
        """Bytes for the client; the first ones commit."""

    def done(self, current: attempt.Attempt) -> None:
        """The answer is complete and good."""

    def refused(self, current: attempt.Attempt, body: bytes) -> None:
        """The engine says that the request itself is wrong."""

    def gave_up(self, error: errors.RouterError) -> None:
        """No answer, or none after what has been passed already."""


class Pursuit:
    """One request on its way to an answer.

    Attributes:
        current: the attempt whose answer counts; None before the first.
        attempts: engines asked so far.
        wasted_usd: cost of attempts that brought nothing.
    """

    # As defaults of the class: most requests never set most of them, and one pursuit is made for each.
    current: attempt.Attempt | None = None
    attempts: int = 0
    wasted_usd: float = 0.0
    _fallbacks: int = 0
    _place: int | None = None
    _rival: attempt.Attempt | None = None
    _seat: waiting_room.Seat | None = None
    _timer: asyncio.TimerHandle | None = None
    _tried: tuple[endpoints.Endpoint, ...] = ()
    _wait_until: float = 0.0
    _waits_for: compiled.Tier | None = None
    _won: bool = False

    def __init__(
        self,
        owner: Owner,
        process: Process,
        in_force: compiled.Table,
        *,
        admitted: admission.Admission,
        request: Request,
        route: routes.Route,
        request_id: str,
    ) -> None:
        self._owner = owner
        self._process = process
        self._table = in_force
        self._admitted = admitted
        self._request = request
        self._route = route
        self._forwarding = forwarding.Forwarding(request, route, admitted=admitted, request_id=request_id)
        self._streamed = bool(admitted.envelope.stream)

    def start(self) -> None:
        """Ask the first engine, or wait for one, or give up.

        Raises:
            errors.RouterError: if the body can't be made one for an engine; nothing was sent then.
        """
        self._table.retries.arrived += 1
        if self._admitted.class_.keyed:
            self._place = placing.place(self._request, self._admitted)
        self._next()

    def stop(self, reason: str) -> None:
        """Nobody wants the answer any more, or it took too long: break everything off.

        Args:
            reason: label value of what the attempts under way have wasted, if they brought nothing.
        """
        self._leave()
        self._forget_rival(reason)
        current = self.current
        if current is not None:
            current.abort()
            if not self._won:
                self._waste(current, reason)

    def close(self) -> None:
        """The exchange has ended. Parts that know each other are parted, so that they are freed at once."""
        self._cancel_timer()
        self.current = None

    def pause(self) -> None:
        """The client is slow: read no more."""
        if self.current is not None:
            self.current.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self.current is not None:
            self.current.resume()

    # What time and tables tell.

    def expire(self, now: float) -> None:
        """Before the commit point: break off what takes too long."""
        if self._seat is not None:
            if now > self._wait_until:
                self._leave()
                self._shed("timeout", self._waited_in_vain())
            return
        for each in (self._rival, self.current):
            if each is not None:
                self._expire(each, now)

    def _expire(self, each: attempt.Attempt, now: float) -> None:
        rules = self._table.data.resilience
        waited = now - each.started_at
        if self._streamed:
            if waited > rules.first_byte_timeout:
                each.expire("first-byte-timeout")
        elif waited > rules.answer_timeout:
            each.expire("answer-timeout")
        elif each.endpoint.stalled and now - max(each.started_at, each.endpoint.moved_at) > rules.first_byte_timeout:
            # An answer in one piece may take long. But the streams of the same engine stand still, too.
            each.expire("stalled")

    def wake(self, in_force: compiled.Table) -> None:
        """A new table, which may have an engine for a request that waits; its seat is gone already."""
        self._seat = None
        class_ = in_force.by_name.get(self._admitted.class_.spec.name)
        if class_ is not None and class_.reach.intervals is not None:
            self._table = in_force
            self._admitted.class_ = class_
            if self._admitted.first not in class_.reach.own:
                self._admitted.first = class_.reach.intervals.tiers[0]
        self._go_on()

    # What the waiting room tells.

    def let_in(self, endpoint: endpoints.Endpoint) -> None:
        """There is room."""
        seat, tier, process = self._seat, self._waits_for, self._process
        assert seat is not None
        assert tier is not None
        self._seat = None
        waited = process.registry.histogram(telemetry.QUEUE_SECONDS, self._policy, tier.spec.name)
        waited.observe(process.clock() - seat.since)
        try:
            self._ask((tier, endpoint))
        except errors.RouterError as error:
            self._owner.gave_up(error)

    def turned_away(self, error: errors.RouterError) -> None:
        """Somebody else needed the place."""
        self._seat = None
        self._shed("displaced", error)

    # What attempts tell.

    def relay_for(self, current: attempt.Attempt, content_type: bytes) -> relay.Relay:
        """What becomes of a good answer."""
        return self._owner.relay_for(current, content_type)

    def passed(self, current: attempt.Attempt, data: bytes) -> None:
        """Bytes of a stream; the first ones decide."""
        if not self._won:
            if self._table.hedges:
                current.tier.first_bytes.observe(self._process.clock() - current.started_at)
            self._win(current)
            current.flows()
        self._owner.passed(current, data)

    def done(self, current: attempt.Attempt) -> None:
        """A complete and good answer."""
        if self._rival is not None or self._timer is not None:
            self._win(current)
        self._won = True
        self._owner.done(current)

    def refused(self, current: attempt.Attempt, body: bytes) -> None:
        """The engine finds the request wrong; so would every other."""
        self._win(current)
        self._owner.refused(current, body)

    def failed(self, current: attempt.Attempt, failure: attempt.Failure) -> None:
        """Ask somebody else, or give up."""
        endpoint, rules, now = current.endpoint, self._table.data.resilience, self._process.clock()
        if failure.blames:
            if endpoint.failed(rules, now, at_once=failure.at_once, peers=current.tier.endpoints):
                self._count(telemetry.EJECTIONS, endpoint.tier, endpoint.name)
        elif failure.rest_seconds:
            endpoint.rest(now + failure.rest_seconds, now)
        if self._won:
            self._owner.gave_up(failure.error)
            return
        self._cancel_timer()
        self._waste(current, ledger.FAILED_ATTEMPT)
        self._tried += (endpoint,)
        if self._rival is not None:
            # The other one is still at it.
            self._count(telemetry.HEDGES, self._rival.endpoint.tier, "failed" if current is self._rival else "rescued")
            self.current = self.current if current is self._rival else self._rival
            self._rival = None
        elif self._may_repeat(failure, now):
            self._fallbacks += 1
            asked = self.attempts
            self._go_on(failure.error)
            if self.attempts > asked or self._seat is not None:
                self._count(telemetry.FALLBACKS, endpoint.tier, failure.reason)
        else:
            self._owner.gave_up(failure.error)

    # Own steps.

    @property
    def _policy(self) -> str:
        return self._table.data.policy

    def _count(self, family: telemetry.Family, *labels: str) -> None:
        self._process.registry.counter(family, self._policy, *labels).add(1)

    def _may_repeat(self, failure: attempt.Failure, now: float) -> bool:
        """Inference can be asked twice; of a route passed through nobody knows what asking twice does."""
        if self._fallbacks >= self._table.data.resilience.max_fallbacks:
            return False
        if not failure.at_once and self._route.shape is routes.Shape.OTHER and self._request.method != b"GET":
            return False
        return self._withdraw(now)

    def _withdraw(self, now: float) -> bool:
        granted = self._table.retries.withdraw(now)
        if not granted:
            self._count(telemetry.RETRIES_REFUSED)
        return granted

    def _go_on(self, otherwise: errors.RouterError | None = None) -> None:
        try:
            self._next(otherwise)
        except errors.RouterError as error:
            self._owner.gave_up(error)

    def _next(self, otherwise: errors.RouterError | None = None) -> None:
        """Ask the next endpoint, or wait for one, or give up with ``otherwise``, if that is what brought us here."""
        admitted, process = self._admitted, self._process
        first = admitted.first
        if first is None:
            self._owner.gave_up(otherwise or self._nobody(()))
            return
        reach = admitted.class_.reach
        tiers = _affordable(reach.order(first, closed=admitted.sensitive), admitted.fits)
        choice = dispatch.choose(tiers, process.rng, place=self._place, tried=self._tried)
        if choice is None:
            choice = dispatch.last_resort(
                _affordable(reach.own[first], admitted.fits), now=process.clock(), tried=self._tried
            )
        if choice is None:
            self._hold(first, otherwise)
        elif choice[0].queues and choice[0].room.is_full(choice[1]):
            self._queue(choice[0], otherwise)
        else:
            self._ask(choice)

    def _ask(self, choice: dispatch.Choice) -> None:
        made = self._attempt(choice)
        self.current = made
        after = choice[0].first_bytes.hedge_after
        if after < math.inf and self._is_hedged(choice[0]):
            self._timer = self._process.loop.call_later(after, self._hedge)

    def _attempt(self, choice: dispatch.Choice) -> attempt.Attempt:
        tier, endpoint = choice
        data, process = self._forwarding.to(endpoint, tier.spec.model), self._process
        self.attempts += 1
        made = attempt.Attempt(
            self, choice, resilience=self._table.data.resilience, streamed=self._streamed, clock=process.clock
        )
        made.start(data, process.loop)
        return made

    # Waiting.

    def _hold(self, first: str, otherwise: errors.RouterError | None) -> None:
        """Nothing is up: wait for the tier to wake, or for one that rests, if it may be waited for."""
        reach, rules = self._admitted.class_.reach, self._table.data.resilience
        own, now = reach.own[first], self._process.clock()
        resting = dispatch.resting(own, now)
        if otherwise is not None:
            self._owner.gave_up(otherwise)
        elif resting is not None and rules.queue_requests and resting[1] <= self._patience():
            self._sit(resting[0], self._patience())
        elif reach.hold_seconds > 0:
            self._sit(self._table.tiers[first], reach.hold_seconds)
        else:
            self._owner.gave_up(self._nobody(own))

    def _sit(self, tier: compiled.Tier, patience: float) -> None:
        refusal = self._wait(tier, patience)
        if refusal is not None:
            self._shed("full", refusal)

    def _queue(self, tier: compiled.Tier, otherwise: errors.RouterError | None) -> None:
        """Every endpoint of the tier is full: wait, or overflow to another allowed tier that has room."""
        refusal = self._wait(tier, self._patience())
        if refusal is None:
            return
        overflow = self._with_room(tier)
        if overflow is not None:
            self._ask(overflow)
        elif otherwise is not None:
            self._owner.gave_up(otherwise)
        else:
            self._shed("full", refusal)

    def _with_room(self, full: compiled.Tier) -> dispatch.Choice | None:
        own = _affordable(self._admitted.class_.reach.own[self._admitted.first or ""], self._admitted.fits)
        others = [tier for tier in own if tier is not full]
        for tier in others:
            choice = dispatch.choose((tier,), self._process.rng, tried=self._tried)
            if choice is not None and not tier.room.is_full(choice[1]):
                return choice
        return None

    def _patience(self) -> float:
        """Longest wait for room: the policy's, and more for a class that is promised much time."""
        rules, slo = self._table.data.resilience, self._admitted.class_.spec.slo
        return min(rules.total_timeout, max(rules.queue_seconds, (slo.e2e_seconds or 0.0) / 2))

    def _wait(self, tier: compiled.Tier, patience: float) -> errors.Overloaded | None:
        """Sit down in a tier's waiting room; otherwise why not."""
        admitted, now, arrived = self._admitted, self._process.clock(), self._request.arrived_at
        slo = admitted.class_.slos[tier.spec.name]
        promised = slo.ttft_seconds if self._streamed and slo.ttft_seconds is not None else slo.e2e_seconds
        seat = waiting_room.Seat(
            self,
            admitted.tenant,
            since=now,
            deadline=arrived + (patience if promised is None else promised),
            size=len(self._request.body),
            band=queueing.band(self._request.headers.get(classes.PRIORITY, b"")),
        )
        self._wait_until = self._wait_until or now + patience
        refusal = tier.room.join(seat, patience=self._wait_until - now, now=now)
        if refusal is None:
            self._seat, self._waits_for = seat, tier
        return refusal

    def _leave(self) -> None:
        if self._seat is not None:
            assert self._waits_for is not None
            self._waits_for.room.leave(self._seat)
            self._seat = None

    def _waited_in_vain(self) -> errors.RouterError:
        assert self._waits_for is not None
        if any(each.ready for each in self._waits_for.endpoints):
            return errors.Overloaded("no engine had room in time", retry_after=_HOLD_RETRY_AFTER)
        text = "no tier that may serve this request woke in time"
        return errors.Unavailable(text, retry_after=_HOLD_RETRY_AFTER)

    def _nobody(self, tiers: Sequence[compiled.Tier]) -> errors.RouterError:
        resting = dispatch.resting(tiers, self._process.clock())
        if resting is not None:
            return errors.Unavailable("the engines are busy; try again later", retry_after=math.ceil(resting[1]))
        return errors.Unavailable("no tier that may serve this request is up", retry_after=_RETRY_AFTER)

    def _shed(self, reason: str, error: errors.RouterError) -> None:
        self._count(telemetry.SHED, self._admitted.class_.spec.name, reason)
        self._owner.gave_up(error)

    # Hedging.

    def _is_hedged(self, tier: compiled.Tier) -> bool:
        """Streams of classes that are promised a first token; nothing that is passed through unread."""
        slo = self._admitted.class_.slos[tier.spec.name]
        return self._streamed and slo.ttft_seconds is not None and self._route.shape is not routes.Shape.OTHER

    def _hedge(self) -> None:
        """The first byte is late: ask one more engine."""
        self._timer = None
        first, current = self._admitted.first, self.current
        if self._won or self._rival is not None or self._seat is not None or current is None or first is None:
            return
        own = self._admitted.class_.reach.own[first]
        choice = dispatch.choose(own, self._process.rng, tried=(*self._tried, current.endpoint))
        if choice is None or choice[0].room.is_full(choice[1]) or not self._withdraw(self._process.clock()):
            return
        self._rival = self._attempt(choice)

    def _win(self, winner: attempt.Attempt) -> None:
        """This attempt's answer counts; another one under way is broken off."""
        self._won = True
        self._cancel_timer()
        if self._rival is not None:
            assert self.current is not None
            result = "won" if winner is self._rival else "lost"
            self._count(telemetry.HEDGES, self._rival.endpoint.tier, result)
            if winner is self._rival:
                self.current, self._rival = self._rival, self.current
            self._forget_rival(ledger.HEDGE)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_rival(self, reason: str) -> None:
        loser, self._rival = self._rival, None
        if loser is not None:
            # What it would have taken nobody will know; that it took so long is known.
            loser.tier.first_bytes.observe(self._process.clock() - loser.started_at)
            loser.abort()
            self._waste(loser, reason)

    def _waste(self, lost: attempt.Attempt, reason: str) -> None:
        """Book what an attempt cost that nobody will pay for."""
        usd = billing.wasted_usd(
            lost.relay,
            reached=lost.sent,
            status=lost.status,
            body_bytes=len(self._request.body),
            tier=lost.tier.spec,
        )
        if usd > 0:
            self.wasted_usd += usd
            self._admitted.class_.meters[lost.tier.spec.name].wasted(reason).add(usd)


def _affordable(tiers: Sequence[compiled.Tier], fits: frozenset[str] | None) -> Sequence[compiled.Tier]:
    """The tiers that cost no more than the client allows."""
    return tiers if fits is None else [tier for tier in tiers if tier.spec.name in fits]
