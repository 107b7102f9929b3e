"""Callers of a router with a tenant whose limits are known: its key, its table, its requests."""

from __future__ import annotations

import hashlib
from typing import Any

from trimtab_core.routing import table

from . import scene, wire

KEY = "sk-canary-acme"


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def tenants(**limits: Any) -> table.Tenants:
    fields = {name: limits.pop(name) for name in ("store", "max_output_tokens", "isolate") if name in limits}
    return table.Tenants(known=[table.Tenant("acme", sha(KEY), limits=table.Limits(**limits))], **fields)


async def ask(router: scene.Scene, text: str = "hello", **fields: Any) -> wire.Reply:
    return await router.ask(wire.chat(text, **{"max_tokens": 10, **fields}), authorization=f"Bearer {KEY}")
