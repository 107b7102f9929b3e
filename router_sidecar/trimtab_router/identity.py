"""Identity: which tenant a request is of. By API key, or by the word of a hop that may be believed; nothing else.

Keys are known by their SHA-256 alone. A look-up by the hash of what came tells nothing of any key by its time, and the
last word is a comparison in constant time all the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from asyncio import BaseTransport
from collections.abc import Iterable
from pathlib import Path

import msgspec
from trimtab_core.routing import table

from trimtab_router import errors, quotas

HEADER = b"x-trimtab-tenant"
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BEARER = b"bearer "
_LONGEST_KEY = 512
_SALT_BYTES = 24
_REMEMBERED_PEERS = 4096

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK: list[Network] = [ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128")]


class Caller(msgspec.Struct, frozen=True):
    """Who a request is of.

    Attributes:
        name: of the tenant; empty if unknown.
        rules: what it may use.
        salt: keeps its prefix cache apart; empty where caches are shared.
    """

    name: str = ""
    rules: tuple[quotas.Rule, ...] = ()
    salt: bytes = b""


NOBODY = Caller()


class Callers:
    """All callers that a table knows.

    Args:
        tenants: of the table.

    Raises:
        table.TableError: if a network, a hash or the salt's file can't be used.
    """

    def __init__(self, tenants: table.Tenants) -> None:
        self._required = tenants.required
        self._trusts_header = tenants.trusted_header
        self._networks = [_network(each) for each in tenants.trusted_peers]
        self._believed: dict[str, bool] = {}
        self._default = quotas.rules(tenants.default_limits)
        self._secret = _secret(tenants) if tenants.isolate else b""
        self._by_name = {each.name: self._known(each) for each in tenants.known}
        self._by_hash = {
            _digest(digest, each.name): (digest.lower(), self._by_name[each.name])
            for each in tenants.known
            for digest in (each.key_sha256, *each.further_sha256)
            if digest
        }
        self._nobody = Caller("", self._default, self._salt(""))
        self.limits = bool(self._default) or any(each.rules for each in self._by_name.values())

    @property
    def known(self) -> Iterable[Caller]:
        """The tenants that the table names."""
        return self._by_name.values()

    def identify(self, headers: dict[bytes, bytes], transport: BaseTransport | None) -> Caller:
        """Who sent these headers.

        Raises:
            errors.Unauthorized: if the policy needs a known caller and this is none.
            errors.BadHeader: if the tenant's name is none.
        """
        key = api_key(headers) if self._by_hash or self._required else b""
        if key and self._by_hash:
            digest = hashlib.sha256(key).hexdigest()
            known = self._by_hash.get(digest)
            if known is not None and hmac.compare_digest(known[0], digest):
                return known[1]
        if self._trusts_header and HEADER in headers and self.believes(transport):
            return self._named(name(headers, HEADER))
        if self._required:
            problem = "the API key is not known" if key else "an API key is needed: Authorization: Bearer KEY"
            raise errors.Unauthorized(problem)
        return self._nobody

    def believes(self, transport: BaseTransport | None) -> bool:
        """Whether the hop at the other end may say who a request is of."""
        if not self._networks:
            return True
        peer = transport.get_extra_info("peername") if transport is not None else None
        if not isinstance(peer, tuple):
            return False
        host = str(peer[0])
        found = self._believed.get(host)
        if found is None:
            if len(self._believed) >= _REMEMBERED_PEERS:
                self._believed.clear()
            found = self._believed[host] = _is_within(host, self._networks)
        return found

    def may_debug(self, transport: BaseTransport | None) -> bool:
        """Whether the hop at the other end may see what goes on inside: one of the networks, else this machine."""
        return self.believes(transport) if self._networks else is_local(transport)

    def salted(self, caller: Caller, given: bytes) -> bytes:
        """The salt of a caller that sent one of its own: it may divide its cache further, and enter no other's."""
        return self._salt(caller.name, given)

    def _named(self, tenant: str) -> Caller:
        return self._by_name.get(tenant) or Caller(tenant, self._default, self._salt(tenant))

    def _known(self, tenant: table.Tenant) -> Caller:
        rules = self._default if tenant.limits is None else quotas.rules(tenant.limits)
        return Caller(tenant.name, rules, self._salt(tenant.name))

    def _salt(self, tenant: str, given: bytes = b"") -> bytes:
        if not self._secret:
            return b""
        mac = hmac.digest(self._secret, tenant.encode() + b"\0" + given, "sha256")
        return base64.urlsafe_b64encode(mac[:_SALT_BYTES])


def is_local(transport: BaseTransport | None) -> bool:
    """Whether the other end is on this machine, or in this pod."""
    peer = transport.get_extra_info("peername") if transport is not None else None
    return isinstance(peer, tuple) and _is_within(str(peer[0]), _LOOPBACK)


def api_key(headers: dict[bytes, bytes]) -> bytes:
    """The API key that came, as OpenAI's clients send it or as Anthropic's do; empty if none did."""
    credentials = headers.get(b"authorization", b"")
    if credentials[: len(_BEARER)].lower() == _BEARER:
        key = credentials[len(_BEARER) :].strip()
    else:
        key = headers.get(b"x-api-key", b"").strip()
    return key if len(key) <= _LONGEST_KEY else b""


def name(headers: dict[bytes, bytes], header: bytes) -> str:
    """The name in a header; empty without it.

    Raises:
        errors.BadHeader: if it is none.
    """
    value = headers.get(header)
    if value is None:
        return ""
    if not _NAME.fullmatch(value):
        raise errors.BadHeader(
            f"{header.decode()} must be 1 to 63 letters, digits, dots, dashes or underscores", param=header.decode()
        )
    return value.decode()


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise table.TableError(f"tenants.trustedPeers: {text!r} is no network such as 10.0.0.0/8") from error


def _is_within(host: str, networks: list[Network]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == each.version and address in each for each in networks)


def _digest(text: str, tenant: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise table.TableError(f"tenants.known[{tenant}]: a key's hash must be the SHA-256 in hex")
    return text.lower()


def _secret(tenants: table.Tenants) -> bytes:
    """What salts are derived from: a file, or else the keys' hashes, which no tenant knows of another."""
    if not tenants.salt_file:
        hashes = sorted(digest for each in tenants.known for digest in (each.key_sha256, *each.further_sha256))
        return hashlib.sha256("\n".join(["trimtab", *hashes]).encode()).digest()
    try:
        secret = Path(tenants.salt_file).read_bytes().strip()
    except OSError as error:
        raise table.TableError(f"tenants.saltFile {tenants.salt_file}: {error.strerror}") from error
    if not secret:
        raise table.TableError(f"tenants.saltFile {tenants.salt_file}: is empty")
    return secret
