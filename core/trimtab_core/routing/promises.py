"""What latency a request was promised. Pure; ``capacity.limits`` is the same for what a plan must keep.

Whoever judges a request (the router's counters, the simulator, the demo) asks here.
"""

from __future__ import annotations

from collections.abc import Iterable

from trimtab_core.routing import table


def promised(class_: table.Class | None, tier: table.Tier | None) -> table.Slo:
    """What a class (its own or its policy's SLO) and the tier that served promise together.

    Args:
        class_: of the request; None if it is not known.
        tier: that served it; None for a cached answer and for one that no tier got.
    """
    return strictest(*(each.slo for each in (class_, tier) if each is not None))


def strictest(*slos: table.Slo) -> table.Slo:
    """All of these at once: part by part the lowest limit, and the largest share of those that promise anything."""
    limits = [(slo.ttft_seconds, slo.itl_seconds, slo.e2e_seconds) for slo in slos]
    binding = [
        slo.attainment for slo, parts in zip(slos, limits, strict=True) if any(part is not None for part in parts)
    ]
    ttft, itl, e2e = (_least(parts[index] for parts in limits) for index in range(3))
    return table.Slo(ttft, itl, e2e, max(binding, default=table.Slo().attainment))


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
