"""The picker: which endpoint takes a request."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import picker


@dataclass(eq=False)
class Endpoint:
    name: str
    ready: bool = True
    in_flight: int = 0
    capacity: float = 10.0
    penalty: float = 0.0


GOOD, FULL = Endpoint("good"), Endpoint("full", in_flight=10)
ASLEEP = Endpoint("asleep", ready=False)
OTHER = Endpoint("other")
EASED_IN = Endpoint("eased in", penalty=11.0)


@pytest.mark.parametrize(
    ("candidates", "tried", "expected"),
    [
        ([GOOD, ASLEEP], [], GOOD),
        ([GOOD, OTHER], [GOOD], OTHER),
        ([GOOD, FULL], [], GOOD),
        ([FULL], [], FULL),
        ([ASLEEP, FULL], [], FULL),
        ([FULL, EASED_IN], [], FULL),
        ([ASLEEP], [], None),
        ([], [], None),
        ([*[FULL] * 40, GOOD], [], GOOD),
        ([Endpoint("over", in_flight=20), *[FULL] * 40], [], FULL),
        ([*[ASLEEP] * 40, GOOD], [], GOOD),
    ],
    ids=["asleep", "tried", "room preferred", "full alone", "full is better than asleep", "a penalty counts as requests",
         "none", "empty", "far away there is room", "the least full where none has room", "far away one is ready"],
)  # fmt: skip
def test_who_takes_a_request(candidates: list[Endpoint], tried: list[Endpoint], expected: Endpoint | None) -> None:
    for seed in range(20):
        assert picker.pick(candidates, random.Random(seed), tried=tried) is expected


def test_the_freest_is_the_one_of_the_largest_free_share() -> None:
    candidates = [
        Endpoint("half", in_flight=5),
        Endpoint("quarter", in_flight=5, capacity=20.0),
        Endpoint("most", in_flight=9),
    ]
    assert picker.pick(candidates, random.Random(1)) is candidates[1]


def test_the_freest_is_picked() -> None:
    candidates = [Endpoint("a", in_flight=3), Endpoint("b", in_flight=1), Endpoint("c", in_flight=2)]
    picked = picker.pick(candidates, random.Random(1))
    assert picked is candidates[1]


def test_ties_are_broken_evenly() -> None:
    candidates = [Endpoint(name) for name in "abc"]
    rng = random.Random(1)
    counts = Counter(picker.pick(candidates, rng).name for _ in range(3000))  # type: ignore[union-attr]
    assert all(900 < count < 1100 for count in counts.values())


@given(st.integers(9, 200), st.integers(0, 2**32))
def test_among_many_the_load_still_spreads(count: int, seed: int) -> None:
    candidates = [Endpoint(str(index)) for index in range(count)]
    rng = random.Random(seed)
    for _ in range(count * 3):
        picked = picker.pick(candidates, rng)
        assert picked is not None
        picked.in_flight += 1
    # Three each on average; the best of eight random ones is never far behind the best.
    assert max(each.in_flight for each in candidates) <= 5
