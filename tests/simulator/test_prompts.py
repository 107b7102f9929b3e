"""Synthetic prompts and the synthetic trace: lengths, mix, repetition, and the statistics they claim."""

from __future__ import annotations

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim import prompts, synthetic, traces
from trimtab_sim.engine_sim import tokens
from trimtab_sim.workload import Request, TraceError


def request(number: int = 0, **changes: object) -> Request:
    values: dict[str, object] = {"input_tokens": 300, "output_tokens": 50, "prompt": number} | changes
    return Request(number, float(number), **values)  # type: ignore[arg-type]


@given(
    length=st.integers(1, 20_000),
    difficulty=st.floats(0, 1, exclude_max=True),
    sensitive=st.booleans(),
    number=st.integers(0, 10**6),
)
def test_a_prompt_has_the_length_that_the_trace_says(
    *, length: int, difficulty: float, sensitive: bool, number: int
) -> None:
    one = request(number, input_tokens=length, difficulty=difficulty, sensitive=sensitive)

    counted = len(tokens.encode(prompts.text(one, seed=1)))

    assert abs(counted - length) <= max(24, 0.02 * length)


def test_equal_prompts_have_equal_texts_and_others_differ() -> None:
    first, again, other = request(7), request(9, prompt=7), request(8)

    assert prompts.text(first, seed=1) == prompts.text(again, seed=1)
    assert prompts.text(first, seed=1) != prompts.text(other, seed=1)
    assert prompts.text(first, seed=1) != prompts.text(first, seed=2)


def test_the_question_comes_last_and_history_before_it() -> None:
    roles = [message["role"] for message in prompts.messages(request(input_tokens=500), seed=1)]
    short = prompts.messages(request(input_tokens=12), seed=1)

    assert roles == ["user", "assistant", "user"]
    assert [message["role"] for message in short] == ["user"]


def test_harder_prompts_ask_for_more() -> None:
    easy, middling, hard = (
        prompts.messages(request(input_tokens=2000, difficulty=value), seed=1)[-1]["content"]
        for value in (0.1, 0.5, 0.95)
    )

    assert len(easy) < len(middling) < len(hard)
    assert "step" in hard


def test_sensitive_prompts_hold_made_up_personal_data_and_others_none() -> None:
    def digits(*, sensitive: bool) -> bool:
        text = prompts.text(request(0, sensitive=sensitive, difficulty=0.1), seed=1)
        return "4111 1111 1111 1111" in text

    assert digits(sensitive=True)
    assert not digits(sensitive=False)


def test_the_mix_is_as_asked_for() -> None:
    mix = prompts.Mix(easy=0.5, middling=0.3, sensitive=0.1, repeated=0.2)

    assigned = prompts.assign([request(number) for number in range(20_000)], seed=4, mix=mix)

    share = {
        name: sum(1 for one in assigned if test(one)) / len(assigned)
        for name, test in {
            "easy": lambda one: one.difficulty < 1 / 3,
            "hard": lambda one: one.difficulty >= 2 / 3,
            "sensitive": lambda one: one.sensitive,
            "repeated": lambda one: one.prompt != one.number,
        }.items()
    }
    assert share["easy"] == pytest.approx(0.5, abs=0.02)
    assert share["hard"] == pytest.approx(0.2, abs=0.02)
    assert share["sensitive"] == pytest.approx(0.1 * 0.8, abs=0.01)  # repeats are never sensitive
    assert share["repeated"] == pytest.approx(0.2, abs=0.01)


def test_a_repeat_takes_the_lengths_of_what_it_repeats() -> None:
    plain = [request(number, input_tokens=100 + number, output_tokens=10 + number) for number in range(500)]

    assigned = prompts.assign(plain, seed=4, mix=prompts.Mix(repeated=0.5))

    lengths = collections.defaultdict(set)
    for one in assigned:
        lengths[one.prompt].add((one.input_tokens, one.output_tokens, one.difficulty))
    assert all(len(found) == 1 for found in lengths.values())
    assert [one.arrival_s for one in assigned] == [one.arrival_s for one in plain]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"easy": 1.5}, r"easy must lie in 0 to 1, not 1\.5"),
        ({"repeated": -0.1}, "repeated must lie in 0 to 1"),
        ({"easy": 0.7, "middling": 0.5}, r"easy \+ middling is 1\.2"),
    ],
)
def test_an_impossible_mix_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.Mix(**values)


def test_the_mix_says_of_itself_that_it_is_assumed() -> None:
    assert str(prompts.Mix()) == (
        "60% easy, 25% middling, 15% hard; 4% sensitive, 5% repeated (synthetic prompts, assumed shares)"
    )


def test_few_signatures_stand_for_many_requests() -> None:
    requests = traces.synthesize(minutes=30, seed=2).requests

    signatures = {prompts.signature(one) for one in requests}

    assert len(signatures) < len(requests) / 5
    for one in requests[:200]:
        stand_in = prompts.representative(prompts.signature(one))
        assert stand_in.sensitive == one.sensitive
        assert prompts._question(stand_in) == prompts._question(one)
        assert 0.8 < stand_in.input_tokens / one.input_tokens < 1.25 or one.input_tokens < 8


@pytest.mark.parametrize(
    ("quantiles", "p50", "p90", "p95"),
    [(synthetic.INPUT_QUANTILES, 1020, 2734, 4083), (synthetic.OUTPUT_QUANTILES, 129, 424, 451)],
    ids=["input", "output"],
)
def test_lengths_go_through_the_published_quantiles(
    quantiles: tuple[tuple[float, int], ...], p50: int, p90: int, p95: int
) -> None:
    assert [synthetic.length(quantiles, share) for share in (0.5, 0.9, 0.95)] == [p50, p90, p95]
    assert synthetic.length(quantiles, 0.0) == quantiles[0][1]
    assert synthetic.length(quantiles, 1.0) == quantiles[-1][1]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_is_never_a_shorter_length(first: float, second: float) -> None:
    low, high = sorted((first, second))

    assert synthetic.length(synthetic.INPUT_QUANTILES, low) <= synthetic.length(synthetic.INPUT_QUANTILES, high)


def test_the_synthetic_trace_has_the_rate_the_means_and_the_course_it_claims() -> None:
    trace = traces.synthesize(minutes=60, seed=1, mix=prompts.Mix(repeated=0))

    assert trace.mean_rps == pytest.approx(5.53, rel=0.05)
    # published means of the Azure 2023 conversation trace: 1,155 input and 211 output tokens
    mean_input = sum(one.input_tokens for one in trace.requests) / len(trace.requests)
    mean_output = sum(one.output_tokens for one in trace.requests) / len(trace.requests)
    assert mean_input == pytest.approx(1155, rel=0.08)
    assert mean_output == pytest.approx(211, rel=0.08)
    per_tenth = collections.Counter(int(one.arrival_s // 360) for one in trace.requests)
    calm, burst, after = per_tenth[0], per_tenth[5], per_tenth[9]
    assert burst / calm == pytest.approx(2.2 / 0.4, rel=0.2)
    assert after / calm == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_gaps_vary_as_asked_for(cv: float) -> None:
    flat = (synthetic.Phase("flat", 1.0, 1.0, 1.0),)
    times = [one.arrival_s for one in traces.synthesize(minutes=60, seed=1, mean_rps=5, course=flat, cv=cv).requests]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5

    assert deviation / mean == pytest.approx(cv, rel=0.06)


def test_the_synthetic_trace_repeats_by_seed() -> None:
    assert traces.synthesize(minutes=3, seed=1) == traces.synthesize(minutes=3, seed=1)
    assert traces.synthesize(minutes=3, seed=1) != traces.synthesize(minutes=3, seed=2)


@pytest.mark.parametrize("name", ["minutes", "mean_rps", "cv"])
def test_an_impossible_synthetic_trace_is_refused(name: str) -> None:
    with pytest.raises(TraceError, match=f"{name} must be a finite number above 0, not -1"):
        traces.synthesize(**({"minutes": 1.0} | {name: -1.0}))  # type: ignore[arg-type]


def test_a_synthetic_trace_without_a_request_is_an_error() -> None:
    with pytest.raises(TraceError, match=r"no request falls into 0\.01 minutes"):
        traces.synthesize(minutes=0.01, mean_rps=0.001)
