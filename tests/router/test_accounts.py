"""Accounts in memory: no budget is exceeded, nothing reserved is lost, and a rate is GCRA."""

from __future__ import annotations

import fractions
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import accounts, quotas

NOON = 1_795_348_800.0
"""2026-11-22 12:00:00 UTC."""
DAY, MONTH = 86400.0, 30 * 86400.0
LIMITS = table.Limits(60, 6000, 100_000, 10.0, 50.0, 4)


def held(
    id_: str, need: quotas.Need, now: float = NOON, *, limits: table.Limits = LIMITS, seconds: float = 700.0
) -> accounts.Held:
    rules = quotas.rules(limits)
    windows = tuple(rule.window(now)[0] for rule in rules)
    return accounts.Held(id_, "acme", rules, windows, need, now + seconds)


def need(tokens: int = 100, usd: float = 0.0) -> quotas.Need:
    return quotas.truth(tokens=tokens, usd=usd)


@pytest.mark.parametrize(
    ("now", "day_ends", "month_ends"),
    [
        (NOON, "2026-11-23T00:00", "2026-12-01T00:00"),
        (1_798_761_599.9, "2027-01-01T00:00", "2027-01-01T00:00"),
        (1_798_761_600.0, "2027-01-02T00:00", "2027-02-01T00:00"),
        (1_835_395_200.0, "2028-03-01T00:00", "2028-03-01T00:00"),
    ],
    ids=["noon", "the last moment of a year", "the first", "a leap day"],
)
def test_windows_are_those_of_the_calendar_in_utc(now: float, day_ends: str, month_ends: str) -> None:
    import datetime as dt

    ends = [
        dt.datetime.fromtimestamp(end, dt.UTC).strftime("%Y-%m-%dT%H:%M")
        for _, end in (quotas.day(now), quotas.month(now))
    ]
    assert ends == [day_ends, month_ends]
    assert quotas.day(now)[0] + 1 == quotas.day(quotas.day(now)[1])[0]
    assert quotas.month(now)[0] + 1 == quotas.month(quotas.month(now)[1])[0]


CASES = {
    # limits, needs of requests at once → which passes, who denies the last, seconds to wait
    "a month's budget": (table.Limits(usd_per_month=1.0), [need(usd=0.6), need(usd=0.5)], "usd-per-month", 734400.0),
    "a day's budget": (table.Limits(usd_per_day=1.0), [need(usd=1.0), need(usd=1e-9)], "usd-per-day", 43200.0),
    "a day's tokens": (table.Limits(tokens_per_day=100), [need(60), need(60)], "tokens-per-day", 43200.0),
    "a minute's tokens": (table.Limits(tokens_per_minute=120), [need(100), need(60)], "tokens-per-minute", 20.0),
    "a minute's requests": (table.Limits(requests_per_minute=2), [need()] * 3, "requests-per-minute", 30.0),
    "requests under way": (table.Limits(concurrent_requests=1), [need()] * 2, "concurrent-requests", 1.0),
    "more than a minute has": (table.Limits(tokens_per_minute=50), [need(51)], "tokens-per-minute", None),
    "more than a month has": (table.Limits(usd_per_month=1.0), [need(usd=1.1)], "usd-per-month", None),
}


@pytest.mark.parametrize(("limits", "needs", "name", "wait"), CASES.values(), ids=CASES.keys())
def test_the_rule_that_denies_says_when_to_come_back(
    limits: table.Limits, needs: list[quotas.Need], name: str, wait: float | None
) -> None:
    made = accounts.Accounts()
    *granted, last = [made.reserve(held(str(at), each, limits=limits), NOON) for at, each in enumerate(needs)]
    assert all(each.denied is None for each in granted)
    assert last.denied is not None
    assert (last.denied.rule.name, last.retry_after) == (name, wait)
    if wait is not None:
        later = NOON + wait
        for at in range(len(granted)):
            made.settle(held(str(at), needs[at], limits=limits), needs[at], NOON)
        assert made.reserve(held("again", needs[-1], later, limits=limits), later).denied is None


def test_what_is_denied_takes_nothing() -> None:
    made = accounts.Accounts()
    limits = table.Limits(requests_per_minute=10, usd_per_day=1.0)
    for at in range(5):
        assert made.reserve(held(str(at), need(usd=2.0), limits=limits), NOON).denied is not None
    assert all(made.used("acme", rule, NOON) == 0 for rule in quotas.rules(limits))


def test_settling_puts_the_truth_in_place_of_the_worst_case_once() -> None:
    made = accounts.Accounts()
    one = held("a", need(1000, 2.0))
    made.reserve(one, NOON)
    by_name = {rule.name: rule for rule in one.rules}
    assert made.used("acme", by_name["usd-per-day"], NOON) == 2 * quotas.NANO
    assert made.settle(one, need(40, 0.5), NOON)
    assert not made.settle(one, need(40, 0.5), NOON)
    assert made.used("acme", by_name["usd-per-day"], NOON) == 0.5 * quotas.NANO
    assert made.used("acme", by_name["tokens-per-minute"], NOON) == 40
    assert made.used("acme", by_name["concurrent-requests"], NOON) == 0


def test_a_reservation_that_nobody_settles_is_given_back_and_its_truth_is_still_booked() -> None:
    made = accounts.Accounts()
    leaked = held("a", need(1000, 9.0), seconds=60.0)
    made.reserve(leaked, NOON)
    assert made.reserve(held("b", need(1, 5.0)), NOON + 59).denied is not None
    assert made.reserve(held("c", need(1, 5.0)), NOON + 60).denied is None
    assert made.settle(leaked, need(10, 3.0), NOON + 61)
    assert made.used("acme", leaked.rules[1], NOON + 61) == 8 * quotas.NANO


def test_names_from_anywhere_do_not_fill_the_memory_and_no_spending_is_forgotten() -> None:
    made, spender = accounts.Accounts(), held("spent", need(1, 1.0))
    made.reserve(spender, NOON)
    made.settle(spender, need(1, 1.0), NOON)
    for at in range(11_000):
        one = accounts.Held("x", f"name-{at}", spender.rules, spender.windows, quotas.Need(requests=0), NOON + 1)
        made.reserve(one, NOON)
        made.settle(one, quotas.Need(requests=0), NOON)
    assert len(made._accounts) <= 10_064
    assert made.used("acme", spender.rules[0], NOON) == quotas.NANO


def test_what_began_yesterday_is_not_booked_on_today() -> None:
    made = accounts.Accounts()
    late = held("a", need(1000, 9.0))
    made.reserve(late, NOON)
    tomorrow = NOON + DAY
    made.reserve(held("b", need(10, 1.0), tomorrow), tomorrow)
    made.settle(late, need(10, 3.0), tomorrow)
    by_name = {rule.name: rule for rule in late.rules}
    assert made.used("acme", by_name["usd-per-day"], tomorrow) == 1 * quotas.NANO
    assert made.used("acme", by_name["usd-per-month"], tomorrow) == 4 * quotas.NANO


def test_a_clock_that_is_behind_at_midnight_does_not_open_yesterday_again() -> None:
    made = accounts.Accounts()
    tomorrow = NOON + DAY
    assert made.reserve(held("a", need(1, 9.0), tomorrow), tomorrow).denied is None
    assert made.reserve(held("b", need(1, 9.0), NOON), NOON).denied is not None


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=40),
)
def test_a_rate_is_gcra(limit: int, steps: list[tuple[int, int]]) -> None:
    """The reference: a theoretical arrival time in exact fractions, a burst of one minute."""
    made, rule = accounts.Accounts(), quotas.rules(table.Limits(tokens_per_minute=limit))[0]
    interval, arrival, now = fractions.Fraction(60, limit), fractions.Fraction(0), fractions.Fraction(0)
    for at, (wait, amount) in enumerate(steps):
        now += wait
        one = accounts.Held(str(at), "acme", (rule,), (0,), quotas.Need(amount), float("inf"))
        verdict = made.reserve(one, float(now))
        wanted = max(arrival, now) + amount * interval
        slack = wanted - now - 60
        if abs(slack) > fractions.Fraction(1, 10**6):
            assert (verdict.denied is None) == (slack <= 0)
        if verdict.denied is None:
            arrival = wanted
        elif amount <= limit:
            assert verdict.retry_after == pytest.approx(float(slack), abs=1e-6)


@dataclass
class Client:
    """One of many requests: what it reserves, takes in truth, and whether it is ever settled."""

    worst: int
    share: float
    end: str = "settle"
    order: list[int] = field(default_factory=list)


CLIENTS = st.lists(
    st.tuples(st.integers(1, 400), st.floats(0, 1), st.sampled_from(["settle", "release", "leak", "twice"])),
    max_size=60,
)


@settings(deadline=None)
@given(limit=st.integers(1, 1500), clients=CLIENTS, rng=st.randoms(use_true_random=False))
def test_no_interleaving_of_clients_spends_more_than_the_budget_or_loses_a_reservation(
    limit: int, clients: list[tuple[int, float, str]], rng: object
) -> None:
    """Slack 0: a truth is never above what was reserved for it, so what is booked never passes the limit."""
    made, rule = accounts.Accounts(), quotas.rules(table.Limits(tokens_per_day=limit))[0]
    now, booked, under_way = NOON, 0, []
    for at, (worst, share, end) in enumerate(clients):
        one = accounts.Held(str(at), "acme", (rule,), (rule.window(now)[0],), quotas.Need(worst), now + 600)
        if made.reserve(one, now).denied is None:
            under_way.append((one, int(worst * share), end))
        while under_way and rng.random() < 0.6:  # type: ignore[attr-defined]
            done, truth, how = under_way.pop(rng.randrange(len(under_way)))  # type: ignore[attr-defined]
            if how == "leak":
                continue
            truth = 0 if how == "release" else truth
            made.settle(done, quotas.Need(truth), now)
            if how == "twice":
                made.settle(done, quotas.Need(truth), now)
            booked += truth
        assert booked <= made.used("acme", rule, now) <= limit
    for done, truth, _ in under_way:
        made.settle(done, quotas.Need(truth), now)
        booked += truth
    later = now + 601
    made.reserve(accounts.Held("last", "acme", (rule,), (rule.window(now)[0],), quotas.Need(0), later + 1), later)
    assert made.used("acme", rule, later) == booked <= limit
