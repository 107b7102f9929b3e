"""Relays: what becomes of an engine's answer on its way to the client. No I/O: bytes in, bytes out, verdicts kept.

Here are the verdicts that all kinds share, and answers in one piece; ``streams`` has the kinds for events. After a
failure nothing passes any more.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trimtab_router import answers

_BROKEN = ("abort", "error")
"""How vLLM ends what it gave up: with HTTP 200 and, in streams, with ``[DONE]`` after it."""


class Relay:
    """What all kinds share: the verdicts that the exchange reads after every step.

    Attributes:
        failure: why the answer is no answer, empty as long as it is one.
        usage: what the engine counted, once it said so.
        finish_reason: of the first choice that is not ``stop``, else ``stop``; empty until known.
        committed: content has been handed out.
        ended: the terminal event has come; what follows is ignored.
        pieces: events with content handed out, about one token each.
        kept: everything relayed, for the cache; None if it is not wanted or grew too long.
        error_body: the engine's own words, if it reported an error in its stream.
        estimated: the usage is not the engine's last word: the answer is counted by its events.
    """

    # As defaults of the class: most relays never set most of them, and one is made for every answer.
    failure: str = ""
    usage: answers.Usage | None = None
    finish_reason: str = ""
    committed: bool = False
    ended: bool = False
    pieces: int = 0
    kept: list[bytes] | None = None
    error_body: bytes = b""
    estimated: bool = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the engine's body; returns those that may go to the client now."""
        raise AssertionError(data)  # pragma: no cover (each kind has its own)

    def close(self) -> None:
        """The engine's message is complete: was its answer?"""

    def counted(self) -> answers.Usage | None:
        """What the engine has counted so far, also of an answer that nobody read to its end; None if nothing."""
        return self.usage

    def note_finish(self, choices: Iterable[answers.Finishing]) -> None:
        """Remember how choices ended; an abort is a failure whatever follows it."""
        for choice in choices:
            reason = choice.finish_reason
            if reason in _BROKEN:
                self.failure = "aborted"
            elif reason and self.finish_reason in ("", "stop"):
                self.finish_reason = reason


class WholeRelay(Relay):
    """An answer in one piece: collected, judged as a whole, and only then handed out.

    Args:
        limit: bytes at most.
        judged: it must be JSON of OpenAI's shape; otherwise only its completeness counts.
    """

    def __init__(self, limit: int, *, judged: bool) -> None:
        self._limit = limit
        self._judged = judged
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """Collect; nothing goes out before the end."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self.failure = "oversized-answer"
            self._parts.clear()
        return b""

    def close(self) -> None:
        """Judge the whole."""
        if self.failure:
            return
        self.ended = True
        try:
            answer = answers.ended.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.failure = "bad-json" if self._judged else ""
            return
        if not self._judged:
            self.usage = answer.usage or self.usage
            return
        if answers.is_filled(answer.error):
            self.failure = "answer-error"
            self.error_body = self.body
            return
        self.usage = answer.usage
        self.note_finish(answer.choices)

    @property
    def body(self) -> bytes:
        """All that was collected."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""


class OpaqueRelay(Relay):
    """Bytes of which nothing is known, such as audio: passed on as they come."""

    def feed(self, data: bytes) -> bytes:
        """Everything is content."""
        self.committed = True
        return data

    def close(self) -> None:
        """The end of the message is its end."""
        self.ended = True
