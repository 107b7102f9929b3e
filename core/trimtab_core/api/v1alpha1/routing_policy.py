"""``RoutingPolicy``: which requests may go to which tiers, to what end, and the router that does it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields


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

    min: fields.Ratio = "0"
    max: fields.Ratio = "1"


class ClassMatch(fields.ApiModel):
    """What a request must be to belong to a class; every given part must hold, none given matches all."""

    sensitive: bool | None = Field(None, description="Marked or found to hold personal or secret data.")
    priority: Annotated[str, Field(max_length=40)] | None = Field(None, description="Value of X-Trimtab-Priority.")
    complexity: ComplexityRange | None = None
    models: Annotated[list[fields.ModelName], Field(max_length=32)] = Field(
        default_factory=list, description="Model names that the client may have asked for."
    )
    tenants: Annotated[list[fields.Name], Field(max_length=64)] = Field(default_factory=list)
    headers: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=8)] = Field(
        default_factory=dict, description="Header values, compared exactly; names in lower case."
    )


class RequestClass(fields.ApiModel):
    """A kind of request that the policy tells apart; the first class that matches takes it."""

    name: fields.Name
    match: ClassMatch = ClassMatch()
    allow: Annotated[list[fields.Name], Field(max_length=16)] = Field(
        default_factory=list, description="Tiers that may serve it; empty means all tiers of the policy."
    )
    min_quality: fields.Ratio | None = Field(None, description="Least expected quality of this class's answers.")
    slo: fields.LatencySlo | None = Field(None, description="Replaces the policy's SLO for this class.")
    on_unavailable: OnUnavailable = OnUnavailable.FALLBACK


class Objective(fields.ApiModel):
    """What the optimiser must keep while it saves."""

    quality_retention: fields.Ratio = Field(
        "0.988", description="Expected quality as a share of what always the best tier would reach."
    )


class Budget(fields.ApiModel):
    """A ceiling on money."""

    usd_per_hour: fields.Decimal | None = None
    usd_per_month: fields.Decimal | None = None
    when_exceeded: Annotated[list[WhenExceeded], Field(max_length=3)] = Field(
        default_factory=lambda: [WhenExceeded.DOWNSHIFT]
    )


class Tenant(fields.ApiModel):
    """One paying party."""

    name: fields.Name
    api_key_secret_ref: fields.SecretKeyRef | None = Field(None, description="Secret that holds the tenant's API key.")
    usd_per_month: fields.Decimal | None = None


class Tenants(fields.ApiModel):
    """Who may call, and how a caller is known."""

    required: bool = Field(False, description="Refuse requests without a known API key.")
    trusted_header: bool = Field(
        False,
        description="Take the tenant from X-Trimtab-Tenant: only where a trusted gateway sets it.",
    )
    known: Annotated[list[Tenant], Field(max_length=256)] = Field(default_factory=list)


class Resilience(fields.ApiModel):
    """Time limits and retries of the router."""

    connect_timeout: fields.Duration = "2s"
    first_byte_timeout: fields.Duration = "60s"
    idle_timeout: fields.Duration = Field("30s", description="Longest gap between two chunks of a stream.")
    total_timeout: fields.Duration = "10m"
    max_fallbacks: Annotated[int, Field(ge=0, le=5)] = Field(1, description="Further endpoints before the first byte.")
    eject_after: Annotated[int, Field(ge=1, le=100)] = Field(3, description="Failures in a row that eject an endpoint.")
    eject_for: fields.Duration = "10s"


class Retune(fields.ApiModel):
    """How often and how far weights move."""

    interval: fields.Duration = "15s"
    max_weight_step: fields.Ratio = Field("0.10", description="Largest change of one tier's share in one cycle.")
    probe_share: fields.Ratio = Field("0.01", description="Least share of an allowed, healthy tier that is in use.")


class RouterReplicas(fields.ApiModel):
    """Bounds of the router Deployment."""

    min: Annotated[int, Field(ge=1, le=100)] = 2
    max: Annotated[int, Field(ge=1, le=100)] = 10


class Router(fields.ApiModel):
    """The router of this policy."""

    mode: RouterMode = RouterMode.GATEWAY
    image: Annotated[str, Field(min_length=1, max_length=500)] = "ghcr.io/trimtab/trimtab-router:0.1.0"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    replicas: RouterReplicas = RouterReplicas()
    resources: dict[str, Any] | None = Field(None, description="Resources of the router container, as in a Pod.")
    pod_template: dict[str, Any] | None = Field(None, description="Patch merged over the rendered pod template.")


class RoutingPolicySpec(fields.ApiModel):
    """What the user wants of routing."""

    models: Annotated[list[fields.ModelName], Field(min_length=1, max_length=32)] = Field(
        default_factory=lambda: ["auto"], description="Model names that clients send and this policy answers."
    )
    tiers: Annotated[list[fields.LocalRef], Field(min_length=1, max_length=16)]
    classes: Annotated[list[RequestClass], Field(min_length=1, max_length=32)] = Field(
        default_factory=lambda: [RequestClass(name="default")]
    )
    objective: Objective = Objective()
    slo: fields.LatencySlo | None = Field(None, description="Promise to clients; tiers' own SLOs hold when absent.")
    budget: Budget | None = None
    tenants: Tenants = Tenants()
    resilience: Resilience = Resilience()
    retune: Retune = Retune()
    cache: fields.LocalRef | None = Field(None, description="CachePolicy of this policy's requests.")
    baseline_tier: fields.Name | None = Field(
        None, description="Tier that savings are measured against; the one of best quality when absent."
    )
    router: Router = Router()


class ClassWeights(fields.ApiModel):
    """The weights in force for one class."""

    name: str
    weights: dict[str, fields.Ratio] = Field(default_factory=dict)
    arrivals_per_second: fields.Decimal | None = None


class AppliedTable(fields.ApiModel):
    """Which table a router serves by."""

    router: Annotated[str, Field(max_length=253)]
    version: Annotated[str, Field(max_length=64)]


class RoutingPolicyStatus(fields.ApiModel):
    """What Trimtab did and saw."""

    observed_generation: int | None = None
    epoch: int | None = None
    table_version: str | None = None
    applied: Annotated[list[AppliedTable], Field(max_length=100)] = Field(default_factory=list)
    classes: Annotated[list[ClassWeights], Field(max_length=32)] = Field(default_factory=list)
    usd_per_hour: fields.Decimal | None = None
    baseline_usd_per_hour: fields.Decimal | None = None
    saved_ratio: Annotated[str, Field(max_length=16)] | None = Field(None, description="May be negative.")
    slo_attainment: fields.Ratio | None = None
    reason: str | None = None
    signals: Annotated[list[dict[str, Any]], Field(max_length=256)] = Field(default_factory=list)
    decisions: Annotated[list[fields.DecisionRecord], Field(max_length=20)] = Field(default_factory=list)
    conditions: Annotated[list[fields.Condition], Field(max_length=16)] = Field(default_factory=list)


class RoutingPolicy(fields.ApiModel):
    """Which requests go where, to what end, at what price."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["RoutingPolicy"] = "RoutingPolicy"
    metadata: fields.ObjectMeta
    spec: RoutingPolicySpec
    status: RoutingPolicyStatus = RoutingPolicyStatus()
