"""The last value times a factor."""

from __future__ import annotations

import dataclasses

import pytest
from trimtab_core import capacity
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh, Missing, Signal
from trimtab_core.snapshot import ClassTraffic, Snapshot
from trimtab_sim import world
from trimtab_sim.baselines import last_value

from tests.simulator import scenarios, seen

LARGE = VariantKey("default/large", "h100")
MIX = capacity.Mix(1000.0, 100.0)


def look(arrivals: Signal, *, ready: int = 2) -> Snapshot:
    snapshot = seen.with_replicas(world.first_look(scenarios.scenario()), {LARGE: (seen.pod(),) * ready})
    policy = dataclasses.replace(snapshot.policies[seen.POLICY], weights={"default": {"default/large": 1.0}})
    snapshot = dataclasses.replace(snapshot, policies={seen.POLICY: policy})
    return seen.with_traffic(snapshot, {"default": ClassTraffic(arrivals, Fresh(1000.0, 0.0), Fresh(100.0, 0.0))})


@pytest.mark.parametrize("factor", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("load", [0.4, 3.0, 7.9])
def test_as_many_as_the_last_arrivals_need(load: float, factor: float) -> None:
    slo = capacity.limits(scenarios.LARGE.spec.slo)
    profile = look(Missing("none")).tiers["default/large"].variant("h100").profile
    assert profile is not None
    pair = dataclasses.replace(MIX, replicas=2.0)  # that share the load
    one = capacity.admissible_load(profile, pair, slo).requests_per_second
    controller = last_value.LastValue({LARGE: (1, 99)}, seen.POLICY, factor)

    plan = controller.step(look(Fresh(load * one, 0.0))).plan

    # e.g. 3.0 replicas' worth of arrivals × 1.2 = 3.6, rounded up
    assert plan.replicas[LARGE] == -int(-(load * factor - 1e-6) // 1)


def test_unknown_arrivals_change_nothing() -> None:
    controller = last_value.LastValue({LARGE: (1, 99)}, seen.POLICY)

    assert controller.step(look(Missing("blackout"), ready=5)).plan.replicas[LARGE] == 5


def test_it_says_its_factor_and_keeps_the_policys_interval() -> None:
    controller = last_value.LastValue({LARGE: (1, 9)}, seen.POLICY, 1.35)

    assert controller.settings == "1.35 times the last value, 1 to 9 × large/h100"
    assert last_value.interval_seconds(look(Missing("none")), seen.POLICY) == 15.0
