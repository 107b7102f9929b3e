"""Public sets of prompts that several models have answered, each with who was right.

Every prompt lies in one of two halves, by a hash of its question: what is fitted is fitted on one half, what is told
is told of the other. The hash sees only the letters and digits before the options to choose from, so that one
question in two layouts lies in one half. Reading needs pyarrow.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FIT, JUDGE = "fit", "judge"
"""The two halves."""
FILES = (
    "routellm_mmlu_gsm8k_mixtral_vs_gpt4.parquet",
    "mmlupro_16models.parquet",
    "llmrouter_mix_9models.parquet",
    "routerarena_10pct_2models.parquet",
    "zeroeval_prompts.parquet",
    "zeroeval_outcomes_long.parquet",
)
_OPTIONS = "\nA."
_QUESTION, _INSTRUCTION = "## Question:", "## Instruction"


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt.

    Attributes:
        set: where it comes from.
        text: the question as a user would ask it.
        outcomes: how good each model's answer was, 0 to 1, by the model's name in the set.
    """

    set: str
    text: str
    outcomes: Mapping[str, float]

    @property
    def half(self) -> str:
        """The half in which it lies."""
        question = self.text.partition(_OPTIONS)[0]
        letters = "".join(letter for letter in question.lower() if letter.isalnum())
        return (FIT, JUDGE)[int(hashlib.sha256(letters.encode()).hexdigest()[:8], 16) % 2]


def missing(folder: pathlib.Path) -> str:
    """Why the sets can't be read from ``DATA/routing``, or nothing."""
    absent = [name for name in FILES if not (folder / name).exists()]
    if absent:
        return f"{absent[0]} is not in {folder}; set TRIMTAB_DATA to the folder that holds routing/"
    return "" if importlib.util.find_spec("pyarrow") else "pyarrow is not installed: pip install pyarrow"


def read(folder: pathlib.Path) -> list[Answered]:
    """All prompts of all sets that have a text and at least two answers."""
    found = [*_routellm(folder), *_mmlupro(folder), *_llmrouter(folder), *_routerarena(folder), *_zeroeval(folder)]
    return [one for one in found if one.text and len(one.outcomes) > 1]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _prefixed(row: dict[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of the columns ``PREFIX|MODEL``, by model."""
    values = ((name.partition("|")[2], value) for name, value in row.items() if name.startswith(prefix + "|"))
    return {model: float(value) for model, value in values if value is not None}


def _routellm(folder: pathlib.Path) -> Iterator[Answered]:
    """MMLU and GSM8K by gpt-4-1106-preview and Mixtral-8x7B (lm-sys/RouteLLM)."""
    for row in _rows(folder / FILES[0]):
        found = {"mixtral-8x7b": float(row["weak_correct"]), "gpt-4-1106": float(row["strong_correct"])}
        yield Answered("routellm", row["prompt"].removesuffix("Answer:").strip(), found)


def _mmlupro(folder: pathlib.Path) -> Iterator[Answered]:
    """MMLU-Pro by 16 models (TIGER-AI-Lab/MMLU-Pro)."""
    for row in _rows(folder / FILES[1]):
        yield Answered("mmlupro", row["prompt"].strip(), _prefixed(row, "ok"))


def _llmrouter(folder: pathlib.Path) -> Iterator[Answered]:
    """13 kinds of tasks by 9 models (ulab-uiuc/LLMRouter)."""
    for row in _rows(folder / FILES[2]):
        yield Answered("llmrouter", row["prompt"].strip(), _prefixed(row, "score"))


def _routerarena(folder: pathlib.Path) -> Iterator[Answered]:
    """Over 60 small sets by two models (RouteWorks/RouterArena); one row for each model."""
    texts: dict[int, str] = {}
    scores: dict[int, dict[str, float]] = {}
    for row in _rows(folder / FILES[3]):
        texts[row["global_index"]] = row["question"] or ""
        scores.setdefault(row["global_index"], {})[row["model"]] = float(row["score"])
    for index, text in texts.items():
        yield Answered("routerarena", text.strip(), scores[index])


def _zeroeval(folder: pathlib.Path) -> Iterator[Answered]:
    """GSM8K, MATH level 5 and CRUX by some 40 models (WildEval/ZeroEval); the template around the question is cut."""
    outcomes: dict[tuple[str, str], dict[str, float]] = {}
    for row in _rows(folder / FILES[5]):
        outcomes.setdefault((row["dataset"], row["id"]), {})[row["model"]] = float(row["ok"])
    for row in _rows(folder / FILES[4]):
        text = row["prompt"].strip().removeprefix(_QUESTION).partition(_INSTRUCTION)[0].strip()
        yield Answered(f"zeroeval-{row['dataset']}", text, outcomes.get((row["dataset"], row["id"]), {}))
