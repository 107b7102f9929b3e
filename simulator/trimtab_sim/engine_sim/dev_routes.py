"""Routes that exist only in development mode (VLLM_SERVER_DEV_MODE=1): pause, sleep, abort, cache reset."""

from __future__ import annotations

import msgspec

from trimtab_sim.engine_sim import exchange, protocol, service

_encode = msgspec.json.encode
_MODES = ("abort", "wait", "keep")


async def pause(call: exchange.Exchange, shared: service.Service) -> None:
    """Pause the engine; `mode` says what becomes of running requests. Answers once it is paused."""
    query = call.query()
    mode = query.get("mode", "wait" if query.get("wait_for_inflight_requests") == "true" else "abort")
    if mode not in _MODES:
        raise protocol.ApiError(f"mode must be one of {', '.join(_MODES)}, got {mode}", param="mode")
    await shared.engine.pause(mode)
    await call.reply(b'{"status":"paused"}')


async def resume(call: exchange.Exchange, shared: service.Service) -> None:
    """End a pause."""
    shared.engine.resume()
    await call.reply(b'{"status":"resumed"}')


async def is_paused(call: exchange.Exchange, shared: service.Service) -> None:
    """Say whether the engine is paused."""
    await call.reply(_encode({"is_paused": shared.engine.paused}))


async def sleep(call: exchange.Exchange, shared: service.Service) -> None:
    """Put the engine to sleep at `level` 1 or 2."""
    text = call.query().get("level", "1")
    if text not in ("0", "1", "2"):
        raise protocol.ApiError(f"level must be 0, 1 or 2, got {text}", param="level")
    started = shared.clock()
    await shared.engine.sleep(int(text))
    shared.engine.metrics.slept("sleep", shared.clock() - started, shared.wall())
    await call.reply(_encode({"status": "sleeping", "level": int(text)}))


async def wake_up(call: exchange.Exchange, shared: service.Service) -> None:
    """End the sleep."""
    started = shared.clock()
    shared.engine.wake_up()
    shared.engine.metrics.slept("wake_up", shared.clock() - started, shared.wall())
    tags = call.query().get("tags")
    await call.reply(_encode({"status": "awake", "tags": None if tags is None else [tags]}))


async def is_sleeping(call: exchange.Exchange, shared: service.Service) -> None:
    """Say whether the engine sleeps."""
    await call.reply(_encode({"is_sleeping": shared.engine.sleep_level is not None}))


async def abort_requests(call: exchange.Exchange, shared: service.Service) -> None:
    """Abort requests by id, or all without ids; the count is of the ids given, as the real server counts."""
    body = protocol.parse_object(await call.body())
    ids = body.get("request_ids") or []
    if not isinstance(ids, list):
        raise protocol.ApiError("request_ids must be a list of ids", param="request_ids")
    if ids:
        shared.engine.abort_ids(str(one) for one in ids)
    count = len(ids) if ids else shared.engine.abort_all()
    await call.reply(_encode({"status": "aborted", "aborted": count}))


async def reset_prefix_cache(call: exchange.Exchange, shared: service.Service) -> None:
    """Empty the prefix cache, unless requests hold blocks of it."""
    await call.reply(_encode({"success": shared.engine.scheduler.pool.forget()}))
