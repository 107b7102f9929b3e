"""Limiting: what a request reserves of its tenant's limits, where that is counted, and what the client is told of it.

Counts live in this process, or in a store that all routers share. While such a store is down, the table says what
holds: nothing (Allow), nothing passes (Deny), or each router gives out its part of what was left (Local). Whatever was
given out meanwhile is booked when the store is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import ssl
from collections.abc import Callable, Iterable

from trimtab_core import telemetry
from trimtab_core.routing import table

from trimtab_router import accounts, errors, identity, metrics, quotas, resp, shared_accounts

log = logging.getLogger("trimtab.router")

MARGIN_SECONDS = 60.0
"""A reservation outlives the longest request by so much."""
_CLOSE_SECONDS = 2.0
_DENIED_RETRY_SECONDS = 1
_SEEN = 20_000
"""Windows of which it is known what was used, for a time without the store; names may come from anywhere."""
_NOTHING = quotas.Need(requests=0)


class Grant:
    """What one request holds of its tenant's limits.

    Attributes:
        headers: lines for the answer that say how the limits stand.
    """

    __slots__ = ("_held", "_limiter", "_local", "headers")

    def __init__(
        self, limiter: Limiter, held: accounts.Held, standings: Iterable[quotas.Standing], *, local: bool | None
    ) -> None:
        self._limiter, self._held, self._local = limiter, held, local
        self.headers = headers(standings)

    def settle(self, *, tokens: int = 0, usd: float = 0.0) -> None:
        """Put the truth in the place of what was reserved; without any, all of it is given back. Once."""
        held, self._held = self._held, _SETTLED
        if held is not _SETTLED:
            self._limiter.settle(held, quotas.truth(tokens=tokens, usd=usd), local=self._local)


Outcome = Grant | errors.RouterError
_SETTLED = accounts.Held("", "", (), (), _NOTHING, 0.0)


class Limiter:
    """The limits of one policy in one router process.

    Args:
        store: where it is counted.
        policy: ``namespace/name``.
        registry: for counts of what is refused.
        clock: monotonic seconds.
        wall_clock: epoch seconds: budgets follow the calendar.
        trust: makes what a store behind TLS is checked by.
    """

    def __init__(
        self,
        store: table.Store,
        policy: str,
        *,
        registry: metrics.Registry,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self.store = store
        self._policy = policy
        self._registry = registry
        self._wall_clock = wall_clock
        self._local = accounts.Accounts()
        self._shared = None
        if store.kind == "Redis":
            self._shared = shared_accounts.SharedAccounts(
                store, policy, clock=clock, wall_clock=wall_clock, trust=trust
            )
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        self._prefix = secrets.token_hex(8)
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = False

    def reserve(
        self, caller: identity.Caller, need: quotas.Need, *, seconds: float, then: Callable[[Outcome], None]
    ) -> None:
        """Take the worst case of every limit, or nothing; ``then`` hears of it, perhaps before this returns.

        Args:
            caller: whose limits.
            need: the worst case.
            seconds: longest that the request may live.
            then: gets the grant, or why there is none.
        """
        if self._shared is None:
            then(self._reserve_here(caller, caller.rules, need, self._wall_clock(), seconds=seconds))
            return
        task = asyncio.get_running_loop().create_task(self._reserve_there(caller, need, seconds, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def settle(self, held: accounts.Held, truth: quotas.Need, *, local: bool | None) -> None:
        """Book the truth where it was reserved; a shared store hears of what was granted without it, too."""
        if local:
            self._local.settle(held, truth, self._wall_clock())
        if self._shared is not None:
            self._shared.settle(shared_accounts.Settlement(held, truth, reserved=local is False))

    async def close(self) -> None:
        """Book what waits."""
        if self._shared is not None:
            await self._shared.close(_CLOSE_SECONDS)

    def shares(self, caller: identity.Caller) -> list[tuple[quotas.Rule, float]]:
        """What is used of a caller's limits of the day and the month, as shares; as last heard of a shared store."""
        found, now = [], self._wall_clock()
        for rule in caller.rules:
            if rule.kind is quotas.Kind.WINDOW:
                used = self._local.used(caller.name, rule, now)
                if self._shared is not None:
                    number, heard = self._seen.get((caller.name, rule.name), (-1, 0))
                    used = heard if number == rule.window(now)[0] else 0
                found.append((rule, used / rule.limit if rule.limit else 1.0))
        return found

    @property
    def waiting(self) -> int:
        """Settlements that the store has not heard of yet."""
        return 0 if self._shared is None else self._shared.waiting

    # Own steps.

    def _held(
        self, caller: identity.Caller, rules: tuple[quotas.Rule, ...], need: quotas.Need, now: float, *, seconds: float
    ) -> accounts.Held:
        self._count += 1
        windows = tuple(rule.window(now)[0] for rule in rules)
        until = now + seconds + MARGIN_SECONDS
        return accounts.Held(f"{self._prefix}-{self._count:x}", caller.name, rules, windows, need, until)

    def _reserve_here(
        self, caller: identity.Caller, rules: tuple[quotas.Rule, ...], need: quotas.Need, now: float, *, seconds: float
    ) -> Outcome:
        held = self._held(caller, rules, need, now, seconds=seconds)
        return self._outcome(caller, held, self._local.reserve(held, now), local=True)

    async def _reserve_there(
        self, caller: identity.Caller, need: quotas.Need, seconds: float, then: Callable[[Outcome], None]
    ) -> None:
        shared = self._shared
        assert shared is not None
        held = self._held(caller, caller.rules, need, shared.now(), seconds=seconds)
        try:
            verdict = await shared.reserve(held, seconds + MARGIN_SECONDS)
        except resp.StoreDownError as error:
            self._complain(str(error))
            outcome = self._without_store(caller, need, seconds=seconds)
        else:
            self._back()
            for rule, number, each in zip(held.rules, held.windows, verdict.standings, strict=False):
                if rule.kind is quotas.Kind.WINDOW:
                    self._seen[caller.name, rule.name] = (number, int(each.used))
            if len(self._seen) > _SEEN:
                self._seen.clear()
            outcome = self._outcome(caller, held, verdict, local=False)
        try:
            then(outcome)
        except Exception:  # an outermost loop: nobody else would hear of it
            log.exception("a request failed inside the router")
            if isinstance(outcome, Grant):
                outcome.settle()

    def _without_store(self, caller: identity.Caller, need: quotas.Need, *, seconds: float) -> Outcome:
        now, store = self._wall_clock(), self.store
        self._registry.counter(telemetry.STORE_DOWN, self._policy, store.on_failure).add(1)
        if store.on_failure == "Deny":
            return errors.Unavailable(
                "the limits of this tenant can't be checked now; try again", retry_after=_DENIED_RETRY_SECONDS
            )
        if store.on_failure == "Allow":
            return Grant(self, self._held(caller, caller.rules, need, now, seconds=seconds), (), local=None)
        rules = tuple(quotas.part(rule, store.routers) for rule in caller.rules)
        for rule in rules:
            number, used = self._seen.get((caller.name, rule.name), (-1, 0))
            self._local.set_used(caller.name, rule, number=number, used=used // store.routers)
        return self._reserve_here(caller, rules, need, now, seconds=seconds)

    def _back(self) -> None:
        """The store answers: what this router counted alone is in its books, or on the way there."""
        if self._complained:
            self._complained = False
            self._local.clear()
            log.info("the store of limits answers again")

    def _complain(self, why: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("the store of limits is down, so %s holds: %s", self.store.on_failure, why)

    def _outcome(
        self, caller: identity.Caller, held: accounts.Held, verdict: quotas.Verdict, *, local: bool
    ) -> Outcome:
        denied = verdict.denied
        if denied is None:
            return Grant(self, held, verdict.standings, local=local)
        label = self._registry.tenant_label(caller.name or "anonymous")
        self._registry.counter(telemetry.LIMITED, self._policy, label, denied.rule.name).add(1)
        return refusal(caller.name, verdict, held.need)


def refusal(tenant: str, verdict: quotas.Verdict, need: quotas.Need) -> errors.RouterError:
    """What a client is told that has met a limit."""
    denied = verdict.denied
    assert denied is not None
    rule, whose = denied.rule, f"of tenant {tenant}" if tenant else "of callers without a name"
    limit, more, wait = _shown(rule, rule.limit), _amount(rule, rule.amount(need)), verdict.retry_after
    if wait is None:
        what = f"the limit {whose} is {limit} and this request may take {more}; lower max_tokens or shorten the prompt"
    else:
        used = _amount(rule, min(math.ceil(denied.used), rule.limit))
        what = f"the limit {whose} is {limit}: {used} used or reserved, and this request may take {more}"
    kind = errors.QuotaExceeded if rule.kind is quotas.Kind.WINDOW else errors.RateLimited
    seconds = None if wait is None else max(1, int(-(-wait // 1)))
    return kind(what, retry_after=seconds, extra=headers(verdict.standings))


def _shown(rule: quotas.Rule, amount: int) -> str:
    """A limit in words, such as ``600 requests per minute`` or ``20 USD per day``."""
    _, _, rest = rule.name.partition("usd") if rule.unit is quotas.Unit.USD else ("", "", rule.name)
    words = rest.replace("-", " ").strip()
    return f"{_amount(rule, amount)} {'USD ' if rule.unit is quotas.Unit.USD else ''}{words}"


def _amount(rule: quotas.Rule, amount: int) -> str:
    return f"{amount / quotas.NANO:.6g}" if rule.unit is quotas.Unit.USD else str(amount)


_HEADERS = {"requests-per-minute": b"requests", "tokens-per-minute": b"tokens"}


def headers(standings: Iterable[quotas.Standing]) -> bytes:
    """Header lines in OpenAI's form: limit, remaining and reset of requests and of tokens, where they are limited."""
    lines = []
    for each in standings:
        kind = _HEADERS.get(each.rule.name)
        if kind is not None:
            values = (kind, each.rule.limit, kind, each.left, kind, span(each.resets_in))
            lines.append(
                b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % values
            )
    return b"".join(lines)


def span(seconds: float) -> bytes:
    """A time as OpenAI writes it: ``6m0s``, ``1.5s``, ``20ms``."""
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{minutes:.0f}m" if minutes else "").encode() + f"{rest:.3f}".rstrip("0").rstrip(".").encode() + b"s"
