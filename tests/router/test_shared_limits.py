"""Limits of tenants that several routers share through a store, and what holds while it is down."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_router import accounts, quotas, shared_accounts

from . import engines, scene, stores, wire
from .callers import KEY, ask, tenants


def redis(port: int, **fields: Any) -> table.Store:
    return table.Store("Redis", f"127.0.0.1:{port}", timeout_seconds=0.5, **fields)


@stores.needs_redis
def test_two_routers_share_one_limit() -> None:
    async def scenario() -> None:
        with stores.redis() as port:
            async with scene.engine() as engine:
                limited = tenants(requests_per_minute=3, usd_per_month=1.0, store=redis(port))
                data = scene.make_table(scene.tier("small", engine.port), tenants=limited)
                async with scene.router(data) as one, scene.router(data) as other:
                    answers = [(await ask(each)).status for each in (one, other, one, other, one)]
                    assert answers == [200, 200, 200, 429, 429]
                    assert len(engine.asked) == 3
                async with scene.router(data) as third:
                    assert (await ask(third)).status == 429, "what ended was booked, and outlives its router"

    scene.play(scenario)


async def booked(port: int, router: scene.Scene) -> float:
    """What the store has of the first limit of the tenant."""
    current = router.router.tables.current
    assert current is not None
    assert current.callers is not None
    rules = current.callers._by_name["acme"].rules
    there = shared_accounts.SharedAccounts(redis(port), "ns/chat", clock=time.monotonic, wall_clock=time.time)
    windows = tuple(rule.window(there.now())[0] for rule in rules)
    probe = accounts.Held(f"probe-{time.monotonic_ns()}", "acme", rules, windows, quotas.Need(requests=0), 0.0)
    used = (await there.reserve(probe, 1.0)).standings[0].used
    await there.close(1.0)
    return used


@stores.needs_redis
def test_the_store_has_the_truth_of_what_was_reserved_there() -> None:
    async def scenario() -> None:
        with stores.redis() as port:
            async with scene.one_engine(tenants=tenants(usd_per_month=0.001, store=redis(port))) as (router, engine):
                for _ in range(8):
                    assert (await ask(router)).status == 200, "only the truth of those before is in the way"
                async with asyncio.timeout(10):
                    while await booked(port, router) != 8 * 17_000:
                        await asyncio.sleep(0.05)
                assert len(engine.asked) == 8
                assert 7 * 0.017 <= await router.metric("limit_used_ratio", reason="usd-per-month") < 1

    scene.play(scenario)


@stores.needs_redis
def test_whatever_happens_to_requests_the_store_and_the_ledgers_agree_and_the_budget_holds() -> None:
    """Two routers, engines that fail in every way, clients that leave: to the billionth."""
    rng, limit = random.Random(5), 0.004

    def moody(asked: engines.Asked) -> list[engines.Step]:
        mood = rng.randrange(6)
        if mood == 0:
            return [engines.whole({"error": "x"}, 500)]
        if mood == 1:
            return [engines.Reset]
        if not asked.json().get("stream"):
            return [0.01, engines.whole(engines.answer())]
        if mood == 2:
            return [engines.STREAM_HEAD, *map(engines.frame, engines.pieces()[:2]), 0.01, engines.Close]
        if mood == 3:
            return [engines.STREAM_HEAD, *map(engines.frame, engines.pieces()[:3]), engines.Hang]
        return engines.stream()

    async def client(router: scene.Scene, number: int) -> None:
        await asyncio.sleep(number % 10 * 0.02)
        async with await wire.Client.open(router.port) as made:
            body = wire.chat(stream=number % 3 > 0, max_tokens=20 + number)
            made.send(wire.request(body, authorization=f"Bearer {KEY}"))
            with contextlib.suppress(TimeoutError):
                await made.reply(0.3)

    async def scenario() -> None:
        with stores.redis() as port:
            rules = table.Resilience(eject_after=100, max_fallbacks=0, idle_timeout=5.0, first_byte_timeout=5.0)
            async with scene.engine(moody) as engine:
                limited = tenants(usd_per_month=limit, tokens_per_minute=10**6, store=redis(port))
                data = scene.make_table(scene.tier("small", engine.port), tenants=limited, resilience=rules)
                async with scene.router(data) as one, scene.router(data) as other:
                    await asyncio.gather(*(client((one, other)[number % 2], number) for number in range(100)))
                    spent, results = 0, set()
                    for each in (one, other):
                        await each.quiet()
                        for entry in (await each.get("/admin/requests", admin=True)).json()["requests"]:
                            spent += math.ceil(entry["costUsd"] * quotas.NANO - 1e-6)
                            results.add(entry["result"])
                    async with asyncio.timeout(10):
                        while await booked(port, one) != spent:
                            await asyncio.sleep(0.1)
                    assert results >= {"ok", "failed", "cancelled", "limited"}
                    assert 0 < spent <= limit * quotas.NANO

    scene.play(scenario)


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [("Allow", [200, 200, 200, 200]), ("Deny", [503, 503, 503, 503]), ("Local", [200, 200, 429, 429])],
)
def test_while_the_store_is_down_the_declared_choice_holds(on_failure: str, expected: list[int]) -> None:
    """Local: this router's part of four requests, as one of two."""

    async def scenario() -> None:
        store = redis(scene.closed_port(), on_failure=on_failure, routers=2)
        async with scene.one_engine(tenants=tenants(requests_per_minute=4, store=store)) as (router, _):
            replies = [await ask(router) for _ in expected]
            assert [each.status for each in replies] == expected
            if on_failure == "Deny":
                assert replies[0].headers["retry-after"] == "1"
            assert await router.metric("limit_store_down_total", reason=on_failure) == 4
            assert (await router.ask()).status == 200, "who is not limited needs no store"

    scene.play(scenario)


@stores.needs_redis
def test_what_was_given_out_without_the_store_is_booked_when_it_is_back() -> None:
    async def scenario() -> None:
        port = scene.closed_port()
        limited = tenants(usd_per_month=0.0002, store=redis(port, on_failure="Local", routers=1))
        async with scene.one_engine(tenants=limited) as (router, engine):
            assert (await ask(router)).status == 200
            with stores.redis(port):
                async with asyncio.timeout(20):
                    while await router.metric("limit_store_waiting"):
                        await asyncio.sleep(0.1)
                assert await booked(port, router) == 17_000
                while (await ask(router)).status == 200:
                    pass
                assert 1 < len(engine.asked) * 17_000 <= 0.0002 * quotas.NANO

    scene.play(scenario)


def test_a_client_that_leaves_while_the_store_is_asked_takes_nothing() -> None:
    async def scenario() -> None:
        server = await stores.deaf()
        store = redis(server.sockets[0].getsockname()[1], on_failure="Local")
        async with scene.one_engine(tenants=tenants(concurrent_requests=1, store=store)) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(), authorization=f"Bearer {KEY}"))
                await asyncio.sleep(0.1)
            await router.quiet()
            await asyncio.sleep(0.6)
            assert engine.asked == []
            assert (await ask(router)).status == 200
        server.close()
        await asyncio.sleep(0.05)

    scene.play(scenario)
