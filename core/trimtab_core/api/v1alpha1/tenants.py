"""Tenants of a ``RoutingPolicy``: who may call, how a caller is known, and what each may use."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields

Amount = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
URL_PATTERN = r"^(rediss?)://(?:([^@:/]+)@)?(\[[0-9A-Fa-f:.]+\]|[^]\[/:@]+)(?::([0-9]{1,5}))?(?:/([0-9]{1,2}))?$"
"""Scheme, user, host, port and database; a password stands in a Secret and nowhere else."""
Network = Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$", max_length=49, examples=["10.0.0.0/8"])]


class LimitStoreType(StrEnum):
    """Where what tenants have used is counted."""

    MEMORY = "Memory"
    REDIS = "Redis"


class OnStoreFailure(StrEnum):
    """What becomes of limited requests while the shared store can't be reached."""

    ALLOW = "Allow"
    DENY = "Deny"
    LOCAL = "Local"


class PrefixCaching(StrEnum):
    """Whether one tenant's prompts may warm the engines' prefix caches for another."""

    ISOLATED = "Isolated"
    SHARED = "Shared"


class TenantLimits(fields.ApiModel):
    """What one tenant may use; what is absent is not limited. Days and months are those of the calendar in UTC."""

    requests_per_minute: Amount | None = Field(None, description="Requests per minute, as a bucket of one minute.")
    tokens_per_minute: Amount | None = Field(None, description="Tokens per minute, prompt and answer together.")
    tokens_per_day: Amount | None = Field(None, description="Tokens per day, prompt and answer together.")
    usd_per_day: fields.Decimal | None = Field(None, description="Most that the tenant may spend per day.")
    usd_per_month: fields.Decimal | None = Field(None, description="Most that the tenant may spend per month.")
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Requests under way at one time."
    )


class Tenant(fields.ApiModel):
    """One paying party."""

    name: fields.Name = Field(description="Name of the tenant; a label of its costs.")
    api_key_secret_ref: fields.SecretKeyRef | None = Field(None, description="Secret that holds the tenant's API key.")
    further_key_secret_refs: Annotated[list[fields.SecretKeyRef], Field(max_length=4)] = Field(
        default_factory=list, description="Further API keys that count as well, so that a key can be changed in peace."
    )
    usd_per_month: fields.Decimal | None = Field(
        None, description="Most that the tenant may spend per calendar month (UTC); the same as limits.usdPerMonth."
    )
    limits: TenantLimits | None = Field(None, description="What it may use; tenants.defaultLimits when absent.")


class LimitStore(fields.ApiModel):
    """Where it is counted what tenants use."""

    type: LimitStoreType = Field(
        LimitStoreType.MEMORY,
        description="Memory of one router, forgotten when it restarts, or a Redis that all routers share.",
    )
    url: Annotated[str, Field(pattern=URL_PATTERN, max_length=500)] | None = Field(
        None, description="Address of the Redis or Valkey server, such as redis://limits:6379/0."
    )
    password_secret_ref: fields.SecretKeyRef | None = Field(None, description="Secret that holds the password.")
    timeout: fields.Duration = Field("100ms", description="Longest wait for an answer before the store counts as down.")


class Tenants(fields.ApiModel):
    """Who may call, and how a caller is known."""

    required: bool = Field(False, description="Refuse requests without a known API key.")
    trusted_header: bool = Field(
        False,
        description="Take the tenant from X-Trimtab-Tenant: only where a trusted gateway sets it.",
    )
    trusted_peers: Annotated[list[Network], Field(max_length=32)] = Field(
        default_factory=list,
        description="Networks from which X-Trimtab-Tenant is believed, such as 10.0.0.0/8; from anywhere when empty.",
        json_schema_extra=fields.AS_SET,
    )
    known: Annotated[list[Tenant], Field(max_length=256)] = Field(
        default_factory=list,
        description="Tenants with keys or budgets of their own.",
        json_schema_extra=fields.keyed_by("name"),
    )
    default_limits: TenantLimits | None = Field(
        None, description="Limits of each tenant that has none of its own, and of all callers without a name together."
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="Set as max_tokens of limited requests that name none, which makes their worst case sure; "
        "what answers have taken so far is reserved when absent.",
    )
    store: LimitStore = Field(LimitStore(), description="Where it is counted what tenants use.")
    on_store_failure: OnStoreFailure = Field(
        OnStoreFailure.LOCAL,
        description="While the store is down: Allow limits nothing, Deny refuses what is limited, Local lets each "
        "router give out its part of what was left.",
    )
    prefix_caching: PrefixCaching = Field(
        PrefixCaching.ISOLATED,
        description="Isolated keeps tenants from probing each other's prompts through the engines' prefix caches.",
    )
    salt_secret_ref: fields.SecretKeyRef | None = Field(
        None, description="Secret that isolation is derived from; the hashes of the tenants' keys when absent."
    )
