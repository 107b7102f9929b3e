"""What the server does beyond the recorded shapes: faults, usage options, tools, limits, disconnects; over real sockets."""

from __future__ import annotations

import asyncio
import collections.abc
import json
from typing import Any

import pytest
from trimtab_sim.engine_sim import faults

from . import serving

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NAMED = {"type": "function", "function": {"name": "weather"}}


def with_server(
    test: collections.abc.Callable[[serving.Running], collections.abc.Awaitable[None]], **fields: Any
) -> None:
    async def run() -> None:
        async with serving.serving(**fields) as running:
            await test(running)

    asyncio.run(run())


def text_of(reply: serving.Reply) -> str:
    chunks = [json.loads(data) for data in reply.data() if data != "[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def test_a_stream_and_a_plain_answer_say_the_same() -> None:
    async def check(running: serving.Running) -> None:
        plain = await running.chat(max_tokens=300)
        streamed = await running.chat(max_tokens=300, stream=True)
        assert text_of(streamed) == plain.json()["choices"][0]["message"]["content"]

    with_server(check)


def test_equal_seeds_give_equal_answers_on_another_server() -> None:
    texts = []

    async def check(running: serving.Running) -> None:
        texts.append((await running.chat(seed=4, temperature=0.7)).json()["choices"][0]["message"]["content"])

    with_server(check)
    with_server(check)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_every_generation_route_streams_to_a_clean_end(path: str) -> None:
    async def check(running: serving.Running) -> None:
        body = {
            "messages": [{"role": "user", "content": "x"}],
            "prompt": "x",
            "input": "x",
            "model": "trimtab/simulated",
        }
        reply = await running.call(
            "POST", path, {**body, "max_tokens": 40, "max_output_tokens": 40, "ignore_eos": True, "stream": True}
        )
        assert (reply.status, reply.whole) == (200, True)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert running.counted("generation_tokens_total") == 40
        assert running.counted("request_success_total", "length") == 1

    with_server(check)


def test_usage_counts_the_tokens_that_were_generated() -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.chat(
            max_tokens=33, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}
        )
        chunks = [json.loads(data) for data in reply.data()[:-1]]
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts)
        assert counts[-1] == 33

    with_server(check)


def test_forced_usage_is_sent_without_being_asked_for() -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.chat(stream=True)
        assert json.loads(reply.data()[-2])["usage"]["completion_tokens"] == 8

    with_server(check, enable_force_include_usage=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_answer_may_end_by_itself(path: str) -> None:
    async def check(running: serving.Running) -> None:
        body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "max_tokens": 500}
        reply = await running.call("POST", path, body)
        assert reply.finish_reason() == "stop"
        assert 10 <= reply.json()["usage"]["completion_tokens"] <= 30

    with_server(check, sim_output_tokens=20)


def test_completions_stop_at_sixteen_tokens_unless_asked() -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.call("POST", "/v1/completions", {"prompt": "x", "ignore_eos": True})
        assert reply.json()["usage"]["completion_tokens"] == 16

    with_server(check)


def test_the_first_served_name_answers_for_all() -> None:
    async def check(running: serving.Running) -> None:
        assert (await running.chat(model="b")).json()["model"] == "a"
        assert [card["id"] for card in (await running.call("GET", "/v1/models")).json()["data"]] == ["a", "b"]
        assert (await running.chat(model="c")).status == 404

    with_server(check, served_model_name=("a", "b"))


def test_any_of_several_keys_opens_v1_and_none_is_needed_elsewhere() -> None:
    async def check(running: serving.Running) -> None:
        for key, status in (("one", 200), ("two", 200), ("three", 401), ("", 401)):
            assert (await running.call("GET", "/v1/models", authorization=f"Bearer {key}")).status == status
        for path in ("/health", "/metrics", "/version"):
            assert (await running.call("GET", path)).status == 200

    with_server(check, api_key=("one", "two"))


@pytest.mark.parametrize(
    ("choice", "finish"),
    [pytest.param(NAMED, "stop", id="by name"), pytest.param("required", "tool_calls", id="required")],
)
def test_a_forced_tool_is_called_with_arguments_that_fit(choice: object, finish: str) -> None:
    async def check(running: serving.Running) -> None:
        asked = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 200, "ignore_eos": None}
        plain = (await running.chat(**asked)).json()["choices"][0]
        (called,) = plain["message"]["tool_calls"]
        assert (called["function"]["name"], plain["finish_reason"]) == ("weather", finish)
        assert isinstance(json.loads(called["function"]["arguments"])["city"], str)
        streamed = [json.loads(data) for data in (await running.chat(**asked, stream=True)).data()[:-1]]
        deltas = [chunk["choices"][0]["delta"]["tool_calls"][0]["function"] for chunk in streamed[1:]]
        assert deltas[0]["name"] == "weather"
        assert "".join(delta["arguments"] for delta in deltas) == called["function"]["arguments"]
        assert streamed[-1]["choices"][0]["finish_reason"] == finish

    with_server(check, tool_call_parser="hermes")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"tools": [TOOL]}, '"auto" tool choice requires', id="tools alone mean auto"),
        pytest.param({"tools": [TOOL], "tool_choice": "required"}, 'tool_choice="required" requires', id="required"),
        pytest.param({"tools": [TOOL], "tool_choice": NAMED}, 'tool_choice=function "weather" requires', id="by name"),
        pytest.param({"tool_choice": "required"}, "`tools` must be set", id="no tools"),
    ],
)
def test_tools_without_a_parser_are_refused(fields: dict[str, Any], message: str) -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.chat(**fields)
        assert reply.status == 400
        assert message in reply.json()["error"]["message"]

    with_server(check)


def test_structured_output_is_json_by_the_schema() -> None:
    async def check(running: serving.Running) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]}
        formats = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = (await running.chat(response_format=formats, max_tokens=50, ignore_eos=None)).json()["choices"][0]
        assert json.loads(answer["message"]["content"])["a"] <= 9
        assert answer["finish_reason"] == "stop"
        assert json.loads(
            (await running.chat(response_format={"type": "json_object"}, max_tokens=50)).json()["choices"][0][
                "message"
            ]["content"]
        )
        picked = await running.chat(structured_outputs={"choice": ["yes", "no"]}, max_tokens=5)
        assert picked.json()["choices"][0]["message"]["content"] == "yes"

    with_server(check)


def test_prompt_and_answer_together_must_fit() -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.chat("a" * 240, max_tokens=60)  # about 67 prompt tokens, 100 in all
        assert reply.status == 400
        assert "maximum context length is 100 tokens" in reply.json()["error"]["message"]

    with_server(check, max_model_len=100)


def test_a_header_priority_wins_and_must_be_a_number() -> None:
    async def check(running: serving.Running) -> None:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        assert (await running.call("POST", serving.CHAT, body, x_vllm_priority="-3")).status == 200
        assert (await running.call("POST", serving.CHAT, body, x_vllm_priority="soon")).status == 400

    with_server(check)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(*, stream: bool) -> None:
    async def check(running: serving.Running) -> None:
        engine = running.life.shared.engine
        body = {
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 5000,
            "ignore_eos": True,
            "stream": stream,
        }
        _, writer = await running.open("POST", serving.CHAT, body)
        await running.until(lambda: running.counted("generation_tokens_total") > 2)
        writer.close()
        await running.until(lambda: not engine.in_flight)
        assert not engine.scheduler.busy
        assert all(running.counted("request_success_total", reason) == 0 for reason in ("stop", "length", "abort"))

    with_server(check)


def test_load_counts_only_when_tracked() -> None:
    async def load_during(running: serving.Running) -> int:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5000, "ignore_eos": True}
        _, writer = await running.open("POST", serving.CHAT, body)
        await running.until(lambda: running.life.shared.engine.in_flight)
        load: int = (await running.call("GET", "/load")).json()["server_load"]
        writer.close()
        return load

    async def tracked(running: serving.Running) -> None:
        assert await load_during(running) == 1

    async def untracked(running: serving.Running) -> None:
        assert await load_during(running) == 0

    with_server(tracked, enable_server_load_tracking=True)
    with_server(untracked)


def test_busy_answers_503_as_often_as_told_and_without_retry_after() -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("busy", count=2)
        replies = [await running.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [503, 503, 200]
        assert "retry-after" not in replies[0].headers

    with_server(check)


@pytest.mark.parametrize("stream", [False, True])
def test_abort_ends_with_200_and_the_reason(*, stream: bool) -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("abort", after_tokens=5)
        reply = await running.chat(max_tokens=100, stream=stream)
        assert reply.status == 200
        if stream:
            assert reply.data()[-1] == "[DONE]"
            assert json.loads(reply.data()[-2])["choices"][0]["finish_reason"] == "abort"
        else:
            assert reply.finish_reason() == "abort"
            assert reply.json()["usage"]["completion_tokens"] >= 5
        assert running.counted("request_success_total", "abort") == 1

    with_server(check)


def test_a_stream_error_comes_after_tokens_and_before_done() -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("stream-error", after_tokens=5)
        reply = await running.chat(max_tokens=100, stream=True)
        assert (reply.status, reply.whole) == (200, True)
        assert len(reply.data()) >= 5 + 2
        assert json.loads(reply.data()[-2])["error"]["code"] == 500
        assert reply.data()[-1] == "[DONE]"
        assert (await running.chat(max_tokens=100)).status == 500

    with_server(check)


@pytest.mark.parametrize(("path", "mark"), [("/v1/messages", "event: error"), ("/v1/responses", 'data: {"error"')])
def test_a_stream_error_on_other_routes_is_the_last_event(path: str, mark: str) -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("stream-error", after_tokens=3)
        body = {
            "model": "trimtab/simulated",
            "messages": [{"role": "user", "content": "x"}],
            "input": "x",
            "stream": True,
        }
        reply = await running.call(
            "POST", path, {**body, "max_tokens": 50, "max_output_tokens": 50, "ignore_eos": True}
        )
        assert reply.whole
        assert mark in reply.body.decode().split("\n\n")[-2]

    with_server(check)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_stream_has_no_end(*, stream: bool) -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("cut-stream", after_tokens=5, count=1)
        reply = await running.chat(max_tokens=100, stream=stream)
        assert (reply.status, reply.whole) == (200, False)
        assert b"[DONE]" not in reply.body
        await running.until(lambda: not running.life.shared.engine.in_flight)
        assert (await running.chat()).status == 200

    with_server(check)


def test_bad_json_spoils_one_event_of_a_stream_and_a_plain_body() -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("bad-json", after_tokens=3)
        spoiled = 0
        for data in (await running.chat(stream=True)).data()[:-1]:
            try:
                json.loads(data)
            except json.JSONDecodeError:
                spoiled += 1
        assert spoiled == 1
        plain = await running.chat()
        assert (plain.status, plain.whole) == (200, True)
        with pytest.raises(json.JSONDecodeError):
            plain.json()

    with_server(check)


def test_a_process_that_dies_mid_stream_is_told_to_exit_after_its_tokens() -> None:
    class Gone(Exception):  # noqa: N818 - stands for the end of the process
        pass

    def leave(status: int) -> None:
        raise Gone(status)

    async def check(running: serving.Running) -> None:
        running.life.shared.exit_process = leave
        await running.fault("die-mid-stream", after_tokens=5)
        reply = await running.chat(max_tokens=100, stream=True)
        assert not reply.whole
        assert 5 <= len(reply.data()) <= 8  # the role and five tokens, give or take one step

    with_server(check)


def test_freeze_leaves_health_at_200_and_lifting_it_goes_on() -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("freeze")
        waiting = asyncio.create_task(running.chat())
        await running.until(lambda: running.life.shared.engine.in_flight)
        assert (await running.call("GET", "/health")).status == 200
        assert running.counted("generation_tokens_total") == 0
        assert not waiting.done()
        assert (await running.call("DELETE", "/sim/faults")).json() == {"faults": []}
        assert (await waiting).status == 200

    with_server(check)


def test_a_refusing_server_opens_again_when_the_fault_is_lifted() -> None:
    async def check(running: serving.Running) -> None:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 200}
        reader, writer = await running.open("POST", serving.CHAT, body)
        await running.until(lambda: running.life.shared.engine.in_flight)
        await running.fault("refuse")
        with pytest.raises(ConnectionRefusedError):
            await running.chat()
        assert serving.parse(await reader.read()).status == 200  # what was open goes on
        writer.close()
        running.life.shared.board.clear()
        running.life.shared.on_faults()
        await running.until(lambda: running.life._server.servers)
        assert (await running.chat()).status == 200

    with_server(check)


def test_a_refusal_ends_by_itself_after_its_seconds() -> None:
    async def check(running: serving.Running) -> None:
        await running.fault("refuse", seconds=0.05)
        await running.until(lambda: running.life._server.servers)
        assert (await running.chat()).status == 200

    with_server(check)


def test_faults_at_run_time_are_listed_and_need_the_control_switch() -> None:
    async def check(running: serving.Running) -> None:
        await running.call("POST", "/sim/faults", {"faults": ["abort,after_tokens=3", {"kind": "busy", "share": 0}]})
        active = (await running.call("GET", "/sim/faults")).json()["faults"]
        assert [fault["kind"] for fault in active] == ["abort", "busy"]
        wrong = await running.call("POST", "/sim/faults", {"kind": "frob"})
        assert wrong.status == 400
        assert "unknown fault" in wrong.json()["error"]["message"]

    async def without(running: serving.Running) -> None:
        assert (await running.call("GET", "/sim/faults")).status == 404

    with_server(check)
    with_server(without, sim_control=False)


def test_a_fault_given_at_the_start_acts() -> None:
    async def check(running: serving.Running) -> None:
        assert (await running.chat()).status == 503

    with_server(check, sim_fault=(faults.Fault("busy"),))


def test_a_failure_of_the_server_itself_is_a_500_in_the_usual_shape() -> None:
    def broken() -> float:
        raise RuntimeError("the wall clock has stopped")

    async def check(running: serving.Running) -> None:
        wall, running.life.shared.wall = running.life.shared.wall, broken
        body = {"messages": [{"role": "user", "content": "x"}]}
        reader, writer = await running.open("POST", serving.CHAT, body)
        raw = await reader.read()
        writer.close()
        running.life.shared.wall = wall
        reply = serving.parse(raw)
        assert reply.status == 500
        assert reply.json()["error"] == {
            "message": "the wall clock has stopped",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }

    with_server(check)


def test_several_prompts_and_choices_come_back_in_order() -> None:
    async def check(running: serving.Running) -> None:
        reply = await running.call(
            "POST", "/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 3, "echo": True}
        )
        choices = reply.json()["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert [choice["text"][0] for choice in choices] == ["a", "a", "b", "b"]
        assert reply.json()["usage"]["prompt_tokens"] == 2

    with_server(check)


def test_tokenize_and_detokenize_are_inverse() -> None:
    async def check(running: serving.Running) -> None:
        ids = (await running.call("POST", "/tokenize", {"prompt": "A café, naïve?"})).json()["tokens"]
        assert (await running.call("POST", "/detokenize", {"tokens": ids})).json() == {"prompt": "A café, naïve?"}
        assert (await running.call("POST", "/detokenize", {"tokens": [10**9]})).status == 400

    with_server(check)


def test_development_routes_are_only_there_in_development_mode() -> None:
    async def check(running: serving.Running) -> None:
        for method, path in (("POST", "/pause"), ("GET", "/is_sleeping"), ("POST", "/abort_requests")):
            assert (await running.call(method, path)).status == 404

    with_server(check)
