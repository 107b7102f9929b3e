"""From a policy's resilience to the numbers that routers go by."""

from __future__ import annotations

from trimtab_core import units
from trimtab_core.api.v1alpha1 import resilience as api
from trimtab_core.routing import table as tables

_MEGABYTE = 1 << 20


def rules(given: api.Resilience) -> tables.Resilience:
    """What a table says of ``spec.resilience``."""
    breaker, budget, queue = given.breaker, given.retry_budget, given.queue
    return tables.Resilience(
        connect_timeout=units.duration_seconds(given.connect_timeout),
        first_byte_timeout=units.duration_seconds(given.first_byte_timeout),
        answer_timeout=units.duration_seconds(given.answer_timeout),
        idle_timeout=units.duration_seconds(given.idle_timeout),
        total_timeout=units.duration_seconds(given.total_timeout),
        stall_after=units.duration_seconds(given.stall_after),
        max_fallbacks=given.max_fallbacks,
        eject_after=given.eject_after,
        eject_seconds=units.duration_seconds(given.eject_for),
        failure_ratio=units.ratio(breaker.failure_ratio),
        failure_window=units.duration_seconds(breaker.window),
        failure_requests=breaker.min_requests,
        max_ejected=units.ratio(breaker.max_ejected),
        ease_in_seconds=units.duration_seconds(breaker.ease_in),
        retry_share=units.ratio(budget.share),
        retry_floor_per_second=float(budget.floor_per_second),
        retry_window=units.duration_seconds(budget.window),
        hedge_quantile=units.ratio(given.hedging.quantile) if given.hedging else 0.0,
        queue_requests=queue.max_requests,
        queue_bytes=queue.max_megabytes * _MEGABYTE,
        queue_seconds=units.duration_seconds(queue.max_wait),
        queue_at=units.decimal_number(queue.start_at),
        hold_requests=queue.max_held,
    )
