"""Hedging: a stream whose first byte is late is asked of a second engine; one answer, one bill, and the rest is waste."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, USAGE, Asked, Close, Step, chunk, frame, stream

HEDGED = table.Resilience(hedge_quantile=0.9, max_fallbacks=1, retry_floor_per_second=10.0)
PROMISED = table.Slo(ttft_seconds=5.0)
LATE: list[Step] = [0.6, *stream()]


@contextlib.asynccontextmanager
async def pair(
    first: engines.Script,
    second: engines.Script = engines.talk,
    *,
    slo: table.Slo = PROMISED,
    resilience: table.Resilience = HEDGED,
    learned: float = 0.1,
    **fields: Any,
) -> AsyncIterator[tuple[scene.Scene, engines.Engine, engines.Engine]]:
    """Two tiers, the first of which is known to bring its first byte within a tenth of a second."""
    async with scene.engine(first) as one, scene.engine(second) as other:
        classes = (scene.class_(allow=("small", "large"), slo=slo),)
        data = scene.two_tiers(one.port, other.port, resilience=resilience, **{"classes": classes, **fields})
        async with scene.router(data) as router:
            assert router.router.tables.current is not None
            small = router.router.tables.current.tiers["small"].first_bytes
            for _ in range(100 if learned else 0):
                small.observe(learned)
            small.learn(resilience.hedge_quantile)
            yield router, one, other


async def hedges(router: scene.Scene, result: str) -> float:
    return await router.metric("hedges_total", result=result)


def test_the_second_engine_answers_and_the_first_one_is_broken_off() -> None:
    async def scenario() -> None:
        async with pair(lambda _: [5.0, *stream()]) as (router, slow, fast):
            body = wire.chat("x" * 400, stream=True)
            reply = await router.ask(body)
            assert (reply.text, reply.events[-1]) == ("hi there you", "[DONE]")
            assert (reply.headers["x-trimtab-tier"], reply.headers["x-trimtab-attempts"]) == ("large", "2")
            assert (len(slow.asked), len(fast.asked)) == (1, 1)
            assert await hedges(router, "won") == 1
            assert await router.metric("in_flight") == 0
            # One bill, for the one that answered: 8 and 2 cached tokens in, 4 out.
            assert await router.metric("cost_usd_total") == pytest.approx(8e-6 + 1e-6 + 8e-6)
            assert await router.metric("requests_total", result="ok") == 1
            # The other one had read the prompt: its body has about 480 bytes, which are 120 tokens.
            waste = await router.metric("wasted_usd_total", tier="small", reason="hedge_waste")
            assert waste == pytest.approx(len(json.dumps(body)) // 4 * 1e-6)
            [entry] = (await router.get("/admin/requests", admin=True)).json()["requests"]
            assert entry["wastedUsd"] == pytest.approx(waste)

    scene.play(scenario)


def test_the_first_engine_may_still_be_the_faster_one() -> None:
    async def scenario() -> None:
        async with pair(lambda _: LATE, lambda _: [5.0, *stream()]) as (router, _, second):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.text, reply.headers["x-trimtab-tier"]) == ("hi there you", "small")
            assert await hedges(router, "lost") == 1
            assert len(second.asked) == 1
            assert await router.metric("wasted_usd_total", tier="large", reason="hedge_waste") > 0
            assert await router.metric("in_flight") == 0

    scene.play(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"slo": table.Slo(e2e_seconds=5.0)},
        {"resilience": table.Resilience(hedge_quantile=0.0)},
        {"resilience": table.Resilience(hedge_quantile=0.9, retry_share=0.0, retry_floor_per_second=0.0)},
        {"learned": 0.0},
        {"classes": (scene.class_(allow=("small",), slo=PROMISED),)},
    ],
    ids=["no first byte is promised", "not wanted", "the retry budget is spent", "nothing is known yet",
         "no other tier is allowed"],
)  # fmt: skip
def test_no_second_engine_is_asked_where(fields: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with pair(lambda _: LATE, **fields) as (router, _, second):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.headers["x-trimtab-tier"], reply.headers["x-trimtab-attempts"]) == ("small", "1")
            assert second.asked == []

    scene.play(scenario)


def test_an_answer_in_one_piece_is_not_hedged() -> None:
    async def scenario() -> None:
        async with pair(lambda _: [0.5, engines.whole(engines.answer())]) as (router, _, second):
            assert (await router.ask()).status == 200
            assert second.asked == []

    scene.play(scenario)


def test_when_one_of_two_fails_the_other_one_goes_on() -> None:
    async def scenario() -> None:
        async with pair(lambda _: LATE, lambda _: [Close]) as (router, _, _second):
            assert (await router.ask(wire.chat(stream=True))).headers["x-trimtab-tier"] == "small"
            assert await hedges(router, "failed") == 1
        async with pair(lambda _: [0.3, Close], lambda _: LATE) as (router, _, _second):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.text, reply.headers["x-trimtab-tier"]) == ("hi there you", "large")
            assert await hedges(router, "rescued") == 1
            assert await router.metric("wasted_usd_total", tier="small", reason="failed_attempt") > 0

    scene.play(scenario)


def test_when_both_fail_the_client_gets_one_error() -> None:
    async def scenario() -> None:
        async with pair(lambda _: [0.3, Close], lambda _: [0.4, Close]) as (router, one, other):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.status, reply.error["code"]) == (502, "upstream_failed")
            assert (len(one.asked), len(other.asked)) == (1, 1)
            assert await router.metric("requests_total") == 1
            assert await router.metric("cost_usd_total") == 0

    scene.play(scenario)


def test_a_client_that_leaves_stops_both() -> None:
    hang: list[Step] = [STREAM_HEAD, frame(ROLE), engines.Hang]

    async def scenario() -> None:
        async with pair(lambda _: hang, lambda _: hang) as (router, one, other):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(stream=True)))
                while not other.asked:
                    await asyncio.sleep(0.01)
            await one.gone.wait()
            await other.gone.wait()
            await router.quiet()
            assert await router.metric("in_flight") == 0
            assert await router.metric("requests_total", result="cancelled") == 1

    scene.play(scenario)


def test_a_second_engine_that_finds_the_request_wrong_has_the_last_word() -> None:
    async def scenario() -> None:
        async with pair(
            lambda _: [5.0, *stream()], lambda _: [engines.whole({"error": {"message": "too long"}}, 400)]
        ) as (router, _, _second):
            reply = await router.ask(wire.chat(stream=True))
            assert (reply.status, reply.error["message"]) == (400, "too long")
            assert await router.metric("in_flight") == 0

    scene.play(scenario)


def test_a_first_byte_that_comes_in_time_costs_nothing_more() -> None:
    async def scenario() -> None:
        async with pair(engines.talk) as (router, _, second):
            for _ in range(5):
                assert (await router.ask(wire.chat(stream=True))).headers["x-trimtab-attempts"] == "1"
            await asyncio.sleep(0.2)
            assert second.asked == []

    scene.play(scenario)


def test_two_engines_that_answer_at_the_same_moment_give_one_answer() -> None:
    def script(asked: Asked) -> list[Step]:
        words = [ROLE, chunk({"content": "hi"}), chunk({}, "stop"), chunk(usage=USAGE), DONE]
        return [0.2 if asked.json()["model"] == "small" else 0.085, STREAM_HEAD, *map(frame, words), LAST]

    async def scenario() -> None:
        async with pair(script, script) as (router, _, _second):
            replies = await asyncio.gather(*(router.ask(wire.chat(stream=True)) for _ in range(20)))
            assert {(reply.text, reply.events.count("[DONE]"), reply.whole) for reply in replies} == {("hi", 1, True)}
            await router.quiet()
            assert await router.metric("requests_total", result="ok") == 20
            assert await router.metric("output_tokens_total") == 80
            assert await router.metric("in_flight") == 0

    scene.play(scenario)
