"""POST /v1/responses."""

from __future__ import annotations

import dataclasses
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
    usage,
)

_encode = msgspec.json.encode


@dataclasses.dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A parsed body; see OpenAI's responses for the fields of the same names."""

    conversation: list[tuple[str, str]]
    options: sampling.Sampling
    stream: bool
    body: dict[str, Any]
    temperature: float
    top_p: float


def _conversation(body: dict[str, Any], *, model: str) -> list[tuple[str, str]]:
    """Return roles and texts of `instructions` and `input`. Raises protocol.ApiError for media."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    found = [("system", body["instructions"])] if isinstance(body.get("instructions"), str) else []
    for item in items:
        if isinstance(item, dict) and item.get("type") == "function_call_output":
            found.append(("tool", str(item.get("output", ""))))
        elif isinstance(item, dict) and item.get("type") == "function_call":
            found.append(("assistant", f"{item.get('name', '')}{item.get('arguments', '')}"))
        else:
            found.append(chat_route.conversation_text(item, model=model))
    return found


def parse(body: dict[str, Any], call: exchange.Exchange, shared: service.Service) -> ResponsesRequest:
    """Return the parsed body. Raises protocol.ApiError."""
    fields = protocol.Fields(body)
    fields.text_or_items("input")
    options = sampling.read(fields, priority_header=call.header(b"x-vllm-priority"))
    options = dataclasses.replace(
        options, choices=1, max_tokens=fields.integer("max_output_tokens"), max_tokens_field="max_output_tokens"
    )
    stream, model = fields.flag("stream"), fields.text("model")
    fields.finish()
    shared.check_model(model)
    wanted = (body.get("text") or {}).get("format") if isinstance(body.get("text"), dict) else None
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        wanted = {"type": "json_schema", "json_schema": {"schema": wanted.get("schema", {})}}
    return ResponsesRequest(
        conversation=_conversation(body, model=shared.config.names[0]),
        options=dataclasses.replace(options, forced_text=sampling.forced_by(wanted, body.get("structured_outputs"))),
        stream=stream,
        body=body,
        temperature=1.0 if options.temperature is None else options.temperature,
        top_p=1.0 if options.top_p is None else options.top_p,
    )


async def handle(call: exchange.Exchange, shared: service.Service, fault: faults.Fault | None) -> None:
    """Answer one request. Raises protocol.ApiError for what is to be answered with an error."""
    request = parse(await call.json_object(), call, shared)
    prompt = tokens.encode_chat(request.conversation)
    response_id = f"resp_{shared.request_id(call)}"
    ticket = sampling.make_ticket(response_id, [prompt], request.options, shared.config)
    wording = Wording(request, ticket, shared, created=int(shared.wall()))
    await generation.answer(
        call, shared, ticket, fault, script=wording if request.stream else None, whole=wording.whole
    )


class Wording:
    """Responses on the wire: the numbered events of a stream, or the whole response."""

    eager = True

    def __init__(
        self, request: ResponsesRequest, ticket: engine.Ticket, shared: service.Service, *, created: int
    ) -> None:
        """Prepare what all events share."""
        self._request = request
        self._ticket = ticket
        self._created = created
        self._model = shared.config.names[0]
        self._message_id = f"msg_{shared.new_id()}"
        self._number = 0
        self._started = False
        quoted = _encode(self._message_id)
        self._delta_tail = b'","item_id":' + quoted + b',"logprobs":[],"output_index":0,"sequence_number":'

    @property
    def _sequence(self) -> scheduler.Sequence:
        return self._ticket.sequences[0]

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = _encode({**fields, "sequence_number": self._number, "type": kind})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def opening(self) -> list[bytes]:
        """Return the events that say the response exists; they do not wait for a token."""
        return [
            self._event(kind, {"response": self._response("in_progress")})
            for kind in ("response.created", "response.in_progress")
        ]

    def advance(self, sequence: scheduler.Sequence, start: int, end: int) -> list[bytes]:
        """Return a delta event for new text, after those that open the message."""
        events = []
        if not self._started:
            self._started = True
            item = {"id": self._message_id, "content": [], **self._role("in_progress")}
            part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
            events.append(self._event("response.output_item.added", {"item": item, "output_index": 0}))
            events.append(
                self._event(
                    "response.content_part.added",
                    {"content_index": 0, "item_id": self._message_id, "output_index": 0, "part": part},
                )
            )
        fragment = b"".join(sequence.answer.fragments[start:end])
        if fragment:
            events.append(
                b'event: response.output_text.delta\ndata: {"content_index":0,"delta":"%b%b%d'
                b',"type":"response.output_text.delta"}\n\n' % (fragment, self._delta_tail, self._number)
            )
            self._number += 1
        return events

    def closing(self) -> list[bytes]:
        """Return the events that close part, message and response."""
        text = self._sequence.answer.text(self._sequence.generated)
        place = {"content_index": 0, "item_id": self._message_id}
        return [
            self._text_done(text),
            self._event("response.content_part.done", {**place, "output_index": 0, "part": self._part()}),
            self._event("response.output_item.done", {"item": self._message(), "output_index": 0}),
            self._event("response.completed", {"response": self._response(self._status())}),
        ]

    def failing(self, error: protocol.ApiError) -> list[bytes]:
        """Return the error as the stream's last event."""
        return [error.event()]

    def _text_done(self, text: str) -> bytes:
        kind = "response.output_text.done"
        fields = {"content_index": 0, "item_id": self._message_id, "logprobs": [], "output_index": 0}
        data = _encode({**fields, "sequence_number": self._number, "text": text, "type": kind})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _status(self) -> str:
        return "completed" if self._sequence.finish_reason == "stop" else "incomplete"

    @staticmethod
    def _role(status: str) -> dict[str, Any]:
        return {"role": "assistant", "status": status, "type": "message", "phase": None}

    def _part(self) -> dict[str, Any]:
        text = self._sequence.answer.text(self._sequence.generated)
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}

    def _message(self) -> dict[str, Any]:
        return {"id": self._message_id, "content": [self._part()], **self._role("completed")}

    def _usage(self) -> dict[str, Any]:
        prompt, completion = usage.prompt_tokens(self._ticket), usage.completion_tokens(self._ticket)
        return {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": self._sequence.cached,
                "cache_write_tokens": self._sequence.created,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": completion,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": prompt + completion,
        }

    def _response(self, status: str) -> dict[str, Any]:
        """Return the response object; output and usage only once it is no longer in progress."""
        body, over = self._request.body, status != "in_progress"
        cut = over and self._sequence.finish_reason == "length"
        return {
            "id": self._sequence.request_id,
            "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": self._model,
            "object": "response",
            "output": [self._message()] if over else [],
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "temperature": self._request.temperature,
            "tool_choice": body.get("tool_choice", "auto") if body.get("tools") else "none",
            "tools": body.get("tools") or [],
            "top_p": self._request.top_p,
            "background": body.get("background", False),
            "max_output_tokens": self._ticket.max_tokens,
            "max_tool_calls": body.get("max_tool_calls"),
            "previous_response_id": body.get("previous_response_id"),
            "prompt": body.get("prompt"),
            "reasoning": body.get("reasoning"),
            "service_tier": body.get("service_tier", "auto"),
            "status": status,
            "text": body.get("text"),
            "top_logprobs": body.get("top_logprobs"),
            "truncation": body.get("truncation", "disabled"),
            "usage": self._usage() if over else None,
            "user": body.get("user"),
            "presence_penalty": body.get("presence_penalty", 0.0),
            "frequency_penalty": body.get("frequency_penalty", 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def whole(self) -> bytes:
        """Return the plain response."""
        return _encode(self._response(self._status()))
