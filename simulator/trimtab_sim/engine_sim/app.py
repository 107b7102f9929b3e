"""
The ASGI application: Starlette's routing between an outer layer (keys, common headers, HTTP counters) and the handlers.

Handlers are plain ASGI callables; no middleware of Starlette's is used, so a streamed chunk passes through one
wrapper only.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette import applications, exceptions, requests, responses, routing

from trimtab_sim.engine_sim import (
    chat_route,
    completions_route,
    dev_routes,
    exchange,
    fault_routes,
    faults,
    http_metrics,
    messages_route,
    plain_routes,
    protocol,
    responses_route,
    service,
    streaming,
    token_routes,
)

PlainHandler = Callable[[exchange.Exchange, service.Service], Awaitable[None]]
GenerationHandler = Callable[[exchange.Exchange, service.Service, faults.Fault | None], Awaitable[None]]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_MESSAGES = "/v1/messages"
_NOT_MATCHED = frozenset((404, 405))


class PlainEndpoint:
    """A route that generates nothing."""

    def __init__(self, handler: PlainHandler, shared: service.Service) -> None:
        """Serve `handler`."""
        self._handler = handler
        self._shared = shared

    async def __call__(self, scope: exchange.Scope, receive: exchange.Receive, send: exchange.Send) -> None:
        """Handle one exchange."""
        call = exchange.Exchange(scope, receive, send)
        try:
            await self._handler(call, self._shared)
        except protocol.ApiError as error:
            await call.reply_error(error)


class GenerationEndpoint:
    """A route that generates; draws the fault that each request meets."""

    def __init__(self, handler: GenerationHandler, shared: service.Service, *, messages_shape: bool = False) -> None:
        """Serve `handler`; `messages_shape` gives errors the shape of /v1/messages."""
        self._handler = handler
        self._shared = shared
        self._messages_shape = messages_shape

    async def __call__(self, scope: exchange.Scope, receive: exchange.Receive, send: exchange.Send) -> None:
        """Handle one exchange."""
        call = exchange.Exchange(scope, receive, send)
        fault = self._shared.board.draw(self._shared.clock())
        try:
            await self._handler(call, self._shared, fault)
        except protocol.ApiError as error:
            await call.reply_error(error, messages_shape=self._messages_shape)
        except streaming.CutError:
            return


class Edge:
    """The outermost layer: API keys, headers that every answer has, and counters."""

    def __init__(self, inner: applications.Starlette, shared: service.Service) -> None:
        """Wrap `inner`."""
        self._inner = inner
        self._shared = shared
        self._keys = [key.encode() for key in shared.config.api_key]

    async def __call__(self, scope: exchange.Scope, receive: exchange.Receive, send: exchange.Send) -> None:
        """Handle one exchange."""
        if scope["type"] != "http":
            return
        if (
            self._keys
            and scope["path"].startswith(_GUARDED)
            and scope["method"] != "OPTIONS"
            and not self._authorized(scope)
        ):
            await exchange.Exchange(scope, receive, send).reply(b'{"error":"Unauthorized"}', status=401)
            return
        started = self._shared.clock()
        head: exchange.Message = {}

        async def outward(message: exchange.Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
                if exchange.BARE not in scope:
                    message["headers"] = [*message["headers"], *self._common_headers(scope)]
            await send(message)

        try:
            await self._inner(scope, receive, outward)
        finally:
            if head:
                self._count(scope, head, self._shared.clock() - started)

    def _authorized(self, scope: exchange.Scope) -> bool:
        offered = next((bytes(value) for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = offered.partition(b" ")
        return scheme.lower() == b"bearer" and any(secrets.compare_digest(key, known) for known in self._keys)

    def _common_headers(self, scope: exchange.Scope) -> list[exchange.Header]:
        headers: list[exchange.Header] = [(b"vary", b"Origin")]
        if self._shared.config.enable_request_id_headers:
            given = next((bytes(value) for name, value in scope["headers"] if name == b"x-request-id"), b"")
            headers.append((b"x-request-id", given or uuid.uuid4().hex.encode()))
        return headers

    def _count(self, scope: exchange.Scope, head: exchange.Message, seconds: float) -> None:
        handler = "none" if head["status"] in _NOT_MATCHED and "endpoint" not in scope else scope["path"]
        if handler in http_metrics.UNCOUNTED:
            return
        self._shared.http.count(
            handler,
            scope["method"],
            head["status"],
            request_bytes=_length(scope["headers"]),
            response_bytes=_length(head["headers"]),
            seconds=seconds,
            now=self._shared.wall(),
        )


def _length(headers: list[exchange.Header]) -> int:
    value = next((value for name, value in headers if name == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0


async def _not_matched(request: requests.Request, error: Exception) -> responses.Response:
    """Answer an unknown path or a wrong method in FastAPI's shape, which differs from that of other errors."""
    assert isinstance(error, exceptions.HTTPException)
    request.scope.pop("endpoint", None)
    return responses.JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


async def _crashed(request: requests.Request, error: Exception) -> responses.Response:
    """Answer a handler's own failure as the real server does; Starlette raises it again, so that it is logged."""
    request.scope[exchange.BARE] = True
    return responses.Response(protocol.dead(str(error)).body(), status_code=500, media_type="application/json")


def _route(path: str, method: str, endpoint: PlainEndpoint | GenerationEndpoint) -> routing.Route:
    route = routing.Route(path, endpoint, methods=[method])
    route.methods = {method}  # Starlette adds HEAD to GET, the real server does not
    return route


_PLAIN: Mapping[tuple[str, str], PlainHandler] = {
    ("/health", "GET"): plain_routes.health,
    ("/ping", "GET"): plain_routes.health,
    ("/ping", "POST"): plain_routes.health,
    ("/version", "GET"): plain_routes.version,
    ("/load", "GET"): plain_routes.load,
    ("/metrics", "GET"): plain_routes.metrics,
    ("/v1/models", "GET"): plain_routes.models,
    ("/v1/chat/completions/render", "POST"): plain_routes.render,
    ("/v1/messages/count_tokens", "POST"): messages_route.count,
    ("/tokenize", "POST"): token_routes.tokenize,
    ("/detokenize", "POST"): token_routes.detokenize,
}
_DEVELOPMENT: Mapping[tuple[str, str], PlainHandler] = {
    ("/pause", "POST"): dev_routes.pause,
    ("/resume", "POST"): dev_routes.resume,
    ("/is_paused", "GET"): dev_routes.is_paused,
    ("/sleep", "POST"): dev_routes.sleep,
    ("/wake_up", "POST"): dev_routes.wake_up,
    ("/is_sleeping", "GET"): dev_routes.is_sleeping,
    ("/abort_requests", "POST"): dev_routes.abort_requests,
    ("/reset_prefix_cache", "POST"): dev_routes.reset_prefix_cache,
}
_CONTROL: Mapping[tuple[str, str], PlainHandler] = {
    ("/sim/faults", "GET"): fault_routes.show,
    ("/sim/faults", "POST"): fault_routes.add,
    ("/sim/faults", "DELETE"): fault_routes.lift,
}
_GENERATION: Mapping[str, GenerationHandler] = {
    "/v1/chat/completions": chat_route.handle,
    "/v1/completions": completions_route.handle,
    "/v1/responses": responses_route.handle,
    _MESSAGES: messages_route.handle,
}


def routes(shared: service.Service) -> list[routing.Route]:
    """Return all routes that these settings have."""
    plain = dict(_PLAIN)
    if shared.config.dev_mode:
        plain.update(_DEVELOPMENT)
    if shared.config.sim_control:
        plain.update(_CONTROL)
    found = [_route(path, method, PlainEndpoint(handler, shared)) for (path, method), handler in plain.items()]
    for path, handler in _GENERATION.items():
        endpoint = GenerationEndpoint(handler, shared, messages_shape=path == _MESSAGES)
        found.append(_route(path, "POST", endpoint))
    return found


def build(shared: service.Service) -> Edge:
    """Return the application for a server's state."""
    handlers = {404: _not_matched, 405: _not_matched, Exception: _crashed}
    inner = applications.Starlette(routes=routes(shared), exception_handlers=handlers)
    return Edge(inner, shared)
