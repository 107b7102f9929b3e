"""
Following a request in the engine: collecting its whole answer or relaying it as events, with faults applied on the way.

The wording of events is a `Script`'s business, one for each API; when they are sent, and what a fault does to them,
is decided here once.
"""

from __future__ import annotations

from typing import Protocol

from trimtab_sim.engine_sim import engine, exchange, faults, protocol, scheduler, service

DONE = b"data: [DONE]\n\n"
_DIED = 137
_OF_ANSWERS = frozenset(("die-mid-stream", "cut-stream", "abort", "stream-error", "bad-json"))


class CutError(Exception):
    """The connection is to be dropped without an end of the body; the handler just returns."""


class Script(Protocol):
    """
    The events of one API for one request.

    Attributes:
        eager: Whether the opening events are sent at once, or wait for the first token.

    """

    eager: bool

    def opening(self) -> list[bytes]:
        """Return the events before the first token."""
        ...

    def advance(self, sequence: scheduler.Sequence, start: int, end: int) -> list[bytes]:
        """Return the events for tokens `start` to `end`; the sequence's finish_reason is set if `end` is its last."""
        ...

    def closing(self) -> list[bytes]:
        """Return the events after the last token."""
        ...

    def failing(self, error: protocol.ApiError) -> list[bytes]:
        """Return the events that end a stream which fails."""
        ...


def refuse_if_busy(fault: faults.Fault | None) -> None:
    """Raise the 503 that the fault `busy` asks for."""
    if fault is not None and fault.kind == "busy":
        raise protocol.busy()


def submit(shared: service.Service, ticket: engine.Ticket) -> None:
    """Queue a request. Raises protocol.ApiError if the engine does not take it."""
    try:
        shared.engine.submit(ticket)
    except engine.EngineBusyError as error:
        raise protocol.busy() from error
    except engine.EngineClosedError as error:
        raise protocol.closed(str(error)) from error
    except engine.EngineDeadError as error:
        raise protocol.dead(str(error)) from error


async def collect(shared: service.Service, ticket: engine.Ticket, fault: faults.Fault | None) -> None:
    """
    Wait until the whole answer is there.

    Raises:
        protocol.ApiError: The engine died, or a fault says so.

    """
    try:
        while not ticket.done:
            if fault is not None and _reached(ticket, fault):
                await _strike(shared, ticket, fault)
            if not ticket.done:
                await ticket.news()
    except engine.EngineDeadError as error:
        raise protocol.dead(str(error)) from error


async def _strike(shared: service.Service, ticket: engine.Ticket, fault: faults.Fault) -> None:
    if fault.kind == "abort":
        shared.engine.abort([ticket])
    elif fault.kind == "stream-error":
        shared.engine.cancel(ticket)
        raise protocol.dead(engine.DEAD_MESSAGE)
    elif fault.kind == "cut-stream":
        shared.engine.cancel(ticket)
        raise CutError
    elif fault.kind == "die-mid-stream":
        shared.exit_process(_DIED)


def _reached(ticket: engine.Ticket, fault: faults.Fault) -> bool:
    made = sum(sequence.generated for sequence in ticket.sequences)
    return fault.kind in _OF_ANSWERS and made >= fault.after_tokens


class Relay:
    """One streamed answer: the head goes out at once, the first event with the first token, then one event a step."""

    def __init__(
        self,
        shared: service.Service,
        call: exchange.Exchange,
        ticket: engine.Ticket,
        *,
        script: Script,
        fault: faults.Fault | None,
    ) -> None:
        """Relay a submitted request in the words of `script`; `fault` is what it meets."""
        self._shared = shared
        self._call = call
        self._ticket = ticket
        self._script = script
        self._fault = fault
        self._spoil = fault is not None and fault.kind == "bad-json"
        self._opened = False
        self._sent = [0] * len(ticket.sequences)
        self._open = len(ticket.sequences)
        self._ended = [False] * len(ticket.sequences)

    async def run(self) -> None:
        """Send the whole stream. Raises CutError if a fault drops the connection."""
        await self._call.start_events()
        if self._script.eager:
            await self._open_with([])  # before any token
        try:
            while self._open:
                await self._meet_fault()
                if not await self._send_news():
                    await self._ticket.news()
        except engine.EngineDeadError as error:
            await self._fail(protocol.dead(str(error)))
            return
        except protocol.ApiError as error:
            await self._fail(error)
            return
        for data in self._script.closing():
            await self._call.event(data)
        await self._call.end_events()

    async def _meet_fault(self) -> None:
        fault = self._fault
        if fault is not None and fault.kind in _OF_ANSWERS and sum(self._sent) >= fault.after_tokens:
            await _strike(self._shared, self._ticket, fault)

    async def _send_news(self) -> bool:
        """Send the events of tokens that have not been sent; return whether there were any."""
        found = False
        for at, sequence in enumerate(self._ticket.sequences):
            start, end = self._sent[at], sequence.generated
            if self._ended[at] or (end == start and sequence.finish_reason is None):
                continue
            found = True
            self._sent[at] = end
            events = self._script.advance(sequence, start, end)
            if sequence.finish_reason is not None:
                self._ended[at] = True
                self._open -= 1
            if self._spoil:
                events = self._spoiled(events)
            await self._open_with(events)
        return found

    async def _open_with(self, events: list[bytes]) -> None:
        """Send events, the opening ones before the first of them."""
        if not self._opened:
            self._opened = True
            for data in self._script.opening():
                await self._call.event(data)
        for data in events:
            await self._call.event(data)

    def _spoiled(self, events: list[bytes]) -> list[bytes]:
        """Cut the last event in half once enough tokens have been sent; only one event of the stream is spoiled."""
        if not events or self._fault is None or sum(self._sent) < self._fault.after_tokens:
            return events
        self._spoil = False
        return [*events[:-1], events[-1][: len(events[-1]) // 2] + b"\n\n"]

    async def _fail(self, error: protocol.ApiError) -> None:
        for data in self._script.failing(error):
            await self._call.event(data)
        await self._call.end_events()
