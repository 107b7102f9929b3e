"""Accounts in the memory of one process: reserve, settle, release, all at once. No I/O; time comes in.

A reservation takes the worst case of all rules or of none. Settling puts the truth in its place, once; one that
nobody settles gives its amounts back when its time is up, and is still booked in full should its truth come later.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import msgspec

from trimtab_router import quotas

OPEN_RETRY_SECONDS = 1.0
"""Nobody knows when a request under way ends."""
_IDLE_ACCOUNTS = 10_000
_LOOKED_AT = 64


class Held(msgspec.Struct, frozen=True):
    """A reservation as the one who holds it knows it.

    Attributes:
        id: unlike any other.
        account: whose.
        rules, windows: what it counts against: for each rule the number of its window.
        need: what was reserved.
    """

    id: str
    account: str
    rules: tuple[quotas.Rule, ...]
    windows: tuple[int, ...]
    need: quotas.Need
    expires_at: float


class _Window(msgspec.Struct):
    number: int
    used: int = 0


class _Bucket(msgspec.Struct):
    level: float
    at: float


class _Account:
    """One tenant's counts; reservations by age."""

    __slots__ = ("buckets", "expired", "open", "windows")

    def __init__(self) -> None:
        self.windows: dict[str, _Window] = {}
        self.buckets: dict[str, _Bucket] = {}
        self.open: OrderedDict[str, Held] = OrderedDict()
        self.expired: set[str] = set()


class Accounts:
    """The counts of all tenants in one process."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def reserve(self, held: Held, now: float) -> quotas.Verdict:
        """Take the worst case of every rule, or nothing at all."""
        account = self._account(held.account)
        self._expire(account, now)
        numbers = tuple(_in_force(account, rule, number) for rule, number in zip(held.rules, held.windows, strict=True))
        granted: list[quotas.Standing] = []
        for rule, number in zip(held.rules, numbers, strict=True):
            used, amount = _used(account, rule, number, now=now), rule.amount(held.need)
            wait = wait_seconds(rule, used, amount, now=now)
            if wait != 0.0:
                denied = standing(rule, used, now)
                return quotas.Verdict((*granted, denied), denied, wait)
            granted.append(standing(rule, used + amount, now))
        for rule, number in zip(held.rules, numbers, strict=True):
            _add(account, rule, number, amount=rule.amount(held.need), now=now)
        account.open[held.id] = msgspec.structs.replace(held, windows=numbers)
        return quotas.Verdict(tuple(granted))

    def settle(self, held: Held, truth: quotas.Need, now: float) -> bool:
        """Put the truth in the reservation's place; returns False if that has happened before."""
        account = self._account(held.account)
        reserved = account.open.pop(held.id, None)
        if reserved is None and held.id not in account.expired:
            return False
        account.expired.discard(held.id)
        of = reserved or held
        for rule, number in zip(of.rules, of.windows, strict=True):
            before = rule.amount(of.need) if reserved is not None or rule.kind is quotas.Kind.RATE else 0
            _add(account, rule, number, amount=rule.amount(truth) - before, now=now)
        return True

    def used(self, name: str, rule: quotas.Rule, now: float) -> float:
        """What is used of one rule."""
        account = self._accounts.get(name) or _Account()
        return _used(account, rule, _in_force(account, rule, rule.window(now)[0]), now=now)

    def set_used(self, name: str, rule: quotas.Rule, *, number: int, used: int) -> None:
        """Start a window from what is known to be used; never back."""
        window = self._account(name).windows.setdefault(rule.name, _Window(number))
        if window.number == number:
            window.used = max(window.used, used)

    def clear(self) -> None:
        """Forget everything."""
        self._accounts.clear()

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account()
            if len(self._accounts) > _IDLE_ACCOUNTS:
                self._make_room()
        return account

    def _make_room(self) -> None:
        """Names can come from anywhere: those without any count in a window and without open requests go first."""
        for name, account in list(itertools.islice(self._accounts.items(), _LOOKED_AT)):
            if not account.open and not any(window.used for window in account.windows.values()):
                del self._accounts[name]
            else:
                self._accounts.move_to_end(name)

    def _expire(self, account: _Account, now: float) -> None:
        """Give back what leaked."""
        while account.open:
            held = next(iter(account.open.values()))
            if held.expires_at > now:
                return
            del account.open[held.id]
            account.expired.add(held.id)
            for rule, number in zip(held.rules, held.windows, strict=True):
                if rule.kind is quotas.Kind.WINDOW:
                    _add(account, rule, number, amount=-rule.amount(held.need), now=now)


def standing(rule: quotas.Rule, used: float, now: float) -> quotas.Standing:
    """How a rule stands of which so much is used."""
    if rule.kind is quotas.Kind.RATE:
        return quotas.Standing(rule, used, quotas.rate_resets_in(rule, used))
    resets_in = OPEN_RETRY_SECONDS if rule.kind is quotas.Kind.OPEN else rule.window(now)[1] - now
    return quotas.Standing(rule, used, resets_in)


def wait_seconds(rule: quotas.Rule, used: float, amount: int, *, now: float) -> float | None:
    """Seconds until ``amount`` more passes: 0 for now, None if it never can."""
    if rule.kind is quotas.Kind.RATE:
        return quotas.rate_verdict(rule, used, amount)
    if used + amount <= rule.limit:
        return 0.0
    return None if amount > rule.limit else standing(rule, used, now).resets_in


def _in_force(account: _Account, rule: quotas.Rule, number: int) -> int:
    """A window never goes back: of clocks that differ at midnight the one ahead counts."""
    window = account.windows.get(rule.name)
    return number if window is None else max(number, window.number)


def _used(account: _Account, rule: quotas.Rule, number: int, *, now: float) -> float:
    if rule.kind is quotas.Kind.OPEN:
        return len(account.open)
    if rule.kind is quotas.Kind.RATE:
        bucket = account.buckets.get(rule.name)
        return quotas.drained(rule, bucket.level, now - bucket.at) if bucket is not None else 0.0
    window = account.windows.get(rule.name)
    return window.used if window is not None and window.number == number else 0


def _add(account: _Account, rule: quotas.Rule, number: int, *, amount: int, now: float) -> None:
    if rule.kind is quotas.Kind.RATE:
        level = max(0.0, _used(account, rule, number, now=now) + amount)
        bucket = account.buckets.get(rule.name)
        account.buckets[rule.name] = _Bucket(level, max(now, bucket.at) if bucket is not None else now)
    elif rule.kind is quotas.Kind.WINDOW:
        window = account.windows.get(rule.name)
        if window is None or window.number < number:
            window = account.windows[rule.name] = _Window(number)
        if window.number == number:
            window.used = max(0, window.used + amount)
