"""External tiers: keys that change, names of models, prices, and limits that are kept to on both sides."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import external

from . import engines, scene, wire


def provider(port: int, **fields: Any) -> table.External:
    return table.External(f"http://127.0.0.1:{port}", **fields)


def frontier(port: int, **fields: Any) -> table.Tier:
    rates = fields.pop("rates", scene.LARGE_RATES)
    return scene.tier("frontier", model="gpt-x", quality=0.95, rates=rates, external=provider(port, **fields))


def test_a_key_that_changes_is_used_at_once_and_one_that_goes_missing_is_kept(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        key = tmp_path / "key"
        key.write_text("sk-canary-1\n")
        async with (
            scene.engine() as engine,
            scene.router(scene.make_table(frontier(engine.port, api_key_file=str(key)))) as router,
        ):
            await router.ask()
            key.write_text("sk-canary-22")
            router.router.directory.reread_keys()
            await router.ask()
            key.write_text("two\nlines")
            router.router.directory.reread_keys()
            router.router.directory.reread_keys()
            key.unlink()
            router.router.directory.reread_keys()
            await router.ask()
            sent = [each.headers["authorization"] for each in engine.asked]
            assert sent == ["Bearer sk-canary-1", "Bearer sk-canary-22", "Bearer sk-canary-22"]
            assert caplog.text.count("can't be read") == 1
            assert "canary" not in caplog.text
            shown = await router.get("/admin/table", admin=True)
            assert b"canary" not in shown.body
            assert str(key).encode() not in shown.body

    caplog.set_level(logging.DEBUG)
    scene.play(scenario)


def test_each_name_of_a_model_is_what_the_provider_calls_it() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tier = frontier(engine.port, models={"coder": "gpt-x-code"})
            async with scene.router(scene.make_table(tier, models=["auto", "coder"])) as router:
                for model in ("auto", "coder"):
                    await router.ask({**wire.chat(), "model": model})
                assert [each.json()["model"] for each in engine.asked] == ["gpt-x", "gpt-x-code"]

    scene.play(scenario)


def test_a_salt_stays_at_home() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tenants = table.Tenants(trusted_header=True, isolate=True)
            async with scene.router(scene.make_table(frontier(engine.port), tenants=tenants)) as router:
                assert (await router.ask(x_trimtab_tenant="acme")).status == 200
                assert "cache_salt" not in engine.asked[0].json()

    scene.play(scenario)


@pytest.mark.parametrize(("priority", "share", "service_tier"), [("batch", 0.5, "flex"), ("high", 1.0, None)])
def test_batch_requests_go_out_in_the_batch_tier_and_are_billed_so(
    priority: str, share: float, service_tier: str | None
) -> None:
    """10 input tokens of which 2 cached and 4 output: 8·1e-5 + 2·5e-6 + 4·2e-5 = 0.00017 USD."""

    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(frontier(engine.port, batch_discount=0.5))
            async with scene.router(data) as router:
                reply = await router.ask(x_trimtab_priority=priority)
                assert float(reply.headers["x-trimtab-cost-usd"]) == pytest.approx(share * 0.00017)
                assert engine.asked[0].json().get("service_tier") == service_tier
                streamed = await router.ask(
                    wire.chat(stream=True, stream_options={"include_usage": True}), x_trimtab_priority=priority
                )
                assert f'"cost_usd":{share * 0.00017:.10g}' in streamed.body.decode()

    scene.play(scenario)


def test_a_provider_that_has_had_enough_rests_and_others_serve() -> None:
    def enough(asked: engines.Asked) -> list[engines.Step]:
        return [engines.whole({"error": {"message": "slow down"}}, 429, retry_after="20")]

    async def scenario() -> None:
        async with scene.engine(enough) as busy, scene.engine() as own:
            both = scene.class_(allow=("small", "frontier"), weights={"frontier": 1.0})
            data = scene.make_table(scene.tier("small", own.port), frontier(busy.port), classes=(both,))
            async with scene.router(data) as router:
                replies = [await router.ask() for _ in range(4)]
                assert [each.headers["x-trimtab-tier"] for each in replies] == ["small"] * 4
                assert len(busy.asked) == 1
                assert await router.metric("ejections_total") == 0

    scene.play(scenario)


def test_what_a_provider_says_is_left_is_kept_to_before_it_refuses() -> None:
    def last(asked: engines.Asked) -> list[engines.Step]:
        told = {
            "x_ratelimit_limit_requests": "10",
            "x_ratelimit_remaining_requests": "0",
            "x_ratelimit_reset_requests": "5m0s",
        }
        return [engines.whole(engines.answer(), **told)]

    async def scenario() -> None:
        async with scene.engine(last) as engine, scene.engine() as own:
            both = scene.class_(allow=("small", "frontier"), weights={"frontier": 1.0})
            data = scene.make_table(scene.tier("small", own.port), frontier(engine.port), classes=(both,))
            async with scene.router(data) as router:
                tiers = [(await router.ask()).headers["x-trimtab-tier"] for _ in range(3)]
                assert tiers == ["frontier", "small", "small"]

    scene.play(scenario)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"max_requests_per_second": 2.0}, 2), ({"max_tokens_per_minute": 20.0}, 2)],
    ids=["requests in a second", "tokens in a minute, 14 a request"],
)
def test_our_own_limits_are_kept_to(limits: dict[str, float], expected: int) -> None:
    async def scenario() -> None:
        async with scene.engine() as engine, scene.engine() as own:
            both = scene.class_(allow=("small", "frontier"), weights={"frontier": 1.0})
            data = scene.make_table(scene.tier("small", own.port), frontier(engine.port, **limits), classes=(both,))
            async with scene.router(data) as router:
                for _ in range(5):
                    assert (await router.ask()).status == 200
                assert len(engine.asked) == expected

    scene.play(scenario)


def told(limit: int, left: int, reset: str) -> dict[bytes, bytes]:
    values = {"limit": str(limit), "remaining": str(left), "reset": reset}
    return {f"x-ratelimit-{name}-requests".encode(): value.encode() for name, value in values.items()}


def test_our_pace_falls_to_the_providers_where_little_is_left_and_rises_again() -> None:
    made = external.Provider(table.External("http://a", max_requests_per_second=10.0), b"")
    assert made.told(told(60, 50, "10s"), 0.0) == 0.0
    assert [made.sent(0.0) for _ in range(11)][-1] == pytest.approx(0.2)
    made.told(told(60, 20, "40s"), 100.0)
    assert [made.sent(100.0) for _ in range(11)][-1] == pytest.approx(102.0), "40 come back in 40 s: 1 a second"
    made.told(told(60, 59, "1s"), 200.0)
    assert [made.sent(200.0) for _ in range(11)][-1] == pytest.approx(200.2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"6m0s", 360.0), (b"1h2m3s", 3723.0), (b"20ms", 0.02), (b"1.5s", 1.5), (b"17", 17.0), (b"", 0.0),
        (b"soon", 0.0), (b"1.2.3s", 0.0), (b"5x", 0.0),
    ],
)  # fmt: skip
def test_times_of_providers_are_read(text: bytes, seconds: float) -> None:
    assert external.span_seconds(text) == pytest.approx(seconds)


@given(text=st.binary(max_size=40))
def test_no_header_of_a_provider_breaks_anything(text: bytes) -> None:
    assert external.span_seconds(text) >= 0
    made = external.Provider(table.External("http://a"), b"")
    names = [
        f"x-ratelimit-{name}-{kind}".encode()
        for name in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ]
    assert 5.0 <= made.told(dict.fromkeys(names, text), 5.0) <= 305.0


@given(rate=st.floats(0.1, 50), steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), min_size=1, max_size=40))
def test_no_window_sends_more_than_a_burst_and_the_rate(rate: float, steps: list[tuple[float, int]]) -> None:
    """Whoever waits as long as it is told to sends at most size + rate · time, and one."""
    bucket = external.Bucket()
    bucket.resize(rate, max(1.0, rate))
    now, sent, start = 0.0, 0, 0.0
    for wait, count in steps:
        now += wait
        for _ in range(count):
            now = max(now, bucket.free_at(1.0, now))
            bucket.take(1.0, now)
            sent += 1
            assert sent <= max(1.0, rate) + rate * (now - start) + 1e-6 * sent
