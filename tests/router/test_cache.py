"""The exact cache: what hits, what must not, and that nobody gets another tenant's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trimtab_core.routing import table

from . import scene, wire
from .engines import ROLE, STREAM_HEAD, USAGE, Asked, Close, Step, answer, chunk, frame, pieces, stream, whole

CACHE = table.Cache("answers", ttl_seconds=60.0, max_entries=100, max_answer_bytes=1000)
COLD: dict[str, Any] = {"temperature": 0}


def numbered(asked: Asked) -> list[Step]:
    """Every answer is another one, so that a repeated one can only come from the cache."""
    numbered.count += 1  # type: ignore[attr-defined]
    text = f"answer {numbered.count}"  # type: ignore[attr-defined]
    return stream(pieces([text])) if asked.json().get("stream") else [whole(answer(text))]


numbered.count = 0  # type: ignore[attr-defined]


def content(reply: wire.Reply) -> str:
    if reply.body.startswith(b"data:"):
        return reply.text
    choice = reply.json()["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


@pytest.mark.parametrize("first", [False, True], ids=["stored from JSON", "stored from a stream"])
@pytest.mark.parametrize("second", [False, True], ids=["given as JSON", "given as a stream"])
def test_a_repeated_request_is_answered_from_memory_in_the_form_asked_for(*, first: bool, second: bool) -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, engine):
            one = await router.ask(wire.chat(**COLD, stream=first))
            two = await router.ask(wire.chat(**COLD, stream=second))
            assert (one.headers["x-trimtab-cache"], two.headers["x-trimtab-cache"]) == ("miss", "hit")
            assert content(one) == content(two)
            assert len(engine.asked) == 1
            if second:
                assert two.events[-1] == "[DONE]"
                assert b'"usage"' not in two.body
            else:
                assert two.json()["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
                assert two.headers["x-trimtab-cost-usd"] == "0"
            cost = await router.metric("cost_usd_total")
            assert await router.metric("cache_saved_usd_total") == pytest.approx(cost)
            assert await router.metric("requests_total", tier="cache", result="cached") == 1
            assert await router.metric("output_tokens_total") == 4
            # What the baseline would have paid, it would have paid twice.
            assert await router.metric("baseline_cost_usd_total") == pytest.approx(2 * (8e-5 + 1e-5 + 8e-5))

    scene.play(scenario)


def test_a_streamed_hit_has_usage_only_if_asked() -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, _):
            await router.ask(wire.chat(**COLD))
            reply = await router.ask(wire.chat(**COLD, stream=True, stream_options={"include_usage": True}))
            assert json.loads(reply.events[-2])["usage"]["total_tokens"] == 0

    scene.play(scenario)


def test_completions_are_cached_apart_from_chat() -> None:
    def script(asked: Asked) -> list[Step]:
        return [whole({"object": "text_completion", "choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}]})]

    async def scenario() -> None:
        async with scene.one_engine(script, cache=CACHE) as (router, _engine):
            body = {"model": "auto", "prompt": "hello", "temperature": 0}
            for expected in ("miss", "hit"):
                reply = await router.ask(body, path="/v1/completions")
                assert (content(reply), reply.headers["x-trimtab-cache"]) == ("yes", expected)
            assert reply.json()["object"] == "text_completion"

    scene.play(scenario)


SAME = {
    "order of keys": {"temperature": 0, "messages": [{"content": "hello", "role": "user"}], "model": "auto"},
    "blanks and nulls": {**wire.chat(), "temperature": 0, "stop": None},
    "who asks, by their own word": {**wire.chat(), "temperature": 0, "user": "bob", "metadata": {"a": "b"}},
}
OTHER = {
    "another text": wire.chat("hello!", **COLD),
    "another system prompt": {
        "model": "auto", "temperature": 0,
        "messages": [{"role": "system", "content": "be rude"}, {"role": "user", "content": "hello"}],
    },
    "another limit": wire.chat(**COLD, max_tokens=5),
    "another format": wire.chat(**COLD, response_format={"type": "json_object"}),
    "a field nobody knows": wire.chat(**COLD, vendor_magic=1),
}  # fmt: skip


@pytest.mark.parametrize("body", SAME.values(), ids=SAME.keys())
def test_what_does_not_change_the_answer_does_not_change_the_key(body: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, _):
            await router.ask(wire.chat(**COLD))
            assert (await router.ask(body)).headers["x-trimtab-cache"] == "hit"

    scene.play(scenario)


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER.keys())
def test_what_could_change_the_answer_changes_the_key(body: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, _):
            await router.ask(wire.chat(**COLD))
            assert (await router.ask(body)).headers["x-trimtab-cache"] == "miss"

    scene.play(scenario)


BROKEN: dict[str, list[Step]] = {
    "cut by length": [whole(answer(finish="length"))],
    "filtered": [whole(answer(finish="content_filter"))],
    "a tool call": [whole(answer("", finish="stop", tool_calls=[{"id": "1"}]))],
    "a refusal": [whole(answer("no", refusal="I can't"))],
    "reasoning beside it": [whole(answer("no", reasoning_content="hm"))],
    "empty": [whole(answer(""))],
    "too long": [whole(answer("x" * 1001))],
    "a cut stream": [STREAM_HEAD, frame(ROLE + chunk({"content": "hi"})), 0.05, Close],
    "a stream without an end": [STREAM_HEAD, frame(ROLE + chunk({"content": "hi"})), 0.05, b"0\r\n\r\n"],
    "a stream cut by length": stream([ROLE, chunk({"content": "hi"}), chunk({}, "length"), chunk(usage=USAGE), b"data: [DONE]\n\n"]),
}  # fmt: skip


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_complete_answer_is_never_given_again(steps: list[Step]) -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: steps, cache=CACHE) as (router, engine):
            body = wire.chat(**COLD, stream=STREAM_HEAD in steps)
            for _ in range(2):
                assert (await router.ask(body)).headers["x-trimtab-cache"] == "miss"
            assert len(engine.asked) == 2
            assert await router.metric("cache_results_total", result="store") == 0

    scene.play(scenario)


def test_request_headers_control_reading_and_storing() -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, _):
            body = wire.chat(**COLD)
            assert (await router.ask(body, x_trimtab_cache_control="no-store")).headers["x-trimtab-cache"] == "bypass"
            first = await router.ask(body)
            assert first.headers["x-trimtab-cache"] == "miss"
            fresh = await router.ask(body, x_trimtab_cache_control="no-cache")
            assert content(fresh) != content(first)
            # The fresh answer has replaced the old one.
            assert content(await router.ask(body)) == content(fresh)
            assert (await router.ask(body, x_trimtab_cache_control="please")).status == 400

    scene.play(scenario)


def test_an_answer_dies_after_its_time_and_with_its_generation() -> None:
    async def scenario() -> None:
        now = 1000.0
        async with scene.one_engine(numbered, cache=CACHE) as (router, engine):
            router.router.clock = lambda: now
            body = wire.chat(**COLD)
            await router.ask(body)
            now += 59
            assert (await router.ask(body)).headers["x-trimtab-cache"] == "hit"
            now += 2
            assert (await router.ask(body)).headers["x-trimtab-cache"] == "miss"
            newer = table.Cache("answers", 60.0, 100, 1000, generation="prompt-2")
            router.publish(scene.make_table(scene.tier("small", engine.port), cache=newer, revision=2))
            assert (await router.ask(body)).headers["x-trimtab-cache"] == "miss"

    scene.play(scenario)


def test_a_sensitive_request_goes_around_the_cache() -> None:
    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=CACHE) as (router, _):
            for _ in range(2):
                reply = await router.ask(wire.chat(**COLD), x_trimtab_sensitive="true")
                assert reply.headers["x-trimtab-cache"] == "bypass"

    scene.play(scenario)


def test_without_a_cache_the_header_says_off() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            assert (await router.ask()).headers["x-trimtab-cache"] == "off"

    scene.play(scenario)


@pytest.mark.parametrize(("shared", "expected"), [(False, "miss"), (True, "hit")])
def test_one_tenants_answer_is_anothers_only_where_the_policy_shares(*, shared: bool, expected: str) -> None:
    cache = table.Cache("answers", 60.0, 100, 1000, shared=shared)

    async def scenario() -> None:
        async with scene.one_engine(numbered, cache=cache, tenants=table.Tenants(trusted_header=True)) as (router, _):
            await router.ask(wire.chat(**COLD), x_trimtab_tenant="a")
            reply = await router.ask(wire.chat(**COLD), x_trimtab_tenant="b")
            assert reply.headers["x-trimtab-cache"] == expected

    scene.play(scenario)


def test_pipelined_hits_are_answered_in_order() -> None:
    async def scenario() -> None:
        async with (
            scene.one_engine(numbered, cache=CACHE) as (router, engine),
            await wire.Client.open(router.port) as client,
        ):
            client.send(wire.request(wire.chat(**COLD)) * 20)
            texts = {content(await client.reply()) for _ in range(20)}
            assert len(texts) == 1
            assert len(engine.asked) == 1

    scene.play(scenario)
