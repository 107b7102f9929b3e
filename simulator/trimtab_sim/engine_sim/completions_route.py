"""POST /v1/completions."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from trimtab_sim.engine_sim import (
    book,
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
    usage,
)

_encode = msgspec.json.encode


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A parsed body; `prompts` are token ids, `texts` what is echoed."""

    prompts: list[list[int]]
    texts: list[str]
    options: sampling.Sampling
    stream: bool
    stream_usage: usage.StreamUsage
    top_logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    token_ids: bool


def read_prompts(raw: object) -> tuple[list[list[int]], list[str]]:
    """
    Return token ids and texts of a `prompt` field: a string, ids, or a list of either.

    Raises:
        protocol.ApiError: There is no prompt, or an id is not in the vocabulary.

    """
    if isinstance(raw, str) and raw:
        entries: list[Any] = [raw]
    elif isinstance(raw, list) and raw and all(_is_id(entry) for entry in raw):
        entries = [raw]
    elif isinstance(raw, list) and raw:
        entries = raw
    else:
        raise protocol.ApiError(
            "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", param="prompt"
        )
    prompts, texts = [], []
    for entry in entries:
        if isinstance(entry, str):
            prompts.append(tokens.encode(entry) or [tokens.BOS])
            texts.append(entry)
        elif isinstance(entry, list) and entry and all(_is_id(token) for token in entry):
            try:
                texts.append(tokens.decode(entry))
            except ValueError as error:
                raise protocol.ApiError(str(error)) from error
            prompts.append(entry)
        else:
            raise protocol.ApiError(
                "Each prompt must be a non-empty string or a non-empty list of token ids. (parameter=prompt)",
                param="prompt",
            )
    return prompts, texts


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse(body: dict[str, Any], call: exchange.Exchange, shared: service.Service) -> CompletionRequest:
    """Return the parsed body. Raises protocol.ApiError in the order in which the real server finds errors."""
    fields = protocol.Fields(body)
    options = sampling.read(fields, priority_header=call.header(b"x-vllm-priority"))
    stream, echo, model = fields.flag("stream"), fields.flag("echo"), fields.text("model")
    top, of_prompt = fields.integer("logprobs"), fields.integer("prompt_logprobs")
    token_ids = fields.flag("return_token_ids")
    fields.finish()
    carried = usage.stream_usage(fields, stream=stream, forced=shared.config.enable_force_include_usage)
    if of_prompt is None and echo and top is not None:
        of_prompt = top
    if options.max_tokens is None:
        options = dataclasses.replace(options, max_tokens=sampling.COMPLETION_MAX_TOKENS)
    raw = fields.raw("prompt")
    if raw in (None, "", []):
        read_prompts(raw)
    shared.check_model(model)
    sampling.check_logprobs(top, of="sample")
    sampling.check_logprobs(of_prompt, of="prompt")
    prompts, texts = read_prompts(raw)
    forced = sampling.forced_by(body.get("response_format"), body.get("structured_outputs"))
    return CompletionRequest(
        prompts=prompts,
        texts=texts,
        options=dataclasses.replace(options, forced_text=forced, prompt_logprobs=of_prompt is not None),
        stream=stream,
        stream_usage=carried,
        top_logprobs=top,
        prompt_logprobs=of_prompt,
        echo=echo,
        token_ids=token_ids,
    )


async def handle(call: exchange.Exchange, shared: service.Service, fault: faults.Fault | None) -> None:
    """Answer one request. Raises protocol.ApiError for what is to be answered with an error."""
    request = parse(await call.json_object(), call, shared)
    request_id = f"cmpl-{shared.request_id(call)}"
    ticket = sampling.make_ticket(request_id, request.prompts, request.options, shared.config)
    wording = Wording(request, ticket, shared, request_id=request_id)
    await generation.answer(
        call, shared, ticket, fault, script=wording if request.stream else None, whole=wording.whole
    )


class Wording:
    """Completions on the wire: the events of a stream, or the whole answer."""

    eager = False

    def __init__(
        self, request: CompletionRequest, ticket: engine.Ticket, shared: service.Service, *, request_id: str
    ) -> None:
        """Prepare the bytes that all events of this answer share."""
        self._request = request
        self._ticket = ticket
        self._config = shared.config
        self._envelope = envelope.Envelope(ticket, shared, request_id=request_id, kind="text_completion", chat=False)
        self._plain = request.top_logprobs is None and not request.token_ids

    def opening(self) -> list[bytes]:
        """Return nothing: a completion starts with its first token."""
        return []

    def advance(self, sequence: scheduler.Sequence, start: int, end: int) -> list[bytes]:
        """Return one event with the text of the tokens that are new."""
        answer, finish = sequence.answer, sequence.finish_reason
        fragment = b"".join(answer.fragments[start:end])
        echoes = self._request.echo and start == 0
        if echoes:
            fragment = book.escape(self._echoed(sequence)) + fragment
        chances = ids = prompt_ids = b"null"
        if not self._plain:
            new = answer.ids[start:end]
            if self._request.top_logprobs is not None:
                chances = _encode(self._chances(sequence, start, new))
            if self._request.token_ids:
                ids = _encode(new)
                prompt_ids = _encode(sequence.prompt if start == 0 else None)
        tail = b"]"
        if self._request.stream_usage.continuous:
            tail += usage.running(len(sequence.prompt), end, chat=False)
        if finish is not None and not self._request.stream_usage.final:
            tail += self._envelope.fingerprint
        stop = _encode(answer.stop_reason if finish == "stop" else None)
        choice = (
            b'{"index":%d,"text":"%b","logprobs":%b,"finish_reason":%b,"stop_reason":%b,'
            b'"prompt_token_ids":%b,"token_ids":%b}'
        )
        values = (sequence.index, fragment, chances, _encode(finish), stop, prompt_ids, ids)
        return [self._envelope.head + choice % values + tail + b"}\n\n"]

    def _echoed(self, sequence: scheduler.Sequence) -> str:
        return "" if self._request.token_ids else self._request.texts[sequence.index // self._request.options.choices]

    def _chances(self, sequence: scheduler.Sequence, start: int, new: list[int]) -> dict[str, Any]:
        top = self._request.top_logprobs or 0
        if self._request.echo and start == 0:
            return logprobs.for_completion([*sequence.prompt, *new], top, first_unknown=True)
        echoed = len(tokens.decode(sequence.prompt)) if self._request.echo else 0
        return logprobs.for_completion(new, top, offset=echoed + len(tokens.decode(sequence.answer.ids[:start])))

    def closing(self) -> list[bytes]:
        """Return the usage event, if asked for, and the end mark."""
        return self._envelope.closing(with_usage=self._request.stream_usage.final)

    def failing(self, error: protocol.ApiError) -> list[bytes]:
        """Return the error and the end mark: here [DONE] does not mean success."""
        return [error.event(), streaming.DONE]

    def _choice(self, sequence: scheduler.Sequence) -> dict[str, Any]:
        request, ids = self._request, sequence.answer.ids[: sequence.generated]
        text = sequence.answer.text(sequence.generated)
        chances = of_prompt = None
        if request.top_logprobs is not None:
            chances = self._chances(sequence, 0, ids)
        if request.prompt_logprobs is not None:
            of_prompt = logprobs.for_prompt(sequence.prompt, request.prompt_logprobs)
        return {
            "index": sequence.index,
            "text": self._echoed(sequence) + text if request.echo else text,
            "logprobs": chances,
            "finish_reason": sequence.finish_reason,
            "stop_reason": sequence.answer.stop_reason if sequence.finish_reason == "stop" else None,
            "token_ids": ids if request.token_ids else None,
            "prompt_logprobs": of_prompt,
            "prompt_token_ids": sequence.prompt if request.token_ids else None,
            "routed_experts": None,
        }

    def whole(self) -> bytes:
        """Return the plain answer."""
        timed = self._config.enable_per_request_metrics and len(self._ticket.sequences) == 1
        answer = {
            "id": self._envelope.request_id,
            "object": "text_completion",
            "created": self._envelope.created,
            "model": self._config.names[0],
            "choices": [self._choice(sequence) for sequence in self._ticket.sequences],
            "service_tier": None,
            "system_fingerprint": self._config.fingerprint,
            "usage": usage.whole(self._ticket, details=self._config.enable_prompt_tokens_details, chat=False),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": {**usage.timings(self._ticket.sequences[0]), "speculative_decoding": None} if timed else None,
        }
        return _encode(answer)
