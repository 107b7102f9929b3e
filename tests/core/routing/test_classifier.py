"""The complexity score: a probability, monotone in its weights, with parameters that a table may bring."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.routing import classifier, features, table

EASY = "Hello, how are you?"
HARD = (
    "Prove that x^2 + y^2 = z^2 has integer solutions, then compute 17 of them with x < 1000: 3^2 + 4^2 = 5^2, ..." * 3
)


def score(text: str, parameters: table.Classifier = classifier.BUILTIN) -> float:
    model = classifier.compile_model(parameters)
    return classifier.score(model, features.extract(text, turns=1, context_chars=len(text)))


@given(st.text(max_size=500))
def test_a_score_is_a_probability(text: str) -> None:
    assert 0 <= score(text) <= 1


def test_hard_prompts_score_above_easy_ones() -> None:
    assert score(HARD) > 0.5 > score(EASY)


def test_a_table_without_weights_uses_the_builtin_fit() -> None:
    assert classifier.compile_model(table.Classifier()).version == classifier.BUILTIN.version


def test_a_tables_own_weights_are_used_alone() -> None:
    model = classifier.compile_model(table.Classifier("mine", 0.0, {"questions": 100.0}))
    assert classifier.score(model, features.extract("?", turns=1, context_chars=1)) > 0.99
    assert classifier.score(model, features.extract(".", turns=1, context_chars=1)) == 0.5


@pytest.mark.parametrize(
    ("weights", "intercept", "why"),
    [({"vibes": 1.0}, 0.0, "unknown features vibes"), ({"digits": float("nan")}, 0.0, "finite"),
     ({"digits": 1.0}, float("inf"), "finite")],
)  # fmt: skip
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float], intercept: float, why: str) -> None:
    with pytest.raises(table.TableError, match=why):
        classifier.compile_model(table.Classifier("x", intercept, weights))


def test_extreme_sums_do_not_overflow() -> None:
    for weight in (1e9, -1e9):
        model = classifier.compile_model(table.Classifier("x", 0.0, {"length": weight}))
        assert classifier.score(model, features.extract("abc", turns=1, context_chars=3)) in (
            pytest.approx(0, abs=1e-9),
            pytest.approx(1, abs=1e-9),
        )
