"""Fallbacks: until the commit point another engine may answer, as often as the policy and the retry budget allow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trimtab_core.routing import table

from . import scene, wire
from .engines import LAST, ROLE, STREAM_HEAD, Close, Reset, Step, answer, chunk, frame, stream, whole

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
            async with scene.router(scene.two_tiers(port, good.port)) as router:
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


def test_an_upload_passed_through_is_not_sent_twice() -> None:
    async def scenario() -> None:
        async with (
            scene.engine(lambda _: [Close]) as bad,
            scene.engine() as good,
            scene.router(scene.two_tiers(bad.port, good.port)) as router,
        ):
            reply = await router.ask(b"--x--", path="/v1/files", content_type="multipart/form-data; boundary=x")
            assert reply.status == 502
            assert good.asked == []
            assert bad.asked[0].headers["content-type"] == "multipart/form-data; boundary=x"
            assert bad.asked[0].body == b"--x--"

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


def test_after_the_first_content_byte_nobody_else_is_asked() -> None:
    async def scenario() -> None:
        async with (
            scene.engine(lambda _: [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.02, Reset]) as bad,
            scene.engine() as good,
            scene.router(scene.two_tiers(bad.port, good.port)) as router,
        ):
            reply = await router.ask(wire.chat(stream=True))
            assert reply.text == "a"
            assert "upstream_failed" in reply.events[-1]
            assert "[DONE]" not in reply.events
            assert (len(bad.asked), good.asked) == (1, [])

    scene.play(scenario)


def test_failing_engines_are_not_asked_many_times_over() -> None:
    resilience = table.Resilience(max_fallbacks=3, retry_share=0.2, retry_floor_per_second=0.1, eject_after=10_000,
                                  failure_ratio=1.0, failure_requests=10_000)  # fmt: skip

    async def scenario() -> None:
        async with scene.engine(lambda _: [whole({"error": {}}, 500)]) as bad:
            data = scene.make_table(scene.tier("small", bad.port, bad.port, bad.port, bad.port), resilience=resilience)
            async with scene.router(data) as router:
                replies = await asyncio.gather(*(router.ask() for _ in range(100)))
                assert {reply.status for reply in replies} == {502}
                # 100 requests, a fifth of them once more, and one from the floor of ten seconds: not 400.
                assert len(bad.asked) <= 100 + 20 + 1
                # A request that was refused a second attempt has met the limit once.
                assert await router.metric("retries_refused_total") >= 79

    scene.play(scenario)


def test_an_attempt_that_failed_is_waste_and_on_nobodys_bill() -> None:
    broken: list[Step] = [STREAM_HEAD, frame(ROLE), frame(chunk({}, "abort", usage={"prompt_tokens": 1000})), LAST]

    async def scenario() -> None:
        async with scene.engine(lambda _: broken) as bad, scene.engine() as good:
            data = scene.two_tiers(bad.port, good.port)
            async with scene.router(data) as router:
                reply = await router.ask(wire.chat(stream=True))
                assert reply.headers["x-trimtab-attempts"] == "2"
                # 8 new tokens at 1e-6, 2 cached at 5e-7 and 4 out at 2e-6, of the engine that answered, and no more.
                assert await router.metric("cost_usd_total") == pytest.approx(8e-6 + 1e-6 + 8e-6)
                assert await router.metric("cost_usd_total", tier="small") == 0
                # A thousand tokens were read for nothing by the one that gave up.
                wasted = {"tier": "small", "reason": "failed_attempt"}
                assert await router.metric("wasted_usd_total", **wasted) == pytest.approx(1000 * 1e-6)
                assert await router.metric("wasted_usd_total") == pytest.approx(1000 * 1e-6)

    scene.play(scenario)


def test_a_client_that_got_nothing_but_an_error_pays_nothing() -> None:
    async def scenario() -> None:
        aborted = [whole(answer(finish="abort"))]
        async with scene.one_engine(lambda _: aborted) as (router, _):
            assert (await router.ask()).status == 502
            assert await router.metric("cost_usd_total") == 0
            assert await router.metric("wasted_usd_total") > 0
        async with scene.one_engine(lambda _: [whole({"error": {"message": "no"}}, 400)]) as (router, _):
            assert (await router.ask(wire.chat("x" * 4000))).status == 400
            assert await router.metric("cost_usd_total") == 0
            # Nor did the engine do anything.
            assert await router.metric("wasted_usd_total") == 0

    scene.play(scenario)


def test_a_request_whose_answer_nobody_waited_for_is_waste_too() -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [5.0, *stream()]) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat("x" * 400, stream=True)))
                while not engine.asked:
                    await asyncio.sleep(0.005)
            await router.quiet()
            assert await router.metric("requests_total", result="cancelled") == 1
            assert await router.metric("wasted_usd_total", reason="cancelled") > 0
            assert await router.metric("cost_usd_total") == 0

    scene.play(scenario)


def test_an_answer_in_one_piece_has_a_time_limit_of_its_own() -> None:
    resilience = table.Resilience(first_byte_timeout=0.1, answer_timeout=0.4)

    async def scenario() -> None:
        async with scene.two_engines(lambda _: [5.0], resilience=resilience) as (router, _, _good):
            assert (await router.ask()).headers["x-trimtab-tier"] == "large"
            assert await router.metric("fallbacks_total", reason="answer-timeout") == 1

    scene.play(scenario)


def test_a_body_that_no_engine_can_be_sent_is_the_clients_fault_on_a_second_tier_too() -> None:
    # Only the second tier's other name for the model makes the router look at all of it.
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800"}], "model": "auto", "x": tru}'

    async def scenario() -> None:
        async with scene.engine() as good, scene.router(scene.two_tiers(scene.closed_port(), good.port)) as router:
            assert (await router.ask(body)).status == 400
            assert good.asked == []
            await router.quiet()

    scene.play(scenario)
