"""What a router tells of its requests: traces, the access log, stages, admin views; and what none of them may hold."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import access_log, heads, identity, metrics, otlp, outbox, traceparent, witness

from . import engines, scene, wire
from .engines import STREAM_HEAD, Asked, Hang, Step, chunk, frame

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Collector:
    """An OTLP collector on a port of its own; answers with one status, or never."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        if self.status:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
            await writer.drain()
        else:
            await reader.read()
        writer.close()

    @property
    def spans(self) -> list[dict[str, Any]]:
        scopes = [each["resourceSpans"][0]["scopeSpans"][0] for each in self.bodies]
        return [span for scope in scopes for span in scope["spans"]]

    def attributes(self, index: int = -1) -> dict[str, Any]:
        return {each["key"]: next(iter(each["value"].values())) for each in self.spans[index]["attributes"]}


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    made = Collector()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def flushed(router: scene.Scene) -> None:
    await router.quiet()
    for sink in router.router.sinks:
        await sink.flush()


# Trace context.

VALUES = {
    "valid": (SAMPLED, True),
    "not sampled": (UNSAMPLED, True),
    "a version to come": (f"cc-{TRACE}-{SPAN}-01-more", True),
    "more than version 00 has": (f"00-{TRACE}-{SPAN}-01-more", False),
    "version ff": (f"ff-{TRACE}-{SPAN}-01", False),
    "no trace": (f"00-{'0' * 32}-{SPAN}-01", False),
    "no span": (f"00-{TRACE}-{'0' * 16}-01", False),
    "upper case": (SAMPLED.upper(), False),
    "too short": (SAMPLED[:-1], False),
    "a text": ("please", False),
}


@pytest.mark.parametrize(("value", "valid"), VALUES.values(), ids=VALUES.keys())
def test_a_valid_trace_is_passed_on_as_it_is_and_an_invalid_one_not_at_all(value: str, *, valid: bool) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            await router.ask(traceparent=value, tracestate="a=b")
            seen = engine.asked[0].headers
            assert (seen.get("traceparent"), seen.get("tracestate")) == ((value, "a=b") if valid else (None, None))

    scene.play(scenario)


@given(value=st.binary(max_size=80))
def test_any_bytes_are_a_trace_or_none(value: bytes) -> None:
    parent = traceparent.read(value)
    assert parent is None or value.decode().startswith(("00-", "01-")) or value[2:3] == b"-"


def test_a_state_without_a_trace_is_not_passed_on() -> None:
    assert heads.forwarded({b"tracestate": b"a=b", b"openai-beta": b"x"}) == b"openai-beta: x\r\n"


def test_of_two_traces_none_is_believed() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            doubled = f"traceparent: {UNSAMPLED}\r\ntraceparent: {SAMPLED}\r\nhost:".encode()
            client.send(wire.request(wire.chat()).replace(b"host:", doubled, 1))
            assert (await client.reply()).status == 200
            assert "traceparent" not in engine.asked[0].headers

    scene.play(scenario)


def test_who_has_a_parent_does_as_the_parent_and_otherwise_the_ratio_decides() -> None:
    rng = random.Random(1)
    sampled, unsampled = (traceparent.read(each.encode()) for each in (SAMPLED, UNSAMPLED))
    followed = traceparent.follow(sampled, rng, ratio=0.0)
    assert followed is not None
    assert (followed.trace_id, followed.parent_id) == (TRACE, SPAN)
    assert followed.span_id != SPAN
    assert traceparent.follow(unsampled, rng, ratio=1.0) is None
    own = [traceparent.follow(None, rng, ratio=0.25) for _ in range(2000)]
    assert 400 < sum(each is not None for each in own) < 600


# Export.


def test_a_request_is_a_span_with_the_names_of_opentelemetry_and_engines_follow_it() -> None:
    async def scenario() -> None:
        async with (
            collecting() as collector,
            scene.engine() as engine,
            scene.router(
                scene.make_table(scene.tier("small", engine.port)), otlp_endpoint=f"http://127.0.0.1:{collector.port}"
            ) as router,
        ):
            await router.ask(wire.chat(stream=True), traceparent=SAMPLED, x_request_id="r-1")
            await flushed(router)
            (span,) = collector.spans
            assert (span["traceId"], span["parentSpanId"], span["kind"]) == (TRACE, SPAN, 2)
            assert span["name"] == "chat auto"
            assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"]) > 10**18
            # The engine's parent is the router's span.
            assert engine.asked[0].headers["traceparent"] == f"00-{TRACE}-{span['spanId']}-01"
            told = collector.attributes()
            assert told["gen_ai.operation.name"] == "chat"
            assert told["gen_ai.provider.name"] == "vllm"
            assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("auto", "small")
            assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == ("10", "4")
            assert told["gen_ai.usage.cache_read.input_tokens"] == "2"
            assert told["gen_ai.response.finish_reasons"] == {"values": [{"stringValue": "stop"}]}
            assert told["gen_ai.response.time_to_first_chunk"] > 0
            assert (told["server.address"], told["server.port"]) == ("127.0.0.1", str(engine.port))
            assert (told["trimtab.request_id"], told["trimtab.tier"], told["trimtab.result"]) == ("r-1", "small", "ok")
            # 8 new at 1e-6, 2 cached at 5e-7, 4 made at 2e-6.
            assert told["trimtab.cost.usd"] == pytest.approx(17e-6)
            assert "error.type" not in told

    scene.play(scenario)


def test_a_failed_request_is_a_span_with_an_error() -> None:
    async def scenario() -> None:
        async with (
            collecting() as collector,
            scene.router(
                scene.make_table(scene.tier("small", scene.closed_port())),
                otlp_endpoint=f"http://127.0.0.1:{collector.port}",
            ) as router,
        ):
            assert (await router.ask()).status == 502
            await flushed(router)
            assert collector.spans[0]["status"] == {"code": 2}
            assert collector.attributes()["error.type"] == "failed"
            assert collector.attributes()["http.response.status_code"] == "502"

    scene.play(scenario)


@pytest.mark.parametrize(("status", "reason"), [(503, "refused"), (-1, "unreachable")], ids=["503", "nobody listens"])
def test_what_a_collector_does_not_take_is_dropped_and_counted_and_traffic_goes_on(
    status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with collecting() as collector, scene.engine() as engine:
            collector.status = status
            port = collector.port if status > 0 else scene.closed_port()
            data = scene.make_table(scene.tier("small", engine.port))
            async with scene.router(data, otlp_endpoint=f"http://127.0.0.1:{port}") as router:
                for _ in range(3):
                    assert (await router.ask()).status == 200
                await flushed(router)
                assert await router.metric("untold_total", sink="otlp", reason=reason) == 3
                await router.ask()
                await flushed(router)
        assert caplog.text.count("the collector of traces") == 1

    caplog.set_level(logging.WARNING)
    scene.play(scenario)


def test_a_collector_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_TIMEOUT_SECONDS", 0.05)

    async def scenario() -> None:
        async with collecting() as collector, scene.engine() as engine:
            collector.status = 0
            data = scene.make_table(scene.tier("small", engine.port))
            async with scene.router(data, otlp_endpoint=f"http://127.0.0.1:{collector.port}") as router:
                await router.ask()
                await flushed(router)
                assert await router.metric("untold_total", reason="unreachable") == 1

    scene.play(scenario)


def test_an_outbox_is_bounded_and_counts_what_did_not_fit() -> None:
    registry = metrics.Registry()
    box: outbox.Outbox[int] = outbox.Outbox("otlp", 3, registry)
    for number in range(5):
        box.put(number)
    assert box.take(2) == [0, 1]
    assert box.take(9) == [2]
    assert 'trimtab_router_untold_total{sink="otlp",reason="full"} 2' in registry.exposition().decode()


URLS = {
    "a base": ("http://collector:4318", ("collector", 4318, "/v1/traces", False)),
    "a path": ("http://collector/otlp/", ("collector", 4318, "/otlp/v1/traces", False)),
    "the whole": ("https://traces.example/v1/traces", ("traces.example", 443, "/v1/traces", True)),
}


@pytest.mark.parametrize(("url", "expected"), URLS.values(), ids=URLS.keys())
def test_a_collectors_url_is_read(url: str, expected: tuple[str, int, str, bool]) -> None:
    found = otlp.collector(url)
    assert (found.host, found.port, found.path, found.secure) == expected


@pytest.mark.parametrize("url", ["collector:4318", "grpc://c:4317", "http://", "http://c:port", "http://k:s@c:4318"])
def test_what_is_no_url_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not a URL|no valid port"):
        otlp.collector(url)


# The access log.

FIELDS = {
    "time", "requestId", "policy", "class", "tier", "endpoint", "tenant", "route", "status", "result", "stream",
    "inputTokens", "cachedInputTokens", "outputTokens", "estimated", "costUsd", "ttftSeconds", "durationSeconds",
    "attempts", "cache",
}  # fmt: skip


@contextlib.contextmanager
def stderr_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the access log writes."""
    written: list[bytes] = []
    real = os.write

    def write(file: int, data: bytes) -> int:
        if file != 2:
            return real(file, data)
        written.append(data)
        return len(data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        yield written


def test_each_request_is_one_line_with_these_fields_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(scene.tier("small", engine.port))
            async with scene.router(data, access_log=True) as router:
                await router.ask(x_request_id="r-1")
                await router.ask({"model": "nobody"}, x_request_id="r-2")
                await router.ask(wire.chat(stream=True), traceparent=SAMPLED)
                await flushed(router)

    with stderr_of(monkeypatch) as written:
        scene.play(scenario)
    first, second, third = (json.loads(line) for line in b"".join(written).splitlines())
    assert set(first) == set(second) == set(third) == FIELDS
    assert (first["requestId"], first["status"], first["result"], first["endpoint"]) == ("r-1", 200, "ok", "small-0")
    assert (first["inputTokens"], first["cachedInputTokens"], first["outputTokens"]) == (10, 2, 4)
    assert first["costUsd"] == pytest.approx(17e-6)
    assert first["ttftSeconds"] is None
    assert (second["requestId"], second["status"], second["result"], second["tier"]) == ("r-2", 404, "invalid", "")
    assert third["ttftSeconds"] <= third["durationSeconds"]


def test_lines_are_written_in_pieces_that_a_pipe_does_not_tear() -> None:
    pieces: list[bytes] = []

    async def scenario() -> None:
        log = access_log.AccessLog(metrics.Registry(), pieces.append)
        for number in range(100):
            log.take(witness.Record(1_700_000_000.0, 0.5, f"r-{number}"))
        await log.flush()

    scene.play(scenario)
    assert all(piece.endswith(b"\n") and len(piece) <= 4096 for piece in pieces)
    lines = b"".join(pieces).splitlines()
    assert [json.loads(line)["requestId"] for line in lines] == [f"r-{number}" for number in range(100)]
    # It began half a second before its end.
    assert json.loads(lines[0])["time"] == "2023-11-14T22:13:19.500Z"


def test_a_log_that_nobody_can_write_to_is_counted_and_nothing_else() -> None:
    registry = metrics.Registry()

    def broken(_: bytes) -> None:
        raise BrokenPipeError

    async def scenario() -> None:
        log = access_log.AccessLog(registry, broken)
        log.take(witness.Record(0.0, 0.0, "r"))
        await log.flush()

    scene.play(scenario)
    assert 'trimtab_router_untold_total{sink="access-log",reason="unwritable"} 1' in registry.exposition().decode()


def test_a_router_that_tells_nobody_has_no_witness() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            assert router.router.witness is None
            assert router.router.sinks == []

    scene.play(scenario)


# Stages.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_is_on_this_machine_may_ask_where_the_time_went(*, stream: bool) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            reply = await router.ask(wire.chat(stream=stream), x_trimtab_debug="1")
            names = [part.partition(";")[0].strip() for part in reply.headers["server-timing"].split(",")]
            assert names == ["read", "admit", "wait", "engine", "total"]
            assert reply.headers["x-trimtab-endpoint"] == "small-0"
            assert "x-trimtab-debug" not in engine.asked[0].headers
            assert "server-timing" not in (await router.ask(wire.chat(stream=stream))).headers
            assert "server-timing" not in (await router.ask(x_trimtab_debug="0")).headers

    scene.play(scenario)


@pytest.mark.parametrize(("peers", "shown"), [(["127.0.0.0/8"], True), (["10.0.0.0/8"], False)])
def test_where_peers_are_named_only_they_may(peers: list[str], *, shown: bool) -> None:
    async def scenario() -> None:
        tenants = table.Tenants(trusted_header=True, trusted_peers=peers)
        async with scene.one_engine(tenants=tenants) as (router, _):
            reply = await router.ask(x_trimtab_debug="1")
            assert reply.status == 200
            assert ("server-timing" in reply.headers) is shown

    scene.play(scenario)


# Canaries.

CANARY = "canary-4711-tell-nobody"


def test_no_prompt_answer_or_key_reaches_logs_metrics_admin_or_traces(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    key = f"sk-{CANARY}"
    digest, further = (hashlib.sha256(each.encode()).hexdigest() for each in (key, "other"))
    files = {name: tmp_path / f"{CANARY}-{name}" for name in ("provider", "salt")}
    for path in files.values():
        path.write_text(CANARY)
    seen: list[str] = []

    def odd(asked: Asked) -> list[Step]:
        text = asked.json()["messages"][0]["content"]
        if "break" in text:
            return [STREAM_HEAD, frame(chunk({"content": CANARY})), b"nonsense " + CANARY.encode(), Hang]
        if "error" in text:
            return [engines.whole({"error": {"message": CANARY}}, status=500)]
        return engines.stream() if asked.json().get("stream") else [engines.whole(engines.answer(CANARY))]

    async def scenario() -> None:
        async with collecting() as collector, scene.engine(odd) as engine:
            provider = table.External(f"http://user:{CANARY}@127.0.0.1:{engine.port}", str(files["provider"]))
            data = scene.make_table(
                scene.tier("small", engine.port),
                scene.tier("other", external=provider, endpoints=[]),
                tenants=table.Tenants(
                    required=True,
                    known=[table.Tenant("a", digest, [further])],
                    isolate=True,
                    salt_file=str(files["salt"]),
                    default_limits=table.Limits(requests_per_minute=1000),
                ),
            )
            options = {"access_log": True, "otlp_endpoint": f"http://127.0.0.1:{collector.port}"}
            async with scene.router(data, **options) as router:
                for text in ("hello", "error", "break"):
                    for stream in (False, True):
                        secret = {"authorization": f"Bearer {key}", "cookie": CANARY, "x_api_key": CANARY}
                        body = wire.chat(f"{CANARY} {text}", stream=stream, user=CANARY)
                        await router.ask(body, x_trimtab_session=CANARY, tracestate=f"a={CANARY}", **secret)
                await router.ask(wire.chat(CANARY), authorization=f"Bearer {CANARY}-wrong")
                await router.ask(b'{"model": "' + CANARY.encode() + b'"', authorization=f"Bearer {key}")
                await flushed(router)
                views = ("table", "endpoints", "requests", "breakers", "waiting", "budgets")
                for path in ("/metrics", *(f"/admin/{view}" for view in views)):
                    reply = await router.get(path, admin=True)
                    assert reply.status == 200, path
                    seen.append(reply.body.decode())
                assert len(collector.spans) >= 6
                seen.append(json.dumps(collector.bodies))
        shown = "".join(seen)
        assert digest not in shown
        assert further not in shown

    caplog.set_level(logging.DEBUG)
    with stderr_of(monkeypatch) as written:
        scene.play(scenario)
    seen += [b"".join(written).decode(), caplog.text]
    assert len(b"".join(written).splitlines()) == 8
    assert CANARY not in "".join(seen)


# Who may see.


class Transport(asyncio.BaseTransport):
    def __init__(self, peer: object) -> None:
        self.peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default


PEERS = {
    "this machine": (("127.0.0.1", 1), True),
    "this machine, by IPv6": (("::1", 1, 0, 0), True),
    "this machine, mapped": (("::ffff:127.0.0.1", 1, 0, 0), True),
    "another pod": (("10.1.2.3", 1), False),
    "a name": (("localhost.example", 1), False),
    "nothing": (None, False),
}


@pytest.mark.parametrize(("peer", "local"), PEERS.values(), ids=PEERS.keys())
def test_views_and_stages_are_for_callers_on_this_machine(peer: object, *, local: bool) -> None:
    assert identity.is_local(Transport(peer)) is local


def test_views_answer_404_to_callers_from_elsewhere_and_metrics_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "is_local", lambda _: False)

    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            reply = await router.get("/admin/table", admin=True)
            assert (reply.status, "port-forward" in reply.error["message"]) == (404, True)
            for path in ("/metrics", "/healthz", "/readyz"):
                assert (await router.get(path, admin=True)).status == 200

    scene.play(scenario)


def test_the_views_tell_what_the_router_knows() -> None:
    async def scenario() -> None:
        limits = table.Limits(tokens_per_day=100_000)
        tenants = table.Tenants(trusted_header=True, known=[table.Tenant("a", limits=limits)])
        dead = scene.closed_port()
        async with scene.engine() as engine:
            data = scene.two_tiers(dead, engine.port, tenants=tenants)
            async with scene.router(data) as router:
                assert (await router.ask(x_trimtab_tenant="a")).status == 200
                await router.quiet()
                views = {
                    name: (await router.get(f"/admin/{name}", admin=True)).json()
                    for name in ("breakers", "waiting", "budgets", "endpoints")
                }
        states = {each["name"]: each["state"] for each in views["breakers"]["breakers"]}
        assert states == {"small-0": "open", "large-0": "closed"}
        opened = {each["name"]: each["openForSeconds"] > 0 for each in views["breakers"]["breakers"]}
        assert opened == {"small-0": True, "large-0": False}
        assert views["waiting"]["rooms"][0] == {"tier": "small", "requests": 0, "bytes": 0, "awake": False}
        # 14 tokens of 100,000, to four places.
        assert views["budgets"]["tenants"] == [{"tenant": "a", "used": {"tokens-per-day": 0.0001}}]
        assert [each["name"] for each in views["endpoints"]["tiers"]] == ["small", "large"]
        assert views["endpoints"]["tiers"][0]["firstByteSeconds"] == {"p50": None, "p95": None}

    scene.play(scenario)
