"""Expected quality by complexity: calibrated to the prior, never a wider gap on easier prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import quality

priors = st.floats(0.0, 1.0)


@given(priors, st.floats(0.0, 1.0))
def test_the_mean_over_all_prompts_is_the_prior(prior: float, m: float) -> None:
    assert quality.expected(prior, 0.0, 1.0, m) == pytest.approx(prior)


@given(st.lists(priors, min_size=1, max_size=5), st.floats(0.0, 1.0))
def test_every_quality_is_a_probability(found: list[float], at: float) -> None:
    m = quality.discrimination(found)
    assert all(-1e-9 <= quality.expected(prior, at, at, m) <= 1 + 1e-9 for prior in found)


def test_all_tiers_are_equal_on_the_easiest_prompt_and_furthest_apart_on_the_hardest() -> None:
    m = quality.discrimination([0.6, 0.9], 1.0)
    assert m == 1.0
    assert quality.expected(0.6, 0.0, 0.0, m) == quality.expected(0.9, 0.0, 0.0, m) == 1.0
    # Failures double at the hardest: 1 - 2·0.4 and 1 - 2·0.1.
    assert quality.expected(0.6, 1.0, 1.0, m) == pytest.approx(0.2)
    assert quality.expected(0.9, 1.0, 1.0, m) == pytest.approx(0.8)


def test_a_measured_value_replaces_the_built_in_one() -> None:
    assert quality.discrimination([0.6, 0.9]) == quality.DISCRIMINATION
    assert quality.discrimination([0.6, 0.9], 0.2) == 0.2
    assert quality.discrimination([0.6, 0.9], 1.7) == 1.0  # failures never fall below none


def test_a_weak_tier_lowers_what_the_score_can_tell() -> None:
    # q / (1 - q) = 0.25 / 0.75
    assert quality.discrimination([0.25, 0.9]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("strong_share", "recovered"),
    [
        pytest.param(0.293, 0.5, id="half of the gap takes 29 % of the calls"),
        pytest.param(0.553, 0.8, id="four fifths take 55 %"),
        pytest.param(1.0, 1.0, id="all of it takes all"),
    ],
)
def test_strong_calls_recover_the_gap_as_measured_routers_do(strong_share: float, recovered: float) -> None:
    got = quality.of_split([(0.6, 1 - strong_share), (0.9, strong_share)], 0.0, 1.0, 1.0)
    assert (got - 0.6) / 0.3 == pytest.approx(recovered, abs=0.002)


@given(priors, priors, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_rank_order_is_at_least_as_good_as_any_mixture(weak: float, strong: float, share: float, m: float) -> None:
    by_rank = quality.of_split([(weak, 1 - share), (strong, share)], 0.0, 1.0, m)
    assert by_rank >= (1 - share) * weak + share * strong - 1e-9


def test_segments_cut_a_range_into_equal_parts() -> None:
    assert quality.segments(0.2, 1.0, 4) == tuple(
        (pytest.approx(low), pytest.approx(low + 0.2)) for low in (0.2, 0.4, 0.6, 0.8)
    )
