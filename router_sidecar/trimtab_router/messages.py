"""Anthropic's Messages, as vLLM serves them beside OpenAI's routes: streams, usage and errors of their own shape.

Passed on as they are; read for what is billed, and for whether an answer is one. A stream begins with
``message_start``, which counts the prompt, and ends with ``message_stop`` after a ``message_delta`` that counts the
answer. vLLM says of an answer that it aborted nothing but that it has no ``stop_reason``. Its ``input_tokens`` are
those that were not cached (vLLM pull request 40912), as in Anthropic's own API.
"""

from __future__ import annotations

import msgspec

from trimtab_router import answers, errors, relay, streams

_FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


class _Event(msgspec.Struct):
    class Message(msgspec.Struct):
        usage: answers.Usage | None = None

    class Delta(msgspec.Struct):
        stop_reason: str | None = None

    class Block(msgspec.Struct):
        type: str = ""

    type: str = ""
    message: Message | None = None
    delta: Delta | None = None
    content_block: Block | None = None
    usage: answers.Usage | None = None


class _Whole(msgspec.Struct):
    type: str = ""
    stop_reason: str | None = None
    usage: answers.Usage | None = None


_whole = msgspec.json.Decoder(_Whole)


class MessageRelay(streams.TypedRelay[_Event]):
    """Streams of messages."""

    marks = (b'"message_', b'"error"', b'"type": "message_')
    decoder = msgspec.json.Decoder(_Event)

    def __init__(self, event_limit: int) -> None:
        super().__init__(event_limit)
        self._prompt: answers.Usage | None = None
        self._counted: answers.Usage | None = None

    @property
    def usage(self) -> answers.Usage | None:  # type: ignore[override]  # worked out when it is asked for
        """What the engine counted; before its last word, the prompt by its count and the answer by ours."""
        if self._counted is not None or self._prompt is None or not self.committed:
            return self._counted
        return msgspec.structs.replace(self._prompt, output_tokens=max(self._prompt.output_tokens, self.pieces))

    @property
    def estimated(self) -> bool:  # type: ignore[override]  # likewise
        """Whether the answer is counted by its events."""
        return self._counted is None

    def note(self, typed: _Event, payload: bytes) -> bool:
        """Ends, counts and errors."""
        if typed.type == "error" or not typed.type:
            self.failure = "stream-error"
            self.error_body = payload
            return False
        if typed.type == "message_start":
            self._prompt = typed.message.usage if typed.message is not None else None
        elif typed.type == "message_delta":
            self._finish(typed)
        elif typed.type == "message_stop":
            self.ended = True
        block = typed.content_block
        return typed.type == "content_block_delta" or (block is not None and block.type == "tool_use")

    def _finish(self, typed: _Event) -> None:
        reason = typed.delta.stop_reason if typed.delta is not None else None
        if reason is None:
            self.failure = "aborted"
            return
        self.finish_reason = _FINISHES.get(reason, reason)
        counted, prompt = typed.usage, self._prompt
        if counted is not None and prompt is not None and not counted.tokens_in:
            # Of Anthropic the last word has only the answer's count.
            counted = msgspec.structs.replace(prompt, output_tokens=counted.output_tokens)
        self._counted = counted


class WholeMessageRelay(relay.WholeRelay):
    """A message in one piece."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, judged=True)

    def close(self) -> None:
        """Judge the whole."""
        if self.failure:
            return
        self.ended = True
        try:
            message = _whole.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.failure = "bad-json"
            return
        if message.type != "message":
            self.failure, self.error_body = "answer-error", self.body
        elif message.stop_reason is None:
            self.failure = "aborted"
        else:
            self.finish_reason = _FINISHES.get(message.stop_reason, message.stop_reason)
        self.usage = message.usage


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(status: int, message: str) -> bytes:
    """Anthropic's error object as JSON."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def render(error: errors.RouterError) -> tuple[int, bytes]:
    """Status and body of an error."""
    status = errors.TABLE[type(error)].status
    return status, error_body(status, error.message)


def normalise_error(status: int, body: bytes) -> bytes:
    """An engine's error in Anthropic's shape, whichever shape it came in."""
    return error_body(status, answers.message_of(status, body))


def error_event(body: bytes) -> bytes:
    """An error in a stream."""
    return b"event: error\ndata: %b\n\n" % body
