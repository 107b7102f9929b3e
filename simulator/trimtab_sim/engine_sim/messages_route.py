"""
POST /v1/messages and /v1/messages/count_tokens.

The transcripts show no prompt that was found in the cache; `input_tokens` is taken to be the whole prompt.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec

from trimtab_sim.engine_sim import (
    chat_route,
    engine,
    exchange,
    faults,
    generation,
    protocol,
    sampling,
    scheduler,
    service,
    tokens,
)

_encode = msgspec.json.encode
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **fields}) + b"\n\n"


def _text_of(content: object) -> str:
    """Return the text in a content field: a string, or blocks of text, tool use and tool results."""
    if isinstance(content, str):
        return content
    texts = []
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict):
            inner = block.get("text", block.get("content", block.get("input", "")))
            texts.append(inner if isinstance(inner, str) else json.dumps(inner))
    return "".join(texts)


def _conversation(body: dict[str, Any], *, model: str) -> list[tuple[str, str]]:
    found = [("system", _text_of(body["system"]))] if body.get("system") else []
    if body.get("tools"):
        found.append(("system", json.dumps(body["tools"])))
    for message in body["messages"]:
        role, _ = chat_route.conversation_text(message, model=model)
        found.append((role, _text_of(message.get("content"))))
    return found


def _read(body: dict[str, Any], shared: service.Service, *, count_only: bool) -> tuple[protocol.Fields, list[int]]:
    """Return the fields and the prompt of a body. Raises protocol.ApiError."""
    fields = protocol.Fields(body)
    fields.required("model")
    fields.required("messages")
    if not count_only:
        fields.required("max_tokens")
    model = fields.text("model")
    messages = fields.items("messages")
    fields.finish()
    shared.check_model(model)
    if not messages:
        raise protocol.ApiError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    return fields, tokens.encode_chat(_conversation(body, model=shared.config.names[0]))


async def count(call: exchange.Exchange, shared: service.Service) -> None:
    """Answer with the length of the prompt that a message body would make."""
    _, prompt = _read(await call.json_object(), shared, count_only=True)
    length = len(prompt)
    await call.reply(_encode({"input_tokens": length, "context_management": {"original_input_tokens": length}}))


async def handle(call: exchange.Exchange, shared: service.Service, fault: faults.Fault | None) -> None:
    """Answer one request. Raises protocol.ApiError for what is to be answered with an error."""
    body = await call.json_object()
    fields, prompt = _read(body, shared, count_only=False)
    options = sampling.read(fields, priority_header=call.header(b"x-vllm-priority"))
    stop = fields.items("stop_sequences")
    stream = fields.flag("stream")
    fields.finish()
    options = dataclasses.replace(options, choices=1, stop=tuple(word for word in stop or () if isinstance(word, str)))
    request_id = f"chatcmpl-{shared.request_id(call)}"
    ticket = sampling.make_ticket(request_id, [prompt], options, shared.config)
    wording = Wording(ticket, shared)
    await generation.answer(call, shared, ticket, fault, script=wording if stream else None, whole=wording.whole)


class Wording:
    """Messages on the wire: the events of a stream, or the whole message."""

    eager = False

    def __init__(self, ticket: engine.Ticket, shared: service.Service) -> None:
        """Word the answer to a request."""
        self._sequence: scheduler.Sequence = ticket.sequences[0]
        self._model = shared.config.names[0]
        self._details = shared.config.enable_prompt_tokens_details
        self._in_block = False

    def opening(self) -> list[bytes]:
        """Return the event that starts the message."""
        message: dict[str, Any] = {
            "id": self._sequence.request_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": len(self._sequence.prompt), "output_tokens": 0},
        }
        return [_event("message_start", {"message": message})]

    def advance(self, sequence: scheduler.Sequence, start: int, end: int) -> list[bytes]:
        """Return a delta event for new text; tokens without text give none, the block starts with the first text."""
        fragment = b"".join(sequence.answer.fragments[start:end])
        if not fragment:
            return []
        events = []
        if not self._in_block:
            self._in_block = True
            events.append(_event("content_block_start", {"content_block": {"type": "text", "text": ""}, "index": 0}))
        events.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta",'
            b'"delta":{"type":"text_delta","text":"%b"},"index":0}\n\n' % fragment
        )
        return events

    def closing(self) -> list[bytes]:
        """Return the events that close block and message."""
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        events = [_event("content_block_stop", {"index": 0})] if self._in_block else []
        return [*events, _event("message_delta", {"delta": delta, "usage": self._usage()}), _event("message_stop", {})]

    def failing(self, error: protocol.ApiError) -> list[bytes]:
        """Return the error as the stream's last event."""
        return [_event("error", {"error": {"type": "internal_error", "message": error.message}})]

    def _stop_reason(self) -> str | None:
        return _STOP_REASONS.get(self._sequence.finish_reason or "")

    def _usage(self) -> dict[str, Any]:
        counted = {"input_tokens": len(self._sequence.prompt), "output_tokens": self._sequence.generated}
        if self._details:
            counted["cache_creation_input_tokens"] = self._sequence.created
            counted["cache_read_input_tokens"] = self._sequence.cached
        return counted

    def whole(self) -> bytes:
        """Return the plain message; nulls are left out."""
        text = self._sequence.answer.text(self._sequence.generated)
        message: dict[str, Any] = {
            "id": self._sequence.request_id,
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": text}] if text else [],
            "model": self._model,
            "stop_reason": self._stop_reason(),
            "usage": self._usage(),
        }
        return _encode({name: value for name, value in message.items() if value is not None})
