"""An engine that costs next to nothing: fixed answers, in one write or paced. Run: ``engine.py PORT``."""

from __future__ import annotations

import asyncio
import json
import sys

import httptools
import uvloop

CHUNKS = 100
_HEAD = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
_USAGE = {"prompt_tokens": 150, "completion_tokens": CHUNKS, "total_tokens": 150 + CHUNKS}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_RUNNING = {"prompt_tokens": 150, "total_tokens": 199, "completion_tokens": 49, "completion_tokens_details": None}


def _event(delta: dict[str, str], finish: str | None = None, *, counted: bool = False) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    usage = {"usage": _RUNNING} if counted else {}
    return _frame(b"data: %b\n\n" % _compact({**_HEAD, "choices": [choice], **usage}))


def _answer() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": "word " * 140, "refusal": None, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = _compact({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE})
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


ANSWER = _answer()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


class Stream:
    """The events of a stream, with the count so far on each or without.

    Attributes:
        role, word, end: first event, each of ``CHUNKS`` words, and what comes last.
    """

    def __init__(self, *, counted: bool) -> None:
        self.role = _event({"role": "assistant", "content": ""}, counted=counted)
        self.word = _event({"content": " wordword"}, counted=counted)
        self.end = (
            _event({"content": ""}, "stop", counted=counted)
            + _frame(b"data: %b\n\n" % _compact({**_HEAD, "choices": [], "usage": _USAGE}))
            + _frame(b"data: [DONE]\n\n")
            + b"0\r\n\r\n"
        )
        self.burst = STREAM_HEAD + self.role + self.word * CHUNKS + self.end


PLAIN, COUNTED = Stream(counted=False), Stream(counted=True)


class Engine(asyncio.Protocol):
    """Answers by what the body says: ``"stream":true`` bursts, ``"paced"`` paces by 5 ms, ``"idle"`` never ends.

    It counts on every event for who asks for it, as vLLM does.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        body, self.body = b"".join(self.body), []
        assert isinstance(self.transport, asyncio.Transport) or hasattr(self.transport, "write")
        stream = COUNTED if b'"continuous_usage_stats":true' in body else PLAIN
        if b'"paced"' in body:
            self.transport.write(STREAM_HEAD + stream.role)
            self._step(stream, CHUNKS)
        elif b'"idle"' in body:
            self.transport.write(STREAM_HEAD + stream.role + stream.word)
        else:
            self.transport.write(stream.burst if b'"stream":true' in body else ANSWER)

    def _step(self, stream: Stream, left: int) -> None:
        if self.transport.is_closing():
            return
        assert hasattr(self.transport, "write")
        self.transport.write(stream.word if left else stream.end)
        if left:
            asyncio.get_running_loop().call_later(0.005, self._step, stream, left - 1)


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
