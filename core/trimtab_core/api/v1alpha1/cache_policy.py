"""``CachePolicy``: what answers may be given again, to whom, for how long, at what promised error rate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields


class StoreType(StrEnum):
    """Where answers are kept."""

    MEMORY = "Memory"
    REDIS = "Redis"


class CacheScope(StrEnum):
    """Who may be given an answer again."""

    TENANT = "Tenant"
    SHARED = "Shared"


class CacheStore(fields.ApiModel):
    """The store of the cached answers."""

    type: StoreType = StoreType.MEMORY
    url: Annotated[str, Field(pattern=r"^rediss?://[^\s]+$", max_length=500)] | None = None
    password_secret_ref: fields.SecretKeyRef | None = None


class ExactCache(fields.ApiModel):
    """Same request, same answer."""

    enabled: bool = True
    max_temperature: fields.Decimal = Field("0", description="Requests that sample above this are not cached.")


class SemanticCache(fields.ApiModel):
    """Same question in other words, within a promised error rate."""

    enabled: bool = False
    max_wrong_answer_rate: fields.Ratio = "0.01"
    shadow_sample: fields.Ratio = Field("0.02", description="Share of hits that are asked again to measure the rate.")


class CachePolicySpec(fields.ApiModel):
    """What the user wants of the cache."""

    store: CacheStore = CacheStore()
    ttl: fields.Duration = "1h"
    max_entries: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    max_answer_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 262_144
    scope: CacheScope = Field(
        CacheScope.TENANT, description="Shared gives one tenant's answers to others: only for public content."
    )
    exact: ExactCache = ExactCache()
    semantic: SemanticCache = SemanticCache()


class CachePolicyStatus(fields.ApiModel):
    """What the cache does."""

    observed_generation: int | None = None
    epoch: int | None = None
    state: Literal["Learning", "Serving", "Tightened", "Disabled"] | None = None
    exact_hit_rate: fields.Ratio | None = None
    semantic_hit_rate: fields.Ratio | None = None
    wrong_answer_rate: Annotated[str, Field(max_length=64)] | None = Field(None, description="With its interval.")
    saved_usd: fields.Decimal | None = None
    conditions: Annotated[list[fields.Condition], Field(max_length=16)] = Field(default_factory=list)


class CachePolicy(fields.ApiModel):
    """What may be answered from memory."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["CachePolicy"] = "CachePolicy"
    metadata: fields.ObjectMeta
    spec: CachePolicySpec = CachePolicySpec()
    status: CachePolicyStatus = CachePolicyStatus()
