"""What an engine is sent for a client's request. The body for one model is made once, however often it is sent."""

from __future__ import annotations

from trimtab_router import admission, endpoints, heads, openai, routes
from trimtab_router.request import Request


class Forwarding:
    """One request on its way to engines.

    Args:
        request: of the client.
        route: that it came by.
        admitted: what is known of it.
        request_id: for engines' logs and ids.
    """

    __slots__ = ("_admitted", "_body", "_request", "_request_id", "_route", "_wanted")

    def __init__(
        self, request: Request, route: routes.Route, *, admitted: admission.Admission, request_id: str
    ) -> None:
        self._request, self._route, self._admitted = request, route, admitted
        self._request_id = request_id.encode()
        self._body: openai.Pieces = (request.body,)
        self._wanted: tuple[str, bool, bytes] | None = None

    def to(self, endpoint: endpoints.Endpoint, model: str) -> bytes:
        """The whole request for an endpoint that serves ``model``.

        Raises:
            errors.Malformed: if the body must be decoded in full and turns out to be no JSON.
        """
        request, route = self._request, self._route
        admitted = self._admitted
        if admitted.rewrites:
            external = endpoint.external
            # A salt is for engines of our own; providers refuse fields that they don't know.
            extra = admitted.extra + (admitted.salt if external is None else external.fields(request.headers))
            if external is not None:
                model = external.models.get(admitted.envelope.model, model)
            wanted = (model, external is None, extra)
            if self._wanted != wanted:
                self._wanted = wanted
                running = external is None and self._counts_singly()
                self._body = openai.pieces(
                    request.body, admitted.envelope, openai.Wanted(model, route.asks_usage, running, extra)
                )
        kind = heads.JSON
        if route.shape is routes.Shape.OTHER:
            kind = request.headers.get(b"content-type", heads.JSON)
        length = 0
        for piece in self._body:
            length += len(piece)
        return b"".join(
            (
                request.method,
                b" ",
                endpoint.base_path,
                request.path,
                b"?" + request.query if request.query else b"",
                b" HTTP/1.1\r\n",
                endpoint.head,
                heads.forwarded(request.headers),
                b"x-request-id: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
                % (self._request_id, kind, length),
                *self._body,
            )
        )

    def _counts_singly(self) -> bool:
        """Whether running counts tell what was made: vLLM counts each of several answers by itself."""
        envelope = self._admitted.envelope
        if not envelope.stream or not self._route.asks_usage or envelope.answers > 1:
            return False
        return self._route.shape is routes.Shape.CHAT or openai.prompts_in(self._request.body) == 1
