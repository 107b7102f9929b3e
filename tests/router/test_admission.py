"""Admission: tenants, internal headers, classes, weights, and what is sensitive."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from trimtab_core.routing import table

from . import scene, wire

KEY = "sk-acme-1"
ACME = table.Tenant("acme", hashlib.sha256(KEY.encode()).hexdigest())
OTHER = table.Tenant("other", hashlib.sha256(b"sk-other").hexdigest())


def test_a_key_names_its_tenant_and_never_reaches_the_engine() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=table.Tenants(required=True, known=[OTHER, ACME])) as (router, engine):
            assert (await router.ask(authorization=f"Bearer {KEY}")).status == 200
            assert "authorization" not in engine.asked[0].headers
            assert await router.metric("cost_usd_total", tenant="acme") > 0
            assert await router.metric("cost_usd_total", tenant="other") == 0

    scene.play(scenario)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer sk-wrong"}, {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer "},
     {"x_trimtab_tenant": "acme"}],
    ids=["none", "wrong", "not a bearer", "empty", "only claimed"],
)  # fmt: skip
def test_without_a_known_key_a_policy_that_needs_one_refuses(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=table.Tenants(required=True, known=[ACME])) as (router, engine):
            reply = await router.ask(**headers)
            assert (reply.status, reply.error["type"]) == (401, "authentication_error")
            assert KEY not in reply.body.decode()
            assert engine.asked == []

    scene.play(scenario)


def test_the_tenant_header_counts_only_where_the_policy_trusts_it() -> None:
    async def scenario() -> None:
        for trusted, tenant in ((True, "acme"), (False, "anonymous")):
            async with scene.one_engine(tenants=table.Tenants(trusted_header=trusted)) as (router, _):
                await router.ask(x_trimtab_tenant="acme")
                assert await router.metric("cost_usd_total", tenant=tenant) > 0

    scene.play(scenario)


def test_beyond_the_cap_tenants_share_one_label() -> None:
    async def scenario() -> None:
        async with scene.one_engine(tenants=table.Tenants(trusted_header=True)) as (router, _):
            async with await wire.Client.open(router.port) as client:
                for number in range(203):
                    client.send(wire.request(wire.chat(), x_trimtab_tenant=f"t{number}"))
                    await client.reply()
            text = (await router.get("/metrics", admin=True)).body.decode()
            assert text.count("trimtab_router_cost_usd_total{") == 201
            one = await router.metric("cost_usd_total", tenant="t0")
            assert await router.metric("cost_usd_total", tenant="other") == pytest.approx(3 * one)

    scene.play(scenario)


def test_internal_headers_stay_here_and_others_are_chosen() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            await router.ask(
                x_trimtab_workflow="ticket-42", x_trimtab_feature="summary", x_trimtab_priority="high",
                x_gateway_destination_endpoint="169.254.169.254:80", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", cookie="a=b",
                x_forwarded_host="evil",
            )  # fmt: skip
            headers = engine.asked[0].headers
            assert headers["host"] == f"127.0.0.1:{engine.port}"
            assert headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"
            assert set(headers) == {"host", "accept", "traceparent", "x-request-id", "content-type", "content-length"}
            (entry,) = (await router.get("/admin/requests", admin=True)).json()["requests"]
            assert (entry["workflow"], entry["feature"]) == ("ticket-42", "summary")

    scene.play(scenario)


@pytest.mark.parametrize("header", ["x-trimtab-tenant", "X-Trimtab-Class", "x-trimtab-sensitive", "Authorization"])
def test_an_internal_header_given_twice_is_refused(header: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            twice = f"{header}: a\r\n{header.lower()}: b\r\n".encode()
            client.send(wire.request(wire.chat()).replace(b"host: router\r\n", b"host: router\r\n" + twice))
            reply = await client.reply()
            assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "bad_header", header.lower())
            assert engine.asked == []

    scene.play(scenario)


@pytest.mark.parametrize(
    ("header", "value"),
    [("x_trimtab_workflow", "a b"), ("x_trimtab_feature", "x" * 64), ("x_trimtab_sensitive", "maybe"),
     ("x_trimtab_class", "nothing"), ("x_trimtab_workflow", "ü")],
)  # fmt: skip
def test_an_internal_header_with_a_value_that_means_nothing_is_refused(header: str, value: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            reply = await router.ask(**{header: value})
            assert (reply.status, reply.error["param"]) == (400, header.replace("_", "-"))

    scene.play(scenario)


CLASSES = (
    scene.class_("secret", ("private",), match=table.Match(sensitive=True), reject_when_unavailable=True),
    scene.class_("batch", match=table.Match(priority="batch")),
    scene.class_("vip", match=table.Match(tenants=["acme"])),
    scene.class_("coding", match=table.Match(models=["coder"])),
    scene.class_("beta", match=table.Match(headers={"x-beta": "on"})),
    scene.class_("hard", match=table.Match(complexity_min=0.5)),
    scene.class_("default"),
)
HARD = (
    "Prove step by step that the integral of 1/(x^2+1) from -10 to 10 = 2*arctan(10), compute it to 6 digits, then "
    "derive the error bound for n = 1000, 2000, 4000 and 8000 trapezoids: E(n) <= 20^3/(12*n^2)*max|f''| = ? " * 6
)
MATCHES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "nothing special": (wire.chat(), {}, "default"),
    "marked sensitive": (wire.chat(), {"x_trimtab_sensitive": "true"}, "secret"),
    "marked not sensitive": (wire.chat(), {"x_trimtab_sensitive": "false"}, "default"),
    "a card number": (wire.chat("charge 4111 1111 1111 1111 please"), {}, "secret"),
    "a card number, said not to be": (wire.chat("4111 1111 1111 1111"), {"x_trimtab_sensitive": "false"}, "secret"),
    "priority": (wire.chat(), {"x_trimtab_priority": "batch"}, "batch"),
    "another priority": (wire.chat(), {"x_trimtab_priority": "high"}, "default"),
    "tenant": (wire.chat(), {"authorization": f"Bearer {KEY}"}, "vip"),
    "model": ({**wire.chat(), "model": "coder"}, {}, "coding"),
    "header": (wire.chat(), {"x_beta": "on"}, "beta"),
    "complexity": (wire.chat(HARD), {}, "hard"),
    "first match wins": (wire.chat(HARD), {"x_trimtab_priority": "batch"}, "batch"),
    "chosen": (wire.chat(HARD), {"x_trimtab_class": "default"}, "default"),
    "chosen, but sensitive": (wire.chat("4111 1111 1111 1111"), {"x_trimtab_class": "default"}, "secret"),
    "a stricter one chosen": (wire.chat(), {"x_trimtab_class": "secret"}, "secret"),
}


@pytest.mark.parametrize(("body", "headers", "expected"), MATCHES.values(), ids=MATCHES.keys())
def test_the_first_class_that_matches_takes_the_request(
    body: dict[str, Any], headers: dict[str, str], expected: str
) -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tiers = (scene.tier("small", engine.port), scene.tier("private", engine.port))
            tenants = table.Tenants(known=[ACME])
            data = scene.make_table(*tiers, classes=CLASSES, tenants=tenants, models=["auto", "coder"])
            async with scene.router(data) as router:
                reply = await router.ask(body, **headers)
                assert reply.headers["x-trimtab-class"] == expected
                assert await router.metric("arrivals_total", **{"class": expected}) == 1

    scene.play(scenario)


def test_a_class_kept_for_a_tenant_is_no_choice_for_others() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tiers = (scene.tier("small", engine.port), scene.tier("private", engine.port))
            data = scene.make_table(*tiers, classes=CLASSES, tenants=table.Tenants(known=[ACME]))
            async with scene.router(data) as router:
                assert (await router.ask(x_trimtab_class="vip")).status == 400
                reply = await router.ask(x_trimtab_class="vip", authorization=f"Bearer {KEY}")
                assert reply.headers["x-trimtab-class"] == "vip"

    scene.play(scenario)


def test_json_escapes_do_not_hide_a_card_number() -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"\\u0034111 1111 1111 111\\u0031"}]}'

    async def scenario() -> None:
        async with scene.engine() as engine:
            tiers = (scene.tier("small", engine.port), scene.tier("private", engine.port))
            async with scene.router(scene.make_table(*tiers, classes=(CLASSES[0], CLASSES[-1]))) as router:
                assert (await router.ask(body)).headers["x-trimtab-class"] == "secret"

    scene.play(scenario)


def test_weights_come_true_and_the_easiest_share_goes_to_the_cheapest_tier() -> None:
    prompts = ["hi", "What is the capital of France?", HARD, HARD * 2]

    async def scenario() -> None:
        async with scene.engine() as small, scene.engine() as large:
            both = scene.class_(allow=("small", "large"), weights={"small": 0.5, "large": 0.5})
            data = scene.make_table(
                scene.tier("small", small.port), scene.tier("large", large.port, quality=0.9), classes=(both,)
            )
            async with scene.router(data) as router, await wire.Client.open(router.port) as client:
                for number in range(400):
                    client.send(wire.request(wire.chat(prompts[number % 4] + " " * (number % 7))))
                    await client.reply()
                assert 180 <= len(small.asked) <= 220
                last = small.asked[-100:]
                assert all("capital" in each.body.decode() or '"hi' in each.body.decode() for each in last)
                assert await router.metric("complexity_score_count") == 400

    scene.play(scenario)


def test_a_class_without_weights_goes_to_its_best_tier() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tiers = (scene.tier("small", engine.port), scene.tier("large", engine.port, quality=0.9))
            data = scene.make_table(*tiers, classes=(scene.class_(allow=("small", "large"), weights={}),))
            async with scene.router(data) as router:
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"
                assert await router.metric("complexity_score_count") == 0

    scene.play(scenario)


def test_models_are_those_of_the_policy() -> None:
    async def scenario() -> None:
        async with scene.one_engine(models=["auto", "assistant"]) as (router, engine):
            listed = (await router.get("/v1/models")).json()
            assert [(each["id"], each["object"]) for each in listed["data"]] == [
                ("auto", "model"),
                ("assistant", "model"),
            ]
            assert (await router.get("/v1/models/assistant")).json()["id"] == "assistant"
            assert engine.asked == []

    scene.play(scenario)


def test_what_is_passed_through_keeps_its_path_and_query_and_gets_its_model() -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine):
            assert (await router.ask({"model": "auto", "text_1": "a"}, path="/v1/score?x=1")).status == 200
            assert engine.asked[0].path == "/v1/score?x=1"
            assert engine.asked[0].json() == {"model": "small", "text_1": "a"}
            assert (await router.ask({"model": "gpt-9"}, path="/v1/score")).status == 404
            await router.ask(b"", path="/v1/files", method="GET")
            assert (engine.asked[-1].method, engine.asked[-1].path) == ("GET", "/v1/files")

    scene.play(scenario)
