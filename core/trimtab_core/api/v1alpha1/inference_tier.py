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

    name: Annotated[str, Field(min_length=1, max_length=128)] = Field(description="Name of the variable.")


class Engine(fields.ApiModel):
    """The container that serves the model."""

    image: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        "vllm/vllm-openai:v0.32.0", description="Image of the engine."
    )
    args: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=64)] = Field(
        default_factory=list, description="Arguments after those that Trimtab renders."
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default_factory=list,
        description="Environment variables of the engine, as in a Pod.",
        json_schema_extra=fields.keyed_by("name"),
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="Port on which the engine serves HTTP.")
    pod_template: dict[str, Any] | None = Field(
        None, description="Patch merged over the rendered pod template (metadata and spec of a PodTemplateSpec)."
    )


class Accelerator(fields.ApiModel):
    """The hardware of one replica."""

    type: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        description="Name in the accelerator catalogue, such as L4, A100-80 or H100."
    )
    count: Annotated[int, Field(ge=1, le=16)] = Field(1, description="Accelerators that one replica uses together.")


class HourlyPrice(fields.ApiModel):
    """What one replica costs."""

    usd_per_hour: fields.Decimal = Field(description="USD per replica-hour.")


class ReplicaBounds(fields.ApiModel):
    """The limits of the replica count."""

    min: Annotated[int, Field(ge=0, le=1000)] = Field(0, description="Replicas that always run.")
    max: Annotated[int, Field(ge=0, le=1000)] = Field(10, description="Replicas that may run; 0 switches it off.")


class Profile(fields.ApiModel):
    """What one replica can carry. Absent values come from the catalogue and are learned from signals.

    The inter-token latency follows ``itlBase + itlPerSequence × running`` (measured linear on real GPUs).
    """

    itl_base: fields.Duration | None = Field(None, description="Inter-token latency of a lone sequence.")
    itl_per_sequence: fields.Duration | None = Field(None, description="Added by each running sequence.")
    prefill_tokens_per_second: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="Input tokens read per second while nothing else runs."
    )
    kv_tokens: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = Field(
        None, description="Tokens that fit in the KV cache."
    )
    max_sequences: Annotated[int, Field(ge=1, le=65536)] | None = Field(None, description="vLLM's --max-num-seqs.")
    startup: fields.Duration | None = Field(None, description="From pod creation to the first answer.")


class Variant(fields.ApiModel):
    """One way to serve the tier: hardware, purchase model, quantisation."""

    name: fields.Name = Field(description="Name within the tier; part of the Deployment's name.")
    accelerator: Accelerator = Field(description="The hardware of one replica.")
    capacity_type: CapacityType = Field(CapacityType.ON_DEMAND, description="How the hardware is bought.")
    quantization: Annotated[str, Field(min_length=1, max_length=40)] | None = Field(
        None,
        description="The engine's --quantization argument, such as fp8 or awq; absent means the weights' own type.",
    )
    price: HourlyPrice | None = Field(None, description="Fixes the price; otherwise it is resolved and dated.")
    replicas: ReplicaBounds = Field(ReplicaBounds(), description="Limits of the replica count.")
    args: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=64)] = Field(
        default_factory=list, description="Engine arguments of this variant alone."
    )
    node_selector: fields.LabelMap = Field(
        default_factory=dict, description="Labels of the Nodes that may run it, besides those of the accelerator."
    )
    tolerations: Annotated[list[dict[str, Any]], Field(max_length=32)] = Field(
        default_factory=list, description="Taints of Nodes that it accepts, as in a Pod."
    )
    profile: Profile | None = Field(None, description="What one replica can carry, as far as it is known.")


class TokenPrice(fields.ApiModel):
    """The list price of an external API."""

    input_usd_per_million_tokens: fields.Decimal = Field(description="USD per million input tokens.")
    output_usd_per_million_tokens: fields.Decimal = Field(description="USD per million output tokens.")
    cached_input_usd_per_million_tokens: fields.Decimal | None = Field(
        None, description="USD per million input tokens that the provider had cached; the input price when absent."
    )
    batch_discount: fields.Ratio = Field(
        "0", description="Taken off for requests of priority batch, which then go out in the provider's batch tier."
    )


class ExternalApi(fields.ApiModel):
    """An OpenAI-compatible provider that serves the tier instead of own replicas."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=500)] = Field(
        description="Base address, such as https://api.example.com/v1."
    )
    api_key_secret_ref: fields.SecretKeyRef | None = Field(None, description="Secret that holds the API key.")
    price: TokenPrice = Field(description="List price of the provider.")
    max_requests_per_second: Annotated[int, Field(ge=1, le=100000)] = Field(
        100,
        description="Rate limit agreed with the provider; each router keeps below it.",
    )
    max_tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = Field(
        None, description="Token limit agreed with the provider; each router keeps below it."
    )
    models: Annotated[dict[str, fields.ModelName], Field(max_length=32)] = Field(
        default_factory=dict,
        description="Model name that the client sent → name at the provider; model.name for all others.",
    )
    batch_service_tier: Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=32)] = Field(
        "flex", description="Value of service_tier for requests of priority batch, where batchDiscount is above 0."
    )


class ScaleToZero(fields.ApiModel):
    """When a tier without traffic gives all its replicas back."""

    after: fields.Duration = Field("10m", description="Time without arrivals before the last replica goes.")
    hold: fields.Duration = Field("60s", description="How long a request may wait for the tier to wake.")


class Scaling(fields.ApiModel):
    """How replicas move."""

    management: Management = Field(
        Management.AUTO,
        description="Auto acts, Approve waits for a yes, Recommend says what it would do, Observe only measures.",
    )
    actuator: Actuator = Field(
        Actuator.DIRECT, description="Direct writes the scale itself; HPA and KEDA are given a metric to follow."
    )
    scale_to_zero: ScaleToZero | None = Field(
        None, description="Lets the tier give back its last replica; it keeps one when absent."
    )
    scale_down_window: fields.Duration = Field(
        "5m", description="All evidence must agree on fewer replicas for this long before one goes."
    )
    max_step_up: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Replicas added to a variant at once.")
    on_demand_share: fields.Ratio = Field(
        "0", description="Least share of the planned load that replicas which are not spot must be able to carry alone."
    )
    warm: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="Ready replicas kept beyond what the load takes, for jumps that no forecast can tell."
    )


class Drain(fields.ApiModel):
    """How a replica leaves."""

    timeout: fields.Duration = Field("120s", description="Requests in flight may take this long to finish.")


class InferenceTierSpec(fields.ApiModel):
    """What the user wants of a tier."""

    model: ServedModel = Field(description="The model behind the tier.")
    slo: fields.LatencySlo = Field(
        fields.LatencySlo(ttft=fields.Percentile(p95="1s")), description="The latency that the tier must keep."
    )
    engine: Engine = Field(Engine(), description="The container that serves the model.")
    variants: Annotated[list[Variant], Field(max_length=16)] = Field(
        default_factory=list,
        description="Ways to serve the tier with own replicas.",
        json_schema_extra=fields.keyed_by("name"),
    )
    external: ExternalApi | None = Field(None, description="A provider that serves the tier, instead of variants.")
    scaling: Scaling = Field(Scaling(), description="How replicas move.")
    drain: Drain = Field(Drain(), description="How a replica leaves.")


class Learning(fields.ApiModel):
    """How far a learned profile can be trusted."""

    samples: Annotated[int, Field(ge=0)] = Field(
        0, description="Measured intervals behind it, since the replicas last changed."
    )
    error: fields.Ratio | None = Field(
        None, description="Standard error of the inter-token latency at twice the sequences seen, as a share of it."
    )
    sequences: Annotated[int, Field(ge=0)] = Field(0, description="Most sequences that one replica ran lately.")


class VariantStatus(fields.ApiModel):
    """What is true of one variant now, and what the loop must remember of it."""

    name: Annotated[str, Field(max_length=40)] = Field(description="Name of the variant.")
    desired: Annotated[int, Field(ge=0)] = Field(0, description="Replicas asked for.")
    ready: Annotated[int, Field(ge=0)] = Field(0, description="Replicas that serve.")
    pending: Annotated[int, Field(ge=0)] = Field(0, description="Replicas that start.")
    draining: Annotated[int, Field(ge=0)] = Field(0, description="Replicas that finish their requests and go.")
    usd_per_hour: fields.Decimal | None = Field(None, description="Price of one replica-hour in force.")
    price_source: Annotated[str, Field(max_length=200)] | None = Field(None, description="Who says so.")
    price_as_of: Annotated[str, Field(max_length=40)] | None = Field(None, description="Date of the price, ISO 8601.")
    startup: fields.Duration | None = Field(None, description="Measured time from creation to ready.")
    profile: Profile | None = Field(None, description="Learned profile; may be committed to Git.")
    learning: Learning | None = Field(None, description="How far the learned profile can be trusted.")
    fewer_since: fields.RFC3339 | None = Field(None, description="Since when all evidence asks for fewer replicas.")
    last_scaled: fields.RFC3339 | None = Field(None, description="When the count was last changed.")
    losses_per_hour: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$", max_length=8)] | None = Field(
        None, description="Replicas lost per replica-hour, preempted or crashed, as measured."
    )
    lost_at: fields.RFC3339 | None = Field(None, description="When replicas were last lost.")
    waves_per_hour: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$", max_length=8)] | None = Field(
        None, description="How often several replicas were lost at once, per hour."
    )
    wave_share: fields.Ratio | None = Field(None, description="Share of the replicas that go in such a wave.")
    blocked_until: fields.RFC3339 | None = Field(None, description="No capacity was found; not tried again before.")
    override_until: fields.RFC3339 | None = Field(None, description="A manual edit holds until then.")


class SignalStatus(fields.ApiModel):
    """One signal as the planner saw it."""

    name: Annotated[str, Field(max_length=128)] = Field(description="Name of the signal.")
    state: Literal["Fresh", "Stale", "Missing"] = Field(description="How far it may be trusted.")
    value: Annotated[str, Field(max_length=32)] | None = Field(None, description="The number; absent when missing.")
    age: fields.Duration | None = Field(None, description="How old the number is.")
    reason: Annotated[str, Field(max_length=200)] | None = Field(None, description="Why it is missing.")


class InferenceTierStatus(fields.ApiModel):
    """What Trimtab did and saw."""

    observed_generation: int | None = Field(None, description="Generation of the spec that is in force.")
    epoch: int | None = Field(None, description="Leader epoch of the last writer.")
    mode: Annotated[str, Field(max_length=40)] | None = Field(None, description="How the tier is managed now.")
    replicas: Annotated[int, Field(ge=0)] | None = Field(None, description="Replicas asked for, over all variants.")
    ready_replicas: Annotated[int, Field(ge=0)] | None = Field(None, description="Replicas that serve.")
    usd_per_hour: fields.Decimal | None = Field(None, description="What the tier costs now, USD per hour.")
    slo_attainment: fields.Ratio | None = Field(None, description="Share of recent requests that met the SLO.")
    utilisation: Annotated[str, Field(pattern=r"^[0-9]\.[0-9]{2}$", max_length=4)] | None = Field(
        None,
        description="Share of a replica's admissible load that is planned with, learned from the SLO's error budget.",
    )
    reason: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="The decisive reason of the last decision."
    )
    variants: Annotated[list[VariantStatus], Field(max_length=16)] = Field(
        default_factory=list, description="What is true of each variant.", json_schema_extra=fields.keyed_by("name")
    )
    signals: Annotated[list[SignalStatus], Field(max_length=64)] = Field(
        default_factory=list, description="The measurements in use.", json_schema_extra=fields.keyed_by("name")
    )
    decisions: Annotated[list[fields.DecisionRecord], Field(max_length=20)] = Field(
        default_factory=list, description="The last decisions, newest last."
    )
    conditions: fields.Conditions = Field(default_factory=list, description="What is true of the tier now.")


class InferenceTier(fields.ApiModel):
    """A model at one quality level, served to one SLO."""

    api_version: Literal["inference.trimtab.dev/v1alpha1"] = fields.API_VERSION
    kind: Literal["InferenceTier"] = "InferenceTier"
    metadata: fields.ObjectMeta
    spec: InferenceTierSpec = Field(description="What the user wants of the tier.")
    status: InferenceTierStatus = Field(InferenceTierStatus(), description="What is true; written by Trimtab.")
