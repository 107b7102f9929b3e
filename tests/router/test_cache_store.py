"""The memory store: bounded in entries and bytes, oldest use out first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trimtab_router import cache_store


def stored(text: str = "x", expires_at: float = 100.0) -> cache_store.Stored:
    return cache_store.Stored(text, "small", "small", 0.0, 0.0, expires_at)


def test_the_one_unused_for_longest_makes_room() -> None:
    store = cache_store.MemoryStore()
    for key in (b"a", b"b"):
        store.put(key, stored(), 2)
    assert store.get(b"a", 0.0) is not None
    store.put(b"c", stored(), 2)
    assert store.get(b"b", 0.0) is None
    assert store.get(b"a", 0.0) is not None


def test_an_answer_dies_at_its_time() -> None:
    store = cache_store.MemoryStore()
    store.put(b"a", stored(expires_at=10.0), 2)
    assert store.get(b"a", 9.9) is not None
    assert store.get(b"a", 10.0) is None
    assert len(store) == 0


def test_an_answer_larger_than_all_room_is_not_kept() -> None:
    store = cache_store.MemoryStore(max_bytes=1000)
    store.put(b"a", stored("x" * 2000), 10)
    assert len(store) == 0


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 900)), max_size=40))
def test_its_bounds_hold_and_its_sum_is_right(puts: list[tuple[bytes, int]]) -> None:
    store = cache_store.MemoryStore(max_bytes=3000)
    for key, size in puts:
        store.put(key, stored("x" * size), 3)
        assert len(store) <= 3
        assert store._bytes == sum(each.size for each in store._entries.values()) <= 3000
