"""Replicas come and go as told, the least missed go first, and every second is paid for."""

from __future__ import annotations

import math

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase
from trimtab_sim import engine, fleet, replicas
from trimtab_sim.workload import Request

KEY = VariantKey("default/small", "l4")
PROFILE = CapacityProfile(0.02, 0.001, 10_000, 100_000, 64, 30.0)
KIND = fleet.Kind(PROFILE, usd_per_hour=3.6, accelerators=2, fitting=10.0, drain_seconds=60.0)


class Cluster:
    """A fleet of one variant whose clock can be run."""

    def __init__(self, now: float = 0.0, *, start: replicas.Start | None = None) -> None:
        self.clock = engine.Engine(now)
        self.seen: list[tuple[float, str, str]] = []
        self.fleet = fleet.Fleet(self.clock, {KEY: KIND}, self.note, start=lambda _: start)

    def note(self, key: VariantKey, replica: replicas.Replica) -> None:
        self.seen.append((self.clock.now, replica.name, str(replica.phase or "Gone")))

    def phases(self) -> list[str]:
        return sorted(str(one.phase) for one in self.fleet.of(KEY))

    def load(self, name: str, count: int, *, tokens: int = 5000) -> None:
        replica = self.fleet.find(name)
        assert replica is not None
        for number in range(count):
            replica.submit(replicas.Job(Request(number, 0.0, 10, tokens), lambda _: None))


def test_replicas_start_and_are_told_of() -> None:
    cluster = Cluster()
    cluster.fleet.scale(KEY, 2)
    assert cluster.phases() == ["Pending", "Pending"]

    cluster.clock.run(until=31)

    assert cluster.phases() == ["Ready", "Ready"]
    assert cluster.seen == [(30.0, "small-l4-1", "Ready"), (30.0, "small-l4-2", "Ready")]
    assert cluster.fleet.state().ready == {"small": 2}


def test_fewer_replicas_take_the_pending_first_then_the_emptiest() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 3)
    cluster.load("small-l4-1", 2)
    cluster.load("small-l4-2", 1)
    cluster.load("small-l4-3", 3)
    cluster.fleet.scale(KEY, 4)
    cluster.clock.run(until=10)

    cluster.fleet.scale(KEY, 3)
    assert cluster.seen[-1] == (10.0, "small-l4-4", "Gone")
    cluster.fleet.scale(KEY, 2)

    assert cluster.seen[-1] == (10.0, "small-l4-2", "Draining")
    assert cluster.phases() == ["Draining", "Ready", "Ready"]


def test_draining_replicas_are_not_brought_back() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 2)
    cluster.load("small-l4-1", 1)
    cluster.load("small-l4-2", 1)
    cluster.fleet.scale(KEY, 1)

    cluster.fleet.scale(KEY, 2)

    assert cluster.phases() == ["Draining", "Pending", "Ready"]
    assert cluster.fleet.desired[KEY] == 2


def test_pending_ready_and_draining_seconds_are_paid() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 1)
    cluster.clock.run(until=100)
    cluster.fleet.scale(KEY, 2)  # pending from 100 to 130
    cluster.clock.run(until=400)
    cluster.load("small-l4-1", 1, tokens=1000)  # 21 s of tokens
    cluster.load("small-l4-2", 1, tokens=2000)  # 42 s
    cluster.fleet.scale(KEY, 1)  # the emptiest: both have one request, the younger goes and drains for 42 s
    cluster.clock.run(until=1000)

    bill = cluster.fleet.bill()

    # 1000 s of the first and 300 + 42 s of the second, at 3.6 USD an hour = 0.1 cent a second
    assert bill.cost_usd == pytest.approx(0.001 * (1000 + 342), rel=1e-3)
    assert bill.gpu_hours == pytest.approx(2 * 1342 / 3600, rel=1e-3)
    # 21 + 42 sequence-seconds where 10 sequences would have been a full load
    assert bill.busy_gpu_hours == pytest.approx(2 * 63 / 10 / 3600, rel=0.01)
    assert bill.replica_changes == 2


def test_what_happened_before_time_zero_is_free() -> None:
    cluster = Cluster(-500.0)
    cluster.fleet.start(KEY, 1)
    cluster.fleet.scale(KEY, 2)
    cluster.clock.run(until=-100)
    cluster.load("small-l4-1", 1, tokens=10**4)  # 210 s, half of them before 0
    cluster.clock.run(until=0)
    cluster.fleet.begin_billing()
    cluster.clock.run(until=200)

    bill = cluster.fleet.bill()

    assert bill.cost_usd == pytest.approx(0.001 * 400)
    assert bill.busy_gpu_hours == pytest.approx(2 * 110 / 10 / 3600, rel=0.01)
    assert bill.replica_changes == 0


def test_the_price_of_the_moment_counts_everything_that_is_not_gone() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 1)
    cluster.load("small-l4-1", 1)
    cluster.fleet.scale(KEY, 3)
    cluster.fleet.scale(KEY, 0)

    # two pending ones went at once, the ready one drains
    assert cluster.fleet.usd_per_hour() == pytest.approx(3.6)
    assert [one.phase for one in cluster.fleet.of(KEY)] == [ReplicaPhase.DRAINING]
    assert cluster.fleet.find("small-l4-2") is None


def test_a_preempted_replica_leaves_with_the_notice_and_its_deployment_makes_another() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 2)
    (first, _) = cluster.fleet.of(KEY)

    cluster.fleet.preempt(KEY, first, 20.0)

    assert cluster.phases() == ["Draining", "Pending", "Ready"]
    assert first.preempted
    assert cluster.fleet.desired[KEY] == 2
    assert cluster.fleet.changes == 0  # nobody ordered that
    cluster.clock.run(until=19)
    assert cluster.fleet.find(first.name) is first  # idle, but its machine is there, and paid for, until it is taken
    cluster.clock.run(until=31)
    assert cluster.fleet.find(first.name) is None
    assert cluster.phases() == ["Ready", "Ready"]


def test_a_starting_replica_is_preempted_at_once() -> None:
    cluster = Cluster()
    cluster.fleet.scale(KEY, 1)
    cluster.clock.run(until=10)

    cluster.fleet.preempt(KEY, cluster.fleet.of(KEY)[0], 120.0)

    assert [one.name for one in cluster.fleet.of(KEY)] == ["small-l4-2"]
    cluster.clock.run(until=39)
    assert cluster.phases() == ["Pending"]  # it began anew at 10 s


def test_a_lost_replica_is_replaced() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 1)

    cluster.fleet.lose(KEY, cluster.fleet.of(KEY)[0])

    assert [(one.name, str(one.phase)) for one in cluster.fleet.of(KEY)] == [("small-l4-2", "Pending")]


def test_waiting_for_a_machine_is_free_and_ends() -> None:
    cluster = Cluster(start=replicas.Start(waits=100.0, takes=30.0))
    cluster.fleet.scale(KEY, 1)
    (waiting,) = cluster.fleet.of(KEY)

    assert waiting.stuck
    assert cluster.fleet.usd_per_hour() == 0.0
    cluster.clock.run(until=100)
    assert not waiting.stuck
    assert cluster.fleet.usd_per_hour() == 3.6
    cluster.clock.run(until=130)
    assert cluster.phases() == ["Ready"]
    cluster.clock.run(until=1000)
    assert cluster.fleet.bill().cost_usd == pytest.approx(0.001 * 900)


def test_a_replica_that_never_comes_up_is_paid_for_and_can_be_given_back() -> None:
    cluster = Cluster(start=replicas.Start(waits=0.0, takes=math.inf))
    cluster.fleet.scale(KEY, 1)
    cluster.clock.run(until=10_000)

    assert cluster.fleet.of(KEY)[0].stuck
    assert cluster.fleet.bill().cost_usd == pytest.approx(10.0)
    cluster.fleet.scale(KEY, 0)
    assert cluster.fleet.of(KEY) == ()


def test_another_price_counts_from_its_moment_on() -> None:
    cluster = Cluster()
    cluster.fleet.start(KEY, 1)
    cluster.clock.run(until=1000)
    cluster.fleet.reprice(KEY, 36.0)
    cluster.clock.run(until=1500)
    cluster.fleet.scale(KEY, 0)
    cluster.clock.run(until=2000)

    # 1000 s at 0.1 cent a second, 500 s at 1 cent
    assert cluster.fleet.bill().cost_usd == pytest.approx(1.0 + 5.0)
