"""How often replicas go without being told to: preempted, evicted or crashed. Pure.

Counted from one snapshot to the next by name, so that it needs no event that somebody may miss. What goes because a
count was lowered or the tier's spec was changed is no loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab_core import units
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.snapshot import Replica, ReplicaPhase, VariantState

PRIOR_PER_HOUR = {CapacityType.SPOT: 0.05, CapacityType.ON_DEMAND: 0.0005, CapacityType.RESERVED: 0.0005}
"""Losses per replica-hour assumed before any was measured: spot once in 20 hours, others once in 12 weeks. Assumed."""
MEMORY_HOURS = 24.0
"""Replica-hours that the estimate looks back on: a single loss moves it by 1/24 an hour, and a quiet day halves it."""
MOST_PER_HOUR = 60.0
"""No rate is believed above this: once a minute nothing would ever start."""


def count(
    before: VariantState | None, now: Sequence[Replica], desired: int, elapsed_seconds: float
) -> tuple[int, float]:
    """Replicas lost since the snapshot before, and the replica-hours over which they might have been.

    Args:
        before: the variant as seen then; None if it wasn't, or if its spec was another.
        now: its replicas now.
        desired: replicas asked for now.
        elapsed_seconds: between the two.
    """
    if before is None or elapsed_seconds <= 0:
        return 0, 0.0
    here = {one.name for one in now if one.phase in (ReplicaPhase.READY, ReplicaPhase.PENDING)}
    served = [one.name for one in before.replicas if one.phase is ReplicaPhase.READY]
    gone = sum(1 for name in served if name not in here)
    told = max(0, before.desired - desired)
    return max(0, gone - told), len(served) * elapsed_seconds / units.SECONDS_PER_HOUR


def rate_per_hour(variant: VariantState) -> float:
    """Losses per replica-hour with what this snapshot adds to what was known."""
    known = variant.memory.losses_per_hour
    rate = PRIOR_PER_HOUR[variant.spec.capacity_type] if known is None or not math.isfinite(known) else max(0.0, known)
    kept = math.exp(-variant.watched_hours / MEMORY_HOURS)
    return min(MOST_PER_HOUR, rate * kept + variant.lost / MEMORY_HOURS)


def availability(variant: VariantState, startup_seconds: float) -> float:
    """Share of the time that a replica asked for serves, when each loss takes one start-up to make up for."""
    return 1.0 / (1.0 + rate_per_hour(variant) * startup_seconds / units.SECONDS_PER_HOUR)
