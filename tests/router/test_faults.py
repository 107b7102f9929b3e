"""Everything at once: engines that die, freeze, lie and come back, clients that leave; and every request once in the books.

Each single fault has a test of its own name where its remedy is: ``test_attempts``, ``test_fallbacks``,
``test_ejection``, ``test_hedging``, ``test_waiting``, ``test_streams`` and ``test_http``.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from trimtab_core.routing import table

from . import engines, scene, wire
from .engines import DONE, LAST, ROLE, STREAM_HEAD, Asked, Close, Hang, Reset, Step, answer, chunk, frame, whole

FAULTS: dict[str, list[Step]] = {
    "closes": [Close],
    "resets": [Reset],
    "500": [whole({"error": {"message": "boom"}}, 500)],
    "busy": [whole({"error": {"message": "busy"}}, 503)],
    "aborts": [whole(answer(finish="abort"))],
    "aborts a stream before content": [STREAM_HEAD, frame(ROLE + chunk({}, "abort") + DONE), LAST],
    "dies in a stream": [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.01, Reset],
    "ends a stream with an error and done": [
        STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), 0.01, frame(b'data: {"error": {"message": "x"}}\n\n' + DONE), LAST,
    ],
    "truncates": [whole(answer())[:-10], Close],
    "freezes": [Hang],
}  # fmt: skip

CALM = table.Resilience(
    connect_timeout=1.0,
    first_byte_timeout=0.5,
    answer_timeout=0.5,
    idle_timeout=0.5,
    max_fallbacks=2,
    eject_seconds=0.2,
    ease_in_seconds=0.5,
    hedge_quantile=0.9,
    retry_floor_per_second=5.0,
    queue_requests=200,
    queue_at=1.0,
)


@dataclass
class Books:
    """What clients saw, by request id: ``ok``, ``failed``, or ``left``."""

    seen: dict[str, str] = field(default_factory=dict)
    usd: float = 0.0


def moody(seed: int) -> engines.Script:
    """An engine that is well most of the time."""
    rng = random.Random(seed)

    def script(asked: Asked) -> list[Step]:
        if rng.random() < 0.3:
            return FAULTS[rng.choice(sorted(FAULTS))]
        return [rng.choice([0.0, 0.01, 0.05]), *engines.talk(asked)]

    return script


async def customer(router: scene.Scene, books: Books, numbers: list[int]) -> None:
    for number in numbers:
        rng = random.Random(number)
        body, name = wire.chat(f"question {number}", stream=rng.random() < 0.6), f"r{number}"
        async with await wire.Client.open(router.port) as client:
            client.send(wire.request(body, x_request_id=name))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.05)
                books.seen[name] = "left"
                continue
            reply = await client.reply()
        good = reply.status == 200 and reply.whole
        if body["stream"]:
            good = good and reply.events[-1] == "[DONE]" and reply.text == "hi there you"
            # Whatever broke off must not look like an end.
            assert good or "[DONE]" not in reply.events
        elif good:
            assert reply.json()["choices"][0]["message"]["content"] == "hi there"
            books.usd += float(reply.headers["x-trimtab-cost-usd"])
        books.seen[name] = "ok" if good else "failed"


@pytest.mark.parametrize("seed", [1, 2])
def test_through_all_faults_every_request_is_in_the_books_once_and_with_its_true_result(seed: int) -> None:
    async def scenario() -> None:
        async with scene.engine(moody(seed)) as one, scene.engine(moody(seed + 10)) as other, scene.engine() as better:
            mortal = await engines.Engine(moody(seed + 20)).start()
            small = [
                table.Endpoint(f"small-{number}", f"127.0.0.1:{each.port}", capacity=6.0)
                for number, each in enumerate((one, other, mortal))
            ]
            tiers = (scene.tier("small", endpoints=small), scene.tier("large", better.port, quality=0.9))
            classes = (scene.class_(allow=("small", "large"), slo=table.Slo(ttft_seconds=1.0)),)
            data = scene.make_table(*tiers, classes=classes, resilience=CALM)
            async with scene.router(data) as router:
                books = Books()
                customers = [
                    asyncio.ensure_future(customer(router, books, list(range(start, 240, 16)))) for start in range(16)
                ]
                await asyncio.sleep(0.3)
                await mortal.stop()
                await asyncio.sleep(0.3)
                revived = await engines.Engine(engines.talk).start(mortal.port)
                await asyncio.gather(*customers)
                await router.quiet()
                await check(router, books)
                await revived.stop()

    scene.play(scenario)


async def check(router: scene.Scene, books: Books) -> None:
    """The client's log, the ledger and the metrics agree."""
    entries = (await router.get("/admin/requests", admin=True)).json()["requests"]
    booked = {entry["requestId"]: entry for entry in entries}
    assert len(entries) == len(booked) == len(books.seen) == 240
    for name, seen in books.seen.items():
        if seen != "left":
            result = booked[name]["result"]
            assert result == "ok" if seen == "ok" else result in ("failed", "rejected"), name
    assert sum(seen == "ok" for seen in books.seen.values()) > 150
    # Money: what is on the bills is in the metrics, and nothing else is.
    billed = sum(entry["costUsd"] for entry in entries)
    assert await router.metric("cost_usd_total") == pytest.approx(billed)
    assert books.usd <= billed + 1e-12
    for entry in entries:
        if entry["result"] == "ok":
            # 8 and 2 cached tokens in and 4 out, of the one answer that was passed on; both tiers cost the same.
            assert entry["costUsd"] == pytest.approx(8 * 1e-6 + 2 * 5e-7 + 4 * 2e-6), entry
    wasted = sum(entry["wastedUsd"] for entry in entries)
    assert await router.metric("wasted_usd_total") == pytest.approx(wasted)
    assert wasted > 0
    # Nothing is left over.
    assert await router.metric("in_flight") == await router.metric("queued_requests") == 0
    assert await router.metric("requests_total") == await router.metric("arrivals_total") == 240
    assert all(endpoint.streams == endpoint.awaited == 0 for endpoint in router.router.directory.all())


def test_twenty_clients_that_leave_stop_twenty_streams() -> None:
    async def scenario() -> None:
        endless: list[Step] = [STREAM_HEAD, frame(ROLE + chunk({"content": "a"})), Hang]
        async with scene.one_engine(lambda _: endless) as (router, engine):
            clients = [await wire.Client.open(router.port) for _ in range(20)]
            for client in clients:
                client.send(wire.request(wire.chat(stream=True)))
                await client.reader.readuntil(b'"a"')
            assert (len(engine.asked), await router.metric("in_flight")) == (20, 20)
            for client in clients:
                client.writer.transport.abort()
            await router.quiet()
            assert await router.metric("in_flight") == 0
            assert await router.metric("requests_total", result="cancelled") == 20
            async with asyncio.timeout(5):
                while engine.open_connections:
                    await asyncio.sleep(0.01)

    scene.play(scenario)
