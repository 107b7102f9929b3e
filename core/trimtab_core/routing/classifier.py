"""The complexity score: how likely a small model is to fail on a prompt where a large one would not.

A logistic model over ``features.NAMES``. The built-in weights come from ``benchmarks/fit/complexity.py``;
a table may bring others. Pure and tiny, so that router and simulator score alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core.routing import features, table

BUILTIN = table.Classifier(
    version="lexical-1",
    intercept=-1.310,
    weights={
        "words": 0.566,
        "digits": 0.456,
        "maths": 0.311,
        "reasoning": 0.041,
        "tasks": 0.035,
        "questions": -0.259,
        "lines": -0.010,
        "options": -0.151,
        "turns": 0.100,
        "context": 0.200,
    },
)
"""Fitted on 25,508 development rows of five public sets of routing outcomes, each set weighted alike.

Area under the ROC curve for "an 8B-class model fails", cross-validated by prompt: 0.638 over all, and inside one
set 0.748 (ZeroEval), 0.639 (RouteLLM), 0.639 (RouterArena), 0.590 (MMLU-Pro), 0.500 (LLMRouter mix). Prompt length
alone reaches 0.567. Turns and context are set by hand. A modest hint, and better than none.
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
