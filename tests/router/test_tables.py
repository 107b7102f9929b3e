"""The table: waited for, taken over whole, swapped under load, and never worse than the last good one."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from trimtab_core.routing import table

from . import scene, wire


def test_a_router_without_a_table_is_alive_not_ready_and_says_why(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with scene.router(None) as router, scene.engine() as engine:
            assert (await router.get("/healthz")).status == 200
            for admin in (False, True):
                assert (await router.get("/readyz", admin=admin)).status == 503
            reply = await router.ask()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "no routing table" in reply.error["message"]
            router.publish(scene.make_table(scene.tier("small", engine.port)))
            assert (await router.get("/readyz")).status == 200
            assert (await router.get("/readyz", admin=True)).status == 200
            assert (await router.ask()).status == 200

    scene.play(scenario)


def test_a_new_table_takes_effect_by_itself() -> None:
    async def scenario() -> None:
        async with scene.engine() as first, scene.engine() as second:
            data = scene.make_table(scene.tier("small", first.port))
            async with scene.router(data, poll_seconds=0.02) as router:
                await router.ask()
                scene.write_table(router.path, scene.make_table(scene.tier("small", second.port), revision=2))
                async with asyncio.timeout(5):
                    while not second.asked:
                        await asyncio.sleep(0.02)
                        await router.ask()

    scene.play(scenario)


def test_the_symlink_swap_of_a_configmap_volume_is_seen(tmp_path: pathlib.Path) -> None:
    def release(name: str, data: table.RoutingTable) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.json").write_bytes(table.encode(data))
        (tmp_path / "..tmp").symlink_to(name)
        (tmp_path / "..tmp").replace(tmp_path / "..data")

    async def scenario() -> None:
        async with scene.engine() as engine, scene.router(None) as router:
            release("..2026_01", scene.make_table(scene.tier("small", engine.port)))
            (tmp_path / "table.json").symlink_to("..data/table.json")
            file = router.router.tables
            file._path = tmp_path / "table.json"
            assert file.look()
            assert not file.look()
            release("..2026_02", scene.make_table(scene.tier("small", engine.port), revision=2))
            assert file.look()
            assert file.current is not None
            assert file.current.data.revision == 2

    scene.play(scenario)


def changed(**fields: Any) -> bytes:
    """A table that is sound but for these fields, and sealed."""
    good = scene.make_table(scene.tier("small", 1), revision=9)
    raw = {**json.loads(table.encode(good)), **fields}
    try:
        return table.encode(table.seal(table._decoder.decode(json.dumps(raw))))
    except ValueError:
        return json.dumps(raw).encode()


TIER = {
    "name": "small", "model": "small", "quality": 0.5, "endpoints": [{"name": "a", "address": "10.0.0.1:8000"}],
    "rates": {"inputUsdPerToken": 1e-6, "outputUsdPerToken": 1e-6},
}  # fmt: skip
CLASS = {"name": "default", "match": {}, "allow": ["small"], "weights": {"small": 1.0}}
REFUSED = {
    "empty": (b"", "not a routing table"),
    "half a file": (changed()[:200], "not a routing table"),
    "another format": (changed(format="2.0"), "format '2.0' is not 1.x"),
    "changed by hand": (changed().replace(b'"revision":9', b'"revision":10').replace(b'"auto"', b'"automatic"'), "contentHash"),
    "no class": (changed(classes=[]), "at least one"),
    "weights of an unknown tier": (changed(classes=[{**CLASS, "weights": {"huge": 1.0}}]), "unknown tiers huge"),
    "address without a port": (changed(tiers=[{**TIER, "endpoints": [{"name": "a", "address": "10.0.0.1"}]}]), "not host:port"),
    "address with a path": (
        changed(tiers=[{**TIER, "endpoints": [{"name": "a", "address": "10.0.0.1:80/x"}]}]), "not host:port",
    ),
    "external without http": (changed(tiers=[{**TIER, "external": {"baseUrl": "ftp://a"}}]), "not an http(s) URL"),
    "key file that is not there": (
        changed(tiers=[{**TIER, "external": {"baseUrl": "https://a", "apiKeyFile": "/nonexistent/key"}}]), "apiKeyFile",
    ),
    "classifier of another fit": (changed(classifier={"version": "x", "weights": {"vibes": 1.0}}), "unknown features vibes"),
    "another policy": (changed(policy="ns/other"), "is not this router's 'ns/chat'"),
    "an older epoch": (changed(epoch=0), "is older than"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_table_that_can_not_be_used_leaves_the_last_good_one_in_force(
    content: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            before = router.router.tables.current
            caplog.clear()
            router.publish(content)
            assert why in caplog.text
            assert "stays in force" in caplog.text
            assert router.router.tables.current is before
            assert (await router.ask()).status == 200
            assert await router.metric("table_rejected_total", policy="ns/chat", reason="invalid") == 1
            # It is not looked at again and again, but a good one after it is.
            router.router.tables.look()
            assert await router.metric("table_rejected_total") == 1
            assert before is not None
            router.publish(scene.make_table(before.data.tiers[0], revision=3))
            assert await router.metric("table_info", version=router.router.tables.current.version) == 1  # type: ignore[union-attr]

    scene.play(scenario)


def test_requests_under_way_end_by_the_table_they_began_with() -> None:
    async def scenario() -> None:
        def slow(asked):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return [0.2, *scene.engines.talk(asked)]

        async with (
            scene.engine(slow) as old,
            scene.engine() as new,
            scene.router(scene.make_table(scene.tier("small", old.port))) as router,
        ):
            asking = asyncio.ensure_future(router.ask(wire.chat(stream=True)))
            while not old.asked:
                await asyncio.sleep(0.01)
            router.publish(scene.make_table(scene.tier("small", new.port), revision=2))
            assert (await router.ask()).status == 200
            assert len(new.asked) == 1
            reply = await asking
            assert reply.text == "hi there you"

    scene.play(scenario)


def test_what_is_known_of_an_endpoint_outlives_the_table() -> None:
    async def scenario() -> None:
        async with scene.engine() as engine:
            tiers = (scene.tier("small", scene.closed_port()), scene.tier("large", engine.port, quality=0.9))
            async with scene.router(scene.make_table(*tiers)) as router:
                await router.ask()
                assert await router.metric("ejections_total") == 1
                connections = engine.connections
                router.publish(scene.make_table(*tiers, revision=2))
                assert (await router.ask()).headers["x-trimtab-attempts"] == "1"
                assert engine.connections == connections

    scene.play(scenario)


def test_the_admin_views_show_the_table_and_the_endpoints_and_no_secret() -> None:
    known = [table.Tenant("acme", "ab" * 32)]

    async def scenario() -> None:
        async with scene.one_engine(tenants=table.Tenants(known=known)) as (router, engine):
            await router.ask()
            shown = (await router.get("/admin/table", admin=True)).json()
            assert shown["version"] == router.router.tables.current.version  # type: ignore[union-attr]
            assert shown["table"]["tenants"]["known"] == [{"name": "acme"}]
            assert "abab" not in json.dumps(shown)
            (endpoint,) = (await router.get("/admin/endpoints", admin=True)).json()["endpoints"]
            assert endpoint["address"] == f"127.0.0.1:{engine.port}"
            assert (endpoint["inFlight"], endpoint["idleConnections"], endpoint["failuresInARow"]) == (0, 1, 0)
            (entry,) = (await router.get("/admin/requests", admin=True)).json()["requests"]
            assert (entry["result"], entry["tier"], entry["outputTokens"]) == ("ok", "small", 4)
            assert (await router.get("/admin/nothing", admin=True)).status == 404
            # Views and metrics are not for clients.
            assert (await router.get("/admin/table")).status == 404

    scene.play(scenario)


def test_a_table_that_breaks_the_router_itself_is_refused_like_a_bad_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, _):
            before = router.router.tables.current
            assert before is not None
            monkeypatch.setattr(router.router.tables._compiler, "compile", lambda _: 1 / 0)
            router.publish(scene.make_table(before.data.tiers[0], revision=2))
            assert router.router.tables.current is before
            assert "ZeroDivisionError" in caplog.text
            assert await router.metric("table_rejected_total", reason="internal") == 1

    scene.play(scenario)


def test_the_ring_of_a_tier_is_made_anew_only_when_its_endpoints_change() -> None:
    async def scenario() -> None:
        async with scene.router(scene.make_table(scene.tier("small", 1, 2))) as router:

            def ring() -> object:
                current = router.router.tables.current
                assert current is not None
                return current.tiers["small"].ring

            first = ring()
            router.publish(scene.make_table(scene.tier("small", 1, 2, quality=0.6), revision=2))
            assert ring() is first
            router.publish(scene.make_table(scene.tier("small", 1, 2, 3), revision=3))
            assert ring() is not first
            router.publish(scene.make_table(scene.tier("small", 1), revision=4))
            assert ring() is None

    scene.play(scenario)
