"""Who a request is of: keys in rotation, hops that may be believed, and those that may not."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from trimtab_core.routing import table
from trimtab_router import errors, identity

from . import scene, wire


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


ACME = table.Tenant("acme", sha("sk-old").upper(), [sha("sk-new")])


class Peer:
    """A transport, as far as identity looks at it."""

    def __init__(self, address: Any) -> None:
        self.address = address

    def get_extra_info(self, name: str) -> Any:
        assert name == "peername"
        return self.address


def who(tenants: table.Tenants, headers: dict[bytes, bytes], peer: Any = ("10.1.2.3", 5)) -> str:
    return identity.Callers(tenants).identify(headers, Peer(peer)).name  # type: ignore[arg-type]


KEYS = {
    "the first key": ({b"authorization": b"Bearer sk-old"}, "acme"),
    "one that takes its place": ({b"authorization": b"bearer  sk-new "}, "acme"),
    "as Anthropic's clients send it": ({b"x-api-key": b"sk-new"}, "acme"),
    "the bearer goes first": ({b"authorization": b"Bearer sk-old", b"x-api-key": b"sk-other"}, "acme"),
    "an unknown one": ({b"authorization": b"Bearer sk-ol"}, ""),
    "the hash itself": ({b"authorization": b"Bearer " + sha("sk-old").encode()}, ""),
    "one that is too long": ({b"authorization": b"Bearer " + b"x" * 600}, ""),
}


@pytest.mark.parametrize(("headers", "expected"), KEYS.values(), ids=KEYS.keys())
def test_any_key_of_a_tenant_names_it(headers: dict[bytes, bytes], expected: str) -> None:
    assert who(table.Tenants(known=[ACME]), headers) == expected


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = hmac.compare_digest
    monkeypatch.setattr(identity.hmac, "compare_digest", lambda a, b: seen.append((a, b)) or real(a, b))
    assert who(table.Tenants(known=[ACME]), {b"authorization": b"Bearer sk-old"}) == "acme"
    assert seen == [(sha("sk-old"), sha("sk-old"))]


PEERS = {
    "inside": (["10.0.0.0/8"], ("10.1.2.3", 1), True),
    "outside": (["10.0.0.0/8"], ("11.1.2.3", 1), False),
    "one address": (["10.1.2.3"], ("10.1.2.3", 1), True),
    "IPv6": (["fd00::/8"], ("fd12::1", 1, 0, 0), True),
    "IPv6 outside": (["fd00::/8"], ("fe80::1%eth0", 1, 0, 0), False),
    "IPv4 in an IPv6 socket": (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1, 0, 0), True),
    "a host bit set": (["10.9.9.9/8"], ("10.1.2.3", 1), True),
    "no address": (["10.0.0.0/8"], None, False),
    "a Unix socket": (["10.0.0.0/8"], "/run/x.sock", False),
    "nobody listed": ([], ("11.1.2.3", 1), True),
}


@pytest.mark.parametrize(("networks", "peer", "believed"), PEERS.values(), ids=PEERS.keys())
def test_a_tenants_name_is_believed_of_trusted_peers_alone(networks: list[str], peer: Any, *, believed: bool) -> None:
    tenants = table.Tenants(trusted_header=True, trusted_peers=networks)
    headers = {b"x-trimtab-tenant": b"acme"}
    assert who(tenants, headers, peer) == ("acme" if believed else "")
    if not believed:
        with pytest.raises(errors.Unauthorized):
            who(table.Tenants(required=True, trusted_header=True, trusted_peers=networks), headers, peer)


def test_a_key_outweighs_what_a_hop_says() -> None:
    tenants = table.Tenants(trusted_header=True, known=[ACME])
    assert who(tenants, {b"authorization": b"Bearer sk-new", b"x-trimtab-tenant": b"other"}) == "acme"


@pytest.mark.parametrize("name", [b"", b"a b", b"-a", b"x" * 64, b"a\r\nb", b"a\0", "ü".encode()])
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    with pytest.raises(errors.BadHeader):
        who(table.Tenants(trusted_header=True), {b"x-trimtab-tenant": name})


def test_the_same_tenant_has_the_same_salt_in_every_router_and_another_secret_changes_it(tmp_path: Any) -> None:
    def salt(**fields: Any) -> bytes:
        tenants = table.Tenants(known=[ACME], isolate=True, **fields)
        return identity.Callers(tenants).identify({b"authorization": b"Bearer sk-new"}, None).salt

    secret = tmp_path / "salt"
    secret.write_text("one\n")
    first = salt(salt_file=str(secret))
    assert salt() == salt()
    assert first == salt(salt_file=str(secret)) != salt()
    secret.write_text("two")
    assert salt(salt_file=str(secret)) != first


def test_the_network_of_a_real_connection_is_looked_at() -> None:
    async def scenario() -> None:
        for network, tenant in (("127.0.0.0/8", "acme"), ("10.0.0.0/8", "anonymous")):
            tenants = table.Tenants(trusted_header=True, trusted_peers=[network])
            async with scene.one_engine(tenants=tenants) as (router, _):
                await router.ask(x_trimtab_tenant="acme")
                assert await router.metric("cost_usd_total", tenant=tenant) > 0

    scene.play(scenario)


@pytest.mark.parametrize("header", ["x-api-key", "x-trimtab-max-cost-usd", "authorization"])
def test_credentials_and_own_headers_given_twice_are_refused(header: str) -> None:
    async def scenario() -> None:
        async with scene.one_engine() as (router, engine), await wire.Client.open(router.port) as client:
            twice = f"{header}: 1\r\n{header}: 2\r\n".encode()
            client.send(wire.request(wire.chat()).replace(b"host: router\r\n", b"host: router\r\n" + twice))
            assert (await client.reply()).error["code"] == "bad_header"
            assert engine.asked == []

    scene.play(scenario)
