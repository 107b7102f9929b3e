"""Field types and the base model that all kinds of ``inference.trimtab.dev/v1alpha1`` share.

Objects are frozen and refuse unknown fields: a typing mistake is found where it is made, never ignored.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from trimtab_core import units

GROUP: Final = "inference.trimtab.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "inference.trimtab.dev/v1alpha1"

DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Duration = Annotated[str, Field(pattern=units.DURATION_PATTERN, max_length=32, examples=["800ms", "10m"])]
"""A time span as text; ``units.duration_seconds`` reads it."""
Decimal = Annotated[str, Field(pattern=units.DECIMAL_PATTERN, max_length=22, examples=["0.35"])]
"""A non-negative decimal as text; ``units.decimal_number`` reads it."""
Ratio = Annotated[str, Field(pattern=units.RATIO_PATTERN, max_length=11, examples=["0.99"])]
"""A decimal from 0 to 1 as text; ``units.ratio`` reads it."""
RFC3339 = Annotated[str, Field(max_length=40, examples=["2026-08-01T12:00:00Z"])]
"""A moment as text."""
Name = Annotated[str, Field(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=40)]
"""A name that becomes part of Kubernetes object names and metric labels."""
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
"""A model name as OpenAI clients send it."""
LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32)]
"""A few label names and their values."""

AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""For ``Field(json_schema_extra=…)``: the list holds every value once; the API server refuses a second."""


def keyed_by(key: str) -> dict[str, Any]:
    """For ``Field(json_schema_extra=…)``: the items are told apart by that key, which must be unique."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class ApiModel(BaseModel):
    """Base of every API type: camelCase in YAML, snake_case in Python, frozen, no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    def to_dict(self) -> dict[str, Any]:
        """The object as it appears in YAML: camelCase keys, nothing that is unset."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class OpenModel(ApiModel):
    """A piece of a Kubernetes type that Trimtab passes through: unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class ObjectMeta(OpenModel):
    """The parts of Kubernetes' ObjectMeta that Trimtab reads; the rest is kept as it came."""

    name: str = Field(description="Name, unique among objects of this kind in the namespace.")
    namespace: str = Field("default", description="Namespace of the object.")
    uid: str | None = Field(None, description="Identity given by the API server.")
    generation: int | None = Field(None, description="Counts the changes of the spec.")
    resource_version: str | None = Field(None, description="Counts all changes; opaque.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the object.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the object.")


class LocalRef(ApiModel):
    """A reference to an object of a known kind in the same namespace."""

    ref: Name = Field(description="Name of the object in the same namespace.")


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name of the Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Key inside the Secret.")


class Percentile(ApiModel):
    """A latency promise: 95 % of the requests are at most this slow."""

    p95: Duration = Field(description="95th percentile that must hold, such as 800ms.")


class LatencySlo(ApiModel):
    """The latency that must hold; a part that is absent is not promised."""

    ttft: Percentile | None = Field(None, description="Time to the first content byte.")
    itl: Percentile | None = Field(None, description="Mean time between two output tokens of a request.")
    # The alias generator would make "e2E" of it.
    e2e: Percentile | None = Field(None, alias="e2e", description="Time to the last byte.")
    attainment: Ratio = Field("0.95", description="Share of requests that must meet every promised latency.")


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A Kubernetes condition; the reason is one of the fixed words in ``conditions.py``."""

    type: Annotated[str, Field(max_length=64)] = Field(description="What the condition is about, such as Ready.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="One word that says why.")
    message: Annotated[str, Field(max_length=4096)] = Field("", description="The same for people, with the fix.")
    last_transition_time: RFC3339 = Field(description="When the status last changed, RFC 3339.")
    observed_generation: int | None = Field(None, description="Generation of the spec that was judged.")


Conditions = Annotated[list[Condition], Field(max_length=16, json_schema_extra=keyed_by("type"))]
"""The conditions of one object."""


class DecisionRecord(ApiModel):
    """One decision of the control loop as status shows it; see ``planning.plan.Decision``."""

    time: RFC3339 = Field(description="When it was taken, RFC 3339.")
    action: Annotated[str, Field(max_length=200)] = Field(description="What was done, such as 'l4-spot 2 → 3'.")
    reasons: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=16)] = Field(
        default_factory=list, description="Why, the decisive reason first."
    )
    cost_before_usd_per_hour: Decimal | None = Field(None, description="What the fleet cost before, USD per hour.")
    cost_after_usd_per_hour: Decimal | None = Field(None, description="What it costs after, USD per hour.")
    binding_constraint: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="The constraint that kept the plan from being cheaper."
    )
