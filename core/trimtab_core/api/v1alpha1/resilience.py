"""``RoutingPolicy.spec.resilience``: what the router does when engines fail, hang or are full."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields


class Breaker(fields.ApiModel):
    """When an endpoint is taken out beside failures in a row, and how it comes back."""

    failure_ratio: fields.Ratio = Field("0.5", description="Share of failed answers that ejects an endpoint.")
    window: fields.Duration = Field("10s", description="Time over which that share is looked at.")
    min_requests: Annotated[int, Field(ge=1, le=10000)] = Field(
        20, description="Answers of an endpoint in the window before the share counts."
    )
    max_ejected: fields.Ratio = Field(
        "0.5",
        description="Share of a tier's endpoints that may be ejected for what they answer; one always may. Endpoints "
        "that nobody listens at are ejected in any case.",
    )
    ease_in: fields.Duration = Field("10s", description="Time over which an endpoint's share grows back after that.")


class RetryBudget(fields.ApiModel):
    """How many further attempts (fallbacks and hedges) there may be, as a share of the requests."""

    share: fields.Ratio = Field("0.20", description="Further attempts as a share of the window's requests.")
    floor_per_second: Annotated[int, Field(ge=0, le=1000)] = Field(
        1, description="So many are free each second, so that little traffic has any."
    )
    window: fields.Duration = Field("10s", description="Time over which they are counted.")


class Hedging(fields.ApiModel):
    """Ask a second engine when a stream's first byte is late; only for classes that are promised one (slo.ttft)."""

    quantile: fields.Ratio = Field(
        "0.95",
        description="Late is later than this share of the tier's requests, as the router has learned it. The slower "
        "engine is broken off, and what it cost counts as waste.",
    )


class Queue(fields.ApiModel):
    """Requests wait in the router while every endpoint of their tier is full.

    Those with X-Trimtab-Priority high go first and those with low or batch last; then the tenant that was given least;
    then the earliest deadline.
    """

    max_requests: Annotated[int, Field(ge=0, le=100000)] = Field(
        512, description="Requests that may wait for one tier in one router; 0 sends all on to the engines."
    )
    max_megabytes: Annotated[int, Field(ge=1, le=16384)] = Field(64, description="Megabytes of all that wait.")
    max_wait: fields.Duration = Field(
        "10s", description="Longest wait; half of slo.e2e for a class that is promised more."
    )
    start_at: fields.Decimal = Field(
        "2.0",
        description="Load of the emptiest endpoint, as a multiple of what it carries within its SLO, from which "
        "requests wait. Up to there the engines' own queues take bursts.",
    )
    max_held: Annotated[int, Field(ge=0, le=100000)] = Field(
        1000, description="Requests that may wait for one tier to wake from zero in one router."
    )


class Resilience(fields.ApiModel):
    """What the router does when engines fail, hang or are full."""

    connect_timeout: fields.Duration = Field("2s", description="Longest wait for a connection to an engine.")
    first_byte_timeout: fields.Duration = Field("60s", description="Longest wait for the first byte of a stream.")
    answer_timeout: fields.Duration = Field(
        "5m",
        description="Longest wait for an answer in one piece; shorter if the same engine's streams stand still, too.",
    )
    idle_timeout: fields.Duration = Field("30s", description="Longest gap between two chunks of a stream.")
    total_timeout: fields.Duration = Field("10m", description="Longest time for one request in all.")
    stall_after: fields.Duration = Field(
        "5s", description="An engine that brings no byte of any stream for so long gets no new requests until it does."
    )
    max_fallbacks: Annotated[int, Field(ge=0, le=5)] = Field(1, description="Further endpoints before the first byte.")
    eject_after: Annotated[int, Field(ge=1, le=100)] = Field(3, description="Failures in a row that eject an endpoint.")
    eject_for: fields.Duration = Field(
        "10s", description="How long an ejected endpoint gets no requests; twice as long each time it fails again."
    )
    breaker: Breaker = Field(Breaker(), description="What else ejects an endpoint, and how it comes back.")
    retry_budget: RetryBudget = Field(RetryBudget(), description="How many further attempts there may be.")
    hedging: Hedging | None = Field(None, description="Ask a second engine for a late first byte; absent: never.")
    queue: Queue = Field(Queue(), description="Requests that wait in the router.")
