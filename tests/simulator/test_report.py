"""One report for simulated and measured runs: what is counted, and what the JSON holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.planning import inputs
from trimtab_core.planning.plan import Decision
from trimtab_core.routing import table
from trimtab_sim import latencies, report
from trimtab_sim.report import Bill, Fleet, Outcome, Promise

BILL = Bill(cost_usd=5.0, gpu_hours=2.0, busy_gpu_hours=0.5, replica_changes=3)


def outcome(arrived_s: float, *, tier: str = "small", met: bool = True, **values: float) -> Outcome:
    latencies = {"ttft_s": 0.2, "itl_s": 0.03, "e2e_s": 4.0, "quality": 0.6, "best_quality": 0.8} | values
    return Outcome(arrived_s, tier, met, **latencies)  # type: ignore[arg-type]


def filled() -> report.Recorder:
    """Ten requests in ten seconds: eight from a tier, one from the cache, one failed."""
    recorder = report.Recorder(10.0, points=5)
    for second in range(8):
        recorder.add(outcome(float(second), ttft_s=0.1 * (second + 1), met=second < 6))
    recorder.add(Outcome(8.0, report.CACHE, met=True, ttft_s=0.0, e2e_s=0.0, quality=0.8, best_quality=0.8))
    recorder.add(Outcome(9.0, report.FAILED, met=False, best_quality=0.8))
    return recorder


def test_a_run_adds_up() -> None:
    run = filled().run("trimtab", BILL)

    assert run.requests == 10
    assert run.failed == 1
    assert run.slo_attainment == pytest.approx(7 / 10)  # six of the tier, one of the cache
    assert run.share_by_tier == {"cache": 0.1, "failed": 0.1, "small": 0.8}
    assert run.usd_per_1k_requests == pytest.approx(500.0)  # 5 USD for 10 requests
    assert run.gpu_utilisation == pytest.approx(0.25)
    assert run.expected_quality == pytest.approx((8 * 0.6 + 0.8) / 10)
    assert run.quality_retention == pytest.approx((8 * 0.6 + 0.8) / (10 * 0.8))
    assert run.ttft_p95_s == pytest.approx(0.8)  # nearest rank: the 9th of 0.0, 0.1 … 0.8


def test_what_arrives_outside_of_the_run_is_not_counted() -> None:
    recorder = filled()
    recorder.add(outcome(-0.001))
    recorder.add(outcome(10.001))

    assert recorder.run("trimtab", BILL).requests == 10


def test_the_json_has_the_promised_fields() -> None:
    recorder = filled()
    recorder.decide([Decision(4.0, "default/small", "small/l4 1 → 2", ("arrivals rose",), 1.0, 2.0, "capacity")])
    recorder.decide([Decision(-4.0, "default/small", "before the run", (), 1.0, 2.0)])

    document = report.document(
        [recorder.run("trimtab", BILL), filled().run("static-peak", BILL)], trace="made up", seed=7
    )

    json.dumps(document, allow_nan=False)
    assert [run["controller"] for run in document["runs"]] == ["trimtab", "static-peak"]
    assert set(document["runs"][0]) >= {
        "controller", "requests", "cost_usd", "usd_per_1k_requests", "slo_attainment", "ttft_p95_s", "itl_p95_s",
        "e2e_p95_s", "gpu_hours", "gpu_utilisation", "replica_changes", "share_by_tier",
    }  # fmt: skip
    assert document["decisions"] == [
        {
            "time": 4.0, "tier": "default/small", "action": "small/l4 1 → 2", "reasons": ["arrivals rose"],
            "cost_before_usd_per_hour": 1.0, "cost_after_usd_per_hour": 2.0, "binding": "capacity",
            "inputs": [], "alternatives": [], "guards": [],
        }
    ]  # fmt: skip
    assert (document["trace"], document["seed"]) == ("made up", 7)


def test_a_run_without_requests_has_no_latencies_and_missed_nothing() -> None:
    run = report.Recorder(10.0).run("trimtab", Bill(0.0, 0.0, 0.0, 0))

    assert (run.requests, run.usd_per_1k_requests, run.slo_attainment) == (0, 0.0, 1.0)
    assert (run.ttft_p95_s, run.itl_p95_s, run.e2e_p95_s) == (None, None, None)
    assert json.loads(json.dumps(run.to_dict()))["ttft_p95_s"] is None


def test_the_course_shows_load_fleet_and_latency_by_window() -> None:
    recorder = filled()
    recorder.observe(Fleet(0.0, {"small": 1}, {}, 1.5))
    recorder.observe(Fleet(3.9, {"small": 1}, {"small": 1}, 3.0))

    points = recorder.run("trimtab", BILL).series

    assert [point.t_s for point in points] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [point.usd_per_hour for point in points] == [1.5, 1.5, 3.0, 3.0, 3.0]
    assert points[2].pending == {"small": 1}
    assert all(point.arrivals_per_second == 1.0 for point in points)
    assert [point.ttft_p95_s for point in points][:2] == [pytest.approx(0.2), pytest.approx(0.4)]
    assert [point.slo_attainment for point in points] == [1.0, 1.0, 1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("promise", "latencies", "met"),
    [
        (Promise(), (99.0, 99.0, 99.0), True),
        (Promise(ttft_s=1.0), (1.0, None, 5.0), True),
        (Promise(ttft_s=1.0), (1.001, None, 5.0), False),
        (Promise(1.0, 0.05, 10.0), (0.5, 0.05, 10.0), True),
        (Promise(1.0, 0.05, 10.0), (0.5, 0.051, 9.0), False),
        (Promise(1.0, 0.05, 10.0), (0.5, None, 9.0), True),
        (Promise(e2e_s=10.0), (0.5, 0.01, 10.5), False),
    ],
)
def test_a_promise_holds_if_every_limit_does(
    promise: Promise, latencies: tuple[float | None, float | None, float | None], *, met: bool
) -> None:
    assert promise.met(*latencies) is met


def test_a_promise_is_that_of_the_slo() -> None:
    assert Promise.of(table.Slo(ttft_seconds=1.0, itl_seconds=0.06, e2e_seconds=45.0)) == Promise(1.0, 0.06, 45.0)
    assert Promise.of(table.Slo()) == Promise()


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.95, None),
        ([3.0], 0.95, 3.0),
        (list(range(1, 101)), 0.95, 95),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 21)), 0.95, 19),
        ([5.0, 1.0, 3.0], 0.5, 3.0),
    ],
)
def test_percentiles_are_nearest_rank(values: list[float], share: float, expected: float | None) -> None:
    assert latencies.percentile(values, share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_one_of_the_values_and_enough_are_below(values: list[float], share: float) -> None:
    found = latencies.percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_savings_are_shares_of_the_baseline() -> None:
    ours, baseline = (filled().run(name, Bill(usd, 1.0, 0.5, 0)) for name, usd in (("a", 3.0), ("b", 4.0)))
    free = filled().run("c", Bill(0.0, 0.0, 0.0, 0))

    assert ours.saved_against(baseline) == pytest.approx(0.25)
    assert baseline.saved_against(ours) == pytest.approx(-1 / 3)
    assert ours.saved_against(free) == 0.0


def test_only_the_latest_decisions_keep_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EXPLAINED", 2)
    behind = inputs.Input("all", "arrivals", 1.0, "req/s", "Fresh")
    recorder = report.Recorder(10.0)
    for at in range(4):
        recorder.decide([Decision(float(at), "default/small", f"{at}", (), 1.0, 2.0, inputs=(behind,))])

    decisions = recorder.run("trimtab", BILL).decisions

    assert [one.action for one in decisions] == ["0", "1", "2", "3"]
    assert [len(one.inputs) for one in decisions] == [0, 0, 1, 1]
