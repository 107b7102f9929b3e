"""Bodies: what is read of them, and that the spliced one means what the decoded and encoded one would."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_router import errors, openai

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", "stream"]), inner, max_size=3)
    ),
    max_leaves=8,
)
MODELS = st.sampled_from(["auto", 'we"ird', "ünï", "a\\b", "", "model"])
OPTIONS = st.sampled_from(
    [None, {}, {"include_usage": False}, {"include_usage": True}, {"continuous_usage_stats": True}]
)


@given(
    model=MODELS,
    stream=st.sampled_from([None, False, True]),
    options=OPTIONS,
    rest=st.dictionaries(st.sampled_from(["messages", "tools", "metadata", "x"]), VALUES, max_size=3),
    first=st.booleans(),
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
    running=st.booleans(),
)
def test_a_rewritten_body_differs_in_model_and_usage_alone(
    *,
    model: str,
    stream: bool | None,
    options: Any,
    rest: dict[str, Any],
    first: bool,
    indent: int | None,
    ascii_: bool,
    running: bool,
) -> None:
    fields = {"stream": stream, **({"stream_options": options} if options is not None else {})}
    body = {"model": model, **fields, **rest} if first else {**rest, **fields, "model": model}
    data = json.dumps(body, indent=indent, ensure_ascii=ascii_).encode()
    envelope = openai.read(data)
    wanted = openai.Wanted("small", usage=True, running=running)
    rewritten = json.loads(openai.rewrite(data, envelope, wanted))
    expected = {**body, "model": "small"}
    if stream:
        asked = {"include_usage": True, "continuous_usage_stats": True} if running else {"include_usage": True}
        expected["stream_options"] = {**(options or {}), **asked}
    assert rewritten == expected


TRICKY = {
    "nested first": b'{"metadata":{"model":"auto"},"model":"auto"}',
    "nested only by name, escaped on top": b'{"tools":[{"model":"auto"}],"mod\\u0065l":"auto"}',
    "escaped value": b'{"model":"\\u0061uto"}',
    "in a text": b'{"messages":[{"role":"user","content":"\\"model\\":\\"auto\\""}],"model":"auto"}',
    "blanks all over": b' {\n "model" \t:\n "auto" , "stream" : true } \n',
    "options twice": b'{"model":"auto","stream":true,"stream_options":{"include_usage":false},"stream_options":null}',
    "options in a list": b'{"model":"auto","stream":true,"stream_options":{"include_usage":true},"x":[{"stream_options":{}}]}',
    "options by an escaped name": b'{"x":{"stream_options":{"a":1}},"model":"auto","stream":true,"stream\\u005foptions":{"include_usage":true}}',
    "options in a text": b'{"model":"auto","stream":true,"prompt":"stream_options"}',
}


@pytest.mark.parametrize("running", [False, True], ids=["usage at the end", "usage on every event"])
@pytest.mark.parametrize("data", TRICKY.values(), ids=TRICKY.keys())
def test_tricky_bodies_are_rewritten_where_it_counts(data: bytes, *, running: bool) -> None:
    envelope = openai.read(data)
    assert envelope.model == "auto"
    rewritten = openai.rewrite(data, envelope, openai.Wanted("small", usage=True, running=running))
    again = openai.read(rewritten)
    assert again.model == "small"
    if envelope.stream:
        assert again.stream_options is not None
        assert again.stream_options.include_usage
        assert again.stream_options.continuous_usage_stats is (True if running else None)
    # An engine whose parser takes the first of two keys must not see another model either.
    assert rewritten.count(b'"auto"') <= data.count(b'"auto"') - (1 if b'"auto"' in data else 0)


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"auto","model":"auto"}',
        b'{"model":"other","model":"auto"}',
        b'{"model":"auto","messages":[],"mod\\u0065l":"gpt-9"}',
    ],
)
def test_two_models_are_refused_because_parsers_do_not_agree_on_the_one_that_counts(data: bytes) -> None:
    with pytest.raises(errors.Malformed, match="more than one model") as refused:
        openai.read(data)
    assert refused.value.param == "model"
    assert openai.read(b'{"model":"auto","metadata":{"model":"a"},"tools":[{"model":"b"}]}').model == "auto"


def test_numbers_that_floats_can_not_hold_survive() -> None:
    data = b'{"seed":123456789012345678901234567890,"model":"auto","temperature":0.1}'
    assert openai.rewrite(data, openai.read(data), openai.Wanted("small", usage=False)) == data.replace(
        b"auto", b"small"
    )


@pytest.mark.parametrize(
    ("body", "text", "turns"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "a", 1),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
                       {"role": "assistant", "content": "b"}]}, "a", 3),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}},
                                                    {"type": "text", "text": "b"}]}]}, "a\n\nb", 1),
        ({"prompt": "p"}, "p", 1),
        ({"prompt": ["p", "q"]}, "p\nq", 1),
        ({"prompt": [1, 2, 3]}, "", 1),
        ({"input": "i"}, "i", 1),
        ({"messages": "nonsense"}, "", 1),
        ({"messages": [{"role": "user", "content": None}]}, "", 1),
        ({}, "", 1),
    ],
)  # fmt: skip
def test_the_text_that_is_judged_is_the_last_of_the_user(body: dict[str, Any], text: str, turns: int) -> None:
    assert openai.last_text(json.dumps(body).encode()) == (text, turns)


@given(st.binary(max_size=60))
def test_no_bytes_make_more_of_it_than_a_bad_request(data: bytes) -> None:
    openai.last_text(data)
    try:
        envelope = openai.read(data)
    except errors.Malformed:
        return
    assert isinstance(envelope.model, str)
