"""The HorizontalPodAutoscaler ``autoscaling/v2`` on a metric of each pod: waiting requests, or running ones.

Source: kubernetes ``pkg/controller/podautoscaler`` (``replica_calculator.go``, ``horizontal.go``). A pod without a
metric counts as 0 when scaling up and as the target when scaling down; ``periodSeconds`` of the policies equals the
sync period, so each evaluation may use a policy's whole allowance.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_core import signals
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import Replica, ReplicaPhase, Snapshot, VariantState

from trimtab_sim.baselines import autoscaled, routes

DOWN_WINDOW_SECONDS = 300.0
"""Kubernetes' own scale-down stabilisation window."""
SYNC_SECONDS = 15.0
"""Between two evaluations of the HPA controller."""

History = deque[tuple[float, int]]
"""Past recommendations: when, and how many replicas."""


@dataclass(frozen=True, slots=True)
class HpaSettings:
    """An HPA; the defaults are those of Kubernetes 1.36.

    Attributes:
        target: AverageValue of the metric per pod.
        tolerance: relative distance from the target that changes nothing.
        sync_seconds: time between two evaluations.
        up_ratio, up_pods: replicas may grow by the larger of these in one period of 15 s.
        up_window_seconds: the lowest recommendation of this long counts when scaling up.
        down_ratio: share of the replicas that may go in one period of 15 s.
        down_window_seconds: the highest recommendation of this long counts when scaling down.
    """

    target: float
    tolerance: float = 0.10
    sync_seconds: float = SYNC_SECONDS
    up_ratio: float = 1.0
    up_pods: int = 4
    up_window_seconds: float = 0.0
    down_ratio: float = 1.0
    down_window_seconds: float = DOWN_WINDOW_SECONDS


class _HpaOnPods(autoscaled.Autoscaled):
    """The HPA's own arithmetic, one autoscaler for each serving variant.

    Args:
        bounds: minReplicas and maxReplicas of each serving variant.
        settings: of all its autoscalers, or of each.
        shorten: by how much a demonstration has shortened times: divides sync period and windows.
        routing: where requests go.
    """

    metric = ""

    def __init__(
        self,
        bounds: routes.Bounds,
        settings: autoscaled.Each[HpaSettings],
        *,
        shorten: float = 1.0,
        routing: routes.Routing = routes.BEST,
    ) -> None:
        self._settings = autoscaled.spread(bounds, settings)
        what = autoscaled.told(self._settings, self._told)
        super().__init__(bounds, what, _sync_seconds(self._settings) / shorten, routing)
        self._shorten = shorten
        self._recommended: dict[VariantKey, History] = {}

    def decide(self, key: VariantKey, variant: VariantState, snapshot: Snapshot) -> int:
        """The metric's wish through windows and growth limits."""
        values = [self.read(one) if one.phase is ReplicaPhase.READY else None for one in autoscaled.pods(variant)]
        settings, history = self._settings[key], self._recommended.setdefault(key, deque())
        proposal = recommend(values, variant.desired, settings)
        return stabilise(proposal, variant.desired, snapshot.now, history, settings, self._shorten)

    def _told(self, settings: HpaSettings) -> str:
        return f"target {settings.target:g} {self.metric} per pod" + told_window(settings.down_window_seconds)

    @abstractmethod
    def read(self, replica: Replica) -> float | None:
        """The metric of a ready pod; None while it has none."""


class HpaOnQueue(_HpaOnPods):
    """An HPA on ``vllm:num_requests_waiting``."""

    name = "hpa-queue"
    metric = "waiting"

    def read(self, replica: Replica) -> float | None:
        """Requests that wait."""
        return signals.sound(replica.waiting)


class HpaOnRunning(_HpaOnPods):
    """An HPA on ``vllm:num_requests_running``."""

    name = "hpa-running"
    metric = "running"

    def read(self, replica: Replica) -> float | None:
        """Requests that run."""
        return signals.sound(replica.running)


def told_window(seconds: float) -> str:
    """A scale-down window, where it is not the default."""
    return "" if seconds == DOWN_WINDOW_SECONDS else f", scale-down window {seconds:g} s"


def _sync_seconds(settings: Mapping[VariantKey, HpaSettings]) -> float:
    """Of all HPAs of a cluster, which has one controller for them."""
    return min((one.sync_seconds for one in settings.values()), default=SYNC_SECONDS)


def recommend(metrics: Sequence[float | None], current: int, settings: HpaSettings) -> int:
    """Replicas that the metric asks for, before limits and windows.

    Args:
        metrics: of each pod, None where missing.
        current: replicas in the scale.
        settings: target and tolerance.
    """
    found = [value for value in metrics if value is not None]
    missing = len(metrics) - len(found)
    if not found:  # no metric at all: the HPA does nothing
        return current
    ratio = sum(found) / len(found) / settings.target
    if not missing:
        within = abs(1 - ratio) <= settings.tolerance
        return current if within else ceil(ratio * len(found))
    if ratio == 1:
        return current
    assumed = settings.target if ratio < 1 else 0.0
    rebalanced = (sum(found) + missing * assumed) / len(metrics) / settings.target
    turned = (ratio < 1 < rebalanced) or (rebalanced < 1 < ratio)
    if abs(1 - rebalanced) <= settings.tolerance or turned:
        return current
    proposal = ceil(rebalanced * len(metrics))
    against = (rebalanced < 1 and proposal > current) or (rebalanced > 1 and proposal < current)
    return current if against else proposal


def recommend_total(total: float, current: int, settings: HpaSettings) -> int:
    """Replicas that an External metric of type AverageValue asks for: its total over the target.

    Args:
        total: over all pods.
        current: replicas in the scale.
        settings: target per pod and tolerance.
    """
    if current and abs(1 - total / (settings.target * current)) <= settings.tolerance:
        return current
    return ceil(total / settings.target)


def stabilise(  # noqa: PLR0917 (the HPA's own inputs)
    proposal: int,
    current: int,
    now: float,
    history: History,
    settings: HpaSettings,
    shorten: float = 1.0,
) -> int:
    """The replica count after stabilisation windows and rate limits; keeps the recommendation in ``history``.

    At its first sight of a scale the HPA notes the replicas that there are as if it had recommended them.
    """
    if not history:
        history.append((now, current))
    longest = max(settings.up_window_seconds, settings.down_window_seconds) / shorten
    while history and history[0][0] <= now - longest:
        history.popleft()
    history.append((now, proposal))
    ups = [count for at, count in history if at > now - settings.up_window_seconds / shorten]
    downs = [count for at, count in history if at > now - settings.down_window_seconds / shorten]
    lowest, highest = min([proposal, *ups]), max([proposal, *downs])
    wanted = min(max(current, lowest), highest)
    most = max(current + settings.up_pods, ceil(current * (1 + settings.up_ratio)))
    least = math.floor(current * (1 - settings.down_ratio) + 1e-9)
    return max(min(wanted, most), least)


def ceil(value: float) -> int:
    """Rounded up, a hair above a whole number counting as that."""
    return math.ceil(value - 1e-9)
