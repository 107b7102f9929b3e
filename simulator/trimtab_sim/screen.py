"""A quick look at what a controller would do: the fleet as a fluid, in steps of one scrape.

Simulating every request of every setting of every baseline would take hours where a look at each takes milliseconds.
So settings are looked at here first, and only the promising ones are simulated. The controller is the real one, and
sees a snapshot as it would in the simulator; requests are not told apart: replicas of a tier share its arrivals by
capacity, and ``curves`` says how many run, wait and keep their promise at that load. What arrives beyond what can be
served at all is queued. Start-up times and prices are those of the scenario; faults are not looked at.

Nothing found here is ever reported: it only decides what is simulated, and in which order.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh
from trimtab_core.snapshot import ClassTraffic, Replica, ReplicaPhase, Snapshot, TierKey

from trimtab_sim import control, curves, laboratory, objects
from trimtab_sim.baselines import routes

LONGEST_SECONDS = 4 * 3600.0
"""Of a longer trace the stretch around its busiest moment is looked at."""
_FULL = 1.25
"""At so many times the last measured load no promise is kept."""
_STRESS = (0.8, 1.4)
_HALVINGS = 8
"""Stress is found to within 0.3 % between these."""
_SPAN_SECONDS, _SPAN_SHARE = 120.0, 0.05

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a setting would cost and keep, roughly.

    Attributes:
        usd: of the stretch that was looked at.
        attainment: share of its requests that keep their promise.
    """

    usd: float
    attainment: float


@dataclass(frozen=True, slots=True)
class Course:
    """All requests in equal steps, the prologue before them.

    Attributes:
        seconds: length of a step.
        prologue: steps that are not counted.
        requests, inputs, outputs: requests and tokens in each step.
    """

    seconds: float
    prologue: int
    requests: Numbers
    inputs: Numbers
    outputs: Numbers


@dataclass(frozen=True, slots=True)
class Line:
    """How the replicas of one variant behave and what they cost.

    Attributes:
        stable: requests per second above which a queue grows without end.
        work: of an input and an output token, as a share of a mean request's.
        tokens: that a running request holds, as a share of the KV cache.
    """

    curve: curves.Curve
    stable: float
    work: tuple[float, float]
    tokens: float
    startup: float
    usd_per_second: float
    ttft: float


@dataclass(slots=True)
class _Pool:
    """The replicas of one variant while the fluid runs.

    Attributes:
        starting: times at which replicas get ready.
        stay: how long a request is there; so long is a replica paid for that goes.
    """

    line: Line
    ready: int = 0
    starting: list[float] = field(default_factory=list)
    running: float = 0.0
    waiting: float = 0.0
    backlog: float = 0.0
    stay: float = 0.0
    usd: float = 0.0

    def scale(self, wanted: int, now: float) -> None:
        """Have that many, the youngest starting ones going first."""
        missing = wanted - self.ready - len(self.starting)
        self.starting += [now + self.line.startup] * missing
        for _ in range(-missing):
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1
                self.usd += self.line.usd_per_second * self.stay if now >= 0 else 0.0

    def advance(self, arrivals: float, seconds: float, now: float, stress: float) -> float:
        """One step; the share of its arrivals that keeps the promise."""
        while self.starting and self.starting[0] <= now:
            del self.starting[0]
            self.ready += 1
        if now >= 0:
            self.usd += (self.ready + len(self.starting)) * self.line.usd_per_second * seconds
        if not self.ready:
            self.backlog += arrivals
            return 0.0
        able = self.ready * self.line.stable * seconds
        served = min(self.backlog + arrivals, able)
        self.backlog += arrivals - served
        load = stress * served / seconds / self.ready
        point, last = self.line.curve.at(load), self.line.curve.points[-1].load
        self.stay = point.running / load if load > 0 else 0.0
        self.running += (point.running - self.running) * (1 - math.exp(-seconds / max(self.stay, 1e-3)))
        self.waiting = point.waiting + self.backlog / self.ready
        over = max(0.0, (load / last - 1) / (_FULL - 1))
        late = self.backlog / able * seconds / self.line.ttft
        return point.met * max(0.0, 1 - over) * max(0.0, 1 - late)

    def replicas(self) -> tuple[Replica, ...]:
        """As a scrape would see them: all alike."""
        usage = min(1.0, self.running * self.line.tokens)
        parts = [Fresh(value, 0.0) for value in (self.running, self.waiting, usage)]
        ready = Replica("ready", ReplicaPhase.READY, 0.0, "", *parts)
        return (ready,) * self.ready + (_PENDING,) * len(self.starting)


_PENDING = Replica("pending", ReplicaPhase.PENDING, 0.0)


class Screen:
    """Looks at controllers on one scenario under one routing.

    Args:
        lab: the scenario.
        routing: of the controllers that will be looked at.
    """

    def __init__(self, lab: laboratory.Laboratory, routing: routes.Routing) -> None:
        self.stress = 1.0
        """Every replica is as if under so many times its load; see ``calibrate``."""
        self._lab = lab
        self._policy = lab.scenario.policy_key
        self._course = course(lab)
        weights = routing.of(lab.snapshot)
        self._shares = routing.tier_shares(lab.snapshot, self._policy, lab.classes)
        policies = {
            key: dataclasses.replace(state, weights=weights[key]) for key, state in lab.snapshot.policies.items()
        }
        self._base = dataclasses.replace(lab.snapshot, policies=policies)
        self._lines: dict[VariantKey, Line] = {}

    def look(self, controller: control.Controller) -> Estimate:
        """What the controller would do; it is copied first, since it may remember."""
        return _Flow(self, copy.deepcopy(controller)).run()

    def calibrate(self, controller: control.Controller, attainment: float) -> None:
        """Find the stress under which this controller looks as it really did.

        What the fluid leaves out (lengths that come in bursts, uneven routers) is the same for all controllers.
        """
        low, high = _STRESS
        for _ in range(_HALVINGS):
            self.stress = (low + high) / 2
            low, high = (low, self.stress) if self.look(controller).attainment < attainment else (self.stress, high)

    def line(self, key: VariantKey) -> Line:
        """How a variant behaves."""
        if key not in self._lines:
            self._lines[key] = line(self._lab, key)
        return self._lines[key]

    @property
    def base(self) -> Snapshot:
        """The snapshot without replicas and signals."""
        return self._base

    @property
    def course(self) -> Course:
        """All requests."""
        return self._course

    @property
    def shares(self) -> Mapping[TierKey, float]:
        """Of each tier."""
        return self._shares

    @property
    def window_seconds(self) -> float:
        """Over which arrivals are measured."""
        settings = self._lab.scenario.settings
        return settings.window / settings.shorten

    def traffic(self, step: int) -> dict[str, ClassTraffic]:
        """What routers would have counted by a step."""
        found = self._course
        first = max(0, step - max(1, round(self.window_seconds / found.seconds)))
        count = float(found.requests[first:step].sum())
        seconds = (step - first) * found.seconds
        if not count or not seconds:
            return {}
        inputs = Fresh(float(found.inputs[first:step].sum()) / count, 0.0)
        outputs = Fresh(float(found.outputs[first:step].sum()) / count, 0.0)
        return {
            name: ClassTraffic(Fresh(share * count / seconds, 0.0), inputs, outputs)
            for name, share in self._lab.classes.items()
        }


class _Flow:
    """One controller in the fluid."""

    def __init__(self, screen: Screen, controller: control.Controller) -> None:
        self._screen = screen
        self._controller = controller
        self._pools: dict[VariantKey, _Pool] = {}
        self._met = self._all = 0.0

    def run(self) -> Estimate:
        """From the prologue to the end."""
        found, decided = self._screen.course, -math.inf
        counts = self._controller.initial(self._screen.base)
        for tier in self._screen.base.tiers.values():
            for variant in tier.variants:
                key = VariantKey(tier.key, variant.name)
                wanted = counts.get(key, variant.spec.replicas.min)
                if wanted:
                    self._pool(key).ready = wanted
        interval = self._controller.interval_seconds(self._screen.base)
        for step in range(len(found.requests)):
            now = (step - found.prologue) * found.seconds
            if now - decided >= interval - 1e-9:
                decided = now
                self._decide(step, now)
            self._advance(step, now)
        usd = sum(pool.usd for pool in self._pools.values())
        return Estimate(usd, self._met / self._all if self._all else 1.0)

    def _pool(self, key: VariantKey) -> _Pool:
        if key not in self._pools:
            self._pools[key] = _Pool(self._screen.line(key))
        return self._pools[key]

    def _decide(self, step: int, now: float) -> None:
        plan = self._controller.step(self._seen(step, now)).plan
        for key, wanted in plan.replicas.items():
            if wanted or key in self._pools:
                self._pool(key).scale(wanted, now)

    def _seen(self, step: int, now: float) -> Snapshot:
        base = self._screen.base
        tiers = dict(base.tiers)
        for key, tier in base.tiers.items():
            own = {name.variant: pool for name, pool in self._pools.items() if name.tier == key}
            if own:
                variants = tuple(
                    dataclasses.replace(
                        variant,
                        desired=own[variant.name].ready + len(own[variant.name].starting),
                        replicas=own[variant.name].replicas(),
                    )
                    if variant.name in own
                    else variant
                    for variant in tier.variants
                )
                tiers[key] = dataclasses.replace(tier, variants=variants)
        policies = dict(base.policies)
        name = self._screen._policy  # noqa: SLF001 (one module)
        policies[name] = dataclasses.replace(policies[name], traffic=self._screen.traffic(step))
        return dataclasses.replace(base, now=objects.EPOCH_SECONDS + now, tiers=tiers, policies=policies)

    def _advance(self, step: int, now: float) -> None:
        found = self._screen.course
        requests, inputs, outputs = (float(part[step]) for part in (found.requests, found.inputs, found.outputs))
        for tier, share in self._screen.shares.items():
            pools = [pool for key, pool in self._pools.items() if key.tier == tier]
            able = sum(pool.ready * pool.line.stable for pool in pools)
            met = 0.0
            for pool in pools:
                part = pool.ready * pool.line.stable / able if able else 1.0 / len(pools)
                work = inputs * pool.line.work[0] + outputs * pool.line.work[1]
                met += part * pool.advance(share * part * work, found.seconds, now, self._screen.stress)
            if now >= 0:
                external = not pools and not self._screen.base.tiers[tier].variants
                self._met += share * requests * (1.0 if external else met)
                self._all += share * requests


def line(lab: laboratory.Laboratory, key: VariantKey) -> Line:
    """How a variant behaves on the scenario's requests."""
    profile, mix = lab.profile(key), lab.mix
    found = lab.limits(key.tier)
    stable = curves.stable(profile, mix)
    prompt = 1.0 / profile.prefill_tokens_per_second
    answer = max(0.0, 1.0 / stable - mix.input_tokens * prompt) / mix.output_tokens
    return Line(
        curve=lab.curve(key),
        stable=stable,
        work=(prompt * stable, answer * stable),
        tokens=(mix.input_tokens + mix.output_tokens) / profile.kv_tokens,
        startup=profile.startup_seconds,
        usd_per_second=lab.usd_per_second(key),
        ttft=found.ttft_seconds or found.e2e_seconds or 60.0,
    )


def course(lab: laboratory.Laboratory) -> Course:
    """The requests in steps of a scrape; of a long trace, those around its busiest moment."""
    settings, trace = lab.scenario.settings, lab.trace
    seconds = settings.scrape_interval / settings.shorten
    steps = max(1, math.ceil(trace.duration_s / seconds))
    sums = np.zeros((3, steps))
    for request in trace:
        at = min(int(request.arrival_s / seconds), steps - 1)
        sums[0, at] += 1
        sums[1, at] += request.input_tokens
        sums[2, at] += request.output_tokens
    longest = round(LONGEST_SECONDS / seconds)
    if steps > longest:
        first = min(max(0, int(sums[0].argmax()) - longest // 2), steps - longest)
        sums = sums[:, first : first + longest]
    prologue = math.ceil(settings.prologue / settings.shorten / seconds)
    span = max(1, round(min(max(_SPAN_SECONDS, _SPAN_SHARE * trace.duration_s), trace.duration_s) / seconds))
    lead = np.tile(sums[:, :span], math.ceil(prologue / span))[:, -prologue:] if prologue else sums[:, :0]
    whole = np.concatenate([lead, sums], axis=1)
    return Course(seconds, prologue, *whole)
