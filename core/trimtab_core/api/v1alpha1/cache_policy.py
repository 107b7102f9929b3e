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

    type: StoreType = Field(StoreType.MEMORY, description="Memory of each router, or a Redis that all routers share.")
    url: Annotated[str, Field(pattern=r"^rediss?://[!-~]+$", max_length=500)] | None = Field(
        None, description="Address of the Redis or Valkey server, such as redis://cache:6379/0."
    )
    password_secret_ref: fields.SecretKeyRef | None = Field(None, description="Secret that holds the password.")


class ExactCache(fields.ApiModel):
    """Same request, same answer."""

    enabled: bool = Field(True, description="Answer a repeated request from the store.")
    max_temperature: fields.Decimal = Field("0", description="Requests that sample above this are not cached.")


class SemanticCache(fields.ApiModel):
    """Same question in other words, within a promised error rate."""

    enabled: bool = Field(False, description="Answer a reworded question from the store once that is proven safe.")
    max_wrong_answer_rate: fields.Ratio = Field("0.01", description="Largest share of hits that may be wrong.")
    shadow_sample: fields.Ratio = Field("0.02", description="Share of hits that are asked again to measure the rate.")


class CachePolicySpec(fields.ApiModel):
    """What the user wants of the cache."""

    store: CacheStore = Field(CacheStore(), description="Where answers are kept.")
    ttl: fields.Duration = Field("1h", description="How long an answer may be given again.")
    max_entries: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000, description="Answers kept; the one unused for longest goes first."
    )
    max_answer_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = Field(
        262_144, description="Longer answers are not kept."
    )
    scope: CacheScope = Field(
        CacheScope.TENANT, description="Shared gives one tenant's answers to others: only for public content."
    )
    exact: ExactCache = Field(ExactCache(), description="Same request, same answer.")
    semantic: SemanticCache = Field(SemanticCache(), description="Same question in other words.")


class CachePolicyStatus(fields.ApiModel):
    """What the cache does."""

    observed_generation: int | None = Field(None, description="Generation of the spec that is in force.")
    epoch: int | None = Field(None, description="Leader epoch of the last writer.")
    state: Literal["Learning", "Serving", "Tightened", "Disabled"] | None = Field(
        None, description="How far the semantic cache is trusted."
    )
    exact_hit_rate: fields.Ratio | None = Field(None, description="Share of requests answered by the exact cache.")
    semantic_hit_rate: fields.Ratio | None = Field(None, description="Share answered by the semantic cache.")
    wrong_answer_rate: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Measured share of wrong semantic hits, with its interval."
    )
    saved_usd: fields.Decimal | None = Field(None, description="What the answers from the cache would have cost.")
    conditions: fields.Conditions = Field(default_factory=list, description="What is true of the cache now.")


class CachePolicy(fields.ApiModel):
    """What may be answered from memory."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["CachePolicy"] = "CachePolicy"
    metadata: fields.ObjectMeta
    spec: CachePolicySpec = Field(CachePolicySpec(), description="What the user wants of the cache.")
    status: CachePolicyStatus = Field(CachePolicyStatus(), description="What the cache does; written by Trimtab.")
