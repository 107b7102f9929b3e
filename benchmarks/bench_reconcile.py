"""CPU of one reconcile of 100 tiers with nothing to change, and of the first one, which makes everything.

    python benchmarks/bench_reconcile.py [--tiers N] [--cycles N] [--json FILE]

All of the operator but its sockets: lists come as JSON text and are parsed, objects are read into their types, planned,
guarded, rendered, compared with what was applied, and statuses are written where they changed. Load is steady to
within 1 %, as no measurement ever stands still. Process CPU is counted, not time.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import pathlib
import platform
import random
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from trimtab_core import observation, signals, telemetry
from trimtab_operator import cluster, errors, kube, labels, reconcile, settings

HERE = pathlib.Path(__file__).parent
SEED = 20261122
START = 1_800_000_000.0
INTERVAL_SECONDS = 15.0
TIERS_PER_POLICY = 4
TARGET_SECONDS = 1.0
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-15T06:00:00Z"}
Object = dict[str, Any]


class MemoryApi(kube.Kube):
    """An API server in memory, behind the client's own interface: text in, text out, and pods for Deployments."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.writes = 0

    async def get(self, path: str) -> Object:
        """One object, parsed."""
        if path not in self.stored:
            raise errors.NotFoundError(path)
        return json.loads(self.stored[path])

    async def items(self, path: str, *, selector: str = "", metadata_only: bool = False) -> list[Object]:
        """All objects of a kind, parsed; only ours are there, so the selector chooses all."""
        del selector
        plural = f"/{path.rpartition('/')[2]}/"
        found = [json.loads(text) for at, text in self.stored.items() if plural in at]
        return [{"metadata": each["metadata"]} for each in found] if metadata_only else found

    async def apply(self, path: str, body: Object, *, manager: str = labels.MANAGER) -> Object:
        """Store; a Deployment gets its pods at once."""
        del manager
        self.writes += 1
        if path.endswith("/status"):
            whole = json.loads(self.stored[path.removesuffix("/status")])
            self.put(path.removesuffix("/status"), {**whole, "status": body["status"]})
            return whole
        body = {**body, "metadata": {**body["metadata"], "uid": path, "generation": 1, "resourceVersion": "1"}}
        self.put(path, body)
        if body["kind"] == "Deployment":
            self._pods(body)
        return body

    async def merge(self, path: str, body: Object) -> Object:
        """Annotations of pods are of no interest here."""
        del path
        return body

    async def create(self, path: str, body: Object) -> Object:
        """Events vanish."""
        del path
        return body

    def put(self, path: str, each: Object) -> None:
        """Store an object as text."""
        self.stored[path] = json.dumps(each)

    def _pods(self, deployment: Object) -> None:
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        for number in range(deployment["spec"].get("replicas", 1)):
            name = f"{metadata['name']}-{number}"
            pod = {
                "metadata": {**template["metadata"], "name": name, "namespace": metadata["namespace"]},
                "spec": {**template["spec"], "nodeName": "node-1"},
                "status": {"phase": "Running", "podIP": f"10.0.0.{number}", "conditions": [READY]},
            }
            pod["metadata"]["creationTimestamp"] = "2027-01-15T05:59:00Z"
            self.put(kube.PODS.path(metadata["namespace"], name), pod)


class SteadyMetrics:
    """A steady load on every policy, with one percent of noise."""

    def __init__(self, policies: int) -> None:
        self._policies = [f"fleet/policy-{number}" for number in range(policies)]
        self._noise = random.Random(SEED)  # noqa: S311 (seeded on purpose)

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        """Arrivals and tokens of each policy's first tier; routers that serve by some table."""
        per_request = {
            "arrivals_per_second": 1.0,
            "requests_per_second": 1.0,
            "input_tokens_per_second": 800.0,
            "output_tokens_per_second": 150.0,
            "slo_measured_per_second": 1.0,
            "slo_met_per_second": 0.99,
            "tables": 1.0,
        }
        return {
            name: tuple(
                self._answer(query, number, factor=per_request[name], now=now) for number in range(len(self._policies))
            )
            if name in per_request
            else ()
            for name, query in queries.items()
        }

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Nothing is known from before the run."""
        del query, begin, end, step_seconds
        return {}

    def _answer(self, query: telemetry.Query, number: int, *, factor: float, now: float) -> telemetry.Answer:
        known = {
            "policy": self._policies[number],
            "class": "default",
            "tier": f"tier-{number * TIERS_PER_POLICY}",
            "result": "ok",
            "slo": "ttft",
        }
        labels_ = tuple(known.get(label, "") for label in query.by)
        return telemetry.Answer(labels_, 5.0 * factor * self._noise.uniform(0.99, 1.01), now - 3.0)

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        """Every engine a little busy."""
        return {
            name: observation.EngineReading(
                signals.Sample(3.0, now), signals.Sample(0.0, now), signals.Sample(0.2, now)
            )
            for name in addresses
        }


def fleet(tiers: int) -> MemoryApi:
    """So many tiers of two variants, and a policy for each four of them."""
    api = MemoryApi()
    for number in range(tiers):
        variants = [
            {"name": "l4-spot", "accelerator": {"type": "L4"}, "capacityType": "Spot", "price": {"usdPerHour": "0.4"}},
            {"name": "l40s", "accelerator": {"type": "L40S"}, "replicas": {"min": 1, "max": 8}},
        ]
        model = {"name": "llama-3.1-8b", "quality": f"0.{60 + number % TIERS_PER_POLICY * 10}"}
        spec = {"model": model, "slo": {"ttft": {"p95": "2s"}}, "variants": variants}
        put(api, kube.TIERS, f"tier-{number}", spec)
    for number in range(tiers // TIERS_PER_POLICY):
        refs = [{"ref": f"tier-{number * TIERS_PER_POLICY + offset}"} for offset in range(TIERS_PER_POLICY)]
        put(api, kube.POLICIES, f"policy-{number}", {"tiers": refs, "router": {"replicas": {"min": 2, "max": 2}}})
    return api


def put(api: MemoryApi, kind: kube.Kind, name: str, spec: Object) -> None:
    """Store one CR."""
    metadata = {"name": name, "namespace": "fleet", "uid": f"{kind.name}-{name}", "generation": 1}
    api.put(kind.path("fleet", name), {"metadata": metadata, "spec": spec})


async def measure(tiers: int, cycles: int) -> dict[str, float]:
    """CPU seconds of the first cycle and the median of later ones, and the writes of those."""
    api, now = fleet(tiers), START
    port = cluster.KubernetesCluster(api, namespaces=(), epoch=1, resync_seconds=1e9, clock=lambda: now)
    ports = reconcile.Ports(port, SteadyMetrics(tiers // TIERS_PER_POLICY))
    memory, loop, spent = reconcile.Memory(1), settings.Loop(), list[float]()
    for cycle in range(cycles + 8):
        if cycle == 8:  # the fleet stands still by then
            settled_writes = api.writes
        before = time.process_time()
        outcome = await reconcile.reconcile(ports, memory, loop, now)
        spent.append(time.process_time() - before)
        memory = dataclasses.replace(outcome.memory)
        now += INTERVAL_SECONDS
    return {
        "first": spent[0],
        "steady": statistics.median(spent[8:]),
        "worst": max(spent[8:]),
        "writes": (api.writes - settled_writes) / cycles,
        "pods": sum(1 for path in api.stored if "/pods/" in path),
    }


def main() -> int:
    """Measure, print, write the rows; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiers", type=int, default=100)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument(
        "--json", type=pathlib.Path, default=HERE / "out/reconcile.json", help="where to write the rows"
    )
    given = parser.parse_args()
    found = asyncio.run(measure(given.tiers, given.cycles))
    rows = [
        row(
            "CPU of a reconcile with nothing to change, median",
            found["steady"],
            "s",
            target=TARGET_SECONDS * given.tiers / 100,
        ),
        row("CPU of a reconcile with nothing to change, worst", found["worst"], "s"),
        row("CPU of the first reconcile, which makes everything", found["first"], "s"),
        row("objects and statuses written per steady cycle", found["writes"], "writes"),
    ]
    print(f"{given.tiers} tiers, {given.tiers * 2} variants, {found['pods']:.0f} pods, {given.cycles} cycles")
    for each in rows:
        target = "-" if each["target"] is None else each["target"]
        print(f"{each['name']:52} {each['value']:>9} {each['unit']:7} target {target}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/bench_reconcile.py --tiers {given.tiers} --cycles {given.cycles}"
    document = {"command": command, "seed": SEED, "data": "generated", "machine": platform.machine(), "rows": rows}
    given.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(each["met"] is not False for each in rows) else 1


def row(name: str, value: float, unit: str, *, target: float | None = None) -> dict[str, Any]:
    """One row of the benchmark's file."""
    met = None if target is None else value <= target
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "target": target,
        "comparison": "<=",
        "met": met,
        "beside": {},
    }


if __name__ == "__main__":
    sys.exit(main())
