"""The roofline prior agrees with published measurements and simulations of vLLM, and is replaced number by number."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import accelerators, profiles
from trimtab_core.snapshot import CapacityProfile


@dataclass(frozen=True)
class Cell:
    """One published fit of ITL = a + b·n, in milliseconds; b includes the prefill of other requests."""

    model: str
    accelerator: str
    count: int
    quantization: str | None
    a: float
    b: float
    output_tokens: int = 256
    slope_within: float = 0.3
    base_within: float = 0.3


CELLS = [
    # aiconfigurator 0.12.0, vLLM, 1,024 tokens in, 256 out.
    Cell("llama-3.1-8b", "L40S", 1, None, 22.07, 0.506),
    Cell("llama-3.1-8b", "A100-80", 1, None, 11.23, 0.353),
    Cell("llama-3.1-8b", "H100", 1, None, 6.26, 0.133),
    # Measured all-reduces take longer than simulated ones, and decide where steps are short.
    Cell("llama-3.1-8b", "H100", 2, None, 3.90, 0.0823, base_within=0.4),
    Cell("llama-3.1-8b", "H200", 1, None, 4.75, 0.124),
    Cell("qwen3-32b", "A100-80", 2, None, 23.97, 0.714),
    Cell("qwen3-32b", "H100", 2, None, 13.64, 0.278),
    Cell("qwen3-32b", "H200", 1, None, 19.03, 0.446),
    Cell("llama-3.1-70b", "A100-80", 4, None, 26.59, 0.829),
    Cell("llama-3.1-70b", "H100", 4, None, 14.72, 0.303),
    Cell("llama-3.1-70b", "H200", 2, None, 19.88, 0.494),
    Cell("qwen3-1.7b", "L40S", 1, None, 5.84, 0.264),
    Cell("qwen3-1.7b", "A100-80", 1, None, 3.68, 0.153),
    Cell("qwen3-1.7b", "H100", 1, None, 2.16, 0.0674),
    # Measured, vLLM, 1,024 tokens in, 1,024 out (aiconfigurator's silicon sample).
    Cell("qwen3-32b", "H100", 2, None, 14.4, 0.183, output_tokens=1024),
    Cell("llama-3.1-70b", "H100", 2, "fp8", 16.8, 0.191, output_tokens=1024),
    # The worst cell: more devices help less than the roofline says.
    Cell("llama-3.1-70b", "H100", 4, "fp8", 11.3, 0.134, output_tokens=1024, slope_within=0.42),
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c.model} {c.count}x{c.accelerator} {c.quantization or 'bf16'}")
def test_the_prior_is_within_a_third_of_published_fits(cell: Cell) -> None:
    profile = profiles.prior(cell.model, cell.accelerator, cell.count, cell.quantization)
    assert profile is not None
    prefill_share = 1024 / profile.prefill_tokens_per_second / cell.output_tokens
    # The prior's context is 1,024 + 128 tokens; half of a longer output lengthens it.
    context = (1024 + cell.output_tokens / 2) / (1024 + 128)
    slope = profile.itl_per_sequence_seconds * context + prefill_share
    assert profile.itl_base_seconds * 1e3 == pytest.approx(cell.a, rel=cell.base_within)
    assert slope * 1e3 == pytest.approx(cell.b, rel=cell.slope_within)


@pytest.mark.parametrize(
    ("model", "accelerator", "count", "tokens_per_second"),
    [
        # 3,072 more tokens in take (ttft(4,096) - ttft(1,024)) longer: 115.7 - 47.7 = 68.0 ms, and so on.
        pytest.param("llama-3.1-8b", "H100", 1, 3072 / 0.0680, id="8B H100"),
        pytest.param("llama-3.1-8b", "A100-80", 1, 3072 / 0.1940, id="8B A100"),
        pytest.param("llama-3.1-8b", "L40S", 1, 3072 / 0.2410, id="8B L40S"),
        pytest.param("qwen3-32b", "H100", 2, 3072 / 0.1686, id="32B 2xH100"),
        pytest.param("llama-3.1-70b", "H100", 4, 3072 / 0.1967, id="70B 4xH100"),
    ],
)
def test_prefill_is_within_a_third_of_published_runs(
    model: str, accelerator: str, count: int, tokens_per_second: float
) -> None:
    profile = profiles.prior(model, accelerator, count)
    assert profile is not None
    assert profile.prefill_tokens_per_second == pytest.approx(tokens_per_second, rel=0.34)


def test_the_kv_cache_is_what_the_weights_leave() -> None:
    # 80 GiB · 0.9 - 1.5 GiB = 70.5 GiB = 75.70e9 bytes; less 16.0e9 of weights: 59.70e9 / 131,072 bytes a token.
    profile = profiles.prior("llama-3.1-8b", "H100")
    assert profile is not None
    assert profile.kv_tokens == pytest.approx(59.70e9 / 131_072, rel=1e-3)


def test_start_up_is_a_minute_and_the_weights_at_one_gigabyte_per_second() -> None:
    profile = profiles.prior("llama-3.1-70b", "H100", 2, "fp8")
    assert profile is not None
    assert profile.startup_seconds == pytest.approx(60 + 70)


@pytest.mark.parametrize(
    ("model", "accelerator", "count", "quantization", "sequences", "milliseconds"),
    [
        # Measured, vLLM, 1,024 tokens in and out (aiconfigurator's silicon sample).
        pytest.param("openai/gpt-oss-120b", "H200", 1, None, 32, 17.6, id="gpt-oss H200"),
        pytest.param("openai/gpt-oss-120b", "H200", 2, None, 64, 14.4, id="gpt-oss 2xH200"),
        pytest.param("MiniMaxAI/MiniMax-M2.5", "H200", 4, None, 32, 20.4, id="MiniMax 4xH200"),
        pytest.param("MiniMaxAI/MiniMax-M2.5", "B200", 4, "nvfp4", 64, 12.1, id="MiniMax 4xB200"),
        pytest.param("moonshotai/Kimi-K2.5", "H200", 8, "int4", 32, 22.6, id="Kimi 8xH200"),
    ],
)
def test_a_mixture_of_experts_is_near_measured_steps(
    model: str, accelerator: str, count: int, quantization: str | None, sequences: int, milliseconds: float
) -> None:
    profile = profiles.prior(model, accelerator, count, quantization)
    assert profile is not None
    step = profile.itl_base_seconds + sequences * profile.itl_per_sequence_seconds
    step += sequences / profile.prefill_tokens_per_second  # one prompt token for each that comes out
    assert step * 1e3 == pytest.approx(milliseconds, rel=0.4)


def test_keys_and_values_that_devices_hold_copies_of_do_not_grow_with_them() -> None:
    # One latent vector of 576 · 2 bytes in each of 61 layers, on every device:
    # 141 GiB · 0.9 - 1.5 GiB = 125.4 GiB = 134.6e9 bytes, less 671e9 / 8 = 83.9e9 of weights: 50.8e9 / 70,272.
    eight = profiles.prior("deepseek-r1", "H200", 8)
    assert eight is not None
    assert eight.kv_tokens == pytest.approx(50.8e9 / 70_272, rel=2e-3)


def test_a_quantisation_in_the_name_counts_unless_another_is_given() -> None:
    named = profiles.prior("llama-3.1-8b-fp8", "L4")
    assert named == profiles.prior("llama-3.1-8b", "L4", 1, "fp8")
    assert named != profiles.prior("llama-3.1-8b-fp8", "L4", 1, "awq")


@pytest.mark.parametrize(
    ("model", "accelerator", "count", "reason"),
    [
        pytest.param("llama-3.1-8b", "X1", 1, "'X1' is not in the catalogue", id="unknown accelerator"),
        pytest.param("our-model", "L4", 1, "can't be read from its name", id="unknown size"),
        # 70e9 · 2 bytes = 130 GiB
        pytest.param("llama-3.1-70b", "H100", 1, "130 GiB of weights do not fit in 1 × H100", id="does not fit"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(model: str, accelerator: str, count: int, reason: str) -> None:
    assert profiles.prior(model, accelerator, count) is None
    judged = profiles.explain(model, accelerator, count)
    assert isinstance(judged, profiles.NoPrior)
    assert reason in judged.reason
    assert ": " in judged.reason, "problem and fix"


@given(
    st.sampled_from(sorted(accelerators.ACCELERATORS)),
    st.integers(1, 16),
    st.floats(0.1, 110),
    st.sampled_from([None, "fp8", "awq", "unheard-of"]),
)
def test_every_prior_is_positive_and_more_devices_carry_more(
    accelerator: str, count: int, billions: float, quantization: str | None
) -> None:
    model = f"model-{billions:.1f}b"
    profile = profiles.prior(model, accelerator, count, quantization)
    doubled = profiles.prior(model, accelerator, 2 * count, quantization)
    if profile is None or doubled is None:
        return
    assert profile.itl_base_seconds > 0
    assert profile.kv_tokens > 0
    assert doubled.prefill_tokens_per_second > profile.prefill_tokens_per_second
    assert profile.itl_per_sequence_seconds > 0
    assert doubled.kv_tokens > profile.kv_tokens


def variant(**fields: object) -> v1alpha1.Variant:
    return v1alpha1.Variant.model_validate({"name": "a", "accelerator": {"type": "H100"}, **fields})


def test_what_is_written_wins_over_what_is_learned_and_that_over_the_prior() -> None:
    written = variant(profile={"itlBase": "7ms", "startup": "2m"})
    learned = v1alpha1.Profile.model_validate({"itlBase": "9ms", "startup": "95s", "kvTokens": 1000})
    prior = profiles.prior("llama-3.1-8b", "H100")
    assert prior is not None
    assert profiles.resolve("llama-3.1-8b", written, learned) == CapacityProfile(
        itl_base_seconds=0.007,
        itl_per_sequence_seconds=prior.itl_per_sequence_seconds,
        prefill_tokens_per_second=prior.prefill_tokens_per_second,
        kv_tokens=1000,
        max_sequences=256,
        startup_seconds=120.0,
    )


def test_a_profile_written_in_full_needs_no_catalogue() -> None:
    full = variant(
        accelerator={"type": "X1"},
        profile={
            "itlBase": "10ms",
            "itlPerSequence": "0.1ms",
            "prefillTokensPerSecond": 9000,
            "kvTokens": 50000,
            "startup": "1m",
        },
    )
    profile = profiles.resolve("our-model", full)
    assert profile == CapacityProfile(10 / 1e3, 0.1 / 1e3, 9000.0, 50000, 256, 60.0)


def test_a_number_that_nobody_knows_makes_the_whole_profile_unknown() -> None:
    partly = variant(accelerator={"type": "X1"}, profile={"itlBase": "10ms"})
    assert profiles.resolve("our-model", partly) is None
