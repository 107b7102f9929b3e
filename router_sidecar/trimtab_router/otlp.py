"""Export of traces: OTLP over HTTP with JSON, one span for each request, with OpenTelemetry's names for generative AI.

Sources: the OTLP specification 1.x (``/v1/traces``, ids in hexadecimal, 64-bit numbers as strings), and OpenTelemetry's
semantic conventions for generative AI, status Development. What those have no name for begins with ``trimtab.``.
A collector that is slow or away costs nothing but spans: they wait in a bounded queue, and are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trimtab_router import ledger, metrics, outbox, witness

log = logging.getLogger("trimtab.router")

SINK = "otlp"
PATH = "/v1/traces"
_MOST = 8192
_BATCH = 512
_TIMEOUT_SECONDS = 5.0
_SERVER, _ERROR = 2, 2
"""SPAN_KIND_SERVER and STATUS_CODE_ERROR."""
_OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings", "messages": "chat"}
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent to."""

    host: str
    port: int
    path: str
    secure: bool


def collector(url: str) -> Collector:
    """Read an endpoint such as ``http://otel-collector:4318``.

    Raises:
        ValueError: if it is none; the message says why.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} has no valid port") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"{url!r} is not a URL such as http://otel-collector:4318")
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/")
    return Collector(
        parts.hostname, port or (443 if secure else 4318), path if path.endswith(PATH) else path + PATH, secure
    )


class Exporter:
    """Sends spans to a collector, aside of the traffic.

    Args:
        to: the collector.
        registry: for the count of spans that were dropped.
        instance: tells the routers of one deployment apart.
        trust: makes what a collector behind https is checked by.
    """

    def __init__(
        self, to: Collector, registry: metrics.Registry, *, instance: str, trust: Callable[[], ssl.SSLContext]
    ) -> None:
        self._to, self._instance, self._trust = to, instance, trust
        self._outbox: outbox.Outbox[witness.Record] = outbox.Outbox(SINK, _MOST, registry)
        self._complained = False

    def take(self, record: witness.Record) -> None:
        """Keep a record until it is sent."""
        self._outbox.put(record)

    async def run(self, seconds: float = 1.0) -> None:
        """Send for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.flush()

    async def flush(self) -> None:
        """Send what is there. A batch that can't be sent is dropped, and the next ones wait for the next time."""
        while records := self._outbox.take(_BATCH):
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    status = await self._send(body(records, self._instance))
            except (OSError, TimeoutError, ValueError) as error:
                self._outbox.dropped(len(records), "unreachable")
                self._complain(f"can't be reached: {str(error) or 'no answer in time'}")
                return
            if not 200 <= status < 300:  # noqa: PLR2004 (the class of success)
                self._outbox.dropped(len(records), "refused")
                self._complain(f"answered with status {status}")
                return
            self._complained = False

    async def _send(self, payload: bytes) -> int:
        to = self._to
        reader, writer = await asyncio.open_connection(to.host, to.port, ssl=self._trust() if to.secure else None)
        try:
            host = f"[{to.host}]" if ":" in to.host else to.host
            head = (
                f"POST {to.path} HTTP/1.1\r\nhost: {host}:{to.port}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(payload)}\r\nconnection: close\r\n\r\n"
            )
            writer.write(head.encode() + payload)
            await writer.drain()
            words = (await reader.readline()).split(b" ", 2)
            return int(words[1]) if len(words) > 1 else 0
        finally:
            writer.transport.abort()

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("the collector of traces %s; spans are dropped until it is back", what)


def body(records: list[witness.Record], instance: str) -> bytes:
    """An export request of records that have spans."""
    resource = {"service.name": "trimtab-router", "service.instance.id": instance}
    spans = [span(record) for record in records if record.span is not None]
    scope = {"scope": {"name": "trimtab"}, "spans": spans}
    return msgspec.json.encode(
        {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}
    )


def span(record: witness.Record) -> dict[str, Any]:
    """One span as OTLP's JSON has it."""
    place = record.span
    assert place is not None
    end = int(record.ended_at * _NANO)
    operation = _OPERATIONS.get(record.operation, record.operation)
    made: dict[str, Any] = {
        "traceId": place.trace_id,
        "spanId": place.span_id,
        "name": f"{operation} {record.asked_model}".strip(),
        "kind": _SERVER,
        "startTimeUnixNano": str(end - int(record.duration_seconds * _NANO)),
        "endTimeUnixNano": str(end),
        "attributes": _attributes(_told(record, operation)),
    }
    if place.parent_id:
        made["parentSpanId"] = place.parent_id
    if record.result in (ledger.FAILED, ledger.REJECTED):
        made["status"] = {"code": _ERROR}
    return made


def _told(record: witness.Record, operation: str) -> dict[str, Any]:
    """A span's attributes by name; those that are None are left out."""
    served = bool(record.endpoint)
    host, port = record.address or (None, None)
    failed = record.result not in (ledger.OK, ledger.CACHED)
    return {
        "gen_ai.operation.name": operation or None,
        "gen_ai.provider.name": ("vllm" if record.own else "openai") if served else None,
        "gen_ai.request.model": record.asked_model or None,
        "gen_ai.response.model": record.model or None,
        "gen_ai.request.stream": record.streamed,
        "gen_ai.response.finish_reasons": [record.finish_reason] if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": record.ttft_seconds,
        "gen_ai.usage.input_tokens": record.input_tokens if served else None,
        "gen_ai.usage.output_tokens": record.output_tokens if served else None,
        "gen_ai.usage.cache_read.input_tokens": record.cached_input_tokens if served else None,
        "http.response.status_code": record.status or None,
        "server.address": host,
        "server.port": port,
        "error.type": record.result if failed else None,
        "trimtab.request_id": record.request_id,
        "trimtab.policy": record.policy,
        "trimtab.class": record.class_ or None,
        "trimtab.tier": record.tier or None,
        "trimtab.endpoint": record.endpoint or None,
        "trimtab.tenant": record.tenant or None,
        "trimtab.result": record.result,
        "trimtab.cache": record.cache,
        "trimtab.attempts": record.attempts,
        "trimtab.cost.usd": record.cost_usd,
        "trimtab.usage.estimated": record.estimated,
    }


def _attributes(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in told.items() if value is not None]


def _value(value: object) -> dict[str, Any]:
    """A value as OTLP's JSON types it; whole numbers as strings, for they have 64 bits."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": str(value)}
