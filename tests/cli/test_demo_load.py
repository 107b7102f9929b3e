"""The demo's load client: what it reads from streams, when it sends, and what it writes of every end."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from trimtab_cli.demonstration import load, load_client, outcomes
from trimtab_sim.workload import Request, Trace


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def content(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
USAGE = event(choices=[], model="m", usage={"prompt_tokens": 7, "completion_tokens": 3})
DONE = b"data: [DONE]\n\n"
WHOLE = (ROLE, content("a"), content("b"), content("c", "length"), USAGE, DONE)


def read(*parts: bytes) -> load_client.Stream:
    """A stream whose parts come at 1, 2, 3 … seconds."""
    stream = load_client.Stream()
    for at, part in enumerate(parts, 1):
        stream.feed(part, float(at))
    return stream


# Streams ---------------------------------------------------------------------------------------------------------


def test_the_first_content_is_what_counts_and_not_the_role() -> None:
    stream = read(*WHOLE)
    assert (stream.first_at, stream.last_at) == (2.0, 4.0)
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens, stream.model) == (7, 3, "m")
    assert stream.failure() == ""


@pytest.mark.parametrize("size", [1, 7, 64])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    whole = b"".join(WHOLE)
    stream = read(*(whole[at : at + size] for at in range(0, len(whole), size)))
    assert stream.failure() == ""
    assert stream.usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("parts", "failure"),
    [
        pytest.param((content("a"),), "ended before", id="cut off"),
        pytest.param((content("a"), DONE), "ended before", id="DONE without a finish reason"),
        pytest.param((content("a", "length"),), "ended before", id="a finish reason without DONE"),
        pytest.param((content("a", "abort"), DONE), "aborted", id="aborted by the engine"),
        pytest.param(
            (content("a", "length"), event(error={"message": "engine died"}), DONE), "engine died", id="error event"
        ),
        pytest.param((b"data: {oops\n\n", DONE), "bad event", id="bad JSON"),
        pytest.param((), "ended before", id="nothing"),
    ],
)
def test_an_incomplete_answer_is_a_failure(parts: tuple[bytes, ...], failure: str) -> None:
    assert failure in read(*parts).failure()


# The client ------------------------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def answer_slowly(request: web.Request) -> web.StreamResponse:
    """Three tokens: the first after 0.2 s, the others 0.1 s apart."""
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream", "X-Trimtab-Tier": "small", "X-Trimtab-Class": "simple"}
    )
    await response.prepare(request)
    for pause, part in zip((0.0, 0.2, 0.1, 0.1, 0.0, 0.0), WHOLE, strict=True):
        await asyncio.sleep(pause)
        await response.write(part)
    return response


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no tier"}}, status=503)


def send(handler: Handler, at: list[float], *, lead: float = 0.0, give_up: float = 5.0) -> list[outcomes.Line]:
    """Send requests at these seconds to a server of one handler; what the client wrote. It starts ``lead`` seconds late."""

    async def story() -> bytes:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        results = io.BytesIO()
        client = load_client.Client(f"http://127.0.0.1:{runner.addresses[0][1]}", time.time() - lead, results)
        shots = [outcomes.Shot(index, seconds, "{}") for index, seconds in enumerate(at)]
        try:
            await client.run(shots, give_up)
        finally:
            await runner.cleanup()
        return results.getvalue()

    return [outcomes.line_decoder.decode(line) for line in asyncio.run(story()).splitlines()]


def ends(lines: list[outcomes.Line]) -> list[outcomes.Outcome]:
    return [line.outcome for line in lines if line.outcome is not None]


def test_latencies_are_those_of_the_answer() -> None:
    lines = send(answer_slowly, [0.1])
    (end,) = ends(lines)
    assert (end.status, end.error, end.tier, end.request_class) == (200, "", "small", "simple")
    assert (end.input_tokens, end.output_tokens) == (7, 3)
    assert end.ttft is not None
    assert end.itl is not None
    assert 0.2 <= end.ttft < end.e2e
    assert end.itl >= 0.095  # 0.2 s between the first and the last of three tokens
    assert end.e2e >= 0.4


def test_requests_do_not_wait_for_one_another() -> None:
    began = time.monotonic()
    assert len(ends(send(answer_slowly, [0.0] * 20))) == 20
    assert time.monotonic() - began < 4  # one after the other they would take 8 s


def test_time_lost_in_the_client_counts() -> None:
    (end,) = ends(send(answer_slowly, [0.0], lead=1.0))
    assert end.late >= 1.0
    assert end.ttft is not None
    assert end.ttft >= 1.2
    assert end.e2e >= 1.4


def test_an_answer_that_never_ends_is_given_up_and_written_down() -> None:
    (end,) = ends(send(hang, [0.0], give_up=0.3))
    assert end.error == "no end in time"
    assert end.ttft is None


def test_a_refusal_is_kept_with_its_status() -> None:
    (end,) = ends(send(refuse, [0.0]))
    assert end.status == 503
    assert "no tier" in end.error


def test_a_server_that_is_not_there_is_a_failure_and_not_an_end() -> None:
    async def story() -> bytes:
        results = io.BytesIO()
        await load_client.Client("http://127.0.0.1:1", time.time(), results).run([outcomes.Shot(0, 0.0, "{}")], 5)
        return results.getvalue()

    first = outcomes.line_decoder.decode(asyncio.run(story()).splitlines()[0])
    assert first.outcome is not None
    assert (first.outcome.status, bool(first.outcome.error)) == (0, True)


def test_the_last_line_says_how_well_the_client_kept_up() -> None:
    health = send(refuse, [0.0, 0.05, 0.1])[-1].health
    assert health is not None
    assert health.sent == 3
    assert 0 <= health.late_p99 <= health.late_max < 1


# The plan --------------------------------------------------------------------------------------------------------


def trace(*arrivals: float) -> Trace:
    requests = tuple(Request(at, second, 40, 5 + at, prompt=at) for at, second in enumerate(arrivals))
    return Trace(requests, "test")


def test_a_shot_asks_for_exactly_the_traces_tokens() -> None:
    (shot,) = load.shots(trace(1.5), model="auto", seed=0)
    body = json.loads(shot.body)
    assert (shot.index, shot.at_seconds) == (0, 1.5)
    assert (body["model"], body["max_tokens"], body["ignore_eos"], body["stream"]) == ("auto", 5, True, True)
    assert body["stream_options"] == {"include_usage": True}


def test_the_run_in_is_the_beginning_once_more_with_other_texts() -> None:
    shots = list(load.shots(trace(0.0, 4.0, 12.0), model="auto", seed=0, run_in_seconds=10.0))
    assert [(shot.index, shot.at_seconds) for shot in shots] == [(-2, -10.0), (-1, -6.0), (0, 0.0), (1, 4.0), (2, 12.0)]
    texts = [json.loads(shot.body)["messages"] for shot in shots]
    assert texts[0] != texts[2]


def test_equal_seeds_give_equal_plans(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        assert load.write_plan(tmp_path / name, load.shots(trace(0.0, 1.0), model="auto", seed=7)) == 2
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_news_are_whole_lines_and_come_once(tmp_path: pathlib.Path) -> None:
    results = tmp_path / "results.jsonl"
    lines = [
        outcomes.encoder.encode(outcomes.Line(outcome=outcomes.Outcome(index, 0.0, 0.0))) + b"\n" for index in range(3)
    ]
    client = load.Client(process=None, results=results)  # type: ignore[arg-type]
    results.write_bytes(lines[0] + lines[1][:10])
    assert [one.index for one in client.news()] == [0]
    assert client.news() == []
    results.write_bytes(
        b"".join(lines) + outcomes.encoder.encode(outcomes.Line(health=outcomes.Health(3, 0, 0, 0, 0))) + b"\n"
    )
    assert [one.index for one in client.news()] == [1, 2]
    assert client.health is not None
