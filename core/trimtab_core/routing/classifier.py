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
    version="lexical-0",
    intercept=-3.2,
    weights={
        "length": 0.8,
        "words": 0.4,
        "word_length": 0.6,
        "digits": 0.3,
        "maths": 0.35,
        "code": 0.4,
        "reasoning": 0.5,
        "tasks": 0.3,
        "simple": -0.35,
        "questions": -0.1,
        "lines": 0.1,
        "options": 0.1,
        "turns": 0.1,
        "context": 0.3,
    },
)


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
