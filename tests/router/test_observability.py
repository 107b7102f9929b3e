"""What a router tells of its requests: the access log, stages, admin views; and what none of them may hold."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_router import access_log, identity, metrics, witness

from . import engines, scene, wire
from .collectors import SAMPLED, collecting, flushed
from .engines import STREAM_HEAD, Asked, Hang, Step, chunk, frame

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
