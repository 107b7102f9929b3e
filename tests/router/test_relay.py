"""Relays without a network: whatever the cuts between reads, the verdict and the bytes are the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_router import answers, relay, sse, streams

from .engines import DONE, ROLE, USAGE, chunk, compact, pieces

WORDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5)
MARKS = ['"error"', "[DONE]", '"abort"', '"usage":{', '"finish_reason":"stop"', "\n\n", "data: ", "\r\n"]
CUTS = st.lists(st.integers(1, 2000), max_size=12)


def choice_relay(*, show_usage: bool = False, keep: int = 0) -> streams.ChoiceRelay:
    return streams.ChoiceRelay(
        1 << 20, show_usage=show_usage, price=lambda usage: usage.tokens_out / 1000, keep_bytes=keep
    )


def run(judge: relay.Relay, data: bytes, cuts: list[int]) -> bytes:
    """Feed data cut at these places, as the network may, until the relay has made up its mind."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    out = b""
    for start, end in itertools.pairwise(edges):
        out += judge.feed(data[start:end])
        if judge.failure:
            return out
    judge.close()
    return out


@given(words=st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=8)), min_size=1, max_size=6), cuts=CUTS)
def test_a_good_stream_passes_whole_whatever_is_in_its_texts(words: list[str], cuts: list[int]) -> None:
    events = pieces(words)
    judge = choice_relay()
    out = run(judge, b"".join(events), cuts)
    assert judge.failure == ""
    assert judge.ended
    assert out == b"".join(event for event in events if b'"usage":{"prompt' not in event)
    assert judge.usage is not None
    assert (judge.usage.tokens_in, judge.usage.tokens_cached, judge.usage.tokens_out) == (10, 2, 4)
    assert judge.finish_reason == "stop"


@settings(max_examples=30)
@given(words=WORDS)
def test_the_cut_may_be_at_any_byte(words: list[str]) -> None:
    data = b"".join(pieces(words))
    whole = run(choice_relay(), data, [])
    for cut in range(1, len(data)):
        judge = choice_relay()
        assert run(judge, data, [cut]) == whole
        assert judge.ended


@given(words=WORDS, cuts=CUTS, line_end=st.sampled_from([b"\r\n", b"\r"]))
def test_all_line_ends_of_the_standard_mean_the_same(words: list[str], cuts: list[int], line_end: bytes) -> None:
    data = b"".join(pieces(words))
    judge = choice_relay()
    # A last CR might be half of a CRLF, so a comment follows it.
    assert run(judge, data.replace(b"\n", line_end) + b":", cuts) == run(choice_relay(), data, [])


BROKEN = {
    "error": b'data: {"error": {"message": "boom", "code": 500}}\n\n',
    "abort": chunk({"content": "x"}, "abort"),
    "vLLM's error end": chunk({}, "error"),
    "not JSON": b'data: {"error" oops\n\n',
    "abort with odd blanks": b'data: {"choices" : [{"index" : 0, "delta" : {}, "finish_reason" : "abort"}]}\n\n',
    "abort with blanks": b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}\n\n',
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@settings(max_examples=40)
@given(words=WORDS, cuts=CUTS, at=st.integers(0, 6))
def test_nothing_of_a_failure_or_after_it_passes(broken: bytes, words: list[str], cuts: list[int], at: int) -> None:
    events = pieces(words)[:-2]
    at = min(at, len(events))
    data = b"".join([*events[:at], broken, *events[at:], DONE])
    judge = choice_relay()
    out = run(judge, data, cuts)
    assert judge.failure
    assert b"".join(events[:at]).startswith(out)
    assert judge.feed(DONE) == b""


@given(words=WORDS, cuts=CUTS, keep=st.integers(0, 4))
def test_a_stream_that_stops_anywhere_before_its_end_is_truncated(words: list[str], cuts: list[int], keep: int) -> None:
    events = pieces(words)
    judge = choice_relay()
    run(judge, b"".join(events[: min(keep, len(events) - 1)]), cuts)
    assert judge.failure == "truncated"


def test_a_role_alone_does_not_commit_and_every_kind_of_content_does() -> None:
    kinds = {
        "text": {"content": "x"},
        "tool call": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        "refusal": {"refusal": "no"},
        "reasoning": {"reasoning_content": "hm"},
    }
    for name, delta in kinds.items():
        judge = choice_relay()
        assert judge.feed(ROLE) == b"", name
        assert judge.feed(chunk({"content": ""})) == b"", name
        assert not judge.committed, name
        assert judge.feed(chunk(delta)) == ROLE + chunk({"content": ""}) + chunk(delta), name
        assert judge.committed, name


def test_an_answer_without_words_is_an_answer() -> None:
    judge = choice_relay()
    data = ROLE + chunk({}, "stop") + DONE
    assert judge.feed(data) == data
    assert judge.ended


def test_usage_is_shown_with_its_price_to_who_asked() -> None:
    judge = choice_relay(show_usage=True)
    out = run(judge, b"".join(pieces()), [])
    shown = [json.loads(sse.data(event)) for event in sse.events(out)[:-1]]
    assert shown[-1]["usage"] == {**USAGE, "cost_usd": 0.004}
    assert shown[-1]["choices"] == []


def test_usage_on_every_chunk_is_left_to_who_asked_for_it() -> None:
    events = [
        ROLE,
        chunk({"content": "a"}, usage=USAGE),
        chunk({}, "stop", usage={**USAGE, "completion_tokens": 9}),
        DONE,
    ]
    judge = choice_relay(show_usage=True)
    assert run(judge, b"".join(events), []) == b"".join(events)
    assert judge.usage is not None
    assert judge.usage.tokens_out == 9


def running(made: int) -> dict[str, Any]:
    return {**USAGE, "completion_tokens": made}


@settings(max_examples=30)
@given(words=st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=8)), min_size=1, max_size=6), cuts=CUTS)
def test_counts_that_nobody_asked_for_are_cut_out_and_nothing_else(words: list[str], cuts: list[int]) -> None:
    plain = [ROLE, *(chunk({"content": word}) for word in words), chunk({}, "stop"), DONE]
    events = [ROLE, *(chunk({"content": word}, usage=running(at)) for at, word in enumerate(words))]
    events += [chunk({}, "stop", usage=running(99)), chunk(usage=running(100)), DONE]
    judge = streams.ChoiceRelay(1 << 20, show_usage=False, price=lambda _: 0.0, hides=True)
    assert run(judge, b"".join(events), cuts) == b"".join(plain)
    counted = judge.counted()
    assert counted is not None
    # The last word, not the last running count.
    assert counted.tokens_out == 100


@settings(max_examples=30)
@given(words=WORDS, keep=st.integers(0, 4), together=st.booleans())
def test_a_stream_left_anywhere_is_counted_by_the_last_event_that_came(
    words: list[str], keep: int, *, together: bool
) -> None:
    keep = min(keep, len(words))
    events = [ROLE, *(chunk({"content": word}, usage=running(3 * at + 2)) for at, word in enumerate(words[:keep]))]
    judge = streams.ChoiceRelay(1 << 20, show_usage=False, price=lambda _: 0.0, hides=True)
    for data in [b"".join(events)] if together else events:
        judge.feed(data)
    counted = judge.counted()
    # Events hold several tokens: 2, 5, 8, …
    assert (counted.tokens_out if counted is not None else 0) == (3 * keep - 1 if keep else 0)


def test_a_count_in_another_layout_is_cut_out_too() -> None:
    spaced = b"data: " + json.dumps(json.loads(sse.data(chunk({"content": "a"}, usage=USAGE)[:-2]))).encode() + b"\n\n"
    judge = streams.ChoiceRelay(1 << 20, show_usage=False, price=lambda _: 0.0, hides=True)
    assert judge.feed(ROLE + spaced) == ROLE + chunk({"content": "a"})
    counted = judge.counted()
    assert counted is not None
    assert counted.tokens_out == 4


def test_an_event_without_end_is_given_up_at_the_limit() -> None:
    judge = streams.ChoiceRelay(1000, show_usage=False, price=lambda _: 0.0)
    judge.feed(b"data: " + b"x" * 2000)
    assert judge.failure == "oversized-event"


def test_empty_events_before_the_content_are_given_up_at_the_limit() -> None:
    judge = streams.ChoiceRelay(1000, show_usage=False, price=lambda _: 0.0)
    for _ in range(20):
        judge.feed(chunk({"content": ""}))
    assert judge.failure == "oversized-event"


def test_comments_pass_and_count_as_nothing() -> None:
    judge = choice_relay()
    data = b": keep-alive\n\n" + b"".join(pieces())
    assert run(judge, data, []).startswith(b": keep-alive\n\n")
    assert judge.pieces == 4  # three words and the end


def test_the_first_reason_that_is_not_stop_counts() -> None:
    judge = choice_relay()
    two = {
        "choices": [{"index": n, "delta": {}, "finish_reason": reason} for n, reason in enumerate(("stop", "length"))]
    }
    run(judge, ROLE + b"data: " + compact(two) + b"\n\n" + DONE, [])
    assert judge.finish_reason == "length"


def test_what_is_kept_for_the_cache_is_bounded() -> None:
    small, big = choice_relay(keep=10_000), choice_relay(keep=50)
    for judge in (small, big):
        run(judge, b"".join(pieces()), [])
    assert small.kept is not None
    assert b"hi" in b"".join(small.kept)
    assert big.kept is None


def test_an_answer_larger_than_the_limit_is_none() -> None:
    judge = relay.WholeRelay(10, judged=True)
    judge.feed(b"x" * 11)
    assert judge.failure == "oversized-answer"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, (5, 0, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}, (5, 3, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}}, (5, 0, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}, (5, 1, 2)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0, 0)),
    ],
)
def test_usage_is_read_in_all_its_shapes(usage: object, expected: tuple[int, int, int]) -> None:
    judge = relay.WholeRelay(10_000, judged=True)
    judge.feed(compact({"usage": usage}))
    judge.close()
    assert isinstance(judge.usage, answers.Usage)
    assert (judge.usage.tokens_in, judge.usage.tokens_cached, judge.usage.tokens_out) == expected
