"""Both parsers and the relays under anything that a network can bring: cut anywhere, changed anywhere.

What a parser makes of bytes may not depend on how they were cut into reads, it may never fail by itself, and every
request and every answer ends exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trimtab_router import errors, openai, relay, request, server, sse, streams, upstream
from trimtab_router import settings as router_settings

from . import engines, test_golden_streams, wire

STREAMS = {
    "usage": ("11-chat-stream-usage", streams.ChoiceRelay),
    "no usage": ("12-chat-stream-nousage", streams.ChoiceRelay),
    "continuous usage": ("13-chat-stream-continuous-usage", streams.ChoiceRelay),
    "completion": ("31-completion-stream-usage", streams.ChoiceRelay),
    "aborted": ("78-stream-cut-by-pause-abort", streams.ChoiceRelay),
    "killed": ("c3-stream-SIGKILL", streams.ChoiceRelay),
    "responses": ("36-responses-stream", streams.ResponseRelay),
    "passed through": ("38-messages-stream", streams.EventRelay),
}
ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def judge_of(kind: type[streams.EventRelay]) -> streams.EventRelay:
    if kind is streams.ChoiceRelay:
        return streams.ChoiceRelay(1 << 20, show_usage=True, price=lambda usage: usage.tokens_out * 0.5)
    return kind(1 << 20)


def verdict(kind: type[streams.EventRelay], reads: list[bytes]) -> tuple[Any, ...]:
    judge = judge_of(kind)
    out = b"".join(map(judge.feed, reads))
    if not judge.failure:
        judge.close()
    return out, judge.failure, judge.ended, judge.committed, judge.finish_reason, judge.usage, judge.pieces


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize(("name", "kind"), STREAMS.values(), ids=STREAMS.keys())
def test_where_a_real_stream_is_cut_does_not_matter(name: str, kind: type[streams.EventRelay], end: bytes) -> None:
    body = test_golden_streams.response(name)[1].replace(b"\n", end)
    whole = verdict(kind, [body])
    assert whole[0]
    for at in range(len(body)):
        assert verdict(kind, [body[:at], body[at:]]) == whole, at


@pytest.mark.parametrize(("name", "kind"), STREAMS.values(), ids=STREAMS.keys())
def test_a_real_stream_may_come_byte_by_byte(name: str, kind: type[streams.EventRelay]) -> None:
    body = test_golden_streams.response(name)[1]
    assert verdict(kind, [body[at : at + 1] for at in range(len(body))]) == verdict(kind, [body])


@pytest.mark.parametrize(("name", "kind"), STREAMS.values(), ids=STREAMS.keys())
def test_a_real_stream_that_ends_too_soon_is_never_a_success(name: str, kind: type[streams.EventRelay]) -> None:
    body = test_golden_streams.response(name)[1]
    events = sse.events(body)
    last = len(body) - len(events[-1]) - len(sse.END)
    for at in range(last):
        out, failure, ended, *_ = verdict(kind, [body[:at]])
        cut_between_events = kind is streams.EventRelay and body[:at].endswith(sse.END)
        assert (bool(failure) and not ended) or cut_between_events, at
        assert b"[DONE]" not in out


ALPHABET = [
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}',
    b'data: {"choices":[{"index":0,"delta":{"content":"\\"finish_reason\\":null"},"finish_reason":null}]}',
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason" : "abort"}]}',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    b'data: {"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":null}],"usage":{"prompt_tokens":1}}',
    b'data: {"error":{"message":"boom"}}', b"data: [DONE]", b": ping", b"event: x\ndata: {}", b"", b"\n",
]  # fmt: skip
"""No data that is no JSON: it is noticed only in events that are looked at, which depends on what comes together."""


def cut(body: bytes, at: list[int]) -> list[bytes]:
    points = sorted({min(each, len(body)) for each in at} | {0, len(body)})
    return [body[first:last] for first, last in itertools.pairwise(points)]


CUTS = st.lists(st.integers(0, 2000), max_size=12)


@given(st.lists(st.sampled_from(ALPHABET), max_size=14), CUTS)
def test_streams_of_any_events_are_judged_the_same_however_they_are_cut(events: list[bytes], at: list[int]) -> None:
    body = b"".join(event + b"\n\n" for event in events)
    once, again = verdict(streams.ChoiceRelay, [body]), verdict(streams.ChoiceRelay, cut(body, at))
    # Empty lines between events mean nothing, and may be lost.
    shown = [[event.strip(b"\n") for event in sse.events(each[0])] for each in (once, again)]
    assert shown[0] == shown[1]
    assert again[1:-1] == once[1:-1]
    # Whatever ended badly has not been passed on as an end.
    assert not once[1] or b"[DONE]" not in once[0]
    assert b"abort" not in once[0]
    assert b"boom" not in once[0]


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is read from anybody."""

    resume_reading = pause_reading


class Door:
    """Accepts everything, and answers at once."""

    def __init__(self) -> None:
        self.limits = router_settings.Limits(head_bytes=4096, body_bytes=4096)
        self.connections: set[server.ClientConnection] = set()
        self.seen: list[Any] = []

    def clock(self) -> float:
        return 0.0

    def accept(self, connection: server.ClientConnection, incoming: request.Request) -> None:
        self.seen.append((incoming.method, incoming.path, sorted(incoming.headers.items()), incoming.body))
        connection.finish(close=not incoming.keep_alive)

    def refuse(self, connection: server.ClientConnection, error: errors.RouterError) -> None:
        del connection
        assert isinstance(error, errors.RequestError), error
        self.seen.append(type(error))


async def _read(reads: list[bytes]) -> list[Any]:
    door, line = Door(), Wire()
    connection = server.ClientConnection(door)
    connection.connection_made(line)  # type: ignore[arg-type]
    for data in reads:
        if not line.closed:
            connection.data_received(data)
    connection.connection_lost(None)
    return door.seen


def requests_in(reads: list[bytes]) -> list[Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_read(reads))


CHUNKED = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx-late: 1\r\n\r\n"
SEEDS = [
    wire.request(wire.chat()),
    wire.request(path="/v1/models?x=1", method="GET"),
    CHUNKED,
    CHUNKED.replace(b"chunked", b"gzip, chunked"),
    b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET http://b:1/v1/models HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nx-trimtab-class: a\r\nX-Trimtab-Class: b\r\n\r\n",
    b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    b"\r\n\r\n",
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 600),
        st.integers(0, 3),
        st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b":", b"\r\n", b"0", b"\xff", b"host: b\r\n", b"%2e", b"\t"]),
    ),
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, new in edits:
        data = data[:at] + new + data[at + gone :]
    return data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4), edits=EDITS, at=CUTS)
@example(seeds=[SEEDS[0]] * 3, edits=[], at=list(range(0, 600, 7)))
@example(seeds=[CHUNKED, SEEDS[0]], edits=[(40, 0, b"\n")], at=[1])
def test_requests_are_read_the_same_however_they_are_cut_and_nothing_breaks_the_reader(
    caplog: pytest.LogCaptureFixture, seeds: list[bytes], edits: list[tuple[int, int, bytes]], at: list[int]
) -> None:
    data = edited(b"".join(seeds), edits)
    whole = requests_in([data])
    assert requests_in(cut(data, at)) == whole
    # An error is the last that is said.
    assert all(not isinstance(each, type) for each in whole[:-1])
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@given(st.binary(max_size=300))
def test_noise_is_no_request(data: bytes) -> None:
    assert all(isinstance(each, type) or each[1] for each in requests_in([data]))


class Ear:
    """Listens to an upstream connection."""

    def __init__(self) -> None:
        self.body = b""
        self.told: list[str] = []

    def head(self, status: int, content_type: bytes, retry_after: bytes) -> None:
        assert status >= 200
        self.told.append("head")

    def read(self, data: bytes) -> None:
        assert self.told == ["head"]
        self.body += data

    def complete(self) -> None:
        self.told.append("complete")

    def lost(self, *, stale: bool) -> None:
        self.told.append("lost")
        assert not (stale and self.body)


def answer_in(reads: list[bytes]) -> tuple[bytes | None, bool]:
    """The body of a complete answer, None of any other; and whether the connection is used again."""
    pool, ear, line = upstream.Pool(), Ear(), Wire()
    connection = upstream.UpstreamConnection(pool, lambda: 0.0)
    connection.connection_made(line)  # type: ignore[arg-type]
    connection.send(ear, b"")
    for data in reads:
        if not line.closed:
            connection.data_received(data)
    kept = len(pool) == 1
    connection.connection_lost(None)
    ends = [each for each in ear.told if each != "head"]
    assert len(ends) == 1, ear.told
    return (ear.body if ends == ["complete"] else None), kept


ANSWERS = [
    engines.whole({"a": 1}),
    engines.STREAM_HEAD + b"".join(map(engines.frame, engines.pieces())) + engines.LAST,
    b"HTTP/1.1 100 Continue\r\n\r\n" + engines.whole({"b": 2}),
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nx-late: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    engines.whole({"c": 3}) + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
]


@given(st.sampled_from(ANSWERS), EDITS, CUTS)
def test_answers_are_read_the_same_however_they_are_cut_and_end_exactly_once(
    data: bytes, edits: list[tuple[int, int, bytes]], at: list[int]
) -> None:
    data = edited(data, edits)
    (whole, _), (again, _) = answer_in([data]), answer_in(cut(data, at))
    assert whole == again
    assert whole is None or b"evil" not in whole or edits


def test_what_follows_an_answer_is_not_the_next_one_wherever_it_is_cut() -> None:
    data = ANSWERS[-1]
    for at in range(1, len(data)):
        body, kept = answer_in([data[:at], data[at:]])
        assert body == b'{"c":3}'
        # Cut exactly behind the answer the rest comes unasked for, which ends the connection.
        assert not kept or at == len(engines.whole({"c": 3}))


@given(st.binary(max_size=200))
@example(b'{"model":"auto","stream":tru')
@example(b'{"a":{"model":"\xff"},"model":"auto"}')
@example(b'{"model":"auto","stream_options":{"include_usage":1}}')
def test_a_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(errors.Malformed):
        openai.rewrite(body, openai.read(body), openai.Wanted("small", usage=True))
    assert openai.last_text(body)[1] >= 0


@given(st.binary(max_size=400), CUTS)
def test_an_answer_in_one_piece_is_judged_by_its_whole(body: bytes, at: list[int]) -> None:
    def judged(reads: list[bytes]) -> tuple[Any, ...]:
        judge = relay.WholeRelay(300, judged=True)
        assert not any(map(judge.feed, reads))
        judge.close()
        return judge.failure, judge.failure or judge.body

    assert judged([body]) == judged(cut(body, at))
