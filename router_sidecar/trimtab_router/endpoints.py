"""Endpoints as this router knows them: what the table says of them, and what this router has seen itself.

They outlive tables: a new table updates them in place, so counts in flight, ejections and warm connections
stay. An endpoint that a table no longer names ends with its last request.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trimtab_core.routing import filters, scorers, table

from trimtab_router import breaker, upstream
from trimtab_router import external as providers

_PATIENCE = 0.25
"""Part of the time limit of a first byte after which an endpoint that brings nothing at all gets no more requests."""

EXTERNAL_CAPACITY = 1e6
"""A provider limits requests by its own rules, not by running sequences."""


class Endpoint:
    """One engine, or one external provider; a ``picker.Candidate``.

    Attributes:
        tier: name of its tier.
        name: pod or process name.
        host, port: where it is.
        state, capacity, kv_usage: as the table says.
        ready: it gets new requests; see ``filters.admits``.
        penalty: see ``scorers.penalty``.
        in_flight: requests under way through this router.
        streams: those of them that should bring bytes now: under way to a client that keeps up.
        awaited: those that should bring a first byte of a stream.
        beats: reads that brought bytes of any answer; what moves is alive.
        moved_at: monotonic seconds when it last brought bytes, or began to have streams under way; to the tick.
        stalled: streams are under way or awaited, and nothing of anything has come for too long.
        busy_until: monotonic seconds; what it asked for when it was full.
        breaker: what its answers say of it.
        freed: to be called when it has room again; None while nobody waits.
        tls: for external providers behind https.
        external: what providers have beside it; None for engines of our own.
        base_path: what comes before ``/v1``.
        head: constant header lines of every request to it.
    """

    __slots__ = (
        "_beats_seen", "awaited", "base_path", "beats", "breaker", "busy_until", "capacity", "external", "freed",
        "head", "host", "in_flight", "kv_usage", "moved_at", "name", "penalty", "pool", "port", "ready", "stalled",
        "state", "streams", "tier", "tls",
    )  # fmt: skip

    def __init__(self, tier: str, name: str, address: tuple[str, int]) -> None:
        self.tier = tier
        self.name = name
        self.host, self.port = address
        self.ready = True
        self.state: table.EndpointState = "Ready"
        self.capacity = 1.0
        self.kv_usage = self.penalty = 0.0
        self.in_flight = self.streams = self.awaited = self.beats = self._beats_seen = 0
        self.moved_at = self.busy_until = 0.0
        self.stalled = False
        self.breaker = breaker.Breaker()
        self.freed: Callable[[], None] | None = None
        self.tls: ssl.SSLContext | None = None
        self.external: providers.Provider | None = None
        self.base_path = b""
        self.head = b"host: %b\r\naccept: */*\r\n" % host_header(self.host, self.port)
        self.pool = upstream.Pool()

    def noticed(self, now: float) -> None:
        """A request is sent to a provider, or to an endpoint that isn't trusted again yet."""
        if self.breaker.state is breaker.State.HALF_OPEN:
            self.breaker.probing = True
            self.judge(now)
        if self.external is not None:
            self.pace(self.external.sent(now), now)

    def expect(self, now: float, *, first: bool = False) -> None:
        """One more stream should bring bytes from now on, or its first one."""
        if self.streams + self.awaited == 0:
            self.moved_at = now
        if first:
            self.awaited += 1
        else:
            self.streams += 1

    def excuse(self, *, first: bool) -> None:
        """One stream less should bring bytes, or its first one."""
        if first:
            self.awaited -= 1
        else:
            self.streams -= 1

    def succeeded(self, clock: Callable[[], float]) -> None:
        """It answered: whatever it failed before is forgotten."""
        kept = self.breaker
        if kept.state is breaker.State.CLOSED:
            kept.good += 1
            kept.failures = 0
        else:
            now = clock()
            kept.succeeded(now)
            self.judge(now)

    def passed_over(self, now: float) -> None:
        """A request ended without a word on how it does."""
        if self.breaker.probing:
            self.breaker.released()
            self.judge(now)

    def failed(self, rules: table.Resilience, now: float, *, at_once: bool, peers: Sequence[Endpoint] = ()) -> bool:
        """Count a failure; returns whether it ejects the endpoint.

        Args:
            rules: of the policy.
            now: monotonic seconds.
            at_once: nobody listens there: no opinion, a fact, and no cap spares it.
            peers: all endpoints of its tier: only so many of them may be ejected for what they answer, because the
                others would have to carry what is theirs.
        """
        if not self.breaker.failed(rules, at_once=at_once):
            return False
        was_open = self.breaker.state is not breaker.State.CLOSED
        if not at_once and not was_open:
            others = sum(each.breaker.state is not breaker.State.CLOSED for each in peers)
            if others >= max(1, int(rules.max_ejected * len(peers))):
                return False
        self.breaker.open(rules, now)
        self.pool.close()
        self.judge(now)
        return True

    def pace(self, until: float, now: float) -> None:
        """A limit that was agreed with a provider lets the next request out then."""
        if until > now:
            self.rest(until, now)

    def told(self, told: dict[bytes, bytes], now: float) -> None:
        """What a provider's answer says of its limits."""
        if self.external is not None:
            self.pace(self.external.told(told, now), now)

    def rest(self, until: float, now: float) -> None:
        """It is full, and says until when (monotonic seconds)."""
        self.busy_until = max(self.busy_until, until)
        self.judge(now)

    def tick(self, rules: table.Resilience, now: float) -> None:
        """Look whether it moves, and let its breaker's time pass."""
        if self.beats != self._beats_seen:
            self._beats_seen, self.moved_at = self.beats, now
        silent = now - self.moved_at
        # Tokens follow each other closely; a first one may be long in coming, while a long prompt is read.
        stalled = (self.streams > 0 and silent > rules.stall_after) or (
            self.awaited > 0 and silent > max(rules.stall_after, _PATIENCE * rules.first_byte_timeout)
        )
        changed = self.breaker.tick(rules, now)
        if self.breaker.state is not breaker.State.CLOSED or self.penalty:
            self.penalty = self._penalty(rules, now)
        if changed or stalled != self.stalled or self.busy_until:
            self.stalled = stalled
            self.judge(now)

    def judge(self, now: float) -> None:
        """Work out whether it gets new requests."""
        busy = self.busy_until > now
        if not busy:
            self.busy_until = 0.0
        self.ready = filters.admits(self.state, filters.Evidence(self.breaker.broken, self.stalled, busy))

    def take_over(self, wanted: _Wanted, now: float) -> None:
        """Become what a new table says."""
        self.external = wanted.provider
        self.state, self.capacity, self.kv_usage, self.head = (
            wanted.state, wanted.capacity, wanted.kv_usage, wanted.head,
        )  # fmt: skip
        if self.breaker.state is breaker.State.CLOSED:
            self.penalty = scorers.penalty(self.capacity, kv_usage=self.kv_usage)
        self.judge(now)

    def _penalty(self, rules: table.Resilience, now: float) -> float:
        share = self.breaker.share(rules, now)
        return scorers.penalty(self.capacity, kv_usage=self.kv_usage, share=share)


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
    state: table.EndpointState
    capacity: float
    head: bytes
    kv_usage: float = 0.0
    provider: providers.Provider | None = None


class Directory:
    """All endpoints that this router knows, by tier and name and address.

    Args:
        trust: makes what providers behind https are checked by.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> None:
        self.trust = trust
        self._known: dict[tuple[str, str, str], Endpoint] = {}

    def update(self, tiers: list[table.Tier], now: float) -> dict[str, list[Endpoint]]:
        """Take over a table's endpoints; tier → endpoints. Nothing changes if the table has an error.

        Args:
            tiers: of the table.
            now: monotonic seconds.

        Raises:
            table.TableError: on an address or URL that can't be read.
        """
        wanted: dict[tuple[str, str, str], _Wanted] = {}
        for tier in tiers:
            for each in tier.endpoints:
                key = (tier.name, each.name, each.address)
                known = self._known.get(key) or Endpoint(tier.name, each.name, parse_address(each.address))
                wanted[key] = _Wanted(known, each.state, max(1.0, each.capacity), known.head, each.kv_usage)
            if tier.external is not None:
                key = (tier.name, "external", tier.external.base_url)
                wanted[key] = _external(tier.name, tier.external, self._known.get(key), trust=self.trust)
        for key, gone in self._known.items():
            if key not in wanted:
                gone.state, gone.ready = "Draining", False
                gone.pool.retire()
        self._known = {key: each.endpoint for key, each in wanted.items()}
        by_tier: dict[str, list[Endpoint]] = {tier.name: [] for tier in tiers}
        for entry in wanted.values():
            entry.endpoint.take_over(entry, now)
            by_tier[entry.endpoint.tier].append(entry.endpoint)
        return by_tier

    def reread_keys(self) -> None:
        """Take over the keys of providers whose files have changed."""
        for endpoint in self._known.values():
            if endpoint.external is not None and endpoint.external.reread():
                endpoint.head = endpoint.external.head

    def all(self) -> list[Endpoint]:
        """Every endpoint of the table in force."""
        return list(self._known.values())


def _external(
    tier: str, external: table.External, known: Endpoint | None, *, trust: Callable[[], ssl.SSLContext]
) -> _Wanted:
    parts = urlsplit(external.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise table.TableError(f"tiers[{tier}].external.baseUrl {external.base_url!r} is not an http(s) URL")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    endpoint = known or Endpoint(tier, "external", (parts.hostname, port))
    if known is None:
        endpoint.base_path = parts.path.rstrip("/").encode()
        endpoint.tls = trust() if secure else None
    start = b"host: %b\r\naccept: */*\r\n" % parts.netloc.rpartition("@")[2].encode()
    try:
        provider = providers.Provider(external, start, endpoint.external)
    except table.TableError as error:
        raise table.TableError(f"tiers[{tier}].external.{error}") from error
    return _Wanted(endpoint, "Ready", EXTERNAL_CAPACITY, provider.head, provider=provider)
