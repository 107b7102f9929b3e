"""The queue: priorities, then fairness between tenants, then the earliest deadline; and never more than fits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_router import queueing
from trimtab_router.queueing import BATCH, NORMAL, Queue, Ticket

HIGH = 0


def ticket(tenant: str = "a", deadline: float = 1.0, *, size: int = 400, band: int = NORMAL) -> Ticket:
    return Ticket(tenant, deadline, size=size, band=band)


def fill(*tickets: Ticket) -> Queue[Ticket]:
    queue: Queue[Ticket] = Queue()
    for each in tickets:
        queue.push(each)
    return queue


@pytest.mark.parametrize(
    ("word", "band"),
    [(b"high", HIGH), (b"Interactive", HIGH), (b"normal", NORMAL), (b"", NORMAL), (b"gold", NORMAL), (b"batch", BATCH)],
)
def test_words_of_priority(word: bytes, band: int) -> None:
    assert queueing.band(word) == band


def test_a_better_priority_goes_first_however_late_it_came() -> None:
    late, batch, normal = ticket(deadline=9.0, band=HIGH), ticket(deadline=1.0, band=BATCH), ticket(deadline=1.0)
    assert list(fill(batch, normal, late).drain()) == [late, normal, batch]


def test_one_tenants_requests_go_by_their_deadlines_and_then_by_their_arrival() -> None:
    third, first, second = ticket(deadline=3.0), ticket(deadline=1.0), ticket(deadline=1.0)
    assert list(fill(third, first, second).drain()) == [first, second, third]


def test_a_tenant_that_floods_the_queue_waits_for_itself() -> None:
    queue = fill(*(ticket("loud", deadline=0.0) for _ in range(50)))
    quiet = [ticket("quiet", deadline=9.0) for _ in range(3)]
    for each in quiet:
        queue.push(each)
    first = [queue.pop() for _ in range(7)]
    assert sum(each in quiet for each in first) == 3


def test_who_comes_anew_has_saved_nothing_up_and_owes_nothing() -> None:
    queue = fill(*(ticket("early") for _ in range(20)))
    for _ in range(10):
        queue.pop()
    for _ in range(10):
        queue.push(ticket("late"))
    turns = Counter(found.tenant for _ in range(10) if (found := queue.pop()) is not None)
    assert turns == {"early": 5, "late": 5}


def test_large_requests_use_up_more_of_a_tenants_share() -> None:
    # 400 bytes are 256 + 100 tokens, 5,000 bytes are 256 + 1,250: about four small ones for each large one.
    queue = fill(*(ticket("large", size=5000) for _ in range(40)), *(ticket("small") for _ in range(40)))
    turns = Counter(found.tenant for _ in range(40) if (found := queue.pop()) is not None)
    assert 3.5 <= turns["small"] / turns["large"] <= 5


def test_a_full_queue_keeps_out_what_would_come_last() -> None:
    queue = fill(ticket(), ticket())
    assert queue.make_room(ticket(), most=2, most_bytes=10_000) is None
    assert queue.make_room(ticket(band=BATCH), most=2, most_bytes=10_000) is None
    assert len(queue) == 2


def test_a_full_queue_gives_up_a_batch_request_for_one_that_somebody_waits_for() -> None:
    batch, normal = ticket(band=BATCH), ticket()
    queue = fill(batch, normal)
    assert queue.make_room(ticket("b"), most=2, most_bytes=10_000) == [batch]
    assert list(queue.drain()) == [normal]


def test_a_full_queue_gives_up_the_last_request_of_the_tenant_that_has_most() -> None:
    last = ticket("loud", deadline=9.0)
    queue = fill(ticket("loud", 1.0), last, ticket("loud", 2.0))
    assert queue.make_room(ticket("quiet"), most=3, most_bytes=10_000) == [last]
    # Two against one already: one more of the quiet tenant would be no fairer.
    queue.push(ticket("quiet"))
    assert queue.make_room(ticket("quiet"), most=3, most_bytes=10_000) is None


def test_bodies_are_bounded_too() -> None:
    queue = fill(ticket(size=600, band=BATCH), ticket(size=300, band=BATCH))
    assert queue.make_room(ticket(size=2000), most=9, most_bytes=1000) is None
    gone = queue.make_room(ticket(size=900), most=9, most_bytes=1000)
    assert gone is not None
    assert sum(each.size for each in gone) == 900
    assert queue.bytes == 0


def test_a_queue_that_can_t_make_enough_room_gives_nothing_up() -> None:
    small, own = ticket("b", size=300, band=BATCH), ticket(size=600)
    queue = fill(small, own)
    assert queue.make_room(ticket(size=500), most=9, most_bytes=1000) is None
    assert list(queue.drain()) == [own, small]


def test_one_that_leaves_is_not_called_up() -> None:
    gone, stays = ticket(deadline=1.0), ticket(deadline=2.0)
    queue = fill(gone, stays)
    queue.remove(gone)
    queue.remove(gone)
    assert (len(queue), queue.bytes) == (1, 400)
    assert [queue.pop(), queue.pop()] == [stays, None]


def test_many_that_leave_take_no_memory() -> None:
    queue = fill(ticket(deadline=1.0))
    for number in range(2000):
        leaving = ticket(f"t{number}" if number % 2 else "a", deadline=2.0)
        queue.push(leaving)
        queue.remove(leaving)
    held = sum(len(line.heap) for lines in queue._bands for line in lines.values())
    assert held < 100
    for number in range(2000):
        queue.push(ticket(f"t{number}", band=HIGH))
        queue.pop()
    assert len(queue._given) < 100


TICKETS = st.builds(
    Ticket,
    st.sampled_from("abc"),
    st.floats(0, 100),
    size=st.integers(1, 3000),
    band=st.integers(0, 2),
)


@given(st.lists(TICKETS, max_size=60))
def test_within_a_band_and_a_tenant_the_earliest_deadline_is_always_next(tickets: list[Ticket]) -> None:
    order = list(fill(*tickets).drain())
    assert sorted(map(id, order)) == sorted(map(id, tickets))
    assert [each.band for each in order] == sorted(each.band for each in order)
    for tenant in "abc":
        for band in range(3):
            deadlines = [each.deadline for each in order if (each.tenant, each.band) == (tenant, band)]
            assert deadlines == sorted(deadlines)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8000)), min_size=1, max_size=90))
def test_tenants_that_wait_all_the_time_get_the_same_to_within_one_request(sizes: list[tuple[str, int]]) -> None:
    queue = fill(*(ticket(tenant, size=size) for tenant, size in sizes))
    waiting = Counter(tenant for tenant, _ in sizes)
    largest = max(ticket(size=size).cost for _, size in sizes)
    given_to = dict.fromkeys(waiting, 0.0)
    while all(waiting.values()):
        found = queue.pop()
        assert found is not None
        given_to[found.tenant] += found.cost
        waiting[found.tenant] -= 1
        assert max(given_to.values()) - min(given_to.values()) <= largest + 1e-6


@given(st.lists(st.tuples(TICKETS, st.sampled_from(["push", "pop", "leave"])), max_size=120))
def test_a_queue_never_holds_more_than_fits_and_loses_nobody(steps: list[tuple[Ticket, str]]) -> None:
    queue: Queue[Ticket] = Queue()
    inside: list[Ticket] = []
    for each, step in steps:
        if step == "push":
            gone = queue.make_room(each, most=10, most_bytes=9000)
            if gone is not None:
                assert each not in gone
                inside = [one for one in inside if one not in gone]
                queue.push(each)
                inside.append(each)
        elif step == "pop":
            found = queue.pop()
            assert (found is None) == (not inside)
            if found is not None:
                inside.remove(found)
        elif inside:
            queue.remove(inside.pop())
        assert len(queue) == len(inside) == queue.ahead(2) <= 10
        assert queue.bytes == sum(one.size for one in inside) <= 9000
