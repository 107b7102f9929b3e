"""What one replica can probably carry, before anything is measured.

A roofline: the time of one decode step is the time to read the weights from memory, each running sequence
adds the time to read its keys and values, and prefill is bound by arithmetic. Two efficiencies and two overheads
are fitted to the cells of ``tests/core/catalog/test_profiles.py`` (ai-dynamo/aiconfigurator 0.12.0, vLLM, and its
measured silicon sample); they agree within 30 %, the worst slope within 42 %. Those slopes include the prefill of
other requests, which here is left out of ``itl_per_sequence_seconds``: ``capacity.py`` adds it from the prefill rate.
What Trimtab learns from signals replaces these numbers, and what a user writes replaces both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import accelerators
from trimtab_core.snapshot import CapacityProfile

MEMORY_EFFICIENCY = 0.72
"""Share of the data-sheet bandwidth that decoding reaches (fitted)."""
COMPUTE_EFFICIENCY = 0.65
"""Share of the data-sheet throughput that prefill reaches (fitted)."""
STEP_OVERHEAD_SECONDS = 0.0006
"""Of a decode step, whatever the model (fitted)."""
SECONDS_PER_DOUBLING = 0.001
"""Added to a decode step by each doubling of tensor parallelism, for the all-reduces (fitted)."""

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

LARGEST_BILLION_PARAMETERS = 110.0
_GIB = 2**30

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_MIXTURE = re.compile(r"(?<![a-z0-9])(\d+x\d+(\.\d+)?b|a\d+(\.\d+)?b)(?![a-z0-9])", re.IGNORECASE)

_KV_BYTES_PER_TOKEN = ((4.0, 114_688), (9.0, 131_072), (16.0, 163_840), (40.0, 262_144), (math.inf, 327_680))
"""Up to how many billion parameters → bytes of keys and values per token in 16 bits: 2 · layers · heads · 128 · 2,
with 8 key-value heads, of Llama-3.2-3B, Llama-3.1-8B, Qwen3-14B, Qwen3-32B and Llama-3.1-70B."""

_BYTES_PER_WEIGHT = {
    "fp8": 1.0, "w8a8": 1.0, "int8": 1.0, "modelopt": 1.0,
    "awq": 0.56, "gptq": 0.56, "int4": 0.56, "w4a16": 0.56, "nvfp4": 0.56, "mxfp4": 0.56, "bitsandbytes": 0.56,
}  # fmt: skip
"""Quantisation → bytes per weight (4 bits and their scales make 0.56); 16-bit weights have 2."""
_EIGHT_BIT_COMPUTE = ("fp8", "w8a8", "modelopt")


@dataclass(frozen=True, slots=True)
class NoPrior:
    """Nothing can be said of a model on this hardware; the reason says what to write in the manifest."""

    reason: str


def prior(model_name: str, accelerator: str, count: int = 1, quantization: str | None = None) -> CapacityProfile | None:
    """The profile of one replica of a dense model, or None where ``explain`` has a reason.

    The model's size is read from its name: ``8b`` in ``llama-3.1-8b-instruct`` is 8 billion parameters, and a
    quantisation such as ``fp8`` or ``awq`` in it counts when ``quantization`` is None.
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
    billions = billion_parameters(model_name)
    if billions is None:
        return NoPrior(f"the size of model {model_name!r} can't be read from its name: write all of profile")
    method = (quantization or _quantization_in(model_name)).lower()
    replica = _Replica(hardware, count, billions, method)
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
    billions: float
    quantization: str

    @property
    def weight_bytes(self) -> float:
        return self.billions * 1e9 * _BYTES_PER_WEIGHT.get(self.quantization, 2.0)

    @property
    def kv_bytes_per_token(self) -> int:
        return next(size for limit, size in _KV_BYTES_PER_TOKEN if self.billions <= limit)

    @property
    def kv_tokens(self) -> int:
        usable = (self.hardware.memory_gib * MEMORY_UTILISATION - RESERVED_GIB) * self.count * _GIB
        return int((usable - self.weight_bytes) / self.kv_bytes_per_token)

    @property
    def bytes_per_second(self) -> float:
        return self.hardware.bandwidth_gb_per_second * 1e9 * self.count * MEMORY_EFFICIENCY

    @property
    def prefill_tokens_per_second(self) -> float:
        eight_bit = self.hardware.fp8 and self.quantization in _EIGHT_BIT_COMPUTE
        operations = self.hardware.tflops * 1e12 * self.count * COMPUTE_EFFICIENCY * (2.0 if eight_bit else 1.0)
        return operations / (2.0 * self.billions * 1e9)

    @property
    def itl_base_seconds(self) -> float:
        overhead = STEP_OVERHEAD_SECONDS + SECONDS_PER_DOUBLING * math.log2(self.count)
        return self.weight_bytes / self.bytes_per_second + overhead

    @property
    def itl_per_sequence_seconds(self) -> float:
        """Reading the keys and values of one sequence, half of its output written."""
        context_tokens = REFERENCE_INPUT_TOKENS + REFERENCE_OUTPUT_TOKENS / 2
        return context_tokens * self.kv_bytes_per_token / self.bytes_per_second


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


def billion_parameters(model_name: str) -> float | None:
    """Billions of parameters as a dense model's name tells them: ``qwen3-32b-awq`` → 32.0.

    None for names without a size, above the sizes that the roofline was checked for, and for mixtures of experts
    (``8x7b``, ``30b-a3b``), whose speed does not follow their size.
    """
    if _MIXTURE.search(model_name):
        return None
    found = _SIZE.search(model_name)
    if found is None:
        return None
    billions = float(found.group(1))
    return billions if 0 < billions <= LARGEST_BILLION_PARAMETERS else None


def _quantization_in(model_name: str) -> str:
    words = re.split(r"[^a-z0-9]+", model_name.lower())
    return next((word for word in words if word in _BYTES_PER_WEIGHT), "")
