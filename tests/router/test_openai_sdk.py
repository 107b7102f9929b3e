"""The official openai SDK against the router, with engine simulators behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import openai
import pytest
from trimtab_core.routing import table

from . import scene
from .test_process import listening

pytestmark = pytest.mark.process

Scenario = Callable[[openai.AsyncOpenAI, scene.Scene], Coroutine[Any, Any, None]]
QUESTION: Any = [{"role": "user", "content": "Name three colours."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"age": {"type": "integer", "maximum": 99}},
            "required": ["age"],
            "additionalProperties": False,
        },
    },
}


@contextlib.asynccontextmanager
async def simulator() -> AsyncIterator[int]:
    """An engine simulator in a process group of its own."""
    port = scene.closed_port()
    options = ["--model", "small", "--host", "127.0.0.1", "--port", str(port), "--sim-itl-base-ms", "5"]
    options += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab_cli", "engine-sim", *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await listening(port)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def converse(scenario: Scenario, **fields: Any) -> None:
    async def run() -> None:
        resilience = table.Resilience(first_byte_timeout=20.0, idle_timeout=20.0)
        async with simulator() as port:
            data = scene.make_table(scene.tier("small", port), resilience=resilience, **fields)
            async with scene.router(data) as router:
                client = openai.AsyncOpenAI(
                    base_url=f"http://127.0.0.1:{router.port}/v1", api_key="sk-test", max_retries=0, timeout=30.0
                )
                async with client:
                    await scenario(client, router)

    scene.play(run)


def test_chat() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=QUESTION, max_tokens=8)
        answer = raw.parse()
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        assert raw.headers["x-trimtab-tier"] == "small"
        expected = answer.usage.prompt_tokens * 1e-6 + 8 * 2e-6
        assert float(raw.headers["x-trimtab-cost-usd"]) == pytest.approx(expected)
        assert await router.metric("cost_usd_total") == pytest.approx(expected)

    converse(scenario)


def test_stream_with_and_without_usage() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            stream = await client.chat.completions.create(
                model="auto",
                messages=QUESTION,
                max_tokens=12,
                stream=True,
                temperature=0,
                **options,  # type: ignore[call-overload]
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            usages = [chunk.usage for chunk in chunks if chunk.usage]
            assert len(usages) == len(options)
            assert all(usage.completion_tokens == 12 for usage in usages)
            assert all(usage.cost_usd > 0 for usage in usages)
        assert await router.metric("output_tokens_total") == 24

    converse(scenario)


def test_tools_pass_through() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        choice: Any = {"type": "function", "function": {"name": "get_weather"}}
        answer = await client.chat.completions.create(
            model="auto", messages=QUESTION, tools=[TOOL], tool_choice=choice, max_tokens=64
        )
        calls = answer.choices[0].message.tool_calls
        assert calls
        assert calls[0].function.name == "get_weather"  # type: ignore[union-attr]
        stream = await client.chat.completions.create(
            model="auto", messages=QUESTION, tools=[TOOL], tool_choice=choice, max_tokens=64, stream=True
        )
        names = [
            call.function.name
            async for chunk in stream
            for choice_ in chunk.choices
            for call in choice_.delta.tool_calls or []
            if call.function and call.function.name
        ]
        assert names == ["get_weather"]

    converse(scenario)


def test_structured_output_passes_through() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        answer = await client.chat.completions.create(
            model="auto", messages=QUESTION, response_format=SCHEMA, max_tokens=200
        )
        assert isinstance(json.loads(answer.choices[0].message.content or "")["age"], int)

    converse(scenario)


def test_completions_and_responses() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        completion = await client.completions.create(model="auto", prompt="hello", max_tokens=4)
        assert completion.choices[0].text
        response = await client.responses.create(model="auto", input="hello", max_output_tokens=4)
        assert response.output_text
        kinds = [
            event.type
            async for event in await client.responses.create(
                model="auto", input="hello", max_output_tokens=4, stream=True
            )
        ]
        assert kinds[0] == "response.created"
        # Four tokens are its limit, so it is incomplete in fact; vLLM calls the event completed all the same.
        assert kinds[-1] in ("response.completed", "response.incomplete")
        assert await router.metric("output_tokens_total") == 12

    converse(scenario)


def test_errors_are_the_sdks_own() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="gpt-9", messages=QUESTION)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.chat.completions.create(model="auto", messages=QUESTION, max_tokens=-1)
        assert wrong.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="auto", messages=QUESTION, max_tokens=-1, stream=True)

    converse(scenario)


def test_a_missing_key_is_an_authentication_error() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="auto", messages=QUESTION)

    converse(scenario, tenants=table.Tenants(required=True, known=[table.Tenant("a", "00" * 32)]))


def test_cancelling_a_stream_stops_the_engine() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        stream = await client.chat.completions.create(
            model="auto", messages=QUESTION, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
        )
        count = 0
        async for _ in stream:
            count += 1
            if count == 5:
                break
        await stream.close()
        await router.quiet()
        assert await router.metric("requests_total", result="cancelled") == 1
        assert 4 <= await router.metric("output_tokens_total") < 900
        async with asyncio.timeout(10):
            while await running(router) > 0:
                await asyncio.sleep(0.05)

    async def running(router: scene.Scene) -> float:
        endpoint = router.router.directory.all()[0]
        probe = scene.Scene(router.router, port=endpoint.port, admin_port=endpoint.port, path=router.path)
        lines = (await probe.get("/metrics")).body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))

    converse(scenario)


def test_models_list() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        assert [model.id async for model in client.models.list()] == ["auto", "assistant"]
        assert (await client.models.retrieve("assistant")).object == "model"

    converse(scenario, models=["auto", "assistant"])


def test_a_hit_of_the_cache_looks_like_any_answer() -> None:
    async def scenario(client: openai.AsyncOpenAI, router: scene.Scene) -> None:
        async def ask(**more: Any) -> Any:
            return await client.chat.completions.create(model="auto", messages=QUESTION, temperature=0, **more)

        first = await ask()
        assert first.choices[0].finish_reason == "stop"
        again = await ask()
        assert again.choices[0].message.content == first.choices[0].message.content
        assert again.usage.total_tokens == 0
        chunks = [chunk async for chunk in await ask(stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == first.choices[0].message.content
        assert await router.metric("cache_results_total", result="hit") == 2

    converse(scenario, cache=table.Cache("answers", 60.0, 10, 100_000))
