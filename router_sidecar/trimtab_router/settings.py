"""What a router process is started with. Everything about traffic is in the routing table instead."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may make a router hold.

    Attributes:
        head_bytes: of request line and headers.
        body_bytes: of a request's body.
        answer_bytes: of an engine's answer that is not streamed.
        event_bytes: of one server-sent event.
        pipelined: requests read ahead on one connection.
        request_seconds: from a request's first byte to its last.
        idle_seconds: without any request on a connection.
        connections: of clients at one time; more are refused.
    """

    head_bytes: int = 64 << 10
    body_bytes: int = 64 << 20
    answer_bytes: int = 256 << 20
    event_bytes: int = 16 << 20
    pipelined: int = 8
    request_seconds: float = 60.0
    idle_seconds: float = 90.0
    connections: int = 20_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How one router process runs.

    Attributes:
        table: file of the routing table; need not exist yet.
        host: address to listen on, for clients.
        port: for clients.
        admin_port: for metrics, health and the admin views.
        drain_seconds: how long requests under way may go on after SIGTERM.
        workers: processes that share ``port``; worker ``i`` has admin port ``admin_port + i``.
        processes: that serve on the port together, this one included; set by the start of workers.
        poll_seconds: between two looks at the table file.
        tls_certificate, tls_key: PEM files; with both the port for clients speaks TLS.
        upstream_ca: PEM file of authorities that providers are believed by, besides the system's.
        access_log: a line of JSON on standard error for each request.
        otlp_endpoint: URL of a collector of traces; None exports none.
        otlp_ratio: of requests that come without a trace of their own to export.
        admin_host: address of the admin port; None for ``host``.
        seed: of the random choices; None takes one from the system.
    """

    table: Path
    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int = 8081
    drain_seconds: float = 30.0
    workers: int = 1
    processes: int = 1
    poll_seconds: float = 0.5
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    upstream_ca: Path | None = None
    access_log: bool = False
    otlp_endpoint: str | None = None
    otlp_ratio: float = 1.0
    admin_host: str | None = None
    seed: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def admin_address(self) -> str:
        """Where the admin port is bound."""
        return self.host if self.admin_host is None else self.admin_host
