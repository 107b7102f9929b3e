"""Attempts: one connection, one answer, and nothing of it in the next one."""

from __future__ import annotations

import asyncio
from typing import Any

from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, USAGE, Asked, Close, Step, answer, chunk, frame, stream, whole


def test_a_pooled_connection_that_the_engine_closed_meanwhile_is_replaced_once_and_nobody_notices() -> None:
    def script(asked: Asked) -> list[Step]:
        # Closes as the second request on a connection arrives, without a byte: the race of every idle time-out.
        return [whole(answer())] if asked.nth == 1 else [Close]

    async def scenario() -> None:
        async with scene.one_engine(script) as (router, engine), await wire.Client.open(router.port) as client:
            for _ in range(10):
                client.send(wire.request(wire.chat()))
                reply = await client.reply()
                assert (reply.status, reply.headers["x-trimtab-attempts"]) == (200, "1")
            # Each but the first one was sent on a closing connection, and once more on a new one.
            assert len(engine.asked) == 19
            assert await router.metric("fallbacks_total") == 0
            assert await router.metric("ejections_total") == 0

    scene.play(scenario)


def test_a_request_that_may_have_reached_the_engine_is_not_sent_twice_to_it() -> None:
    def script(asked: Asked) -> list[Step]:
        return [b"HTTP/1.1 200 OK\r\n", Close] if len(engine_asked) > 1 else [whole(answer())]

    engine_asked: list[Asked] = []

    async def scenario() -> None:
        async with scene.one_engine(script) as (router, engine):
            engine.asked = engine_asked
            assert (await router.ask()).status == 200
            reply = await router.ask()
            # The connection was reused, but a byte had come.
            assert reply.status == 502
            assert len(engine_asked) == 2

    scene.play(scenario)


def test_answers_of_unknown_length_that_the_connection_ends_are_answers() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [head + engines.compact(answer()), Close]) as (router, _):
            reply = await router.ask()
            assert reply.status == 200
            assert reply.headers["content-length"] == str(len(reply.body))

    scene.play(scenario)


def test_bytes_after_an_answer_do_not_become_the_next_one() -> None:
    smuggled = whole(answer()) + whole(answer("of somebody else"))

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [smuggled]) as (router, _), await wire.Client.open(router.port) as client:
            for _ in range(3):
                client.send(wire.request(wire.chat()))
                reply = await client.reply()
                assert reply.json()["choices"][0]["message"]["content"] == "hi there"

    scene.play(scenario)


def test_chunk_extensions_and_trailers_of_an_engine_stay_with_it() -> None:
    body = engines.compact(answer())
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    data = head + b"%x;secret=1\r\n%b\r\n0\r\nx-trailer: secret\r\n\r\n" % (len(body), body)

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [data]) as (router, _), await wire.Client.open(router.port) as client:
            client.send(wire.request(wire.chat()))
            assert b"secret" not in await client.read_some()

    scene.play(scenario)


def test_audio_passes_as_it_comes_and_a_cut_of_it_shows() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 9\r\n\r\n"

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [head + b"abc", 0.02, b"def", 0.02, b"ghi"]) as (router, _):
            reply = await router.ask({"model": "auto"}, path="/v1/audio/speech")
            assert (reply.whole, reply.body) == (True, b"abcdefghi")
        async with scene.one_engine(lambda _: [head + b"abc", 0.02, Close]) as (router, _):
            reply = await router.ask({"model": "auto"}, path="/v1/audio/speech")
            assert not reply.whole
            assert b"error" not in reply.body

    scene.play(scenario)


def test_an_external_provider_gets_its_key_its_path_and_its_model_and_never_the_clients_key(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("sk-provider\n")

    async def scenario() -> None:
        async with scene.engine(
            lambda _: stream([ROLE, chunk({"content": "x"}), chunk({}, "stop", usage=USAGE), engines.DONE])
        ) as provider:
            external = table.External(f"http://127.0.0.1:{provider.port}/api", api_key_file=str(tmp_path / "key"))
            data = scene.make_table(scene.tier("frontier", model="gpt-x", external=external, quality=0.95))
            async with scene.router(data) as router:
                reply = await router.ask(wire.chat(stream=True), authorization="Bearer sk-client", cookie="a=b")
                assert reply.whole
                asked = provider.asked[0]
                assert asked.path == "/api/v1/chat/completions"
                assert asked.headers["authorization"] == "Bearer sk-provider"
                assert "cookie" not in asked.headers
                assert asked.json()["model"] == "gpt-x"
                # Usage on a chunk that has choices is counted too.
                assert await router.metric("output_tokens_total") == 4
                assert b"sk-provider" not in (await router.get("/admin/table", admin=True)).body

    scene.play(scenario)


def test_an_engine_that_dies_over_a_request_on_a_pooled_connection_has_failed_and_its_work_is_booked_as_waste() -> None:
    def script(asked: Asked) -> list[Step]:
        return [whole(answer())] if asked.nth == 1 else [1.1, Close]

    async def scenario() -> None:
        async with scene.two_engines(script) as (router, first, second):
            for _ in range(2):
                reply = await router.ask()
                assert reply.status == 200
            # Asked twice, for two requests: not a third time.
            assert (len(first.asked), len(second.asked)) == (2, 1)
            assert reply.headers["x-trimtab-attempts"] == "2"
            assert await router.metric("fallbacks_total", reason="disconnected") == 1
            assert await router.metric("wasted_usd_total", reason="failed_attempt") > 0

    scene.play(scenario)


def test_a_stream_that_outlives_its_endpoints_place_in_the_table_leaves_no_connection_behind() -> None:
    def slow(asked: Asked) -> list[Step]:
        return [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.3, frame(chunk({}, "stop") + DONE), LAST]

    async def scenario() -> None:
        async with scene.two_engines(slow) as (router, first, second):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(stream=True)))
                await client.reader.readuntil(b'"a"')
                router.publish(scene.make_table(scene.tier("small", second.port), revision=2))
                assert (await client.reader.readuntil(LAST)).count(b"[DONE]") == 1
            async with asyncio.timeout(5):
                while first.open_connections:
                    await asyncio.sleep(0.01)

    scene.play(scenario)


def test_what_comes_in_one_read_with_a_failure_is_passed_on_for_it_is_on_the_bill() -> None:
    def counted(word: str, count: int) -> bytes:
        usage = {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}
        return chunk({"content": word}, usage=usage)

    error = b'data: {"error": {"message": "x"}}\n\n'
    # Two tokens of three come together with the error.
    steps = [STREAM_HEAD, frame(ROLE + counted("a", 1)), 0.05, frame(counted("b", 2) + counted("c", 3) + error + DONE)]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [*steps, LAST]) as (router, _):
            reply = await router.ask(wire.chat(stream=True))
            assert not reply.whole
            assert "[DONE]" not in reply.events
            assert [event for event in reply.events if '"content":"c"' in event]
            assert await router.metric("output_tokens_total") == 3

    scene.play(scenario)


def test_a_first_read_that_fails_commits_to_nothing_so_another_engine_answers() -> None:
    error = b'data: {"error": {"message": "x"}}\n\n'
    steps: list[Step] = [STREAM_HEAD, frame(ROLE + chunk({"content": "a"}) + error + DONE), LAST]

    async def scenario() -> None:
        async with scene.two_engines(lambda _: steps) as (router, _, _):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.whole, reply.text) == (True, "hi there you")

    scene.play(scenario)
