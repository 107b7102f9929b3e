"""The share of the admissible load that is planned with follows promises kept and missed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import signals
from trimtab_core.planning import cost, headroom
from trimtab_core.planning.headroom import Headroom
from trimtab_core.snapshot import Snapshot

from . import fleets

INTERVAL = 15.0
TIER = "default/small"
ALLOWED = 0.05
"""Of the requests may miss: the SLO's attainment is 0.95 unless said."""


def world(
    load: float, missed: float | signals.Signal, *, now: float = fleets.NOW, ready: int = 4, utilisation: float = 0.85
) -> Snapshot:
    """Four replicas at that share of what they carry; ``missed`` is a share of the requests."""
    rate = load * ready * fleets.carries(ready)
    tier = dataclasses.replace(
        fleets.tier("small", "0.7", fleets.variant(ready=ready)),
        judged_per_second=signals.Fresh(rate, 5.0),
        missed_per_second=signals.Fresh(rate * missed, 5.0) if isinstance(missed, float) else missed,
        utilisation=utilisation,
    )
    policy = fleets.policy(
        "web", ("small",), {"all": fleets.traffic(rate)}, weights={"all": {"small": 1.0}},
        spec={"slo": {"ttft": {"p95": "2s"}, "attainment": "0.95"}},
    )  # fmt: skip
    return fleets.snapshot((tier,), (policy,), now=now)


def learn(seen: Snapshot, before: dict[str, Headroom]) -> dict[str, Headroom]:
    return headroom.learn(seen, cost.tier_demands(seen), before)


def after(minutes: float, load: float, missed: float, *, start: Headroom | None = None) -> Headroom:
    """What is known after so long a time at that load with those misses."""
    known, cycles = {} if start is None else {TIER: start}, round(minutes * 60 / INTERVAL)
    begin = fleets.NOW if start is None else start.at
    for cycle in range(cycles + 1):
        known = learn(world(load, missed, now=begin + cycle * INTERVAL), known)
    return known[TIER]


def test_it_starts_with_what_status_says() -> None:
    assert learn(world(0.8, 0.0, utilisation=0.97), {})[TIER].utilisation == 0.97


def test_misses_as_the_model_expects_lead_to_the_models_own_limit() -> None:
    expected = ALLOWED * 0.9**headroom.POWER
    assert after(60, 0.9, expected).utilisation == pytest.approx(1.0, abs=0.02)


def test_fewer_misses_than_expected_let_more_be_planned_but_not_far_beyond_what_was_carried() -> None:
    assert after(60, 0.8, 0.001).utilisation == pytest.approx(1.25 * 0.8, abs=0.01)
    assert after(60, 0.6, 0.0).utilisation == 0.85  # 1.25 × 0.6 is less than where it began


def test_more_misses_than_allowed_lower_it_in_minutes() -> None:
    assert after(5, 0.8, 3 * ALLOWED).utilisation < 0.75


def test_nothing_is_learned_while_more_is_carried_than_was_planned_or_a_replica_starts() -> None:
    settled = after(30, 0.9, 0.01)
    assert after(10, 1.12 * settled.utilisation, 0.5, start=settled).utilisation == settled.utilisation
    now = settled.at + INTERVAL
    tier = world(0.8, 0.5, now=now).tiers[TIER]
    pending = fleets.variant("more", pending=1)
    just_made = tuple(dataclasses.replace(one, created_at=now - 30) for one in pending.replicas)
    pending = dataclasses.replace(pending, replicas=just_made)
    starting = dataclasses.replace(tier, variants=(*tier.variants, pending))
    known = learn(dataclasses.replace(world(0.8, 0.5), now=now, tiers={TIER: starting}), {TIER: settled})
    assert known[TIER].utilisation == settled.utilisation


def test_what_is_missed_for_want_of_replicas_says_nothing() -> None:
    settled = after(30, 0.9, 0.01)
    burst = after(3, 2.5, 0.9, start=settled)
    emptying = after(1.75, 0.6, 0.9, start=burst)  # within the time that queues take to empty
    assert emptying.utilisation == settled.utilisation
    assert after(5, 0.6, 0.9, start=burst).utilisation < settled.utilisation


@pytest.mark.parametrize("missed", [signals.Stale(9.0, 60.0), signals.Missing("no series")], ids=["stale", "missing"])
def test_signals_that_are_not_fresh_change_nothing(missed: signals.Signal) -> None:
    before = after(30, 0.9, 0.01)
    known = learn(world(0.9, missed, now=before.at + INTERVAL), {TIER: before})
    assert dataclasses.replace(known[TIER], at=before.at) == before


def test_an_old_burst_is_forgotten() -> None:
    shaken = after(10, 0.85, 0.3)
    assert shaken.utilisation < 0.8
    assert after(180, 0.65, 0.0, start=shaken).utilisation == 0.85


@given(
    st.lists(
        st.tuples(st.floats(0, 4), st.floats(0, 1), st.floats(-30, 900)), min_size=1, max_size=30
    )
)  # fmt: skip
def test_whatever_is_measured_the_share_stays_in_bounds(story: list[tuple[float, float, float]]) -> None:
    known: dict[str, Headroom] = {}
    now = fleets.NOW
    for load, missed, elapsed in story:
        now += elapsed
        known = learn(world(load, missed, now=now), known)
        assert headroom.LEAST <= known[TIER].utilisation <= headroom.MOST


def slower(snapshot: Snapshot, factor: float) -> Snapshot:
    """The same with replicas of which is known that everything takes so many times as long."""
    tier = snapshot.tiers[TIER]
    variants = []
    for variant in tier.variants:
        assert variant.profile is not None
        profile = dataclasses.replace(
            variant.profile,
            itl_base_seconds=variant.profile.itl_base_seconds * factor,
            itl_per_sequence_seconds=variant.profile.itl_per_sequence_seconds * factor,
            prefill_tokens_per_second=variant.profile.prefill_tokens_per_second / factor,
        )
        variants.append(dataclasses.replace(variant, profile=profile))
    return dataclasses.replace(snapshot, tiers={TIER: dataclasses.replace(tier, variants=tuple(variants))})


def test_misses_under_a_profile_that_turned_out_wrong_are_forgotten() -> None:
    blamed = after(10, 0.8, 4 * ALLOWED)
    assert blamed.utilisation < 0.75
    now = blamed.at + INTERVAL
    nearly = learn(slower(world(0.8, 0.1, now=now), 1.03), {TIER: blamed})[TIER]
    assert nearly.missed > blamed.missed * 0.9, "a little slower is the same profile"
    anew = learn(slower(world(0.8, 0.1, now=now), 1.3), {TIER: blamed})[TIER]
    assert (anew.utilisation, anew.missed) == (0.85, 0.0)


def test_what_a_profile_that_creeps_away_taught_is_forgotten_as_well() -> None:
    known, begin = {TIER: after(10, 0.8, 4 * ALLOWED)}, fleets.NOW + 600
    for cycle, factor in enumerate((1.02, 1.04, 1.06)):
        known = learn(slower(world(0.8, 0.1, now=begin + (cycle + 1) * INTERVAL), factor), known)
    assert known[TIER].missed == 0.0
