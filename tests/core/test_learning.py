"""What replicas can carry, learned from their counters: it converges, it can't be fooled by much, and it holds no NaN."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_core import counters, learning
from trimtab_core.counters import Reading
from trimtab_core.learning import Law, Learned, Shape

PRIOR = Law(0.020, 0.0008, 8000.0)
SLOWER = Law(0.025, 0.0010, 6400.0)
"""Everything takes 25 % longer."""
START = 1_800_000_000.0
STEP = 15.0


class Engine:
    """An engine that follows a law exactly: its counters after each interval."""

    def __init__(self, law: Law, *, at: float = START) -> None:
        self.law = law
        self.reading = Reading(at, 0.0, 0.0, 0.0)

    def run(self, sequences: float, prompts_per_second: float, *, seconds: float = STEP) -> Reading:
        """An interval with so many sequences decoding and prompt tokens coming."""
        last, decode = self.reading, self.law.itl_seconds(sequences + counters.OWN_SEQUENCE)
        itl = decode / (
            1 - prompts_per_second / self.law.prefill_tokens_per_second
        )  # the share of prefill stretches it
        self.reading = Reading(
            last.at + seconds,
            last.gap_seconds + sequences * seconds,
            last.gaps + sequences * seconds / itl,
            last.prompt_tokens + prompts_per_second * seconds,
        )
        return self.reading


def loads(count: int, seed: int = 1) -> Iterable[tuple[float, float]]:
    """Sequences and prompt tokens per second, both moving."""
    rng = random.Random(seed)
    return [(rng.uniform(5, 40), rng.uniform(200, 2500)) for _ in range(count)]


def feed(learned: Learned, engine: Engine, course: Iterable[tuple[float, float]]) -> Learned:
    learned = learning.observe(learned, {"a": engine.reading})
    for sequences, prompts in course:
        learned = learning.observe(learned, {"a": engine.run(sequences, prompts)})
    return learned


def off(law: Law, truth: Law, sequences: float = 40.0, tokens_per_step: float = 50.0) -> float:
    """Relative error of a step's length."""
    return abs(law.itl_seconds(sequences, tokens_per_step) / truth.itl_seconds(sequences, tokens_per_step) - 1)


# It learns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(SLOWER, id="25 % slower"),
        pytest.param(Law(0.015, 0.0006, 10_700.0), id="25 % faster"),
        pytest.param(Law(0.030, 0.0004, 8000.0), id="longer base, flatter slope"),
        pytest.param(Law(0.020, 0.0008, 4000.0), id="prefill half as fast"),
        pytest.param(PRIOR, id="as the prior says"),
    ],
)
def test_a_few_minutes_of_counters_tell_the_law(truth: Law) -> None:
    learned = feed(learning.begin(PRIOR), Engine(truth), loads(24))
    assert learned.law is not None
    assert off(learned.law, truth) < 0.03
    assert learned.law.prefill_tokens_per_second == pytest.approx(truth.prefill_tokens_per_second, rel=0.1)
    assert learned.error < 0.05


def test_an_interval_is_what_the_counters_gained() -> None:
    # 150 gap seconds in 15 s are 10 sequences, and a token sees about half a one more; 5,000 gaps of 30 ms; 15,000
    # prompt tokens in 15 s / 30 ms = 500 steps are 30 a step.
    found = counters.between(Reading(START, 10.0, 100.0, 50.0), Reading(START + 15, 160.0, 5100.0, 15_050.0))
    assert found is not None
    assert found.itl_seconds == pytest.approx(0.030)
    assert found.sequences == pytest.approx(10.5)
    assert found.tokens_per_step == pytest.approx(30.0)


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(Reading(START + 15, 5.0, 90.0, 0.0), id="restarted"),
        pytest.param(Reading(START + 15, 10.0, 100.0, 60.0), id="idle"),
        pytest.param(Reading(START + 3, 60.0, 2000.0, 60.0), id="too soon"),
        pytest.param(Reading(START + 301, 9000.0, 90_000.0, 60.0), id="too long ago"),
        pytest.param(Reading(START + 15, 12.0, 200.0, 60.0), id="mostly idle"),
    ],
)
def test_intervals_that_say_nothing_are_left_out(now: Reading) -> None:
    assert counters.between(Reading(START, 10.0, 100.0, 50.0), now) is None


def test_readings_that_come_too_often_add_up_to_an_interval() -> None:
    engine = Engine(SLOWER)
    learned = learning.observe(learning.begin(PRIOR), {"a": engine.reading})
    for _ in range(8):
        learned = learning.observe(learned, {"a": engine.run(20, 1000, seconds=2.0)})
    assert learned.samples == 4  # 8 readings 2 s apart are 4 intervals of 4 s


# It is careful --------------------------------------------------------------------------------------------------


def test_the_prior_stays_in_force_until_enough_was_seen() -> None:
    learned = feed(learning.begin(PRIOR), Engine(SLOWER), loads(learning.LEAST_SAMPLES - 1))
    assert learned.law is None
    assert feed(learned, Engine(SLOWER, at=START + 1000), loads(2)).law is not None


def test_a_law_moves_by_a_quarter_at_most_in_one_cycle() -> None:
    truth, engine = Law(0.060, 0.0024, 2700.0), Engine(Law(0.060, 0.0024, 2700.0))
    learned, before = learning.observe(learning.begin(PRIOR), {"a": engine.reading}), PRIOR
    for sequences, prompts in loads(40):
        learned = learning.observe(learned, {"a": engine.run(sequences, prompts / 3)})
        now = learned.law or PRIOR
        for new, old in zip(dataclasses.astuple(now), dataclasses.astuple(before), strict=True):
            assert 0.749 * old <= new <= 1.251 * old
        before = now
    assert off(before, truth) < 0.05


def test_little_movements_are_not_followed() -> None:
    engine = Engine(SLOWER)
    settled = feed(learning.begin(PRIOR), engine, loads(60))
    assert feed(settled, engine, loads(30, seed=2)).law == settled.law


def test_engines_that_idle_between_bursts_teach_nothing_and_are_watched_on() -> None:
    engine = Engine(SLOWER)
    learned = learning.observe(learning.begin(PRIOR), {"a": engine.reading})
    for sequences, prompts in loads(40):
        learned = learning.observe(learned, {"a": engine.run(sequences, prompts)}, steady=False)

    assert (learned.samples, learned.law) == (0, None)
    assert learned.readings["a"] == engine.reading  # so that the first steady interval begins here


def test_an_outlier_changes_nothing() -> None:
    engine = Engine(SLOWER)
    settled = feed(learning.begin(PRIOR), engine, loads(30))
    engine.law = Law(0.2, 0.008, 800.0)  # one interval behind somebody else's work
    outlying = learning.observe(settled, {"a": engine.run(20, 100)})
    assert outlying.multiples == settled.multiples
    assert len(outlying.outliers) == 1
    engine.law = SLOWER
    assert learning.observe(outlying, {"a": engine.run(20, 1000)}).outliers == ()


def test_replicas_that_have_changed_for_good_are_learned_anew() -> None:
    engine = Engine(PRIOR)
    settled = feed(learning.begin(PRIOR), engine, loads(60))
    engine.law = Law(0.040, 0.0016, 4000.0)  # a new version, half as fast
    course = list(loads(learning.RUN + learning.LEAST_SAMPLES + 6, seed=3))
    halfway = feed(settled, engine, course[: learning.RUN])
    assert halfway.samples == 0
    assert halfway.law == settled.law, "what is in force stays until there is something better"
    changed = feed(halfway, engine, course[learning.RUN :])
    assert changed.law is not None
    assert off(changed.law, engine.law) < 0.05


def test_one_slow_replica_of_four_does_not_speak_for_the_others() -> None:
    engines = {name: Engine(PRIOR) for name in "abc"} | {"d": Engine(Law(0.060, 0.0024, 2700.0))}
    learned = learning.observe(learning.begin(PRIOR), {name: one.reading for name, one in engines.items()})
    for sequences, prompts in loads(60):
        learned = learning.observe(learned, {name: one.run(sequences, prompts / 4) for name, one in engines.items()})
    assert learned.law is not None
    assert off(learned.law, PRIOR) < 0.1


def test_what_was_seen_at_few_sequences_does_not_count_for_many() -> None:
    few = feed(learning.begin(PRIOR), Engine(SLOWER), [(2.0, 100.0)] * 40)
    assert few.law is not None
    assert few.sequences < 3
    assert few.law.itl_per_sequence_seconds < PRIOR.itl_per_sequence_seconds * 1.4
    there = math.sqrt(few.covariance[1][1])
    assert there > 0.3, "the slope is as uncertain as before"


def test_longer_requests_make_the_slope_uncertain_again() -> None:
    engine = Engine(PRIOR)
    learned = learning.begin(PRIOR)
    for sequences, prompts in loads(60):
        learned = learning.observe(learned, {"a": engine.run(sequences, prompts)}, Shape(1000.0, 200.0))
    assert learned.shape == Shape(1000.0, 200.0)
    sure = learned.covariance[1][1]
    for sequences, prompts in loads(60):
        reading = engine.run(sequences, prompts)
        before, learned = learned, learning.observe(learned, {"a": reading}, Shape(2000.0, 200.0))
        if learned.shape != before.shape:
            break
    assert learned.shape is not None
    assert learned.shape.input_tokens > 1200
    assert learned.samples <= 1
    assert learned.covariance[1][1] > 10 * sure
    assert learned.law == before.law


def test_chance_in_the_lengths_is_no_change_of_shape() -> None:
    rng, engine, learned = random.Random(5), Engine(PRIOR), learning.begin(PRIOR)
    for sequences, prompts in loads(200):
        shape = Shape(1000 * rng.uniform(0.7, 1.3), 200 * rng.uniform(0.7, 1.3))
        learned = learning.observe(learned, {"a": engine.run(sequences, prompts)}, shape)
    assert learned.samples == 199


# It survives ----------------------------------------------------------------------------------------------------


def test_what_was_written_down_goes_on_where_it_was() -> None:
    learned = feed(learning.begin(PRIOR), Engine(SLOWER), loads(40))
    assert learned.law is not None
    resumed = learning.resume(PRIOR, learned.law, error=learned.error, sequences=learned.sequences, samples=40)
    assert resumed.law == learned.law
    assert resumed.estimate.itl_seconds(30) == pytest.approx(learned.law.itl_seconds(30))
    on = feed(resumed, Engine(SLOWER, at=START + 9999), loads(10, seed=4))
    assert on.law is not None
    assert off(on.law, SLOWER) < 0.03


@pytest.mark.parametrize(
    "law", [Law(math.nan, 0.001, 1000.0), Law(0.02, 0.001, 0.0), Law(math.inf, 0.001, 1000.0)], ids=str
)
def test_a_law_that_can_not_be_computed_with_begins_anew(law: Law) -> None:
    assert learning.resume(PRIOR, law, error=0.1, sequences=10, samples=20) == learning.begin(PRIOR)


def test_replicas_come_and_go_without_a_trace() -> None:
    one, other = Engine(SLOWER), Engine(SLOWER)
    learned = learning.observe(learning.begin(PRIOR), {"a": one.reading})
    learned = learning.observe(learned, {"a": one.run(10, 500)})
    learned = learning.observe(learned, {"b": other.run(10, 500, seconds=30)})
    assert list(learned.readings) == ["b"]
    assert learned.samples == 1


def test_the_smallest_cache_that_engines_tell_is_known_at_once() -> None:
    readings = {"a": Reading(START, 0.0, 0.0, 0.0, 90_000.0), "b": Reading(START, 0.0, 0.0, 0.0, 80_000.0)}
    learned = learning.observe(learning.begin(PRIOR), readings)
    assert learned.kv_tokens == 80_000
    assert learning.observe(learned, {}).kv_tokens == 80_000


@pytest.mark.parametrize(
    "truth",
    [Law(0.002, 0.00005, 200_000.0), Law(0.006, 0.00013, 40_000.0), Law(0.080, 0.003, 3_000.0)],
    ids=["1B on H100", "8B on H100", "70B on few slow devices"],
)
def test_a_model_of_which_nothing_is_known_is_learned_from_anywhere(truth: Law) -> None:
    engine = Engine(truth)
    course = [(n, prompts / 2000 * 0.3 * truth.prefill_tokens_per_second) for n, prompts in loads(100)]
    learned = feed(learning.begin(learning.ANY), engine, course)
    assert learned.law is not None
    assert off(learned.law, truth, 40.0, 0.0) < 0.1


@pytest.mark.parametrize(
    ("factor", "wrong"),
    [pytest.param(1.1, False, id="nearly"), pytest.param(1.3, True, id="slower"), pytest.param(0.7, True, id="faster")],
)
def test_a_written_law_is_wrong_when_steps_are_clearly_other_than_it_says(factor: float, wrong: bool) -> None:  # noqa: FBT001
    law = Law(0.020 * factor, 0.0008 * factor, 8000.0 / factor)
    known = feed(learning.begin(PRIOR), Engine(law), loads(60))
    assert learning.differs(known, PRIOR) is wrong
    assert not learning.differs(learning.begin(PRIOR), law), "nothing is known yet"


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e6)
any_readings = st.builds(Reading, st.floats(START, START + 1e5) | numbers, numbers, numbers, numbers, numbers)
shapes = st.none() | st.builds(Shape, numbers, numbers)


def finite(learned: Learned) -> bool:
    law = learned.law or PRIOR
    numbers = (
        *learned.multiples, *(value for row in learned.covariance for value in row), learned.noise, learned.error,
        learned.sequences, learned.tokens_per_sequence, *dataclasses.astuple(law),
    )  # fmt: skip
    return all(math.isfinite(number) for number in numbers)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("ab"), any_readings), shapes), max_size=12))
def test_no_reading_ever_brings_in_what_is_no_number(
    course: list[tuple[dict[str, Reading], Shape | None]],
) -> None:
    learned, engine = learning.begin(PRIOR), Engine(SLOWER)
    for readings, shape in course:
        learned = learning.observe(learned, {"c": engine.run(20, 1000)} | readings, shape)
        assert finite(learned)
        for value, low, high in zip(learned.multiples, learning.LOWEST, learning.HIGHEST, strict=True):
            assert low <= value <= high


@settings(deadline=None, max_examples=60)
@given(st.floats(0.4, 2.5), st.floats(0.4, 2.5), st.floats(0.4, 2.5), st.integers(0, 1000))
def test_any_law_near_the_prior_is_found(a: float, b: float, p: float, seed: int) -> None:
    truth = Law(PRIOR.itl_base_seconds * a, PRIOR.itl_per_sequence_seconds * b, PRIOR.prefill_tokens_per_second * p)
    learned = feed(learning.begin(PRIOR), Engine(truth), loads(60, seed))
    assert learned.law is not None
    assert off(learned.law, truth, 25.0) < 0.08
