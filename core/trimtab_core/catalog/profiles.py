"""What one replica can probably carry, before anything is measured.

A roofline: the time of one decode step is the time to read the weights from memory, each running sequence adds the
time to read its keys and values, and prefill is bound by arithmetic. A step of a mixture of experts reads more of them
the more sequences there are; its line is the chord between 8 and 64 of them. The constants below are fitted by
``benchmarks/fit/capacity_priors.py`` to measured runs of vLLM (ai-dynamo/aiconfigurator's silicon sample: five models
on H100, H200 and B200) and, for other hardware, to that project's simulations; ``benchmarks/bench_capacity.py`` tells
how far they are off. The prefill of other requests is left out of ``itl_per_sequence_seconds``: ``capacity.py`` adds it
from the prefill rate. What Trimtab learns from signals replaces these numbers, and what a user writes replaces both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import accelerators, models
from trimtab_core.snapshot import CapacityProfile

MEMORY_EFFICIENCY = 0.77
"""Share of the data-sheet bandwidth that decoding reaches (fitted, as all up to ``EXPERTS_PER_TOKEN``)."""
COMPUTE_EFFICIENCY = 0.75
"""Share of the data-sheet throughput that prefill reaches on one device."""
STEP_OVERHEAD_SECONDS = 0.0008
"""Of a decode step, whatever the model."""
SECONDS_PER_DOUBLING = 0.0014
"""Added to a decode step by each doubling of tensor parallelism, for the all-reduces."""
SEQUENCE_SECONDS_PER_DOUBLING = 1.2e-5
"""Added for each running sequence by each doubling."""
KV_SCALING, PREFILL_SCALING = 0.78, 0.73
"""N devices read keys and values N^0.78 times as fast as one, and compute N^0.73 times as fast."""
PREFILL_SCALING_WITHOUT_LINK = 0.1
"""The same for devices that talk over PCIe: in simulations more of them hardly help prefill."""
FOUR_BIT_READ = 1.5
"""A step that reads 4-bit weights of a dense model takes so many times the bytes' time: they must be unpacked."""
EXPERT_SHARE_READ = 0.58
"""Of the parameters that a token may use or not, a large batch reads so much: tokens agree on experts."""
EXPERTS_PER_TOKEN = 3.0
"""A token adds so many times its own share of a mixture to what a step reads: more than its share, since experts are
read in tiles and most in some layers."""
MIXTURE_COMPUTE = 0.35
"""Prefill of a mixture reaches so much of a dense model's efficiency."""
CHORD = (8, 64)
"""Sequences between which the line of a mixture is drawn."""

REFERENCE_INPUT_TOKENS = 1024
REFERENCE_OUTPUT_TOKENS = 256
"""The request for which ``itl_per_sequence_seconds`` holds: longer inputs make each sequence more expensive."""

MEMORY_UTILISATION = 0.9
"""vLLM's default ``--gpu-memory-utilization``."""
RESERVED_GIB = 1.5
"""Of each device, for activations and CUDA graphs."""
DEFAULT_MAX_SEQUENCES = 256
"""Up to where the fitted cells were measured; vLLM is started with this ``--max-num-seqs``."""
STARTUP_BASE_SECONDS = 60.0
LOAD_BYTES_PER_SECOND = 1e9
"""Start-up is assumed, not fitted: one minute, plus the weights at 1 GB/s. It is measured from the first start."""

_GIB = 2**30

_BYTES_PER_WEIGHT = {
    "fp8": 1.0, "w8a8": 1.0, "int8": 1.0, "modelopt": 1.0,
    "awq": 0.56, "gptq": 0.56, "int4": 0.56, "w4a16": 0.56, "nvfp4": 0.56, "mxfp4": 0.56, "bitsandbytes": 0.56,
}  # fmt: skip
"""Quantisation → bytes per weight (4 bits and their scales make 0.56); 16-bit weights have 2."""
_EIGHT_BIT_COMPUTE = ("fp8", "w8a8", "modelopt")
_FOUR_BIT_COMPUTE = ("nvfp4", "mxfp4")


@dataclass(frozen=True, slots=True)
class NoPrior:
    """Nothing can be said of a model on this hardware; the reason says what to write in the manifest."""

    reason: str


def prior(model_name: str, accelerator: str, count: int = 1, quantization: str | None = None) -> CapacityProfile | None:
    """The profile of one replica, or None where ``explain`` has a reason.

    The model's size is read from its name (``models.find``): ``8b`` in ``llama-3.1-8b-instruct`` is 8 billion
    parameters, and a quantisation such as ``fp8`` or ``awq`` in it counts when ``quantization`` is None.
    """
    judged = explain(model_name, accelerator, count, quantization)
    return None if isinstance(judged, NoPrior) else judged


def explain(
    model_name: str, accelerator: str, count: int = 1, quantization: str | None = None
) -> CapacityProfile | NoPrior:
    """``prior``, or why there is none."""
    hardware = accelerators.find(accelerator)
    if hardware is None:
        return NoPrior(f"accelerator {accelerator!r} is not in the catalogue: write all of profile")
    model = models.find(model_name)
    if model is None:
        return NoPrior(f"the size of model {model_name!r} can't be read from its name: write all of profile")
    method = (quantization or _quantization_in(model_name) or model.quantization).lower()
    replica = _Replica(hardware, count, model, method)
    if replica.kv_tokens < REFERENCE_INPUT_TOKENS + REFERENCE_OUTPUT_TOKENS:
        return NoPrior(
            f"{replica.weight_bytes / _GIB:.0f} GiB of weights do not fit in {count} × {hardware.name}: "
            "raise accelerator.count, choose a larger accelerator or a quantization"
        )
    return CapacityProfile(
        itl_base_seconds=replica.itl_base_seconds,
        itl_per_sequence_seconds=replica.itl_per_sequence_seconds,
        prefill_tokens_per_second=replica.prefill_tokens_per_second,
        kv_tokens=replica.kv_tokens,
        max_sequences=DEFAULT_MAX_SEQUENCES,
        startup_seconds=STARTUP_BASE_SECONDS + replica.weight_bytes / LOAD_BYTES_PER_SECOND,
    )


@dataclass(frozen=True, slots=True)
class _Replica:
    """The roofline of one replica."""

    hardware: accelerators.Accelerator
    count: int
    model: models.Model
    quantization: str

    @property
    def bytes_per_weight(self) -> float:
        return _BYTES_PER_WEIGHT.get(self.quantization, 2.0)

    @property
    def weight_bytes(self) -> float:
        return self.model.billions * 1e9 * self.bytes_per_weight

    @property
    def kv_shards(self) -> int:
        """Devices that keys and values are spread over; beyond their heads, devices hold copies."""
        return min(self.count, self.model.kv_heads)

    @property
    def kv_tokens(self) -> int:
        usable = (self.hardware.memory_gib * MEMORY_UTILISATION - RESERVED_GIB) * _GIB - self.weight_bytes / self.count
        return int(usable * self.kv_shards / self.model.kv_bytes)

    @property
    def device_bytes_per_second(self) -> float:
        return self.hardware.bandwidth_gb_per_second * 1e9 * self.hardware.bandwidth_reached * MEMORY_EFFICIENCY

    @property
    def prefill_tokens_per_second(self) -> float:
        speed = 1.0
        if self.hardware.fp8 and self.quantization in _EIGHT_BIT_COMPUTE:
            speed = 2.0
        elif self.hardware.fp4 and self.quantization in _FOUR_BIT_COMPUTE:
            speed = 4.0
        devices = math.pow(self.count, PREFILL_SCALING if self.hardware.link else PREFILL_SCALING_WITHOUT_LINK)
        efficiency = COMPUTE_EFFICIENCY * (MIXTURE_COMPUTE if self.model.mixture else 1.0)
        return self.hardware.tflops * 1e12 * devices * efficiency * speed / (2.0 * self.model.active_billions * 1e9)

    @property
    def itl_base_seconds(self) -> float:
        overhead = STEP_OVERHEAD_SECONDS + SECONDS_PER_DOUBLING * math.log2(self.count)
        low, _ = CHORD
        return self.read_seconds(low) - self.seconds_per_more_read * low + overhead

    @property
    def itl_per_sequence_seconds(self) -> float:
        """Reading the keys and values of one sequence, half of its output written, and its share of experts."""
        context_tokens = REFERENCE_INPUT_TOKENS + REFERENCE_OUTPUT_TOKENS / 2
        shards = math.pow(self.kv_shards, KV_SCALING)
        kv_seconds = context_tokens * self.model.kv_bytes / (self.device_bytes_per_second * shards)
        return kv_seconds + self.seconds_per_more_read + SEQUENCE_SECONDS_PER_DOUBLING * math.log2(self.count)

    @property
    def seconds_per_more_read(self) -> float:
        """What one more sequence adds to the time in which weights are read; nothing in a dense model."""
        low, high = CHORD
        return (self.read_seconds(high) - self.read_seconds(low)) / (high - low)

    def read_seconds(self, sequences: int) -> float:
        """Time to read the weights that a step of so many sequences uses."""
        model, unpacking = self.model, 1.0
        billions = model.billions
        if model.mixture:
            left_out = (1.0 - min(1.0, EXPERTS_PER_TOKEN * model.active_billions / model.billions)) ** sequences
            others = (model.billions - model.active_billions) * EXPERT_SHARE_READ
            billions = model.active_billions + others * (1.0 - left_out)
        elif self.bytes_per_weight < 1:
            unpacking = FOUR_BIT_READ
        read = billions * 1e9 * self.bytes_per_weight * unpacking
        return read / (self.device_bytes_per_second * self.count)


def resolve(
    model_name: str, variant: v1alpha1.Variant, learned: v1alpha1.Profile | None = None
) -> CapacityProfile | None:
    """The best known profile of a variant: each number as written in the spec, else learned, else the prior.

    None if a number is still unknown after that.
    """
    layers = [layer for layer in (variant.profile, learned) if layer is not None]
    assumed = prior(model_name, variant.accelerator.type, variant.accelerator.count, variant.quantization)

    def known(name: str, attribute: str) -> float | None:
        """The value of one field, in seconds where it is a duration."""
        for layer in layers:
            value = getattr(layer, name)
            if value is not None:
                return units.duration_seconds(value) if isinstance(value, str) else float(value)
        return None if assumed is None else float(getattr(assumed, attribute))

    base, startup = known("itl_base", "itl_base_seconds"), known("startup", "startup_seconds")
    per_sequence = known("itl_per_sequence", "itl_per_sequence_seconds")
    prefill = known("prefill_tokens_per_second", "prefill_tokens_per_second")
    kv_tokens = known("kv_tokens", "kv_tokens")
    if base is None or per_sequence is None or startup is None or prefill is None or kv_tokens is None:
        return None
    return CapacityProfile(
        itl_base_seconds=base,
        itl_per_sequence_seconds=per_sequence,
        prefill_tokens_per_second=prefill,
        kv_tokens=int(kv_tokens),
        max_sequences=int(known("max_sequences", "max_sequences") or DEFAULT_MAX_SEQUENCES),
        startup_seconds=startup,
    )


def _quantization_in(model_name: str) -> str:
    words = re.split(r"[^a-z0-9]+", model_name.lower())
    return next((word for word in words if word in _BYTES_PER_WEIGHT), "")
