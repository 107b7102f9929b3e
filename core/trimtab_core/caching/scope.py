"""The scope of a cached answer: who may be given it again, as part of its key.

An answer never leaves its scope because another scope can't form its key: partition first, search inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from trimtab_core.routing import table


def scope(cache: table.Cache, tenant: str) -> str:
    """``tenant/NAME``, ``anonymous`` for callers without a tenant, or ``shared`` where the policy opted in."""
    if cache.shared:
        return "shared"
    return f"tenant/{tenant}" if tenant else "anonymous"


def key(cache: table.Cache, *, tenant: str, route: str, allow: Iterable[str], canonical_body: bytes) -> bytes:
    """The key of a request's answer: 32 bytes.

    Args:
        cache: gives scope and generation.
        tenant: the caller, empty if unknown.
        route: such as ``chat``; a completion is no chat answer.
        allow: tiers that may serve the class; an answer of a tier that the asker may not use is no hit.
        canonical_body: from ``canonical.canonical``.
    """
    # As JSON, so that no part can spill into the next one.
    head = msgspec.json.encode([cache.name, scope(cache, tenant), cache.generation, route, sorted(allow)])
    return hashlib.sha256(head + b"\n" + canonical_body).digest()
