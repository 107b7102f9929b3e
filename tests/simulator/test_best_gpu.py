"""One type of GPU alone, and the biggest model alone."""

from __future__ import annotations

from typing import Any

from trimtab_sim import world
from trimtab_sim.baselines import best_gpu, biggest

from tests.simulator import scenarios

MIXED = scenarios.tier(
    "large",
    "0.80",
    [
        scenarios.variant("h100", "8.00", accelerator={"type": "H100"}, replicas={"min": 1, "max": 2}),
        scenarios.variant("l4", "1.50", accelerator={"type": "L4"}),
        scenarios.variant("off", "0.10", accelerator={"type": "A10G"}, replicas={"min": 0, "max": 0}),
    ],
)


def scenario(**changes: Any) -> world.Scenario:
    return scenarios.scenario(tiers=(scenarios.SMALL, MIXED), **changes)


def test_a_type_must_run_the_best_tier_of_every_class() -> None:
    # small runs on L4 alone; the best tier of both classes, large, on H100 and L4, and on A10G with no replica
    assert best_gpu.types(scenario(), ["default", "sensitive"]) == ("H100", "L4")


def test_a_class_without_requests_asks_for_no_tier() -> None:
    spec = {"classes": [{"name": "batch", "allow": ["small"]}, {"name": "default"}]}

    assert best_gpu.types(scenario(policy_spec=spec), ["default"]) == ("H100", "L4")
    assert best_gpu.types(scenario(policy_spec=spec), ["default", "batch"]) == ("L4",)


def test_other_types_are_gone_and_the_type_may_grow() -> None:
    part = best_gpu.restrict(scenario(policy_spec={"baselineTier": "small"}), "H100")

    (tier,) = part.tiers
    assert [(each.name, each.replicas.min, each.replicas.max) for each in tier.spec.variants] == [("h100", 1, 1000)]
    assert [each.ref for each in part.policies[0].spec.tiers] == ["large"]
    assert part.policies[0].spec.baseline_tier is None
    assert world.first_look(part).policies["default/chat"].tiers == ("default/large",)


def test_an_external_tier_needs_no_gpu() -> None:
    frontier = scenarios.external("frontier", "0.95")
    spec = {"tiers": [{"ref": "small"}, {"ref": "frontier"}], "classes": [{"name": "default"}]}
    given = scenarios.scenario(tiers=(scenarios.SMALL, frontier), policy_spec=spec)

    assert best_gpu.types(given, ["default"]) == ("L4",)
    assert [tier.metadata.name for tier in best_gpu.restrict(given, "L4").tiers] == ["small", "frontier"]


def test_trimtab_runs_on_one_type() -> None:
    trace = scenarios.flat_trace(minutes=1)
    part = best_gpu.restrict(scenario(trace=trace, prologue=60.0), "L4")

    run = world.simulate(part, best_gpu.BestGpu("L4"))

    assert (run.controller, run.settings) == ("best-gpu", "Trimtab on L4 alone")
    assert run.requests == len(trace)


def test_the_biggest_model_takes_everything() -> None:
    spec = {"classes": [{"name": "batch", "allow": ["small"]}, {"name": "default"}]}
    given = scenario(policy_spec=spec)

    part = biggest.restrict(given)

    assert [each.ref for each in part.policies[0].spec.tiers] == ["large"]
    assert [each.allow for each in part.policies[0].spec.classes] == [["large"], []]
    assert biggest.differs(given, ["batch"])
    assert not biggest.differs(given, ["default"])
