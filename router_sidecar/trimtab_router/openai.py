"""Requests in OpenAI's form: read only what routing needs, and change bytes in place instead of rewriting JSON.

A long agent body costs hundreds of microseconds to decode and encode. So a body is decoded once, partially;
the model's bytes are spliced, ``stream_options`` is put before the last brace, and only where a doubt remains
(a ``"model"`` further in) the result is decoded again and compared. If that fails too, the body is
decoded and encoded in full, which is slow and always right.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from trimtab_router import errors


class StreamOptions(msgspec.Struct, frozen=True):
    """What the client wants of a stream."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


_NONE = msgspec.Raw(b"")
_ABSENT = StreamOptions()
"""Stands for no options at all, as None stands for a null: only where there are none may some be added."""


class Envelope(msgspec.Struct):
    """The part of every body that the router acts on.

    What is kept as bytes is looked at only where it matters, and whatever it holds is no error here: the engine
    will say.
    """

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = _ABSENT
    prompt_cache_key: msgspec.Raw = _NONE
    user: msgspec.Raw = _NONE
    cache_salt: msgspec.Raw = _NONE
    max_tokens: msgspec.Raw = _NONE
    max_completion_tokens: msgspec.Raw = _NONE
    max_output_tokens: msgspec.Raw = _NONE
    n: msgspec.Raw = _NONE
    best_of: msgspec.Raw = _NONE

    @property
    def session(self) -> bytes:
        """What the client says that its requests belong to, as JSON; empty if it says nothing."""
        for given in (self.prompt_cache_key, self.user):
            if given is not _NONE and bytes(given) not in (b"null", b'""'):
                return bytes(given)
        return b""

    @property
    def output_bound(self) -> int | None:
        """Tokens of one answer at most, as the client wants it; None if it does not say."""
        given = (whole(each) for each in (self.max_completion_tokens, self.max_output_tokens, self.max_tokens))
        return max((each for each in given if each is not None), default=None)

    @property
    def answers(self) -> int:
        """How many answers are made for each prompt."""
        return max(1, whole(self.n) or 1, whole(self.best_of) or 1)


class _Name(str):
    """A model's name on its way through the decoder, which says so each time that it meets one."""

    __slots__ = ()


class _Body(Envelope):
    model: _Name = _Name("")


_met: list[_Name] = []


def _meet(_type: type, value: object) -> _Name:
    if type(value) is not str:
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    name = _Name(value)
    _met.append(name)
    return name


class Message(msgspec.Struct):
    """A chat message, its content not yet decoded."""

    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class Prompts(msgspec.Struct):
    """Where the texts of a request are, on any route."""

    messages: list[Message] = []
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")


class TextPart(msgspec.Struct):
    """A part of a message; other kinds than text have none."""

    text: str = ""


_envelope = msgspec.json.Decoder(_Body, dec_hook=_meet)
_prompts = msgspec.json.Decoder(Prompts)
_content = msgspec.json.Decoder(str | list[TextPart | str] | None)
_anything = msgspec.json.Decoder()
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_OPTIONS = re.compile(rb'"stream_options"\s*:\s*\{')
_INCLUDE_USAGE = b',"stream_options":{"include_usage":true}'
_COUNT_ALWAYS = b',"stream_options":{"include_usage":true,"continuous_usage_stats":true}'
_ALSO_COUNT = b'"continuous_usage_stats":true,'
_LONG_BYTES = 16 << 10
"""Beyond it a copy costs more than a view does."""
_CERTAIN_OFFSET = 3
"""A match this near to the start is the first key of the top level: ``{ "model"``."""


def read(body: bytes) -> Envelope:
    """Decode the envelope.

    Raises:
        errors.Malformed: if the body is no JSON object, a field has the wrong type, or it names two models: which of
            them counts, parsers do not agree on.
    """
    _met.clear()
    try:
        envelope = _envelope.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.Malformed(f"the body is not a valid request: {error}", param=_field(str(error))) from error
    if len(_met) > 1:
        raise errors.Malformed("the body has more than one model", param="model")
    return envelope


def _field(message: str) -> str | None:
    """The field that a msgspec error points at: ``… - at `$.stream` `` → ``stream``."""
    found = re.search(r"at `\$\.?([^`]*)`", message)
    return found[1] or None if found else None


def last_text(body: bytes) -> tuple[str, int]:
    """The text of the last user message (or the prompt, or the input), and the number of messages.

    Never raises: what has no text that can be read counts as an empty one, and the engine will say why.
    """
    try:
        prompts = _prompts.decode(body)
        for message in reversed(prompts.messages):
            if message.role == "user":
                return _text(message.content), len(prompts.messages)
        return _text(prompts.prompt) or _text(prompts.input), max(1, len(prompts.messages))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "", 1


def _text(raw: msgspec.Raw) -> str:
    content = _content.decode(raw)
    if isinstance(content, list):
        return "\n".join(part if isinstance(part, str) else part.text for part in content)
    return content or ""


def decode(body: bytes) -> dict[str, Any]:
    """The whole body; only where the cache may answer it, or where splicing it is not safe.

    Raises:
        errors.Malformed: if it is no JSON object; what ``read`` skipped over may hide a fault until now.
    """
    try:
        decoded = _anything.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.Malformed(f"the body is not valid JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise errors.Malformed("the body must be a JSON object")
    return decoded


def whole(raw: msgspec.Raw) -> int | None:
    """The whole number in a field, also one in quotes, as engines take it; None if there is none."""
    text = bytes(raw).strip(b'"')
    try:
        return max(0, int(float(text))) if text else None
    except (ValueError, OverflowError):
        return None


def prompts_in(body: bytes) -> int:
    """How many prompts a completion request holds: a list of texts or of lists of tokens is many."""
    try:
        raw = bytes(_prompts.decode(body).prompt)
        if not raw.startswith(b"["):
            return 1
        items = _raw_list.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 1
    return len(items) if items and bytes(items[0])[:1] in (b'"', b"[") else 1


Pieces = tuple[bytes | memoryview, ...]


class Wanted(msgspec.Struct, frozen=True):
    """What an engine is sent instead of what the client sent.

    Attributes:
        model: the name that the engine serves.
        usage: ask for usage, for streams of routes that have ``stream_options``.
        running: and for the count so far on every event, as vLLM knows it.
        extra: further fields as JSON, each with a comma before it; they take the place of the client's.
    """

    model: str
    usage: bool
    running: bool = False
    extra: bytes = b""

    def options(self, envelope: Envelope) -> StreamOptions | None:
        """The stream options that the engine should read; what the client asked for is never taken away."""
        given = envelope.stream_options
        if not self.usage or not envelope.stream:
            return given
        running = True if self.running else given.continuous_usage_stats if given is not None else None
        return StreamOptions(include_usage=True, continuous_usage_stats=running)


def rewrite(body: bytes, envelope: Envelope, wanted: Wanted) -> bytes:
    """The body for an engine in one; see ``pieces``."""
    return b"".join(pieces(body, envelope, wanted))


def pieces(body: bytes, envelope: Envelope, wanted: Wanted) -> Pieces:
    """The body for an engine: its model name, and usage asked for on streams. In pieces, so that it is copied once.

    Args:
        body: as the client sent it.
        envelope: what ``read`` found in it.
        wanted: of the engine.
    """
    options, extra = envelope.stream_options, wanted.extra
    asks = wanted.options(envelope) != options
    found = _MODEL.search(body)
    inner = _OPTIONS.search(body) if asks and options is not _ABSENT else None
    if (
        found is None
        or found[1] != envelope.model.encode()
        or (extra and envelope.cache_salt is not _NONE)
        # Options may be added to only where there is nothing to take back, and no second place that looks like them.
        or (asks and options is not _ABSENT and (inner is None or not _may_add(body, options)))
    ):
        return (_rewrite_in_full(body, envelope, wanted),)
    edits = [(*found.span(1), wanted.model.encode())]
    if inner is not None:
        edits.append((inner.end(), inner.end(), _ALSO_COUNT))
        edits.sort()
    elif asks:
        extra = (_COUNT_ALWAYS if wanted.running else _INCLUDE_USAGE) + extra
    if extra:
        # Behind everything else.
        brace = body.rindex(b"}")
        edits.append((brace, brace, extra))
    spliced = _spliced(body, edits)
    # No body has two models at the top, see ``read``: the first key is the one.
    certain = found.start() < _CERTAIN_OFFSET and (inner is None or b"\\u0" not in body)
    if certain or _is_as_wanted(b"".join(spliced), envelope, wanted):
        return spliced
    return (_rewrite_in_full(body, envelope, wanted),)


def _may_add(body: bytes, options: StreamOptions | None) -> bool:
    if options is None or not options.include_usage or options.continuous_usage_stats is not None:
        return False
    return body.count(b'"stream_options"') == 1 and b'"continuous_usage_stats"' not in body


def _spliced(body: bytes, edits: list[tuple[int, int, bytes]]) -> Pieces:
    """A body with some ranges replaced, in order: start, end and the new bytes of each."""
    view = memoryview(body)
    if len(edits) == 1:
        start, end, new = edits[0]
        return view[:start], new, view[end:]
    made: list[bytes | memoryview] = []
    at = 0
    for start, end, new in edits:
        made += (view[at:start], new)
        at = end
    return (*made, view[at:])


def _is_as_wanted(body: bytes, envelope: Envelope, wanted: Wanted) -> bool:
    try:
        result = _envelope.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    options = wanted.options(envelope)
    return (result.model, result.stream, result.stream_options) == (wanted.model, envelope.stream, options)


def _rewrite_in_full(body: bytes, envelope: Envelope, wanted: Wanted) -> bytes:
    decoded = decode(body)
    decoded["model"] = wanted.model
    if wanted.usage and envelope.stream:
        asked = {"include_usage": True, **({"continuous_usage_stats": True} if wanted.running else {})}
        decoded["stream_options"] = {**(decoded.get("stream_options") or {}), **asked}
    if wanted.extra:
        decoded.update(_anything.decode(b"{" + wanted.extra[1:] + b"}"))
    return _encoder.encode(decoded)


def models_list(names: list[str], created: int) -> bytes:
    """The body of ``GET /v1/models``."""
    return _encoder.encode({"object": "list", "data": [_model(name, created) for name in names]})


def model_object(name: str, created: int) -> bytes:
    """The body of ``GET /v1/models/{name}``."""
    return _encoder.encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "trimtab"}
