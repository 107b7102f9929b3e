"""A model's sizes are read from its name, and what is not a size is not taken for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.catalog import models

SIZES = {
    "llama-3.1-8b-instruct": (8.0, 8.0),
    "meta-llama/Meta-Llama-3.1-70B": (70.0, 70.0),
    "qwen3-1.7b": (1.7, 1.7),
    "Qwen2.5-0.5B-Instruct-AWQ": (0.5, 0.5),
    "llama-3.1-405b-instruct": (405.0, 405.0),
    "deepseek-r1-distill-llama-70b": (70.0, 70.0),
    "mixtral-8x7b-instruct": (46.7, 12.9),
    "qwen3-30b-a3b": (30.5, 3.3),
    "Qwen3-Next-80B-A3B-Instruct": (80.0, 3.0),
    "Qwen/Qwen3.5-397B-A17B": (397.0, 17.0),
    "openai/gpt-oss-120b": (116.8, 5.1),
    "deepseek-ai/DeepSeek-R1-0528": (671.0, 37.0),
    "dbrx-16x12b": None,
    "gpt-4o": None,
    "bert-base": None,
    "a-0b-model": None,
    "a-5b-a9b-model": None,
    "bloom-1000b": None,
}


@pytest.mark.parametrize(("name", "sizes"), SIZES.items(), ids=SIZES.keys())
def test_sizes_are_read_from_the_name(name: str, sizes: tuple[float, float] | None) -> None:
    found = models.find(name)
    assert (found and (found.billions, found.active_billions)) == sizes


def test_weights_that_are_published_in_few_bits_are_known() -> None:
    published = {name: found.quantization for name in SIZES if (found := models.find(name)) is not None}
    assert published["openai/gpt-oss-120b"] == "mxfp4"
    assert published["deepseek-ai/DeepSeek-R1-0528"] == "fp8"
    assert not published["llama-3.1-8b-instruct"]


@given(st.text(max_size=60))
def test_any_name_has_sensible_sizes_or_none(name: str) -> None:
    found = models.find(name)
    if found is not None:
        assert 0 < found.active_billions <= found.billions
        assert math.isfinite(found.billions)
        assert found.kv_bytes > 0


@given(st.floats(0.1, 499.0), st.floats(0.1, 499.0))
def test_larger_models_never_have_smaller_contexts(one: float, other: float) -> None:
    small, large = (models.find(f"m-{size:.1f}b") for size in sorted((one, other)))
    assert small is not None
    assert large is not None
    assert small.kv_bytes <= large.kv_bytes
