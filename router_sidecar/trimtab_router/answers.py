"""Answers in OpenAI's form: what they cost, how they ended, and engines' errors in OpenAI's shape."""

from __future__ import annotations

import http
from typing import Protocol

import msgspec

from trimtab_router import errors


class Finishing(Protocol):
    """Anything that ends by a reason."""

    finish_reason: str | None


NULL = msgspec.Raw(b"null")


def is_filled(raw: msgspec.Raw) -> bool:
    """Whether a field that is kept as bytes holds anything."""
    return bytes(raw) not in (b"null", b"[]", b"{}", b"")


class TokenDetails(msgspec.Struct):
    """The part of the prompt that the engine found in its prefix cache."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens of one answer; chat and completions name them one way, responses and messages another."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: TokenDetails | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: TokenDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        """Prompt tokens, those of them that were cached, and tokens generated: all that a bill needs."""
        details = self.prompt_tokens_details or self.input_tokens_details
        outputs = self.completion_tokens or self.output_tokens
        if details is not None:
            return self.prompt_tokens or self.input_tokens, details.cached_tokens or 0, outputs
        return self.tokens_in, self.tokens_cached, outputs

    @property
    def tokens_in(self) -> int:
        """Prompt tokens, cached ones included; messages count them apart."""
        cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return self.prompt_tokens or self.input_tokens + cached

    @property
    def tokens_out(self) -> int:
        """Tokens generated."""
        return self.completion_tokens or self.output_tokens

    @property
    def tokens_cached(self) -> int:
        """Prompt tokens found in the engine's prefix cache."""
        details = self.prompt_tokens_details or self.input_tokens_details
        return (details.cached_tokens or 0) if details is not None else self.cache_read_input_tokens or 0


class Body(msgspec.Struct):
    """The text of a choice: a message, or part of one."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def has_content(self) -> bool:
        """Whether anything is in it that a client would see."""
        return bool(
            self.content
            or self.refusal
            or self.reasoning
            or self.reasoning_content
            or is_filled(self.tool_calls)
            or is_filled(self.function_call)
        )


class Choice(msgspec.Struct):
    """One choice of an answer or of a chunk."""

    index: int = 0
    text: str | None = None
    message: Body | None = None
    delta: Body | None = None
    finish_reason: str | None = None


class Answer(msgspec.Struct):
    """An answer, or one chunk of one, as far as the router reads it."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = NULL
    status: str | None = None


class Ended(msgspec.Struct):
    """As much of an answer as tells how it ended: cheaper to decode than ``Answer``."""

    class Finish(msgspec.Struct):
        """How one choice ended."""

        finish_reason: str | None = None

    choices: list[Finish] = []
    usage: Usage | None = None
    error: msgspec.Raw = NULL


chunk = msgspec.json.Decoder(Answer)
ended = msgspec.json.Decoder(Ended)


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | str | None = None
    message: str = ""
    detail: msgspec.Raw = NULL
    param: str | None = None


_error_body = msgspec.json.Decoder(_ErrorBody)

_TYPES = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "not_found"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "body_too_large"),
    422: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_TOO_LONG = ("maximum context length", "max_model_len", "longer than the maximum")


def normalise_error(status: int, body: bytes) -> bytes:
    """An engine's error in OpenAI's shape: ``code`` a string or null, ``type`` one of OpenAI's.

    Understands vLLM's object with an integer code, its ``{"error": "Unauthorized"}``, FastAPI's ``detail`` and
    the flat form of old engines; of anything else only the status remains.
    """
    type_, code = _TYPES.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))  # noqa: PLR2004
    param = _message(body)[1]
    message = message_of(status, body)
    if any(mark in message for mark in _TOO_LONG):
        code = "context_length_exceeded"
    elif status == http.HTTPStatus.NOT_FOUND and param == "model":
        code = "model_not_found"
    return errors.body(message, errors.Row(status, type_, code), param)


def message_of(status: int, body: bytes) -> str:
    """What an engine says in its error; without words of its own, its status."""
    return _message(body)[0] or f"the engine answered {status} {_phrase(status)}".rstrip()


def _message(body: bytes) -> tuple[str, str | None]:
    try:
        found = _error_body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "", None
    if isinstance(found.error, _Error):
        return found.error.message, found.error.param
    detail = bytes(found.detail).decode().strip('"') if is_filled(found.detail) else ""
    return found.error or found.message or detail, found.param


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
