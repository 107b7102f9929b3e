"""What the loop remembers in the objects' status: one place that writes it and reads it back. Pure.

A restart, or another leader, goes on from here. Must not know who stores the status.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from trimtab_core.api import v1alpha1
from trimtab_core.snapshot import VariantMemory, Weights

SHARE_DIGITS = 6
"""Decimals of a share in status: far below what routers can tell apart."""


def rfc3339(seconds: float) -> str:
    """A moment as Kubernetes writes it, to the millisecond where it has a fraction."""
    moment = dt.datetime.fromtimestamp(round(seconds, 3), dt.UTC)
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def epoch_seconds(text: str | None) -> float | None:
    """Epoch seconds of an RFC 3339 moment; None for no text and for one that nobody can read."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def memory(tier: v1alpha1.InferenceTier, variant: str) -> VariantMemory:
    """What was remembered of a variant."""
    for status in tier.status.variants:
        if status.name == variant:
            return VariantMemory(
                fewer_since=epoch_seconds(status.fewer_since),
                last_scaled_at=epoch_seconds(status.last_scaled),
                blocked_until=epoch_seconds(status.blocked_until),
                override_until=epoch_seconds(status.override_until),
            )
    return VariantMemory()


def memory_fields(remembered: VariantMemory) -> dict[str, str]:
    """The same as fields of a variant's status; what is None is left out."""
    moments = {
        "fewerSince": remembered.fewer_since,
        "lastScaled": remembered.last_scaled_at,
        "blockedUntil": remembered.blocked_until,
        "overrideUntil": remembered.override_until,
    }
    return {name: rfc3339(moment) for name, moment in moments.items() if moment is not None}


def weights(policy: v1alpha1.RoutingPolicy) -> Weights:
    """The weights in force: shares of classes and tiers that are still in the spec, summing to 1 for each class."""
    namespace = policy.metadata.namespace
    known = {tier.ref for tier in policy.spec.tiers}
    allowed = {cls.name: set(cls.allow) & known if cls.allow else known for cls in policy.spec.classes}
    found: dict[str, dict[str, float]] = {}
    for status in policy.status.classes:
        shares = {tier: float(text) for tier, text in status.weights.items() if tier in allowed.get(status.name, ())}
        whole = sum(shares.values())
        if whole > 0:
            found[status.name] = {f"{namespace}/{tier}": share / whole for tier, share in shares.items()}
    return found


def weight_fields(shares: Mapping[str, float]) -> dict[str, str]:
    """The shares of one class as status holds them: by tier name, adding up to 1 after rounding; zeros left out.

    What rounding loses goes to the largest share.
    """
    units = 10**SHARE_DIGITS
    parts = {tier.partition("/")[2] or tier: round(share * units) for tier, share in sorted(shares.items())}
    if parts:
        largest = max(parts, key=lambda tier: parts[tier])
        parts[largest] += units - sum(parts.values())
    return {tier: _decimal(part, units) for tier, part in parts.items() if part > 0}


def _decimal(part: int, units: int) -> str:
    """A share of ``units`` as a plain decimal."""
    whole, rest = divmod(part, units)
    return f"{whole}.{rest:0{SHARE_DIGITS}d}".rstrip("0").rstrip(".")
