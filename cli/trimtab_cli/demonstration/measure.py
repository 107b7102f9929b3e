"""From what was seen of a replay to the same ``Run`` that the simulator makes of a simulated one.

Requests come from the load client, decisions and gauges from the loop, lives of replicas from the process runner;
money and hours are integrals over those lives. Pure: times come in as arguments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab_core import capacity, economics, quality, signals, units
from trimtab_core.planning.plan import VariantKey
from trimtab_core.routing import promises
from trimtab_core.routing import table as tables
from trimtab_core.snapshot import Snapshot, TierState, VariantState
from trimtab_operator import reconcile
from trimtab_operator.local.process_runner import Life
from trimtab_sim import report

from trimtab_cli.demonstration import outcomes
from trimtab_cli.pages import figures

CACHE_HIT = "hit"


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed.

    Attributes:
        start_at: epoch seconds of the trace's zero.
        duration_s: what is counted: arrivals and money from 0 to this.
        policy: ``namespace/name`` of the policy that gets the trace.
        mix: mean lengths of the trace, which say how many sequences fit.
        complexity: of each request of the trace, by its index.
    """

    start_at: float
    duration_s: float
    policy: str
    mix: capacity.Mix
    complexity: Sequence[float]


class Measurement:
    """Collects a replay: ``saw`` and ``heard`` in any order, ``run`` at the end.

    Attributes:
        done, met, failed: requests that ended so far, those of them that met their SLO, those that got no answer.
        errors: what failed requests said, and how often.
        answered: arrival in seconds and who answered, of every request that ended.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._recorder = report.Recorder(replay.duration_s)
        self._table: tables.RoutingTable | None = None
        self._snapshot: Snapshot | None = None
        self._seen_at = replay.start_at
        self._sequence_seconds: dict[VariantKey, float] = defaultdict(float)
        self._unjudged: list[outcomes.Outcome] = []
        self._external_usd = 0.0
        self._changes = 0
        self.done = self.met = self.failed = 0
        self.errors: Counter[str] = Counter()
        self.answered: list[tuple[float, str]] = []

    def saw(self, cycle: reconcile.Outcome) -> None:
        """Take one cycle of the loop."""
        self._snapshot = cycle.snapshot
        self._table = cycle.memory.tables.get(self._replay.policy, self._table)
        now, ends_at = cycle.snapshot.now, self._replay.start_at + self._replay.duration_s
        if self._replay.start_at <= now <= ends_at:
            self._recorder.decide(replace(one, time=one.time - self._replay.start_at) for one in cycle.decisions)
            self._changes += sum(abs(change.after - change.before) for change in cycle.changes.replicas)
            self._count_running(cycle.snapshot)
        if self._table is not None:
            waiting, self._unjudged = self._unjudged, []
            for outcome in waiting:
                self._judge(outcome, self._table)

    def heard(self, outcome: outcomes.Outcome) -> None:
        """Take one request's end; those of the run-in (negative indices) are not counted."""
        if outcome.index < 0:
            return
        if self._table is None:
            self._unjudged.append(outcome)
        else:
            self._judge(outcome, self._table)

    @property
    def attainment(self) -> float | None:
        """Share of the requests that ended so far and met every promise; None before the first."""
        return self.met / self.done if self.done else None

    def promised(self) -> float:
        """The share of requests that must meet their SLO: the strictest of all classes."""
        return max((found.slo.attainment for found in self._table.classes), default=0.0) if self._table else 0.0

    def limits(self) -> report.Promise:
        """The latency limits to draw."""
        return figures.strictest_limits(self._table)

    def run(self, lives: Sequence[Life], *, settings: str, notes: tuple[str, ...]) -> report.Run:
        """The run, from everything that was taken in."""
        for fleet in self._course(lives):
            self._recorder.observe(fleet)
        return self._recorder.run("trimtab", self._bill(lives), measured="measured", settings=settings, notes=notes)

    def _judge(self, outcome: outcomes.Outcome, table: tables.RoutingTable) -> None:
        """Count one request against what it was promised."""
        found = next((one for one in table.classes if one.name == outcome.request_class), None)
        tier = next((one for one in table.tiers if one.name == outcome.tier), None)
        cached = outcome.cache == CACHE_HIT
        answered = report.CACHE if cached else outcome.tier
        promise = report.Promise.of(promises.promised(found, None if cached else tier))
        met = not outcome.error and promise.met(outcome.ttft, None if cached else outcome.itl, outcome.e2e)
        self.done += 1
        self.met += met
        if outcome.error:
            self.failed += 1
            self.errors[outcome.error] += 1
        elif tier is not None and tier.external is not None and not cached:
            self._external_usd += economics.request_usd(
                tier.rates,
                input_tokens=outcome.input_tokens,
                cached_input_tokens=0,
                output_tokens=outcome.output_tokens,
            )
        self.answered.append(
            (outcome.scheduled_at - self._replay.start_at, report.FAILED if outcome.error else answered)
        )
        earned, best = _quality(self._replay.complexity[outcome.index], found, tier, table)
        self._recorder.add(
            report.Outcome(
                arrived_s=outcome.scheduled_at - self._replay.start_at,
                tier=report.FAILED if outcome.error else answered,
                met=met,
                ttft_s=None if outcome.error else outcome.ttft,
                itl_s=None if outcome.error or cached else outcome.itl,
                e2e_s=None if outcome.error else outcome.e2e,
                quality=0.0 if outcome.error else earned,
                best_quality=best,
            )
        )

    def _count_running(self, snapshot: Snapshot) -> None:
        """Integrate the engines' running gauges: the value holds since the cycle before."""
        elapsed, self._seen_at = snapshot.now - self._seen_at, snapshot.now
        for tier in snapshot.tiers.values():
            for variant in tier.variants:
                running = sum(signals.known(one.running) or 0.0 for one in variant.replicas)
                self._sequence_seconds[VariantKey(tier.key, variant.name)] += running * elapsed

    def _bill(self, lives: Sequence[Life]) -> report.Bill:
        """Money and hours as integrals over the lives, within the replay."""
        usd = hours = busy = 0.0
        for key, tier, variant in self._variants():
            paid = sum(self._paid_seconds(one) for one in lives if one.variant == key) / units.SECONDS_PER_HOUR
            count, fitting = variant.spec.accelerator.count, fitting_sequences(tier, variant, self._replay.mix)
            usd += paid * _price(variant)
            hours += paid * count
            busy += min(self._sequence_seconds[key] / units.SECONDS_PER_HOUR / fitting, paid) * count
        return report.Bill(usd + self._external_usd, hours, busy, self._changes)

    def _paid_seconds(self, life: Life) -> float:
        """How long a replica was paid for within the replay."""
        start_at, ends_at = self._replay.start_at, self._replay.start_at + self._replay.duration_s
        ended = ends_at if life.ended_at is None else min(life.ended_at, ends_at)
        return max(0.0, ended - max(life.created_at, start_at))

    def _course(self, lives: Sequence[Life]) -> list[report.Fleet]:
        """The fleet at each moment at which a replica changed, from the start of the replay on."""
        ends_at = self._replay.start_at + self._replay.duration_s
        changes = {
            moment
            for one in lives
            for moment in (one.created_at, one.ready_at, one.left_at, one.ended_at)
            if moment is not None and self._replay.start_at < moment <= ends_at
        }
        prices = {key: _price(variant) for key, _, variant in self._variants()}
        return [self._fleet(at, lives, prices) for at in sorted({self._replay.start_at, *changes})]

    def _fleet(self, at: float, lives: Sequence[Life], prices: Mapping[VariantKey, float]) -> report.Fleet:
        ready: Counter[str] = Counter()
        pending: Counter[str] = Counter()
        usd_per_hour = 0.0
        for one in lives:
            if one.created_at > at or (one.ended_at is not None and one.ended_at <= at):
                continue
            usd_per_hour += prices.get(one.variant, 0.0)
            name = one.variant.tier.rpartition("/")[2]
            leaving = one.left_at is not None and one.left_at <= at
            serving = one.ready_at is not None and one.ready_at <= at
            ready[name] += serving and not leaving
            pending[name] += not serving and not leaving
        return report.Fleet(at - self._replay.start_at, dict(ready), dict(pending), usd_per_hour)

    def _variants(self) -> list[tuple[VariantKey, TierState, VariantState]]:
        tiers = self._snapshot.tiers.values() if self._snapshot else ()
        return [(VariantKey(tier.key, variant.name), tier, variant) for tier in tiers for variant in tier.variants]


def fitting_sequences(tier: TierState, variant: VariantState, mix: capacity.Mix) -> float:
    """Sequences that run, on average, on a replica at the largest load that keeps the tier's SLO."""
    if variant.profile is None:
        return 1.0
    return max(capacity.admissible_load(variant.profile, mix, capacity.limits(tier.spec.slo)).running, 1e-9)


def _quality(
    complexity: float, found: tables.Class | None, tier: tables.Tier | None, table: tables.RoutingTable
) -> tuple[float, float]:
    """Estimated quality of this tier's answer to a prompt of that complexity, and of the best allowed tier's."""
    priors = [one.quality for one in table.tiers if found is None or one.name in found.allow]
    m = quality.discrimination(priors)
    own = quality.expected(tier.quality, complexity, complexity, m) if tier is not None else 0.0
    return own, quality.expected(max(priors), complexity, complexity, m) if priors else 1.0


def _price(variant: VariantState) -> float:
    """USD per replica-hour; nothing is bought at an unknown price."""
    return variant.price.usd_per_hour if variant.price is not None else 0.0
