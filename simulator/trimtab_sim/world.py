"""The simulated world: a trace meets routers, replicas and a controller, in discrete events.

Shipped code decides everything that can be decided: queries, snapshot, planner, guards, tables, classification,
weights, endpoint choice, prices. Replaced are only the clock, the replicas, the arrivals and the wires between them.
A run begins with a prologue, in which the beginning of the trace is repeated until controller and replicas have found
their feet; nothing of it is counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trimtab_core import capacity, economics, observation, units
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_core.routing import publish
from trimtab_core.signals import Sample
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase, Snapshot, TierState, VariantState

from trimtab_sim import (
    arrivals,
    control,
    dispatch,
    engine,
    faults,
    fleet,
    meters,
    objects,
    prompts,
    replicas,
    report,
    service,
)
from trimtab_sim.engine import Order
from trimtab_sim.workload import Request, Trace

EPOCH_SECONDS = objects.EPOCH_SECONDS
"""The moment that controllers take for the start of the run."""
_PATIENCE_SECONDS = 900.0
"""How long after the end of a run unfinished requests are waited for."""


class ScenarioError(ValueError):
    """Manifests that can't be simulated; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a world runs. Times are seconds.

    Attributes:
        seed: of prompts, classification ties and endpoint choice.
        shorten: by how much a demonstration has shortened all times of control (1 for real times): divides the
            scrape interval, the query window, the prologue, and the windows of baselines. Intervals, windows and
            start-up times of the manifests are taken as they are.
        scrape_interval, scrape_delay: how often counters are read, and how much later they are seen.
        window: over which rates are asked for.
        prologue: length of the run-in; 0 begins at once with the initial replicas.
        points: of the course in the report.
    """

    seed: int = 0
    shorten: float = 1.0
    scrape_interval: float = 5.0
    scrape_delay: float = 1.0
    window: float = 60.0
    prologue: float = 600.0
    points: int = 120


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated: the objects as ``kubectl apply`` would take them, and a trace for one of the policies.

    Attributes:
        policy: ``namespace/name`` of the policy that gets the trace; the first one when empty.
        faults: what goes wrong.
        source: of the prompts; made-up ones when None.
        truth: how replicas of a variant really behave, where that is not what the manifests and the catalogue say.
    """

    tiers: tuple[v1alpha1.InferenceTier, ...]
    policies: tuple[v1alpha1.RoutingPolicy, ...]
    caches: tuple[v1alpha1.CachePolicy, ...]
    trace: Trace
    settings: Settings = field(default_factory=Settings)
    policy: str = ""
    faults: faults.Faults = faults.NONE
    source: prompts.Source | None = None
    truth: Mapping[VariantKey, CapacityProfile] = field(default_factory=dict)

    @property
    def prompts(self) -> prompts.Source:
        """Where the prompts come from."""
        return self.source or prompts.Synthetic(self.settings.seed)

    @property
    def policy_key(self) -> str:
        """The policy that gets the trace.

        Raises:
            ScenarioError: if there is none, or none of that name.
        """
        keys = [observation.key(policy.metadata) for policy in self.policies]
        if not keys:
            raise ScenarioError("no RoutingPolicy in the manifests: a trace needs one to serve it")
        if self.policy and self.policy not in keys:
            raise ScenarioError(f"policy {self.policy!r} is not in the manifests; there are {', '.join(keys)}")
        return self.policy or keys[0]


Progress = Callable[[float], None]
"""Told the share of the run that is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Stop:
    """When a run has told enough: it ends at the next scrape, and its ``Run`` says so in ``aborted``.

    Neither number ever falls within a run, so what is aborted would have ended above the bound as well.

    Attributes:
        misses: ends once more requests than that have missed the SLO; None for no bound.
        usd: ends once more than that has been paid; None for no bound.
    """

    misses: int | None = None
    usd: float | None = None


def simulate(
    scenario: Scenario,
    controller: control.Controller,
    progress: Progress | None = None,
    *,
    stop: Stop | None = None,
    witness: service.Witness | None = None,
) -> report.Run:
    """Run one controller on a scenario. Equal scenarios and controllers give equal runs.

    Args:
        scenario: the world.
        controller: a new one for each run, since it may remember.
        progress: told how far the run is.
        stop: when to end early.
        witness: told of every request's outcome.

    Raises:
        ScenarioError: if the manifests can't be simulated.
    """
    return World(scenario, controller, progress, stop=stop or Stop(), witness=witness).run()


def first_look(scenario: Scenario) -> Snapshot:
    """The snapshot before anything runs: specs, prices and profiles."""
    return objects.Objects(scenario.tiers, scenario.policies, scenario.caches).look(EPOCH_SECONDS, {}, {}, {})


def class_shares(scenario: Scenario) -> dict[str, float]:
    """The share of the trace's requests in each class of the policy, as the shipped classifier tells them apart.

    Of a long trace an evenly spread sample is looked at.
    """
    snapshot = first_look(scenario)
    nothing = Plan({}, {}, {}, Prediction(0.0, 0.0, 1.0, 0.0), Source.FLOOR)
    rules = publish.table(snapshot, nothing, scenario.policy_key, epoch=1, revision=1)
    router = dispatch.Dispatcher(scenario.settings.seed, scenario.prompts)
    router.install(rules)
    classes = [router.classify(router.judge(request)) for request in scenario.trace.facts.sample]
    found = Counter(each.name for each in classes if each is not None)
    return {name: count / len(classes) for name, count in sorted(found.items())}


class World:
    """One run in the making; ``run`` once."""

    def __init__(
        self,
        scenario: Scenario,
        controller: control.Controller,
        progress: Progress | None = None,
        *,
        stop: Stop = Stop(),
        witness: service.Witness | None = None,
    ) -> None:
        settings = scenario.settings
        self._stop = stop
        self._aborted = ""
        self._scenario = scenario
        self._controller = controller
        self._progress = progress or (lambda _: None)
        self._prologue = settings.prologue / settings.shorten
        self._clock = engine.Engine(-self._prologue)
        self._duration = max(scenario.trace.duration_s, 1.0)
        self._recorder = report.Recorder(self._duration, points=settings.points)
        self._meters = meters.Meters(window_seconds=settings.window / settings.shorten)
        self._objects = objects.Objects(scenario.tiers, scenario.policies, scenario.caches)
        self._snapshot = first_look(scenario)
        self._fleet = fleet.Fleet(self._clock, _kinds(self._snapshot, scenario), self._changed)
        self._service = service.Service(
            clock=self._clock,
            counts=self._meters,
            recorder=self._recorder,
            find=self._fleet.find,
            policy=scenario.policy_key,
            seed=settings.seed,
            source=scenario.prompts,
            witness=witness,
        )
        self._plan: Plan | None = None
        self._revision = 0
        self._bill: report.Bill | None = None

    def run(self) -> report.Run:
        """Everything from the prologue to the last answer."""
        self._begin()
        self._clock.run(until=self._duration)
        self._bill = self._bill or self._fleet.bill()
        ends = self._duration + _PATIENCE_SECONDS
        while self._service.unsettled and self._clock.peek() <= ends:
            self._clock.step()
        if not self._aborted:
            self._service.give_up()
        bill = report.Bill(
            self._bill.cost_usd + self._service.external_usd,
            self._bill.gpu_hours,
            self._bill.busy_gpu_hours,
            self._bill.replica_changes,
        )
        return self._recorder.run(
            self._controller.name,
            bill,
            settings=self._controller.settings,
            notes=(self._scenario.trace.source,),
            aborted=self._aborted,
        )

    def _begin(self) -> None:
        start = self._clock.now
        wanted = self._controller.initial(self._snapshot)
        for tier in self._snapshot.tiers.values():
            for variant in tier.variants:
                key = VariantKey(tier.key, variant.name)
                self._fleet.start(key, wanted.get(key, variant.spec.replicas.min))
        self._clock.at(start, self._scrape, Order.MEASURE)
        self._clock.at(start, self._decide, Order.CHANGE)  # before the first arrival: routers need a table
        self._clock.at(max(start, 0.0), self._begin_billing, Order.FINISH)
        self._arrivals = arrivals.with_prologue(self._scenario.trace, self._prologue, self._duration)
        self._next_arrival()

    def _begin_billing(self) -> None:
        self._fleet.begin_billing()
        self._recorder.observe(self._fleet.state())

    def _next_arrival(self) -> None:
        request = next(self._arrivals, None)
        if request is not None:
            self._clock.at(request.arrival_s, lambda: self._arrive(request), Order.ARRIVE)

    def _arrive(self, request: Request) -> None:
        self._service.arrive(request)
        self._next_arrival()

    def _scrape(self) -> None:
        settings, now = self._scenario.settings, self._epoch()
        sampled, engines = self._meters.sample(now), self._read_engines(now)
        self._clock.after(
            settings.scrape_delay / settings.shorten, lambda: self._meters.keep(sampled, engines), Order.MEASURE
        )
        self._clock.after(settings.scrape_interval / settings.shorten, self._scrape, Order.MEASURE)
        self._end_early()

    def _end_early(self) -> None:
        """Abort the run once it has told enough. Asked right after a scrape, when looking changes nothing."""
        stop, misses = self._stop, self._recorder.misses
        if self._bill is not None:  # the last answers come in, and nothing is paid for them
            return
        if stop.misses is not None and misses > stop.misses:
            self._aborted = f"more than {stop.misses} misses after {self._clock.now:.0f} s"
        if stop.usd is not None and self._fleet.bill().cost_usd + self._service.external_usd > stop.usd:
            self._aborted = f"more than ${stop.usd:.2f} after {self._clock.now:.0f} s"
        if self._aborted:
            self._bill = self._fleet.bill()
            self._clock.halt()

    def _read_engines(self, now: float) -> dict[str, observation.EngineReading]:
        for _, replica in self._fleet.members():
            replica.processor.advance()
        return {
            replica.name: observation.EngineReading(
                running=Sample(replica.processor.running, now),
                waiting=Sample(replica.processor.waiting, now),
                kv_usage=Sample(replica.processor.kv_usage, now),
                gap_seconds=Sample(replica.processor.gap_seconds, now),
                gaps=Sample(replica.processor.gaps, now),
                prompt_tokens=Sample(replica.processor.prompt_tokens, now),
            )
            for _, replica in self._fleet.members()
            if replica.phase is not ReplicaPhase.PENDING
        }

    def _decide(self) -> None:
        self._snapshot = self._look(self._snapshot)
        orders = self._controller.step(self._snapshot)
        self._plan = orders.plan
        self._objects.remember(orders.plan, self._snapshot)
        for key, count in sorted(orders.plan.replicas.items()):
            self._fleet.scale(key, count)
        self._recorder.decide(
            dataclasses.replace(decision, time=decision.time - EPOCH_SECONDS) for decision in orders.decisions
        )
        self._publish()
        self._progress(min(max(self._clock.now / self._duration, 0.0), 1.0))
        self._clock.after(self._controller.interval_seconds(self._snapshot), self._decide, Order.DECIDE)

    def _changed(self, key: VariantKey, replica: replicas.Replica) -> None:
        """A replica is ready, drains or is gone: routers are told at once, as pod events wake the operator."""
        del key
        if replica.phase is not ReplicaPhase.READY:
            self._service.leave(replica.name)
        elif self._plan is not None:
            self._publish()
        self._recorder.observe(self._fleet.state())

    def _publish(self) -> None:
        """A table of the plan in force and of what runs now."""
        if self._plan is None:
            return
        self._revision += 1
        snapshot = self._look(self._snapshot)
        table = publish.table(snapshot, self._plan, self._scenario.policy_key, epoch=1, revision=self._revision)
        self._service.serve_by(table, use_cache=self._controller.uses_cache)

    def _epoch(self) -> float:
        return EPOCH_SECONDS + self._clock.now

    def _look(self, previous: Snapshot | None = None) -> Snapshot:
        """What the operator would see now."""
        now = self._epoch()
        variants = {key: objects.observed(self._fleet.desired[key], self._fleet.of(key)) for key in self._fleet.kinds}
        return self._objects.look(now, variants, self._meters.answers(now), self._meters.engines, previous)


def _kinds(snapshot: Snapshot, scenario: Scenario) -> dict[VariantKey, fleet.Kind]:
    """How replicas of each variant really behave: as the profiles say, or as the scenario knows better."""
    mix = mean_mix(scenario.trace)
    return {
        key: _kind(snapshot, tier, variant, mix, truth=scenario.truth.get(key))
        for tier in snapshot.tiers.values()
        for variant in tier.variants
        for key in (VariantKey(tier.key, variant.name),)
    }


def _kind(
    snapshot: Snapshot, tier: TierState, variant: VariantState, mix: capacity.Mix, *, truth: CapacityProfile | None
) -> fleet.Kind:
    profile = truth or variant.profile or publish.UNKNOWN_PROFILE
    load = capacity.admissible_load(profile, mix, capacity.limits(tier.spec.slo))
    return fleet.Kind(
        profile=profile,
        usd_per_hour=economics.worst_usd_per_hour(snapshot, tier.key, variant),
        accelerators=variant.spec.accelerator.count,
        fitting=max(load.running, 1e-9),
        drain_seconds=units.duration_seconds(tier.spec.drain.timeout),
    )


def mean_mix(trace: Trace) -> capacity.Mix:
    """Mean lengths of a trace's requests."""
    return capacity.Mix(trace.mean_input_tokens, trace.mean_output_tokens)
