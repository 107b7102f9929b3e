"""Faults of the router itself: told in the log, never a hang, and never the end of other requests."""

from __future__ import annotations

import asyncio

import pytest

from . import scene, wire


def test_a_fault_of_the_router_is_a_500_with_its_traceback_in_the_log_and_no_hang(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: bytes) -> None:
        raise KeyError("a bug")

    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            async with await wire.Client.open(router.port) as client:
                monkeypatch.setattr("trimtab_router.routes.find", broken)
                client.send(wire.request(wire.chat()))
                reply = await client.reply()
                assert (reply.status, reply.error["code"], reply.whole) == (500, "internal_error", True)
            monkeypatch.undo()
            assert "a bug" in caplog.text
            assert (await router.ask()).status == 200

    scene.play(scenario)


def test_a_failing_tick_does_not_end_all_ticks(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            router.router.exchanges.add("no exchange")  # type: ignore[arg-type]
            while "a tick failed" not in caplog.text:
                await asyncio.sleep(0.02)
            router.router.exchanges.clear()
            await router.ask()
            while router.router.ledger._ring:
                await asyncio.sleep(0.02)

    scene.play(scenario)
