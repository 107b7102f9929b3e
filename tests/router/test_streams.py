"""Streams through the router: what passes, what is taken out, and what is never presented as success."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from . import engines, scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, USAGE, Asked, Close, Hang, Reset, Step, chunk, frame, pieces, stream


def test_a_stream_arrives_word_for_word_and_ends_with_done() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.status == 200
            assert reply.text == "hi there you"
            assert reply.events[-1] == "[DONE]"
            assert reply.whole

    scene.play(scenario)


def test_usage_is_asked_of_the_engine_and_taken_out_for_a_client_that_did_not_ask() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            reply = await router.ask(wire.chat(stream=True))
            options = {"include_usage": True, "continuous_usage_stats": True}
            assert engine.asked[0].json()["stream_options"] == options
            assert b'"usage"' not in reply.body
            assert await router.metric("output_tokens_total", tier="small") == 4

    scene.play(scenario)


def test_a_client_that_asked_for_usage_gets_it_with_its_cost() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            options = {"include_usage": True, "continuous_usage_stats": False}
            reply = await router.ask(wire.chat(stream=True, stream_options=options))
            assert engine.asked[0].json()["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
            usage = json.loads(reply.events[-2])["usage"]
            # 8 new input tokens at 1e-6, 2 cached ones at 5e-7, 4 output tokens at 2e-6.
            assert usage == {**USAGE, "cost_usd": pytest.approx(8e-6 + 1e-6 + 8e-6)}

    scene.play(scenario)


def test_nothing_is_sent_before_the_first_content_so_that_another_engine_can_still_answer() -> None:
    def dies_after_role(asked: Asked) -> list[Step]:
        return [STREAM_HEAD, frame(ROLE), Close]

    async def scenario() -> None:
        async with scene.engine(dies_after_role) as bad, scene.engine() as good:
            data = scene.make_table(scene.tier("small", bad.port), scene.tier("large", good.port, quality=0.9))
            async with scene.router(data) as router:
                reply = await router.ask(wire.chat(stream=True))
                assert reply.text == "hi there you"
                assert reply.headers["x-trimtab-tier"] == "large"
                assert reply.headers["x-trimtab-attempts"] == "2"
                assert await router.metric("fallbacks_total", tier="small", reason="disconnected") == 1

    scene.play(scenario)


FAILURES = {
    "connection closed": [Close],
    "connection reset": [Reset],
    "closed inside an event": [frame(b'data: {"choices":[{"delta"'), Close],
    "clean end without [DONE]": [LAST],
    "error event, then [DONE]": [
        frame(b'data: {"error": {"message": "boom", "code": 500}}\n\n'),
        frame(DONE), LAST,
    ],
    "finish_reason abort, then [DONE]": [
        frame(chunk({"content": " 9"}, "abort")), frame(chunk(usage=USAGE)),
        frame(DONE), LAST,
    ],
    "all of it in one read": [
        frame(chunk({"content": " 9"}, "abort") + chunk(usage=USAGE) + DONE) + LAST,
    ],
    "not JSON": [frame(b'data: {"error": oops\n\n'), frame(DONE), LAST],
    "bad HTTP chunk": [b"zz\r\nnonsense\r\n"],
    "frozen": [Hang],
}  # fmt: skip


@pytest.mark.parametrize("steps", FAILURES.values(), ids=FAILURES.keys())
def test_a_stream_that_fails_after_the_commit_point_ends_with_an_error_and_never_with_done(steps: list[Step]) -> None:
    async def scenario() -> None:
        async with scene.one_engine(
            lambda _: [STREAM_HEAD, frame(ROLE), frame(chunk({"content": "hi"})), 0.05, *steps]
        ) as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.status == 200
            assert not reply.whole
            assert "[DONE]" not in reply.body.decode()
            last = json.loads(reply.events[-1])
            assert last["error"]["type"] == "server_error"
            assert await router.metric("requests_total", result="failed") == 1
            assert await router.metric("requests_total", result="ok") == 0

    scene.play(scenario)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_other_ends_are_good_ends(reason: str) -> None:
    events = [ROLE, chunk({"content": "hi"}), chunk({}, reason), chunk(usage=USAGE), DONE]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(events)) as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.whole
            assert json.loads(reply.events[-2])["choices"][0]["finish_reason"] == reason
            assert await router.metric("requests_total", result="ok") == 1

    scene.play(scenario)


def test_words_that_look_like_marks_pass_unharmed() -> None:
    words = ['say "error"', ' "usage":{"x":1}', " data: [DONE]", ' finish_reason":"abort"', ' "abort" end']

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(pieces(words))) as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.text == "".join(words)
            assert reply.whole

    scene.play(scenario)


def test_events_split_at_any_place_by_the_network_arrive_whole() -> None:
    wire_bytes = b"".join(map(frame, pieces(["é", "ü€", "🙂"]))) + LAST

    async def scenario() -> None:
        for size in (1, 2, 3, 7, 50):
            parts: list[Step] = [STREAM_HEAD]
            for start in range(0, len(wire_bytes), size):
                parts += [wire_bytes[start : start + size], 0.0]
            async with scene.one_engine(lambda _, steps=parts: steps) as (router, _):
                reply = await router.ask(wire.chat(stream=True))
                assert reply.text == "éü€🙂", size
                assert reply.whole

    scene.play(scenario)


def test_carriage_returns_of_other_servers_are_line_ends_too() -> None:
    events = [event.replace(b"\n", b"\r\n") for event in pieces()]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(events)) as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.text == "hi there you"
            assert reply.whole

    scene.play(scenario)


def test_a_client_that_leaves_stops_the_engine_and_pays_for_what_was_made() -> None:
    def endless(asked: Asked) -> list[Step]:
        return [STREAM_HEAD, frame(ROLE), *(frame(chunk({"content": "w"})) for _ in range(5)), Hang]

    async def scenario() -> None:
        async with scene.one_engine(endless) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(stream=True)))
                got = b""
                while got.count(b'"w"') < 5:
                    got += await client.read_some()
            async with asyncio.timeout(5):
                await engine.gone.wait()
            await router.quiet()
            assert await router.metric("requests_total", result="cancelled") == 1
            # Not counted by the engine, so estimated: one token for each event with content.
            assert await router.metric("output_tokens_total") == 5
            assert await router.metric("cost_usd_total") > 0
            assert await router.metric("in_flight") == 0

    scene.play(scenario)


def counted(word: str, made: int) -> bytes:
    """An event as vLLM writes it to who asked for the count so far."""
    usage = {"prompt_tokens": 15, "total_tokens": 15 + made, "completion_tokens": made}
    return chunk({"content": word}, usage={**usage, "completion_tokens_details": None})


def test_who_leaves_pays_by_the_engines_own_count_although_one_event_may_hold_several_tokens() -> None:
    def endless(asked: Asked) -> list[Step]:
        return [STREAM_HEAD, frame(ROLE), frame(counted("a", 2)), frame(counted("b", 3)), frame(counted("c", 7)), Hang]

    async def scenario() -> None:
        async with scene.one_engine(endless) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(stream=True)))
                got = b""
                while b'"c"' not in got:
                    got += await client.read_some()
            async with asyncio.timeout(5):
                await engine.gone.wait()
            await router.quiet()
            assert b"usage" not in got
            assert await router.metric("input_tokens_total") == 15
            assert await router.metric("output_tokens_total") == 7
            # 15 x 1e-6 and 7 x 2e-6.
            assert await router.metric("cost_usd_total") == pytest.approx(29e-6)
            assert not router.router.ledger.recent[-1].estimated

    scene.play(scenario)


@pytest.mark.parametrize(
    "body",
    [wire.chat(stream=True, n=2), {"model": "auto", "prompt": ["a", "b"], "stream": True}],
    ids=["two answers", "two prompts"],
)
def test_running_counts_are_of_one_answer_and_so_not_asked_for_where_there_are_more(body: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            await router.ask(body, path="/v1/completions" if "prompt" in body else "/v1/chat/completions")
            assert engine.asked[0].json()["stream_options"] == {"include_usage": True}

    scene.play(scenario)


def test_a_client_that_asked_for_running_counts_sees_them() -> None:
    def count(asked: Asked) -> list[Step]:
        return stream([ROLE, counted("a", 2), chunk({}, "stop"), chunk(usage=USAGE), DONE])

    async def scenario() -> None:
        async with scene.one_engine(count) as (router, engine):
            options = {"include_usage": True, "continuous_usage_stats": True}
            reply = await router.ask(wire.chat(stream=True, stream_options=options))
            assert counted("a", 2) in reply.body
            reply = await router.ask(wire.chat(stream=True, stream_options={"include_usage": True}))
            assert engine.asked[1].json()["stream_options"] == options
            assert chunk({"content": "a"}) in reply.body
            assert b'"prompt_tokens":10' in reply.body

    scene.play(scenario)


def test_a_slow_client_slows_the_engine_down_instead_of_filling_memory() -> None:
    sent = 0

    def flood(asked: Asked) -> Iterator[Step]:
        def steps() -> Iterator[Step]:
            nonlocal sent
            yield STREAM_HEAD + frame(ROLE)
            block = frame(chunk({"content": "x" * 65536}))
            for _ in range(400):
                sent += 1
                yield block
            yield frame(chunk({}, "stop") + DONE) + LAST

        return steps()

    async def scenario() -> None:
        async with scene.one_engine(flood) as (router, _), await wire.Client.open(router.port) as client:
            client.writer.transport.pause_reading()
            client.send(wire.request(wire.chat(stream=True)))
            before = -1
            async with asyncio.timeout(10):
                while sent != before or not sent:
                    before = sent
                    await asyncio.sleep(0.3)
            # 400 blocks are 26 MB; the sockets' buffers hold a few MB.
            assert sent < 200
            client.writer.transport.resume_reading()
            reply = await client.reply()
            assert reply.whole
            assert len(reply.text) == 400 * 65536

    scene.play(scenario)


def test_http_1_0_clients_get_a_stream_without_chunks_that_ends_with_the_connection() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(wire.request(wire.chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
            data = await client.reader.read()
            head, _, body = data.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            assert body.startswith(b"data: ")
            assert body.endswith(DONE)

    scene.play(scenario)


def test_a_responses_stream_passes_with_its_typed_events_and_its_usage() -> None:
    def event(kind: str, **fields: object) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), engines.compact({"type": kind, **fields}))

    usage = {"input_tokens": 8, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 0}}
    events = [
        event("response.created", response={"status": "in_progress", "usage": None}),
        event("response.output_text.delta", delta="hi"),
        event("response.completed", response={"status": "completed", "usage": usage}),
    ]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(events)) as (router, engine):
            reply = await router.ask({"model": "auto", "input": "x", "stream": True}, path="/v1/responses")
            assert reply.body == b"".join(events)
            assert "stream_options" not in engine.asked[0].json()
            assert await router.metric("input_tokens_total") == 8
        async with scene.one_engine(lambda _: stream(events[:2])) as (router, _):
            reply = await router.ask({"model": "auto", "input": "x", "stream": True}, path="/v1/responses")
            assert not reply.whole

    scene.play(scenario)
