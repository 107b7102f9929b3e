"""/sim/faults: see, add and lift faults at run time; only there with --sim-control."""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab_sim.engine_sim import exchange, faults, protocol, service

_encode = msgspec.json.encode


async def _show(call: exchange.Exchange, shared: service.Service) -> None:
    active = [fault.as_dict() for fault in shared.board.in_force(shared.clock())]
    await call.reply(_encode({"faults": active}))


async def show(call: exchange.Exchange, shared: service.Service) -> None:
    """List the faults in force."""
    await _show(call, shared)


async def add(call: exchange.Exchange, shared: service.Service) -> None:
    """Put one fault in force, given by its fields or as `{"faults": [...]}`; answer with all that are."""
    body = await call.json_object()
    entries: list[Any] = body["faults"] if isinstance(body.get("faults"), list) else [body]
    try:
        found = [faults.parse(one) if isinstance(one, str) else faults.from_fields(one) for one in entries]
    except (faults.FaultError, AttributeError) as error:
        raise protocol.ApiError(str(error), param="kind") from error
    for fault in found:
        shared.board.add(fault, shared.clock())
    shared.on_faults()
    await _show(call, shared)


async def lift(call: exchange.Exchange, shared: service.Service) -> None:
    """Lift all faults."""
    shared.board.clear()
    shared.on_faults()
    await _show(call, shared)
