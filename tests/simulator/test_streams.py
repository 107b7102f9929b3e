"""Traces that are too long for memory: made anew for each iteration, known by one pass."""

from __future__ import annotations

import itertools
import math
import pickle
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import prompts, synthetic, workload
from trimtab_sim.workload import Request, Trace, TraceError

LENGTHS = synthetic.LogNormal(input=(800.0, 0.6), output=(150.0, 0.8))
DAY = tuple((3600.0 * hour, 3600.0, 0.2 + 0.1 * (hour % 12)) for hour in range(24))


def stream(*windows: synthetic.Window, seed: int = 1, cv: float = 1.0, mix: prompts.Mix | None = None) -> Trace:
    return synthetic.from_rates(windows or DAY, LENGTHS, seed=seed, source="made up", cv=cv, mix=mix)


def test_every_iteration_gives_the_same_requests_in_order_and_numbered() -> None:
    trace = stream()

    first, second = list(trace), list(trace)

    assert first == second
    assert [one.number for one in first] == list(range(len(trace)))
    assert all(before.arrival_s <= after.arrival_s for before, after in itertools.pairwise(first))
    assert first != list(stream(seed=2))


def test_each_window_has_its_rate_and_a_gap_has_none() -> None:
    trace = stream((0.0, 1000.0, 4.0), (1000.0, 500.0, 0.0), (2000.0, 1000.0, 12.0))

    counts = [sum(low <= one.arrival_s < low + 1000 for one in trace) for low in (0, 1000, 2000)]

    # 1000 s × 4/s, nothing, 1000 s × 12/s; Poisson: deviations of √4000 = 63 and √12000 = 110
    assert counts[0] == pytest.approx(4000, abs=4 * 63)
    assert counts[1] == 0
    assert counts[2] == pytest.approx(12_000, abs=4 * 110)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_vary_as_asked_for(cv: float) -> None:
    times = [one.arrival_s for one in stream((0.0, 4000.0, 10.0), cv=cv)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)

    assert math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean == pytest.approx(cv, rel=0.08)


def test_lengths_are_drawn_as_told_and_may_depend_on_the_time() -> None:
    def by_hour(rng: random.Random, time_s: float) -> tuple[int, int]:
        return 1 + int(time_s // 3600), rng.randint(5, 6)

    trace = synthetic.from_rates(DAY, by_hour, seed=1, source="made up", mix=prompts.Mix(repeated=0))

    assert {(one.input_tokens, int(one.arrival_s // 3600) + 1) for one in trace} == {(at, at) for at in range(1, 25)}
    assert {one.output_tokens for one in trace} == {5, 6}


def test_log_normal_lengths_have_their_medians_and_stay_within_bounds() -> None:
    capped = synthetic.LogNormal(input=(800.0, 2.0), output=(1.2, 1.0), most=(4000, 3))
    rng = random.Random(1)

    drawn = [capped(rng, 0.0) for _ in range(4001)]
    inputs, outputs = (sorted(values) for values in zip(*drawn, strict=True))

    assert inputs[2000] == pytest.approx(800, rel=0.15)
    assert (inputs[-1], outputs[0], outputs[-1]) == (4000, 1, 3)


def test_the_mix_holds_for_a_stream_as_for_a_tuple() -> None:
    trace = stream((0.0, 2000.0, 10.0), mix=prompts.Mix(sensitive=0.2, repeated=0.3))

    requests = trace.requests

    assert sum(one.prompt != one.number for one in requests) / len(requests) == pytest.approx(0.3, abs=0.02)
    assert sum(one.sensitive for one in requests if one.prompt == one.number) / (0.7 * len(requests)) == pytest.approx(
        0.2, abs=0.02
    )


def test_it_says_of_itself_what_a_tuple_of_the_same_requests_says() -> None:
    trace = stream()
    whole = Trace(trace.requests, "in memory")

    assert trace.facts == whole.facts
    assert (len(trace), trace.duration_s, trace.mean_rps) == (len(whole), whole.duration_s, whole.mean_rps)
    assert trace.mean_input_tokens == pytest.approx(sum(one.input_tokens for one in whole) / len(whole))
    assert trace.mean_output_tokens == pytest.approx(sum(one.output_tokens for one in whole) / len(whole))


@given(st.lists(st.floats(0, 300), max_size=40), st.sampled_from([1.0, 30.0, workload.PEAK_WINDOW_SECONDS]))
def test_the_peak_is_that_of_counting_each_window(times: list[float], window_s: float) -> None:
    ordered = sorted(times)
    trace = Trace(tuple(Request(at, time, 1, 1) for at, time in enumerate(ordered)), "any")

    most = max((sum(begin <= time < begin + window_s for time in ordered) for begin in ordered), default=0)

    assert trace.peak_rps(window_s) == most / window_s


def test_a_sample_is_spread_evenly_over_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "SAMPLE", 10)

    def sample(count: int) -> list[int]:
        facts = workload.Facts.of(Request(at, float(at), 1, 1) for at in range(count))
        return [one.number for one in facts.sample]

    assert sample(10) == list(range(10))
    assert sample(11) == [0, 2, 4, 6, 8, 10]
    assert sample(41) == [0, 8, 16, 24, 32, 40]


def test_iterating_needs_no_memory_for_what_has_passed() -> None:
    trace = stream((0.0, 20_000.0, 2.0))
    tracemalloc.start()
    try:
        count = sum(1 for _ in trace)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count > 35_000
    assert peak < 1_000_000  # bytes; the requests together hold some 6 MB


def test_it_travels_to_other_processes_with_what_is_known_of_it() -> None:
    trace = stream()
    known = trace.facts

    copied = pickle.loads(pickle.dumps(trace))

    assert copied.__dict__["facts"] == known
    assert list(copied) == list(trace)


@pytest.mark.parametrize(
    ("windows", "cv", "message"),
    [
        (
            [(0.0, 10.0, 1.0), (5.0, 10.0, 1.0)],
            1.0,
            r"window 1 is \(5, 10, 1\); expected a finite start of at least 10 s",
        ),
        ([(0.0, 0.0, 1.0)], 1.0, r"window 0 is \(0, 0, 1\)"),
        ([(0.0, 10.0, -1.0)], 1.0, r"window 0 is \(0, 10, -1\)"),
        ([(0.0, 10.0, math.nan)], 1.0, r"window 0 is \(0, 10, nan\)"),
        ([(0.0, math.inf, 1.0)], 1.0, r"window 0 is \(0, inf, 1\)"),
        ([(-1.0, 10.0, 1.0)], 1.0, r"window 0 is \(-1, 10, 1\)"),
        ([(0.0, 10.0, 0.0)], 1.0, "no window has a rate above 0"),
        ([], 1.0, "no window has a rate above 0"),
        ([(0.0, 10.0, 1.0)], 0.0, "cv must be a finite number above 0, not 0"),
    ],
)
def test_impossible_rates_are_refused(windows: list[synthetic.Window], cv: float, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        synthetic.from_rates(windows, LENGTHS, seed=1, source="made up", cv=cv)
