"""Waiting: for a tier to wake, and for an engine to have room; bounded in count, bytes and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from trimtab_core.routing import table

from . import scene, wire
from .engines import ROLE, STREAM_HEAD, Asked, Step, answer, chunk, frame, stream, talk, whole


def test_a_request_waits_for_a_tier_that_wakes() -> None:
    async def scenario() -> None:
        async with (
            scene.engine() as engine,
            scene.router(scene.make_table(scene.tier("small", hold_seconds=5.0))) as router,
        ):
            asking = asyncio.ensure_future(router.ask())
            while await router.metric("held_requests", tier="small") < 1:
                await asyncio.sleep(0.01)
            router.publish(scene.make_table(scene.tier("small", engine.port, hold_seconds=5.0), revision=2))
            assert (await asking).status == 200
            assert await router.metric("held_requests") == 0

    scene.play(scenario)


def test_a_request_waits_no_longer_than_the_tier_says() -> None:
    async def scenario() -> None:
        async with scene.router(scene.make_table(scene.tier("small", hold_seconds=0.2))) as router:
            reply = await router.ask()
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat()))
                while await router.metric("held_requests") < 1:
                    await asyncio.sleep(0.01)
            # A client that leaves is not held any longer.
            await router.quiet()
            assert await router.metric("held_requests") == 0

    scene.play(scenario)


def test_nothing_is_held_while_another_allowed_tier_is_up() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(
                scene.tier("small", hold_seconds=30.0), scene.tier("large", engine.port, quality=0.9)
            )
            async with scene.router(data) as router:
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"

    scene.play(scenario)


def test_no_more_wait_for_a_tier_to_wake_than_the_policy_says() -> None:
    async def scenario() -> None:
        resilience = table.Resilience(hold_requests=3)
        async with scene.router(
            scene.make_table(scene.tier("small", hold_seconds=0.5), resilience=resilience)
        ) as router:
            replies = await asyncio.gather(*(router.ask() for _ in range(8)))
            codes = sorted(reply.error["code"] for reply in replies)
            assert codes == ["overloaded"] * 5 + ["unavailable"] * 3
            assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
            assert await router.metric("shed_total", reason="full") == 5
            assert await router.metric("shed_total", reason="timeout") == 3
            assert await router.metric("requests_total", result="rejected") == 8

    scene.play(scenario)


def test_what_waits_is_bounded_in_bytes() -> None:
    async def scenario() -> None:
        resilience = table.Resilience(queue_bytes=2500)
        async with scene.router(
            scene.make_table(scene.tier("small", hold_seconds=0.3), resilience=resilience)
        ) as router:
            replies = await asyncio.gather(*(router.ask(wire.chat("x" * 1000)) for _ in range(5)))
            codes = sorted(reply.error["code"] for reply in replies)
            # Two bodies of a little more than 1,000 bytes fit.
            assert codes == ["overloaded"] * 3 + ["unavailable"] * 2

    scene.play(scenario)


class Gate:
    """An engine's script that counts how many requests it has at once, and in which order they came."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.order: list[str] = []

    def __call__(self, asked: Asked) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(asked.json()["messages"][0]["content"])
        yield self.seconds
        self.now -= 1
        yield whole(answer())


QUEUED = table.Resilience(queue_requests=100, queue_at=1.0, queue_seconds=5.0)


@contextlib.asynccontextmanager
async def full(
    gate: Gate,
    *,
    capacity: float = 1.0,
    resilience: table.Resilience = QUEUED,
    tiers: tuple[table.Tier, ...] = (),
    **fields: Any,
) -> AsyncIterator[scene.Scene]:
    """A tier of one engine that takes so many requests at a time."""
    async with scene.engine(gate) as engine:
        endpoint = table.Endpoint("a", f"127.0.0.1:{engine.port}", capacity=capacity)
        data = scene.make_table(scene.tier("small", endpoints=[endpoint]), *tiers, resilience=resilience, **fields)
        async with scene.router(data) as router:
            yield router


async def line_up(router: scene.Scene, *asked: tuple[str, dict[str, str]]) -> list[asyncio.Task[wire.Reply]]:
    """Send one after the other; each waits before the next one is sent."""
    sent = []
    for number, (text, headers) in enumerate(asked):
        sent.append(asyncio.ensure_future(router.ask(wire.chat(text), **headers)))
        async with asyncio.timeout(5):
            while await router.metric("arrivals_total") < number + 1:
                await asyncio.sleep(0.005)
    return sent


def test_an_engine_never_has_more_than_it_can_take_while_requests_may_wait() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with full(gate, capacity=3.0) as router:
            replies = await asyncio.gather(*(router.ask() for _ in range(20)))
            assert {reply.status for reply in replies} == {200}
            assert gate.most == 3
            assert await router.metric("queue_seconds_count", tier="small") == 17
            assert await router.metric("queued_requests") == 0

    scene.play(scenario)


def test_a_tier_that_wakes_with_one_replica_is_not_run_over_by_all_that_waited() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with scene.engine(gate) as engine:
            asleep = scene.make_table(scene.tier("small", hold_seconds=5.0), resilience=QUEUED)
            async with scene.router(asleep) as router:
                asking = [asyncio.ensure_future(router.ask()) for _ in range(12)]
                while await router.metric("held_requests") < 12:
                    await asyncio.sleep(0.01)
                endpoint = table.Endpoint("a", f"127.0.0.1:{engine.port}", capacity=2.0)
                woken = scene.tier("small", endpoints=[endpoint], hold_seconds=5.0)
                router.publish(scene.make_table(woken, resilience=QUEUED, revision=2))
                assert {reply.status for reply in await asyncio.gather(*asking)} == {200}
                assert gate.most == 2

    scene.play(scenario)


def test_priorities_go_first_and_batch_goes_last() -> None:
    async def scenario() -> None:
        gate = Gate(0.1)
        async with full(gate) as router:
            sent = await line_up(
                router,
                ("first", {}),
                ("batch", {"x_trimtab_priority": "batch"}),
                ("normal", {}),
                ("high", {"x_trimtab_priority": "high"}),
            )
            await asyncio.gather(*sent)
            assert gate.order == ["first", "high", "normal", "batch"]

    scene.play(scenario)


def test_the_class_that_was_promised_sooner_goes_first() -> None:
    async def scenario() -> None:
        gate = Gate(0.1)
        classes = (
            scene.class_("soon", match=table.Match(headers={"x-kind": "soon"}), slo=table.Slo(e2e_seconds=1.0)),
            scene.class_("later", slo=table.Slo(e2e_seconds=8.0)),
        )
        async with full(gate, classes=classes) as router:
            sent = await line_up(router, ("first", {}), ("later", {}), ("soon", {"x_kind": "soon"}))
            await asyncio.gather(*sent)
            assert gate.order == ["first", "soon", "later"]

    scene.play(scenario)


def test_a_tenant_that_floods_the_queue_waits_for_itself() -> None:
    async def scenario() -> None:
        gate = Gate(0.2)
        async with full(gate, tenants=table.Tenants(trusted_header=True)) as router:
            loud = [(f"loud {number}", {"x_trimtab_tenant": "loud"}) for number in range(8)]
            sent = await line_up(router, *loud, ("quiet", {"x_trimtab_tenant": "quiet"}))
            await asyncio.gather(*sent)
            # One was under way, and one may have been let in while the quiet one came.
            assert gate.order.index("quiet") <= 4

    scene.play(scenario)


def test_a_full_queue_overflows_to_another_allowed_tier_with_room_and_then_sheds() -> None:
    async def scenario() -> None:
        gate, resilience = Gate(0.3), table.Resilience(queue_requests=1, queue_at=1.0)
        async with scene.engine(talk) as other:
            large = scene.tier("large", other.port, quality=0.9)
            async with full(gate, resilience=resilience, tiers=(large,)) as router:
                sent = await line_up(router, ("first", {}), ("waits", {}))
                assert (await router.ask()).headers["x-trimtab-tier"] == "large"
                assert {reply.status for reply in await asyncio.gather(*sent)} == {200}
            only = (scene.class_(allow=("small",)),)
            async with full(gate, resilience=resilience, tiers=(large,), classes=only) as router:
                sent = await line_up(router, ("first", {}), ("waits", {}))
                reply = await router.ask()
                assert (reply.status, reply.error["code"]) == (503, "overloaded")
                assert int(reply.headers["retry-after"]) >= 1
                assert await router.metric("shed_total", reason="full") == 1
                await asyncio.gather(*sent)

    scene.play(scenario)


def test_a_full_queue_gives_up_a_batch_request_for_one_that_somebody_waits_for() -> None:
    async def scenario() -> None:
        gate, resilience = Gate(0.3), table.Resilience(queue_requests=1, queue_at=1.0)
        async with full(gate, resilience=resilience) as router:
            sent = await line_up(router, ("first", {}), ("batch", {"x_trimtab_priority": "batch"}))
            sent.append(asyncio.ensure_future(router.ask(wire.chat("normal"))))
            replies = await asyncio.gather(*sent)
            assert [reply.status for reply in replies] == [200, 503, 200]
            assert gate.order == ["first", "normal"]
            assert await router.metric("shed_total", reason="displaced") == 1

    scene.play(scenario)


def test_who_waited_in_vain_is_told_so() -> None:
    async def scenario() -> None:
        gate, resilience = Gate(1.0), table.Resilience(queue_requests=9, queue_at=1.0, queue_seconds=0.2)
        async with full(gate, resilience=resilience) as router:
            sent = await line_up(router, ("first", {}), ("waits", {}))
            first, second = await asyncio.gather(*sent)
            assert (first.status, second.status, second.error["code"]) == (200, 503, "overloaded")
            assert "retry-after" in second.headers
            assert gate.order == ["first"]

    scene.play(scenario)


def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    async def scenario() -> None:
        # One request in 0.4 s; ten that wait are four seconds, and a wait may take two.
        gate, resilience = Gate(0.4), table.Resilience(queue_requests=100, queue_at=1.0, queue_seconds=2.0)
        async with full(gate, resilience=resilience) as router:
            sent = [asyncio.ensure_future(router.ask()) for _ in range(12)]
            await asyncio.sleep(1.4)
            reply = await router.ask()
            assert (reply.status, reply.error["code"]) == (503, "overloaded")
            assert "too long" in reply.error["message"]
            assert int(reply.headers["retry-after"]) >= 2
            for each in sent:
                each.cancel()
            await asyncio.gather(*sent, return_exceptions=True)

    scene.play(scenario)


def test_a_client_that_leaves_the_queue_makes_room_in_it() -> None:
    async def scenario() -> None:
        gate, resilience = Gate(0.4), table.Resilience(queue_requests=1, queue_at=1.0)
        async with full(gate, resilience=resilience) as router:
            [first] = await line_up(router, ("first", {}))
            async with await wire.Client.open(router.port) as client:
                client.send(wire.request(wire.chat("leaves")))
                while await router.metric("queued_requests") < 1:
                    await asyncio.sleep(0.005)
            while await router.metric("queued_requests") > 0:
                await asyncio.sleep(0.005)
            assert (await router.ask(wire.chat("stays"))).status == 200
            assert (await first).status == 200
            assert gate.order == ["first", "stays"]

    scene.play(scenario)


@pytest.mark.parametrize("change", ["the tier has another endpoint", "the tier is gone and another one serves"])
def test_a_new_table_lets_those_that_wait_decide_anew(change: str) -> None:
    async def scenario() -> None:
        gate = Gate(3.0)
        async with scene.engine(talk) as other, full(gate) as router:
            sent = await line_up(router, ("first", {}), ("waits", {}))
            name = "small" if "endpoint" in change else "large"
            router.publish(scene.make_table(scene.tier(name, other.port), resilience=QUEUED, revision=2))
            reply = await sent[1]
            assert (reply.status, reply.headers["x-trimtab-tier"]) == (200, name)
            sent[0].cancel()
            await asyncio.gather(*sent, return_exceptions=True)

    scene.play(scenario)


def test_a_rest_that_an_engine_asks_for_is_waited_for() -> None:
    def script(asked: Asked) -> list[Step]:
        return [whole({"error": {}}, 429, retry_after="1")] if b"first" in asked.body else talk(asked)

    async def scenario() -> None:
        async with scene.one_engine(script, resilience=QUEUED) as (router, engine):
            assert (await router.ask(wire.chat("first"))).status == 503
            assert (await router.ask(wire.chat("second"))).status == 200
            assert len(engine.asked) == 2

    scene.play(scenario)


def test_a_drain_finishes_streams_and_those_that_wait() -> None:
    slow: list[Step] = [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.4, *stream()[-3:]]

    async def scenario() -> None:
        resilience = table.Resilience(queue_requests=9, queue_at=1.0)
        async with scene.engine(lambda _: slow) as engine:
            endpoint = table.Endpoint("a", f"127.0.0.1:{engine.port}", capacity=1.0)
            data = scene.make_table(scene.tier("small", endpoints=[endpoint]), resilience=resilience)
            async with scene.router(data, drain_seconds=5.0) as router:
                sent = [asyncio.ensure_future(router.ask(wire.chat(stream=True))) for _ in range(2)]
                while await router.metric("queued_requests") < 1:
                    await asyncio.sleep(0.005)
                assert await router.router.drain(5.0)
                replies = await asyncio.gather(*sent)
                assert [(reply.whole, reply.events[-1]) for reply in replies] == [(True, "[DONE]")] * 2

    scene.play(scenario)


def shed(degraded: table.Degraded, **headers: str) -> wire.Reply:
    replies: list[wire.Reply] = []

    async def scenario() -> None:
        nightly = scene.class_("nightly", match=table.Match(headers={"x-kind": "nightly"}, priority="batch"))
        async with scene.one_engine(degraded=degraded, classes=(nightly, scene.class_())) as (router, engine):
            replies.append(await router.ask(**headers))
            refused = replies[0].status == 429
            assert len(engine.asked) == (0 if refused else 1)
            assert await router.metric("shed_total", reason="budget") == refused
            assert await router.metric("requests_total", result="rejected") == refused
            assert await router.metric("arrivals_total") == 1

    scene.play(scenario)
    return replies[0]


@pytest.mark.parametrize(
    ("degraded", "headers", "status"),
    [
        ("", {}, 200),
        ("Downshift", {}, 200),
        ("BatchOnly", {}, 429),
        ("BatchOnly", {"x_trimtab_priority": "high"}, 429),
        ("BatchOnly", {"x_trimtab_priority": "batch"}, 200),
        ("BatchOnly", {"x_trimtab_priority": "batch", "x_kind": "nightly"}, 200),
        ("Reject", {"x_trimtab_priority": "batch"}, 429),
    ],
)
def test_what_a_used_up_budget_refuses(degraded: table.Degraded, headers: dict[str, str], status: int) -> None:
    reply = shed(degraded, **headers)
    assert reply.status == status
    if status == 429:
        assert reply.error["code"] == "policy_budget_exceeded"
        assert reply.headers["retry-after"] == "60"


def test_an_answer_from_the_cache_costs_nothing_and_is_given_though_the_budget_is_used_up() -> None:
    cache = table.Cache("answers", ttl_seconds=60.0, max_entries=9, max_answer_bytes=9999, max_temperature=2.0)

    async def scenario() -> None:
        async with scene.engine() as engine:
            small = scene.tier("small", engine.port)
            async with scene.router(scene.make_table(small, cache=cache)) as router:
                assert (await router.ask(wire.chat(temperature=0))).headers["x-trimtab-cache"] == "miss"
                router.publish(scene.make_table(small, cache=cache, degraded="Reject", revision=2))
                assert (await router.ask(wire.chat(temperature=0))).headers["x-trimtab-cache"] == "hit"
                assert (await router.ask(wire.chat("new", temperature=0))).status == 429

    scene.play(scenario)
