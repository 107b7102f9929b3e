"""
Routes that generate nothing.

Health, ping, version, load, models, metrics, and one that is there only to be forbidden.
"""

from __future__ import annotations

import msgspec

from trimtab_sim.engine_sim import exchange, exposition, http_metrics, protocol, service, settings

_encode = msgspec.json.encode


async def health(call: exchange.Exchange, _: service.Service) -> None:
    """Answer 200 with nothing, also while paused, asleep, frozen or draining, as the real server does."""
    await call.reply(b"", content_type=None)


async def version(call: exchange.Exchange, _: service.Service) -> None:
    """Answer with the version that is imitated."""
    await call.reply(_encode({"version": settings.VERSION}))


async def load(call: exchange.Exchange, shared: service.Service) -> None:
    """Answer with the generation requests in progress; always 0 without --enable-server-load-tracking."""
    await call.reply(_encode({"server_load": shared.load}))


async def models(call: exchange.Exchange, shared: service.Service) -> None:
    """List the served names."""
    created = int(shared.wall())
    permission = {
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    cards = [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": shared.config.model,
            "parent": None,
            "max_model_len": shared.config.context_tokens,
            "permission": [{"id": f"modelperm-{shared.new_id()}", **permission}],
        }
        for name in shared.config.names
    ]
    await call.reply(_encode({"object": "list", "data": cards}))


async def metrics(call: exchange.Exchange, shared: service.Service) -> None:
    """Expose all metrics."""
    engine = shared.engine.metrics
    engine.show_load(shared.engine.scheduler)
    families = [*http_metrics.process_families(), *engine.families, *shared.http.families]
    if engine.slept_once:
        families.extend(engine.sleep_families)
    await call.reply(exposition.render(families), content_type=exposition.CONTENT_TYPE.encode())


async def render(call: exchange.Exchange, _: service.Service) -> None:
    """Refuse, as the real server does without --enable-scale-out."""
    await call.json_object()
    message = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
    raise protocol.ApiError(message, status=403, kind="PermissionDeniedError")
