"""Where baselines send requests and what serves them."""

from __future__ import annotations

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh
from trimtab_core.snapshot import ClassTraffic
from trimtab_sim import baselines, world
from trimtab_sim.baselines import recording, routes

from tests.simulator import scenarios, seen


def test_every_class_goes_to_its_best_tier() -> None:
    snapshot = world.first_look(scenarios.scenario())

    weights = routes.best_tiers(snapshot)

    assert weights == {
        "default/chat": {"sensitive": {"default/large": 1.0}, "default": {"default/large": 1.0}},
    }


def test_a_class_that_may_not_use_the_best_tier_goes_to_the_best_it_may() -> None:
    classes = [{"name": "batch", "allow": ["small"]}, {"name": "default"}]
    snapshot = world.first_look(scenarios.scenario(policy_spec={"classes": classes}))

    weights = routes.best_tiers(snapshot)["default/chat"]

    assert weights["batch"] == {"default/small": 1.0}
    assert weights["default"] == {"default/large": 1.0}


def test_the_cheapest_variant_is_on_demand_and_cheap_by_the_request() -> None:
    large = scenarios.tier(
        "large",
        "0.80",
        [
            scenarios.variant("spot", "0.50", capacityType="Spot"),
            scenarios.variant("slow", "3.00"),
            scenarios.variant("fast", "4.00", speed=2.0),
            scenarios.variant("off", "0.10", replicas={"min": 0, "max": 0}),
        ],
    )
    snapshot = world.first_look(scenarios.scenario(tiers=(scenarios.SMALL, large)))

    chosen = routes.cheapest_variant(snapshot.tiers["default/large"])

    # fast costs a third more than slow and carries more than twice as much
    assert chosen is not None
    assert chosen.name == "fast"


def test_static_peak_runs_its_replicas_and_nothing_else() -> None:
    snapshot = world.first_look(scenarios.scenario())
    controller = baselines.StaticPeak({VariantKey("default/large", "h100"): 3})

    plan = controller.step(snapshot).plan

    assert plan.replicas == {VariantKey("default/large", "h100"): 3, VariantKey("default/small", "l4"): 0}
    assert controller.initial(snapshot) == plan.replicas
    assert controller.settings == "3 × large/h100"


def test_an_external_tier_has_no_variant_to_scale() -> None:
    frontier = scenarios.external("frontier", "0.95")
    policy = {"tiers": [{"ref": "large"}, {"ref": "frontier"}], "classes": [{"name": "default"}]}
    snapshot = world.first_look(scenarios.scenario(tiers=(scenarios.LARGE, frontier), policy_spec=policy))

    assert routes.BEST.of(snapshot)["default/chat"] == {"default": {"default/frontier": 1.0}}
    assert routes.serving_variants(snapshot, ["default/frontier"]) == {}


def test_fixed_weights_replace_those_of_their_class_alone() -> None:
    snapshot = world.first_look(scenarios.scenario())
    routing = routes.Routing({"default/chat": {"default": {"default/small": 0.75, "default/large": 0.25}}})

    assert routing.of(snapshot)["default/chat"] == {
        "sensitive": {"default/large": 1.0},
        "default": {"default/small": 0.75, "default/large": 0.25},
    }
    # 4 % sensitive, all on large; of the other 96 % a quarter: 0.04 + 0.24 = 0.28
    shares = routing.tier_shares(snapshot, "default/chat", {"sensitive": 0.04, "default": 0.96})
    assert shares == pytest.approx({"default/large": 0.28, "default/small": 0.72})


@pytest.mark.parametrize(("rate", "expected"), [(2.0, True), (0.0, False)])
def test_a_tier_is_woken_by_requests_of_its_own_classes(rate: float, *, expected: bool) -> None:
    traffic = {"default": ClassTraffic(Fresh(rate, 0.0), Fresh(100.0, 0.0), Fresh(100.0, 0.0))}
    snapshot = seen.with_traffic(world.first_look(scenarios.scenario()), traffic)

    assert routes.arrives(snapshot, "default/large", routes.BEST) is expected
    assert not routes.arrives(snapshot, "default/small", routes.BEST)


def test_trimtabs_mean_routing_is_weighed_by_demand() -> None:
    ours = recording.Recording()

    run = world.simulate(scenarios.scenario(scenarios.flat_trace(minutes=2)), ours)

    routing = ours.routing()
    assert routing.uses_cache
    weights = routing.weights["default/chat"]  # type: ignore[index] # it has recorded some
    assert weights["sensitive"] == {"default/large": 1.0}
    assert sum(weights["default"].values()) == pytest.approx(1.0)
    # 96 % of the requests are of the default class
    assert 0.96 * weights["default"]["default/small"] == pytest.approx(run.share_by_tier["small"], abs=0.1)
