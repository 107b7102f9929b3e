"""What a run did: one ``Run`` per controller, whoever measured it.

The simulator fills a ``Recorder`` from simulated requests, the demo from real HTTP ones; both get the same ``Run``, so
that tables, JSON and plots can put them side by side. Must not know about the event engine, HTTP or terminals.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_core.planning.plan import Decision
from trimtab_core.routing import table as tables

from trimtab_sim import latencies

CACHE = "cache"
"""Stands in ``share_by_tier`` for requests that the cache answered."""
FAILED = "failed"
"""Stands there for requests that got no answer; they count as misses of the SLO."""
EXPLAINED = 2000
"""So many latest decisions keep their inputs and alternatives: weeks have tens of thousands."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The latency limits that a request was promised, seconds; None is not promised."""

    ttft_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None

    @classmethod
    def of(cls, slo: tables.Slo) -> Promise:
        """The limits of an SLO."""
        return cls(slo.ttft_seconds, slo.itl_seconds, slo.e2e_seconds)

    def met(self, ttft_s: float | None, itl_s: float | None, e2e_s: float | None) -> bool:
        """Whether all limits hold. What could not be measured (no second token) can't be missed."""
        pairs = ((self.ttft_s, ttft_s), (self.itl_s, itl_s), (self.e2e_s, e2e_s))
        return all(limit is None or value is None or value <= limit for limit, value in pairs)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Attributes:
        arrived_s: seconds since the start of the run.
        tier: name of the tier that answered, ``CACHE`` or ``FAILED``.
        ttft_s, itl_s, e2e_s: latencies in seconds; None where there are none.
        met: every promised latency held; False for a failure.
        quality: estimated probability that the answer is as good as wanted; 0 for a failure.
        best_quality: the same for the tier of best quality among those that the class may use.
    """

    arrived_s: float
    tier: str
    met: bool
    ttft_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None
    quality: float = 0.0
    best_quality: float = 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the run's course.

    Attributes:
        t_s: seconds since the start of the run; the values hold from then on.
        arrivals_per_second: mean until the next point.
        ready, pending: replicas by tier.
        usd_per_hour: what all replicas cost, pending and draining ones included.
        ttft_p95_s, itl_p95_s, e2e_p95_s: over the requests that arrived until the next point; None without any.
        slo_attainment: the same.
    """

    t_s: float
    arrivals_per_second: float
    ready: Mapping[str, int]
    pending: Mapping[str, int]
    usd_per_hour: float
    ttft_p95_s: float | None = None
    itl_p95_s: float | None = None
    e2e_p95_s: float | None = None
    slo_attainment: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One controller on one trace.

    Attributes:
        controller: name for tables, such as ``trimtab`` or ``static-peak``.
        measured: ``simulated``, or how else the numbers were had.
        requests: requests that arrived, failed ones included.
        slo_attainment: share of the requests that met every promised latency; failures missed it.
        ttft_p95_s, itl_p95_s, e2e_p95_s: over answered requests, seconds; None without any.
        gpu_hours: accelerator-hours paid for, from creation to end of each replica.
        gpu_utilisation: sequences running over those that fit within the SLO, over all paid accelerator time.
        replica_changes: replicas added and removed on order.
        share_by_tier: share of the requests by the tier that answered; ``cache`` and ``failed`` where there were any.
        expected_quality: mean estimated quality of the answers (an estimate from the tiers' priors, not measured).
        quality_retention: the same over that of always the best allowed tier.
        reversals_per_hour: changes of direction of a tier's replicas, of the tier that has most.
        reversals_10min_max: most of them that one tier had in any ten minutes.
        wrong_way_moves: scale-downs, and weights moved away from a healthy tier, that no fresh signal justifies.
        regret: cost above the offline optimum's, as a share of that; None where none was computed.
        aborted: why the run was ended early, in which case it tells of its beginning only; empty for a whole run.
        settings: what the controller was set to, for people.
        notes: what one must know to read the numbers.
    """

    controller: str
    requests: int
    cost_usd: float
    usd_per_1k_requests: float
    slo_attainment: float
    ttft_p95_s: float | None
    itl_p95_s: float | None
    e2e_p95_s: float | None
    gpu_hours: float
    gpu_utilisation: float
    replica_changes: int
    share_by_tier: Mapping[str, float]
    failed: int
    duration_s: float
    expected_quality: float
    quality_retention: float
    reversals_per_hour: float = 0.0
    reversals_10min_max: int = 0
    wrong_way_moves: int = 0
    regret: float | None = None
    aborted: str = ""
    measured: str = "simulated"
    settings: str = ""
    notes: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    series: tuple[Point, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; numbers rounded to six significant digits, so that equal runs give equal files."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return] # a dict stays a dict

    def saved_against(self, baseline: Run) -> float:
        """Share of the baseline's cost that this run saved; negative if it cost more, 0 if the baseline was free."""
        return 1 - self.cost_usd / baseline.cost_usd if baseline.cost_usd > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """What the replicas of a run cost.

    Attributes:
        cost_usd: replicas and external calls.
        gpu_hours: accelerator-hours paid for.
        busy_gpu_hours: accelerator-hours times the share of the SLO-keeping load that was running.
        replica_changes: replicas added and removed on order.
    """

    cost_usd: float
    gpu_hours: float
    busy_gpu_hours: float
    replica_changes: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet at one moment, for the course: replicas by tier and their price."""

    at_s: float
    ready: Mapping[str, int]
    pending: Mapping[str, int]
    usd_per_hour: float


def document(runs: Sequence[Run], **told: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON value, passed on)
    """The JSON file that ``simulate`` and ``demo`` write: all runs, and the decisions of the first one.

    Args:
        runs: Trimtab's first.
        told: further top-level fields, such as the trace and the seed.
    """
    shown = [dataclasses.replace(run, decisions=()).to_dict() for run in runs]
    return {
        **told,
        "runs": [{name: value for name, value in run.items() if name != "decisions"} for run in shown],
        "decisions": [_plain(dataclasses.asdict(decision)) for decision in runs[0].decisions] if runs else [],
    }


class Recorder:
    """Collects outcomes and the course of the fleet, and makes the ``Run``.

    Args:
        duration_s: length of the run; arrivals outside of 0 to this are not counted.
        points: how many points the course should have.

    Attributes:
        misses: requests so far that missed the SLO, failed ones included.
    """

    def __init__(self, duration_s: float, *, points: int = 120) -> None:
        self._duration_s = duration_s
        self._step_s = max(duration_s / points, 1e-9)
        self._windows = [_Window() for _ in range(points)]
        self._points = points
        self._tiers: dict[str, int] = {}
        self.misses = 0
        self._quality = self._best_quality = 0.0
        self._fleet: list[Fleet] = []
        self._decisions: list[Decision] = []

    def add(self, outcome: Outcome) -> None:
        """Count one request."""
        measured = (outcome.ttft_s, outcome.itl_s, outcome.e2e_s)
        qualities = (outcome.quality, outcome.best_quality)
        self.count(outcome.arrived_s, outcome.tier, measured, qualities, met=outcome.met)

    def count(
        self,
        arrived_s: float,
        tier: str,
        measured: tuple[float | None, float | None, float | None],
        qualities: tuple[float, float],
        *,
        met: bool,
    ) -> None:
        """``add`` without an ``Outcome``: TTFT, ITL and end to end in seconds, own and best quality."""
        if not 0 <= arrived_s <= self._duration_s:
            return
        at = int(arrived_s / self._step_s)
        window = self._windows[at if at < self._points else -1]
        window.requests += 1
        if not met:
            window.misses += 1
            self.misses += 1
        ttft_s, itl_s, e2e_s = measured
        if ttft_s is not None:
            window.ttft.fresh.append(ttft_s)
        if itl_s is not None:
            window.itl.fresh.append(itl_s)
        if e2e_s is not None:
            window.e2e.fresh.append(e2e_s)
        if window.requests % latencies.EXACT == 0:
            window.fold()
        self._tiers[tier] = self._tiers.get(tier, 0) + 1
        self._quality += qualities[0]
        self._best_quality += qualities[1]

    def observe(self, fleet: Fleet) -> None:
        """Note the fleet; in order of time."""
        self._fleet.append(fleet)

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Note decisions; their times count from the start of the run."""
        for decision in decisions:
            if 0 <= decision.time <= self._duration_s:
                self._decisions.append(decision)
                if len(self._decisions) > EXPLAINED:
                    old = self._decisions[-EXPLAINED - 1]
                    self._decisions[-EXPLAINED - 1] = dataclasses.replace(old, inputs=(), alternatives=())

    def run(self, controller: str, bill: Bill, **told: Any) -> Run:  # noqa: ANN401 (fields of Run, passed on)
        """The run. ``told`` are the fields that nobody can measure: ``measured``, ``settings``, ``notes``."""
        requests = sum(self._tiers.values())
        failed = self._tiers.get(FAILED, 0)
        whole = _Window.joined(self._windows)
        return Run(
            controller=controller,
            requests=requests,
            cost_usd=bill.cost_usd,
            usd_per_1k_requests=1000 * bill.cost_usd / requests if requests else 0.0,
            slo_attainment=(requests - whole.misses) / requests if requests else 1.0,
            ttft_p95_s=whole.ttft.percentile(),
            itl_p95_s=whole.itl.percentile(),
            e2e_p95_s=whole.e2e.percentile(),
            gpu_hours=bill.gpu_hours,
            gpu_utilisation=bill.busy_gpu_hours / bill.gpu_hours if bill.gpu_hours else 0.0,
            replica_changes=bill.replica_changes,
            share_by_tier={tier: count / requests for tier, count in sorted(self._tiers.items()) if count},
            failed=failed,
            duration_s=self._duration_s,
            expected_quality=self._quality / requests if requests else 0.0,
            quality_retention=self._quality / self._best_quality if self._best_quality else 1.0,
            decisions=tuple(self._decisions),
            series=tuple(self._course()),
            **told,
        )

    def _course(self) -> Iterable[Point]:
        at, fleet = 0, Fleet(0.0, {}, {}, 0.0)
        for number, window in enumerate(self._windows):
            t_s = number * self._step_s
            while at < len(self._fleet) and self._fleet[at].at_s <= t_s:
                fleet, at = self._fleet[at], at + 1
            yield Point(
                t_s=t_s,
                arrivals_per_second=window.requests / self._step_s,
                ready=fleet.ready,
                pending=fleet.pending,
                usd_per_hour=fleet.usd_per_hour,
                ttft_p95_s=window.ttft.percentile(),
                itl_p95_s=window.itl.percentile(),
                e2e_p95_s=window.e2e.percentile(),
                slo_attainment=(window.requests - window.misses) / window.requests if window.requests else None,
            )


class _Window:
    """Outcomes of a stretch of the run."""

    __slots__ = ("e2e", "itl", "misses", "requests", "ttft")

    def __init__(self) -> None:
        self.requests = self.misses = 0
        self.ttft, self.itl, self.e2e = (latencies.Latencies() for _ in range(3))

    def fold(self) -> None:
        """Keep only buckets."""
        for values in (self.ttft, self.itl, self.e2e):
            values.fold()

    @classmethod
    def joined(cls, windows: Iterable[_Window]) -> _Window:
        whole = cls()
        for window in windows:
            whole.requests += window.requests
            whole.misses += window.misses
            whole.ttft.join(window.ttft)
            whole.itl.join(window.itl)
            whole.e2e.join(window.e2e)
        return whole


def _plain(value: Any) -> Any:  # noqa: ANN401 (walks any JSON-like value)
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
