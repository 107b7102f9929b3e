"""Whole runs: conservation, repeatability, signals that arrive late, and Trimtab against a static peak."""

from __future__ import annotations

import collections
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core import signals
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Decision, VariantKey
from trimtab_core.snapshot import Snapshot
from trimtab_sim import baselines, control, report, search, traces, world
from trimtab_sim.workload import Request, Trace

from tests.simulator import scenarios

SMALL, LARGE = VariantKey("default/small", "l4"), VariantKey("default/large", "h100")
WAVE = (
    traces.synthetic.Phase("calm", 0.3, 1.0, 1.0),
    traces.synthetic.Phase("rise", 0.2, 1.0, 8.0),
    traces.synthetic.Phase("high", 0.1, 8.0, 8.0),
    traces.synthetic.Phase("fall", 0.1, 8.0, 1.0),
    traces.synthetic.Phase("calm again", 0.3, 1.0, 1.0),
)


class Fixed:
    """A controller that follows a script: at which time how many replicas of the large tier."""

    name = "fixed"
    settings = ""
    uses_cache = True

    def __init__(self, script: Mapping[float, int], *, every: float = 15.0) -> None:
        self.script = script
        self.every = every
        self.snapshots: list[Snapshot] = []

    def interval_seconds(self, snapshot: Snapshot) -> float:
        return self.every

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        return {LARGE: self.script[min(self.script)]}

    def step(self, snapshot: Snapshot) -> control.Orders:
        self.snapshots.append(snapshot)
        now = snapshot.now - world.EPOCH_SECONDS
        count = self.script[max(time for time in self.script if time <= max(now, min(self.script)))]
        orders = baselines.StaticPeak({LARGE: count}).step(snapshot)
        return control.Orders(orders.plan, (Decision(snapshot.now, "large", f"{count}", (), 0.0, 0.0),))


def few(*arrivals: float, **changes: object) -> Trace:
    """One request at each of these times."""
    values: dict[str, object] = {"input_tokens": 100, "output_tokens": 50} | changes
    requests = tuple(
        Request(number, at, prompt=number, **values)  # type: ignore[arg-type]
        for number, at in enumerate(arrivals)
    )
    return Trace(requests, "made by hand")


def test_every_arrival_ends_once_and_equal_seeds_give_equal_runs() -> None:
    scenario = scenarios.scenario(scenarios.flat_trace(rps=6.0))

    first, second = (world.simulate(scenario, control.Trimtab()) for _ in range(2))

    assert first.requests == len(scenario.trace.requests)
    assert sum(first.share_by_tier.values()) == pytest.approx(1.0)
    assert first.to_dict() == second.to_dict()


def test_another_seed_gives_another_run() -> None:
    runs = [world.simulate(scenarios.scenario(seed=seed), control.Trimtab()).to_dict() for seed in (1, 2)]

    assert runs[0] != runs[1]


def test_latencies_of_a_lone_request_are_those_of_its_engine() -> None:
    run = world.simulate(scenarios.scenario(few(1.0), prologue=0.0), Fixed({0.0: 1}))

    # 100 tokens at 10,000/s and 50 steps of 21 ms
    assert run.ttft_p95_s == pytest.approx(0.010 + 0.021)
    assert run.itl_p95_s == pytest.approx(0.021)
    assert run.e2e_p95_s == pytest.approx(0.010 + 50 * 0.021)
    assert run.share_by_tier == {"large": 1.0}


def test_without_a_replica_requests_fail_and_miss_the_slo() -> None:
    run = world.simulate(scenarios.scenario(few(1.0, 100.0), prologue=0.0), Fixed({0.0: 0, 30.0: 1}))

    # ordered at 30 s, ready at 50 s: the first request is refused, the second answered
    assert run.share_by_tier == {"failed": 0.5, "large": 0.5}
    assert run.failed == 1
    assert run.slo_attainment == 0.5


def test_requests_for_a_tier_at_zero_are_held_until_it_wakes() -> None:
    sleepy = scenarios.tier(
        "large", "0.80", [scenarios.variant("h100", "8.00")],
        scaling={"scaleToZero": {"after": "10m", "hold": "60s"}},
    )  # fmt: skip
    scenario = scenarios.scenario(few(1.0, 100.0), tiers=(scenarios.SMALL, sleepy), prologue=0.0)

    run = world.simulate(scenario, Fixed({0.0: 0, 15.0: 1}))

    # ordered at 15 s, ready at 35 s: the first request waits 34 s
    assert run.failed == 0
    assert run.e2e_p95_s == pytest.approx(34 + 0.010 + 50 * 0.021)


def test_a_hold_limits_the_wait_for_the_tier_and_not_the_answer() -> None:
    sleepy = scenarios.tier(
        "large", "0.80", [scenarios.variant("h100", "8.00")],
        scaling={"scaleToZero": {"after": "10m", "hold": "40s"}},
    )  # fmt: skip
    trace = few(1.0, 100.0, output_tokens=1001)
    scenario = scenarios.scenario(trace, tiers=(scenarios.SMALL, sleepy), prologue=0.0)

    run = world.simulate(scenario, Fixed({0.0: 0, 15.0: 1}))

    # ready at 35 s, 34 s after the first request came; its answer of 21 s ends long after the 40 s
    assert run.failed == 0
    assert run.e2e_p95_s == pytest.approx(34 + 0.010 + 1001 * 0.021)


def test_what_is_held_for_too_long_fails() -> None:
    sleepy = scenarios.tier(
        "large", "0.80", [scenarios.variant("h100", "8.00")],
        scaling={"scaleToZero": {"after": "10m", "hold": "20s"}},
    )  # fmt: skip
    scenario = scenarios.scenario(few(1.0, 100.0), tiers=(scenarios.SMALL, sleepy), prologue=0.0)

    assert world.simulate(scenario, Fixed({0.0: 0, 15.0: 1})).failed == 1


def test_a_prompt_that_fits_no_engine_fails_alone() -> None:
    trace = Trace((*few(1.0).requests, Request(1, 2.0, 300_000, 10, prompt=1)), "made by hand")

    run = world.simulate(scenarios.scenario(trace, prologue=0.0), Fixed({0.0: 1}))

    assert run.share_by_tier == {"failed": 0.5, "large": 0.5}


def test_the_bill_is_replicas_times_hours_times_price() -> None:
    run = world.simulate(scenarios.scenario(few(1.0, 3600.0), prologue=0.0), Fixed({0.0: 2}))

    assert run.duration_s == 3600.0
    assert run.cost_usd == pytest.approx(2 * 8.00)
    assert run.gpu_hours == pytest.approx(2.0)
    assert run.usd_per_1k_requests == pytest.approx(8000.0)


def test_the_prologue_is_not_counted() -> None:
    scenario = scenarios.scenario(few(*range(1, 61)), prologue=300.0)

    run = world.simulate(scenario, Fixed({-300.0: 5, -100.0: 1}))

    assert run.requests == 60
    assert run.cost_usd == pytest.approx(60 / 3600 * 8.00)
    assert run.replica_changes == 0
    assert all(decision.time >= 0 for decision in run.decisions)


def test_arrivals_are_seen_through_scrapes() -> None:
    controller = Fixed({0.0: 4}, every=5.0)
    scenario = scenarios.scenario(scenarios.flat_trace(minutes=4, rps=5.0), prologue=0.0, scrape_delay=2.0)

    world.simulate(scenario, controller)

    seen = {
        round(snapshot.now - world.EPOCH_SECONDS): snapshot.policies["default/chat"].traffic["default"]
        for snapshot in controller.snapshots
    }
    # nothing before two scrapes have arrived (at 0 + 2 s and 5 + 2 s), then the rate of the last minute
    assert isinstance(seen[0].arrivals_per_second, signals.Missing)
    assert isinstance(seen[5].arrivals_per_second, signals.Missing | signals.Fresh)
    arrivals = seen[200].arrivals_per_second
    assert isinstance(arrivals, signals.Fresh)
    assert arrivals.value == pytest.approx(5.0 * 0.96, rel=0.25)  # less the sensitive ones, within counting noise
    assert arrivals.age_seconds in (0.0, 5.0)  # the scrape of 200 s arrives at 202 s


def test_engine_gauges_reach_the_snapshot() -> None:
    controller = Fixed({0.0: 1}, every=5.0)
    busy = few(*(0.01 * number for number in range(200)), 60.0, output_tokens=400)

    world.simulate(scenarios.scenario(busy, prologue=0.0), controller)

    replica = controller.snapshots[2].tiers["default/large"].variants[0].replicas[0]
    running, waiting = signals.known(replica.running), signals.known(replica.waiting)
    assert running == 128  # --max-num-seqs
    assert waiting is not None
    assert waiting > 0


@pytest.mark.parametrize(("controller", "hits"), [(Fixed({0.0: 1}), 0.5), (baselines.StaticPeak({LARGE: 1}), 0.0)])
def test_a_repeated_prompt_is_answered_from_the_cache_of_those_who_use_it(
    controller: control.Controller, hits: float
) -> None:
    cache = v1alpha1.CachePolicy.model_validate(
        {"apiVersion": "inference.trimtab.dev/v1alpha1", "kind": "CachePolicy", "metadata": {"name": "answers"}}
    )
    requests = tuple(Request(number, 10.0 * number, 100, 50, prompt=number // 2) for number in range(20))
    scenario = scenarios.scenario(
        Trace(requests, "pairs"), caches=(cache,), policy_spec={"cache": {"ref": "answers"}}, prologue=0.0
    )

    run = world.simulate(scenario, controller)

    assert run.share_by_tier.get(report.CACHE, 0.0) == hits


def test_a_drained_replica_finishes_what_it_has() -> None:
    scenario = scenarios.scenario(few(*range(14), 120.0, output_tokens=500), prologue=0.0)

    run = world.simulate(scenario, Fixed({0.0: 3, 15.0: 1}))

    assert run.failed == 0
    assert run.replica_changes == 2
    assert run.cost_usd > 120 / 3600 * 8.00 + 2 * 15 / 3600 * 8.00


def test_sensitive_requests_are_served_by_the_tier_they_may_use() -> None:
    trace = few(*(0.5 * number for number in range(200)), input_tokens=400, sensitive=True)

    run = world.simulate(scenarios.scenario(trace), control.Trimtab())

    assert set(run.share_by_tier) == {"large"}


@pytest.fixture(scope="module")
def wave() -> world.Scenario:
    """Thirty minutes in which the load rises eightfold and falls again; replicas start in 20 s."""
    trace = traces.synthesize(minutes=30, seed=3, mean_rps=8.0, course=WAVE)
    return scenarios.scenario(trace, prologue=300.0)


@pytest.fixture(scope="module")
def ours(wave: world.Scenario) -> report.Run:
    return world.simulate(wave, control.Trimtab())


def test_trimtab_adds_replicas_when_load_rises_and_removes_them_when_it_falls(ours: report.Run) -> None:
    counts = [sum(point.ready.values()) for point in ours.series]
    third = len(counts) // 3

    assert max(counts[third : 2 * third + third // 2]) > counts[third // 2]
    assert counts[-1] < max(counts)
    assert ours.replica_changes >= 2
    assert any("→" in decision.action and decision.reasons for decision in ours.decisions)


def test_trimtab_keeps_the_slo_for_less_than_a_static_peak(ours: report.Run, wave: world.Scenario) -> None:
    (static,) = search.run_baselines(wave, (baselines.StaticPeak.name,))

    assert static.slo_attainment >= search.wanted_attainment(wave)
    assert ours.slo_attainment >= search.wanted_attainment(wave)
    assert ours.cost_usd < static.cost_usd
    assert ours.quality_retention > 0.8 - 0.02


def test_decisions_tell_time_tier_action_reason_and_cost(ours: report.Run) -> None:
    replicas = [decision for decision in ours.decisions if "/" in decision.action]

    assert replicas
    assert all(0 <= decision.time <= ours.duration_s for decision in ours.decisions)
    tiers = collections.Counter(decision.tier for decision in ours.decisions)
    assert set(tiers) <= {"default/small", "default/large"}
    assert all(decision.cost_after_usd_per_hour > 0 for decision in replicas)


@settings(deadline=None, max_examples=20)
@given(
    script=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    arrivals=st.lists(st.floats(0, 120), min_size=1, max_size=40),
    output_tokens=st.integers(1, 2000),
)
def test_whatever_a_controller_does_every_arrival_ends_once_and_the_bill_is_bounded(
    script: list[int], arrivals: list[float], output_tokens: int
) -> None:
    trace = few(*sorted(arrivals), output_tokens=output_tokens)
    steps = {15.0 * number: count for number, count in enumerate(script)}

    run = world.simulate(scenarios.scenario(trace, prologue=0.0), Fixed(steps))

    assert run.requests == len(arrivals)
    assert sum(run.share_by_tier.values()) == pytest.approx(1.0)
    # at most 4 wanted and 4 draining replicas at any time
    assert 0 <= run.cost_usd <= 8 * 8.00 * run.duration_s / 3600 + 1e-9
    assert 0 <= run.gpu_utilisation <= 1
    assert 0 <= run.slo_attainment <= 1 - run.failed / run.requests + 1e-9


def test_a_world_needs_a_policy_and_it_must_exist() -> None:
    with pytest.raises(world.ScenarioError, match="no RoutingPolicy in the manifests"):
        _ = scenarios.scenario(policies=()).policy_key
    named = scenarios.scenario()
    with pytest.raises(world.ScenarioError, match="'x/y' is not in the manifests; there are default/chat"):
        _ = world.Scenario(named.tiers, named.policies, (), named.trace, policy="x/y").policy_key
