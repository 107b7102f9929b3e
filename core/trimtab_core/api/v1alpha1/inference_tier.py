"""``InferenceTier``: one model at one quality level, served to one SLO by one or more variants."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from trimtab_core.api.v1alpha1 import fields


class CapacityType(StrEnum):
    """How the hardware of a variant is bought."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"


class Management(StrEnum):
    """How far Trimtab may go on its own."""

    AUTO = "Auto"
    APPROVE = "Approve"
    RECOMMEND = "Recommend"
    OBSERVE = "Observe"


class Actuator(StrEnum):
    """Who writes the replica count of a Deployment."""

    DIRECT = "Direct"
    HPA = "HPA"
    KEDA = "KEDA"


class ServedModel(fields.ApiModel):
    """The model behind a tier."""

    name: fields.ModelName = Field(description="Name that the engine serves; requests are rewritten to it.")
    source: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="Where the weights come from, such as hf://org/model; the engine's --model argument."
    )
    quality: fields.Ratio = Field(
        description="Prior probability that an answer is as good as wanted; measured quality replaces it."
    )


class EnvVar(fields.OpenModel):
    """One environment variable of the engine, as in a Pod."""

    name: Annotated[str, Field(min_length=1, max_length=128)]


class Engine(fields.ApiModel):
    """The container that serves the model."""

    image: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        "vllm/vllm-openai:v0.32.0", description="Image of the engine."
    )
    args: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=64)] = Field(
        default_factory=list, description="Arguments after those that Trimtab renders."
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(default_factory=list)
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    pod_template: dict[str, Any] | None = Field(
        None, description="Patch merged over the rendered pod template (metadata and spec of a PodTemplateSpec)."
    )


class Accelerator(fields.ApiModel):
    """The hardware of one replica."""

    type: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        description="Name in the accelerator catalogue, such as L4, A100-80 or H100."
    )
    count: Annotated[int, Field(ge=1, le=16)] = 1


class HourlyPrice(fields.ApiModel):
    """What one replica costs."""

    usd_per_hour: fields.Decimal = Field(description="USD per replica-hour.")


class ReplicaBounds(fields.ApiModel):
    """The limits of the replica count."""

    min: Annotated[int, Field(ge=0, le=1000)] = 0
    max: Annotated[int, Field(ge=0, le=1000)] = 10


class Profile(fields.ApiModel):
    """What one replica can carry. Absent values come from the catalogue and are learned from signals.

    The inter-token latency follows ``itlBase + itlPerSequence × running`` (measured linear on real GPUs).
    """

    itl_base: fields.Duration | None = Field(None, description="Inter-token latency of a lone sequence.")
    itl_per_sequence: fields.Duration | None = Field(None, description="Added by each running sequence.")
    prefill_tokens_per_second: Annotated[int, Field(ge=1)] | None = None
    kv_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="Tokens that fit in the KV cache.")
    max_sequences: Annotated[int, Field(ge=1, le=65536)] | None = Field(None, description="vLLM's --max-num-seqs.")
    startup: fields.Duration | None = Field(None, description="From pod creation to the first answer.")


class Variant(fields.ApiModel):
    """One way to serve the tier: hardware, purchase model, quantisation."""

    name: fields.Name
    accelerator: Accelerator
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    quantization: Annotated[str, Field(max_length=40)] | None = None
    price: HourlyPrice | None = Field(None, description="Fixes the price; otherwise it is resolved and dated.")
    replicas: ReplicaBounds = ReplicaBounds()
    args: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=64)] = Field(
        default_factory=list, description="Engine arguments of this variant alone."
    )
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: Annotated[list[dict[str, Any]], Field(max_length=32)] = Field(default_factory=list)
    profile: Profile | None = None


class TokenPrice(fields.ApiModel):
    """The list price of an external API."""

    input_usd_per_million_tokens: fields.Decimal
    output_usd_per_million_tokens: fields.Decimal
    cached_input_usd_per_million_tokens: fields.Decimal | None = None


class ExternalApi(fields.ApiModel):
    """An OpenAI-compatible provider that serves the tier instead of own replicas."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=500)]
    api_key_secret_ref: fields.SecretKeyRef | None = None
    price: TokenPrice
    max_requests_per_second: Annotated[int, Field(ge=1, le=100000)] = 100


class ScaleToZero(fields.ApiModel):
    """When a tier without traffic gives all its replicas back."""

    after: fields.Duration = Field("10m", description="Time without arrivals before the last replica goes.")
    hold: fields.Duration = Field("60s", description="How long a request may wait for the tier to wake.")


class Scaling(fields.ApiModel):
    """How replicas move."""

    management: Management = Management.AUTO
    actuator: Actuator = Actuator.DIRECT
    scale_to_zero: ScaleToZero | None = None
    scale_down_window: fields.Duration = Field(
        "5m", description="All evidence must agree on fewer replicas for this long before one goes."
    )
    max_step_up: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Replicas added to a variant at once.")


class Drain(fields.ApiModel):
    """How a replica leaves."""

    timeout: fields.Duration = Field("120s", description="Requests in flight may take this long to finish.")


class InferenceTierSpec(fields.ApiModel):
    """What the user wants of a tier."""

    model: ServedModel
    slo: fields.LatencySlo = fields.LatencySlo(ttft=fields.Percentile(p95="1s"))
    engine: Engine = Engine()
    variants: Annotated[list[Variant], Field(max_length=16)] = Field(default_factory=list)
    external: ExternalApi | None = None
    scaling: Scaling = Scaling()
    drain: Drain = Drain()


class VariantStatus(fields.ApiModel):
    """What is true of one variant now, and what the loop must remember of it."""

    name: str
    desired: int = 0
    ready: int = 0
    pending: int = 0
    draining: int = 0
    usd_per_hour: fields.Decimal | None = Field(None, description="Price of one replica-hour in force.")
    price_source: str | None = None
    price_as_of: str | None = None
    startup: fields.Duration | None = Field(None, description="Measured time from creation to ready.")
    profile: Profile | None = Field(None, description="Learned profile; may be committed to Git.")
    fewer_since: str | None = Field(None, description="Since when all evidence asks for fewer replicas.")
    last_scaled: str | None = None
    blocked_until: str | None = Field(None, description="No capacity was found; not tried again before.")
    override_until: str | None = Field(None, description="A manual edit holds until then.")


class SignalStatus(fields.ApiModel):
    """One signal as the planner saw it."""

    name: Annotated[str, Field(max_length=128)]
    state: Literal["Fresh", "Stale", "Missing"]
    value: Annotated[str, Field(max_length=32)] | None = None
    age: fields.Duration | None = None
    reason: Annotated[str, Field(max_length=200)] | None = None


class InferenceTierStatus(fields.ApiModel):
    """What Trimtab did and saw."""

    observed_generation: int | None = None
    epoch: int | None = Field(None, description="Leader epoch of the last writer.")
    mode: str | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    usd_per_hour: fields.Decimal | None = None
    slo_attainment: fields.Ratio | None = None
    reason: str | None = Field(None, description="The decisive reason of the last decision.")
    variants: Annotated[list[VariantStatus], Field(max_length=16)] = Field(default_factory=list)
    signals: Annotated[list[SignalStatus], Field(max_length=64)] = Field(default_factory=list)
    decisions: Annotated[list[fields.DecisionRecord], Field(max_length=20)] = Field(default_factory=list)
    conditions: Annotated[list[fields.Condition], Field(max_length=16)] = Field(default_factory=list)


class InferenceTier(fields.ApiModel):
    """A model at one quality level, served to one SLO."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["InferenceTier"] = "InferenceTier"
    metadata: fields.ObjectMeta
    spec: InferenceTierSpec
    status: InferenceTierStatus = InferenceTierStatus()
