"""
The sampling fields that all generation routes share. No I/O.

Reading them, their defaults and limits, and turning prompts into engine requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from trimtab_sim.engine_sim import answers, engine, protocol, scheduler, schema_values, settings

_MOST_CHOICES = 16384
_MOST_LOGPROBS = 20
COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions, kept by vLLM


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """
    What a request asks of the sampler; None where it says nothing.

    Attributes mirror the request fields; `forced_text` is text that a grammar or a tool choice forces.
    """

    choices: int = 1
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    priority: int = 0
    cache_salt: str = ""
    prompt_logprobs: bool = False
    forced_text: str | None = None

    def check(self) -> None:
        """Raise ApiError for the first value that is out of range, in the order in which the real sampler checks."""
        if self.choices < 1:
            raise protocol.ApiError(f"n must be at least 1, got {self.choices}.")
        if self.choices > _MOST_CHOICES:
            raise protocol.ApiError(f"n must be at most {_MOST_CHOICES}, got {self.choices}.")
        if self.temperature is not None and not self.temperature >= 0:
            raise protocol.bad_value(
                "temperature", self.temperature, f"temperature must be non-negative, got {self.temperature}."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise protocol.bad_value("top_p", self.top_p, f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise protocol.bad_value(
                "max_tokens", self.max_tokens, f"max_tokens must be at least 1, got {self.max_tokens}."
            )
        if self.min_tokens < 0:
            raise protocol.ApiError(f"min_tokens must be greater than or equal to 0, got {self.min_tokens}.")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise protocol.ApiError(
                f"min_tokens must be less than or equal to max_tokens={self.max_tokens}, got {self.min_tokens}."
            )


def read(fields: protocol.Fields, *, priority_header: str | None) -> Sampling:
    """Return the sampling fields of an OpenAI body; the X-Vllm-Priority header wins over the body's priority."""
    priority = fields.integer("priority") or 0
    if priority_header is not None:
        try:
            priority = int(priority_header)
        except ValueError as error:
            raise protocol.ApiError(f"Invalid X-Vllm-Priority header: {priority_header!r} is not an integer") from error
    raw_stop = fields.raw("stop")
    stop = [raw_stop] if isinstance(raw_stop, str) else fields.items("stop")
    choices = fields.integer("n")
    return Sampling(
        choices=1 if choices is None else choices,
        max_tokens=fields.integer("max_tokens"),
        min_tokens=fields.integer("min_tokens") or 0,
        ignore_eos=fields.flag("ignore_eos"),
        stop=tuple(word for word in stop or () if isinstance(word, str)),
        keep_stop=fields.flag("include_stop_str_in_output"),
        seed=fields.integer("seed"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        priority=priority,
        cache_salt=fields.text("cache_salt") or "",
        prompt_logprobs=fields.integer("prompt_logprobs") is not None,
    )


def check_logprobs(count: int | None, *, of: str) -> None:
    """Raise ApiError if more alternatives are asked for than the server allows; `of` is `sample` or `prompt`."""
    if count is not None and not 0 <= count <= _MOST_LOGPROBS:
        raise protocol.ApiError(
            f"Requested {of} logprobs of {count}, which is greater than max allowed: {_MOST_LOGPROBS}"
            if count > 0
            else f"{of} logprobs must not be negative, got {count}."
        )


def forced_by(response_format: object, structured: object) -> str | None:
    """
    Return the text that `response_format` or `structured_outputs` forces, None if they force nothing.

    Raises:
        protocol.ApiError: The schema cannot be met.

    """
    schema: Any = None
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        wrapped = response_format.get("json_schema")
        if not isinstance(wrapped, dict):
            raise protocol.ApiError(
                "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
                param="response_format",
            )
        schema = wrapped.get("schema", wrapped.get("json_schema", {}))
    elif isinstance(response_format, dict) and response_format.get("type") == "json_object":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    elif isinstance(structured, dict):
        if isinstance(structured.get("choice"), list) and structured["choice"]:
            return str(structured["choice"][0])
        schema = structured.get("json")
    if schema is None:
        return None
    try:
        return schema_values.text(schema)
    except schema_values.SchemaError as error:
        raise protocol.ApiError(f"Grammar error: {error}") from error


def check_length(prompt_tokens: int, sampling: Sampling, config: settings.Settings) -> int:
    """
    Return the tokens that an answer to a prompt of this length may have.

    Raises:
        protocol.ApiError: The prompt, or prompt and answer together, exceed the context.

    """
    longest = config.context_tokens
    asked = sampling.max_tokens
    name = sampling.max_tokens_field
    if asked is not None and asked > longest:
        complaint = (
            f"{name}={asked} cannot be greater than max_model_len={longest}. Please request fewer output tokens."
        )
        raise protocol.bad_value(name, asked, complaint)
    limit = f"This model's maximum context length is {longest} tokens. However, "
    if prompt_tokens > longest:
        seen = longest + 1  # the real tokenizer stops counting there
        complaint = (
            f"{limit}your prompt contains at least {seen} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt."
        )
        raise protocol.bad_value("input_tokens", seen, complaint)
    wanted = 1 if asked is None else max(asked, 1)
    if prompt_tokens + wanted > longest:
        complaint = (
            f"{limit}you requested {wanted} output tokens and your prompt contains at least {prompt_tokens} input "
            f"tokens, for a total of at least {prompt_tokens + wanted} tokens. Please reduce the length of the input "
            "prompt or the number of requested output tokens."
        )
        raise protocol.bad_value("input_tokens", prompt_tokens, complaint)
    return longest - prompt_tokens if asked is None else asked


def make_ticket(
    request_id: str, prompts: Sequence[list[int]], sampling: Sampling, config: settings.Settings
) -> engine.Ticket:
    """
    Return the engine request for some prompts, `n` sequences each, not yet submitted.

    Raises:
        protocol.ApiError: A prompt or a value is out of range.

    """
    limits = [check_length(len(prompt), sampling, config) for prompt in prompts]
    sampling.check()
    ticket = engine.Ticket(sequences=[], max_tokens=limits[0], choices=sampling.choices)
    seed = config.sim_seed if sampling.seed is None else sampling.seed
    for prompt, limit in zip(prompts, limits, strict=True):
        for choice in range(sampling.choices):
            answer = answers.plan_answer(
                answers.AnswerRequest(
                    prompt=prompt,
                    max_tokens=limit,
                    mean_tokens=config.sim_output_tokens,
                    seed=seed,
                    choice=choice,
                    min_tokens=sampling.min_tokens,
                    ignore_eos=sampling.ignore_eos,
                    stop=sampling.stop,
                    keep_stop=sampling.keep_stop,
                    forced_text=sampling.forced_text,
                )
            )
            ticket.sequences.append(
                scheduler.Sequence(
                    owner=ticket,
                    request_id=request_id,
                    index=len(ticket.sequences),
                    prompt=prompt,
                    answer=answer,
                    priority=sampling.priority,
                    salt=sampling.cache_salt,
                    reads_cache=config.enable_prefix_caching and not sampling.prompt_logprobs,
                )
            )
    return ticket
