"""Anthropic's Messages: passed on word for word, billed exactly, and never a broken stream as a good one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_router import messages

from . import engines, scene, wire
from .engines import STREAM_HEAD, Asked, Close, Hang, Step, frame

BODY = {"model": "auto", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
COUNTED = {"input_tokens": 6, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2}
COST = 6 * 1e-6 + 2 * 5e-7 + 3 * 2e-6


def event(kind: str, **fields: Any) -> bytes:
    payload = engines.compact({"type": kind, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)


def delta(text: str) -> bytes:
    return event("content_block_delta", delta={"type": "text_delta", "text": text}, index=0)


START = event(
    "message_start",
    message={
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [],
        "usage": {"input_tokens": 6, "output_tokens": 0, "cache_read_input_tokens": 2},
    },
)
BLOCK = event("content_block_start", content_block={"type": "text", "text": ""}, index=0)
STOP_BLOCK = event("content_block_stop", index=0)
END = event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=COUNTED)
STOP = event("message_stop")
GOOD = [START, BLOCK, delta("hi"), delta(' "error" and "message_delta" '), delta("you"), STOP_BLOCK, END, STOP]


def stream(*events: bytes, end: Any = engines.LAST) -> list[Step]:
    """A stream whose first word has arrived before the rest is written."""
    return [STREAM_HEAD, *map(frame, events[:3]), 0.03, *map(frame, events[3:]), end]


def whole(**changes: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "hi"}]
    made = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": "end_turn",
        "usage": COUNTED,
    }
    return {**made, **changes}


async def ask(router: scene.Scene, **fields: Any) -> wire.Reply:
    return await router.ask({**BODY, **fields}, path="/v1/messages")


async def entry(router: scene.Scene) -> dict[str, Any]:
    await router.quiet()
    (last,) = (await router.get("/admin/requests", admin=True)).json()["requests"]
    return last


def test_a_message_in_one_piece_is_billed_by_its_own_counts() -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [engines.whole(whole())]) as (router, engine):
            reply = await ask(router)
            assert reply.json() == whole()
            assert float(reply.headers["x-trimtab-cost-usd"]) == pytest.approx(COST)
            assert engine.asked[0].json() == {**BODY, "model": "small"}
            booked = await entry(router)
            assert [booked[name] for name in ("inputTokens", "cachedInputTokens", "outputTokens", "estimated")] == [
                8,
                2,
                3,
                False,
            ]

    scene.play(scenario)


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_a_stream_arrives_word_for_word_however_it_is_cut_and_is_billed_by_its_last_count(size: int) -> None:
    data = b"".join(GOOD)
    cut = [data[at : at + size] for at in range(0, len(data), size)]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(*cut)) as (router, _):
            reply = await ask(router, stream=True)
            assert (reply.whole, reply.body) == (True, data)
            booked = await entry(router)
            assert [booked[name] for name in ("inputTokens", "cachedInputTokens", "outputTokens", "estimated")] == [
                8,
                2,
                3,
                False,
            ]
            assert booked["costUsd"] == pytest.approx(COST)

    scene.play(scenario)


def test_anthropics_own_last_word_counts_the_answer_alone() -> None:
    last = event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 3})

    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(START, BLOCK, delta("a"), last, STOP)) as (router, _):
            assert (await ask(router, stream=True)).whole
            booked = await entry(router)
            assert [booked[name] for name in ("inputTokens", "cachedInputTokens", "outputTokens")] == [8, 2, 3]

    scene.play(scenario)


def test_a_client_that_leaves_pays_for_the_prompt_as_counted_and_the_answer_as_seen() -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: stream(START, BLOCK, delta("a"), delta("b"), end=Hang)) as (router, _):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request({**BODY, "stream": True}, path="/v1/messages"))
                seen = b""
                while b'"b"' not in seen:
                    seen += await client.read_some()
            booked = await entry(router)
            assert [booked[name] for name in ("inputTokens", "outputTokens", "estimated")] == [8, 2, True]

    scene.play(scenario)


BROKEN = {
    "no message_stop": (stream(*GOOD[:-1]), "truncated"),
    "cut off": (stream(*GOOD[:4], end=Close), "broke the connection off"),
    "an error": (stream(*GOOD[:3], event("error", error={"type": "overloaded_error", "message": "x"})), "stream-error"),
    "aborted": (stream(*GOOD[:5], event("message_delta", delta={"stop_reason": None}, usage=COUNTED), STOP), "aborted"),
    "no JSON": (stream(*GOOD[:3], b'event: message_delta\ndata: {"type":"message_\n\n'), "bad-json"),
    "an error of another shape": (stream(*GOOD[:3], b'data: {"error":{"message":"x"}}\n\n'), "stream-error"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_that_fails_ends_with_an_error_event_and_no_stop(script: list[Step], why: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: script) as (router, _):
            reply = await ask(router, stream=True)
            assert reply.body.startswith(START + BLOCK + delta("hi"))
            assert b"message_stop" not in reply.body
            last = reply.body.rstrip(b"\n").rpartition(b"\n\n")[2]
            kind, _, data = last.partition(b"\n")
            assert kind == b"event: error"
            told = json.loads(data.removeprefix(b"data: "))
            assert (told["type"], told["error"]["type"]) == ("error", "api_error")
            assert why in told["error"]["message"]
            assert (await entry(router))["result"] == "failed"

    scene.play(scenario)


@pytest.mark.parametrize(
    "broken",
    [stream(START, BLOCK, end=Close), stream(START, event("error", error={"type": "api_error", "message": "x"})), [engines.whole(whole(stop_reason=None))], [engines.whole({"type": "error", "error": {"type": "x", "message": "y"}})], [engines.whole(b"<html>")]],
    ids=["a stream before its first word", "an error before it", "aborted", "an error with status 200", "no JSON"],
)  # fmt: skip
def test_what_fails_before_its_first_word_is_asked_of_another_engine(broken: list[Step]) -> None:
    streamed = broken[0] == STREAM_HEAD

    def good(asked: Asked) -> list[Step]:
        return stream(*GOOD) if streamed else [engines.whole(whole())]

    async def scenario() -> None:
        async with scene.engine(lambda _: broken) as bad, scene.engine(good) as other:
            data = scene.make_table(scene.tier("small", bad.port), scene.tier("large", other.port, quality=0.9))
            async with scene.router(data) as router:
                reply = await ask(router, stream=streamed)
                assert (reply.status, reply.headers["x-trimtab-tier"]) == (200, "large")

    scene.play(scenario)


REFUSALS = {
    "unknown model": ({**BODY, "model": "gpt-9"}, {}, 404, "not_found_error"),
    "no JSON": (b"{", {}, 400, "invalid_request_error"),
    "empty": (b"", {}, 400, "invalid_request_error"),
    "unknown key": (BODY, {"x_api_key": "sk-wrong"}, 401, "authentication_error"),
    "counting tokens of an unknown model": ({**BODY, "model": "gpt-9"}, {"path": "/v1/messages/count_tokens"}, 404, "not_found_error"),
    "wrong method": (b"", {"method": "PUT"}, 405, "invalid_request_error"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "more", "status", "kind"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_have_anthropics_shape(body: Any, more: dict[str, str], status: int, kind: str) -> None:
    async def scenario() -> None:
        tenants = table.Tenants(required=status == 401, known=[table.Tenant("a", "0" * 64)])
        async with scene.one_engine(tenants=tenants) as (router, _):
            reply = await router.ask(body, **{"path": "/v1/messages", **more})
            assert (reply.status, reply.json()["type"], reply.json()["error"]["type"]) == (status, "error", kind)
            assert reply.json()["error"]["message"]

    scene.play(scenario)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"type": "error", "error": {"type": "BadRequestError", "message": "no"}}, "invalid_request_error"),
        (422, {"detail": "no"}, "invalid_request_error"),
        (404, {"error": {"message": "no", "code": 404}}, "not_found_error"),
    ],
)
def test_an_engines_refusal_keeps_its_words_in_anthropics_shape(status: int, body: dict[str, Any], kind: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [engines.whole(body, status)]) as (router, _):
            reply = await ask(router)
            assert (reply.status, reply.json()) == (status, {"type": "error", "error": {"type": kind, "message": "no"}})

    scene.play(scenario)


def test_limits_hold_for_messages_too() -> None:
    limited = table.Tenants(default_limits=table.Limits(tokens_per_minute=200), isolate=True)

    async def scenario() -> None:
        async with scene.one_engine(lambda _: [engines.whole(whole())], tenants=limited) as (router, engine):
            good, refused = await ask(router, max_tokens=10), await ask(router, max_tokens=1000)
            assert int(good.headers["x-ratelimit-remaining-tokens"]) > 0
            assert (refused.status, refused.json()["error"]["type"]) == (429, "rate_limit_error")
            assert len(engine.asked) == 1
            assert "cache_salt" not in engine.asked[0].json(), "the route does not take it"

    scene.play(scenario)


def test_counting_tokens_costs_nothing() -> None:
    async def scenario() -> None:
        async with scene.one_engine(lambda _: [engines.whole({"input_tokens": 8})]) as (router, engine):
            reply = await router.ask(BODY, path="/v1/messages/count_tokens")
            assert reply.json() == {"input_tokens": 8}
            assert float(reply.headers["x-trimtab-cost-usd"]) == 0
            assert engine.asked[0].json()["model"] == "small"

    scene.play(scenario)


def test_every_status_has_a_type() -> None:
    for status in (400, 401, 403, 404, 405, 413, 429, 500, 502, 503, 504):
        assert json.loads(messages.error_body(status, "x"))["error"]["type"].endswith(("_error", "_large"))
