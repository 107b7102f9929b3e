"""Attempts: connections, failures, ejection, fallback, holding. Until the commit point another engine may answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import (
    LAST,
    ROLE,
    STREAM_HEAD,
    USAGE,
    Asked,
    Close,
    Hang,
    Reset,
    Step,
    answer,
    chunk,
    frame,
    stream,
    talk,
    whole,
)


def two_tiers(small: int, large: int, **fields: Any) -> table.RoutingTable:
    return scene.make_table(scene.tier("small", small), scene.tier("large", large, quality=0.9), **fields)


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


GOOD_AFTER_ALL = {
    "refused connection": None,
    "reset": [Reset],
    "closed without an answer": [Close],
    "status 500": [whole({"error": {"message": "boom", "code": 500}}, 500)],
    "status 503 of a full queue": [whole({"error": {"message": "busy", "code": 503}}, 503)],
    "status 429": [whole({"error": {"message": "slow down", "code": 429}}, 429, retry_after="7")],
    "its key is refused": [whole({"error": "Unauthorized"}, 401)],
    "redirect": [whole(b"", 302, location="http://169.254.169.254/")],
    "truncated answer": [whole(answer())[:-10], Close],
    "no JSON": [whole(b"<html>")],
    "error with status 200": [whole({"error": {"message": "boom"}})],
    "abort with status 200": [whole(answer(finish="abort"))],
    "bad HTTP": [b"SSH-2.0-OpenSSH\r\n"],
    "stream ends before content": [STREAM_HEAD, frame(ROLE), LAST],
    "stream error before content": [STREAM_HEAD, frame(ROLE), frame(b'data: {"error": {"message": "x"}}\n\n'), LAST],
    "stream aborted before content": [STREAM_HEAD, frame(ROLE), frame(chunk({}, "abort")), LAST],
}


@pytest.mark.parametrize("steps", GOOD_AFTER_ALL.values(), ids=GOOD_AFTER_ALL.keys())
def test_before_the_commit_point_a_failure_is_made_good_by_the_next_tier(steps: list[Step] | None) -> None:
    async def scenario() -> None:
        async with scene.engine(lambda _: steps or []) as bad, scene.engine() as good:
            port = bad.port if steps is not None else scene.closed_port()
            async with scene.router(two_tiers(port, good.port)) as router:
                reply = await router.ask()
                assert reply.status == 200
                assert reply.headers["x-trimtab-tier"] == "large"
                assert good.asked[0].json()["model"] == "large"
                assert await router.metric("requests_total", tier="large", result="ok") == 1
                assert await router.metric("fallbacks_total", tier="small") == 1

    scene.play(scenario)


LAST_WORDS = {
    "refused connection": (None, 502, "upstream_failed"),
    "status 500": ([whole({"error": {"message": "boom", "code": 500}}, 500)], 502, "upstream_failed"),
    "status 503": ([whole({"error": {"message": "busy", "code": 503}}, 503, retry_after="7")], 503, "unavailable"),
    "its key is refused": ([whole({"error": "Unauthorized"}, 401)], 502, "upstream_failed"),
    "truncated answer": ([whole(answer())[:-10], Close], 502, "upstream_failed"),
    "abort with status 200": ([whole(answer(finish="abort"))], 502, "upstream_failed"),
}


@pytest.mark.parametrize(("steps", "status", "code"), LAST_WORDS.values(), ids=LAST_WORDS.keys())
def test_without_a_fallback_the_client_gets_the_failure_in_openais_shape(
    steps: list[Step] | None, status: int, code: str
) -> None:
    async def scenario() -> None:
        async with scene.engine(lambda _: steps or []) as bad:
            port = bad.port if steps is not None else scene.closed_port()
            async with scene.router(scene.make_table(scene.tier("small", port))) as router:
                reply = await router.ask()
                assert (reply.status, reply.error["code"], reply.error["type"]) == (status, code, "server_error")
                if status == 503:
                    assert reply.headers["retry-after"] == "7"
                assert b"Unauthorized" not in reply.body
                failed = await router.metric("requests_total", result="failed")
                rejected = await router.metric("requests_total", result="rejected")
                assert (failed, rejected) == ((0, 1) if status == 503 else (1, 0))

    scene.play(scenario)


ERRORS = {
    "too long": (
        400, {"message": "This model's maximum context length is 1024 tokens.", "type": "BadRequestError", "code": 400},
        "invalid_request_error", "context_length_exceeded",
    ),
    "bad JSON": (400, {"message": "no", "type": "Bad Request", "param": "body.1", "code": 400}, "invalid_request_error", None),
    "model": (
        404, {"message": "no such model", "type": "NotFoundError", "param": "model", "code": 404},
        "invalid_request_error", "model_not_found",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("status", "error", "type_", "code"), ERRORS.values(), ids=ERRORS.keys())
def test_an_engines_verdict_on_the_request_is_passed_on_in_openais_shape(
    status: int, error: dict[str, Any], type_: str, code: str | None
) -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [whole({"error": error}, status)]) as (router, engine):
            reply = await router.ask()
            assert reply.status == status
            assert reply.error["message"] == error["message"]
            assert (reply.error["type"], reply.error["code"]) == (type_, code)
            assert len(engine.asked) == 1
            assert await router.metric("requests_total", result="client_error") == 1

    scene.play(scenario)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"old shape","code":400}', "old shape"),
        (b"<html>oops", "the engine answered 404 Not Found"),
        (b"", "the engine answered 404 Not Found"),
        (b'{"error": {"message": 7}}', "the engine answered 404 Not Found"),
    ],
)
def test_other_shapes_of_errors_are_understood_or_replaced(body: bytes, message: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [whole(body, 404)]) as (router, _):
            reply = await router.ask(path="/v1/score")
            assert (reply.status, reply.error["message"]) == (404, message)

    scene.play(scenario)


def test_no_more_engines_are_asked_than_the_policy_says() -> None:
    async def scenario() -> None:
        async with scene.engine(lambda _: [Close]) as engine:
            for allowed in (0, 1, 2):
                engine.asked.clear()
                resilience = table.Resilience(max_fallbacks=allowed, eject_after=100)
                data = scene.make_table(
                    *(scene.tier(name, engine.port) for name in ("a", "b", "c", "d")), resilience=resilience
                )
                async with scene.router(data) as router:
                    assert (await router.ask()).status == 502
                    assert len(engine.asked) == allowed + 1

    scene.play(scenario)


def test_another_endpoint_of_the_same_tier_comes_before_another_tier() -> None:
    async def scenario() -> None:
        async with scene.engine(lambda _: [Close]) as bad, scene.engine() as good, scene.engine() as other:
            data = scene.make_table(
                scene.tier("small", bad.port, good.port), scene.tier("large", other.port, quality=0.9)
            )
            async with scene.router(data) as router:
                for _ in range(6):
                    assert (await router.ask()).headers["x-trimtab-tier"] == "small"
                assert other.asked == []
                assert len(good.asked) == 6

    scene.play(scenario)


def test_an_endpoint_that_fails_in_a_row_is_ejected_and_comes_back() -> None:
    healthy = False

    def script(asked: Asked) -> list[Step]:
        return talk(asked) if healthy else [Close]

    async def scenario() -> None:
        nonlocal healthy
        resilience = table.Resilience(max_fallbacks=1, eject_after=3, eject_seconds=0.3)
        async with scene.engine(script) as weak, scene.engine() as good:
            data = two_tiers(weak.port, good.port, resilience=resilience)
            async with scene.router(data) as router:
                for _ in range(6):
                    assert (await router.ask()).status == 200
                # Three failures in a row; after that it is not asked any more.
                assert len(weak.asked) == 3
                assert await router.metric("ejections_total", tier="small", endpoint="small-0") == 1
                await asyncio.sleep(0.5)
                await router.ask()
                # Its time was over, and one more failure was enough: this time it stays out for twice as long.
                assert len(weak.asked) == 4
                assert await router.metric("ejections_total") == 2
                healthy = True
                await asyncio.sleep(0.8)
                assert (await router.ask()).headers["x-trimtab-tier"] == "small"
                assert (await router.ask()).headers["x-trimtab-tier"] == "small"

    scene.play(scenario)


def test_an_endpoint_that_refuses_connections_is_ejected_at_once() -> None:
    async def scenario() -> None:
        async with scene.engine() as good, scene.router(two_tiers(scene.closed_port(), good.port)) as router:
            assert (await router.ask()).headers["x-trimtab-attempts"] == "2"
            assert (await router.ask()).headers["x-trimtab-attempts"] == "1"
            assert await router.metric("ejections_total") == 1

    scene.play(scenario)


def test_a_full_queue_is_no_reason_to_eject() -> None:
    async def scenario() -> None:
        async with (
            scene.engine(lambda _: [whole({"error": {}}, 503)]) as busy,
            scene.engine() as good,
            scene.router(two_tiers(busy.port, good.port)) as router,
        ):
            for _ in range(6):
                assert (await router.ask()).status == 200
            assert await router.metric("ejections_total") == 0
            assert len(busy.asked) == 6

    scene.play(scenario)


def test_the_last_endpoint_is_asked_even_while_ejected() -> None:
    async def scenario() -> None:
        port = scene.closed_port()
        async with scene.router(scene.make_table(scene.tier("small", port))) as router:
            assert (await router.ask()).status == 502
            assert await router.metric("ejections_total") == 1
            engine = await engines.Engine(talk).start(port)
            # It listens again long before its ejection ends, and there is nobody else.
            assert (await router.ask()).status == 200
            await engine.stop()

    scene.play(scenario)


def test_a_frozen_engine_is_given_up_before_its_first_byte() -> None:
    async def scenario() -> None:
        resilience = table.Resilience(first_byte_timeout=0.2, max_fallbacks=1)
        for script in (lambda _: [Hang], lambda _: [STREAM_HEAD, frame(ROLE), Hang]):
            async with (
                scene.engine(script) as frozen,
                scene.engine() as good,
                scene.router(two_tiers(frozen.port, good.port, resilience=resilience)) as router,
            ):
                reply = await router.ask(wire.chat(stream=True))
                assert reply.text == "hi there you"
                await frozen.gone.wait()
                assert await router.metric("fallbacks_total", reason="first-byte-timeout") == 1

    scene.play(scenario)


def test_a_long_answer_in_one_piece_is_bounded_by_the_total_time_only() -> None:
    async def scenario() -> None:
        resilience = table.Resilience(first_byte_timeout=0.1, total_timeout=1.0, max_fallbacks=0)
        async with (
            scene.engine(lambda _: [0.4, whole(answer())]) as slow,
            scene.router(scene.make_table(scene.tier("small", slow.port), resilience=resilience)) as router,
        ):
            assert (await router.ask()).status == 200
        async with (
            scene.engine(lambda _: [Hang]) as frozen,
            scene.router(scene.make_table(scene.tier("small", frozen.port), resilience=resilience)) as router,
        ):
            reply = await router.ask()
            assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
            await frozen.gone.wait()

    scene.play(scenario)


def test_a_class_that_fails_closed_never_leaves_its_tiers() -> None:
    async def scenario() -> None:
        async with scene.engine() as other:
            private = scene.class_(
                "sensitive", ("private",), match=table.Match(sensitive=True), reject_when_unavailable=True
            )
            rest = scene.class_("default", ("public",))
            data = scene.make_table(
                scene.tier("private", scene.closed_port()), scene.tier("public", other.port), classes=(private, rest)
            )
            async with scene.router(data) as router:
                for _ in range(3):
                    reply = await router.ask(x_trimtab_sensitive="true")
                    assert reply.status == 502
                empty = scene.make_table(
                    scene.tier("private"), scene.tier("public", other.port), classes=(private, rest), revision=2
                )
                router.publish(empty)
                reply = await router.ask(x_trimtab_sensitive="true")
                assert (reply.status, reply.headers["retry-after"]) == (503, "2")
                assert other.asked == []
                assert (await router.ask()).status == 200

    scene.play(scenario)


def test_a_class_that_may_fall_back_takes_another_tier_when_none_of_its_own_is_up() -> None:
    async def scenario() -> None:
        async with scene.engine() as other:
            data = scene.make_table(
                scene.tier("small"), scene.tier("large", other.port), classes=(scene.class_(allow=("small",)),)
            )
            async with scene.router(data) as router:
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"
                # But not with what must stay where it is allowed, whatever class it fell into.
                assert (await router.ask(x_trimtab_sensitive="true")).status == 503

    scene.play(scenario)


def test_a_request_waits_for_a_tier_that_wakes() -> None:
    async def scenario() -> None:
        async with (
            scene.engine() as engine,
            scene.router(scene.make_table(scene.tier("small", hold_seconds=5.0))) as router,
        ):
            asking = asyncio.ensure_future(router.ask())
            while await router.metric("held_requests", tier="small") < 1:
                await asyncio.sleep(0.01)
            router.publish(scene.make_table(scene.tier("small", engine.port, hold_seconds=5.0), revision=2))
            assert (await asking).status == 200
            assert await router.metric("held_requests") == 0

    scene.play(scenario)


def test_a_request_waits_no_longer_than_the_tier_says() -> None:
    async def scenario() -> None:
        async with scene.router(scene.make_table(scene.tier("small", hold_seconds=0.2))) as router:
            reply = await router.ask()
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat()))
                while await router.metric("held_requests") < 1:
                    await asyncio.sleep(0.01)
            # A client that leaves is not held any longer.
            await router.quiet()
            assert await router.metric("held_requests") == 0

    scene.play(scenario)


def test_nothing_is_held_while_another_allowed_tier_is_up() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(
                scene.tier("small", hold_seconds=30.0), scene.tier("large", engine.port, quality=0.9)
            )
            async with scene.router(data) as router:
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"

    scene.play(scenario)


@pytest.mark.parametrize("state", ["Warming", "Draining", "Asleep"])
def test_only_ready_endpoints_are_asked(state: str) -> None:
    async def scenario() -> None:
        async with scene.engine() as resting, scene.engine() as ready:
            endpoints = [
                table.Endpoint("a", f"127.0.0.1:{resting.port}", state=state),  # type: ignore[arg-type]
                table.Endpoint("b", f"127.0.0.1:{ready.port}"),
            ]
            async with scene.router(scene.make_table(scene.tier("small", endpoints=endpoints))) as router:
                for _ in range(4):
                    assert (await router.ask()).status == 200
                assert resting.asked == []

    scene.play(scenario)


def test_requests_spread_by_what_endpoints_can_carry() -> None:
    def slow(asked: Asked) -> list[Step]:
        return [0.2, whole(answer())]

    async def scenario() -> None:
        async with scene.engine(slow) as big, scene.engine(slow) as little:
            endpoints = [
                table.Endpoint("big", f"127.0.0.1:{big.port}", capacity=30),
                table.Endpoint("little", f"127.0.0.1:{little.port}", capacity=10),
            ]
            async with scene.router(scene.make_table(scene.tier("small", endpoints=endpoints))) as router:
                replies = await asyncio.gather(*(router.ask() for _ in range(40)))
                assert {reply.status for reply in replies} == {200}
                # 1 - n/30 and 1 - m/10 stay equal: three to one.
                assert (len(big.asked), len(little.asked)) == (30, 10)
                assert await router.metric("in_flight") == 0

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


def test_an_upload_passed_through_is_not_sent_twice() -> None:
    async def scenario() -> None:
        async with (
            scene.engine(lambda _: [Close]) as bad,
            scene.engine() as good,
            scene.router(two_tiers(bad.port, good.port)) as router,
        ):
            reply = await router.ask(b"--x--", path="/v1/files", content_type="multipart/form-data; boundary=x")
            assert reply.status == 502
            assert good.asked == []
            assert bad.asked[0].headers["content-type"] == "multipart/form-data; boundary=x"
            assert bad.asked[0].body == b"--x--"

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


def test_a_class_that_rejects_does_so_though_nothing_in_it_is_sensitive() -> None:
    async def scenario() -> None:
        async with scene.engine() as other:
            strict = scene.class_("gold", ("small",), reject_when_unavailable=True)
            data = scene.make_table(scene.tier("small"), scene.tier("large", other.port), classes=(strict,))
            async with scene.router(data) as router:
                reply = await router.ask()
                assert (reply.status, reply.headers["retry-after"]) == (503, "2")
                assert other.asked == []
                # Nor does an empty list of tiers open it to all of them.
                nobody = scene.class_("gold", (), reject_when_unavailable=True)
                router.publish(scene.make_table(scene.tier("large", other.port), classes=(nobody,), revision=2))
                assert (await router.ask()).status == 503
                anybody = scene.class_("gold", ())
                router.publish(scene.make_table(scene.tier("large", other.port), classes=(anybody,), revision=3))
                assert (await router.ask()).status == 200

    scene.play(scenario)
