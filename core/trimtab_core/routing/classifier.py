"""The complexity score: how much more a large model is likely to help on this prompt than on others.

A logistic model over ``features.NAMES``. The built-in weights come from ``benchmarks/fit/complexity.py``;
a table may bring others. Pure and tiny, so that router and simulator score alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core.routing import features, table

BUILTIN = table.Classifier(
    version="lexical-2",
    intercept=-2.315,
    weights={
        "words": 4.326,
        "word_length": -1.944,
        "digits": 0.132,
        "maths": -0.194,
        "code": 1.231,
        "options": -0.118,
        "lines": -0.282,
        "reasoning": 0.600,
        "tasks": 0.400,
        "simple": -0.500,
        "turns": 0.100,
        "context": 0.200,
        "lexicon": 1.000,
    },
)
"""Fitted to how much better a large model did than a small one on 13,084 prompts of five public sets, one half of them.

On the other half, sending the highest scores to the large model recovers this mean share of the gap over all call rates
(random 0.50): 0.77 on mixed traffic (LLMRouter mix; 0.74 by a fit that never saw that set), 0.62 MMLU and GSM8K
(RouteLLM), 0.61 RouterArena, 0.53 MMLU-Pro, 0.48 to 0.56 inside single exams (ZeroEval). Mean of the sets 0.62, prompt
length alone 0.55. A fit that never saw a set reaches 0.55 there on average: a modest hint on traffic unlike these, so a
policy's own measurement (``objective.discrimination``) should replace ``quality.DISCRIMINATION``. Scores are about
uniform in 0 to 1 over the fitted prompts. Reasoning, tasks, small talk, turns and context are weighted by hand.
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier ready for use: weights in the order of ``features.NAMES``."""

    version: str
    intercept: float
    weights: tuple[float, ...]


def compile_model(parameters: table.Classifier) -> Model:
    """The model of a table; without weights, the built-in one.

    Raises:
        table.TableError: if a weight names no feature or is not finite.
    """
    chosen = parameters if parameters.weights else BUILTIN
    unknown = sorted(set(chosen.weights) - set(features.NAMES))
    if unknown:
        raise table.TableError(f"classifier.weights: unknown features {', '.join(unknown)}")
    if not all(map(math.isfinite, [chosen.intercept, *chosen.weights.values()])):
        raise table.TableError("classifier.weights: every weight must be a finite number")
    return Model(chosen.version, chosen.intercept, tuple(chosen.weights.get(name, 0.0) for name in features.NAMES))


def score(model: Model, values: Sequence[float]) -> float:
    """Complexity in [0, 1]: the logistic function of the weighted sum.

    Args:
        model: a compiled classifier.
        values: from ``features.extract``.
    """
    total = model.intercept
    for weight, value in zip(model.weights, values, strict=True):
        total += weight * value
    return 1 / (1 + math.exp(-max(-40.0, min(40.0, total))))
