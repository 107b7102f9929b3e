"""Quotas: what a tenant may use, as rules that a store can count. Pure: no clock, no store, no HTTP.

Three kinds. A *rate* is a bucket of one minute that drains evenly: GCRA in other coordinates, its level being the
theoretical arrival time's lead over now, in units of the limit. A *window* counts within a day or a month of the
calendar (UTC). *Open* counts requests under way. Amounts are whole numbers: requests, tokens, and billionths of a
dollar, so that what is given back is exactly what was taken.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from enum import StrEnum

import msgspec
from trimtab_core import economics
from trimtab_core.routing import table

NANO = 1_000_000_000
MINUTE_SECONDS = 60.0
_DAY_SECONDS = 86400
MOST = 9_000_000_000_000_000
"""The largest amount that every store counts exactly: below 2^53. In dollars, nine million."""


class Kind(StrEnum):
    """How a rule counts."""

    RATE = "rate"
    WINDOW = "window"
    OPEN = "open"


class Unit(StrEnum):
    """What a rule counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    USD = "usd"


class Need(msgspec.Struct, frozen=True):
    """What a request takes at most, or took in truth."""

    tokens: int = 0
    nano_usd: int = 0
    requests: int = 1


class Rule(msgspec.Struct, frozen=True):
    """One limit.

    Attributes:
        name: as people and stores know it, such as ``tokens-per-minute``.
        limit: in its unit; of a rate, per minute.
        month: whether a window is a month, and not a day.
    """

    name: str
    kind: Kind
    unit: Unit
    limit: int
    month: bool = False

    def amount(self, need: Need) -> int:
        """What a request takes of it."""
        if self.unit is Unit.USD:
            return need.nano_usd
        return need.tokens if self.unit is Unit.TOKENS else need.requests

    def window(self, now: float) -> tuple[int, float]:
        """Number of the window that holds ``now`` (epoch seconds), and when it ends; other kinds have none."""
        if self.kind is not Kind.WINDOW:
            return 0, now
        return month(now) if self.month else day(now)


class Standing(msgspec.Struct, frozen=True):
    """How a rule stands.

    Attributes:
        used: of its limit, what is reserved included.
        resets_in: seconds until nothing is used any more.
    """

    rule: Rule
    used: float
    resets_in: float

    @property
    def left(self) -> int:
        """What may still be used."""
        return max(0, math.floor(self.rule.limit - self.used))


class Verdict(msgspec.Struct, frozen=True):
    """What a store says to a request.

    Attributes:
        standings: of all rules, in their order, after it was granted; of as many as were looked at when it was not.
        denied: the rule that stands against it; None if it is granted.
        retry_after: seconds after which the same request would pass; None if it never can.
    """

    standings: tuple[Standing, ...]
    denied: Standing | None = None
    retry_after: float | None = None


def day(now: float) -> tuple[int, float]:
    """Days since 1970 and the end of this one."""
    number = math.floor(now / _DAY_SECONDS)
    return number, float((number + 1) * _DAY_SECONDS)


def month(now: float) -> tuple[int, float]:
    """Months since year 0 and the end of this one."""
    return _month_of(math.floor(now / _DAY_SECONDS))


@functools.lru_cache(maxsize=64)
def _month_of(number_of_day: int) -> tuple[int, float]:
    moment = dt.datetime.fromtimestamp(number_of_day * _DAY_SECONDS, dt.UTC)
    number = moment.year * 12 + moment.month - 1
    year, index = divmod(number + 1, 12)
    return number, dt.datetime(year, index + 1, 1, tzinfo=dt.UTC).timestamp()


def rules(limits: table.Limits | None) -> tuple[Rule, ...]:
    """The rules of these limits, those first that waiting does not help against."""
    if limits is None:
        return ()
    made = (
        ("usd-per-month", Kind.WINDOW, Unit.USD, _nano(limits.usd_per_month), True),
        ("usd-per-day", Kind.WINDOW, Unit.USD, _nano(limits.usd_per_day), False),
        ("tokens-per-day", Kind.WINDOW, Unit.TOKENS, limits.tokens_per_day, False),
        ("tokens-per-minute", Kind.RATE, Unit.TOKENS, limits.tokens_per_minute, False),
        ("requests-per-minute", Kind.RATE, Unit.REQUESTS, limits.requests_per_minute, False),
        ("concurrent-requests", Kind.OPEN, Unit.REQUESTS, limits.concurrent_requests, False),
    )
    return tuple(
        Rule(name, kind, unit, min(limit, MOST), monthly)
        for name, kind, unit, limit, monthly in made
        if limit is not None
    )


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANO)


def part(rule: Rule, of: int) -> Rule:
    """The part of a limit that one of several routers may give out alone; at least one of its unit."""
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // of)) if of > 1 else rule


def truth(*, tokens: int, usd: float) -> Need:
    """What a request took; a part of a billionth counts as a whole one."""
    return Need(tokens, math.ceil(usd * NANO))


def worst(rates: economics.Rates, *, input_tokens: int, output_tokens: int) -> Need:
    """What a request takes at most at these rates: no token of its prompt cached.

    One billionth more than computed, so that the truth, which adds up in another order, is never above it.
    """
    usd = economics.request_usd(rates, input_tokens=input_tokens, cached_input_tokens=0, output_tokens=output_tokens)
    return Need(input_tokens + output_tokens, math.ceil(usd * NANO) + 1)


def rate_verdict(rule: Rule, level: float, amount: int) -> float | None:
    """Seconds until a bucket of this level takes ``amount``; 0 for now, None if it never can."""
    if amount > rule.limit:
        return None
    return max(0.0, (level + amount - rule.limit) * MINUTE_SECONDS / rule.limit)


def drained(rule: Rule, level: float, seconds: float) -> float:
    """The level of a bucket some time later; time that ran backwards drains nothing."""
    return max(0.0, level - max(0.0, seconds) * rule.limit / MINUTE_SECONDS)


def rate_resets_in(rule: Rule, level: float) -> float:
    """Seconds until a bucket of this level is empty."""
    return level * MINUTE_SECONDS / rule.limit
