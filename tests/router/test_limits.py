"""Limits of tenants through a running router: what is refused, what is told, and what is booked."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_router import limiting, quotas, settings, workers

from . import engines, scene, wire
from .callers import KEY, ask, sha, tenants


def test_beyond_its_requests_a_tenant_is_told_when_to_come_back() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(requests_per_minute=2)) as (router, engine):
            first, _, third = [await ask(router) for _ in range(3)]
            assert first.headers["x-ratelimit-limit-requests"] == "2"
            assert first.headers["x-ratelimit-remaining-requests"] == "1"
            assert first.headers["x-ratelimit-reset-requests"].startswith("30")
            assert (third.status, third.error["code"]) == (429, "rate_limit_exceeded")
            assert third.headers["x-ratelimit-remaining-requests"] == "0"
            assert 28 <= int(third.headers["retry-after"]) <= 30
            assert third.error["message"] == (
                "the limit of tenant acme is 2 requests per minute: 2 used or reserved, and this request may take 1"
            )
            assert third.keeps
            assert len(engine.asked) == 2
            assert (await router.ask()).status == 200, "others are not limited"

    scene.play(scenario)


def test_tokens_are_reserved_at_the_worst_case_and_settled_with_the_truth() -> None:
    """An answer of 10 + 4 tokens, of which the prompt's and 10 were reserved."""

    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(tokens_per_minute=1_000_000)) as (router, _):
            first, second = await ask(router, "x" * 2000), await ask(router)
            reserved = 1_000_000 - int(first.headers["x-ratelimit-remaining-tokens"])
            left = 1_000_000 - int(second.headers["x-ratelimit-remaining-tokens"])
            assert reserved > 1000
            assert left < 14 + 200, "what the first did not use was given back"

    scene.play(scenario)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_budget_holds_what_was_spent_to_the_billionth(*, streamed: bool) -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(usd_per_day=0.01, usd_per_month=0.01)) as (router, _):
            for _ in range(3):
                assert (await ask(router, stream=streamed)).status == 200
            await router.quiet()
            limiter = router.router.tables.current.limiter
            rules = router.router.tables.current.callers._by_name["acme"].rules
            # 8 fresh input tokens, 2 cached, 4 output: (8·1000 + 2·500 + 4·2000) billionths of a dollar.
            spent = [limiter._local.used("acme", rule, router.router.epoch_seconds()) for rule in rules]
            assert spent == [3 * 17_000, 3 * 17_000]
            shown = await router.metric("limit_used_ratio", tenant="acme", reason="usd-per-day")
            assert shown == pytest.approx(3 * 0.000017 / 0.01)

    scene.play(scenario)


def test_a_spent_budget_is_no_rate_and_says_when_it_starts_anew() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(usd_per_month=0.0003)) as (router, engine):
            replies = [await ask(router) for _ in range(20)]
            refused = [each for each in replies if each.status != 200]
            assert 0 < len(engine.asked) < 20
            assert {(each.status, each.error["code"]) for each in refused} == {(429, "insufficient_quota")}
            assert int(refused[0].headers["retry-after"]) <= 31 * 86400
            assert "is 0.0003 USD per month: " in refused[0].error["message"]
            assert len(engine.asked) * 17_000 <= 0.0003 * quotas.NANO

    scene.play(scenario)


def test_what_can_never_pass_says_what_to_lower() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(tokens_per_minute=500)) as (router, engine):
            reply = await ask(router, max_tokens=1000)
            assert (reply.status, reply.headers.get("retry-after")) == (429, None)
            assert "lower max_tokens" in reply.error["message"]
            assert engine.asked == []

    scene.play(scenario)


def test_only_so_many_requests_of_a_tenant_are_under_way() -> None:
    def hang(asked: engines.Asked) -> list[engines.Step]:
        return [engines.Hang]

    async def scenario() -> None:
        async with scene.one_engine(hang, tenants=tenants(concurrent_requests=1)) as (router, engine):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(max_tokens=5), authorization=f"Bearer {KEY}"))
                async with asyncio.timeout(5):
                    while not engine.asked:
                        await asyncio.sleep(0.005)
                reply = await ask(router)
                assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
            await router.quiet()
            engine.script = engines.talk
            assert (await ask(router)).status == 200

    scene.play(scenario)


def test_a_failure_gives_everything_back() -> None:
    def fail(asked: engines.Asked) -> list[engines.Step]:
        return [engines.whole({"error": "x"}, 500)]

    async def scenario() -> None:
        limited = tenants(usd_per_month=0.0003, concurrent_requests=1)
        async with scene.one_engine(fail, tenants=limited) as (router, engine):
            for _ in range(20):
                assert (await ask(router)).status == 502
            engine.script = engines.talk
            async with asyncio.timeout(60):
                assert (await ask(router)).status in (200, 503)
            rules = router.router.tables.current.callers._by_name["acme"].rules
            used = router.router.tables.current.limiter._local.used("acme", rules[0], router.router.epoch_seconds())
            assert used in (0, 17_000)

    scene.play(scenario)


def test_a_client_that_leaves_in_the_middle_pays_for_what_was_made() -> None:
    def begin(asked: engines.Asked) -> list[engines.Step]:
        return [engines.STREAM_HEAD, engines.frame(engines.ROLE + engines.chunk({"content": "a"})), engines.Hang]

    async def scenario() -> None:
        async with scene.one_engine(begin, tenants=tenants(usd_per_month=1.0)) as (router, _):
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat(stream=True, max_tokens=9), authorization=f"Bearer {KEY}"))
                while b"content" not in (await client.read_some()).partition(b"assistant")[2]:
                    pass
            await router.quiet()
            rules = router.router.tables.current.callers._by_name["acme"].rules
            used = router.router.tables.current.limiter._local.used("acme", rules[0], router.router.epoch_seconds())
            (entry,) = (await router.get("/admin/requests", admin=True)).json()["requests"]
            assert used == round(entry["costUsd"] * quotas.NANO) > 0

    scene.play(scenario)


def test_what_limits_refuse_is_no_arrival_and_no_missed_promise() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            promised = scene.class_(slo=table.Slo(e2e_seconds=5.0))
            data = scene.make_table(
                scene.tier("small", engine.port), classes=(promised,), tenants=tenants(requests_per_minute=1)
            )
            async with scene.router(data) as router:
                for _ in range(4):
                    await ask(router)
                assert await router.metric("arrivals_total") == 1
                assert await router.metric("requests_total", result="limited") == 3
                assert await router.metric("slo_measured_total") == 1
                assert await router.metric("limited_total", tenant="acme", reason="requests-per-minute") == 3

    scene.play(scenario)


def test_callers_without_a_name_share_the_default_limits_and_named_ones_have_them_each() -> None:
    async def scenario() -> None:
        data = table.Tenants(trusted_header=True, default_limits=table.Limits(requests_per_minute=1))
        async with scene.one_engine(tenants=data) as (router, _):
            assert [(await router.ask()).status for _ in range(2)] == [200, 429]
            for tenant in ("a", "b"):
                assert [(await router.ask(x_trimtab_tenant=tenant)).status for _ in range(2)] == [200, 429]

    scene.play(scenario)


def test_counts_outlive_tables() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(requests_per_minute=1)) as (router, engine):
            assert (await ask(router)).status == 200
            router.publish(
                scene.make_table(scene.tier("small", engine.port), revision=2, tenants=tenants(requests_per_minute=1))
            )
            assert (await ask(router)).status == 429

    scene.play(scenario)


def test_limits_in_memory_are_refused_to_several_processes() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(scene.tier("small", engine.port), tenants=tenants(requests_per_minute=1))
            async with scene.router(data, processes=2) as router:
                assert (await router.get("/readyz")).status == 503
                assert await router.metric("table_rejected_total", reason="invalid") == 1

    scene.play(scenario)


def test_every_worker_knows_how_many_they_are(tmp_path: pathlib.Path) -> None:
    crew = workers.Crew(settings.Settings(tmp_path / "table.json", workers=3), lambda *_: 0)
    assert [(crew._mine(index).processes, crew._mine(index).workers) for index in range(3)] == [(3, 1)] * 3


# What the engine is sent.


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "max_completion_tokens"),
        ("/v1/completions", {"prompt": "a"}, "max_tokens"),
        ("/v1/responses", {"input": "a"}, "max_output_tokens"),
    ],
)
def test_a_bound_is_set_where_a_limited_request_names_none(path: str, body: dict[str, Any], field: str) -> None:
    async def scenario() -> None:
        limited = tenants(usd_per_month=5.0, max_output_tokens=77)
        async with scene.one_engine(tenants=limited) as (router, engine):
            key = {"authorization": f"Bearer {KEY}"}
            await router.ask({"model": "auto", **body}, path=path, **key)
            await router.ask({"model": "auto", **body, "max_tokens": 5}, path=path, **key)
            await router.ask({"model": "auto", **body}, path=path)
            bounded, own, free = [each.json() for each in engine.asked]
            assert bounded == {"model": "small", **body, field: 77}
            assert own == {"model": "small", **body, "max_tokens": 5}
            assert free == {"model": "small", **body}

    scene.play(scenario)


def test_every_choice_and_every_prompt_is_reserved_for() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=tenants(tokens_per_minute=10**6)) as (router, _):
            key = {"authorization": f"Bearer {KEY}"}
            bodies: list[dict[str, Any]] = [
                {"prompt": "a", "max_tokens": 1000},
                {"prompt": ["a", "b", "c"], "max_tokens": 1000, "n": 2},
                {"prompt": [1, 2, 3], "max_tokens": 1000},
                {"prompt": "a", "max_tokens": "1000"},
            ]
            left = 10**6
            for body, outputs in zip(bodies, (1000, 6000, 1000, 1000), strict=True):
                reply = await router.ask({"model": "auto", **body}, path="/v1/completions", **key)
                taken = left - int(reply.headers["x-ratelimit-remaining-tokens"])
                assert outputs <= taken < outputs + 300
                left = int(reply.headers["x-ratelimit-remaining-tokens"]) + taken - 14

    scene.play(scenario)


ISOLATED = table.Tenants(
    known=[table.Tenant("acme", sha(KEY), [sha("sk-acme-next")]), table.Tenant("other", sha("sk-other"))], isolate=True
)


async def salt(
    router: scene.Scene, engine: engines.Engine, key: str, body: dict[str, Any] | bytes | None = None, **more: str
) -> Any:
    await router.ask(body, **({"authorization": f"Bearer {key}"} if key else {}), **more)
    return engine.asked[-1].json().get("cache_salt")


def test_each_tenant_has_a_salt_of_its_own_that_does_not_tell_its_name() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=ISOLATED) as (router, engine):
            acme, again = await salt(router, engine, KEY), await salt(router, engine, "sk-acme-next")
            others = [await salt(router, engine, "sk-other"), await salt(router, engine, "")]
            assert acme == again, "a key in the place of another keeps the cache"
            assert len({acme, *others}) == 3
            assert all(len(each) == 32 and "acme" not in each for each in (acme, *others))

    scene.play(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"auto","messages":[],"cache_salt":"%b"}',
        b'{"cache_salt":"%b","model":"auto","messages":[]}',
        b'{"model":"auto","messages":[],"cache\\u005fsalt":"%b"}',
        b'{"model":"auto","cache_salt":"first","messages":[],"cache_salt":"%b"}',
    ],
    ids=["last", "first", "escaped", "twice"],
)
def test_a_salt_of_the_client_divides_its_own_cache_and_enters_no_others(body: bytes) -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=ISOLATED) as (router, engine):
            victim = await salt(router, engine, "sk-other")
            tried = await salt(router, engine, KEY, body.replace(b"%b", victim.encode()))
            assert tried not in (victim, await salt(router, engine, KEY))
            assert engine.asked[1].body.count(b"salt") == 1
            assert tried == await salt(router, engine, KEY, body.replace(b"%b", victim.encode()))

    scene.play(scenario)


def test_a_salt_goes_only_where_engines_know_it() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=ISOLATED) as (router, engine):
            assert await salt(router, engine, KEY, {"model": "auto", "input": "a"}, path="/v1/responses") is not None
            assert await salt(router, engine, KEY, {"model": "auto", "input": "a"}, path="/v1/embeddings") is None
            assert await salt(router, engine, KEY, {"model": "auto"}, path="/v1/score") is None
        async with scene.one_engine(tenants=table.Tenants(known=ISOLATED.known)) as (router, engine):
            body = wire.chat(cache_salt="mine")
            assert await salt(router, engine, KEY, body) == "mine", "shared on purpose: the client's own stays"

    scene.play(scenario)


def test_usage_is_asked_for_beside_a_salt() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=ISOLATED) as (router, engine):
            assert await salt(router, engine, KEY, wire.chat(stream=True)) is not None
            assert engine.asked[-1].json()["stream_options"]["include_usage"] is True

    scene.play(scenario)


# X-Trimtab-Max-Cost-Usd.


@pytest.mark.parametrize(
    ("cost", "status", "tier"),
    [
        ("1", 200, "large"),
        ("0.003", 200, "small"),
        ("0.0001", 400, ""),
        ("a lot", 400, ""),
        ("-1", 400, ""),
        ("1e9", 400, ""),
    ],
)
def test_a_request_goes_where_it_is_sure_to_cost_no_more_than_allowed(cost: str, status: int, tier: str) -> None:
    """At most 100 output and about 120 input tokens: up to 0.0035 USD on large, 0.00035 on small."""

    async def scenario() -> None:
        async with scene.engine() as engine:
            both = scene.class_(allow=("small", "large"), weights={"large": 1.0})
            large = scene.tier("large", engine.port, quality=0.9, rates=scene.LARGE_RATES)
            data = scene.make_table(scene.tier("small", engine.port), large, classes=(both,))
            async with scene.router(data) as router:
                reply = await router.ask(wire.chat(max_tokens=100), x_trimtab_max_cost_usd=cost)
                assert reply.status == status
                if status == 200:
                    assert reply.headers["x-trimtab-tier"] == tier
                else:
                    assert reply.error["param"] == "x-trimtab-max-cost-usd"
                    assert engine.asked == []

    scene.play(scenario)


def test_no_fallback_goes_beyond_the_cost_that_is_allowed() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            large = scene.tier("large", engine.port, quality=0.9, rates=scene.LARGE_RATES)
            data = scene.make_table(scene.tier("small", scene.closed_port()), large)
            async with scene.router(data) as router:
                assert (await router.ask(wire.chat(max_tokens=100))).status == 200
                assert (await router.ask(wire.chat(max_tokens=100), x_trimtab_max_cost_usd="0.002")).status in (
                    502,
                    503,
                )
                assert len(engine.asked) == 1

    scene.play(scenario)


# What is told.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, b"0ms"), (0.0204, b"20ms"), (1.0, b"1s"), (1.5, b"1.5s"), (60.0, b"1m0s"), (359.9999, b"6m0s")],
)
def test_times_are_written_as_openai_does(seconds: float, expected: bytes) -> None:
    assert limiting.span(seconds) == expected


def test_no_key_and_no_prompt_is_logged_shown_or_measured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        limited = tenants(requests_per_minute=1, isolate=True)
        async with scene.one_engine(tenants=limited) as (router, engine):
            replies = [await ask(router, "canary-prompt") for _ in range(2)]
            replies.append(await router.ask(wire.chat("canary-prompt"), authorization="Bearer sk-canary-unknown"))
            replies.append(await router.ask(wire.chat("canary-prompt"), x_api_key="sk-canary-unknown"))
            shown = [await router.get(path, admin=True) for path in ("/metrics", "/admin/table", "/admin/requests")]
            told = b"".join(each.body + json.dumps(each.headers).encode() for each in (*replies[1:], *shown))
            salted = engine.asked[0].json()["cache_salt"]
            for secret in ("canary", sha(KEY), salted):
                assert secret not in told.decode() + caplog.text
            assert all("authorization" not in each.headers and "x-api-key" not in each.headers for each in engine.asked)

    scene.play(scenario)


def test_a_table_with_a_bad_network_or_hash_is_refused() -> None:
    for broken in (
        table.Tenants(trusted_header=True, trusted_peers=["10.0.0.0/99"]),
        table.Tenants(known=[table.Tenant("a", "no hash")]),
        table.Tenants(known=[table.Tenant("a")], isolate=True, salt_file="/nowhere"),
    ):

        async def scenario(broken: table.Tenants = broken) -> None:
            async with scene.one_engine(tenants=broken) as (router, _):
                assert (await router.get("/readyz")).status == 503

        scene.play(scenario)
