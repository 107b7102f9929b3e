"""Faults happen to whom they name, when they say, and to nobody else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trimtab_core.api.v1alpha1 import CapacityType
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase
from trimtab_sim import engine, faults, fleet, replicas, trouble

OWNED, SPOT = VariantKey("default/small", "l4"), VariantKey("default/small", "l4-spot")
BOUGHT = {OWNED: CapacityType.ON_DEMAND, SPOT: CapacityType.SPOT}
PROFILE = CapacityProfile(0.02, 0.001, 10_000, 100_000, 64, 30.0)
KIND = fleet.Kind(PROFILE, usd_per_hour=2.0, accelerators=1, fitting=10.0, drain_seconds=60.0)


class Cluster:
    """Replicas of an owned and of a spot variant, and what happens to them."""

    def __init__(self, *, seed: int = 0, **kinds: list[dict[str, Any]]) -> None:
        troubles = faults.of(kinds, "here")
        self.clock = engine.Engine()
        self.told: list[str] = []
        variants = trouble.Variants(BOUGHT)
        self.births = trouble.Births(troubles, self.clock, variants, dict.fromkeys(BOUGHT, 30.0))
        self.fleet = fleet.Fleet(self.clock, dict.fromkeys(BOUGHT, KIND), self.changed, start=self.births.start)
        self.strikes = trouble.Strikes(troubles, self.clock, variants, self.fleet, self.births, seed=seed)
        self.strikes.begin()
        levers = trouble.Levers(
            lambda key, usd: self.told.append(f"{self.clock.now:.0f} {key.variant} costs {usd:g}"),
            lambda: self.told.append(f"{self.clock.now:.0f} cache empty"),
            lambda gap: self.told.append(f"{self.clock.now:.0f} hand-over, {gap:g} s"),
        )
        trouble.schedule(troubles, self.clock, variants, kinds=self.fleet.kinds, levers=levers)
        self.lost = 0

    def changed(self, key: VariantKey, replica: replicas.Replica) -> None:
        if replica.phase is ReplicaPhase.READY:
            self.strikes.ready(key, replica)
        self.lost += replica.phase is None

    def count(self, key: VariantKey, phase: ReplicaPhase) -> int:
        return sum(one.phase is phase for one in self.fleet.of(key))


def test_a_wave_takes_a_share_of_the_spot_replicas_and_no_other() -> None:
    cluster = Cluster(preemptions=[{"at": "100s", "share": 0.5, "notice": "20s"}])
    cluster.fleet.start(OWNED, 4)
    cluster.fleet.start(SPOT, 4)

    cluster.clock.run(until=101)

    assert cluster.count(SPOT, ReplicaPhase.DRAINING) == 2
    assert cluster.count(SPOT, ReplicaPhase.PENDING) == 2  # their Deployment makes new ones at once
    assert cluster.count(OWNED, ReplicaPhase.READY) == 4
    cluster.clock.run(until=131)
    assert cluster.count(SPOT, ReplicaPhase.READY) == 4


def test_a_named_variant_is_hit_whatever_it_is_and_a_count_is_a_count() -> None:
    cluster = Cluster(preemptions=[{"at": "100s", "count": 3, "variant": "default/small/l4"}])
    cluster.fleet.start(OWNED, 4)

    cluster.clock.run(until=101)

    assert cluster.count(OWNED, ReplicaPhase.DRAINING) == 3


def test_after_a_wave_no_machine_may_be_found_for_a_while() -> None:
    cluster = Cluster(preemptions=[{"at": "100s", "notice": "0s", "noCapacityFor": "5m"}])
    cluster.fleet.start(SPOT, 1)

    cluster.clock.run(until=429)
    assert [one.stuck for one in cluster.fleet.of(SPOT)] == [False]
    assert cluster.count(SPOT, ReplicaPhase.READY) == 0
    cluster.clock.run(until=431)

    assert cluster.count(SPOT, ReplicaPhase.READY) == 1  # found at 400 s, ready 30 s later


def test_a_rate_hits_each_replica_so_often_an_hour() -> None:
    cluster = Cluster(preemptions=[{"perReplicaHour": 2, "notice": "0s"}])
    cluster.fleet.start(SPOT, 20)
    cluster.fleet.start(OWNED, 5)

    cluster.clock.run(until=10 * 3600)

    # 20 replicas, 10 hours, 2 an hour less a start-up of 30 s after each: 393, with a deviation of 20
    assert cluster.lost == pytest.approx(393, abs=60)
    assert all(one.phase is ReplicaPhase.READY for one in cluster.fleet.of(OWNED))


def test_a_rate_holds_within_its_period() -> None:
    cluster = Cluster(preemptions=[{"perReplicaHour": 60, "notice": "0s", "from": "1h", "until": "2h"}])
    cluster.fleet.start(SPOT, 5)

    cluster.clock.run(until=3600)
    assert cluster.lost == 0
    cluster.clock.run(until=7200)
    during = cluster.lost
    cluster.clock.run(until=4 * 3600)

    assert during > 50
    assert cluster.lost == during


def test_one_fault_more_changes_no_other() -> None:
    def lost_at(**more: list[dict[str, Any]]) -> list[float | None]:
        cluster = Cluster(preemptions=[{"perReplicaHour": 6, "notice": "0s"}], **more)
        cluster.fleet.start(SPOT, 3)
        first = cluster.fleet.of(SPOT)
        cluster.clock.run(until=3600)
        return [one.gone_at for one in first]

    assert lost_at() == lost_at(failures=[{"perReplicaHour": 30, "variant": "small/l4"}])


@pytest.mark.parametrize(
    ("kind", "phase", "names"),
    [("Lost", "Pending", ["small-l4-2"]), ("Restart", "Pending", ["small-l4-1"]), ("Frozen", "Ready", ["small-l4-1"])],
)
def test_replicas_fail_in_three_ways(kind: str, phase: str, names: list[str]) -> None:
    cluster = Cluster(failures=[{"at": "100s", "kind": kind, "variant": "small/l4"}])
    cluster.fleet.start(OWNED, 1)

    cluster.clock.run(until=101)

    assert [one.name for one in cluster.fleet.of(OWNED)] == names
    assert [str(one.phase) for one in cluster.fleet.of(OWNED)] == [phase]


def test_a_frozen_replica_thaws_after_its_time() -> None:
    cluster = Cluster(failures=[{"at": "100s", "kind": "Frozen", "lasts": "1m", "variant": "small/l4"}])
    cluster.fleet.start(OWNED, 1)
    (replica,) = cluster.fleet.of(OWNED)

    found = []
    for until in (99, 101, 159, 161):
        cluster.clock.run(until=until)
        found.append(replica.frozen)

    assert found == [False, True, True, False]


def test_replicas_come_up_as_the_time_of_their_creation_says() -> None:
    cluster = Cluster(
        capacityBlocked=[{"from": "100s", "until": "200s", "variant": "small/l4"}, {"from": "150s", "until": "5m"}],
        neverReady=[{"from": "400s", "until": "500s", "capacityType": "Spot"}],
        slowStart=[{"from": "600s", "factor": 3}],
    )

    def start(at: float, key: VariantKey) -> replicas.Start | None:
        cluster.clock.run(until=at)
        return cluster.births.start(key)

    assert start(99, OWNED) is None
    assert start(120, SPOT) is None
    assert start(120, OWNED) == replicas.Start(180.0, 30.0)  # one period runs into the next
    assert start(160, SPOT) == replicas.Start(140.0, 30.0)
    assert start(400, OWNED) is None
    assert start(400, SPOT) == replicas.Start(0.0, math.inf)
    assert start(600, SPOT) == replicas.Start(0.0, 90.0)


def test_prices_caches_and_leaders_change_at_their_time() -> None:
    cluster = Cluster(
        priceChanges=[
            {"at": "10s", "variant": "small/l4", "factor": 3},
            {"at": "20s", "variant": "small/l4-spot", "usdPerHour": 0.4},
        ],
        coldCache=[{"at": "30s"}],
        leaderHandover=[{"at": "40s", "gap": "25s"}],
    )

    cluster.clock.run(until=60)

    assert cluster.told == ["10 l4 costs 6", "20 l4-spot costs 0.4", "30 cache empty", "40 hand-over, 25 s"]


@pytest.mark.parametrize("kind", ["neverReady", "preemptions", "failures", "capacityBlocked", "slowStart"])
def test_a_variant_that_is_not_there_is_told(kind: str) -> None:
    fault = {"variant": "small/h100"} | ({"at": "1m"} if kind in {"preemptions", "failures"} else {})
    fault |= {"factor": 2} if kind == "slowStart" else {}

    with pytest.raises(faults.FaultError, match=r"'small/h100' is not in the manifests; there are small/l4, small/l4-"):
        Cluster(**{kind: [fault]})
