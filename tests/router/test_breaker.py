"""The circuit breaker: what opens it, for how long, and how an endpoint comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import breaker, endpoints

RULES = table.Resilience(
    eject_after=3, eject_seconds=10.0, failure_ratio=0.5, failure_window=10.0, failure_requests=8, ease_in_seconds=20.0
)


def opened(times: int = 1) -> tuple[breaker.Breaker, float]:
    """A breaker that opened so often, each time as soon as it was let back in; and when it did so last."""
    made, now = breaker.Breaker(), 100.0
    for _ in range(times):
        while not made.failed(RULES):
            pass
        made.open(RULES, now)
        last, now = now, made.opened_until
        if _ < times - 1:
            assert made.tick(RULES, now)
    return made, last


def test_failures_in_a_row_open_it_and_an_answer_between_them_starts_anew() -> None:
    made = breaker.Breaker()
    assert [made.failed(RULES) for _ in range(2)] == [False, False]
    made.succeeded(1.0)
    assert [made.failed(RULES) for _ in range(3)] == [False, False, True]


def test_too_large_a_share_of_failures_opens_it_though_never_three_are_in_a_row() -> None:
    made, found = breaker.Breaker(), []
    for _ in range(4):
        found.append(made.failed(RULES))
        made.succeeded(1.0)
    # 4 of 8 are half, and 8 are enough; the next failure is the fifth of nine.
    assert found == [False] * 4
    assert made.failed(RULES)


def test_few_answers_say_nothing_of_a_share_and_old_ones_are_forgotten() -> None:
    made = breaker.Breaker()
    for _ in range(3):
        made.failed(RULES)
        made.succeeded(1.0)
    for now in (5.0, 10.0, 15.0):
        made.tick(RULES, now)
    for _ in range(3):
        assert not made.failed(RULES)
        made.succeeded(15.0)


def test_nobody_listening_opens_it_at_once() -> None:
    assert breaker.Breaker().failed(RULES, at_once=True)


@pytest.mark.parametrize(("times", "seconds"), [(1, 10), (2, 20), (3, 40), (5, 160), (9, 160)])
def test_each_time_that_a_probe_fails_it_stays_open_for_twice_as_long(times: int, seconds: float) -> None:
    made, at = opened(times)
    assert made.opened_until - at == seconds


def test_after_a_calm_time_it_opens_for_a_short_time_again() -> None:
    made, _ = opened(3)
    now = made.opened_until
    made.tick(RULES, now)
    made.succeeded(now)
    made.open(RULES, now + RULES.ease_in_seconds + 1)
    assert made.opened_until == now + RULES.ease_in_seconds + 1 + 10


def test_a_probe_that_answers_closes_it_and_its_share_grows_back_slowly() -> None:
    made, _ = opened()
    assert made.broken
    assert made.tick(RULES, made.opened_until)
    assert (made.state, made.broken) == (breaker.State.HALF_OPEN, False)
    made.succeeded(200.0)
    assert made.state is breaker.State.CLOSED
    # A tenth at once, then in proportion to the time: 20 s to the whole.
    shares = [made.share(RULES, now) for now in (200.0, 201.0, 210.0, 220.0, 300.0)]
    assert shares == pytest.approx([0.1, 0.1, 0.5, 1.0, 1.0])


def test_an_endpoint_that_never_failed_has_its_whole_share() -> None:
    assert breaker.Breaker().share(RULES, 0.0) == 1.0


def engine(name: str = "a") -> endpoints.Endpoint:
    made = endpoints.Endpoint("small", name, ("127.0.0.1", 1))
    made.capacity = 10.0
    return made


def test_while_half_open_one_request_at_a_time_finds_out() -> None:
    made = engine()
    made.failed(RULES, 0.0, at_once=True)
    assert not made.ready
    made.tick(RULES, 10.0)
    assert made.ready
    made.noticed(10.0)
    assert not made.ready
    # The client of the probe left: nothing was found out, and the next request may.
    made.passed_over(10.5)
    assert made.ready
    made.noticed(11.0)
    made.succeeded(lambda: 11.5)
    assert made.ready


def test_an_endpoint_that_comes_back_counts_as_nearly_full_at_first() -> None:
    made = engine()
    made.failed(RULES, 0.0, at_once=True)
    made.tick(RULES, 10.0)
    made.succeeded(lambda: 10.0)
    seen = []
    for now in (10.0, 20.0, 30.0):
        made.tick(RULES, now)
        seen.append(made.penalty)
    # A share of 0.1, 0.5 and 1 of a capacity of 10.
    assert seen == pytest.approx([9.0, 5.0, 0.0])


def test_no_more_of_a_tier_is_ejected_than_the_policy_says_but_always_one() -> None:
    fleet = [engine(name) for name in "abcd"]
    ejected = [[each.failed(RULES, 0.0, at_once=False, peers=fleet) for _ in range(3)][-1] for each in fleet]
    # Half of four.
    assert ejected == [True, True, False, False]
    alone = engine()
    assert [alone.failed(RULES, 0.0, at_once=False, peers=[alone]) for _ in range(3)][-1]


def test_that_nobody_listens_is_a_fact_that_no_cap_spares() -> None:
    fleet = [engine(name) for name in "abcd"]
    assert all(each.failed(RULES, 0.0, at_once=True, peers=fleet) for each in fleet)


def test_an_endpoint_whose_streams_bring_nothing_is_stalled_until_they_do() -> None:
    made, rules = engine(), table.Resilience(stall_after=5.0)
    made.expect(0.0)
    made.tick(rules, 5.0)
    assert made.ready
    made.tick(rules, 5.1)
    assert (made.stalled, made.ready) == (True, False)
    made.beats += 1
    made.tick(rules, 6.0)
    assert (made.stalled, made.ready) == (False, True)


def test_a_first_byte_may_be_longer_in_coming_than_the_next_one() -> None:
    made, rules = engine(), table.Resilience(stall_after=5.0, first_byte_timeout=60.0)
    made.expect(0.0, first=True)
    made.tick(rules, 15.0)
    assert made.ready
    # A quarter of the time limit, and nothing of anything: it sleeps or is frozen, whatever its health says.
    made.tick(rules, 15.1)
    assert not made.ready
    made.excuse(first=True)
    made.tick(rules, 15.2)
    assert made.ready


def test_without_streams_silence_says_nothing() -> None:
    made, rules = engine(), table.Resilience(stall_after=5.0)
    made.in_flight += 1
    made.tick(rules, 500.0)
    assert made.ready
    # A stream that begins now has its own time to bring something.
    made.expect(500.0)
    made.tick(rules, 504.0)
    assert made.ready


def test_an_endpoint_that_asked_for_a_rest_gets_it() -> None:
    made = engine()
    made.rest(7.0, 0.0)
    assert not made.ready
    made.tick(RULES, 6.9)
    assert not made.ready
    made.tick(RULES, 7.0)
    assert made.ready


@given(st.lists(st.sampled_from(["good", "bad", "refused", "tick", "begin", "leave"]), max_size=60))
def test_whatever_happens_it_gets_another_chance_in_the_end(events: list[str]) -> None:
    made, now = engine(), 0.0
    under_way = 0
    for event in events:
        now += 1.0
        if event == "tick":
            made.tick(RULES, now)
        elif event == "begin":
            made.noticed(now)
            under_way += 1
        elif under_way:
            under_way -= 1
            made.passed_over(now)
            if event == "good":
                made.succeeded(lambda: now)  # noqa: B023 (called at once)
            elif event != "leave":
                made.failed(RULES, now, at_once=event == "refused", peers=[made])
    while under_way:
        under_way -= 1
        made.passed_over(now)
    made.tick(RULES, now + RULES.eject_seconds * breaker.LONGEST)
    assert made.ready
