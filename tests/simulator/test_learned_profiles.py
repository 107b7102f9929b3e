"""Replicas that are not what the catalogue says: their counters teach the loop, and the promise is kept again."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from trimtab_core import counters, learning
from trimtab_core.learning import Law
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile, Snapshot, VariantState
from trimtab_sim import control, engine, replicas, world
from trimtab_sim.workload import Request

from tests.simulator import scenarios

KEY = VariantKey("default/small", "h100")


class Watching(control.Trimtab):
    """Trimtab, with what it saw last at hand."""

    last: Snapshot

    def initial(self, snapshot: Snapshot) -> dict[VariantKey, int]:
        return {KEY: 3}

    def step(self, snapshot: Snapshot) -> control.Orders:
        self.last = snapshot
        return super().step(snapshot)

    @property
    def variant(self) -> VariantState:
        return self.last.tiers[KEY.tier].variants[0]


def scenario(speed: float, *, written: bool = False, minutes: float = 6.0) -> world.Scenario:
    """An 8B model on H100 at 30 requests a second whose replicas are ``speed`` times as fast as the catalogue says.

    Args:
        speed: of the real replicas.
        written: the manifest insists on the catalogue's numbers.
        minutes: of trace, after 5 minutes of run-in.
    """
    given: dict[str, Any] = {"startup": "20s"}

    def made() -> world.Scenario:
        variant = scenarios.variant("h100", "4.00", accelerator={"type": "H100"}, profile=given)
        model = {"name": "llama-3.1-8b", "quality": "0.60"}
        slo = {"ttft": {"p95": "2s"}, "itl": {"p95": "22ms"}, "attainment": "0.95"}
        tier = scenarios.tier("small", "0.60", [variant], model=model, slo=slo)
        policy = scenarios.policy(tiers=[{"ref": "small"}], classes=[{"name": "default"}])
        trace = scenarios.flat_trace(minutes=minutes, rps=30.0)
        return scenarios.scenario(trace, tiers=(tier,), policies=(policy,), prologue=300.0)

    said = world.first_look(made()).tiers[KEY.tier].variants[0].profile
    assert said is not None
    if written:
        given |= {
            "itlBase": f"{said.itl_base_seconds * 1e3:.4f}ms",
            "itlPerSequence": f"{said.itl_per_sequence_seconds * 1e3:.4f}ms",
            "prefillTokensPerSecond": int(said.prefill_tokens_per_second),
        }
    truth = dataclasses.replace(
        said,
        itl_base_seconds=said.itl_base_seconds / speed,
        itl_per_sequence_seconds=said.itl_per_sequence_seconds / speed,
        prefill_tokens_per_second=said.prefill_tokens_per_second * speed,
    )
    return dataclasses.replace(made(), truth={KEY: truth})


def step_seconds(profile: CapacityProfile, sequences: float, tokens_per_step: float) -> float:
    law = Law(profile.itl_base_seconds, profile.itl_per_sequence_seconds, profile.prefill_tokens_per_second)
    return law.itl_seconds(sequences, tokens_per_step)


@pytest.mark.parametrize("speed", [0.75, 1.33], ids=["a quarter slower", "a third faster"])
def test_within_minutes_the_plan_is_made_by_what_replicas_really_carry(speed: float) -> None:
    made, controller = scenario(speed, minutes=3.0), Watching()
    run = world.simulate(made, controller)
    learned, profile, truth = controller.variant.learned, controller.variant.profile, made.truth[KEY]
    assert learned is not None
    assert profile is not None
    for sequences in (1.0, learned.sequences, 2 * learned.sequences):
        tokens = learned.tokens_per_sequence * sequences
        assert step_seconds(profile, sequences, tokens) == pytest.approx(
            step_seconds(truth, sequences, tokens), rel=0.05
        )
    assert run.slo_attainment is not None
    assert run.slo_attainment >= 0.95


def test_slow_replicas_keep_the_promise_better_when_the_manifest_does_not_insist_on_wrong_numbers() -> None:
    learning, insisting = (world.simulate(scenario(0.6, written=written), Watching()) for written in (False, True))
    assert learning.slo_attainment is not None
    assert insisting.slo_attainment is not None
    assert learning.slo_attainment > 0.93
    assert learning.slo_attainment > insisting.slo_attainment + 0.1


def test_what_a_manifest_says_is_planned_with_whatever_is_learned() -> None:
    controller = Watching()
    world.simulate(scenario(0.75, written=True, minutes=2.0), controller)
    variant = controller.variant
    assert variant.learned is not None
    assert variant.learned.law is not None
    assert variant.profile is not None
    assert variant.profile.itl_base_seconds == pytest.approx(variant.learned.prior.itl_base_seconds)
    assert variant.learned.law.itl_base_seconds > 1.2 * variant.profile.itl_base_seconds


def test_hours_of_little_load_do_not_teach_wrong_things_about_much() -> None:
    truth = CapacityProfile(0.020, 0.0008, 8_000.0, 120_000, 128, 60.0)
    law = Law(truth.itl_base_seconds, truth.itl_per_sequence_seconds, truth.prefill_tokens_per_second)
    clock, rng, done = engine.Engine(), random.Random(3), list[replicas.Job]()
    pool = [replicas.Processor(clock, truth) for _ in range(4)]

    def arrive(number: int = 0) -> None:
        request = Request(number, clock.now, rng.randint(100, 2000), rng.randint(10, 400))
        min(pool, key=lambda one: one.running).submit(replicas.Job(request, done.append))
        rate = 4.0 if clock.now < 600 else 0.4  # ten minutes of one a second each, then of one in ten seconds
        clock.after(rng.expovariate(rate), lambda: arrive(number + 1), engine.Order.ARRIVE)

    arrive()
    known = learning.begin(Law(0.8 * 0.020, 0.8 * 0.0008, 1.25 * 8_000.0))
    for at in range(15, 5400, 15):
        clock.run(until=float(at))
        readings = {}
        for number, one in enumerate(pool):
            one.advance()
            readings[f"{number}"] = counters.Reading(float(at), one.gap_seconds, one.gaps, one.prompt_tokens)
        known = learning.observe(known, readings)
    assert known.law is not None
    for sequences in (2.0, 10.0, 30.0):
        tokens = known.tokens_per_sequence * sequences
        assert known.law.itl_seconds(sequences, tokens) == pytest.approx(law.itl_seconds(sequences, tokens), rel=0.05)
