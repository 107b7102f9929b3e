"""The access log: one line of JSON for each request, with the fields below and no others.

Lines are made and written aside, in a thread: a reader of standard error that does not keep up must not stop traffic.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Callable

import msgspec

from trimtab_router import metrics, outbox, witness

SINK = "access-log"
_MOST = 20_000
_BATCH = 2000
_PIECE_BYTES = 4096
"""Writes up to this size into a pipe are not torn apart by those of other workers."""

Write = Callable[[bytes], object]


def to_stderr(data: bytes) -> None:
    """Write all of it to standard error."""
    while data:
        data = data[os.write(2, data) :]


def line(record: witness.Record) -> bytes:
    """The line of a request, with its end."""
    shown: dict[str, object] = {
        "time": _time(record.ended_at - record.duration_seconds),
        "requestId": record.request_id,
        "policy": record.policy,
        "class": record.class_,
        "tier": record.tier,
        "endpoint": record.endpoint,
        "tenant": record.tenant,
        "route": record.operation,
        "status": record.status,
        "result": record.result,
        "stream": record.streamed,
        "inputTokens": record.input_tokens,
        "cachedInputTokens": record.cached_input_tokens,
        "outputTokens": record.output_tokens,
        "estimated": record.estimated,
        "costUsd": float(f"{record.cost_usd:.10g}"),
        "ttftSeconds": None if record.ttft_seconds is None else round(record.ttft_seconds, 6),
        "durationSeconds": round(record.duration_seconds, 6),
        "attempts": record.attempts,
        "cache": record.cache,
    }
    if record.span is not None:
        shown["traceId"] = record.span.trace_id
    return msgspec.json.encode(shown) + b"\n"


def _time(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AccessLog:
    """Collects records and writes their lines.

    Args:
        registry: for the count of lines that were dropped.
        write: whole lines, at most ``_PIECE_BYTES`` at once unless one is longer.
    """

    def __init__(self, registry: metrics.Registry, write: Write = to_stderr) -> None:
        self._outbox: outbox.Outbox[witness.Record] = outbox.Outbox(SINK, _MOST, registry)
        self._write = write

    def take(self, record: witness.Record) -> None:
        """Keep a record until its line is written."""
        self._outbox.put(record)

    async def run(self, seconds: float = 0.2) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.flush()

    async def flush(self) -> None:
        """Write what is there."""
        loop = asyncio.get_running_loop()
        while records := self._outbox.take(_BATCH):
            try:
                await loop.run_in_executor(None, self._put, records)
            except OSError:
                self._outbox.dropped(len(records), "unwritable")

    def _put(self, records: list[witness.Record]) -> None:
        piece = b""
        for record in records:
            made = line(record)
            if piece and len(piece) + len(made) > _PIECE_BYTES:
                self._write(piece)
                piece = b""
            piece += made
        self._write(piece)
