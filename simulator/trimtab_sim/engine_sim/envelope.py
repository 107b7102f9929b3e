"""What all events of one answer share on the wire, chat or completion: the opening bytes, and the usage at the end."""

from __future__ import annotations

import msgspec

from trimtab_sim.engine_sim import engine, service, streaming, usage

_encode = msgspec.json.encode


class Envelope:
    """The fixed part of one answer's events, prepared once."""

    def __init__(
        self, ticket: engine.Ticket, shared: service.Service, *, request_id: str, kind: str, chat: bool
    ) -> None:
        """Take the time of creation from the server's clock; `kind` is the events' object name."""
        self.request_id = request_id
        self.created = int(shared.wall())
        self._ticket = ticket
        self._config = shared.config
        self._chat = chat
        head = {"id": request_id, "object": kind, "created": self.created, "model": shared.config.names[0]}
        self.head = b"data: " + _encode(head)[:-1] + b',"choices":['
        self.fingerprint = b',"system_fingerprint":' + _encode(shared.config.fingerprint)

    def closing(self, *, with_usage: bool) -> list[bytes]:
        """Return the usage event, if asked for, and the end mark."""
        if not with_usage:
            return [streaming.DONE]
        counted = usage.last(self._ticket, details=self._config.enable_prompt_tokens_details, chat=self._chat)
        tail = b'],"usage":' + _encode(counted) + self.fingerprint
        if self._config.enable_per_request_metrics and len(self._ticket.sequences) == 1:
            shown = {
                name: value for name, value in usage.timings(self._ticket.sequences[0]).items() if value is not None
            }
            tail += b',"metrics":' + _encode(shown)
        return [self.head + tail + b"}\n\n", streaming.DONE]
