"""Fits the constants of ``catalog/profiles.py`` to step times of vLLM, and says how well they fit.

    python benchmarks/fit/capacity_priors.py [--rounds N]

Rows: the silicon sample of ai-dynamo/aiconfigurator (vLLM, one pipeline stage, dev rows) with weight 1, and the same
project's simulations for the hardware that the sample lacks, with weight 0.6. A row tells the time between tokens at a
held number of requests; the prediction is a + b·n + prompt tokens per step / P, with b scaled to the row's context.
Found by coordinate descent on the mean absolute logarithm of the ratio, capped at 0.7 so that odd rows don't decide.
Constants are rounded by hand before they are written into the module. Data: ``TRIMTAB_DATA`` or ``../shared/data``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import os
import pathlib
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_core.catalog import accelerators, models, profiles

HERE = pathlib.Path(__file__).parent
DATA = pathlib.Path(os.environ.get("TRIMTAB_DATA", HERE.parents[2] / "shared/data")) / "perf"
SILICON, SIMULATED = "silicon_agg_ttft_tpot.csv.gz", "aiconfigurator_vllm_sweep.csv.gz"
SYSTEMS = {"h100_sxm": "H100", "h200_sxm": "H200", "b200_sxm": "B200", "a100_sxm": "A100-80", "l40s": "L40S"}
METHODS = {"fp8": "fp8", "fp8_block": "fp8", "nvfp4": "nvfp4", "int4_wo": "int4", "": "none"}
SIMULATED_WEIGHT = 0.6
LARGEST_ERROR = 0.7
LARGEST_WAIT = 0.5
"""Rows whose first token took longer than this share of the others waited for a slot: who ran meanwhile isn't told."""
LEAST_OUTPUT = 100
"""Shorter answers measure prefill more than steps."""
DENSE = (
    "MEMORY_EFFICIENCY", "COMPUTE_EFFICIENCY", "STEP_OVERHEAD_SECONDS", "SECONDS_PER_DOUBLING",
    "SEQUENCE_SECONDS_PER_DOUBLING", "KV_SCALING", "PREFILL_SCALING", "PREFILL_SCALING_WITHOUT_LINK", "FOUR_BIT_READ",
)  # fmt: skip
MIXTURES = ("EXPERT_SHARE_READ", "EXPERTS_PER_TOKEN", "MIXTURE_COMPUTE")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured or simulated step time.

    Attributes:
        requests: held at once.
        sequences: of them decoding, on average.
        itl_seconds: mean time between tokens.
        weight: in the fit; 1 where it was measured.
        run: date, version and source of the measurement.
    """

    model: str
    accelerator: str
    count: int
    method: str
    requests: float
    sequences: float
    input_tokens: float
    output_tokens: float
    itl_seconds: float
    weight: float = 1.0
    run: str = ""

    @property
    def tokens_per_step(self) -> float:
        """Prompt tokens that a step computes: one prompt for each answer that ends."""
        return self.sequences * self.input_tokens / self.output_tokens

    @property
    def mixture(self) -> bool:
        """Whether the model is a mixture of experts."""
        found = models.find(self.model)
        return found is not None and found.mixture


def silicon(path: pathlib.Path) -> Iterator[Row]:
    """Measured rows of vLLM for models and hardware that the catalogue knows."""
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            plain = row["pp_size"] in {"", "1.0"} and row["attention_dp_size"] in {"", "1.0"}
            whole = row["gpus"] == row["tp_size"]
            known = row["system"] in SYSTEMS and models.find(row["model_path"]) is not None
            itl, ttft = float(row["tpot_ms"]) / 1e3, float(row["ttft_ms"]) / 1e3
            decoding = itl * (float(row["osl"]) - 1)
            queued = ttft > LARGEST_WAIT * decoding
            if row["backend"] != "vllm" or queued or not (plain and whole and known):
                continue
            yield Row(
                model=row["model_path"],
                accelerator=SYSTEMS[row["system"]],
                count=int(float(row["tp_size"])),
                method=METHODS[row["gemm_quant_mode"]],
                requests=float(row["conc"]),
                sequences=max(1.0, float(row["conc"]) * decoding / (ttft + decoding)),
                input_tokens=float(row["isl"]),
                output_tokens=float(row["osl"]),
                itl_seconds=itl,
                run=" ".join((row["measured"], row["backend_version"], row["source"])),
            )


def simulated(path: pathlib.Path) -> Iterator[Row]:
    """Simulated rows, 16-bit weights."""
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if float(row["osl"]) >= LEAST_OUTPUT:
                yield Row(
                    model=row["model"],
                    accelerator=SYSTEMS[row["system"]],
                    count=int(row["tp"]),
                    method="none",
                    requests=float(row["batch"]),
                    sequences=float(row["batch"]),
                    input_tokens=float(row["isl"]),
                    output_tokens=float(row["osl"]),
                    itl_seconds=float(row["tpot_ms"]) / 1e3,
                    weight=SIMULATED_WEIGHT,
                )


def predicted(row: Row) -> float | None:
    """Seconds between tokens by the catalogue; None where it has no prior."""
    profile = profiles.prior(row.model, row.accelerator, row.count, row.method)
    model, hardware = models.find(row.model), accelerators.find(row.accelerator)
    if profile is None or model is None or hardware is None:
        return None
    # The prior's slope is for a context of 1,024 + 128 tokens; only its reading of keys and values grows with it.
    shards = min(row.count, model.kv_heads)
    bandwidth = hardware.bandwidth_gb_per_second * 1e9 * hardware.bandwidth_reached * profiles.MEMORY_EFFICIENCY
    token = model.kv_bytes / (bandwidth * math.pow(shards, profiles.KV_SCALING))
    longer = row.input_tokens + row.output_tokens / 2 - (1024 + 128)
    slope = profile.itl_per_sequence_seconds + longer * token
    return profile.itl_base_seconds + slope * row.sequences + row.tokens_per_step / profile.prefill_tokens_per_second


def loss(rows: list[Row]) -> float:
    """Weighted mean of the absolute logarithms of predicted over measured."""
    total = weight = 0.0
    for row in rows:
        found = predicted(row)
        if found is not None:
            total += row.weight * min(LARGEST_ERROR, abs(math.log(found / row.itl_seconds)) if found > 0 else 9.0)
            weight += row.weight
    return total / weight


def fit(rows: list[Row], names: tuple[str, ...], rounds: int) -> float:
    """Move the module's constants, one at a time, while that lessens the loss."""
    best, step = loss(rows), dict.fromkeys(names, 0.2)
    for _ in range(rounds):
        for name in names:
            before, better = getattr(profiles, name), False
            for factor in (1 + step[name], 1 - step[name]):
                setattr(profiles, name, before * factor)
                now = loss(rows)
                if now < best - 1e-6:
                    best, better = now, True
                    break
                setattr(profiles, name, before)
            step[name] *= 1.2 if better else 0.6
    return best


def report(rows: list[Row]) -> None:
    """Bias and median absolute error by model and by hardware."""
    groups: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        found = predicted(row)
        if found is None:
            continue
        source = "measured" if row.weight == 1 else "simulated"
        error = found / row.itl_seconds - 1
        shown: list[tuple[str, ...]] = [("all",), (row.model.rpartition("/")[2], row.method), (row.accelerator,)]
        for group in (*shown, (f"x{row.count}",)):
            groups[source, *group].append(error)
    for group, errors in sorted(groups.items()):
        sizes = sorted(map(abs, errors))
        print(
            f"{' '.join(group):45} {len(errors):5} rows  bias {statistics.median(errors):+.2f}  "
            f"median {statistics.median(sizes):.2f}  p90 {sizes[int(0.9 * len(sizes))]:.2f}"
        )


def main() -> int:
    """Fit and print; 0 also without the data."""
    parser = argparse.ArgumentParser(description="Fit the capacity priors.")
    parser.add_argument("--rounds", type=int, default=12, help="of coordinate descent; 0 only reports")
    options = parser.parse_args()
    if not (DATA / SILICON).exists():
        print(f"skipped: {DATA / SILICON} is not here; set TRIMTAB_DATA")
        return 0
    rows = [*dict.fromkeys(silicon(DATA / SILICON)), *simulated(DATA / SIMULATED)]  # some are listed twice
    parts: list[tuple[tuple[str, ...], list[Row]]] = [
        (DENSE, [row for row in rows if not row.mixture]),
        (MIXTURES, [row for row in rows if row.mixture and row.sequences >= 0.9 * profiles.CHORD[0]]),
    ]
    for names, part in parts:
        print(f"{len(part)} rows, loss {loss(part):.4f} as committed")
        if options.rounds:
            print(f"fitted: loss {fit(part, names, options.rounds):.4f}")
            print("  " + ", ".join(f"{name} = {getattr(profiles, name):.4g}" for name in names))
        report(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
