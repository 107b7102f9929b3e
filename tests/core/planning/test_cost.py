"""Ceilings from budgets, demand on tiers, and external spending."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

import pytest
from trimtab_core import capacity, signals
from trimtab_core.planning import cost
from trimtab_core.snapshot import PolicyState

from . import fleets

# 30 days of 24 hours; half of them are over.
MID_APRIL = dt.datetime(2026, 4, 16, tzinfo=dt.UTC).timestamp()


def budgeted(spent: signals.Signal = signals.Missing("not measured"), **budget: str) -> PolicyState:
    found = fleets.policy("chat", ("small",), {"all": fleets.traffic(1.0)}, spec={"budget": budget} if budget else {})
    return PolicyState(found.key, found.spec, found.tiers, found.traffic, {}, spent)


@pytest.mark.parametrize(
    ("policy", "ceiling"),
    [
        pytest.param(budgeted(), math.inf, id="no budget"),
        pytest.param(budgeted(usdPerHour="12.5"), 12.5, id="by the hour"),
        # 7,200 USD over 720 hours; 2,700 spent leave 4,500 for 360 hours.
        pytest.param(budgeted(signals.Fresh(2700.0, 1.0), usdPerMonth="7200"), 12.5, id="by the month, thrifty so far"),
        pytest.param(budgeted(signals.Fresh(9000.0, 1.0), usdPerMonth="7200"), 0.0, id="by the month, spent"),
        pytest.param(budgeted(usdPerMonth="7200"), 10.0, id="spending unknown: as if spent evenly"),
        pytest.param(budgeted(signals.Fresh(math.nan, 1.0), usdPerMonth="7200"), 10.0, id="spending is no number"),
        pytest.param(budgeted(signals.Fresh(2700.0, 1.0), usdPerMonth="7200", usdPerHour="3"), 3.0, id="the stricter"),
    ],
)
def test_the_ceiling_of_a_budget(policy: PolicyState, ceiling: float) -> None:
    assert cost.ceiling_usd_per_hour(policy, MID_APRIL) == pytest.approx(ceiling)


def test_a_month_s_last_minute_does_not_spend_its_rest_at_once() -> None:
    last = dt.datetime(2026, 4, 30, 23, 59, tzinfo=dt.UTC).timestamp()
    assert cost.ceiling_usd_per_hour(budgeted(signals.Fresh(7100.0, 1.0), usdPerMonth="7200"), last) == 100.0


def test_demand_on_a_tier_is_what_its_weights_send_there_less_cache_hits() -> None:
    traffic = {
        "short": fleets.traffic(8.0, mix=capacity.Mix(100.0, 10.0), hits=signals.Fresh(0.25, 1.0)),
        "long": fleets.traffic(2.0, mix=capacity.Mix(1000.0, 100.0), hits=signals.Stale(0.9, 90.0)),
    }
    weights = {"short": {"small": 0.5, "large": 0.5}, "long": {"small": 0.5, "large": 0.5}}
    chat = fleets.policy("chat", ("small", "large"), traffic, weights=weights)
    tiers = tuple(fleets.tier(name, "0.8", fleets.variant(ready=1)) for name in ("small", "large"))
    found = cost.tier_demands(fleets.snapshot(tiers, (chat,)))["default/small"]
    # 8 x 0.75 x 0.5 short ones and 2 x 0.5 long ones: a hit ratio that is stale isn't relied on.
    assert found.requests_per_second == pytest.approx(3.0 + 1.0)
    assert found.mix == capacity.Mix(325.0, 32.5)  # (3 x 100 + 1 x 1,000) / 4


def test_a_tier_without_share_has_the_mix_of_what_it_might_get() -> None:
    chat = fleets.policy("chat", ("small", "large"), {"all": fleets.traffic(4.0)}, weights={"all": {"small": 1.0}})
    tiers = tuple(fleets.tier(name, "0.8", fleets.variant(ready=1)) for name in ("small", "large"))
    found = cost.tier_demands(fleets.snapshot(tiers, (chat,)))["default/large"]
    assert found == cost.Demand(0.0, fleets.MIX)


def test_external_spending_follows_the_given_weights() -> None:
    tiers = (fleets.tier("small", "0.8", fleets.variant(ready=1)), fleets.external("frontier", "0.9"))
    weights = {"all": {"small": 0.9, "frontier": 0.1}}
    chat = fleets.policy("chat", ("small", "frontier"), {"all": fleets.traffic(10.0)}, weights=weights)
    world = fleets.snapshot(tiers, (chat,))
    # 1 req/s x 3,600 x (1,000 x 1e-6 + 200 x 4e-6) = 6.48
    assert cost.external_usd_per_hour(world, {}) == pytest.approx(6.48)
    assert cost.external_usd_per_hour(world, {"default/chat": {"all": {"default/frontier": 1.0}}}) == pytest.approx(
        64.8
    )


def test_bursts_thin_out_among_the_replicas_that_they_are_dealt_to() -> None:
    bursty = dataclasses.replace(fleets.traffic(8.0), burstiness=signals.Fresh(9.0, 1.0))
    weights = {"all": {"small": 0.75, "large": 0.25}}
    chat = fleets.policy("chat", ("small", "large"), {"all": bursty}, weights=weights)
    tiers = (
        fleets.tier("small", "0.6", fleets.variant(ready=3)),
        fleets.tier("large", "0.9", fleets.variant(ready=1)),
    )
    world = fleets.snapshot(tiers, (chat,))
    demands = cost.tier_demands(world)
    # Small gets three quarters of the class for its three replicas, large a quarter for its only one: 1 + 8·0.75, 1 + 8/4.
    assert (demands["default/small"].mix.burstiness, demands["default/small"].mix.replicas) == (7.0, 3)
    assert (demands["default/large"].mix.burstiness, demands["default/large"].mix.replicas) == (3.0, 1)
    assert cost.measured_mix(bursty).burstiness == 9.0


@pytest.mark.parametrize("measured", [signals.Missing("none"), signals.Fresh(0.3, 1.0)], ids=["unknown", "very even"])
def test_a_stream_is_never_taken_for_calmer_than_poisson(measured: signals.Signal) -> None:
    assert cost.measured_mix(dataclasses.replace(fleets.traffic(8.0), burstiness=measured)).burstiness == 1.0
