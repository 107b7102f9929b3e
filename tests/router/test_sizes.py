"""Sizes: what a request takes at most, by its bytes, its bounds, and what others of its class have taken."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import economics
from trimtab_core.routing import table
from trimtab_router import openai, quotas, sizes


def test_what_is_unknown_is_large() -> None:
    found = sizes.Sizes().worst(1000, bound=None)
    assert found == sizes.Size(64 + 500, 4096)


def test_a_bound_of_the_client_counts_for_every_answer() -> None:
    assert sizes.Sizes().worst(0, bound=100, answers=6).output_tokens == 600


def test_what_was_taken_bounds_what_may_be_taken() -> None:
    """314 tokens in 1,000 bytes, of which the template has 64: 0.25 a byte, and half as much again is reserved."""
    made = sizes.Sizes()
    for _ in range(32):
        made.observe(body_bytes=1000, input_tokens=314, output_tokens=40)
    assert made.worst(10_000, bound=None) == sizes.Size(64 + 3750, 60)
    made.observe(body_bytes=1000, input_tokens=314, output_tokens=400)
    assert made.worst(10_000, bound=None).output_tokens == 600, "one that was longer counts at once"


def test_a_failed_request_teaches_nothing() -> None:
    made = sizes.Sizes()
    for _ in range(100):
        made.observe(body_bytes=1000, input_tokens=0, output_tokens=0)
    assert made.worst(1000, bound=None) == sizes.Sizes().worst(1000, bound=None)


def test_what_was_long_ago_is_forgotten() -> None:
    made = sizes.Sizes()
    made.observe(body_bytes=10, input_tokens=74, output_tokens=9000)
    for _ in range(600):
        made.observe(body_bytes=1000, input_tokens=100, output_tokens=10)
    assert made.worst(1000, bound=None) == sizes.Size(64 + 54, 24)


@given(
    seen=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1), st.integers(0, 10**5)), min_size=32, max_size=200),
    data=st.data(),
)
def test_whatever_was_seen_lately_would_have_fitted(seen: list[tuple[int, float, int]], data: st.DataObject) -> None:
    made = sizes.Sizes()
    requests = [(size, 1 + int(size * share), outputs) for size, share, outputs in seen]
    for size, inputs, outputs in requests:
        made.observe(body_bytes=size, input_tokens=inputs, output_tokens=outputs)
    size, inputs, outputs = data.draw(st.sampled_from(requests))
    worst = made.worst(size, bound=None)
    assert worst.input_tokens >= inputs
    assert worst.output_tokens >= outputs


RATES = st.floats(0, 1e-3)


@given(
    rates=st.tuples(RATES, RATES, RATES),
    tokens=st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6)),
)
def test_no_truth_within_the_tokens_costs_more_than_was_reserved(
    rates: tuple[float, float, float], tokens: tuple[int, int, int]
) -> None:
    """Cached tokens may cost what they like up to the input's price: the dearest rates are at least as high."""
    inputs, cached, outputs = tokens
    own = table.Rates(max(rates[0], rates[2]), rates[1], rates[2])
    worst = quotas.worst(own, input_tokens=inputs, output_tokens=outputs)
    usd = economics.request_usd(own, input_tokens=inputs, cached_input_tokens=cached, output_tokens=outputs)
    assert quotas.truth(tokens=inputs + outputs, usd=usd).nano_usd <= worst.nano_usd


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"5", 5), (b'"5"', 5), (b"5.0", 5), (b"-3", 0), (b"null", None), (b"[]", None), (b'"many"', None), (b"1e3", 1000), (b"1e999", None), (b"", None)],
)  # fmt: skip
def test_bounds_are_read_as_engines_take_them(raw: bytes, expected: int | None) -> None:
    assert openai.whole(msgspec.Raw(raw)) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(["messages", "cache_salt", "model ", "a", "max_tokens", "stream", "user", "n"]), JSON, max_size=6
)


@given(before=FIELDS, after=FIELDS, salt=st.text("abcXYZ09-_", min_size=1, max_size=32), stream=st.booleans())
def test_fields_that_are_added_end_up_in_any_body_once(
    before: dict[str, Any], after: dict[str, Any], salt: str, *, stream: bool
) -> None:
    body = {**before, "model": "auto", **after, "stream": stream}
    data = json.dumps(body).encode()
    extra = b',"cache_salt":"%b"' % salt.encode()
    sent = openai.rewrite(data, openai.read(data), openai.Wanted("small", usage=True, extra=extra))
    wanted = {**body, "model": "small", "cache_salt": salt}
    if stream:
        wanted["stream_options"] = {"include_usage": True}
    assert json.loads(sent) == wanted
    assert len(json.loads(sent, object_pairs_hook=lambda pairs: pairs)) == len(wanted)
