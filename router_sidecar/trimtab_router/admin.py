"""The admin port: metrics, health, and what this router knows. Never a secret, never a prompt."""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab_router import errors, heads, metrics, routes, server, service, settings
from trimtab_router.request import Request


class Admin:
    """Answers the admin port of one router process."""

    def __init__(self, router: service.Service) -> None:
        self._router = router
        self.limits = settings.Limits(body_bytes=64 << 10, connections=256)
        self.connections: set[server.ClientConnection] = set()

    def clock(self) -> float:
        """Monotonic seconds."""
        return self._router.clock()

    def accept(self, connection: server.ClientConnection, incoming: Request) -> None:
        """Answer one request at once."""
        head_only = incoming.method == b"HEAD"
        status, kind, body = self._answer(incoming)
        head = heads.answer(status, kind, length=len(body), close=not incoming.keep_alive)
        connection.write(head if head_only else head + body)
        connection.finish(close=not incoming.keep_alive)

    def refuse(self, connection: server.ClientConnection, error: errors.RouterError) -> None:
        """Answer a request that could not be read."""
        status, body = errors.render(error)
        connection.write(heads.answer(status, heads.JSON, length=len(body), close=True) + body)

    def _answer(self, incoming: Request) -> tuple[int, bytes, bytes]:
        if incoming.method not in (b"GET", b"HEAD"):
            return (*_error(errors.WrongMethod("the admin port answers GET")),)
        route = routes.find(incoming.path)
        if incoming.path == b"/metrics":
            self._router.ledger.flush()
            return 200, metrics.CONTENT_TYPE, self._router.registry.exposition()
        if route is not None and route.shape is routes.Shape.HEALTH:
            return 200, heads.TEXT, b"ok\n"
        if route is not None and route.shape is routes.Shape.READY:
            ready = self._router.ready
            return (200, heads.TEXT, b"ok\n") if ready else (503, heads.TEXT, b"not ready\n")
        if incoming.path == b"/admin/table":
            return 200, heads.JSON, msgspec.json.encode(self._table())
        if incoming.path == b"/admin/endpoints":
            return 200, heads.JSON, msgspec.json.encode(self._endpoints())
        if incoming.path == b"/admin/requests":
            self._router.ledger.flush()
            return 200, heads.JSON, msgspec.json.encode(self._requests())
        return (
            *_error(
                errors.UnknownPath("try /metrics, /healthz, /readyz, /admin/table, /admin/endpoints or /admin/requests")
            ),
        )

    def _table(self) -> dict[str, Any]:
        """The table in force; key hashes and key files are left out."""
        table = self._router.tables.current
        if table is None:
            return {"version": None}
        shown: dict[str, Any] = msgspec.to_builtins(table.data)
        for tenant in shown.get("tenants", {}).get("known", []):
            tenant.pop("keySha256", None)
        for tier in shown.get("tiers", []):
            tier.get("external", {}).pop("apiKeyFile", None)
        return {"version": table.version, "table": shown}

    def _endpoints(self) -> dict[str, Any]:
        now = self._router.clock()
        return {
            "endpoints": [
                {
                    "tier": each.tier,
                    "name": each.name,
                    "address": f"{each.host}:{each.port}",
                    "state": each.state,
                    "capacity": each.capacity,
                    "inFlight": each.in_flight,
                    "idleConnections": len(each.pool),
                    "ready": each.ready,
                    "penalty": round(each.penalty, 3),
                    "breaker": each.breaker.state.name.lower(),
                    "failuresInARow": each.breaker.failures,
                    "ejectedForSeconds": max(0.0, round(each.breaker.opened_until - now, 3)),
                    "stalled": each.stalled,
                    "restsForSeconds": max(0.0, round(each.busy_until - now, 3)),
                }
                for each in self._router.directory.all()
            ]
        }

    def _requests(self) -> dict[str, Any]:
        """The last ended requests, newest last, as the ledger has them."""
        return {
            "requests": [
                {
                    "requestId": each.request_id,
                    "class": each.meter.class_,
                    "tier": each.meter.tier,
                    "tenant": each.tenant,
                    "workflow": each.workflow,
                    "feature": each.feature,
                    "result": each.result,
                    "inputTokens": each.input_tokens,
                    "cachedInputTokens": each.cached_input_tokens,
                    "outputTokens": each.output_tokens,
                    "estimated": each.estimated,
                    "costUsd": each.cost_usd,
                    "baselineUsd": each.baseline_usd,
                    "savedUsd": each.saved_usd,
                    "attempts": each.attempts,
                    "wastedUsd": each.wasted_usd,
                    "ttftSeconds": each.ttft_seconds,
                    "itlSeconds": each.itl_seconds,
                    "e2eSeconds": each.e2e_seconds,
                }
                for each in self._router.ledger.recent
            ]
        }


def _error(error: errors.RouterError) -> tuple[int, bytes, bytes]:
    status, body = errors.render(error)
    return status, heads.JSON, body
