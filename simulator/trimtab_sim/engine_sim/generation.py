"""The one way in which all generation routes answer: submit, watch the client, then relay or collect."""

from __future__ import annotations

from collections.abc import Callable

from trimtab_sim.engine_sim import engine, exchange, faults, service, streaming


async def answer(
    call: exchange.Exchange,
    shared: service.Service,
    ticket: engine.Ticket,
    fault: faults.Fault | None,
    *,
    script: streaming.Script | None,
    whole: Callable[[], bytes],
) -> None:
    """
    Answer a request whose prompt and options are valid.

    Args:
        call: The HTTP exchange; its body has been read.
        shared: The server.
        ticket: The request, not yet submitted.
        fault: What it meets, or None.
        script: The events of a stream; None for a plain answer.
        whole: Renders the plain answer once it is complete.

    Raises:
        protocol.ApiError: The engine did not take the request, or a plain one failed.

    """
    streaming.refuse_if_busy(fault)
    streaming.submit(shared, ticket)
    call.watch(lambda: shared.engine.cancel(ticket))
    tracked = shared.config.enable_server_load_tracking
    shared.load += tracked
    try:
        if script is not None:
            await streaming.Relay(shared, call, ticket, script=script, fault=fault).run()
            return
        await _reply_whole(call, shared, ticket, fault=fault, whole=whole)
    finally:
        shared.load -= tracked


async def _reply_whole(
    call: exchange.Exchange,
    shared: service.Service,
    ticket: engine.Ticket,
    *,
    fault: faults.Fault | None,
    whole: Callable[[], bytes],
) -> None:
    try:
        await streaming.collect(shared, ticket, fault)
    except streaming.CutError:
        body = whole()
        await call.reply_partly(body, sent=len(body) // 2)
        raise
    body = whole()
    if fault is not None and fault.kind == "bad-json":
        body = body[: len(body) // 2]
    call.load_report = shared.load_report(call.header(b"endpoint-load-metrics-format"))
    await call.reply(body)
