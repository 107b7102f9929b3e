"""An engine for the soak: paced answers, faults by a seed, and an exact count of all it did. Run as a script.

engine.py PORT SLOTS_FILE SEED TOKEN_SECONDS FAULT_SHARE
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import re
import sys

import httptools
import uvloop

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from soak import slots

EARLY = {"busy": 503, "limited": 429, "broken": 500}
LATE = ("reset", "error", "error at once", "abort", "truncated")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_DONE = b"data: [DONE]\n\n"
_LAST = b"0\r\n\r\n"
_ASKED = re.compile(rb'"max_tokens": ?(\d+)')


def prompt_tokens(number: int) -> int:
    """Of the request of this number: known to both ends."""
    return 20 + number % 50


def cached_tokens(number: int) -> int:
    """Of them, found in the prefix cache."""
    return number % 20


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Place:
    """What all connections of an engine share."""

    def __init__(self, writer: slots.Writer, rng: random.Random, *, token_seconds: float, fault_share: float) -> None:
        self.writer, self.rng = writer, rng
        self.token_seconds, self.fault_share = token_seconds, fault_share

    def fault(self, *, streamed: bool) -> str:
        """What goes wrong with the next attempt; empty for nothing."""
        if self.rng.random() >= self.fault_share:
            return ""
        return self.rng.choice((*EARLY, *LATE) if streamed else (*EARLY, "truncated", "reset"))


class Attempt:
    """One request on its way."""

    def __init__(self, place: Place, transport: asyncio.WriteTransport, number: int, body: bytes) -> None:
        self._place, self._transport, self._number = place, transport, number
        self._streamed = b'"stream":true' in body or b'"stream": true' in body
        self._counts = b'"continuous_usage_stats":true' in body
        asked = _ASKED.search(body)
        self._wanted = int(asked.group(1)) if asked else 1
        self._made = 0
        self._prompt = prompt_tokens(number)
        self._index = place.writer.begin(number, self._prompt)
        self._id = f"chatcmpl-{place.writer.life}.{self._index}"
        self._fault = place.fault(streamed=self._streamed)
        self._fails_at = place.rng.randrange(1, self._wanted + 1)
        self.over = self._failing = False

    def begin(self) -> None:
        """Refuse, or start to generate."""
        if self._fault in EARLY:
            self._end(slots.State.REFUSED)
            body = _compact({"error": {"message": self._fault, "type": "made", "code": EARLY[self._fault]}})
            self._whole(EARLY[self._fault], body)
            return
        if self._streamed:
            self._transport.write(_HEAD + _frame(self._event({"role": "assistant", "content": ""})))
        self._later(self._place.rng.uniform(0.2, 1.5))

    def left(self) -> None:
        """The router has left."""
        if not self.over:
            self._end(slots.State.LEFT)

    def _later(self, share: float = 1.0) -> None:
        asyncio.get_running_loop().call_later(self._place.token_seconds * share, self._step)

    def _step(self) -> None:
        if self.over or self._transport.is_closing():
            return
        if self._failing:
            self._spoil()
            return
        self._made += 1
        self._note(slots.State.BEGUN)
        fails = bool(self._fault) and self._made == self._fails_at
        out = _frame(self._event({"content": f" {self._made - 1}"})) if self._streamed else b""
        if fails and self._fault != "error at once":
            # In a write of its own: what was generated before is passed on.
            if out:
                self._transport.write(out)
            self._failing = True
            self._later()
        elif fails:
            self._spoil(out)
        elif self._made < self._wanted:
            if out:
                self._transport.write(out)
            self._later()
        else:
            self._complete(out)

    def _spoil(self, before: bytes = b"") -> None:
        self._end(slots.State.SPOILT)
        if self._fault == "reset":
            self._transport.abort()
        elif not self._streamed:
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{")
            self._transport.close()
        elif self._fault == "truncated":
            self._transport.write(before + _LAST)
        elif self._fault == "abort":
            self._transport.write(before + _frame(self._event({}, "abort")) + _frame(_DONE) + _LAST)
        else:
            error = b"data: %b\n\n" % _compact({"error": {"message": "made", "type": "made", "code": 500}})
            self._transport.write(before + _frame(error) + _frame(_DONE) + _LAST)

    def _complete(self, out: bytes) -> None:
        self._end(slots.State.COMPLETE)
        if not self._streamed:
            text = "".join(f" {index}" for index in range(self._made))
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = {"id": self._id, "object": "chat.completion", "created": 1, "model": "soak", "choices": [choice]}
            self._whole(200, _compact({**body, "usage": self._usage(cached=True)}))
            return
        last = {"id": self._id, "object": "chat.completion.chunk", "created": 1, "model": "soak", "choices": []}
        usage = b"data: %b\n\n" % _compact({**last, "usage": self._usage(cached=True)})
        self._transport.write(out + _frame(self._event({}, "stop")) + _frame(usage) + _frame(_DONE) + _LAST)

    def _usage(self, *, cached: bool) -> dict[str, object]:
        counts = {"prompt_tokens": self._prompt, "total_tokens": self._prompt + self._made}
        counts["completion_tokens"] = self._made
        return {
            **counts,
            **({"prompt_tokens_details": {"cached_tokens": cached_tokens(self._number)}} if cached else {}),
        }

    def _event(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        head = {"id": self._id, "object": "chat.completion.chunk", "created": 1, "model": "soak", "choices": [choice]}
        return b"data: %b\n\n" % _compact({**head, **({"usage": self._usage(cached=False)} if self._counts else {})})

    def _whole(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    def _end(self, state: slots.State) -> None:
        self.over = True
        self._note(state)

    def _note(self, state: slots.State) -> None:
        self._place.writer.note(
            self._index, number=self._number, prompt=self._prompt, generated=self._made, state=state
        )


class Connection(asyncio.Protocol):
    """One connection of the router."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._attempt: Attempt | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._number = 0

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """The request's name is its number."""
        if name.lower() == b"x-request-id":
            self._number = int(value[1:])

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        body, self._body = b"".join(self._body), []
        self._attempt = Attempt(self._place, self._transport, self._number, body)
        self._attempt.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side left, or this one did."""
        del exc
        if self._attempt is not None:
            self._attempt.left()


async def main(arguments: list[str]) -> None:
    """Serve for ever."""
    port, path, seed, token_seconds, fault_share = arguments
    writer = slots.Writer(pathlib.Path(path))
    rng = random.Random(f"{seed} {writer.life}")  # noqa: S311 (repeatable)
    place = Place(writer, rng, token_seconds=float(token_seconds), fault_share=float(fault_share))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(place), "127.0.0.1", int(port), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
