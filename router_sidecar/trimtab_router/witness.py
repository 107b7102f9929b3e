"""The witness: tells what became of each request, to the access log and to a collector of traces.

Only what is listed in ``Record`` can be told: no prompt, no answer, no key, no header of the client but its request id.
A router without access log and collector has no witness, and pays nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import msgspec

from trimtab_router import ledger, traceparent


class Record(msgspec.Struct, frozen=True):
    """All that may be told of one request.

    Attributes:
        ended_at: epoch seconds.
        duration_seconds: from its first byte to its end.
        operation: name of the route.
        asked_model, model: that the client named, one of the table's, and that of the tier.
        class_, tier, endpoint: who served it; empty if nobody did.
        own: the tier is one of our own engines, not of a provider.
        address: of the endpoint, ``host:port``.
        status: of the answer; 0 if the client left before there was one.
        result: as the ledger has it.
        cache: ``hit``, ``miss``, ``bypass`` or ``off``.
        finish_reason: of the answer; empty if it has none.
        span: in the trace that is exported; None if none is.
    """

    ended_at: float
    duration_seconds: float
    request_id: str
    policy: str = ""
    operation: str = ""
    asked_model: str = ""
    model: str = ""
    class_: str = ""
    tier: str = ""
    endpoint: str = ""
    own: bool = True
    address: tuple[str, int] | None = None
    tenant: str = ""
    status: int = 0
    result: str = ledger.INVALID
    streamed: bool = False
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cost_usd: float = 0.0
    ttft_seconds: float | None = None
    attempts: int = 0
    cache: str = "off"
    finish_reason: str = ""
    span: traceparent.Span | None = None


class Sink(Protocol):
    """Where records go. Taking one must cost next to nothing; what can't be kept is dropped and counted."""

    def take(self, record: Record) -> None:
        """Keep a record until it is told."""


class Witness:
    """Hands records to sinks.

    Args:
        log: of accesses; None for no log.
        traces: None for no export.
        ratio: of requests without a parent that traces are kept of.
        rng: of the router.
        wall_clock: epoch seconds.
    """

    def __init__(
        self,
        log: Sink | None,
        traces: Sink | None,
        *,
        ratio: float,
        rng: random.Random,
        wall_clock: Callable[[], float],
    ) -> None:
        self._log, self._traces = log, traces
        self._ratio, self._rng = ratio, rng
        self.wall_clock = wall_clock

    def follow(self, headers: dict[bytes, bytes]) -> traceparent.Span | None:
        """Take a request into its trace, if that is exported: from now on engines are told of the router's span."""
        if self._traces is None:
            return None
        given = headers.get(traceparent.HEADER)
        parent = traceparent.read(given) if given is not None else None
        span = traceparent.follow(parent, self._rng, ratio=self._ratio)
        if span is not None:
            if parent is None:
                headers.pop(traceparent.STATE, None)
            headers[traceparent.HEADER] = span.header
        return span

    def ended(self, record: Record) -> None:
        """A request has ended."""
        if self._log is not None:
            self._log.take(record)
        if self._traces is not None and record.span is not None:
            self._traces.take(record)
