"""How long one plan takes: fleets of 200 variants × 50 classes and of 1,000 variants, each one connected part.

    python benchmarks/bench_planner.py [--json FILE] [--rounds N]

Seeded fleets: tiers of two to four variants, prices and profiles within a factor of three, policies of four to eight
tiers of which neighbours share some (so that nothing falls into parts), two to four classes each, qualities to keep,
demand that fills some hundreds of replicas. Timed is ``optimizer.optimize`` alone, in CPU seconds of this
process and one thread: a first plan, and one after all demand moved by up to a fifth. The gap is to
a lower bound that the solver proves in 20 s more. Every fleet is another seed; rows are medians and the worst.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Mapping

from trimtab_core import signals
from trimtab_core.api import v1alpha1
from trimtab_core.planning import optimizer, problem, program
from trimtab_core.planning.plan import Plan
from trimtab_core.snapshot import (
    CapacityProfile,
    ClassTraffic,
    PolicyState,
    Price,
    Replica,
    ReplicaPhase,
    Snapshot,
    TierState,
    VariantState,
)

HERE = pathlib.Path(__file__).parent
NOW = 1_700_000_000.0
SEED = 20251122
PATIENCE_SECONDS = 20.0
MOST_SECONDS, WORST_SECONDS, LARGE_SECONDS, GAP = 1.0, 2.0, 5.0, 0.01


def fleet(rng: random.Random, *, variants: int, classes: int) -> Snapshot:
    """One connected part with about so many variants and classes."""
    tiers: list[TierState] = []
    while sum(len(tier.variants) for tier in tiers) < variants:
        room = variants - sum(len(tier.variants) for tier in tiers)
        tiers.append(_tier(rng, len(tiers), min(room, rng.randint(2, 4))))
    policies: list[PolicyState] = []
    at = left = 0
    while left < classes:
        width = rng.randint(4, 8)
        used = [tiers[(at + offset) % len(tiers)] for offset in range(width)]
        count = min(classes - left, rng.randint(2, 4))
        policies.append(_policy(rng, len(policies), used, count))
        at, left = at + max(1, width - 2), left + count
    while at < len(tiers):  # what no policy reached yet is used by the last ones
        used = [tiers[index % len(tiers)] for index in range(at - 2, at + 6)]
        policies.append(_policy(rng, len(policies), used, 1))
        at += 6
    return Snapshot(NOW, 1, {tier.key: tier for tier in tiers}, {policy.key: policy for policy in policies})


def _tier(rng: random.Random, number: int, variants: int) -> TierState:
    size = rng.choice([1.0, 3.0, 9.0])  # a larger model is slower and dearer
    quality = {1.0: 0.70, 3.0: 0.82, 9.0: 0.88}[size] + rng.uniform(-0.02, 0.02)
    made = [_variant(rng, index, size) for index in range(variants)]
    spec = v1alpha1.InferenceTierSpec.model_validate(
        {
            "model": {"name": f"model-{number}", "quality": f"{quality:.4f}"},
            "slo": {"ttft": {"p95": "4s"}, "itl": {"p95": "200ms"}},
            "variants": [variant.spec.to_dict() for variant in made],
            "scaling": {"maxStepUp": 400, **({"scaleToZero": {"after": "10m"}} if rng.random() < 0.5 else {})},
        }
    )
    return TierState(f"default/tier-{number}", spec, tuple(made))


def _variant(rng: random.Random, index: int, size: float) -> VariantState:
    speed = rng.uniform(0.6, 1.8)
    profile = CapacityProfile(
        0.012 * size**0.5 / speed, 0.0004 * size / speed, 60_000 * speed / size, 300_000, 256, 120.0
    )
    running = rng.randint(0, 2)
    spec = v1alpha1.Variant.model_validate(
        {"name": f"v{index}", "accelerator": {"type": "H100"}, "replicas": {"min": 0, "max": 400}}
    )
    replicas = tuple(Replica(f"r{one}", ReplicaPhase.READY, NOW - 3600) for one in range(running))
    return VariantState(spec, running, replicas, Price(4.0 * size * speed * rng.uniform(0.7, 1.4), "spec"), profile)


def _policy(rng: random.Random, number: int, tiers: list[TierState], classes: int) -> PolicyState:
    names = [f"class-{index}" for index in range(classes)]
    spec = v1alpha1.RoutingPolicySpec.model_validate(
        {
            "tiers": [{"ref": tier.key.partition("/")[2]} for tier in tiers],
            "classes": [{"name": name, "match": {"priority": name}} for name in names],
            "objective": {"qualityRetention": f"{rng.uniform(0.95, 0.995):.3f}"},
        }
    )
    traffic = {name: _traffic(rng) for name in names}
    return PolicyState(f"default/policy-{number}", spec, tuple(tier.key for tier in tiers), traffic, {})


def _traffic(rng: random.Random) -> ClassTraffic:
    rate = rng.uniform(1.0, 12.0)
    history = tuple((NOW - 15 * age, rate * rng.uniform(0.9, 1.1)) for age in range(120, 0, -1))
    return ClassTraffic(
        signals.Fresh(rate, 5.0),
        signals.Fresh(rng.uniform(300, 3000), 5.0),
        signals.Fresh(rng.uniform(50, 500), 5.0),
        history=history,
    )


def moved(snapshot: Snapshot, plan: Plan, rng: random.Random) -> Snapshot:
    """Fifteen seconds later: all demand moved by up to a fifth, the weights of the plan in force."""

    def one(traffic: ClassTraffic) -> ClassTraffic:
        arrivals = signals.sound(traffic.arrivals_per_second) or 0.0
        history = (*traffic.history, (snapshot.now, arrivals))
        return dataclasses.replace(
            traffic, arrivals_per_second=signals.Fresh(arrivals * rng.uniform(0.8, 1.2), 5.0), history=history
        )

    policies = {
        key: dataclasses.replace(
            policy, traffic={name: one(found) for name, found in policy.traffic.items()}, weights=plan.weights[key]
        )
        for key, policy in snapshot.policies.items()
    }
    return dataclasses.replace(snapshot, now=snapshot.now + 15, policies=policies)


def gap(snapshot: Snapshot) -> float:
    """How far the programs' solutions may lie above the optimum, at the worst part: proven in a long search."""
    settings, worst = problem.Settings(), 0.0
    patient = dataclasses.replace(settings, gap=1e-3, time_limit_seconds=PATIENCE_SECONDS)
    view = problem.view(snapshot, settings)
    for part in problem.parts(snapshot):
        component = problem.build(view, part)
        found, bound = program.solve(component, settings), program.bound(component, patient)
        if found is None or bound is None or found.broken:
            raise SystemExit(f"no plan keeps every promise of this fleet: {found and found.broken}")
        worst = max(worst, (found.objective - bound) / found.objective)
    return worst


def timed(snapshot: Snapshot, previous: Plan | None) -> tuple[float, Plan]:
    """CPU seconds of one plan."""
    begin = time.process_time()
    plan = optimizer.optimize(snapshot, previous=previous)
    return time.process_time() - begin, plan


def measure(*, variants: int, classes: int, rounds: int) -> Mapping[str, list[float]]:
    """Times and gaps over fleets of that size."""
    found: dict[str, list[float]] = {"first": [], "moved": [], "gap": []}
    for number in range(rounds):
        rng = random.Random(f"{SEED} {variants} {number}")  # noqa: S311 (seeded on purpose)
        snapshot = fleet(rng, variants=variants, classes=classes)
        seconds, plan = timed(snapshot, None)
        found["first"].append(seconds)
        found["gap"].append(gap(snapshot))
        later = moved(snapshot, plan, rng)
        seconds, plan = timed(later, plan)
        found["moved"].append(seconds)
        found["gap"].append(gap(later))
        print(
            f"{variants:5d} variants × {classes:3d} classes, fleet {number}: first {found['first'][-1]:.2f} s, demand "
            f"moved {found['moved'][-1]:.2f} s, gap {max(found['gap'][-2:]):.2%}",
            flush=True,
        )
    return found


def row(name: str, value: float, unit: str, target: float) -> dict[str, object]:
    """One row of the report."""
    return {
        "name": name, "value": value, "unit": unit, "target": target, "comparison": "<=", "met": value <= target,
        "beside": {},
    }  # fmt: skip


def rows(found: Mapping[str, list[float]], large: Mapping[str, list[float]]) -> list[dict[str, object]]:
    """All rows."""
    seconds = [*found["first"], *found["moved"]]
    return [
        row("a plan of 200 variants × 50 classes, median", statistics.median(seconds), "s CPU", MOST_SECONDS),
        row("a plan of 200 variants × 50 classes, worst", max(seconds), "s CPU", WORST_SECONDS),
        row("gap to the proven bound, 200 variants, median", statistics.median(found["gap"]), "ratio", GAP),
        row("gap to the proven bound, 200 variants, worst", max(found["gap"]), "ratio", GAP),
        row("a plan of 1,000 variants, worst", max([*large["first"], *large["moved"]]), "s CPU", LARGE_SECONDS),
        row("gap to the proven bound, 1,000 variants, worst", max(large["gap"]), "ratio", GAP),
    ]


def main() -> int:
    """Measure and write the rows; 0 if all targets are met."""
    parser = argparse.ArgumentParser(description="How long one plan takes.")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/planner.json", help="where to write the rows")
    parser.add_argument("--rounds", type=int, default=7, help="fleets of 200 variants; a third as many of 1,000")
    options = parser.parse_args()
    found = measure(variants=200, classes=50, rounds=options.rounds)
    large = measure(variants=1000, classes=250, rounds=max(1, options.rounds // 3))
    made = rows(found, large)
    for one in made:
        print(f"{one['name']}: {one['value']:.3g} {one['unit']} (target {one['target']:g})")
    command = "python benchmarks/bench_planner.py"
    document = {"command": command, "seed": SEED, "data": "seeded fleets", "rows": made}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(one["met"] for one in made) else 1


if __name__ == "__main__":
    sys.exit(main())
