"""A cluster and its metrics as plain values that a test moves by hand: no threads, no clock, no sockets."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_core import observation, recall, signals, telemetry
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase
from trimtab_operator import errors, labels, reconcile, settings

Manifest = dict[str, Any]
START = 1_800_000_000.0
INTERVAL = 15.0
PROFILE = {
    "itlBase": "20ms",
    "itlPerSequence": "1ms",
    "prefillTokensPerSecond": 10000,
    "kvTokens": 100000,
    "maxSequences": 64,
    "startup": "30s",
}
INPUT_TOKENS, OUTPUT_TOKENS = 500.0, 100.0


def tier(name: str = "small", *, uid: str = "", quality: str = "0.70", **spec: Any) -> v1alpha1.InferenceTier:
    """A tier with one L4 variant at $1 per hour; ``spec`` replaces parts of its spec."""
    variant = {
        "name": "l4",
        "accelerator": {"type": "L4"},
        "price": {"usdPerHour": "1"},
        "replicas": {"min": 1, "max": 10},
        "profile": PROFILE,
    }
    whole = {
        "model": {"name": f"{name}-8b", "source": f"hf://org/{name}-8b", "quality": quality},
        "slo": {"ttft": {"p95": "2s"}, "itl": {"p95": "60ms"}},
        "variants": [variant],
        "scaling": {"scaleDownWindow": "30s"},
        **spec,
    }
    metadata = {"name": name, "namespace": "default", "uid": uid or f"tier-{name}", "generation": 1}
    return v1alpha1.InferenceTier.model_validate({"metadata": metadata, "spec": whole})


def policy(name: str = "chat", *, tiers: Sequence[str] = ("small",), **spec: Any) -> v1alpha1.RoutingPolicy:
    """A policy with one class over these tiers."""
    whole = {"tiers": [{"ref": ref} for ref in tiers], **spec}
    metadata = {"name": name, "namespace": "default", "uid": f"policy-{name}", "generation": 1}
    return v1alpha1.RoutingPolicy.model_validate({"metadata": metadata, "spec": whole})


@dataclasses.dataclass
class Pod:
    """One replica of the fake cluster. ``busy`` is what its engine runs; ``stuck`` never gets ready."""

    name: str
    created_at: float
    ready_at: float | None
    busy: float = 0.0
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)


class FakeCluster:
    """Implements ``reconcile.Cluster`` in memory: Deployments get pods, which are ready after ``startup_seconds``."""

    def __init__(self, *objects: Any, startup_seconds: float = 30.0) -> None:
        self.objects = {(each.kind, each.metadata.namespace, each.metadata.name): each for each in objects}
        self.startup_seconds = startup_seconds
        self.now = START
        self.never_ready = False
        self.unreachable = False
        self.refuses: dict[str, str] = {}
        self.pods: dict[str, list[Pod]] = {}
        self.counts: dict[str, int] = {}
        self.told: dict[str, int | None] = {}
        self.scalers: dict[VariantKey, str] = {}
        self.statuses: dict[tuple[str, str, str], Manifest] = {}
        self.applied: list[Manifest] = []
        self.events: list[tuple[str, str, str, bool]] = []
        self.status_writes = 0
        self._born = 0

    async def observe(self) -> observation.Observation:
        if self.unreachable:
            raise errors.ClusterUnreachableError("API server does not answer")
        found: dict[str, list[Any]] = {kind: [] for kind in v1alpha1.KINDS}
        for about, each in self.objects.items():
            status = type(each.status).model_validate(self.statuses.get(about, {}))
            found[each.kind].append(each.model_copy(update={"status": status}))
        return observation.Observation(
            tiers=tuple(found["InferenceTier"]),
            policies=tuple(found["RoutingPolicy"]),
            caches=tuple(found["CachePolicy"]),
            variants=dict(self._variants(found["InferenceTier"])),
            answers={},
            engines={},
            routers={observation.key(each.metadata): ("router-1",) for each in found["RoutingPolicy"]},
        )

    def _variants(self, tiers: Sequence[v1alpha1.InferenceTier]) -> Any:
        for each in tiers:
            for variant in each.spec.variants:
                name, key = (
                    f"{each.metadata.name}--{variant.name}",
                    VariantKey(observation.key(each.metadata), variant.name),
                )
                if name in self.counts:
                    replicas = tuple(self._replica(pod) for pod in self.pods[name])
                    yield (
                        key,
                        observation.ObservedVariant(
                            self.counts[name], replicas, self.scalers.get(key, ""), told=self.told[name]
                        ),
                    )

    def _replica(self, pod: Pod) -> observation.ObservedReplica:
        since = recall.epoch_seconds(pod.annotations.get(labels.DRAIN_SINCE))
        ready = pod.ready_at is not None and pod.ready_at <= self.now
        phase = ReplicaPhase.READY if ready else ReplicaPhase.PENDING
        return observation.ObservedReplica(
            pod.name,
            ReplicaPhase.DRAINING if since is not None else phase,
            pod.created_at,
            pod.ready_at if ready else None,
            f"10.0.0.{pod.name.rpartition('-')[2]}:8000" if ready else "",
            since,
        )

    async def apply(self, objects: Sequence[Manifest]) -> None:
        self.applied = list(objects)
        refused = {}
        for each in objects:
            name = each["metadata"]["name"]
            if name in self.refuses:
                refused[f"{each['kind']} {each['metadata']['namespace']}/{name}"] = self.refuses[name]
            elif each["kind"] == "Pod":
                self._annotate(name, each["metadata"]["annotations"])
            elif each["kind"] == "Deployment" and labels.TIER in each["metadata"]["labels"]:
                count = each["spec"].get("replicas")
                self.told[name] = count
                self.scale(name, self.counts.get(name, 1) if count is None else count)
        if refused:
            raise errors.ObjectsRefusedError(refused)

    def _annotate(self, name: str, annotations: Mapping[str, str | None]) -> None:
        for pod in (pod for pods in self.pods.values() for pod in pods if pod.name == name):
            merged = {**pod.annotations, **annotations}
            pod.annotations = {key: value for key, value in merged.items() if value is not None}

    def scale(self, name: str, count: int) -> None:
        """What the Deployment's controller does with a count, by anybody."""
        self.counts[name] = count
        pods = self.pods.setdefault(name, [])
        for _ in range(count - len(pods)):
            self._born += 1
            ready_at = None if self.never_ready else self.now + self.startup_seconds
            pods.append(Pod(f"{name}-{self._born}", self.now, ready_at))
        pods.sort(key=self._leaves_last)
        del pods[count:]

    def _leaves_last(self, pod: Pod) -> tuple[bool, int, float]:
        ready = pod.ready_at is not None and pod.ready_at <= self.now
        return (not ready, -int(pod.annotations.get(labels.DELETION_COST, "0")), -pod.created_at)

    async def write_status(self, statuses: Mapping[tuple[str, str, str], Manifest]) -> None:
        self.status_writes += len(statuses)
        self.statuses |= statuses

    async def emit_event(self, about: tuple[str, str, str], reason: str, message: str, *, warning: bool) -> None:
        self.events.append((about[2], reason, message, warning))

    def count(self, name: str = "small--l4") -> int:
        return self.counts.get(name, 0)

    def ready(self, name: str = "small--l4") -> int:
        return sum(1 for pod in self.pods.get(name, []) if pod.ready_at is not None and pod.ready_at <= self.now)

    def condition(self, about: str, kind: str, type_: str) -> Manifest:
        conditions = self.statuses[kind, "default", about]["conditions"]
        found: Manifest = next(each for each in conditions if each["type"] == type_)
        return found


class FakeMetrics:
    """Implements ``reconcile.Metrics``: a steady rate per policy and class, all of it to the first tier of ``tiers``."""

    def __init__(self, cluster: FakeCluster, **rates: float) -> None:
        self.cluster = cluster
        self.rates = rates or {"default": 0.0}
        self.policy = "default/chat"
        self.tier = "small"
        self.failure = ""
        self.age_seconds = 2.0
        self.nan = False
        self.itl_seconds: float | None = None
        """What engines take for a token while they run ten sequences; None where they count nothing."""
        self.attainment = 1.0
        self.past: dict[str, tuple[tuple[float, float], ...]] = {}
        self.periods: list[tuple[float, float, float]] = []

    async def history(
        self, query: telemetry.Query, begin: float, end: float, *, step_seconds: float
    ) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        self.periods.append((begin, end, step_seconds))
        if self.failure:
            raise errors.MetricsError(self.failure)
        return {
            (self.policy, cls): tuple(point for point in points if begin <= point[0] <= end)
            for cls, points in self.past.items()
        }

    async def answers(self, queries: Mapping[str, telemetry.Query], now: float) -> observation.Answers:
        if self.failure:
            return dict.fromkeys(queries, observation.QueryFailure(self.failure))
        found: dict[str, tuple[telemetry.Answer, ...]] = dict.fromkeys(queries, ())
        found["tables"] = (telemetry.Answer((self.policy, "1.1-abc", "router-1"), 1.0, now - self.age_seconds),)
        for name, per_request in (
            ("arrivals_per_second", 1.0),
            ("requests_per_second", 1.0),
            ("input_tokens_per_second", INPUT_TOKENS),
            ("output_tokens_per_second", OUTPUT_TOKENS),
            ("slo_measured_per_second", 1.0),
            ("slo_met_per_second", self.attainment),
        ):
            found[name] = tuple(
                telemetry.Answer(
                    self._labels(queries[name], cls), self._value(rate * per_request), now - self.age_seconds
                )
                for cls, rate in self.rates.items()
            )
        return found

    def _labels(self, query: telemetry.Query, cls: str) -> tuple[str, ...]:
        known = {"policy": self.policy, "class": cls, "tier": self.tier, "result": "ok", "slo": "ttft"}
        return tuple(known[label] for label in query.by)

    def _value(self, value: float) -> float:
        return float("nan") if self.nan else value

    async def engines(self, addresses: Mapping[str, str], now: float) -> Mapping[str, observation.EngineReading]:
        busy = {pod.name: pod.busy for pods in self.cluster.pods.values() for pod in pods}
        return {
            name: observation.EngineReading(
                signals.Sample(busy[name], now),
                signals.Sample(0.0, now),
                signals.Sample(0.1, now),
                **self._counters(now),
            )
            for name in addresses
        }

    def _counters(self, now: float) -> Mapping[str, Any]:
        if self.itl_seconds is None:
            return {}
        ran = now - START + 3600.0
        counted = {"gap_seconds": 10.0 * ran, "gaps": 10.0 * ran / self.itl_seconds, "prompt_tokens": 500.0 * ran}
        return {name: signals.Sample(self._value(value), now) for name, value in counted.items()}


class World:
    """A cluster, its metrics, and the loop's memory; ``cycle`` is one interval."""

    def __init__(self, *objects: Any, epoch: int = 1, startup_seconds: float = 30.0, **rates: float) -> None:
        self.cluster = FakeCluster(*(objects or (tier(), policy())), startup_seconds=startup_seconds)
        self.metrics = FakeMetrics(self.cluster, **rates)
        self.memory = reconcile.Memory(epoch)
        self.settings = settings.Loop()

    def cycle(self, count: int = 1, seconds: float = INTERVAL) -> reconcile.Outcome:
        """Reconcile ``count`` times, each ``seconds`` after the one before; returns the last outcome."""
        for _ in range(count):
            ports = reconcile.Ports(self.cluster, self.metrics)
            outcome = asyncio.run(reconcile.reconcile(ports, self.memory, self.settings, self.cluster.now))
            self.memory = outcome.memory
            self.cluster.now += seconds
        return outcome

    def restart(self) -> None:
        """A new process, or another leader: nothing but status is left."""
        self.memory = reconcile.Memory(self.memory.epoch + 1)
