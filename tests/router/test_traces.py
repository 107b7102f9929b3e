"""Traces: what is believed of a client's, what is passed on, and what is told to a collector."""

from __future__ import annotations

import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_router import heads, metrics, otlp, outbox, traceparent

from . import scene, wire
from .collectors import SAMPLED, SPAN, TRACE, UNSAMPLED, collecting, flushed

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
