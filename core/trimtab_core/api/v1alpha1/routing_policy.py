"""``RoutingPolicy``: which requests may go to which tiers, to what end, and the router that does it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields
from trimtab_core.api.v1alpha1 import resilience as resilience_
from trimtab_core.api.v1alpha1 import tenants as tenancy


class OnUnavailable(StrEnum):
    """What happens to a class whose allowed tiers are all unavailable."""

    FALLBACK = "Fallback"
    REJECT = "Reject"


class WhenExceeded(StrEnum):
    """One step of what degrades when the budget is used up, in the order given."""

    DOWNSHIFT = "Downshift"
    BATCH_ONLY = "BatchOnly"
    REJECT = "Reject"


class RouterMode(StrEnum):
    """Where the router runs."""

    GATEWAY = "Gateway"
    SIDECAR = "Sidecar"


class ComplexityRange(fields.ApiModel):
    """A range of the complexity score: ``min <= score < max``."""

    min: fields.Ratio = Field("0", description="Least score that belongs to the range.")
    max: fields.Ratio = Field("1", description="Score at which the range ends; 1 itself belongs to a range up to 1.")


class ClassMatch(fields.ApiModel):
    """What a request must be to belong to a class; every given part must hold, none given matches all."""

    sensitive: bool | None = Field(None, description="Marked or found to hold personal or secret data.")
    priority: Annotated[str, Field(max_length=40)] | None = Field(None, description="Value of X-Trimtab-Priority.")
    complexity: ComplexityRange | None = Field(None, description="Range of the complexity score.")
    models: Annotated[list[fields.ModelName], Field(max_length=32)] = Field(
        default_factory=list,
        description="Model names that the client may have asked for.",
        json_schema_extra=fields.AS_SET,
    )
    tenants: Annotated[list[fields.Name], Field(max_length=64)] = Field(
        default_factory=list, description="Tenants that may have sent it.", json_schema_extra=fields.AS_SET
    )
    headers: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=8)] = Field(
        default_factory=dict, description="Header values, compared exactly; names in lower case."
    )


class RequestClass(fields.ApiModel):
    """A kind of request that the policy tells apart; the first class that matches takes it."""

    name: fields.Name = Field(description="Name of the class; a label of its metrics.")
    match: ClassMatch = Field(ClassMatch(), description="What a request must be to belong to it.")
    allow: Annotated[list[fields.Name], Field(max_length=16)] = Field(
        default_factory=list,
        description="Tiers that may serve it; empty means all tiers of the policy.",
        json_schema_extra=fields.AS_SET,
    )
    min_quality: fields.Ratio | None = Field(None, description="Least expected quality of this class's answers.")
    slo: fields.LatencySlo | None = Field(None, description="Replaces the policy's SLO for this class.")
    on_unavailable: OnUnavailable = Field(
        OnUnavailable.FALLBACK,
        description="When no allowed tier is available: Fallback takes another tier of the policy, Reject refuses.",
    )


class Objective(fields.ApiModel):
    """What the optimiser must keep while it saves."""

    quality_retention: fields.Ratio = Field(
        "0.988", description="Expected quality as a share of what always the best tier would reach."
    )
    discrimination: fields.Ratio | None = Field(
        None,
        description="How well the complexity score tells which prompts of this traffic need a better tier, measured: "
        "0 not at all, 1 fully. Without it, what the built-in score reached on public sets of prompts.",
    )


class Budget(fields.ApiModel):
    """A ceiling on money."""

    usd_per_hour: fields.Decimal | None = Field(None, description="Most that the policy's tiers may cost per hour.")
    usd_per_month: fields.Decimal | None = Field(None, description="Most that they may cost per calendar month.")
    when_exceeded: Annotated[list[WhenExceeded], Field(min_length=1, max_length=3)] = Field(
        [WhenExceeded.DOWNSHIFT],
        description="What degrades, in this order: cheaper tiers, batch only, refuse new requests.",
        json_schema_extra=fields.AS_SET,
    )


class Retune(fields.ApiModel):
    """How often and how far weights move."""

    interval: fields.Duration = Field("15s", description="Time between two decisions.")
    max_weight_step: fields.Ratio = Field("0.10", description="Largest change of one tier's share in one cycle.")
    probe_share: fields.Ratio = Field("0.01", description="Least share of an allowed, healthy tier that is in use.")


class RouterReplicas(fields.ApiModel):
    """Bounds of the router Deployment."""

    min: Annotated[int, Field(ge=1, le=100)] = Field(2, description="Routers that always run.")
    max: Annotated[int, Field(ge=1, le=100)] = Field(10, description="Routers that may run.")


class Router(fields.ApiModel):
    """The router of this policy."""

    mode: RouterMode = Field(
        RouterMode.GATEWAY, description="Gateway: a Deployment and a Service; Sidecar: injected into pods that ask."
    )
    image: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        "ghcr.io/trimtab/trimtab-router:0.1.0", description="Image of the router."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8080, description="Port on which clients call.")
    replicas: RouterReplicas = Field(RouterReplicas(), description="Bounds of the router Deployment.")
    access_log: bool = Field(
        False, description="A line of JSON on standard error for each request, without what it says or who signed it."
    )
    otlp_endpoint: Annotated[str, Field(max_length=500, pattern=r"^https?://[^/?#@]+(/[^?#]*)?$")] | None = Field(
        None, description="Collector of traces that takes OTLP over HTTP, such as http://otel-collector:4318."
    )
    otlp_ratio: fields.Ratio = Field(
        "1", description="Share of requests to trace that come without a trace of their own."
    )
    resources: dict[str, Any] | None = Field(None, description="Resources of the router container, as in a Pod.")
    pod_template: dict[str, Any] | None = Field(None, description="Patch merged over the rendered pod template.")


class RoutingPolicySpec(fields.ApiModel):
    """What the user wants of routing."""

    models: Annotated[list[fields.ModelName], Field(min_length=1, max_length=32)] = Field(
        ["auto"],
        description="Model names that clients send and this policy answers.",
        json_schema_extra=fields.AS_SET,
    )
    tiers: Annotated[list[fields.LocalRef], Field(min_length=1, max_length=16)] = Field(
        description="Tiers that may serve the policy's requests.", json_schema_extra=fields.keyed_by("ref")
    )
    classes: Annotated[list[RequestClass], Field(min_length=1, max_length=32)] = Field(
        [RequestClass(name="default")],
        description="Kinds of requests; the first that matches takes a request.",
        json_schema_extra=fields.keyed_by("name"),
    )
    objective: Objective = Field(Objective(), description="What must be kept while it saves.")
    slo: fields.LatencySlo | None = Field(
        None, description="Promise to clients; of this and the tier's own, the stricter part holds."
    )
    budget: Budget | None = Field(None, description="A ceiling on money.")
    tenants: tenancy.Tenants = Field(tenancy.Tenants(), description="Who may call, and how a caller is known.")
    resilience: resilience_.Resilience = Field(
        resilience_.Resilience(), description="What the router does when engines fail, hang or are full."
    )
    retune: Retune = Field(Retune(), description="How often and how far weights move.")
    cache: fields.LocalRef | None = Field(None, description="CachePolicy of this policy's requests.")
    baseline_tier: fields.Name | None = Field(
        None, description="Tier that savings are measured against; the one of best quality when absent."
    )
    router: Router = Field(Router(), description="The router of this policy.")


class ClassWeights(fields.ApiModel):
    """The weights in force for one class."""

    name: Annotated[str, Field(max_length=40)] = Field(description="Name of the class.")
    weights: Annotated[dict[str, fields.Ratio], Field(max_length=16)] = Field(
        default_factory=dict, description="Tier → share of the class's requests."
    )
    arrivals_per_second: fields.Decimal | None = Field(None, description="Requests offered per second.")


class AppliedTable(fields.ApiModel):
    """Which table a router serves by."""

    router: Annotated[str, Field(max_length=253)] = Field(description="Name of the router's pod.")
    version: Annotated[str, Field(max_length=64)] = Field(description="Version of the table that it serves by.")


class Spend(fields.ApiModel):
    """What a policy's tiers have cost since the calendar month (UTC) of ``as_of`` began."""

    usd: fields.Decimal = Field(description="USD since the month began, or since Trimtab first saw the policy.")
    as_of: fields.RFC3339 = Field(description="Until when it is counted; usdPerHour has been running on since.")


class RoutingPolicyStatus(fields.ApiModel):
    """What Trimtab did and saw."""

    observed_generation: int | None = Field(None, description="Generation of the spec that is in force.")
    epoch: int | None = Field(None, description="Leader epoch of the last writer.")
    table_version: Annotated[str, Field(max_length=64)] | None = Field(None, description="Newest table written.")
    applied: Annotated[list[AppliedTable], Field(max_length=100)] = Field(
        default_factory=list,
        description="The table that each router serves by.",
        json_schema_extra=fields.keyed_by("router"),
    )
    classes: Annotated[list[ClassWeights], Field(max_length=32)] = Field(
        default_factory=list, description="Weights in force.", json_schema_extra=fields.keyed_by("name")
    )
    usd_per_hour: fields.Decimal | None = Field(None, description="What the policy's tiers cost now.")
    spend: Spend | None = Field(None, description="What they have cost this month.")
    baseline_usd_per_hour: fields.Decimal | None = Field(
        None, description="What they would cost with every request on the baseline tier."
    )
    saved_ratio: Annotated[str, Field(max_length=16)] | None = Field(
        None, description="Share of the baseline's cost that is saved; may be negative."
    )
    slo_attainment: fields.Ratio | None = Field(None, description="Share of recent requests that met the SLO.")
    reason: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="The decisive reason of the last decision."
    )
    signals: Annotated[list[dict[str, Any]], Field(max_length=256)] = Field(
        default_factory=list, description="The measurements in use, as in the status of a tier."
    )
    decisions: Annotated[list[fields.DecisionRecord], Field(max_length=20)] = Field(
        default_factory=list, description="The last decisions, newest last."
    )
    conditions: fields.Conditions = Field(default_factory=list, description="What is true of the policy now.")


class RoutingPolicy(fields.ApiModel):
    """Which requests go where, to what end, at what price."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["RoutingPolicy"] = "RoutingPolicy"
    metadata: fields.ObjectMeta
    spec: RoutingPolicySpec = Field(description="What the user wants of routing.")
    status: RoutingPolicyStatus = Field(RoutingPolicyStatus(), description="What is true; written by Trimtab.")
