"""How far a tier must be able to do without its spot pools."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from trimtab_core import waves
from trimtab_core.planning import optimizer, program, spot_cover
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Snapshot, VariantMemory

from tests.core.planning import fleets

CALM, STRUCK = waves.Waves(0.05, 0.5), waves.Waves(0.6, 1.0)
ON_DEMAND, B, C = (VariantKey("default/small", name) for name in ("l4", "spot-b", "spot-c"))
CARRIES = fleets.carries(6)


def pool(name: str, known: waves.Waves = CALM, **state: Any) -> fleets.VariantState:
    memory = VariantMemory(waves=known, **state.pop("memory", {}))
    return fleets.variant(name, usd=1.0, capacity_type="Spot", memory=memory, **state)


def tier(*pools: fleets.VariantState) -> fleets.TierState:
    return fleets.tier("small", "0.6", fleets.variant(usd=3.0), *pools)


def fleet(rate: float, *pools: fleets.VariantState) -> Snapshot:
    return fleets.snapshot((tier(*pools),), (fleets.policy("chat", ("small",), {"all": fleets.traffic(rate)}),))


@pytest.mark.parametrize(
    ("pools", "attainment", "covered"),
    [
        # Two minutes to start: 0.05 waves an hour and pool leave 2 × 0.05 / 30 = 0.33 % of the time short.
        pytest.param([CALM, CALM], 0.99, False, id="0.33 % of 0.5 %"),
        pytest.param([CALM, CALM], 0.999, True, id="0.33 % of 0.05 %"),
        pytest.param([STRUCK, CALM], 0.99, True, id="2.2 % of 0.5 %"),
        pytest.param([STRUCK, CALM], 0.95, False, id="2.2 % of 2.5 %"),
        pytest.param([], 0.999, False, id="no spot"),
    ],
)
def test_waves_are_covered_where_they_cost_more_than_half_of_what_may_be_missed(
    pools: list[waves.Waves], attainment: float, *, covered: bool
) -> None:
    found = spot_cover.needed(tier(*(pool(f"spot-{n}", known) for n, known in enumerate(pools))), attainment, 0.0)
    assert (found is not None) is covered


def test_what_was_seen_of_one_pool_is_expected_of_the_other() -> None:
    found = spot_cover.needed(tier(pool("spot-b", STRUCK), pool("spot-c")), 0.99, fleets.NOW)
    assert found is not None
    assert found.risk == pytest.approx({"spot-b": 0.325 / 30, "spot-c": 0.325 / 30})
    assert found.share == {"spot-b": 1.0, "spot-c": 1.0}


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"memory": {"blocked_until": fleets.NOW + 60}}, id="no machine was found"),
        pytest.param({"pending": 1, "memory": {"lost_at": fleets.NOW - 30}}, id="some were just lost"),
    ],
)
def test_while_a_pool_has_no_machines_nothing_is_covered(state: dict[str, Any]) -> None:
    assert spot_cover.needed(tier(pool("spot-b", STRUCK, **state), pool("spot-c", STRUCK)), 0.99, fleets.NOW) is None


def strict(world: Snapshot) -> Snapshot:
    """The same with a promise for 99 of 100 requests."""
    small = world.tiers["default/small"]
    slo = small.spec.slo.model_copy(update={"attainment": "0.99"})
    small = dataclasses.replace(small, spec=small.spec.model_copy(update={"slo": slo}))
    return dataclasses.replace(world, tiers={small.key: small})


def test_a_fleet_whose_pools_were_struck_keeps_enough_for_the_next_wave_and_spreads() -> None:
    rate = 3.4 * CARRIES
    calm, struck = (
        optimizer.optimize(strict(fleet(rate, pool("spot-b", known), pool("spot-c", known)))).replicas
        for known in (CALM, STRUCK)
    )
    assert sum(struck.values()) > sum(calm.values())
    assert struck[ON_DEMAND] == 0  # twice as much of spot costs 2, on demand 3
    risk = 2 * 0.6 / 30
    for lost in (B, C):
        lacking = rate - (sum(struck.values()) - struck[lost]) * program.CRISIS * CARRIES
        assert risk / 2 * max(0.0, lacking / rate) / spot_cover.ALL_LATE <= spot_cover.PART * 0.01


def test_a_single_pool_is_covered_by_what_is_not_spot() -> None:
    counts = optimizer.optimize(strict(fleet(3.4 * CARRIES, pool("spot-b", STRUCK)))).replicas
    assert counts[ON_DEMAND] >= 2
    assert counts[B] >= 1
