"""HTTP itself: framing, limits, pipelining, methods. Bad requests get OpenAI's error shape, never a 500 or a hang."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from trimtab_router import settings

from . import engines, scene, wire
from .engines import Asked, Step, answer, whole

GOOD = wire.request(wire.chat())


def raw(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + body


BAD = {
    "not HTTP": (b"hello\r\n\r\n", 400, None),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, None),
    "unknown method": (raw("BREW /v1/models HTTP/1.1\nhost: a\n\n"), 400, None),
    "length and chunks": (
        raw("POST /v1/chat/completions HTTP/1.1\nhost: a\ncontent-length: 5\ntransfer-encoding: chunked\n\n0\n\n"), 400, None,
    ),
    "two lengths": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: 5\ncontent-length: 6\n\nabcdef"), 400, None),
    "negative length": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: -1\n\n"), 400, None),
    "bad chunk size": (raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\nzz\nab\n0\n\n"), 400, None),
    "line feed in a header name": (raw("GET /v1/models HTTP/1.1\nhost: a\nb\x01c: d\n\n"), 400, None),
    "folded header": (raw("GET /v1/models HTTP/1.1\nhost: a\nx: b\n c\n\n"), 400, None),
    "bare line feed": (b"GET /v1/models HTTP/1.1\r\nhost: a\nx: b\r\n\r\n", 400, None),
    "bare carriage return": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: b\rc\r\n\r\n", 400, None),
    "NUL in a header": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: b\x00c\r\n\r\n", 400, None),
    "blank before the colon": (raw("GET /v1/models HTTP/1.1\nhost : a\n\n"), 400, None),
    "one length twice": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: 2\ncontent-length: 2\n\nab"), 400, None),
    "list of lengths": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: 2, 2\n\nab"), 400, None),
    "length with a sign": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: +2\n\nab"), 400, None),
    "length beyond 64 bits": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: 99999999999999999999\n\n"), 400, None),
    "no host": (raw("GET /v1/models HTTP/1.1\n\n"), 400, None),
    "two hosts": (raw("GET /v1/models HTTP/1.1\nhost: a\nhost: a\n\n"), 400, None),
    "two hosts, old": (raw("GET /v1/models HTTP/1.0\nhost: a\nhost: b\n\n"), 400, None),
    "host that is none": (raw("GET /v1/models HTTP/1.1\nhost: a/b\n\n"), 400, None),
    "HTTP/0.9": (raw("GET /v1/models\n\n"), 400, None),
    "HTTP/1.2": (raw("GET /v1/models HTTP/1.2\nhost: a\n\n"), 400, None),
    "coding of old HTTP": (raw("POST /v1/x HTTP/1.0\ntransfer-encoding: chunked\n\n0\n\n"), 400, None),
    "chunk size with a bare line feed": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n") + b"1\nx\n0\n\n", 400, None,
    ),
    "chunk longer than its size": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n1\nxy0\n\n"), 400, None,
    ),
    "chunk size beyond 64 bits": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\nfffffffffffffffff\nx"), 400, None,
    ),
    "other expectation": (
        raw("POST /v1/x HTTP/1.1\nhost: a\nexpect: miracles\ncontent-length: 2\n\n"), 417, "expectation_failed",
    ),
    "compressed transfer": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: gzip, chunked\n\n0\n\n"), 501, "unknown_transfer_coding",
    ),
    "coding that is not last chunked": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: gzip\n\n"), 501, "unknown_transfer_coding",
    ),
    "endless trailer": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0\n")
        + b"".join(b"x%d: %b\r\n" % (n, b"v" * 990) for n in range(70)), 431, "headers_too_large",
    ),
    "endless header": (b"GET /v1/models HTTP/1.1\r\nx: " + b"a" * 70_000, 431, "headers_too_large"),
    "many headers": (
        b"GET /v1/models HTTP/1.1\r\n" + b"".join(b"x%d: %b\r\n" % (n, b"v" * 990) for n in range(70)) + b"\r\n",
        431, "headers_too_large",
    ),
    "endless path": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 431, "headers_too_large"),
    "announced body": (raw("POST /v1/x HTTP/1.1\nhost: a\ncontent-length: 99999999999\n\n"), 413, "body_too_large"),
    "chunked body": (
        raw("POST /v1/x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n") + engines.frame(b"x" * 3000) * 2,
        413, "body_too_large",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status", "code"), BAD.values(), ids=BAD.keys())
def test_what_is_no_request_gets_an_error_of_openais_shape_and_the_end_of_the_connection(
    data: bytes, status: int, code: str | None
) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            object.__setattr__(router.router.limits, "body_bytes", 4096)
            async with await wire.Client.open(router.port) as client:
                client.send(data)
                reply = await client.reply()
                assert reply.status == status
                assert reply.error["type"] == "invalid_request_error"
                assert reply.error["code"] == code
                assert reply.headers["connection"] == "close"
                assert await client.is_closed()
            assert engine.asked == []

    scene.play(scenario)


ROUTED = {
    "unknown path": ("GET", "/nope", b"", 404, "unknown_url"),
    "path tricks": ("GET", "/v1/../admin/table", b"", 404, "unknown_url"),
    "encoded path tricks": ("POST", "/v1/%2e%2E/sleep", b"", 404, "unknown_url"),
    "encoded slash": ("POST", "/v1/..%2fsleep", b"", 404, "unknown_url"),
    "two slashes": ("POST", "/v1//sleep", b"", 404, "unknown_url"),
    "metrics are not here": ("GET", "/metrics", b"", 404, "unknown_url"),
    "wrong method": ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
    "head of chat": ("HEAD", "/v1/chat/completions", b"", 405, "method_not_allowed"),
    "empty body": ("POST", "/v1/chat/completions", b"", 400, None),
    "not JSON": ("POST", "/v1/chat/completions", b'{"model": "auto", ', 400, None),
    "not UTF-8": ("POST", "/v1/chat/completions", b'{"model": "\xff\xfe"}', 400, None),
    "not an object": ("POST", "/v1/chat/completions", b'["auto"]', 400, None),
    "no model": ("POST", "/v1/chat/completions", b'{"messages": []}', 400, None),
    "model of wrong type": ("POST", "/v1/chat/completions", b'{"model": 7}', 400, None),
    "stream of wrong type": ("POST", "/v1/chat/completions", b'{"model": "auto", "stream": "yes"}', 400, None),
    "unknown model": ("POST", "/v1/chat/completions", b'{"model": "gpt-9"}', 404, "model_not_found"),
    "unknown model object": ("GET", "/v1/models/gpt-9", b"", 404, "model_not_found"),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), ROUTED.values(), ids=ROUTED.keys())
def test_what_is_a_request_but_a_wrong_one_is_refused_and_the_connection_lives_on(
    method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            client.send(wire.request(body, path=path, method=method))
            if method == "HEAD":
                head = await client.read_some()
                assert head.startswith(f"HTTP/1.1 {status} ".encode())
                return
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (status, code)
            assert set(reply.error) == {"message", "type", "param", "code"}
            assert engine.asked == []
            client.send(GOOD)
            assert (await client.reply()).status == 200

    scene.play(scenario)


def test_the_field_at_fault_is_named() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            assert (await router.ask({"model": "auto", "stream": "yes"})).error["param"] == "stream"
            assert (await router.ask({"model": "gpt-9"})).error["param"] == "model"

    scene.play(scenario)


def test_connections_to_client_and_engine_are_kept_and_used_again() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            for _ in range(20):
                client.send(GOOD)
                reply = await client.reply()
                assert reply.status == 200
                assert reply.keeps
            # An old trap: a parser asked too late says "close" to every answer.
            assert engine.connections == 1

    scene.play(scenario)


def test_pipelined_requests_are_answered_in_order_and_one_at_a_time() -> None:
    running = 0

    def script(asked: Asked) -> Iterator[Step]:
        def steps() -> Iterator[Step]:
            nonlocal running
            running += 1
            assert running == 1
            yield 0.005
            running -= 1
            yield whole(answer(asked.json()["messages"][0]["content"]))

        return steps()

    async def scenario() -> None:
        async with scene.one_engine(script) as (router, engine), await wire.Client.open(router.port) as client:
            client.send(b"".join(wire.request(wire.chat(str(number))) for number in range(30)))
            for number in range(30):
                reply = await client.reply()
                assert reply.json()["choices"][0]["message"]["content"] == str(number)
            assert len(engine.asked) == 30

    scene.play(scenario)


def test_an_error_behind_pipelined_requests_comes_after_their_answers() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(GOOD + GOOD + b"nonsense\r\n\r\n")
            assert [(await client.reply()).status for _ in range(3)] == [200, 200, 400]

    scene.play(scenario)


def test_a_request_may_come_byte_by_byte_and_in_chunks() -> None:
    body = json.dumps(wire.chat()).encode()
    chunked = raw("POST /v1/chat/completions HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n")
    data = chunked + b"".join(engines.frame(body[at : at + 9]) for at in range(0, len(body), 9)) + b"0\r\n\r\n"

    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            for at in range(len(data)):
                client.send(data[at : at + 1])
                await asyncio.sleep(0)
            assert (await client.reply()).status == 200
            assert engine.asked[0].headers["content-length"] == str(len(engine.asked[0].body))

    scene.play(scenario)


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    head, _, body = GOOD.partition(b"\r\n\r\n")

    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(head + b"\r\nexpect: 100-continue\r\n\r\n")
            assert await client.read_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(body)
            assert (await client.reply()).status == 200

    scene.play(scenario)


def test_behind_another_request_the_body_is_asked_for_when_its_turn_comes() -> None:
    head, _, body = GOOD.partition(b"\r\n\r\n")

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [0.05, whole(answer())]) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(GOOD + head + b"\r\nexpect: 100-continue\r\n\r\n")
                seen = b""
                while not seen.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
                    seen += await client.read_some()
                assert seen.startswith(b"HTTP/1.1 200 ")
                client.send(body)
                assert (await client.reply()).status == 200
            assert len(engine.asked) == 2

    scene.play(scenario)


def test_a_trailer_is_no_header() -> None:
    body = json.dumps(wire.chat()).encode()
    head = raw("POST /v1/chat/completions HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n")
    trailers = b"0\r\nx-trimtab-class: none-such\r\ntraceparent: smuggled\r\n\r\n"

    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            client.send(head + engines.frame(body) + trailers)
            assert (await client.reply()).status == 200
            assert "traceparent" not in engine.asked[0].headers

    scene.play(scenario)


@pytest.mark.parametrize("target", ["http://user:key@elsewhere:9/v1/models", "HTTPS://elsewhere/v1/models?x=1"])
def test_the_absolute_form_of_a_target_is_understood_and_chooses_nothing(target: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            assert (await router.get(target)).json()["object"] == "list"
            assert (await router.get("http://elsewhere")).status == 404

    scene.play(scenario)


def test_options_of_the_server_itself_and_old_clients_without_a_host_are_served() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(wire.request(path="*", method="OPTIONS"))
            assert (await client.read_some()).startswith(b"HTTP/1.1 204 ")
            client.send(raw("GET /v1/models HTTP/1.0\n\n"))
            assert (await client.reply()).status == 200
            assert await client.is_closed()

    scene.play(scenario)


def test_what_follows_the_last_request_of_a_connection_is_not_answered() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(raw("GET /v1/models HTTP/1.1\nhost: a\nconnection: close\n\n") + GOOD)
            first = await client.read_some()
            while more := await client.read_some():
                first += more
            assert first.count(b"HTTP/1.1 ") == 1

    scene.play(scenario)


def test_who_never_reads_its_last_answer_is_cut_off() -> None:
    limits = settings.Limits(idle_seconds=0.2)
    big = whole(answer("x" * 8_000_000))

    async def scenario() -> None:
        async with scene.engine(lambda _: [big]) as engine:
            data = scene.make_table(scene.tier("small", engine.port))
            async with scene.router(data, limits=limits) as router, await wire.Client.open(router.port) as slow:
                slow.writer.transport.pause_reading()
                slow.send(GOOD)
                async with asyncio.timeout(10):
                    while not engine.asked or router.router.connections:
                        await asyncio.sleep(0.02)

    scene.play(scenario)


def test_head_and_options_are_answered() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(wire.request(path="/v1/models", method="HEAD"))
            head = await client.read_some()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert head.endswith(b"\r\n\r\n")
            client.send(wire.request(path="/v1/chat/completions", method="OPTIONS"))
            head = await client.read_some()
            assert head.startswith(b"HTTP/1.1 204 ")
            assert b"allow: POST, OPTIONS\r\n" in head
            assert b"content-length" not in head

    scene.play(scenario)


def test_connection_close_is_honoured_for_answers_and_streams() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            for body in (wire.chat(), wire.chat(stream=True)):
                async with await wire.Client.open(router.port) as client:
                    client.send(wire.request(body, connection="close"))
                    reply = await client.reply()
                    assert reply.whole
                    assert reply.headers["connection"] == "close"
                    assert await client.is_closed()

    scene.play(scenario)


def test_a_request_that_never_ends_is_timed_out() -> None:
    limits = settings.Limits(request_seconds=0.2, idle_seconds=0.2)

    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(scene.tier("small", engine.port))
            async with scene.router(data, limits=limits) as router:
                async with await wire.Client.open(router.port) as client:
                    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
                    reply = await client.reply()
                    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
                async with await wire.Client.open(router.port) as client:
                    client.send(GOOD)
                    assert (await client.reply()).status == 200
                    # Idle after its answer: closed without a word.
                    assert await client.read_some() == b""

    scene.play(scenario)


def test_too_many_connections_are_told_so() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(scene.tier("small", engine.port))
            async with (
                scene.router(data, limits=settings.Limits(connections=1)) as router,
                await wire.Client.open(router.port) as first,
                await wire.Client.open(router.port) as second,
            ):
                second.send(GOOD)
                reply = await second.reply()
                assert reply.status == 503
                assert reply.headers["retry-after"] == "1"
                first.send(GOOD)
                assert (await first.reply()).status == 200

    scene.play(scenario)


def test_a_big_answer_to_a_slow_reader_does_not_stop_the_next_request_on_the_same_engine_connection() -> None:
    big = whole(answer("x" * 8_000_000))

    async def scenario() -> None:
        async with (
            scene.one_engine(lambda asked: [big if b"big" in asked.body else whole(answer())]) as (
                router,
                engine,
            ),
            await wire.Client.open(router.port) as slow,
        ):
            slow.writer.transport.pause_reading()
            slow.send(wire.request(wire.chat("big")))
            await router.quiet()
            while len(engine.asked) < 1 or router.router.exchanges:
                await asyncio.sleep(0.01)
            assert (await router.ask()).status == 200
            assert engine.connections == 1
            slow.writer.transport.resume_reading()
            assert len((await slow.reply()).body) > 8_000_000

    scene.play(scenario)


@pytest.mark.parametrize("value", ["abc-123", "a" * 128])
def test_a_request_id_is_kept_and_passed_on(value: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            assert (await router.ask(x_request_id=value)).headers["x-request-id"] == value
            assert engine.asked[0].headers["x-request-id"] == value

    scene.play(scenario)


@pytest.mark.parametrize("value", ["a b", "a" * 129, "ü", ""])
def test_a_request_id_that_could_do_harm_is_replaced(value: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            given = (await router.ask(x_request_id=value)).headers["x-request-id"]
            assert given != value
            assert len(given) == 32

    scene.play(scenario)


def test_an_upgrade_to_another_protocol_is_declined_by_an_ordinary_last_answer() -> None:
    data = raw("GET /v1/models HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: websocket\n\n")

    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            client.send(data + b"\x81\x05hello")
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await client.is_closed()

    scene.play(scenario)


def test_a_large_head_in_small_reads_is_counted_once() -> None:
    head = b"".join(b"x%d: %b\r\n" % (n, b"v" * 990) for n in range(50))

    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            data = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n"
            for at in range(0, len(data), 5000):
                client.send(data[at : at + 5000])
                await asyncio.sleep(0.002)
            assert (await client.reply()).status == 200

    scene.play(scenario)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["sent at once", "sent one by one"])
def test_answers_to_a_client_that_does_not_read_do_not_pile_up(pause: float) -> None:
    big = whole(answer("x" * 4_000_000))

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [big]) as (router, engine), await wire.Client.open(router.port) as slow:
            slow.writer.transport.pause_reading()
            for _ in range(12):
                slow.send(GOOD)
                await asyncio.sleep(pause)
            before = -1
            async with asyncio.timeout(10):
                while len(engine.asked) != before or not before:
                    before = len(engine.asked)
                    await asyncio.sleep(0.3)
            # The sockets' buffers take an answer or two; without a brake it would be all twelve.
            assert len(engine.asked) <= 4
            slow.writer.transport.resume_reading()
            for _ in range(12):
                assert (await slow.reply()).status == 200

    scene.play(scenario)
