"""Affinity: what belongs together meets at one endpoint, and no endpoint is overloaded for it."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import affinity, picker, scorers


class Endpoint:
    def __init__(self, name: str, capacity: float = 32.0) -> None:
        self.name, self.capacity = name, capacity
        self.ready = True
        self.in_flight, self.penalty = 0, 0.0


def fleet(count: int, capacity: float = 32.0) -> list[Endpoint]:
    return [Endpoint(f"small-{index}", capacity) for index in range(count)]


def place(number: int) -> int:
    return affinity.key(f"prompt {number}".encode())


def near(endpoints: list[Endpoint], key: int, *, tried: tuple[Endpoint, ...] = ()) -> Endpoint | None:
    return picker.pick_near(endpoints, affinity.Ring(endpoints), key, random.Random(1), tried=tried)


def test_one_key_meets_one_endpoint_whichever_router_asks_and_in_whichever_order_endpoints_are_listed() -> None:
    endpoints = fleet(7)
    for number in range(50):
        first = near(endpoints, place(number))
        assert first is not None
        again = near(list(reversed(endpoints)), place(number))
        assert again is first


def test_tenants_that_share_no_cache_share_no_key() -> None:
    assert affinity.key(b"the same prompt", b"alice") != affinity.key(b"the same prompt", b"bob")
    assert affinity.key(b"the same prompt", b"alice") == affinity.key(b"the same prompt", b"alice")


def test_an_endpoint_that_goes_moves_its_own_keys_only() -> None:
    endpoints = fleet(8)
    gone, left = endpoints[3], endpoints[:3] + endpoints[4:]
    before, after = affinity.Ring(endpoints), affinity.Ring(left)
    for number in range(500):
        owner = before.owners(place(number))[0]
        assert owner is gone or after.owners(place(number))[0] is owner


def test_keys_spread_over_endpoints() -> None:
    ring = affinity.Ring(fleet(8))
    counts = Counter(ring.owners(place(number))[0].name for number in range(8000))
    # 1000 each on average; 32 points an endpoint leave shares that differ by about 1/sqrt(32) = 18 %.
    assert len(counts) == 8
    assert max(counts.values()) < 1700
    assert min(counts.values()) > 400


def test_a_ring_of_nobody_has_no_owner() -> None:
    assert affinity.Ring[Endpoint]([]).owners(5) == ()
    assert near([], 5) is None


def test_an_owner_that_may_not_be_asked_passes_its_keys_on_to_one_and_the_same_other() -> None:
    endpoints = fleet(5)
    owner, second, _ = affinity.Ring(endpoints).owners(place(1))
    owner.ready = False
    assert {near(endpoints, place(1)) for _ in range(5)} == {second}
    owner.ready = True
    assert near(endpoints, place(1), tried=(owner,)) is second


@pytest.mark.parametrize(
    ("total", "most"),
    [
        # Below its free share, a quarter of 32, an owner takes what is its own.
        (4, 8),
        # 80 on 4 endpoints are 20 each; a quarter more is 25.
        (80, 25),
        # Never beyond its capacity.
        (400, 32),
    ],
)
def test_how_much_affinity_may_give_one_endpoint(total: int, most: float) -> None:
    assert affinity.limit(32.0, total=total, total_capacity=128.0) == most


def test_a_key_that_everybody_asks_for_fills_its_owner_and_then_the_others_evenly() -> None:
    endpoints = fleet(4)
    owner = affinity.Ring(endpoints).owners(place(1))[0]
    for _ in range(80):
        found = near(endpoints, place(1))
        assert found is not None
        found.in_flight += 1
    assert owner.in_flight == max(each.in_flight for each in endpoints) == 25


@given(
    capacities=st.lists(st.integers(1, 64), min_size=2, max_size=12),
    keys=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    seed=st.integers(0, 2**32),
)
def test_affinity_never_overloads_an_endpoint(capacities: list[int], keys: list[int], seed: int) -> None:
    endpoints = [Endpoint(f"e{index}", float(capacity)) for index, capacity in enumerate(capacities)]
    ring, rng = affinity.Ring(endpoints), random.Random(seed)
    for total, key in enumerate(keys, start=1):
        found = picker.pick_near(endpoints, ring, place(key), rng)
        assert found is not None
        fair = total * found.capacity / sum(capacities)
        free = found.in_flight + 1 <= found.capacity * affinity.FREE_SHARE
        bounded = found.in_flight + 1 <= math.ceil(affinity.BOUND * fair)
        # Or it is the least loaded of all (of 8 random ones, in a larger fleet with room).
        least = len(endpoints) > picker.ENOUGH or scorers.load(found) <= min(map(scorers.load, endpoints))
        assert free or bounded or least
        found.in_flight += 1


@given(st.binary(max_size=2000), st.binary(max_size=20))
def test_a_key_has_a_place_on_every_ring(text: bytes, salt: bytes) -> None:
    assert 0 <= affinity.key(text, salt) < 2**32
