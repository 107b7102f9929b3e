"""Streams of events: passed on whole, looked at as little as possible, and never cut off unnoticed.

Until the first event with content nothing is handed out: up to there another engine may still answer instead.
From then on blocks pass unread, unless they carry a mark of something that must be looked at: usage, an end, an
error. After a failure nothing passes any more, above all no ``[DONE]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from trimtab_router import answers, relay, sse

_USAGE = (b'"usage":{', b'"usage": {')
_GOES_ON = b'"finish_reason":null'
"""What every chunk between the first and the last holds once, if its writer leaves no blanks, as vLLM and OpenAI do."""

_RUNNING = re.compile(rb'\}\],"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}')
_RUNNING_MARK = b'}],"usage":{'
"""The engine's count so far, on a chunk that has choices. In a text its quotes would be escaped."""

_ONE_EVENT_BYTES = 4096

Price = Callable[[answers.Usage], float]
Typed = TypeVar("Typed")


class EventRelay(relay.Relay):
    """A stream of events of which nothing is known but that they are events: for routes passed through.

    The first event is its content; the end of the message is its end.

    Attributes:
        marks: what makes an event worth a look, once content flows; in a text their quotes would be escaped.
    """

    marks: tuple[bytes, ...] = ()

    hides: bool = False

    def __init__(self, event_limit: int, keep_bytes: int = 0) -> None:
        self._splitter = sse.Splitter()
        self._limit = event_limit
        self._held = b""
        self._keep_bytes = keep_bytes
        if keep_bytes:
            self.kept = []

    def feed(self, data: bytes) -> bytes:
        """Take bytes; returns whole events that may go to the client."""
        block = self._splitter.feed(data)
        if len(self._splitter.rest) > self._limit:
            self.failure = "oversized-event"
        if not block or self.failure or self.ended:
            return b""
        if self.hides:
            block = self.without_counts(block)
        passed = b""
        if not self.committed:
            passed, block = self._open(block)
        if block and not self.failure:
            passed += self._relay(block)
        if self.kept is not None and passed:
            self._keep(passed)
        return passed

    def close(self) -> None:
        """A stream that says nothing of its end ends with its message, but not inside an event."""
        inside = self._splitter.rest.strip(b"\r\n")
        if not self.ended and (inside or not self.committed) and not self.failure:
            self.failure = "truncated"
        self.ended = not self.failure

    def without_counts(self, block: bytes) -> bytes:
        """A block without what the engine was asked for and the client was not; for relays that ``hides``."""
        return block

    def first_mark(self, block: bytes) -> int:
        """Where in a block the first event lies that must be looked at; -1 if there is none."""
        found = [at for mark in self.marks if (at := block.find(mark)) >= 0]
        return min(found) if found else -1

    def take(self, event: bytes) -> tuple[bytes, bool]:
        """Look at one event: what of it is passed on, and whether it is content."""
        return event + sse.END, True

    def _open(self, block: bytes) -> tuple[bytes, bytes]:
        """Before the commit point: hold events until one has content; returns what may go, and the rest unread."""
        start = 0
        while start < len(block) and not self.committed:
            # A block ends with an empty line, but more of them than two may be an odd number of line ends.
            end = block.find(sse.END, start) + len(sse.END)
            end = end if end >= len(sse.END) else len(block)
            self._held += self._take_counted(block[start:end])
            start = end
            if self.failure or self.ended:
                break
        # An end commits too: an empty answer is an answer.
        self.committed = self.committed or self.ended
        if len(self._held) > self._limit:
            self.failure = "oversized-event"
        if self.failure or not self.committed:
            return b"", b""
        held, self._held = self._held, b""
        return held, b"" if self.ended else block[start:]

    def _relay(self, block: bytes) -> bytes:
        """After it: pass unread what lies before the first mark, and look at the rest."""
        mark = self.first_mark(block)
        if mark < 0:
            self.pieces += self.count(block)
            return block
        cut = block.rfind(sse.END, 0, mark) + len(sse.END) if mark else 0
        cut = cut if cut >= len(sse.END) else 0
        passed = [block[:cut]]
        self.pieces += self.count(passed[0])
        for event in sse.events(block[cut:]):
            passed.append(self._take_counted(event + sse.END))
            if self.failure or self.ended:
                break
        return b"".join(passed)

    def count(self, block: bytes) -> int:
        """Events in a block of whole ones."""
        return block.count(sse.END)

    def _take_counted(self, event: bytes) -> bytes:
        """One event with its empty line."""
        if not event.strip(b"\n"):
            return b""
        out, content = self.take(event[: -len(sse.END)])
        if self.failure:
            return b""
        self.pieces += content
        self.committed = self.committed or content
        return out

    def _keep(self, block: bytes) -> None:
        assert self.kept is not None
        self.kept.append(block)
        self._keep_bytes -= len(block)
        if self._keep_bytes < 0:
            self.kept = None


class EndedRelay(EventRelay):
    """A stream that says itself when it ends."""

    def close(self) -> None:
        """A message that is over before its stream has ended was cut off."""
        if not self.ended and not self.failure:
            self.failure = "truncated"


class ChoiceRelay(EndedRelay):
    """Streams of chat and of completions: chunks with choices, then ``[DONE]``.

    Args:
        event_limit: bytes of one event at most.
        show_usage: the client asked for usage; otherwise its chunk is taken out.
        price: USD of a usage, to be added to the usage chunk that the client asked for.
        keep_bytes: keep up to so many bytes of the stream for the cache.
        hides: the engine counts on every chunk, for the bill alone: the client did not ask for that.
    """

    marks = (b'"error"', b"[DONE]", b'"abort"', *_USAGE, b'"finish_reason":"', b'"finish_reason": "')
    """With and without a blank after the colon."""
    _tail: bytes = b""

    def __init__(
        self, event_limit: int, *, show_usage: bool, price: Price, keep_bytes: int = 0, hides: bool = False
    ) -> None:
        super().__init__(event_limit, keep_bytes)
        self.hides = hides
        self._show_usage = show_usage
        self._price = price
        self._tells = False
        self._sure = self._sure_events = 0

    def counted(self) -> answers.Usage | None:
        """The last word on usage, or what the last chunk said."""
        tail = self._tail
        at = tail.rfind(_RUNNING_MARK)
        if self.usage is not None or at < 0:
            return self.usage
        start = tail.rfind(sse.END, 0, at) + 1
        try:
            return answers.chunk.decode(sse.data(tail[start : tail.index(sse.END, at)].strip(b"\n"))).usage
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def without_counts(self, block: bytes) -> bytes:
        """A block without the counts of its chunks. They are read only if no last word comes, see ``counted``."""
        if _RUNNING_MARK not in block:
            return block
        self._tail = block
        return _RUNNING.sub(b"}]", block)

    def feed(self, data: bytes) -> bytes:
        """Take bytes. Most reads are one event that goes on; for them this is all that is done."""
        if (
            self._tells
            and self.committed
            and len(data) < _ONE_EVENT_BYTES
            and not self._splitter.rest
            and self.kept is None
            and data.endswith(sse.END)
            and data.count(b"\n") == len(sse.END)
            and data.count(_GOES_ON) == 1
            and b"\r" not in data
            and not self.ended
            and not self.failure
        ):
            at = data.find(_USAGE[0])
            if at < 0:
                self.pieces += 1
                return data
            end = data.find(b"}", at)
            if self.hides and data.startswith(b"}],", at - 3) and data.find(b"{", at + len(_USAGE[0]), end) < 0:
                self.pieces += 1
                self._tail = data
                return data[: at - 1] + data[end + 1 :]
        return super().feed(data)

    def first_mark(self, block: bytes) -> int:
        """Ends, usage and errors; the words in a text are escaped and cost no more than a closer look."""
        self._sure = 0
        if self._tells and (sure := self._surely_going_on(block)):
            return sure if sure < len(block) else -1
        return super().first_mark(block)

    def count(self, block: bytes) -> int:
        """Events in a block, as counted a moment ago if it was."""
        return self._sure_events if self._sure and len(block) == self._sure else super().count(block)

    def _surely_going_on(self, block: bytes) -> int:
        """How many bytes at the start are certain to need no look, by what each event says of itself.

        A long block is searched three times instead of once for every mark, and no end could hide in odd blanks.
        """
        last = block.rfind(_GOES_ON)
        if last < 0:
            return 0
        end = block.index(sse.END, last) + len(sse.END)
        lines = block.count(b"\n", 0, end)
        if lines != len(sse.END) * block.count(_GOES_ON, 0, end) or block.find(_USAGE[0], 0, end) >= 0:
            return 0
        self._sure, self._sure_events = end, lines // len(sse.END)
        return end

    def take(self, event: bytes) -> tuple[bytes, bool]:
        """One chunk."""
        payload = sse.data(event)
        if payload == b"[DONE]":
            self.ended = True
            return sse.DONE, False
        if not payload:
            return event + sse.END, False
        try:
            chunk = answers.chunk.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.failure = "bad-json"
            return b"", False
        if answers.is_filled(chunk.error):
            self.failure = "stream-error"
            self.error_body = payload
            return b"", False
        self.note_finish(chunk.choices)
        if chunk.usage is not None:
            self.usage = chunk.usage
            if not chunk.choices:
                return (self._priced(payload) if self._show_usage else b""), False
            if self.hides:
                event = _without_usage(payload)
        if not self.committed:
            self._tells = len(chunk.choices) == 1 and event.count(_GOES_ON) == 1
        return event + sse.END, any(_is_content(choice) for choice in chunk.choices)

    def _priced(self, payload: bytes) -> bytes:
        assert self.usage is not None
        cost = b'"cost_usd":%.10g,' % self._price(self.usage)
        for mark in _USAGE:
            at = payload.find(mark)
            if at >= 0:
                at += len(mark)
                return sse.render(payload[:at] + cost + payload[at:])
        return sse.render(payload)


def _without_usage(payload: bytes) -> bytes:
    """A chunk whose writer leaves blanks, so that its count could not be cut out; as an event without its end."""
    chunk = msgspec.json.decode(payload)
    del chunk["usage"]
    return b"data: " + msgspec.json.encode(chunk)


def _is_content(choice: answers.Choice) -> bool:
    """Whether a chunk is more than the announcement of a role."""
    delta = choice.delta
    return bool(choice.text or choice.finish_reason or (delta is not None and delta.has_content))


class _ResponseEvent(msgspec.Struct):
    class Response(msgspec.Struct):
        usage: answers.Usage | None = None
        status: str | None = None

    type: str = ""
    response: Response | None = None


class TypedRelay(EndedRelay, Generic[Typed]):
    """A stream of events that say their type.

    Attributes:
        decoder: of one event.
    """

    decoder: msgspec.json.Decoder[Typed]

    def take(self, event: bytes) -> tuple[bytes, bool]:
        """One typed event."""
        payload = sse.data(event)
        if not payload or payload == b"[DONE]":
            return event + sse.END, False
        try:
            typed = self.decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.failure = "bad-json"
            return b"", False
        return event + sse.END, self.note(typed, payload)

    def note(self, typed: Typed, payload: bytes) -> bool:
        """Take in what an event says; returns whether it is content."""
        raise AssertionError(typed, payload)  # pragma: no cover (each kind has its own)


class ResponseRelay(TypedRelay[_ResponseEvent]):
    """Streams of the responses route, of which ``response.completed`` or ``.incomplete`` is the last event."""

    marks = (b"response.completed", b"response.incomplete", b"response.failed", b"error")
    decoder = msgspec.json.Decoder(_ResponseEvent)

    def note(self, typed: _ResponseEvent, payload: bytes) -> bool:
        """Ends and errors."""
        if typed.type in ("error", "response.failed") or (not typed.type and b'"error"' in payload):
            self.failure = "stream-error"
            self.error_body = payload
        elif typed.type in ("response.completed", "response.incomplete"):
            self.usage = typed.response.usage if typed.response else None
            self.finish_reason = "stop" if typed.type == "response.completed" else "length"
            self.ended = True
        return ".delta" in typed.type
