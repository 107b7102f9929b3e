"""The open-loop load client: sends each request of a plan at its time, however slow the answers are.

Runs as a process of its own, so that neither the planner nor the live view can delay a measurement::

    python -m trimtab_cli.demonstration.load_client URL PLAN RESULTS START_AT GIVE_UP_SECONDS

PLAN and RESULTS are files of JSON lines (``outcomes.Shot`` and ``outcomes.Line``); START_AT is in epoch seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import aiohttp
import msgspec
import uvloop

from trimtab_cli.demonstration import outcomes

_TICK_SECONDS = 0.02
_FLUSH_SECONDS = 0.25
_ERROR_LENGTH = 160


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    """The parts of a streamed chunk that are measured; the rest is skipped by the decoder."""

    model: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_decode_event = msgspec.json.Decoder(_Event).decode


class Stream:
    """Reads one SSE answer byte by byte as it comes; knows when content came and whether the answer is complete.

    Attributes:
        first_at, last_at: when the first and the newest content came, in the caller's clock; None before.
    """

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.usage = _Usage()
        self.model = ""
        self._finish: str | None = None
        self._done = False
        self._error = ""
        self._rest = b""

    def feed(self, data: bytes, at: float) -> None:
        """Take bytes that came at a moment."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            payload = event.removeprefix(b"data:").strip()
            if payload == b"[DONE]":
                self._done = True
            elif event.startswith(b"data:"):
                self._take(payload, at)

    def failure(self) -> str:
        """Why the answer doesn't count; empty for a complete one. ``[DONE]`` alone proves nothing."""
        if self._error:
            return self._error
        if self._finish == "abort":
            return "the engine aborted the answer"
        if self._finish is None or not self._done:
            return "the stream ended before the answer did"
        return ""

    def _take(self, payload: bytes, at: float) -> None:
        try:
            event = _decode_event(payload)
        except msgspec.MsgspecError as error:
            self._error = f"bad event: {error}"
            return
        if event.error:
            self._error = bytes(event.error).decode(errors="replace")[:_ERROR_LENGTH]
        self.usage = event.usage or self.usage
        self.model = event.model or self.model
        for choice in event.choices:
            self._finish = choice.finish_reason or self._finish
            if choice.delta.content:
                self.first_at = at if self.first_at is None else self.first_at
                self.last_at = at


class Client:
    """Sends a plan and writes what it measured.

    Args:
        url: of the router, up to and without ``/v1``.
        start_at: epoch seconds of the plan's zero.
        results: open file that takes the lines.

    """

    def __init__(self, url: str, start_at: float, results: IO[bytes]) -> None:
        self._endpoint = f"{url}/v1/chat/completions"
        self._start_at = start_at
        self._results = results
        self._late: list[float] = []
        self._lags: list[float] = []
        self._offset = 0.0

    async def run(self, shots: Sequence[outcomes.Shot], give_up_seconds: float) -> None:
        """Send all shots at their times; wait for their ends up to ``give_up_seconds`` after the last one began."""
        loop = asyncio.get_running_loop()
        self._offset = time.time() - loop.time()
        ticker = loop.create_task(self._tick())
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            tasks = []
            for shot in shots:
                await self._sleep_until(self._start_at + shot.at_seconds)
                tasks.append(loop.create_task(self._send(session, shot)))
            if tasks:
                await asyncio.wait(tasks, timeout=give_up_seconds)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        ticker.cancel()
        self._write(outcomes.Line(health=self._health()))
        self._results.flush()

    def _now(self) -> float:
        """Epoch seconds by the loop's steady clock."""
        return asyncio.get_running_loop().time() + self._offset

    async def _sleep_until(self, at: float) -> None:
        if (pause := at - self._now()) > 0:
            await asyncio.sleep(pause)

    async def _tick(self) -> None:
        """Measure the loop's own lag, and flush results now and then."""
        flushed_at = self._now()
        while True:
            due = self._now() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            now = self._now()
            self._lags.append(max(0.0, now - due))
            if now - flushed_at > _FLUSH_SECONDS:
                self._results.flush()
                flushed_at = now

    async def _send(self, session: aiohttp.ClientSession, shot: outcomes.Shot) -> None:
        """One request from its time to its end; every way it can end becomes one line."""
        scheduled_at = self._start_at + shot.at_seconds
        late = max(0.0, self._now() - scheduled_at)
        self._late.append(late)
        stream, status, headers, error = Stream(), 0, {}, ""
        try:
            async with session.post(
                self._endpoint, data=shot.body.encode(), headers={"content-type": "application/json", **shot.headers}
            ) as response:
                status, headers = response.status, dict(response.headers)
                if status == 200:  # noqa: PLR2004 (HTTP OK)
                    async for data in response.content.iter_any():
                        stream.feed(data, self._now())
                    error = stream.failure()
                else:
                    error = f"{status}: {(await response.text())[:_ERROR_LENGTH]}"
        except (aiohttp.ClientError, OSError) as problem:
            error = f"{type(problem).__name__}: {problem}"[:_ERROR_LENGTH]
        except asyncio.CancelledError:
            error = "no end in time"
        self._write(
            outcomes.Line(outcome=_judge(shot, stream, status, headers, error, scheduled_at, late, self._now()))
        )

    def _write(self, line: outcomes.Line) -> None:
        self._results.write(outcomes.encoder.encode(line) + b"\n")

    def _health(self) -> outcomes.Health:
        """How well the client kept up."""
        return outcomes.Health(
            sent=len(self._late),
            late_p99=_quantile(self._late, 0.99),
            late_max=max(self._late, default=0.0),
            lag_p99=_quantile(self._lags, 0.99),
            lag_max=max(self._lags, default=0.0),
        )


def _judge(  # noqa: PLR0917 (everything that is known of one request, in one place)
    shot: outcomes.Shot,
    stream: Stream,
    status: int,
    headers: Mapping[str, str],
    error: str,
    scheduled_at: float,
    late: float,
    ended_at: float,
) -> outcomes.Outcome:
    """The line of one request."""
    counted = stream.usage.completion_tokens
    first_at, last_at = stream.first_at, stream.last_at
    between = last_at - first_at if first_at is not None and last_at is not None else 0.0
    lowered = {name.lower(): value for name, value in headers.items()}
    return outcomes.Outcome(
        index=shot.index,
        scheduled_at=scheduled_at,
        late=late,
        status=status,
        error=error,
        ttft=None if first_at is None else first_at - scheduled_at,
        itl=between / (counted - 1) if counted > 1 else None,
        e2e=ended_at - scheduled_at,
        input_tokens=stream.usage.prompt_tokens,
        output_tokens=counted,
        tier=lowered.get("x-trimtab-tier", ""),
        request_class=lowered.get("x-trimtab-class", ""),
        cache=lowered.get("x-trimtab-cache", ""),
        model=stream.model,
    )


def _quantile(values: list[float], share: float) -> float:
    """The value at that share of the sorted values; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main(arguments: Sequence[str]) -> None:
    """Run the plan of the command line."""
    url, plan, results, start_at, give_up_seconds = arguments
    shots = [outcomes.shot_decoder.decode(line) for line in Path(plan).read_bytes().splitlines()]
    with Path(results).open("ab") as file:
        uvloop.run(Client(url, float(start_at), file).run(shots, float(give_up_seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
