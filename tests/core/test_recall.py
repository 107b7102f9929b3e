"""What status remembers comes back as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import recall
from trimtab_core.api import v1alpha1
from trimtab_core.snapshot import VariantMemory


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1_800_000_000.0, "2027-01-15T08:00:00Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250Z"),
    ],
)
def test_moments_are_written_as_kubernetes_does(seconds: float, text: str) -> None:
    assert recall.rfc3339(seconds) == text
    assert recall.epoch_seconds(text) == seconds


@pytest.mark.parametrize("text", [None, "", "yesterday", "2027-13-45"])
def test_what_is_no_moment_is_none(text: str | None) -> None:
    assert recall.epoch_seconds(text) is None


@given(st.floats(min_value=0, max_value=4e9))
def test_a_moment_survives_to_the_millisecond(seconds: float) -> None:
    back = recall.epoch_seconds(recall.rfc3339(seconds))
    assert back is not None
    assert abs(back - seconds) <= 0.000_51


shares = st.dictionaries(st.sampled_from(["ns/a", "ns/b", "ns/c", "ns/d"]), st.floats(0.0001, 1.0), min_size=1)


@given(shares)
def test_weights_survive_status_and_sum_to_one(raw: dict[str, float]) -> None:
    whole = sum(raw.values())
    wanted = {tier: share / whole for tier, share in raw.items()}
    written = recall.weight_fields(wanted)
    assert sum(round(float(text) * 10**6) for text in written.values()) == 10**6
    tiers = [{"ref": tier.partition("/")[2]} for tier in wanted]
    policy = v1alpha1.RoutingPolicy.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"tiers": tiers},
            "status": {"classes": [{"name": "default", "weights": written}]},
        }
    )
    back = recall.weights(policy)["default"]
    assert sum(back.values()) == pytest.approx(1.0)
    assert all(abs(back.get(tier, 0.0) - share) < 5e-6 for tier, share in wanted.items())


def test_weights_of_tiers_and_classes_that_left_the_spec_are_forgotten() -> None:
    policy = v1alpha1.RoutingPolicy.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"tiers": [{"ref": "a"}, {"ref": "b"}], "classes": [{"name": "x", "allow": ["a"]}, {"name": "y"}]},
            "status": {
                "classes": [
                    {"name": "x", "weights": {"a": "0.25", "b": "0.75"}},
                    {"name": "y", "weights": {"gone": "1"}},
                    {"name": "old", "weights": {"a": "1"}},
                ]
            },
        }
    )
    assert recall.weights(policy) == {"x": {"ns/a": 1.0}}


def test_memory_survives_status() -> None:
    memory = VariantMemory(fewer_since=10.5, last_scaled_at=20.0, blocked_until=None, override_until=30.0)
    status = {"variants": [{"name": "l4", **recall.memory_fields(memory)}]}
    tier = v1alpha1.InferenceTier.model_validate(
        {"metadata": {"name": "t"}, "spec": {"model": {"name": "m", "quality": "0.5"}}, "status": status}
    )
    assert recall.memory(tier, "l4") == memory
    assert recall.memory(tier, "other") == VariantMemory()
