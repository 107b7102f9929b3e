"""Whatever a body holds, the answer is a success or a clean error: nothing else is raised."""

from __future__ import annotations

import asyncio
import collections.abc
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from trimtab_sim.engine_sim import (
    chat_route,
    completions_route,
    exchange,
    faults,
    lifecycle,
    messages_route,
    protocol,
    responses_route,
    service,
    settings,
    token_routes,
)

from . import virtual_time

Handler = collections.abc.Callable[[exchange.Exchange, service.Service], collections.abc.Awaitable[None]]

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
KEYS = st.sampled_from(
    [
        "type",
        "text",
        "content",
        "role",
        "function",
        "name",
        "parameters",
        "properties",
        "items",
        "enum",
        "schema",
        "json_schema",
        "format",
    ]
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
MESSAGES = st.lists(st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=2)
FIELDS = [
    "model",
    "n",
    "max_tokens",
    "min_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "priority",
    "cache_salt",
    "ignore_eos",
    "user",
    "return_token_ids",
    "instructions",
    "text",
    "system",
    "stop_sequences",
    "tokens",
    "include_stop_str_in_output",
    "add_generation_prompt",
    "metadata",
]
OFTEN_RIGHT = {
    "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]) | JSON,
    "tool_choice": st.sampled_from(["auto", "required", {"type": "function", "function": {"name": "f"}}]) | JSON,
    "response_format": st.builds(lambda schema: {"type": "json_schema", "json_schema": {"schema": schema}}, JSON)
    | JSON,
    "max_tokens": st.integers(-1, 30) | JSON,
    "stop": st.text(max_size=3) | JSON,
}
BODIES = st.builds(
    lambda some, messages, prompt: {"messages": messages, "prompt": prompt, "input": prompt, **some},
    st.fixed_dictionaries({}, optional={name: OFTEN_RIGHT.get(name, JSON) for name in FIELDS}),
    st.just([{"role": "user", "content": "hi"}]) | MESSAGES,
    st.text(max_size=9) | JSON,
)


def _generation(
    handler: collections.abc.Callable[[exchange.Exchange, service.Service, faults.Fault | None], Any],
) -> Handler:
    return lambda call, shared: handler(call, shared, None)


HANDLERS: dict[str, Handler] = {
    "chat": _generation(chat_route.handle),
    "completions": _generation(completions_route.handle),
    "responses": _generation(responses_route.handle),
    "messages": _generation(messages_route.handle),
    "count_tokens": messages_route.count,
    "tokenize": token_routes.tokenize,
    "detokenize": token_routes.detokenize,
}


async def answer(handler: Handler, body: bytes) -> tuple[int, bytes]:
    """Call a handler as the application does; return status and body."""
    loop = asyncio.get_running_loop()
    shared = lifecycle.make_service(
        settings.Settings(tool_call_parser="any", max_model_len=2000), clock=loop.time, wall=loop.time
    )
    sent: list[exchange.Message] = []
    asked = [{"type": "http.request", "body": body}]

    async def receive() -> exchange.Message:
        while not asked:
            await asyncio.sleep(3600)
        return asked.pop()

    async def send(message: exchange.Message) -> None:
        sent.append(message)

    call = exchange.Exchange({"headers": [(b"content-type", b"application/json")], "query_string": b""}, receive, send)
    try:
        await handler(call, shared)
    except protocol.ApiError as error:
        await call.reply_error(error)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("route", list(HANDLERS))
@given(body=BODIES)
@how(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_body_of_wrong_fields_gets_a_success_or_a_clean_error(route: str, body: dict[str, Any]) -> None:
    status, said = virtual_time.run(answer(HANDLERS[route], msgspec.json.encode(body)))
    assert status in (200, 400, 404)
    if status != 200:
        assert msgspec.json.decode(said)["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"n": 10**9}, "n must be at most 16384", id="a billion choices"),
        pytest.param(
            {"logprobs": True, "top_logprobs": 10**9},
            "logprobs of 1000000000, which is greater than max allowed: 20",
            id="a billion alternatives",
        ),
        pytest.param({"max_tokens": 10**18}, "cannot be greater than max_model_len", id="an endless answer"),
    ],
)
def test_numbers_that_would_cost_memory_are_refused(fields: dict[str, Any], message: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **fields}
    status, said = virtual_time.run(answer(HANDLERS["chat"], msgspec.json.encode(body)))
    assert status == 400
    assert message in msgspec.json.decode(said)["error"]["message"]
