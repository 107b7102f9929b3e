"""Accounts in a Redis: the same answers as in memory, exact under concurrency, and nothing lost while it is away."""

from __future__ import annotations

import asyncio
import pathlib
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import table
from trimtab_router import accounts, quotas, resp, shared_accounts

from . import scene, stores, test_tls
from .test_accounts import LIMITS, NOON, held, need

pytestmark = stores.needs_redis


def shared(port: int, **fields: object) -> shared_accounts.SharedAccounts:
    store = table.Store("Redis", f"127.0.0.1:{port}", timeout_seconds=2.0, **fields)  # type: ignore[arg-type]
    return shared_accounts.SharedAccounts(store, "ns/chat", clock=time.monotonic, wall_clock=time.time)


def test_the_script_answers_as_the_memory_does() -> None:
    async def scenario() -> None:
        with stores.redis() as port:
            there, here, rng = shared(port), accounts.Accounts(), random.Random(7)
            now = await there._time()
            under_way: list[accounts.Held] = []
            for at in range(400):
                now += rng.choice([0.0, 0.001, 0.5, 7.0, 300.0, 30_000.0])
                if under_way and rng.random() < 0.5:
                    one = under_way.pop(rng.randrange(len(under_way)))
                    truth = need(rng.randrange(900), rng.random())
                    here.settle(one, truth, now)
                    await there._run(b"settle", one, 3600.0, need=truth, before=one.need, now=now)
                    continue
                one = held(str(at), need(rng.randrange(1500), 2 * rng.random()), now, seconds=700.0)
                mine = here.reserve(one, now)
                reply = await there._run(b"reserve", one, 700.0, need=one.need, before=one.need, now=now)
                assert isinstance(reply, list)
                assert (reply[0] == 1) == (mine.denied is None), (at, mine)
                used = [float(each) for each in reply[2:]]
                assert used == pytest.approx([each.used for each in mine.standings], rel=1e-9, abs=1e-6)
                if mine.denied is None and rng.random() < 0.9:
                    under_way.append(one)
            await there.close(1.0)

    scene.play(scenario)


def test_many_routers_at_once_never_spend_more_than_the_budget() -> None:
    limits = table.Limits(usd_per_month=1.0)

    async def client(there: shared_accounts.SharedAccounts, name: str, rng: random.Random) -> int:
        booked = 0
        for at in range(25):
            worst, now = need(usd=rng.randrange(1, 90) / 1000), there.now()
            one = held(f"{name}-{at}", worst, now, limits=limits)
            if (await there.reserve(one, 600.0)).denied is None:
                truth = quotas.Need(0, worst.nano_usd * rng.randrange(101) // 100)
                there.settle(shared_accounts.Settlement(one, truth, reserved=True))
                booked += truth.nano_usd
        return booked

    async def scenario() -> None:
        with stores.redis() as port:
            routers = [shared(port) for _ in range(4)]
            clients = [
                client(each, f"{at}-{k}", random.Random(10 * at + k))
                for at, each in enumerate(routers)
                for k in range(5)
            ]
            booked = sum(await asyncio.gather(*clients))
            for each in routers:
                await each.close(5.0)
            last = shared(port)
            probe = held("last", quotas.Need(0, 0), last.now(), limits=limits)
            verdict = await last.reserve(probe, 600.0)
            assert verdict.standings[0].used == booked
            assert 0.5 * quotas.NANO < booked <= quotas.NANO
            await last.close(1.0)

    scene.play(scenario)


def test_what_is_settled_while_the_server_is_away_is_booked_once_when_it_is_back() -> None:
    limits = table.Limits(usd_per_month=1.0)

    async def scenario() -> None:
        port = scene.closed_port()
        there = shared(port)
        one = held("granted-elsewhere", need(usd=0.2), limits=limits)
        settled = shared_accounts.Settlement(one, need(usd=0.1), reserved=False)
        there.settle(settled)
        with pytest.raises(resp.StoreDownError):
            await there.reserve(held("a", need(usd=0.1), limits=limits), 600.0)
        assert there.down
        with stores.redis(port):
            async with asyncio.timeout(20):
                while there.waiting or there._worker is not None:
                    await asyncio.sleep(0.05)
            again = shared(port)
            for attempt in range(2):
                probe = held(f"probe-{attempt}", quotas.Need(), again.now(), limits=limits)
                verdict = await again.reserve(probe, 600.0)
                assert verdict.standings[0].used == 0.1 * quotas.NANO, "booked once, however often it is said"
                there.settle(settled)
                await asyncio.sleep(0.2)
            await there.close(5.0)
            await again.close(1.0)

    scene.play(scenario)


def test_the_window_that_a_reservation_was_taken_from_gets_the_rest_back() -> None:
    """A router whose clock is behind at midnight takes from the new day, and gives back to it."""

    async def scenario() -> None:
        with stores.redis() as port:
            there, limits = shared(port), table.Limits(usd_per_day=10.0)
            tomorrow = held("a", need(usd=1.0), NOON + 86400, limits=limits)
            behind = held("b", need(usd=5.0), NOON, limits=limits)
            for one, now in ((tomorrow, NOON + 86400), (behind, NOON)):
                await there._run(b"reserve", one, 700.0, need=one.need, before=one.need, now=now)
            await there._run(b"settle", behind, 3600.0, need=need(usd=2.0), before=behind.need, now=NOON)
            probe = held("c", quotas.Need(), NOON + 86400, limits=limits)
            reply = await there._run(b"reserve", probe, 700.0, need=probe.need, before=probe.need, now=NOON + 86400)
            assert isinstance(reply, list)
            assert float(reply[2]) == 3 * quotas.NANO
            await there.close(1.0)

    scene.play(scenario)


def test_a_script_that_the_server_forgot_is_told_again() -> None:
    async def scenario() -> None:
        with stores.redis() as port:
            there = shared(port)
            assert (await there.reserve(held("a", need()), 600.0)).denied is None
            await there._execute(b"SCRIPT", b"FLUSH")
            assert (await there.reserve(held("b", need()), 600.0)).denied is None
            await there.close(1.0)

    scene.play(scenario)


def test_a_password_is_needed_where_there_is_one_and_never_told(tmp_path: object) -> None:
    async def scenario() -> None:
        secret = tmp_path / "password"  # type: ignore[operator]
        secret.write_text("canary-wrong\n")
        with stores.redis(0, "--requirepass", "canary-right") as port:
            there = shared(port, password_file=str(secret), database=3)
            with pytest.raises(resp.StoreDownError, match="refuses AUTH") as caught:
                await there.reserve(held("a", need()), 600.0)
            assert "canary" not in str(caught.value)
            secret.write_text("canary-right\n")
            await asyncio.sleep(0.3)
            assert (await there.reserve(held("a", need()), 600.0)).denied is None
            await there.close(1.0)

    scene.play(scenario)


@pytest.mark.skipif(test_tls.OPENSSL is None, reason="certificates are made with openssl")
def test_a_store_behind_tls_must_be_who_it_says(tmp_path: pathlib.Path) -> None:
    certificate, key = test_tls.make_certificate(tmp_path, "limits")
    other, _ = test_tls.make_certificate(tmp_path, "other")

    async def scenario() -> None:
        port = scene.closed_port()
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
        with stores.redis(scene.closed_port(), "--tls-port", str(port), *files):
            stores.wait_for(port)
            store = table.Store("Redis", f"localhost:{port}", tls=True, timeout_seconds=2.0)
            for trusted, serves in ((certificate, True), (other, False)):
                there = shared_accounts.SharedAccounts(
                    store, "ns/chat", clock=time.monotonic, wall_clock=time.time,
                    trust=lambda trusted=trusted: test_tls.believing(trusted),
                )  # fmt: skip
                if serves:
                    assert (await there.reserve(held("a", need()), 600.0)).denied is None
                else:
                    with pytest.raises(resp.StoreDownError, match="can't be reached"):
                        await there.reserve(held("b", need()), 600.0)
                await there.close(1.0)
                await asyncio.sleep(0.05)

    scene.play(scenario)


def test_a_server_that_hangs_costs_its_timeout_once_and_then_nothing() -> None:
    async def scenario() -> None:
        server = await stores.deaf()
        port = server.sockets[0].getsockname()[1]
        now = [0.0]
        client = resp.Client(lambda: resp.Address("127.0.0.1", port), 0.2, clock=lambda: now[0])
        with pytest.raises(resp.StoreDownError, match="in time"):
            await client.execute(b"PING")
        with pytest.raises(resp.StoreDownError, match="is down"):
            await client.execute(b"PING")
        now[0] = 0.3
        with pytest.raises(resp.StoreDownError, match="in time"):
            await client.execute(b"PING")
        server.close()
        await asyncio.sleep(0.05)

    scene.play(scenario)


REPLIES = st.recursive(
    st.integers(-(10**12), 10**12) | st.binary(max_size=20) | st.none(), lambda inner: st.lists(inner, max_size=4)
)


def encoded(reply: object) -> bytes:
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is None:
        return b"$-1\r\n"
    assert isinstance(reply, list)
    return b"*%d\r\n" % len(reply) + b"".join(encoded(each) for each in reply)


@given(replies=st.lists(REPLIES, max_size=5), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_replies_are_read_however_they_are_cut(replies: list[object], cuts: list[int]) -> None:
    data = b"".join(encoded(each) for each in replies)
    parser, read, start = resp.Parser(), [], 0
    for cut in [*sorted(min(each, len(data)) for each in cuts), len(data)]:
        read += parser.feed(data[start:cut])
        start = cut
    assert read == replies


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"$99999999\r\n", b"*1\r\n:x\r\n", b"*1\r\n" * 5000])
def test_what_is_not_resp_is_refused(data: bytes) -> None:
    with pytest.raises(resp.StoreDownError):
        resp.Parser().feed(data)


def test_limits_of_the_tests_cover_every_rule() -> None:
    assert {rule.kind for rule in quotas.rules(LIMITS)} == set(quotas.Kind)
