"""The admin port: metrics, health, and what this router knows. Never a secret, never a prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from trimtab_router import breaker, compiled, errors, heads, identity, metrics, routes, server, service, settings
from trimtab_router.request import Request


class Admin:
    """Answers the admin port of one router process."""

    def __init__(self, router: service.Service) -> None:
        self._router = router
        self.limits = settings.Limits(body_bytes=64 << 10, connections=256)
        self.connections: set[server.ClientConnection] = set()
        self._views: dict[bytes, Callable[[], dict[str, Any]]] = {
            b"/admin/table": self._table,
            b"/admin/endpoints": self._endpoints,
            b"/admin/breakers": self._breakers,
            b"/admin/waiting": self._waiting,
            b"/admin/budgets": self._budgets,
            b"/admin/requests": self._requests,
        }

    def clock(self) -> float:
        """Monotonic seconds."""
        return self._router.clock()

    def accept(self, connection: server.ClientConnection, incoming: Request) -> None:
        """Answer one request at once."""
        head_only = incoming.method == b"HEAD"
        status, kind, body = self._answer(connection, incoming)
        head = heads.answer(status, kind, length=len(body), close=not incoming.keep_alive)
        connection.write(head if head_only else head + body)
        connection.finish(close=not incoming.keep_alive)

    def refuse(self, connection: server.ClientConnection, error: errors.RouterError) -> None:
        """Answer a request that could not be read."""
        status, body = errors.render(error)
        connection.write(heads.answer(status, heads.JSON, length=len(body), close=True) + body)

    def _answer(self, connection: server.ClientConnection, incoming: Request) -> tuple[int, bytes, bytes]:
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
        view = self._views.get(incoming.path)
        if view is None:
            known = ", ".join(path.decode() for path in self._views)
            return (*_error(errors.UnknownPath(f"try /metrics, /healthz, /readyz, {known}")),)
        if not self._may_see(connection):
            why = "views are for callers on this machine: use kubectl port-forward"
            return (*_error(errors.UnknownPath(why)),)
        return 200, heads.JSON, msgspec.json.encode(view())

    def _may_see(self, connection: server.ClientConnection) -> bool:
        """Health and metrics are the cluster's to ask for; what the router knows is not."""
        return identity.is_local(connection.transport)

    def _table(self) -> dict[str, Any]:
        """The table in force; hashes of keys, paths of secrets and credentials in URLs are left out."""
        table = self._router.tables.current
        if table is None:
            return {"version": None}
        shown: dict[str, Any] = msgspec.to_builtins(table.data)
        tenants = shown.get("tenants", {})
        for tenant in tenants.get("known", []):
            tenant.pop("keySha256", None)
            tenant.pop("furtherSha256", None)
        tenants.pop("saltFile", None)
        tenants.get("store", {}).pop("passwordFile", None)
        for tier in shown.get("tiers", []):
            external = tier.get("external")
            if external is not None:
                external.pop("apiKeyFile", None)
                external["baseUrl"] = _without_user(external["baseUrl"])
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
                    "ejectedForSeconds": _open_seconds(each.breaker, now),
                    "stalled": each.stalled,
                    "restsForSeconds": max(0.0, round(each.busy_until - now, 3)),
                }
                for each in self._router.directory.all()
            ],
            "tiers": [self._first_bytes(name, tier) for name, tier in self._tiers()],
        }

    def _tiers(self) -> list[tuple[str, compiled.Tier]]:
        table = self._router.tables.current
        return [] if table is None else list(table.tiers.items())

    @staticmethod
    def _first_bytes(name: str, tier: compiled.Tier) -> dict[str, Any]:
        """What was learned of a tier's first bytes, which is looked at for hedging alone; null while too little was."""
        learned = {f"p{share * 100:.0f}": tier.first_bytes.quantile(share) for share in (0.5, 0.95)}
        return {
            "name": name,
            "firstByteSeconds": {key: round(value, 4) if value < math.inf else None for key, value in learned.items()},
        }

    def _breakers(self) -> dict[str, Any]:
        """Endpoints that failed lately, and what is left of the retry budget."""
        now, table = self._router.clock(), self._router.tables.current
        return {
            "breakers": [
                {
                    "tier": each.tier,
                    "name": each.name,
                    "state": each.breaker.state.name.lower(),
                    "good": each.breaker.good,
                    "bad": each.breaker.bad,
                    "failuresInARow": each.breaker.failures,
                    "probing": each.breaker.probing,
                    "openForSeconds": _open_seconds(each.breaker, now),
                }
                for each in self._router.directory.all()
            ],
            "retriesLeft": None if table is None else round(table.retries.left(now), 2),
            "retriesRefused": None if table is None else table.retries.refused,
        }

    def _waiting(self) -> dict[str, Any]:
        """Who waits for what: for room in a tier that is up, or for one to wake."""
        return {
            "rooms": [
                {
                    "tier": name,
                    "requests": len(tier.room),
                    "bytes": tier.room.bytes,
                    "awake": any(each.ready for each in tier.endpoints),
                }
                for name, tier in self._tiers()
            ]
        }

    def _budgets(self) -> dict[str, Any]:
        """The policy's step and what tenants have used of their limits, as far as this router knows."""
        table = self._router.tables.current
        if table is None:
            return {"degraded": "", "tenants": []}
        callers, limiter = table.callers, table.limiter
        known = list(callers.known) if callers is not None and limiter is not None else []
        return {
            "degraded": table.data.degraded,
            "tenants": [
                {"tenant": caller.name, "used": {rule.name: round(share, 4) for rule, share in limiter.shares(caller)}}
                for caller in known
                if limiter is not None
            ],
        }

    def _requests(self) -> dict[str, Any]:
        """The last ended requests, newest last, as the ledger has them."""
        self._router.ledger.flush()
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


def _open_seconds(kept: breaker.Breaker, now: float) -> float:
    """How long nothing gets through yet; one that a request of last resort has closed is open no more."""
    return max(0.0, round(kept.opened_until - now, 3)) if kept.state is breaker.State.OPEN else 0.0


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
