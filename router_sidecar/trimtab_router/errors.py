"""Every way a request can fail, and what the client is told.

::

    RouterError
    ├── RequestError                 the client can mend it
    │   ├── Malformed                400  not HTTP, not JSON, a field of the wrong type
    │   ├── BadHeader                400  an internal header given twice, or with a value that names nothing
    │   ├── Unauthorized             401  no API key, or none that is known
    │   ├── UnknownModel             404  a model name that this policy doesn't answer
    │   ├── UnknownPath              404
    │   ├── WrongMethod              405
    │   ├── SlowRequest              408  head or body did not come in time
    │   ├── TooDear                  400  no tier that may serve it costs as little as X-Trimtab-Max-Cost-Usd
    │   ├── BodyTooLarge             413
    │   ├── UnmetExpectation         417  an Expect other than 100-continue
    │   ├── HeadTooLarge             431
    │   └── UnknownCoding            501  a transfer coding other than chunked
    ├── Limited                           the tenant has used what it may
    │   ├── RateLimited              429  of this minute, or at one time
    │   └── QuotaExceeded            429  of this day or month
    ├── Unavailable                  503  no table yet, draining, or no tier that may serve has room to
    ├── Overloaded                   503  every engine is full, and so is the queue, or it would take too long
    ├── Degraded                     429  the policy's budget is used up: this kind of request is refused for now
    ├── UpstreamError                     engines were asked and failed, and no fallback was left
    │   ├── UpstreamFailed           502  broke off, answered nonsense, or reported an error of its own
    │   └── UpstreamTimeout          504
    └── Internal                     500  a fault of the router itself
"""

# ruff: noqa: N818 (read with the module: `errors.UnknownModel` needs no suffix)

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class RouterError(Exception):
    """A request that gets an error answer.

    Attributes:
        param: the field or header at fault, None if there is none.
        retry_after: seconds after which asking again makes sense, None if it doesn't.
        extra: further header lines of the answer, each with its line end.
    """

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None, extra: bytes = b""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.extra = extra


class RequestError(RouterError):
    """The client's to mend."""


class Malformed(RequestError):
    """Not HTTP, not JSON, or a field of the wrong type."""


class BadHeader(RequestError):
    """An internal header given twice, or with a value that names nothing."""


class Unauthorized(RequestError):
    """No API key, or none that is known."""


class UnknownModel(RequestError):
    """A model name that this policy doesn't answer."""


class UnknownPath(RequestError):
    """No such route."""


class WrongMethod(RequestError):
    """The route exists, the method does not."""


class SlowRequest(RequestError):
    """Head or body did not come in time."""


class TooDear(RequestError):
    """Nothing that may serve the request is sure to cost as little as the client allows."""


class BodyTooLarge(RequestError):
    """More body than the limit."""


class HeadTooLarge(RequestError):
    """More header bytes than the limit."""


class UnmetExpectation(RequestError):
    """The client expects something else than to be asked for its body."""


class UnknownCoding(RequestError):
    """A transfer coding other than chunked."""


class Limited(RouterError):
    """The tenant has used what it may."""


class RateLimited(Limited):
    """For this minute, or at one time."""


class QuotaExceeded(Limited):
    """For this day or month."""


class Unavailable(RouterError):
    """Nothing that may serve the request can do so now."""


class Overloaded(RouterError):
    """Every engine that may serve is full, and waiting is of no use either."""


class Degraded(RouterError):
    """The policy's budget is used up, and this kind of request is what it gives up."""


class UpstreamError(RouterError):
    """Engines were asked and failed, and no fallback was left."""


class UpstreamFailed(UpstreamError):
    """The engine broke off, answered nonsense, or reported an error of its own."""


class UpstreamTimeout(UpstreamError):
    """The engine did not answer in time."""


class Internal(RouterError):
    """A fault of the router itself; the log has its traceback."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the client is told: HTTP status, and ``type`` and ``code`` of OpenAI's error object."""

    status: int
    type: str
    code: str | None


_INVALID = "invalid_request_error"

TABLE: dict[type[RouterError], Row] = {
    Malformed: Row(400, _INVALID, None),
    BadHeader: Row(400, _INVALID, "bad_header"),
    Unauthorized: Row(401, "authentication_error", "invalid_api_key"),
    UnknownModel: Row(404, _INVALID, "model_not_found"),
    UnknownPath: Row(404, _INVALID, "unknown_url"),
    WrongMethod: Row(405, _INVALID, "method_not_allowed"),
    SlowRequest: Row(408, _INVALID, "request_timeout"),
    TooDear: Row(400, _INVALID, "max_cost_exceeded"),
    BodyTooLarge: Row(413, _INVALID, "body_too_large"),
    UnmetExpectation: Row(417, _INVALID, "expectation_failed"),
    HeadTooLarge: Row(431, _INVALID, "headers_too_large"),
    UnknownCoding: Row(501, _INVALID, "unknown_transfer_coding"),
    RateLimited: Row(429, "rate_limit_error", "rate_limit_exceeded"),
    QuotaExceeded: Row(429, "insufficient_quota", "insufficient_quota"),
    Unavailable: Row(503, "server_error", "unavailable"),
    Overloaded: Row(503, "server_error", "overloaded"),
    Degraded: Row(429, "rate_limit_error", "policy_budget_exceeded"),
    UpstreamFailed: Row(502, "server_error", "upstream_failed"),
    UpstreamTimeout: Row(504, "server_error", "upstream_timeout"),
    Internal: Row(500, "server_error", "internal_error"),
}
"""The one table from error to answer; a test holds every leaf of the tree against it."""


def body(message: str, row: Row, param: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    return msgspec.json.encode(
        {"error": {"message": message, "type": row.type, "param": param, "code": row.code}},
    )


def render(error: RouterError) -> tuple[int, bytes]:
    """Status and body of an error."""
    row = TABLE[type(error)]
    return row.status, body(error.message, row, error.param)
