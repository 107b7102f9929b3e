"""Endpoint choice as clients see it: who is asked, and which requests meet at one engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from trimtab_core.routing import affinity, table

from . import engines, scene, wire
from .engines import Asked, Step, answer, talk, whole


@pytest.mark.parametrize("state", ["Warming", "Draining", "Asleep"])
def test_only_ready_endpoints_are_asked(state: str) -> None:
    async def scenario() -> None:
        async with scene.engine() as resting, scene.engine() as ready:
            endpoints = [
                table.Endpoint("a", f"127.0.0.1:{resting.port}", state=state),  # type: ignore[arg-type]
                table.Endpoint("b", f"127.0.0.1:{ready.port}"),
            ]
            async with scene.router(scene.make_table(scene.tier("small", endpoints=endpoints))) as router:
                for _ in range(4):
                    assert (await router.ask()).status == 200
                assert resting.asked == []

    scene.play(scenario)


def test_requests_spread_by_what_endpoints_can_carry() -> None:
    def slow(asked: Asked) -> list[Step]:
        return [0.2, whole(answer())]

    async def scenario() -> None:
        async with scene.engine(slow) as big, scene.engine(slow) as little:
            endpoints = [
                table.Endpoint("big", f"127.0.0.1:{big.port}", capacity=30),
                table.Endpoint("little", f"127.0.0.1:{little.port}", capacity=10),
            ]
            async with scene.router(scene.make_table(scene.tier("small", endpoints=endpoints))) as router:
                replies = await asyncio.gather(*(router.ask() for _ in range(40)))
                assert {reply.status for reply in replies} == {200}
                # 1 - n/30 and 1 - m/10 stay equal: three to one.
                assert (len(big.asked), len(little.asked)) == (30, 10)
                assert await router.metric("in_flight") == 0

    scene.play(scenario)


@contextlib.asynccontextmanager
async def fleet(
    count: int = 4, script: engines.Script = talk, **fields: Any
) -> AsyncIterator[tuple[scene.Scene, list[engines.Engine]]]:
    """A tier of so many engines."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(scene.engine(script)) for _ in range(count)]
        data = scene.make_table(scene.tier("small", *(each.port for each in made)), **fields)
        yield await stack.enter_async_context(scene.router(data)), made


def asked(fleet_: list[engines.Engine]) -> list[int]:
    """How many requests each engine has got, the most first."""
    return sorted((len(each.asked) for each in fleet_), reverse=True)


LONG = "You are the assistant of a shop. " * 60
"""Longer than what makes a prompt's key."""


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, {"x_trimtab_session": "conversation-7"}),
        ({"prompt_cache_key": "conversation-7"}, {}),
        ({"user": "u-1"}, {}),
        ({"user": None, "prompt_cache_key": "k"}, {}),
        ({"user": {"id": 7}}, {}),
    ],
    ids=["header", "prompt_cache_key", "user", "null is nothing", "whatever it is"],
)
def test_requests_of_one_session_meet_at_one_engine(body: dict[str, Any], headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with fleet() as (router, engines_):
            for number in range(12):
                assert (await router.ask(wire.chat(f"question {number}", **body), **headers)).status == 200
            assert asked(engines_) == [12, 0, 0, 0]

    scene.play(scenario)


def test_sessions_spread_over_the_engines() -> None:
    async def scenario() -> None:
        async with fleet() as (router, engines_):
            for number in range(60):
                await router.ask(x_trimtab_session=f"conversation-{number}")
            assert asked(engines_)[-1] >= 4

    scene.play(scenario)


def test_prompts_that_begin_alike_meet_and_short_ones_go_anywhere() -> None:
    async def scenario() -> None:
        async with fleet() as (router, engines_):
            for number in range(12):
                body = {
                    "model": "auto",
                    "messages": [
                        {"role": "system", "content": LONG},
                        {"role": "user", "content": f"question {number}"},
                    ],
                }
                await router.ask(body)
            assert asked(engines_) == [12, 0, 0, 0]
        async with fleet() as (router, engines_):
            for number in range(40):
                await router.ask(wire.chat(f"question {number}"))
            assert asked(engines_)[-1] >= 3

    scene.play(scenario)


def test_prompts_that_differ_where_they_begin_spread() -> None:
    async def scenario() -> None:
        async with fleet() as (router, engines_):
            for number in range(60):
                await router.ask(wire.chat(f"{number} {LONG}"))
            assert asked(engines_)[-1] >= 4

    scene.play(scenario)


def test_tenants_share_no_place_as_they_share_no_cache() -> None:
    async def scenario() -> None:
        async with fleet(tenants=table.Tenants(trusted_header=True)) as (router, engines_):
            for number in range(40):
                await router.ask(wire.chat(LONG), x_trimtab_tenant=f"t{number}")
            assert asked(engines_)[-1] >= 3

    scene.play(scenario)


def test_one_place_that_everybody_wants_is_shared_before_it_is_overloaded() -> None:
    def slow(_: Asked) -> list[Step]:
        return [0.4, whole(answer())]

    async def scenario() -> None:
        async with fleet(script=slow) as (router, engines_):
            replies = await asyncio.gather(*(router.ask(x_trimtab_session="one") for _ in range(80)))
            assert {reply.status for reply in replies} == {200}
            # 20 each would be even; a quarter more is the most that affinity gives.
            assert asked(engines_)[0] <= 25
            assert asked(engines_)[-1] >= 10

    scene.play(scenario)


def test_when_its_engine_fails_a_session_moves_to_one_other_and_stays_there() -> None:
    async def scenario() -> None:
        async with fleet(resilience=table.Resilience(eject_seconds=60.0)) as (router, engines_):
            await router.ask(x_trimtab_session="one")
            [home] = [each for each in engines_ if each.asked]
            await home.stop()
            for _ in range(6):
                assert (await router.ask(x_trimtab_session="one")).status == 200
            assert asked([each for each in engines_ if each is not home]) == [6, 0, 0]

    scene.play(scenario)


def test_an_engine_whose_cache_is_full_gets_less() -> None:
    def slow(_: Asked) -> list[Step]:
        return [0.3, whole(answer())]

    async def scenario() -> None:
        async with scene.engine(slow) as pressed, scene.engine(slow) as calm:
            endpoints = [
                table.Endpoint("pressed", f"127.0.0.1:{pressed.port}", capacity=20.0, kv_usage=1.0),
                table.Endpoint("calm", f"127.0.0.1:{calm.port}", capacity=20.0),
            ]
            async with scene.router(scene.make_table(scene.tier("small", endpoints=endpoints))) as router:
                await asyncio.gather(*(router.ask() for _ in range(21)))
                # It counts as having a quarter of its 20 already: 8 and 5 are 13.
                assert (len(pressed.asked), len(calm.asked)) == (8, 13)

    scene.play(scenario)


def test_a_prompts_key_is_made_of_its_beginning() -> None:
    assert len(LONG) > affinity.PREFIX_BYTES
