"""Settlement: what one ended exchange leaves behind, an entry in the ledger and perhaps an answer in the cache."""

from __future__ import annotations

import msgspec
from trimtab_core.routing import table

from trimtab_router import admission, attempt, billing, cache_store, ledger, lookup


class Times(msgspec.Struct, frozen=True):
    """When things happened, in monotonic seconds; ``first_at`` is None if no content was streamed."""

    arrived_at: float
    ended_at: float
    first_at: float | None = None
    last_at: float = 0.0


def entry(
    result: str,
    *,
    admitted: admission.Admission,
    served: attempt.Attempt | None,
    bill: billing.Bill,
    times: Times,
    request_id: str,
    attempts: int,
    wasted_usd: float = 0.0,
) -> ledger.Entry:
    """The ledger's entry of a request that engines were asked for, or that was refused after its admission."""
    tier = served.tier.spec.name if served is not None else ledger.NO_TIER
    class_ = admitted.class_
    ttft = itl = None
    if times.first_at is not None:
        ttft = times.first_at - times.arrived_at
        if bill.output_tokens > 1:
            itl = (times.last_at - times.first_at) / (bill.output_tokens - 1)
    return ledger.Entry(
        meter=class_.meters[tier],
        result=result,
        tenant=admitted.tenant,
        slo=class_.slos[tier],
        e2e_seconds=times.ended_at - times.arrived_at,
        input_tokens=bill.input_tokens,
        cached_input_tokens=bill.cached_input_tokens,
        output_tokens=bill.output_tokens,
        cost_usd=bill.cost_usd,
        baseline_usd=bill.baseline_usd,
        ttft_seconds=ttft,
        itl_seconds=itl,
        estimated=bill.estimated,
        attempts=attempts,
        wasted_usd=wasted_usd,
        request_id=request_id,
        workflow=admitted.workflow,
        feature=admitted.feature,
    )


def hit_entry(
    stored: cache_store.Stored, *, admitted: admission.Admission, times: Times, request_id: str
) -> ledger.Entry:
    """The ledger's entry of a cache hit: no tokens and no cost, but what it saved and what it stands for."""
    class_ = admitted.class_
    seconds = times.ended_at - times.arrived_at
    return ledger.Entry(
        meter=class_.meters[ledger.CACHE_TIER],
        result=ledger.CACHED,
        tenant=admitted.tenant,
        slo=class_.slos[ledger.CACHE_TIER],
        e2e_seconds=seconds,
        baseline_usd=stored.baseline_usd,
        saved_usd=stored.cost_usd,
        ttft_seconds=seconds if admitted.envelope.stream else None,
        request_id=request_id,
        workflow=admitted.workflow,
        feature=admitted.feature,
    )


def store_answer(
    store: cache_store.MemoryStore,
    cache: table.Cache,
    found: lookup.Lookup,
    *,
    served: attempt.Attempt,
    bill: billing.Bill,
    now: float,
) -> bool:
    """Put a finished answer into the cache if it may be there; returns whether it is."""
    text = lookup.text_to_store(cache, served.relay) if served.relay is not None else ""
    if not text:
        return False
    tier = served.tier.spec
    stored = cache_store.Stored(
        text=text,
        model=tier.model,
        tier=tier.name,
        cost_usd=bill.cost_usd,
        baseline_usd=bill.baseline_usd,
        expires_at=now + cache.ttl_seconds,
    )
    store.put(found.key, stored, cache.max_entries)
    return True
