"""How often replicas go without being told to."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core import losses
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.snapshot import Replica, ReplicaPhase, VariantMemory, VariantState

from tests.core.planning import fleets

HOUR = 3600.0


def replicas(*names: str, phase: ReplicaPhase = ReplicaPhase.READY) -> tuple[Replica, ...]:
    return tuple(Replica(name, phase, fleets.NOW - HOUR) for name in names)


def spot(*running: Replica, desired: int, rate: float | None = None) -> VariantState:
    made = fleets.variant("spot", desired=desired, capacity_type="Spot", memory=VariantMemory(losses_per_hour=rate))
    return dataclasses.replace(made, replicas=tuple(running))


@pytest.mark.parametrize(
    ("now", "desired", "lost"),
    [
        pytest.param(replicas("a", "b", "c"), 3, 0, id="all still serve"),
        pytest.param(replicas("a", "c"), 3, 1, id="one is gone, and three are still asked for"),
        pytest.param(replicas("a", "d"), 3, 2, id="a new one replaces none of the lost"),
        pytest.param(replicas("a", "b"), 2, 0, id="one was told to go"),
        pytest.param(replicas("a"), 2, 1, id="one was told to go, another went with it"),
        pytest.param((*replicas("a", "b"), *replicas("c", phase=ReplicaPhase.FAILED)), 3, 1, id="one crashed"),
        pytest.param((*replicas("a", "b"), *replicas("c", phase=ReplicaPhase.DRAINING)), 3, 1, id="one has its notice"),
    ],
)
def test_what_goes_untold_is_lost(now: tuple[Replica, ...], desired: int, lost: int) -> None:
    before = spot(*replicas("a", "b", "c"), desired=3)
    assert losses.count(before, now, desired, HOUR) == (lost, 3.0)


def test_without_a_snapshot_before_nothing_is_lost() -> None:
    assert losses.count(None, (), 3, HOUR) == (0, 0.0)


def test_before_anything_was_measured_the_prior_of_the_capacity_type_holds() -> None:
    assert losses.rate_per_hour(spot(desired=0)) == losses.PRIOR_PER_HOUR[CapacityType.SPOT]


def test_the_rate_settles_where_losses_are() -> None:
    """One replica in ten each hour: 0.1 per replica-hour."""
    rate = None
    for _ in range(60):
        seen = dataclasses.replace(spot(desired=10, rate=rate), lost=1, watched_hours=10.0)
        rate = losses.rate_per_hour(seen)
    assert rate == pytest.approx(0.1, rel=0.25)


def test_a_quiet_day_of_a_replica_halves_the_rate_and_more() -> None:
    quiet = dataclasses.replace(spot(desired=1, rate=1.0), watched_hours=24.0)
    assert losses.rate_per_hour(quiet) == pytest.approx(0.368, abs=0.001)  # e^-1


def test_a_replica_that_is_lost_every_hour_and_starts_for_six_minutes_serves_ten_of_eleven() -> None:
    assert losses.availability(spot(desired=1, rate=1.0), 360.0) == pytest.approx(10 / 11)
