"""Fit the built-in complexity classifier, and say how well it finds the prompts that need the larger model.

    TRIMTAB_DATA=DIR python benchmarks/fit/complexity.py [--write]

Reads routing outcomes from DIR/routing (needs pyarrow; only development rows are there). What is fitted is how much
better a large model does than a small one on a prompt, not how often the small one fails: a prompt on which both fail
is no reason to pay for the large one. A ridge regression sees shares and counts of ``routing.features``, and which
words occur. Sets count by the square root of their size. Only the words that matter most are kept; they make the
feature ``lexicon``. Features that exams can't teach (turns, context, small talk, tasks) get weights by hand, in logits.
The sum is scaled so that scores over the fitted prompts are about uniform in 0 to 1, as ``quality`` takes them to be.

Fitted on one half of the prompts and judged on the other (see ``headline.outcomes``): the area is the mean share of
the gap between both models that is recovered when the highest scores go to the larger one, over all call rates; random
is 0.50. ``m`` is ``6·(area - 1/2)``, the discrimination of ``trimtab_core.quality``. Prints both beside prompt length,
and for each set also the area of a fit that never saw that set; ``--write`` writes the lexicon. The weights are to be
pasted into ``classifier.BUILTIN``.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from trimtab_core.routing import features

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from headline import outcomes

LEXICON = pathlib.Path(features.__file__).with_name(features.LEXICON_FILE)
PAIRS = {
    "routellm": ("mixtral-8x7b", "gpt-4-1106"),
    "mmlupro": ("Meta-Llama-3_1-8B-Instruct", "Meta-Llama-3_1-70B-Instruct"),
    "llmrouter": ("llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct"),
    "routerarena": ("claude-3-haiku-20240307", "gemini-2.0-flash-001"),
    "zeroeval": ("Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-405B-Instruct@hyperbolic"),
}
"""By set, a small and a large model whose outcomes are trusted."""
DENSE = ("words", "word_length", "digits", "maths", "code", "options", "lines")
BY_HAND = {"reasoning": 0.6, "tasks": 0.4, "simple": -0.5, "turns": 0.1, "context": 0.2}
TYPICAL = {"turns": 0.69, "context": 1.05}
"""What these two are for a prompt of the fitted sets: they must not move the middle."""
RIDGE = 20.0
DENSE_SCALE = 0.3
"""Spread of the dense columns beside the words': below 1 they are held back more."""
LEAST_ROWS, LEAST_SETS = 8, 2
"""A word counts if it is in so many prompts, of so many sets."""
WORDS = 1000
"""Words that are kept; 500 to 8,000 make no difference above the noise."""
LOGISTIC_SPREAD = 1.81
"""Standard deviation of the logistic distribution: scores of such logits are uniform."""
STEPS = 300


@dataclass(frozen=True)
class Rows:
    """Prompts with their gaps, their dense features, and their distinct words."""

    sets: np.ndarray
    gaps: np.ndarray
    halves: np.ndarray
    values: np.ndarray
    words: list[list[bytes]]
    texts: list[str]

    @classmethod
    def of(cls, found: Sequence[outcomes.Answered]) -> Rows:
        """All prompts that both models of their set's pair have answered."""
        kept = []
        for one in found:
            small, large = PAIRS[one.set.partition("-")[0]]
            if small in one.outcomes and large in one.outcomes:
                kept.append((one, one.outcomes[large] - one.outcomes[small]))
        texts = [one.text for one, _ in kept]
        return cls(
            np.array([one.set for one, _ in kept]),
            np.array([gap for _, gap in kept]),
            np.array([one.half for one, _ in kept]),
            np.array([features.extract(text, turns=1, context_chars=len(text)) for text in texts]),
            [sorted(set(features.words(text.encode(errors="replace")))) for text in texts],
            texts,
        )

    @property
    def families(self) -> np.ndarray:
        """The set without its part: what must not be split when a set is left out."""
        return np.array([name.partition("-")[0] for name in self.sets])


@dataclass(frozen=True)
class Fit:
    """A fitted score: ``intercept + Σ dense·value + Σ worth of distinct words / sqrt(their number)``, in logits."""

    intercept: float
    dense: dict[str, float]
    worth: dict[bytes, float]

    def scores(self, rows: Rows) -> np.ndarray:
        """In logits."""
        total = np.full(len(rows.gaps), self.intercept)
        for name, weight in (self.dense | BY_HAND).items():
            total += weight * rows.values[:, features.NAMES.index(name)]
        lexicon = [sum(self.worth.get(word, 0.0) for word in words) / max(1, len(words)) ** 0.5 for words in rows.words]
        return total + np.array(lexicon)


class Matrix:
    """Standardised dense columns beside word presence over the root of distinct words; products only."""

    def __init__(self, dense: np.ndarray, words: Sequence[Sequence[bytes]], vocabulary: Sequence[bytes]) -> None:
        at = {word: number for number, word in enumerate(vocabulary)}
        known = [[at[word] for word in each if word in at] for each in words]
        lengths = np.array([len(each) for each in known])
        self.dense, self.width = dense, len(vocabulary)
        self.column = np.concatenate([np.array(each, dtype=np.int64) for each in known])
        self.row = np.repeat(np.arange(len(known)), lengths)
        self.value = np.array([max(1, len(each)) ** -0.5 for each in words])[self.row]

    def times(self, beta: np.ndarray) -> np.ndarray:
        """``X·beta``."""
        sparse = np.bincount(self.row, self.value * beta[-self.width :][self.column], minlength=len(self.dense))
        found: np.ndarray = self.dense @ beta[: -self.width] + sparse
        return found

    def transposed(self, error: np.ndarray) -> np.ndarray:
        """``Xᵀ·error``."""
        sparse = np.bincount(self.column, self.value * error[self.row], minlength=self.width)
        return np.concatenate([self.dense.T @ error, sparse])


def ridge(x: Matrix, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights that minimise ``Σ weight·(X·beta - y)² + RIDGE·|beta|²``, by conjugate gradients."""
    beta = np.zeros(x.dense.shape[1] + x.width)
    residual = x.transposed(weight * y)
    direction, size = residual.copy(), residual @ residual
    for _ in range(STEPS):
        image = x.transposed(weight * x.times(direction)) + RIDGE * direction
        step = size / (direction @ image)
        beta += step * direction
        residual -= step * image
        size, before = residual @ residual, size
        if size < 1e-12:
            break
        direction = residual + size / before * direction
    return beta


def fit(rows: Rows, chosen: np.ndarray) -> Fit:
    """The score fitted on the chosen rows."""
    at = np.flatnonzero(chosen)
    words = [rows.words[index] for index in at]
    values = rows.values[at][:, [features.NAMES.index(name) for name in DENSE]]
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    spread = spread / DENSE_SCALE
    dense = (values - mean) / spread
    weight = _weights(rows.families[at])
    centre = float((weight * rows.gaps[at]).sum() / weight.sum())
    vocabulary = _vocabulary(words, rows.families[at])
    x = Matrix(dense, words, vocabulary)
    beta = ridge(x, rows.gaps[at] - centre, weight)
    counts = np.bincount(x.column, minlength=len(vocabulary))
    matters = np.abs(beta[len(DENSE) :]) * np.sqrt(counts)
    vocabulary = [vocabulary[index] for index in sorted(np.argsort(-matters, kind="stable")[:WORDS])]
    x = Matrix(dense, words, vocabulary)
    beta = ridge(x, rows.gaps[at] - centre, weight)
    found = x.times(beta)
    scale = LOGISTIC_SPREAD / found.std()
    slopes = scale * beta[: len(DENSE)] / spread
    typical = sum(weight * TYPICAL[name] for name, weight in BY_HAND.items() if name in TYPICAL)
    intercept = -scale * float(np.median(found)) - float(slopes @ mean) - typical
    worth = dict(zip(vocabulary, scale * beta[len(DENSE) :], strict=True))
    return Fit(intercept, dict(zip(DENSE, slopes.tolist(), strict=True)), worth)


def _weights(families: np.ndarray) -> np.ndarray:
    """Row weights by which a set counts like the root of its size; their mean is 1."""
    counts = collections.Counter(families.tolist())
    weight = np.array([counts[name] ** -0.5 for name in families.tolist()])
    return weight / weight.mean()


def _vocabulary(words: Sequence[Sequence[bytes]], families: np.ndarray) -> list[bytes]:
    rows: collections.Counter[bytes] = collections.Counter()
    seen: dict[bytes, set[str]] = {}
    for each, family in zip(words, families.tolist(), strict=True):
        rows.update(each)
        for word in each:
            seen.setdefault(word, set()).add(family)
    return sorted(word for word, count in rows.items() if count >= LEAST_ROWS and len(seen[word]) >= LEAST_SETS)


def area(scores: np.ndarray, gaps: np.ndarray) -> float:
    """Mean share of the gap that is recovered when the highest scores go to the larger model, over all call rates."""
    order = np.argsort(-scores, kind="stable")
    recovered = np.concatenate([[0.0], np.cumsum(gaps[order])])
    return float(recovered.mean() / recovered[-1])


def noise(gaps: np.ndarray) -> float:
    """Standard deviation of the area of a random order: ``sd(gap) / (mean gap · sqrt(12 n))``, to first order."""
    return float(gaps.std() / abs(gaps.mean()) / (12 * len(gaps)) ** 0.5)


def judge(rows: Rows, fitted: Fit) -> None:
    """Print areas on the half that the fit has not seen, and of fits that have not seen a whole set."""
    scores, judged = fitted.scores(rows), rows.halves == outcomes.JUDGE
    unseen = np.zeros(len(rows.gaps))
    for family in PAIRS:
        left_out = rows.families == family
        unseen[left_out] = fit(rows, ~left_out & ~judged).scores(rows)[left_out]
    print(f"{'set':18} {'rows':>6} {'gap':>6} {'area':>6} {'m':>6} {'noise':>6} {'by length':>10} {'set unseen':>11}")
    for name in [*sorted(set(rows.sets.tolist())), "all"]:
        here = judged & ((rows.sets == name) | (name == "all"))
        gaps, length = rows.gaps[here], area(rows.values[here, 0], rows.gaps[here])
        own = area(scores[here], gaps)
        print(
            f"{name:18} {here.sum():6} {gaps.mean():6.3f} {own:6.3f} {6 * own - 3:6.2f} {noise(gaps):6.3f} "
            f"{length:10.3f} {area(unseen[here], gaps):11.3f}"
        )
    swapped = fit(rows, judged).scores(rows)
    print(f"{'mean of the sets':32} {_told(_mean(rows, scores, judged))}, by length", end=" ")
    print(f"{_mean(rows, rows.values[:, 0], judged):.3f}, set unseen {_mean(rows, unseen, judged):.3f};", end=" ")
    print(f"halves swapped {_told(_mean(rows, swapped, ~judged))}")


def _told(mean_area: float) -> str:
    return f"{mean_area:.3f} (m = {6 * mean_area - 3:.2f})"


def _mean(rows: Rows, scores: np.ndarray, chosen: np.ndarray) -> float:
    """The area within each set, averaged over the sets."""
    areas = [area(scores[here], rows.gaps[here]) for here in (chosen & (rows.families == name) for name in PAIRS)]
    return float(np.mean(areas))


def main() -> int:
    """Fit, judge, print; 2 if the data can't be read."""
    parser = argparse.ArgumentParser(description="Fit the built-in complexity classifier.")
    parser.add_argument("--write", action="store_true", help="write the lexicon of words")
    options = parser.parse_args()
    folder = pathlib.Path(os.environ.get("TRIMTAB_DATA", "../shared/data")) / "routing"
    absent = outcomes.missing(folder)
    if absent:
        print(absent, file=sys.stderr)
        return 2
    rows = Rows.of(outcomes.read(folder))
    fitted = fit(rows, rows.halves == outcomes.FIT)
    judge(rows, fitted)
    print(f"\n{(rows.halves == outcomes.FIT).sum()} rows fitted\nintercept={fitted.intercept:.3f},")
    for name, weight in (*fitted.dense.items(), *BY_HAND.items(), ("lexicon", 1.0)):
        print(f'"{name}": {weight:.3f},')
    if options.write:
        lines = (word + b"\t%d" % round(1000 * worth) for word, worth in sorted(fitted.worth.items()))
        LEXICON.write_bytes(b"\n".join(lines) + b"\n")
        print(f"wrote {len(fitted.worth)} words to {LEXICON.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
