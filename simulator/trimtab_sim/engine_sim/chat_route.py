"""POST /v1/chat/completions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec

from trimtab_sim.engine_sim import (
    engine,
    envelope,
    exchange,
    faults,
    generation,
    logprobs,
    protocol,
    sampling,
    scheduler,
    service,
    streaming,
    tokens,
    tools,
    usage,
)

_encode = msgspec.json.encode
_MEDIA = frozenset(
    ("image_url", "image_embeds", "image_pil", "input_image", "audio_url", "audio_embeds", "input_audio", "video_url")
)


@dataclasses.dataclass(frozen=True, slots=True)
class ChatRequest:
    """A parsed body; see OpenAI's chat completions for the fields of the same names."""

    model: str | None
    conversation: list[tuple[str, str]]
    options: sampling.Sampling
    stream: bool
    stream_usage: usage.StreamUsage
    top_logprobs: int | None
    token_ids: bool
    tool: tools.ForcedTool | None


def conversation_text(message: object, *, model: str) -> tuple[str, str]:
    """Return role and text of one message. Raises protocol.ApiError for content that a text model cannot take."""
    if not isinstance(message, dict):
        raise protocol.ApiError("Each message must be an object.", param="messages")
    content = message.get("content")
    parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
    texts = []
    for part in parts:
        if isinstance(part, dict) and part.get("type") in _MEDIA:
            raise protocol.ApiError(f"{model} is not a multimodal model")
        texts.append(part if isinstance(part, str) else str(part.get("text", "")) if isinstance(part, dict) else "")
    if message.get("tool_calls"):
        texts.append(json.dumps(message["tool_calls"]))
    return str(message.get("role", "")), "".join(texts)


def parse(body: dict[str, Any], call: exchange.Exchange, shared: service.Service) -> ChatRequest:
    """Return the parsed body. Raises protocol.ApiError in the order in which the real server finds errors."""
    fields = protocol.Fields(body)
    fields.required("messages")
    messages = fields.items("messages")
    options = sampling.read(fields, priority_header=call.header(b"x-vllm-priority"))
    longest = fields.integer("max_completion_tokens")
    if longest is not None:
        options = dataclasses.replace(options, max_tokens=longest, max_tokens_field="max_completion_tokens")
    wants_logprobs, top = fields.flag("logprobs"), fields.integer("top_logprobs")
    stream, model = fields.flag("stream"), fields.text("model")
    token_ids = fields.flag("return_token_ids")
    offered = tools.read(fields)
    fields.finish()
    carried = usage.stream_usage(fields, stream=stream, forced=shared.config.enable_force_include_usage)
    shared.check_model(model)
    sampling.check_logprobs(top, of="sample")
    forced_tool = tools.forced(offered, body.get("tool_choice"), shared.config)
    if not messages:
        raise protocol.ApiError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    conversation = [conversation_text(message, model=shared.config.names[0]) for message in messages]
    if offered:
        conversation.insert(0, ("system", json.dumps(body["tools"])))
    if forced_tool is None:
        text = sampling.forced_by(body.get("response_format"), body.get("structured_outputs"))
    else:
        text = forced_tool.arguments
    return ChatRequest(
        model=model,
        conversation=conversation,
        options=dataclasses.replace(options, forced_text=text),
        stream=stream,
        stream_usage=carried,
        top_logprobs=(top or 0) if wants_logprobs else None,
        token_ids=token_ids,
        tool=forced_tool,
    )


async def handle(call: exchange.Exchange, shared: service.Service, fault: faults.Fault | None) -> None:
    """Answer one request. Raises protocol.ApiError for what is to be answered with an error."""
    request = parse(await call.json_object(), call, shared)
    prompt = tokens.encode_chat(request.conversation)
    request_id = f"chatcmpl-{shared.request_id(call)}"
    ticket = sampling.make_ticket(request_id, [prompt], request.options, shared.config)
    wording = Wording(request, ticket, shared, request_id=request_id)
    await generation.answer(
        call, shared, ticket, fault, script=wording if request.stream else None, whole=wording.whole
    )


class Wording:
    """Chat completions on the wire: the events of a stream, or the whole answer."""

    eager = False

    def __init__(
        self, request: ChatRequest, ticket: engine.Ticket, shared: service.Service, *, request_id: str
    ) -> None:
        """Prepare the bytes that all events of this answer share."""
        self._request = request
        self._ticket = ticket
        self._config = shared.config
        self._envelope = envelope.Envelope(
            ticket, shared, request_id=request_id, kind="chat.completion.chunk", chat=True
        )
        self._tool_id = f"chatcmpl-tool-{shared.new_id()}" if request.tool else ""
        self._opening_of_choice = [b'{"index":%d,"delta":' % sequence.index for sequence in ticket.sequences]
        self._plain = request.tool is None and request.top_logprobs is None and not request.token_ids

    def opening(self) -> list[bytes]:
        """Return the event that names the role, one for each choice."""
        counted = self._running(0) if self._request.stream_usage.continuous else b""
        ids = _encode(self._ticket.sequences[0].prompt) if self._request.token_ids else b"null"
        tail = b']%b,"prompt_token_ids":%b,"prompt_text":null}\n\n' % (counted, ids)
        delta = b'{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return [self._envelope.head + start + delta + tail for start in self._opening_of_choice]

    def _running(self, completion: int) -> bytes:
        return usage.running(len(self._ticket.sequences[0].prompt), completion, chat=True)

    def advance(self, sequence: scheduler.Sequence, start: int, end: int) -> list[bytes]:
        """Return one event with the text of the tokens that are new."""
        tail = b"]" + self._running(end) if self._request.stream_usage.continuous else b"]"
        finish = sequence.finish_reason
        if finish is None:
            ending = b""
        else:
            ending = b',"stop_reason":' + _encode(sequence.answer.stop_reason if finish == "stop" else None)
            if not self._request.stream_usage.final:
                tail += self._envelope.fingerprint
        if self._plain:
            fragment = b"".join(sequence.answer.fragments[start:end])
            if finish is None:
                body = b'{"content":"%b"},"logprobs":null,"finish_reason":null,"token_ids":null}' % fragment
            else:
                body = b'{"content":"%b"},"logprobs":null,"finish_reason":"%b"%b,"token_ids":null}' % (
                    fragment,
                    finish.encode(),
                    ending,
                )
        else:
            body = self._rich(sequence, start, end, ending)
        return [self._envelope.head + self._opening_of_choice[sequence.index] + body + tail + b"}\n\n"]

    def _rich(self, sequence: scheduler.Sequence, start: int, end: int, ending: bytes) -> bytes:
        """Return delta and the rest of a choice for events with tool calls, log probabilities or token ids."""
        request, ids = self._request, sequence.answer.ids[start:end]
        text = "".join(sequence.answer.deltas[start:end])
        delta: dict[str, Any] = {"content": text}
        if request.tool is not None:
            function = {"name": request.tool.name, "arguments": text} if start == 0 else {"arguments": text}
            opening = {"id": self._tool_id, "type": "function"} if start == 0 else {}
            delta = {"tool_calls": [{**opening, "index": 0, "function": function}]}
        chances = None if request.top_logprobs is None else logprobs.for_chat(ids, request.top_logprobs)
        finish = self._finish_reason(sequence)
        return b'%b,"logprobs":%b,"finish_reason":%b%b,"token_ids":%b}' % (
            _encode(delta),
            _encode(chances),
            _encode(finish),
            ending,
            _encode(ids if request.token_ids else None),
        )

    def _finish_reason(self, sequence: scheduler.Sequence) -> str | None:
        tool, reason = self._request.tool, sequence.finish_reason
        return "tool_calls" if tool is not None and not tool.by_name and reason == "stop" else reason

    def closing(self) -> list[bytes]:
        """Return the usage event, if asked for, and the end mark."""
        return self._envelope.closing(with_usage=self._request.stream_usage.final)

    def failing(self, error: protocol.ApiError) -> list[bytes]:
        """Return the error and the end mark: here [DONE] does not mean success."""
        return [error.event(), streaming.DONE]

    def _choice(self, sequence: scheduler.Sequence) -> dict[str, Any]:
        request, ids = self._request, sequence.answer.ids[: sequence.generated]
        text = sequence.answer.text(sequence.generated)
        message: dict[str, Any] = dict.fromkeys(("role", "content", "refusal", "annotations", "audio", "function_call"))
        message.update(role="assistant", content=text)
        if request.tool is not None:
            call = {"id": self._tool_id, "type": "function", "function": {"name": request.tool.name, "arguments": text}}
            message.update(content="", tool_calls=[call])
        message["reasoning"] = None
        return {
            "index": sequence.index,
            "message": message,
            "logprobs": None if request.top_logprobs is None else logprobs.for_chat(ids, request.top_logprobs),
            "finish_reason": self._finish_reason(sequence),
            "stop_reason": sequence.answer.stop_reason if sequence.finish_reason == "stop" else None,
            "token_ids": ids if request.token_ids else None,
            "routed_experts": None,
        }

    def whole(self) -> bytes:
        """Return the plain answer."""
        single = len(self._ticket.sequences) == 1
        timed = self._config.enable_per_request_metrics and single
        answer = {
            "id": self._envelope.request_id,
            "object": "chat.completion",
            "created": self._envelope.created,
            "model": self._config.names[0],
            "choices": [self._choice(sequence) for sequence in self._ticket.sequences],
            "service_tier": None,
            "system_fingerprint": self._config.fingerprint,
            "usage": usage.whole(self._ticket, details=self._config.enable_prompt_tokens_details, chat=True),
            "prompt_logprobs": None,
            "prompt_token_ids": self._ticket.sequences[0].prompt if self._request.token_ids else None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": {**usage.timings(self._ticket.sequences[0]), "speculative_decoding": None} if timed else None,
        }
        return _encode(answer)
