"""What status remembers comes back as it was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import counters, learning, recall, units, waves
from trimtab_core.api import v1alpha1
from trimtab_core.signals import Fresh, Missing
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


def test_losses_that_went_together_survive_status_and_the_event_itself_does_not() -> None:
    struck = waves.Waves(0.2964, 0.754, at=5.0, began=4.0, served=4, lost=3, counted=1.0)
    fields = recall.memory_fields(VariantMemory(waves=struck))
    assert fields == {"wavesPerHour": "0.3", "waveShare": "0.75"}
    tier = v1alpha1.InferenceTier.model_validate(
        {
            "metadata": {"name": "t"},
            "spec": {"model": {"name": "m", "quality": "0.5"}},
            "status": {"variants": [{"name": "l4", **fields}]},
        }
    )
    assert recall.memory(tier, "l4").waves == waves.Waves(0.3, 0.75)


# What was spent -------------------------------------------------------------------------------------------------

NOVEMBER = recall.epoch_seconds("2026-11-01T00:00:00Z") or 0.0
HOUR = 3600.0


def spending(usd: str, as_of: float, per_hour: str = "6") -> v1alpha1.RoutingPolicy:
    status = {"usdPerHour": per_hour, "spend": {"usd": usd, "asOf": recall.rfc3339(as_of)}}
    return v1alpha1.RoutingPolicy.model_validate(
        {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"tiers": [{"ref": "a"}]}, "status": status}
    )


@pytest.mark.parametrize(
    ("as_of", "now", "usd"),
    [
        pytest.param(10 * HOUR, 10 * HOUR, 100.0, id="as it was counted"),
        pytest.param(10 * HOUR, 10.5 * HOUR, 103.0, id="half an hour at 6 USD more"),
        pytest.param(10 * HOUR, 20 * HOUR, 160.0, id="ten hours without an operator"),
        pytest.param(-HOUR, 2 * HOUR, 12.0, id="a new month begins at zero"),
        pytest.param(10 * HOUR, 9 * HOUR, 100.0, id="a clock that went back"),
    ],
)
def test_spending_goes_on_at_the_last_known_rate(as_of: float, now: float, usd: float) -> None:
    found = recall.spent(spending("100", NOVEMBER + as_of), NOVEMBER + now)
    assert isinstance(found, Fresh)
    assert found.value == pytest.approx(usd)


def test_spending_survives_status_and_begins_at_zero() -> None:
    fields = recall.spend_fields(Fresh(1234.5, 0.0), NOVEMBER + HOUR)
    assert fields == {"usd": "1234.5", "asOf": "2026-11-01T01:00:00Z"}
    assert recall.spend_fields(Missing("never"), NOVEMBER)["usd"] == "0"


def test_spending_that_was_never_counted_is_missing() -> None:
    policy = v1alpha1.RoutingPolicy.model_validate({"metadata": {"name": "p"}, "spec": {"tiers": [{"ref": "a"}]}})
    assert isinstance(recall.spent(policy, NOVEMBER), Missing)


# What was learned -----------------------------------------------------------------------------------------------

PRIOR = learning.Law(0.020, 0.0008, 8000.0)
positive = st.floats(0.3, 3.0)


def with_status(fields: Mapping[str, object]) -> v1alpha1.InferenceTier:
    return v1alpha1.InferenceTier.model_validate(
        {
            "metadata": {"name": "t", "namespace": "ns"},
            "spec": {"model": {"name": "m", "quality": "0.5"}},
            "status": {"variants": [{"name": "a", **fields}]},
        }
    )


@given(positive, positive, positive, st.integers(0, 500), st.floats(0, 200), st.none() | st.integers(1, 10**6))
def test_what_was_learned_survives_status_to_four_digits(
    a: float, b: float, p: float, samples: int, sequences: float, kv_tokens: int | None
) -> None:
    law = learning.Law(0.020 * a, 0.0008 * b, 8000.0 * p)
    known = learning.resume(PRIOR, law, error=0.04, sequences=sequences, samples=samples)
    written = recall.learned_fields(dataclasses.replace(known, kv_tokens=kv_tokens))
    back = recall.learned(with_status(written), "a", PRIOR)
    assert back.law is not None
    assert back.law.itl_base_seconds == pytest.approx(law.itl_base_seconds, rel=1e-3)
    assert back.law.itl_per_sequence_seconds == pytest.approx(law.itl_per_sequence_seconds, rel=1e-3)
    assert back.law.prefill_tokens_per_second == pytest.approx(law.prefill_tokens_per_second, rel=1e-3)
    assert back.kv_tokens == kv_tokens
    assert back.samples == min(samples, learning.LEAST_SAMPLES)
    assert back.sequences == pytest.approx(sequences, abs=0.5)


def test_nothing_learned_leaves_nothing_in_status() -> None:
    assert recall.learned_fields(None) == {}
    assert recall.learned_fields(learning.begin(PRIOR)) == {"profile": None, "learning": None}
    assert recall.learned(with_status({}), "a", PRIOR) == learning.begin(PRIOR)


def test_a_cache_size_is_told_before_any_law_is() -> None:
    known = learning.observe(learning.begin(PRIOR), {"r": counters.Reading(1.0, 0.0, 0.0, 0.0, 5000.0)})
    written = recall.learned_fields(known)
    assert written["profile"] == {"kvTokens": 5000}
    assert recall.learned(with_status(written), "a", PRIOR).kv_tokens == 5000


def test_a_learned_profile_may_be_committed_as_it_is() -> None:
    law = learning.Law(0.0123456, 0.0000079123, 12_345.6)
    written = recall.learned_profile(learning.resume(PRIOR, law, error=0.04, sequences=9, samples=30))
    assert written is not None
    assert written.to_dict() == {"itlBase": "12.35ms", "itlPerSequence": "0.007912ms", "prefillTokensPerSecond": 12_350}
    assert units.duration_seconds("0.007912ms") == pytest.approx(7.912e-6)
