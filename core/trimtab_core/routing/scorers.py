"""Scorers: how loaded an endpoint is. The picker takes the least; its loop has ``load`` written out, for speed.

What speaks against an endpoint beside its requests in flight is a *penalty*: requests that it counts as having more
than it has. It changes seldom, so it is worked out when it changes and not per request.
"""

from __future__ import annotations

from typing import Protocol

KV_CALM = 0.8
"""Share of the KV cache up to which nothing is wrong; a full one makes vLLM preempt sequences and compute them anew."""
KV_WEIGHT = 0.25
"""Share of its capacity that an endpoint with a full KV cache counts as having more. What the table tells is a cycle
old, and requests in flight tell the same at once: with a whole capacity, endpoints took turns at being shunned and
flooded, and a tier of mixed lengths needed 45 % more money (quick run of the scenario, with a quarter as with none)."""


class Loaded(Protocol):
    """What a score looks at.

    Attributes:
        in_flight: requests under way through this router.
        penalty: requests that it counts as having more.
        capacity: running sequences up to which the SLO holds, at least 1.
    """

    in_flight: int
    penalty: float
    capacity: float


def load(endpoint: Loaded) -> float:
    """Share of the learned capacity that is taken; a replica of twice the capacity so gets twice the requests."""
    return (endpoint.in_flight + endpoint.penalty) / endpoint.capacity


def penalty(capacity: float, *, kv_usage: float = 0.0, share: float = 1.0) -> float:
    """Requests that an endpoint counts as having more than it has.

    Args:
        capacity: of the endpoint.
        kv_usage: share of its KV cache in use, in [0, 1]; see ``KV_WEIGHT``.
        share: of its capacity that may be used, in [0, 1]; below 1 after an ejection, while it is eased in again.
    """
    pressure = KV_WEIGHT * max(0.0, min(1.0, (kv_usage - KV_CALM) / (1 - KV_CALM)))
    return capacity * max(pressure, 1.0 - max(0.0, min(1.0, share)))
