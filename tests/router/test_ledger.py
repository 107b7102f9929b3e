"""The ledger: every request once, at the right price, judged at the exact threshold; and its exposition."""

from __future__ import annotations

import asyncio
import gc
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import telemetry
from trimtab_core.routing import table
from trimtab_router import ledger, metrics

from . import scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, USAGE, Asked, Step, chunk, frame, stream

SLO = table.Slo(ttft_seconds=0.5, itl_seconds=0.1, e2e_seconds=2.0)


def entry(meter: ledger.Meter, result: str = ledger.OK, **fields: float) -> ledger.Entry:
    return ledger.Entry(
        meter=meter, result=result, tenant="", slo=SLO, e2e_seconds=fields.pop("e2e_seconds", 1.0), **fields
    )  # type: ignore[arg-type]


def counted(*entries: tuple[str, dict[str, float]]) -> tuple[metrics.Registry, str]:
    registry = metrics.Registry()
    meter = ledger.Meter(registry, "p", "c", "t")
    book = ledger.Ledger()
    for result, fields in entries:
        book.settle(entry(meter, result, **fields))
    book.flush()
    return registry, registry.exposition().decode()


@pytest.mark.parametrize(
    ("promise", "field", "limit"),
    [("ttft", "ttft_seconds", 0.5), ("itl", "itl_seconds", 0.1), ("e2e", "e2e_seconds", 2.0)],
)
def test_a_promise_is_met_at_its_exact_threshold_and_not_a_hair_beyond(promise: str, field: str, limit: float) -> None:
    _, text = counted((ledger.OK, {field: limit}), (ledger.OK, {field: limit + 1e-9}))
    labels = f'{{policy="p",class="c",tier="t",slo="{promise}"}}'
    assert f"trimtab_router_slo_measured_total{labels} 2\n" in text
    met = 2 if promise == "e2e" and limit != 2.0 else 1
    assert f"trimtab_router_slo_met_total{labels} {met}\n" in text


@pytest.mark.parametrize(
    ("result", "measured"), [("failed", 1), ("rejected", 1), ("cancelled", 0), ("client_error", 0)]
)
def test_a_failure_of_ours_misses_its_promises_and_one_of_the_clients_is_not_judged(result: str, measured: int) -> None:
    _, text = counted((result, {}))
    assert ('slo="e2e"} 1' in text) is bool(measured)
    if measured:
        assert 'slo_met_total{policy="p",class="c",tier="t",slo="e2e"} 0\n' in text


def test_the_exposition_is_what_prometheus_reads() -> None:
    _registry, text = counted(
        (ledger.OK, {"ttft_seconds": 0.3, "input_tokens": 7, "output_tokens": 3, "cost_usd": 0.25})
    )
    families = {family.name for family in telemetry.ROUTER_FAMILIES}
    assert set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) == families
    line = re.compile(r'^[a-z0-9_:]+(\{([a-z_]+="[^"\\]*",?)*\})? (-?[0-9.e+-]+|\+Inf)$')
    for each in text.splitlines():
        assert each.startswith("# ") or line.match(each), each
    buckets = [
        int(each.rpartition(" ")[2])
        for each in text.splitlines()
        if each.startswith("trimtab_router_ttft_seconds_bucket")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1
    # 0.3 is a bucket's upper bound, which belongs to the bucket.
    assert 'le="0.3"} 1\n' in text
    assert 'le="0.2"} 0\n' in text


def test_label_values_are_escaped() -> None:
    registry = metrics.Registry()
    registry.counter(telemetry.ARRIVALS, 'a"b\\c\nd', "x").add(1)
    assert 'policy="a\\"b\\\\c\\nd"' in registry.exposition().decode()


@given(st.lists(st.floats(0, 200), max_size=30))
def test_a_histogram_counts_every_value_once(values: list[float]) -> None:
    registry = metrics.Registry()
    histogram = registry.histogram(telemetry.TTFT, "p", "c", "t")
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
    for index, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)


def test_costs_add_up_to_the_cent_over_answers_streams_failures_and_cancelled_ones() -> None:
    def script(asked: Asked) -> list[Step]:
        kind = asked.json()["messages"][0]["content"]
        if kind == "broken":
            return [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.02, frame(chunk({}, "abort") + DONE), LAST]
        return stream() if asked.json().get("stream") else [scene.engines.whole(scene.engines.answer())]

    async def scenario() -> None:
        async with scene.one_engine(script) as (router, _):
            shown = 0.0
            for number in range(12):
                body = wire.chat(
                    stream=bool(number % 2), **({"stream_options": {"include_usage": True}} if number % 2 else {})
                )
                reply = await router.ask(body)
                if number % 2:
                    shown += json.loads(reply.events[-2])["usage"]["cost_usd"]
                else:
                    shown += float(reply.headers["x-trimtab-cost-usd"])
            assert shown == pytest.approx(12 * 1.7e-5)
            assert await router.metric("cost_usd_total") == pytest.approx(shown)
            await router.ask(wire.chat("broken", stream=True))
            # Its one piece is paid for, as estimated: the engine did make it.
            body = len(json.dumps(wire.chat("broken", stream=True)))
            estimate = body // 4 * 1e-6 + 1 * 2e-6
            assert await router.metric("cost_usd_total") == pytest.approx(shown + estimate)
            assert await router.metric("requests_total") == 13
            assert await router.metric("arrivals_total") == 13
            # One after the other at least, all within one window at most.
            assert 13 <= await router.metric("arrival_squares_total") <= 13**2

    scene.play(scenario)


def test_every_arrival_is_settled_once_whatever_happens_to_it() -> None:
    def script(asked: Asked) -> list[Step]:
        number = int(asked.json()["messages"][0]["content"])
        good: list[Step] = [0.01, *stream()]
        cut: list[Step] = [STREAM_HEAD, frame(ROLE), frame(chunk({"content": "x"})), 0.01, scene.engines.Close]
        return [
            good,
            cut,
            [scene.engines.Close],
            [STREAM_HEAD, frame(ROLE + chunk({"content": "x"})), scene.engines.Hang],
        ][number % 4]

    async def one(router: scene.Scene, number: int) -> None:
        async with await wire.Client.open(router.port) as client:
            client.send(wire.request(wire.chat(str(number), stream=True)))
            if number % 4 == 3:
                await client.reader.readuntil(b'"x"')
            else:
                await client.reply()

    async def scenario() -> None:
        calm = table.Resilience(max_fallbacks=1, eject_after=1000)
        async with scene.one_engine(script, resilience=calm) as (router, _):
            await asyncio.gather(*(one(router, number) for number in range(80)))
            await router.quiet()
            results = {
                name: await router.metric("requests_total", result=name) for name in ("ok", "failed", "cancelled")
            }
            assert results == {"ok": 20, "failed": 40, "cancelled": 20}
            assert await router.metric("arrivals_total") == 80
            assert await router.metric("in_flight") == 0

    scene.play(scenario)


def test_latencies_of_a_stream_are_measured_where_they_happen() -> None:
    steps: list[Step] = [0.1, STREAM_HEAD, frame(ROLE), 0.1]
    for word in "abcd":
        steps += [frame(chunk({"content": word})), 0.05]
    usage = {**USAGE, "completion_tokens": 4}
    steps += [frame(chunk({}, "stop") + chunk(usage=usage) + DONE), LAST]

    async def scenario() -> None:
        async with scene.one_engine(lambda _: steps) as (router, _):
            await router.ask(wire.chat(stream=True))
            # The role at 0.1 s is no content; the first word comes at 0.2 s.
            assert 0.2 <= await router.metric("ttft_seconds_sum") < 0.4
            # From the first word to the end 0.2 s, over three gaps between four tokens.
            assert 0.2 / 3 * 0.9 <= await router.metric("itl_seconds_sum") < 0.2
            assert 0.4 <= await router.metric("e2e_seconds_sum") < 0.8

    scene.play(scenario)


def test_a_request_is_judged_by_what_its_class_and_its_tier_promise_together() -> None:
    steps: list[Step] = [0.1, STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.1]
    steps += [
        frame(chunk({"content": "b"}) + chunk({}, "stop") + chunk(usage={**USAGE, "completion_tokens": 2}) + DONE)
    ]

    async def scenario() -> None:
        async with scene.engine(lambda _: [*steps, LAST]) as engine:
            # First token after 0.1 s: the class's 60 s hold, the tier's 0.05 s don't. 0.1 s between two tokens: only
            # the tier promises, 60 s. The end after 0.2 s: the class's 0.15 s don't hold, the tier's 60 s would.
            tier = scene.tier(
                "small", engine.port, slo=table.Slo(ttft_seconds=0.05, itl_seconds=60.0, e2e_seconds=60.0)
            )
            own = scene.class_(slo=table.Slo(ttft_seconds=60.0, e2e_seconds=0.15))
            async with scene.router(scene.make_table(tier, classes=(own,))) as router:
                await router.ask(wire.chat(stream=True))
                for promise, met in (("ttft", 0), ("itl", 1), ("e2e", 0)):
                    assert await router.metric("slo_measured_total", slo=promise) == 1
                    assert await router.metric("slo_met_total", slo=promise) == met

    scene.play(scenario)


def test_an_ended_request_leaves_nothing_for_the_garbage_collector() -> None:
    kinds: list[str] = []

    async def scenario() -> None:
        async with scene.one_engine() as (router, _), await wire.Client.open(router.port) as client:
            for stream_ in (False, True):
                client.send(wire.request(wire.chat(stream=stream_)))
                await client.reply()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            for number in range(10):
                client.send(wire.request(wire.chat(stream=bool(number % 2))))
                await client.reply()
            gc.collect()
            kinds.extend(type(each).__name__ for each in gc.garbage)

    try:
        scene.play(scenario)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not {"Exchange", "Attempt", "Request", "ChoiceRelay", "WholeRelay"} & set(kinds)
