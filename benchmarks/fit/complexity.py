"""Fit the built-in complexity classifier, and say how well it separates.

    TRIMTAB_DATA=DIR python benchmarks/fit/complexity.py

Reads routing outcomes from DIR/routing (needs pyarrow; only their dev rows are there), and fits a logistic
model of "a small model fails on this prompt" over ``routing.features``. Five sets count equally, whatever their
size. Signs are held where the meaning of a feature demands it, because the sets are exams: fitted freely, a
prompt's habits of formatting would be taken for its difficulty. Turns and context don't vary in exams; their
weights are set by hand and kept small. Prints cross-validated areas under the ROC curve and the weights to
paste into ``classifier.BUILTIN``.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from trimtab_core.routing import features

FOLDS = 5
RIDGE = 2e-3
STEPS = 4000
RATE = 0.5
BY_HAND = {"turns": 0.1, "context": 0.2}
AT_LEAST_ZERO = ("length", "words", "maths", "code", "reasoning", "tasks", "digits", "word_length")
AT_MOST_ZERO = ("simple",)

Row = tuple[str, str, float]
"""Set, prompt, 1 if the small model failed."""


def read(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """All rows of one file."""
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(folder / name).to_pylist()
    return rows


def rows(folder: pathlib.Path) -> Iterator[Row]:
    """Prompts and outcomes of a model of 7 to 13 billion active parameters, in five sets."""
    for row in read(folder, "routellm_mmlu_gsm8k_mixtral_vs_gpt4.parquet"):
        yield "routellm", row["prompt"], 1.0 - row["weak_correct"]
    for row in read(folder, "mmlupro_16models.parquet"):
        yield "mmlupro", row["prompt"], 1.0 - row["ok|Meta-Llama-3_1-8B-Instruct"]
    for row in read(folder, "llmrouter_mix_9models.parquet"):
        yield "llmrouter", row["prompt"], float(row["score|llama-3.1-8b-instruct"] < 0.5)
    for row in read(folder, "routerarena_10pct_2models.parquet"):
        if row["question"] and row["model"].startswith("claude-3-haiku"):
            yield "routerarena", row["question"], float(row["score"] < 0.5)
    prompts = {(row["dataset"], row["id"]): row["prompt"] for row in read(folder, "zeroeval_prompts.parquet")}
    for row in read(folder, "zeroeval_outcomes_long.parquet"):
        if row["model"] == "Meta-Llama-3.1-8B-Instruct" and (row["dataset"], row["id"]) in prompts:
            yield "zeroeval", prompts[row["dataset"], row["id"]], 1.0 - row["ok"]


def area(scores: np.ndarray, failed: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half."""
    order = np.argsort(scores, kind="mergesort")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):
        same = scores == value
        if same.sum() > 1:
            ranks[same] = ranks[same].mean()
    positive = failed > 0.5
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(failed) - count)))


def fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, names: list[str]) -> tuple[np.ndarray, float]:
    """Weights and intercept by projected gradient descent on standardised features, with a small ridge."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = (x - mean) / spread
    low = np.array([0.0 if name in AT_LEAST_ZERO else -np.inf for name in names])
    high = np.array([0.0 if name in AT_MOST_ZERO else np.inf for name in names])
    beta, bias = np.zeros(x.shape[1]), 0.0
    weight = weight / weight.sum()
    for _ in range(STEPS):
        error = weight * (1 / (1 + np.exp(-(z @ beta + bias))) - y)
        beta = np.clip(beta - RATE * (z.T @ error + RIDGE * beta), low, high)
        bias -= RATE * error.sum()
    return beta / spread, float(bias - (beta * mean / spread).sum())


def main() -> int:
    """Fit, judge, print."""
    folder = pathlib.Path(os.environ.get("TRIMTAB_DATA", "")) / "routing"
    if not folder.is_dir():
        print("set TRIMTAB_DATA to the folder that holds routing/*.parquet", file=sys.stderr)
        return 2
    data = list(rows(folder))
    names = [name for name in features.NAMES if name not in BY_HAND]
    columns = [features.NAMES.index(name) for name in names]
    x = np.array([features.extract(text, turns=1, context_chars=len(text)) for _, text, _ in data])[:, columns]
    y = np.array([failed for _, _, failed in data])
    sets = np.array([name for name, _, _ in data])
    weight = _equal(sets)
    folds = np.array([int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % FOLDS for _, text, _ in data])
    scores = np.zeros(len(data))
    for fold in range(FOLDS):
        train = folds != fold
        beta, bias = fit(x[train], y[train], weight[train], names)
        scores[~train] = x[~train] @ beta + bias
    print(f"{'set':12} {'rows':>6} {'fails':>6} {'AUC':>6} {'by length':>10}")
    for name in [*sorted(set(sets.tolist())), "all"]:
        here = sets == name if name != "all" else np.ones(len(data), dtype=bool)
        own, length = area(scores[here], y[here]), area(x[here, 0], y[here])
        print(f"{name:12} {here.sum():6} {y[here].mean():6.2f} {own:6.3f} {length:10.3f}")
    beta, bias = fit(x, y, weight, names)
    by_hand = sum(value * typical for value, typical in zip(BY_HAND.values(), (0.69, 1.05), strict=True))
    print(f"\nintercept={bias - by_hand:.3f},")
    for name, value in (*zip(names, beta.tolist(), strict=True), *BY_HAND.items()):
        print(f'"{name}": {value:.3f},')
    return 0


def _equal(sets: np.ndarray) -> np.ndarray:
    """Row weights by which all sets count alike."""
    counts = {name: int((sets == name).sum()) for name in set(sets.tolist())}
    return np.array([1 / counts[name] for name in sets.tolist()])


if __name__ == "__main__":
    sys.exit(main())
