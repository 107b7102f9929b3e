"""
Errors in vLLM's shapes, and reading the fields of a request body with its complaints.

The error tree:

    ApiError                  any answer that is no success: status, type, message, param
    └── ValidationError       the body is no JSON object or a field has the wrong type; 400 "Bad Request"

vLLM answers 400 (not 422) for both; the types differ: "Bad Request" for the shape of the body, "BadRequestError" for
values.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any

import msgspec

_encode = msgspec.json.encode


class ApiError(Exception):
    """
    An error answer.

    Args:
        message: Text for the client.
        status: HTTP status.
        kind: The `type` field.
        param: The offending field, or None.
        bare: Whether the answer leaves before the outer headers are added (as errors of the outermost layer do).

    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
        bare: bool = False,
    ) -> None:
        """Keep the parts of the answer."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.bare = bare

    def body(self) -> bytes:
        """Return the JSON body in OpenAI's shape."""
        return _encode({"error": self.fields()})

    def fields(self) -> dict[str, Any]:
        """Return message, type, param and code, in this order."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}

    def messages_body(self) -> bytes:
        """Return the JSON body in the shape of /v1/messages."""
        return _encode({"type": "error", "error": {"type": self.kind, "message": self.message}})

    def event(self) -> bytes:
        """Return the error as an event of a stream; spaced as Python's json does it, unlike the other events."""
        return b"data: " + json.dumps({"error": self.fields()}).encode() + b"\n\n"


class ValidationError(ApiError):
    """The body has the wrong shape; carries all problems found."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        """Render `problems` (pydantic's fields) as the server does; `param` is the place of the first."""
        lines = "".join(f"\n  {problem}" for problem in problems)
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}"
        super().__init__(f"{count}:{lines}", kind=http.HTTPStatus.BAD_REQUEST.phrase, param=problems[0].get("loc"))


def unsupported_media_type() -> ApiError:
    """Return the error for a body that is not declared as JSON."""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return ApiError(message, kind=http.HTTPStatus.BAD_REQUEST.phrase)


def busy() -> ApiError:
    """Return the error for a full queue; there is no Retry-After, as the real server sends none."""
    message = "The engine is currently busy and cannot accept new requests. "
    message += "Please try again later or on a different instance."
    return ApiError(message, status=503, kind=http.HTTPStatus.SERVICE_UNAVAILABLE.phrase)


def dead(message: str) -> ApiError:
    """Return the error for a request whose engine died."""
    return ApiError(message, status=500, kind="InternalServerError")


def closed(message: str) -> ApiError:
    """Return the error for a new request to an engine that drains."""
    return ApiError(message, status=500, kind="InternalServerError", bare=True)


def bad_value(name: str, value: object, complaint: str) -> ApiError:
    """Return the error for a field whose value is out of range: `complaint` and the field with its value."""
    return ApiError(f"{complaint} (parameter={name}, value={value})", param=name)


def _seen(value: object) -> object:
    """Return a value as an error shows it; containers only by size, so that no prompt gets into a message."""
    if isinstance(value, dict):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return value


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request body. Raises ValidationError."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        parsed = _parse_slowly(body)
    if not isinstance(parsed, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise ValidationError(
            [{"type": "model_attributes_type", "loc": "body", "msg": message, "input": _seen(parsed)}]
        )
    return parsed


def _parse_slowly(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse with the standard library, whose complaints the server passes on (and which takes NaN, as it does)."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        problem = {
            "type": "json_invalid",
            "loc": f"body.{error.pos}",
            "msg": "JSON decode error",
            "input": _seen({}),
            "ctx": {"error": error.msg},
        }
        raise ValidationError([problem]) from error
    except UnicodeDecodeError as error:
        raise ApiError("There was an error parsing the body", kind=http.HTTPStatus.BAD_REQUEST.phrase) from error


class Fields:
    """
    Typed access to a body's fields; collects every problem and raises them together.

    Coercions are pydantic's lax ones that clients rely on: numbers in strings, whole floats for integers. A null field
    counts as absent.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Read from `body`."""
        self._body = body
        self._problems: list[dict[str, Any]] = []

    def finish(self) -> None:
        """Raise ValidationError if any field was wrong."""
        if self._problems:
            raise ValidationError(self._problems)

    def _complain(self, kind: str, name: str, message: str) -> None:
        self._problems.append({"type": kind, "loc": f"body.{name}", "msg": message, "input": _seen(self._body[name])})

    def required(self, name: str) -> None:
        """Complain if the field is absent."""
        if name not in self._body:
            problem = {
                "type": "missing",
                "loc": f"body.{name}",
                "msg": "Field required",
                "input": _seen(dict(self._body)),
            }
            self._problems.append(problem)

    def raw(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return the field as it came, None if absent."""
        return self._body.get(name)

    def integer(self, name: str) -> int | None:
        """Return an integer field."""
        value = self._body.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if isinstance(value, float):
            if value == value // 1 and abs(value) < float("inf"):
                return int(value)
            self._complain(
                "int_from_float", name, "Input should be a valid integer, got a number with a fractional part"
            )
        elif isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                self._complain(
                    "int_parsing", name, "Input should be a valid integer, unable to parse string as an integer"
                )
        else:
            self._complain("int_type", name, "Input should be a valid integer")
        return None

    def number(self, name: str) -> float | None:
        """Return a number field as a float."""
        value = self._body.get(name)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return None if value is None else float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                self._complain(
                    "float_parsing", name, "Input should be a valid number, unable to parse string as a number"
                )
        else:
            self._complain("float_type", name, "Input should be a valid number")
        return None

    def flag(self, name: str) -> bool:
        """Return a boolean field, False if absent."""
        value = self._body.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if value in (0, 1, "true", "false", "True", "False"):
            return value in (1, "true", "True")
        if isinstance(value, str):
            self._complain("bool_parsing", name, "Input should be a valid boolean, unable to interpret input")
        else:
            self._complain("bool_type", name, "Input should be a valid boolean")
        return False

    def text(self, name: str) -> str | None:
        """Return a string field."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, str):
            self._complain("string_type", name, "Input should be a valid string")
            return None
        return value

    def items(self, name: str) -> list[Any] | None:
        """Return a list field."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, list):
            self._complain("list_type", name, "Input should be a valid list")
            return None
        return value

    def text_or_items(self, name: str) -> str | list[Any]:
        """Return a required field that is a string or a list; null is neither."""
        self.required(name)
        value = self._body.get(name)
        if isinstance(value, (str, list)):
            return value
        if name in self._body:
            self._complain("string_type", name, "Input should be a valid string")
        return ""

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object field."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, dict):
            self._complain("dict_type", name, "Input should be a valid dictionary")
            return None
        return value
