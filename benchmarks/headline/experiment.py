"""One row of the headline experiment: manifests, a trace with known prompts, a controller, and what comes out.

Every number of a row is measured of requests that the shipped code has routed and planned for, in simulated time. What
a request's answer was worth is the known outcome of the model that served it; nothing is estimated from priors.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trimtab_cli import manifests
from trimtab_core import capacity
from trimtab_core.planning.plan import VariantKey
from trimtab_sim import baselines, control, known_prompts, report, workload, world
from trimtab_sim.workload import Request, Trace

from headline import outcomes

QUANTISED = "-fp8"
"""Marks a model's name whose weights are served in 8 bits."""
QUANTISATION_KEEPS = 0.994
"""Share of right answers that 8-bit weights are assumed to keep: 0.4 points where 66 % are right. The sets hold no
answers of quantised models, but for one: on 558 prompts of CRUX, Llama-3.1-405B in fp8 and in 16 bits differ by
0.0 ± 2.8 points."""
HOURS_PER_MONTH = 730.0
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Fleet:
    """Which prompts and manifests belong together.

    Attributes:
        name: of the set, for people and files.
        sets: of ``outcomes.Answered.set``.
        models: by model name in the manifests, the name in the set.
        biggest: of those, what accuracy is compared with.
    """

    name: str
    sets: tuple[str, ...]
    models: Mapping[str, str]
    biggest: str


MIXED = Fleet(
    "mixed",
    ("llmrouter",),
    {
        "llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
        "llama-3.1-nemotron-51b-instruct": "llama-3.1-nemotron-51b-instruct",
    },
    "llama-3.1-nemotron-51b-instruct",
)
REASONING = Fleet(
    "reasoning",
    ("zeroeval-gsm", "zeroeval-crux"),
    {
        "llama-3.1-8b-instruct": "Meta-Llama-3.1-8B-Instruct",
        "llama-3.1-70b-instruct": "Meta-Llama-3.1-70B-Instruct",
        "llama-3.1-405b-instruct": "Meta-Llama-3.1-405B-Instruct@hyperbolic",
    },
    "llama-3.1-405b-instruct",
)
FLEETS = {fleet.name: fleet for fleet in (MIXED, REASONING)}


def prompts(fleet: Fleet, found: list[outcomes.Answered], half: str) -> list[known_prompts.Prompt]:
    """The fleet's prompts of one half, with the outcomes of all its models, quantised ones included."""
    chosen = []
    for one in found:
        if one.set in fleet.sets and one.half == half and all(name in one.outcomes for name in fleet.models.values()):
            known = {model: one.outcomes[name] for model, name in fleet.models.items()}
            known |= {model + QUANTISED: value * QUANTISATION_KEEPS for model, value in known.items()}
            chosen.append(known_prompts.Prompt(one.text, known))
    return chosen


@dataclass(slots=True)
class Tally:
    """What a witness adds up: latencies, and by prompt how much better or worse than the biggest model."""

    source: known_prompts.Known
    biggest: str
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    answered: int = 0
    gained: dict[int, float] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)

    def __call__(self, request: Request, outcome: report.Outcome) -> None:
        """Count one request; those of the prologue are left out."""
        if request.arrival_s < 0:
            return
        number = self.source.number(request)
        best = self.source.outcome(request, self.biggest)
        assert best is not None
        self.gained[number] = self.gained.get(number, 0.0) + outcome.quality - best
        self.asked[number] = self.asked.get(number, 0) + 1
        if outcome.ttft_s is not None and outcome.e2e_s is not None:
            self.answered += 1
            self.ttft_s += outcome.ttft_s
            self.e2e_s += outcome.e2e_s

    def change(self) -> tuple[float, float]:
        """Mean difference in quality to the biggest model on the same prompts, and half of its 95 % interval.

        The prompts are the sample, however often each was asked: requests of one prompt are one cluster.
        """
        requests, count = sum(self.asked.values()), len(self.asked)
        mean = sum(self.gained.values()) / requests
        squares = sum((self.gained[number] - mean * self.asked[number]) ** 2 for number in self.asked)
        spread = math.sqrt(squares * count / max(1, count - 1)) / requests
        return mean, NORMAL_95 * spread


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; money in USD, times in seconds, quality and shares from 0 to 1."""

    name: str
    usd_per_month: float
    ttft_mean_s: float
    ttft_p95_s: float
    e2e_mean_s: float
    e2e_p95_s: float
    quality_change: float
    quality_margin: float
    gpu_use: float
    slo_attainment: float
    mean_gpus: float
    share_by_tier: Mapping[str, float]
    told: str

    @classmethod
    def of(cls, name: str, run: report.Run, tally: Tally) -> Row:
        """Of a run and what its witness counted."""
        hours = run.duration_s / 3600
        change, margin = tally.change()
        return cls(
            name=name,
            usd_per_month=run.cost_usd / hours * HOURS_PER_MONTH,
            ttft_mean_s=tally.ttft_s / max(1, tally.answered),
            ttft_p95_s=run.ttft_p95_s or 0.0,
            e2e_mean_s=tally.e2e_s / max(1, tally.answered),
            e2e_p95_s=run.e2e_p95_s or 0.0,
            quality_change=change,
            quality_margin=margin,
            gpu_use=run.gpu_utilisation,
            slo_attainment=run.slo_attainment,
            mean_gpus=run.gpu_hours / hours,
            share_by_tier=run.share_by_tier,
            told=run.settings,
        )


def scenario(path: pathlib.Path, trace: Trace, source: known_prompts.Known, seed: int) -> world.Scenario:
    """The manifests of one file on that trace. Raises ManifestError if they are no good."""
    bundle = manifests.load([path])
    if bundle.findings:
        raise manifests.ManifestError(bundle.findings[0].text())
    return world.Scenario(bundle.tiers, bundle.policies, bundle.caches, trace, world.Settings(seed=seed), source=source)


def run(name: str, of: world.Scenario, controller: control.Controller, biggest: str) -> Row:
    """Simulate and count."""
    assert isinstance(of.source, known_prompts.Known)
    tally = Tally(of.source, biggest)
    return Row.of(name, world.simulate(of, controller, witness=tally), tally)


def static_peak(of: world.Scenario, attainment: float) -> baselines.StaticPeak:
    """The cheapest fixed fleet of the best tier that keeps the SLO: each variant on its fewest replicas that do.

    Raises:
        world.ScenarioError: if no variant of the tier is fast enough.
    """
    snapshot = world.first_look(of)
    tier = max(snapshot.tiers.values(), key=lambda each: float(each.spec.model.quality))
    facts = of.trace.facts
    mix = capacity.Mix(facts.input_tokens / facts.count, facts.output_tokens / facts.count)
    offers = []
    for variant in tier.variants:
        if variant.profile is not None and variant.price is not None:
            load = capacity.admissible_load(variant.profile, mix, capacity.limits(tier.spec.slo))
            if load.feasible:
                offers.append(
                    (variant.price.usd_per_hour, load.requests_per_second, VariantKey(tier.key, variant.name))
                )
    if not offers:
        raise world.ScenarioError(f"no variant of {tier.key} can keep its SLO")
    best, fixed = math.inf, {}
    peak = facts.peak / workload.PEAK_WINDOW_SECONDS
    for usd, rps, key in sorted(offers, key=lambda offer: offer[0] / offer[1]):
        guess = max(1, math.ceil(peak / rps))
        found = fewest(
            lambda count, key=key: _keeps(of, key, count, attainment), guess, math.ceil(best / usd) if fixed else None
        )
        if found is not None:
            best, fixed = found * usd, {key: found}
    return baselines.StaticPeak(fixed)


def fewest(keeps: Callable[[int], bool], guess: int, below: int | None) -> int | None:
    """The least count that ``keeps``, which all larger ones do as well; None if none below ``below`` does.

    Each question is a simulated run. The guess is near, so the search goes down from it in small steps that grow.
    """
    low, high = 0, guess if below is None else below - 1
    if high < 1:
        return None
    while not keeps(high):
        if below is not None:
            return None
        low, high = high, math.ceil(high * 1.25)
    step = max(1, high // 8)
    while high - low > 1:
        middle = max(low + 1, high - step)
        if keeps(middle):
            high, step = middle, 2 * step
        else:
            low, step = middle, max(1, (high - middle) // 2)
    return high


def _keeps(of: world.Scenario, key: VariantKey, count: int, attainment: float) -> bool:
    misses = int(len(of.trace) * (1 - attainment))
    found = world.simulate(of, baselines.StaticPeak({key: count}), stop=world.Stop(misses=misses))
    return not found.aborted and found.slo_attainment >= attainment
