"""Known prompts: each earns what its models earned, comes equally often, and repeats at the stated rate."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.api import v1alpha1
from trimtab_sim import control, dispatch, known_prompts, prompts, report, workload, world
from trimtab_sim.workload import Request, Trace

from tests.simulator import scenarios

CACHE = v1alpha1.CachePolicy.model_validate(
    {"apiVersion": "inference.trimtab.dev/v1alpha1", "kind": "CachePolicy", "metadata": {"name": "answers"}}
)


def made(count: int) -> list[known_prompts.Prompt]:
    """Prompts that the small model answers well if their number is even; the large model answers all."""
    return [known_prompts.Prompt(f"question {at}", {"small": float(at % 2 == 0), "large": 1.0}) for at in range(count)]


def trace(count: int) -> Trace:
    return Trace(tuple(Request(at, at / 10, 100 + at, 10 + at) for at in range(count)), "made")


def test_a_set_is_a_source_of_prompts() -> None:
    source: prompts.Source = known_prompts.Known(made(4), seed=1)
    request = Request(0, 0.0, 100, 10, prompt=2)
    assert source.messages(request)[0]["role"] == "user"
    assert source.outcome(request, "large") == 1.0


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        known_prompts.Known([], seed=1)


def test_outcomes_belong_to_the_text_that_is_asked() -> None:
    source = known_prompts.Known(made(10), seed=3)
    for at in range(25):
        request = Request(at, 0.0, 100, 10, prompt=at)
        asked = int(source.messages(request)[0]["content"].removeprefix("question "))
        assert source.outcome(request, "small") == float(asked % 2 == 0)


def test_a_model_that_was_not_asked_is_unknown() -> None:
    assert known_prompts.Known(made(2), seed=1).outcome(Request(0, 0.0, 1, 1, prompt=0), "huge") is None


def test_every_stretch_of_new_prompts_has_each_once() -> None:
    source = known_prompts.Known(made(7), seed=5)
    for start in (0, 7, 6 * 10**9):
        seen = {source.number(Request(0, 0.0, 1, 1, prompt=start + at)) for at in range(7)}
        assert seen == set(range(7))


def test_the_mean_of_a_model_is_over_all_prompts() -> None:
    assert known_prompts.Known(made(4), seed=1).mean("small") == 0.5  # two of four


def test_requests_of_one_key_are_judged_alike() -> None:
    source = known_prompts.Known(made(5), seed=2)
    router = dispatch.Dispatcher(0, source)
    one, other = Request(0, 0.0, 10, 1, prompt=3), Request(9, 5.0, 999, 50, prompt=8)  # 8 = 3 + 5
    assert source.key(one) == source.key(other)
    assert router.judge(one) == router.judge(other)


def test_without_repeats_every_request_asks_something_new() -> None:
    assigned = known_prompts.assign(trace(50), repeats=0.0, seed=1)
    assert [request.prompt for request in assigned] == list(range(50))


def test_a_repeat_has_the_lengths_of_what_it_repeats_and_its_own_time() -> None:
    assigned = known_prompts.assign(trace(400), repeats=0.5, seed=1).requests
    first: dict[int, Request] = {}
    for at, request in enumerate(assigned):
        assert (request.number, request.arrival_s) == (at, at / 10)
        asked = first.setdefault(request.prompt, request)
        assert (request.input_tokens, request.output_tokens) == (asked.input_tokens, asked.output_tokens)
    assert len(first) < 400


@given(st.floats(0.0, 0.9), st.integers(0, 1000))
def test_the_share_of_repeats_is_the_stated_one(repeats: float, seed: int) -> None:
    count = 2000
    assigned = known_prompts.assign(trace(count), repeats=repeats, seed=seed)
    new = len({request.prompt for request in assigned})
    deviation = (repeats * (1 - repeats) / count) ** 0.5
    assert 1 - new / count == pytest.approx(repeats, abs=5 * deviation + 1 / count)


def test_popular_prompts_become_more_popular() -> None:
    counts = Counter(request.prompt for request in known_prompts.assign(trace(5000), repeats=0.5, seed=2))
    # Simon at r = 0.5: the share of prompts asked k times falls as k^-3, so the most popular is far above the mean of 2.
    assert max(counts.values()) > 20


def test_equal_seeds_give_equal_traces_and_others_do_not() -> None:
    drawn = [known_prompts.assign(trace(200), repeats=0.4, seed=seed).requests for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_trace_that_makes_its_requests_anew_stays_one() -> None:
    class Anew:
        def __iter__(self) -> Iterator[Request]:
            return iter(trace(30).requests)

    assigned = known_prompts.assign(Trace(Anew(), "made"), repeats=0.3, seed=1)
    assert not isinstance(assigned.origin, tuple)
    assert list(assigned) == list(assigned) == list(known_prompts.assign(trace(30), repeats=0.3, seed=1))


@pytest.mark.parametrize("repeats", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_is_refused(repeats: float) -> None:
    with pytest.raises(workload.TraceError, match="repeats must lie in 0 to below 1"):
        known_prompts.assign(trace(3), repeats=repeats, seed=1)


def test_a_request_earns_what_the_model_that_serves_it_earned() -> None:
    models = {"model-small": 0.25, "model-large": 1.0}
    source = known_prompts.Known([known_prompts.Prompt(f"question {at}", models) for at in range(10)], seed=4)
    trace = known_prompts.assign(scenarios.flat_trace(), repeats=0.0, seed=1)
    seen: list[tuple[Request, report.Outcome]] = []
    run = world.simulate(
        dataclasses.replace(scenarios.scenario(trace), source=source),
        control.Trimtab(),
        witness=lambda request, outcome: seen.append((request, outcome)),
    )
    counted = [outcome for request, outcome in seen if request.arrival_s >= 0]  # the rest is the prologue
    assert len(counted) == run.requests
    assert {outcome.tier for outcome in counted} == {"small", "large"}
    assert all(outcome.quality == models[f"model-{outcome.tier}"] for outcome in counted)
    assert all(outcome.best_quality == 1.0 for outcome in counted)


def test_a_cached_answer_earns_what_the_first_one_did() -> None:
    source = known_prompts.Known([known_prompts.Prompt("question", {"model-small": 0.25, "model-large": 1.0})], seed=4)
    trace = known_prompts.assign(scenarios.flat_trace(), repeats=0.5, seed=1)
    cached: dict[int, set[float]] = {}

    def note(request: Request, outcome: report.Outcome) -> None:
        cached.setdefault(request.prompt, set()).add(outcome.quality)

    made_of = scenarios.scenario(trace, caches=(CACHE,), policy_spec={"cache": {"ref": "answers"}})
    run = world.simulate(dataclasses.replace(made_of, source=source), control.Trimtab(), witness=note)
    assert run.share_by_tier["cache"] > 0.3  # of the half that repeats, some came while the first was under way
    assert any(earned == {0.25} for earned in cached.values())
    assert any(earned == {1.0} for earned in cached.values())
