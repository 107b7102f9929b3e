"""The simulated world: a trace meets routers, replicas and a controller, in discrete events.

Shipped code decides everything that can be decided: queries, snapshot, planner, guards, tables, classification,
weights, endpoint choice, prices. Replaced are only the clock, the replicas, the arrivals and the wires between them.
A run begins with a prologue, in which the beginning of the trace is repeated until controller and replicas have found
their feet; nothing of it is counted.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_core.planning.plan import Plan, VariantKey
from trimtab_core.routing import publish
from trimtab_core.snapshot import ReplicaPhase, Snapshot

from trimtab_sim import (
    arrivals,
    conduct,
    control,
    engine,
    faults,
    fleet,
    meters,
    objects,
    replicas,
    report,
    scrapes,
    service,
    trouble,
    truth,
)
from trimtab_sim import scenario as scenarios
from trimtab_sim.engine import Order
from trimtab_sim.scenario import Scenario as Scenario  # noqa: PLC0414 (all that a world is made of, in one place)
from trimtab_sim.scenario import ScenarioError as ScenarioError  # noqa: PLC0414
from trimtab_sim.scenario import Settings as Settings  # noqa: PLC0414
from trimtab_sim.scenario import class_shares as class_shares  # noqa: PLC0414
from trimtab_sim.scenario import first_look as first_look  # noqa: PLC0414
from trimtab_sim.scenario import mean_mix as mean_mix  # noqa: PLC0414

EPOCH_SECONDS = objects.EPOCH_SECONDS
"""The moment that controllers take for the start of the run."""
_TOLD_MOVES = 5
"""So many wrong-way moves are told in a run's notes."""
PATIENCE_SECONDS = 900.0
"""How long after the end of a run unfinished requests are waited for."""


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
        ScenarioError: if the manifests can't be simulated, or faults name a variant that they lack.
    """
    try:
        world = World(scenario, controller, progress, stop=stop or Stop(), witness=witness)
    except faults.FaultError as error:
        raise ScenarioError(str(error)) from error
    return world.run()


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
        self._successor = copy.deepcopy(controller) if scenario.faults.leader_handover else controller
        self._progress = progress or (lambda _: None)
        self._prologue = settings.prologue / settings.shorten
        self._clock = engine.Engine(-self._prologue)
        self._duration = max(scenario.trace.duration_s, 1.0)
        self._recorder = report.Recorder(self._duration, points=settings.points)
        window = settings.window / settings.shorten
        self._meters = meters.Meters(window_seconds=window)
        self._objects = objects.Objects(scenario.tiers, scenario.policies, scenario.caches, window)
        self._first = first_look(scenario)
        self._previous: Snapshot | None = None
        kinds = scenarios.kinds(self._first, scenario)
        variants, troubles = scenarios.variants(self._first), scenario.faults
        startups = {key: kind.profile.startup_seconds for key, kind in kinds.items()}
        births = trouble.Births(troubles, self._clock, variants, startups)
        self._fleet = fleet.Fleet(self._clock, kinds, self._changed, start=births.start)
        self._strikes = trouble.Strikes(troubles, self._clock, variants, self._fleet, births, seed=settings.seed)
        wire = scrapes.Wire(settings.scrape_delay / settings.shorten, settings.scrape_loss, settings.seed)
        self._scraper = scrapes.Scraper(self._clock, self._meters, self._fleet, troubles, wire=wire)
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
        self._watch = self._watching()
        self._plan: Plan | None = None
        self._term = 1
        self._revision = 0
        self._bill: report.Bill | None = None
        self._strikes.begin()
        levers = trouble.Levers(self._reprice, self._service.empty_cache, self._hand_over)
        trouble.schedule(troubles, self._clock, variants, kinds=kinds, levers=levers)

    def _watching(self) -> conduct.Watch:
        """Who judges the controller, from the world itself."""
        scenario, kinds = self._scenario, self._fleet.kinds
        settings, mean = scenario.settings, mean_mix(scenario.trace)
        window = settings.window / settings.shorten
        policy = scenario.policy_key
        witness = truth.Witness(
            policy,
            tuple(each.name for each in self._first.policies[policy].spec.classes),
            self._meters,
            self._fleet,
            self._scraper,
            window=window,
            lag=settings.scrape_interval / settings.shorten,
            mean=mean,
        )
        return conduct.Watch(
            policy,
            {key: kind.profile for key, kind in kinds.items()},
            {key: kind.requests_per_second for key, kind in kinds.items()},
            witness.look,
            shorten=settings.shorten,
        )

    def run(self) -> report.Run:
        """Everything from the prologue to the last answer."""
        self._begin()
        self._clock.run(until=self._duration)
        self._bill = self._bill or self._fleet.bill()
        ends = self._duration + PATIENCE_SECONDS
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
            notes=self._notes(),
            aborted=self._aborted,
            wrong_way_moves=len(self._watch.wrong),
            reversals_per_hour=self._watch.reversals_per_hour(self._duration),
            reversals_10min_max=self._watch.reversals_10min_max,
        )

    def _notes(self) -> tuple[str, ...]:
        """What one must know to read the numbers."""
        faults_, wrong = str(self._scenario.faults), self._watch.wrong
        return (
            self._scenario.offered.source,
            *([f"faults: {faults_}"] if faults_ else ()),
            *([f"first wrong-way moves: {'; '.join(map(str, wrong[:_TOLD_MOVES]))}"] if wrong else ()),
        )

    def _begin(self) -> None:
        start = self._clock.now
        wanted = self._controller.initial(self._first)
        for tier in self._first.tiers.values():
            for variant in tier.variants:
                key = VariantKey(tier.key, variant.name)
                self._fleet.start(key, wanted.get(key, variant.spec.replicas.min))
        self._clock.at(start, self._scrape, Order.MEASURE)
        # before the first arrival: routers need a table
        self._decision = self._clock.at(start, self._decide, Order.CHANGE)
        self._clock.at(max(start, 0.0), self._begin_billing, Order.FINISH)
        coming = arrivals.with_prologue(self._scenario.offered, self._prologue, self._duration)
        self._clock.feed(coming, operator.attrgetter("arrival_s"), self._service.arrive, Order.ARRIVE)

    def _begin_billing(self) -> None:
        self._fleet.begin_billing()
        self._recorder.observe(self._fleet.state())

    def _scrape(self) -> None:
        self._scraper.scrape()
        settings = self._scenario.settings
        self._clock.after(settings.scrape_interval / settings.shorten, self._scrape, Order.MEASURE)
        self._end_early()

    def _end_early(self) -> None:
        """Abort the run once it has told enough. Asked right after a scrape, when looking changes nothing."""
        stop = self._stop
        if self._bill is not None:  # the last answers come in, and nothing is paid for them
            return
        if stop.misses is not None and self._recorder.misses + self._service.overdue() > stop.misses:
            self._aborted = f"more than {stop.misses} misses after {self._clock.now:.0f} s"
        if stop.usd is not None and self._fleet.bill().cost_usd + self._service.external_usd > stop.usd:
            self._aborted = f"more than ${stop.usd:.2f} after {self._clock.now:.0f} s"
        if self._aborted:
            self._bill = self._fleet.bill()
            self._clock.halt()

    def _decide(self) -> None:
        snapshot = self._previous = self._look(self._previous)
        orders = self._controller.step(snapshot)
        self._plan = orders.plan
        self._watch.cycle(self._clock.now, snapshot, orders.plan)
        self._objects.remember(orders.plan, snapshot)
        scaled = False
        for key, count in sorted(orders.plan.replicas.items()):
            scaled = scaled or count != self._fleet.desired[key]
            self._fleet.scale(key, count)
        self._recorder.decide(
            dataclasses.replace(decision, time=decision.time - EPOCH_SECONDS) for decision in orders.decisions
        )
        self._publish(None if scaled else snapshot)
        self._progress(min(max(self._clock.now / self._duration, 0.0), 1.0))
        self._decision = self._clock.after(self._controller.interval_seconds(snapshot), self._decide, Order.DECIDE)

    def _hand_over(self, gap: float) -> None:
        """Another controller takes over, which knows what the objects' status tells; until then nobody decides."""
        self._controller = copy.deepcopy(self._successor)
        self._plan = self._previous = None
        self._term += 1
        self._decision.cancel()
        self._decision = self._clock.after(gap, self._decide, Order.DECIDE)

    def _reprice(self, key: VariantKey, usd_per_hour: float) -> None:
        """A variant has another price: for those who plan, and on the bill."""
        self._objects.reprice(key, usd_per_hour)
        self._fleet.reprice(key, usd_per_hour)
        self._recorder.observe(self._fleet.state())

    def _changed(self, key: VariantKey, replica: replicas.Replica) -> None:
        """A replica is ready, drains or is gone: routers are told at once, as pod events wake the operator."""
        if replica.phase is not ReplicaPhase.READY:
            self._service.leave(replica.name)
        else:
            self._publish()
            self._strikes.ready(key, replica)
        self._recorder.observe(self._fleet.state())

    def _publish(self, seen: Snapshot | None = None) -> None:
        """A table of the plan in force and of what runs now; that is looked at unless it has been ``seen`` just now."""
        if self._plan is None:
            return
        self._revision += 1
        table = publish.table(
            seen or self._look(self._previous),
            self._plan,
            self._scenario.policy_key,
            epoch=self._term,
            revision=self._revision,
        )
        self._service.serve_by(table, use_cache=self._controller.uses_cache)

    def _epoch(self) -> float:
        return EPOCH_SECONDS + self._clock.now

    def _look(self, previous: Snapshot | None = None) -> Snapshot:
        """What the operator would see now."""
        now = self._epoch()
        variants = {key: objects.observed(self._fleet.desired[key], self._fleet.of(key)) for key in self._fleet.kinds}
        return self._objects.look(
            now, variants, self._meters.answers(now), self._meters.engines, previous, term=self._term
        )
