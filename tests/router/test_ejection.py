"""Ejection: which endpoints get no requests for a while, and how they come back."""

from __future__ import annotations

import asyncio

from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import ROLE, STREAM_HEAD, Asked, Close, Hang, Step, answer, chunk, frame, stream, talk, whole


def test_an_endpoint_that_fails_in_a_row_is_ejected_and_comes_back() -> None:
    healthy = False

    def script(asked: Asked) -> list[Step]:
        return talk(asked) if healthy else [Close]

    async def scenario() -> None:
        nonlocal healthy
        resilience = table.Resilience(max_fallbacks=1, eject_after=3, eject_seconds=0.3)
        async with scene.engine(script) as weak, scene.engine() as good:
            data = scene.two_tiers(weak.port, good.port, resilience=resilience)
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
        async with scene.engine() as good, scene.router(scene.two_tiers(scene.closed_port(), good.port)) as router:
            assert (await router.ask()).headers["x-trimtab-attempts"] == "2"
            assert (await router.ask()).headers["x-trimtab-attempts"] == "1"
            assert await router.metric("ejections_total") == 1

    scene.play(scenario)


def test_a_full_queue_is_no_reason_to_eject() -> None:
    async def scenario() -> None:
        async with (
            scene.engine(lambda _: [whole({"error": {}}, 503)]) as busy,
            scene.engine() as good,
            scene.router(scene.two_tiers(busy.port, good.port)) as router,
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
                scene.router(scene.two_tiers(frozen.port, good.port, resilience=resilience)) as router,
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


def test_an_endpoint_that_fails_half_of_the_time_is_ejected_though_never_in_a_row() -> None:
    def script(asked: Asked) -> list[Step]:
        return [whole({"error": {}}, 500)] if asked.nth % 2 else talk(asked)

    async def scenario() -> None:
        resilience = table.Resilience(
            eject_after=100, failure_requests=10, failure_ratio=0.5, eject_seconds=30.0, retry_floor_per_second=10.0
        )
        async with scene.two_engines(script, resilience=resilience) as (router, weak, _):
            for _ in range(20):
                assert (await router.ask()).status == 200
            # A new connection each time, as the failing ones are not kept: five failures and five answers.
            assert len(weak.asked) <= 11
            assert await router.metric("ejections_total", tier="small") == 1

    scene.play(scenario)


def test_what_all_endpoints_answer_does_not_eject_all_of_them() -> None:
    async def scenario() -> None:
        resilience = table.Resilience(
            eject_after=1, max_ejected=0.5, max_fallbacks=0, retry_floor_per_second=100.0, eject_seconds=30.0
        )
        async with scene.engine(lambda _: [whole({"error": {}}, 500)]) as bad:
            data = scene.make_table(scene.tier("small", *[bad.port] * 4), resilience=resilience)
            async with scene.router(data) as router:
                for _ in range(20):
                    assert (await router.ask()).status == 502
                assert await router.metric("ejections_total") == 2

    scene.play(scenario)


def test_one_request_at_a_time_finds_out_whether_an_endpoint_is_back() -> None:
    healthy = False

    def script(asked: Asked) -> list[Step]:
        return [0.2, whole(answer())] if healthy else [Close]

    async def scenario() -> None:
        nonlocal healthy
        resilience = table.Resilience(eject_after=1, eject_seconds=0.3)
        async with scene.two_engines(script, resilience=resilience) as (router, weak, _):
            await router.ask()
            healthy = True
            weak.asked.clear()
            await asyncio.sleep(0.5)
            replies = await asyncio.gather(*(router.ask() for _ in range(10)))
            assert {reply.status for reply in replies} == {200}
            assert len(weak.asked) == 1
            assert (await router.ask()).headers["x-trimtab-tier"] == "small"

    scene.play(scenario)


def test_a_frozen_engine_is_left_alone_long_before_its_requests_time_out_and_asked_again_once_it_moves() -> None:
    def script(asked: Asked) -> list[Step]:
        if b"first" in asked.body:
            words = [frame(chunk({"content": "b"})) for _ in range(3)]
            return [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 1.0, *words, 0.5, *stream()[-3:]]
        return talk(asked)

    async def scenario() -> None:
        resilience = table.Resilience(stall_after=0.2, idle_timeout=30.0, first_byte_timeout=30.0)
        async with (
            scene.two_engines(script, resilience=resilience) as (router, _, _good),
            await wire.Client.open(router.port) as client,
        ):
            client.send(wire.request(wire.chat("first", stream=True)))
            await client.reader.readuntil(b'"a"')
            assert (await router.ask()).headers["x-trimtab-tier"] == "small"
            await asyncio.sleep(0.5)
            # Its port is open and would answer a health check; its stream stands still.
            assert (await router.ask()).headers["x-trimtab-tier"] == "large"
            await client.reader.readuntil(b'"b"')
            await asyncio.sleep(0.15)
            assert (await router.ask()).headers["x-trimtab-tier"] == "small"

    scene.play(scenario)


def test_an_answer_in_one_piece_is_given_up_when_the_streams_of_its_engine_stand_still() -> None:
    def script(asked: Asked) -> list[Step]:
        if asked.json().get("stream"):
            return [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), Hang]
        return [Hang]

    async def scenario() -> None:
        resilience = table.Resilience(stall_after=0.2, first_byte_timeout=0.4, idle_timeout=30.0, answer_timeout=30.0)
        async with (
            scene.two_engines(script, resilience=resilience) as (router, _, _good),
            await wire.Client.open(router.port) as client,
        ):
            client.send(wire.request(wire.chat(stream=True)))
            await client.reader.readuntil(b'"a"')
            reply = await router.ask()
            assert (reply.status, reply.headers["x-trimtab-tier"]) == (200, "large")
            assert await router.metric("fallbacks_total", reason="stalled") == 1

    scene.play(scenario)


def test_a_slow_client_does_not_make_its_engine_look_frozen() -> None:
    def script(asked: Asked) -> list[Step]:
        if asked.json().get("stream"):
            return [STREAM_HEAD, *[frame(chunk({"content": "x" * 60_000})) for _ in range(200)], *stream()[-3:]]
        return talk(asked)

    async def scenario() -> None:
        resilience = table.Resilience(stall_after=0.2, idle_timeout=30.0)
        async with (
            scene.two_engines(script, resilience=resilience) as (router, _, _good),
            await wire.Client.open(router.port) as client,
        ):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(wire.request(wire.chat(stream=True)))
            await asyncio.sleep(0.7)
            assert (await router.ask()).headers["x-trimtab-tier"] == "small"

    scene.play(scenario)


def test_an_engine_that_says_when_it_has_room_again_is_not_asked_before() -> None:
    async def scenario() -> None:
        busy = [whole({"error": {}}, 429, retry_after="1")]
        async with scene.two_engines(lambda asked: busy if asked.nth < 2 else talk(asked)) as (router, engine, _):
            for _ in range(4):
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"
            assert len(engine.asked) == 1
            assert await router.metric("ejections_total") == 0
            await asyncio.sleep(1.2)
            engine.script = talk
            assert (await router.ask()).headers["x-trimtab-tier"] == "small"

    scene.play(scenario)


def test_when_all_rest_the_client_is_told_for_how_long_and_nobody_is_asked() -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [whole({"error": {}}, 503, retry_after="9")]) as (router, engine):
            assert (await router.ask()).headers["retry-after"] == "9"
            again = await router.ask()
            assert (again.status, again.error["code"]) == (503, "unavailable")
            assert 8 <= int(again.headers["retry-after"]) <= 9
            assert len(engine.asked) == 1

    scene.play(scenario)


def test_an_engine_that_shuts_down_answers_500_while_its_health_is_fine_and_is_left_alone() -> None:
    # vLLM 0.32 after SIGTERM with --shutdown-timeout: /health 200, new requests 500.
    def script(asked: Asked) -> list[Step]:
        if asked.path == "/health":
            return [whole({})]
        return [whole({"error": {"message": "cannot schedule new futures after shutdown", "code": 500}}, 500)]

    async def scenario() -> None:
        async with scene.two_engines(script) as (router, leaving, _):
            for _ in range(8):
                assert (await router.ask()).status == 200
            assert len(leaving.asked) == 3
            assert {asked.path for asked in leaving.asked} == {"/v1/chat/completions"}

    scene.play(scenario)


def test_the_admin_port_shows_why_an_endpoint_gets_nothing() -> None:
    async def scenario() -> None:
        async with scene.engine() as good, scene.router(scene.two_tiers(scene.closed_port(), good.port)) as router:
            await router.ask()
            shown = {
                each["tier"]: each for each in (await router.get("/admin/endpoints", admin=True)).json()["endpoints"]
            }
            assert (shown["small"]["ready"], shown["small"]["breaker"]) == (False, "open")
            assert shown["small"]["ejectedForSeconds"] > 0
            assert (shown["large"]["ready"], shown["large"]["breaker"], shown["large"]["stalled"]) == (
                True,
                "closed",
                False,
            )

    scene.play(scenario)
