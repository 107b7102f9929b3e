"""Cache keys, and what may have one: no key of one scope can be formed in another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.caching import canonical, guard, scope
from trimtab_core.routing import table

CACHE = table.Cache("answers", 60.0, 100, 1000)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(["model", "messages", "top_p", "stop"]), JSON, max_size=4)
NAMES = st.text(max_size=6)


def shuffled(value: Any) -> Any:
    """The same value with keys in the opposite order, at every level."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


@given(BODIES)
def test_the_order_of_keys_does_not_matter(body: dict[str, Any]) -> None:
    assert canonical.canonical(shuffled(body)) == canonical.canonical(body)


@given(BODIES, BODIES)
def test_different_bodies_have_different_forms(one: dict[str, Any], two: dict[str, Any]) -> None:
    if one != two:
        assert canonical.canonical(one) != canonical.canonical(two)


@pytest.mark.parametrize("name", sorted(canonical.IGNORED))
def test_how_an_answer_is_delivered_is_no_part_of_the_form(name: str) -> None:
    assert canonical.canonical({"model": "a", name: "x"}) == canonical.canonical({"model": "a"})


def key(tenant: str = "a", route: str = "chat", allow: tuple[str, ...] = ("small",), **fields: Any) -> bytes:
    cache = table.Cache(**{"name": "n", "ttl_seconds": 1.0, "max_entries": 1, "max_answer_bytes": 1, **fields})
    return scope.key(cache, tenant=tenant, route=route, allow=allow, canonical_body=b"{}")


@given(one=NAMES, two=NAMES)
def test_no_two_tenants_share_a_key(one: str, two: str) -> None:
    assert (key(one) == key(two)) == (one == two)


@given(one=st.tuples(NAMES, NAMES, st.tuples(NAMES)), two=st.tuples(NAMES, NAMES, st.tuples(NAMES)))
def test_no_part_of_a_key_can_pass_for_another(one: Any, two: Any) -> None:
    assert (key(*one) == key(*two)) == (one == two)


def test_no_tenants_name_is_that_of_nobody_or_of_all() -> None:
    shared = key(shared=True)
    assert len({key(""), key("anonymous"), key("shared"), shared}) == 4
    assert key("b", shared=True) == shared


@pytest.mark.parametrize(
    "fields", [{"route": "completions"}, {"allow": ("small", "large")}, {"generation": "2"}, {"name": "m"}]
)
def test_everything_that_an_answer_depends_on_is_in_the_key(fields: dict[str, Any]) -> None:
    assert key(**fields) != key()


def test_the_order_of_allowed_tiers_is_not() -> None:
    assert key(allow=("a", "b")) == key(allow=("b", "a"))


COLD: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
BYPASSED = {
    "temperature above": ({**COLD, "temperature": 0.1}, "temperature"),
    "temperature not given": ({"messages": COLD["messages"]}, "temperature"),
    "temperature of wrong type": ({**COLD, "temperature": "0"}, "temperature"),
    "several choices": ({**COLD, "n": 2}, "choices"),
    "best of several": ({**COLD, "best_of": 2}, "choices"),
    "seed": ({**COLD, "seed": 0}, "sampled"),
    "log probabilities": ({**COLD, "logprobs": True}, "sampled"),
    "tools": ({**COLD, "tools": [{}]}, "tools"),
    "functions": ({**COLD, "functions": [{}]}, "tools"),
    "tool results": ({**COLD, "messages": [{"role": "tool", "content": "x"}]}, "tools"),
    "tool calls before": (
        {**COLD, "messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "tools",
    ),
    "an image": ({**COLD, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
    "no content": ({**COLD, "messages": [{"role": "user"}]}, "content"),
    "a long conversation": ({**COLD, "messages": COLD["messages"] * 41}, "messages"),
    "messages of wrong type": ({**COLD, "messages": "hi"}, "messages"),
    "a message of wrong type": ({**COLD, "messages": ["hi"]}, "messages"),
    "several prompts": ({"prompt": ["a", "b"], "temperature": 0}, "content"),
}  # fmt: skip
CACHED = {
    "a cold question": COLD,
    "one choice, said": {**COLD, "n": 1},
    "text in parts": {**COLD, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    "a format": {**COLD, "response_format": {"type": "json_object"}},
    "no tools, said": {**COLD, "tools": []},
    "log probabilities declined": {**COLD, "logprobs": False},
    "a prompt": {"prompt": "hi", "temperature": 0},
}


@pytest.mark.parametrize(("body", "reason"), BYPASSED.values(), ids=BYPASSED.keys())
def test_what_must_not_be_cached_goes_around_it(body: dict[str, Any], reason: str) -> None:
    assert guard.bypass_reason(CACHE, body, sensitive=False) == reason


@pytest.mark.parametrize("body", CACHED.values(), ids=CACHED.keys())
def test_what_may_be_cached_is(body: dict[str, Any]) -> None:
    assert guard.bypass_reason(CACHE, body, sensitive=False) == ""
    assert guard.bypass_reason(CACHE, body, sensitive=True) == "sensitive"
    off = table.Cache("answers", 60.0, 100, 1000, exact=False)
    assert guard.bypass_reason(off, body, sensitive=False) == "off"


@pytest.mark.parametrize(
    ("finish", "text", "refusal", "reason"),
    [("stop", "x", False, ""), ("length", "x", False, "incomplete"), ("", "x", False, "incomplete"),
     ("abort", "x", False, "incomplete"), ("stop", "x", True, "refusal"), ("stop", "", False, "empty"),
     ("stop", "x" * 1001, False, "too-long"), ("stop", "é" * 501, False, "too-long"), ("stop", "x" * 1000, False, "")],
)  # fmt: skip
def test_only_complete_answers_of_bounded_size_are_stored(
    *, finish: str, text: str, refusal: bool, reason: str
) -> None:
    assert guard.skip_reason(CACHE, finish_reason=finish, text=text, refusal=refusal) == reason
