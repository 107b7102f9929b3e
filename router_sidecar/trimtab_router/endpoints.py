"""Endpoints as this router knows them: what the table says of them, and what this router has seen itself.

They outlive tables: a new table updates them in place, so counts in flight, ejections and warm connections
stay. An endpoint that a table no longer names ends with its last request.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trimtab_core.routing import table

from trimtab_router import upstream

EXTERNAL_CAPACITY = 1e6
"""A provider limits requests by its own rules, not by running sequences."""


class Endpoint:
    """One engine, or one external provider.

    Attributes:
        tier: name of its tier.
        name: pod or process name.
        host, port: where it is.
        ready, capacity: as the table says.
        in_flight: requests under way through this router.
        failures: in a row.
        ejected_until: monotonic seconds; 0 if never ejected.
        tls: for external providers behind https.
        base_path: what comes before ``/v1``.
        head: constant header lines of every request to it.
    """

    __slots__ = (
        "base_path", "capacity", "ejected_until", "failures", "head", "host", "in_flight", "name", "pool", "port",
        "ready", "state", "tier", "tls",
    )  # fmt: skip

    def __init__(self, tier: str, name: str, address: tuple[str, int]) -> None:
        self.tier = tier
        self.name = name
        self.host, self.port = address
        self.ready = True
        self.state: str = "Ready"
        self.capacity = 1.0
        self.in_flight = self.failures = 0
        self.ejected_until = 0.0
        self.tls: ssl.SSLContext | None = None
        self.base_path = b""
        self.head = b"host: %b\r\naccept: */*\r\n" % host_header(self.host, self.port)
        self.pool = upstream.Pool()

    def succeeded(self) -> None:
        """It answered: whatever it failed before is forgotten."""
        self.failures = 0
        self.ejected_until = 0.0

    def failed(self, resilience: table.Resilience, now: float, *, at_once: bool) -> bool:
        """Count a failure; returns whether it ejects the endpoint.

        After its time the endpoint gets requests again, but its failures stay counted until it answers one:
        the next failure ejects it anew.
        """
        self.failures += 1
        if self.ejected_until > now or not (at_once or self.failures >= resilience.eject_after):
            return False
        self.failures = max(self.failures, resilience.eject_after)
        self.ejected_until = now + resilience.eject_seconds
        self.pool.close()
        return True


def host_header(host: str, port: int) -> bytes:
    """Value of the ``host`` header; IPv6 addresses in brackets."""
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}".encode()


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        table.TableError: if it is neither.
    """
    parts = urlsplit(f"//{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path or parts.username:
        raise table.TableError(f"endpoint address {address!r} is not host:port")
    return parts.hostname, port


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a table says of an endpoint, until all of the table is known to be good."""

    endpoint: Endpoint
    state: str
    capacity: float
    head: bytes


class Directory:
    """All endpoints that this router knows, by tier and name and address."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Endpoint] = {}

    def update(self, tiers: list[table.Tier]) -> dict[str, list[Endpoint]]:
        """Take over a table's endpoints; tier → endpoints. Nothing changes if the table has an error.

        Raises:
            table.TableError: on an address or URL that can't be read.
        """
        wanted: dict[tuple[str, str, str], _Wanted] = {}
        for tier in tiers:
            for each in tier.endpoints:
                key = (tier.name, each.name, each.address)
                known = self._known.get(key) or Endpoint(tier.name, each.name, parse_address(each.address))
                wanted[key] = _Wanted(known, each.state, max(1.0, each.capacity), known.head)
            if tier.external is not None:
                key = (tier.name, "external", tier.external.base_url)
                wanted[key] = _external(tier.name, tier.external, self._known.get(key))
        for key, gone in self._known.items():
            if key not in wanted:
                gone.ready = False
                gone.pool.close()
        self._known = {key: each.endpoint for key, each in wanted.items()}
        by_tier: dict[str, list[Endpoint]] = {tier.name: [] for tier in tiers}
        for entry in wanted.values():
            endpoint = entry.endpoint
            endpoint.state, endpoint.ready = entry.state, entry.state == "Ready"
            endpoint.capacity, endpoint.head = entry.capacity, entry.head
            by_tier[endpoint.tier].append(endpoint)
        return by_tier

    def all(self) -> list[Endpoint]:
        """Every endpoint of the table in force."""
        return list(self._known.values())


def _external(tier: str, external: table.External, known: Endpoint | None) -> _Wanted:
    parts = urlsplit(external.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise table.TableError(f"tiers[{tier}].external.baseUrl {external.base_url!r} is not an http(s) URL")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    key = _read_key(tier, external.api_key_file) if external.api_key_file else b""
    authorization = b"authorization: Bearer %b\r\n" % key if key else b""
    endpoint = known or Endpoint(tier, "external", (parts.hostname, port))
    if known is None:
        endpoint.base_path = parts.path.rstrip("/").encode()
        endpoint.tls = ssl.create_default_context() if secure else None
    host = parts.netloc.rpartition("@")[2].encode()
    head = b"host: %b\r\naccept: */*\r\n%b" % (host, authorization)
    return _Wanted(endpoint, "Ready", EXTERNAL_CAPACITY, head)


def _read_key(tier: str, path: str) -> bytes:
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise table.TableError(f"tiers[{tier}].external.apiKeyFile {path}: {error.strerror}") from error
    if not key or b"\n" in key or b"\r" in key:
        raise table.TableError(f"tiers[{tier}].external.apiKeyFile {path}: holds no key of one line")
    return key
