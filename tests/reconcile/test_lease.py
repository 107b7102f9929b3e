"""Two contenders, one Lease, and clocks that a test moves: never two leaders, and an epoch that only grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trimtab_operator import errors, kube, lease, settings

from . import kube_api

PATH = kube.LEASES.path("system", "trimtab-operator")


class Contender:
    """One operator process with its own clocks."""

    def __init__(self, connection: kube.Kube, name: str, skew: float = 0.0) -> None:
        self.now = 1000.0
        given_lease = settings.Lease("system", name)
        self.elector = lease.Elector(
            connection, given_lease, monotonic=lambda: self.now, wall=lambda: 1_800_000_000.0 + self.now + skew
        )

    def step(self, seconds: float = 0.0) -> lease.Standing:
        self.now += seconds
        return asyncio.run(self.elector.step())

    @property
    def leads(self) -> bool:
        return self.elector.standing.leads(self.now)


@pytest.fixture
def api() -> kube_api.FakeApi:
    return kube_api.FakeApi()


@pytest.fixture
def connection(api: kube_api.FakeApi) -> Iterator[kube.Kube]:
    with kube_api.connected(api) as made:
        yield made


def test_the_first_leads_at_epoch_one_and_the_second_waits(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two")
    assert one.step() == lease.Standing(1, 1010.0)
    assert two.step() == lease.Standing()
    for _ in range(20):
        assert one.step(2.0).epoch == 1
        assert not two.step(2.0).epoch
    assert one.leads
    assert not two.leads


def test_a_silent_leader_stops_before_another_may_take_over(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two")
    one.step()
    two.step()
    one.now += 9.9
    assert one.leads
    one.now += 0.2
    assert not one.leads  # 10.1 s after its renewal began
    assert not two.step(14.9).epoch
    assert two.step(0.2) == lease.Standing(2, 1025.1)


def test_a_leader_that_was_replaced_knows_it_at_its_next_look(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two")
    one.step()
    two.step()
    assert two.step(16.0).epoch == 2
    assert one.step(16.0) == lease.Standing()
    assert one.step(2.0) == lease.Standing()


def test_a_release_lets_the_other_in_at_once_with_the_next_epoch(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two")
    one.step()
    two.step()
    asyncio.run(one.elector.release())
    assert not one.leads
    assert two.step(1.0).epoch == 2


def test_the_same_name_after_a_restart_is_another_leader(connection: kube.Kube) -> None:
    Contender(connection, "one").step()
    again = Contender(connection, "one")
    assert not again.step().epoch
    assert again.step(16.0).epoch == 2


def test_an_api_server_that_can_not_be_reached_changes_nothing_until_the_deadline(
    api: kube_api.FakeApi, connection: kube.Kube
) -> None:
    one = Contender(connection, "one")
    one.step()
    api.failures["leases"] = (503, "etcd leader changed")
    assert one.step(6.0) == lease.Standing(1, 1010.0)
    assert one.leads
    one.step(6.0)
    assert not one.leads
    api.failures.clear()
    assert one.step(1.0) == lease.Standing(1, 1023.0)  # nobody else took it


def test_a_lease_that_was_deleted_and_counts_from_one_again_is_led_above_what_was_seen(
    api: kube_api.FakeApi, connection: kube.Kube
) -> None:
    one = Contender(connection, "one")
    assert one.step().epoch == 1
    one.elector.depose(7)  # an object carries epoch 7
    assert not one.leads
    assert one.step(2.0).epoch == 8
    assert one.step(2.0).epoch == 8


def test_a_deposed_leader_does_not_take_the_lease_of_its_successor(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two")
    one.step()
    two.step()
    assert two.step(16.0).epoch == 2
    one.elector.depose(2)
    assert not one.step(16.0).epoch


def test_a_clock_that_is_an_hour_off_takes_nothing_early(connection: kube.Kube) -> None:
    one, two = Contender(connection, "one"), Contender(connection, "two", skew=3600.0)
    one.step()
    for _ in range(10):
        one.step(2.0)
        assert not two.step(2.0).epoch


def test_a_forbidden_lease_is_told(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.failures["leases"] = (403, "cannot get leases")
    with pytest.raises(errors.AccessDeniedError, match="cannot get leases"):
        Contender(connection, "one").step()


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0.1, 12.0), st.booleans()), max_size=25))
def test_never_two_leaders_and_no_epoch_twice(steps: list[tuple[int, float, bool]]) -> None:
    api = kube_api.FakeApi()
    with kube_api.connected(api) as connection:
        contenders = [Contender(connection, name) for name in ("a", "b", "c")]
        led: dict[int, int] = {}
        for who, seconds, cut_off in steps:
            for each in contenders:
                each.now += seconds
            api.failures = {"PUT": (503, "cut off")} if cut_off else {}
            contenders[who].step()
            leaders = [number for number, each in enumerate(contenders) if each.leads]
            assert len(leaders) <= 1
            for number in leaders:
                epoch = contenders[number].elector.standing.epoch
                assert led.setdefault(epoch, number) == number
