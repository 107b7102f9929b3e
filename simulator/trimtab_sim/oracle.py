"""What no controller that keeps the promise can cost less than, knowing every arrival, start-up time and price.

A linear program over slots of time. In each slot, for each variant v with N replicas on average, requests x of each
class and segment of complexity are served, and y of them miss their promise:

- every request is served by a variant or a provider that its class may use, in its slot; or late, in any slot; or
  after the run, when nothing is paid for; or it fails;
- misses of a load λ = work / (N · slot) are at least those of the variant's measured curve (``curves``): a convex
  function, written as the tangents ``y >= slope·work - offset·N·slot``; above what can be served at all it ends;
- misses of all slots, what is late and what fails are together at most what the promise allows; what is left for
  after the run counts more, the earlier it came: it has kept others waiting all the while;
- the quality of all answers together is at least what the policy keeps;
- N lies between the manifests' bounds; each replica that N rises by is paid for while it starts.

The cost is N times the lowest price of the slot, and providers' tokens. Every simplification goes downwards: see
``docs/decisions/0010-the-oracle.md``, which says why, and for what this is no bound.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core import capacity, economics, units
from trimtab_core.planning import solver
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import TierKey

from trimtab_sim import census, curves, laboratory, world
from trimtab_sim.report import Run

SLOT_SECONDS = 300.0
"""Length of a slot: many times the time that work can be put off."""
MOST_SLOTS = 168
"""Longer traces have longer slots."""
_SHIFTS = 20.0
"""A slot is at least so many times as long as work can wait."""
LOADS = (0.5, 0.66, 0.76, 0.84, 0.90, 0.96, 1.02, 1.1)
"""Where curves are measured; tangents between them stay below the curve."""
REQUESTS = 4000
"""For each point of a curve."""
_DEVIATIONS = 2.0
"""A measured share may be too low by so many standard deviations."""
_FEW = 60
"""Up to so many replica counts are whole in ``Optimum.planned_usd``."""
_SEARCH = solver.Search(0.005, 20.0)


@dataclass(frozen=True, slots=True)
class Optimum:
    """The bound and how it came about.

    Attributes:
        usd: no controller that keeps promise, quality and bounds can cost less.
        planned_usd: what the planner's own capacity model asks for with perfect knowledge, no headroom and no miss; in
            whole replicas where there are few. No bound: what the planner itself could reach at best.
        slot_seconds: length of a slot.
        notes: what one must know to read it.
    """

    usd: float
    planned_usd: float
    slot_seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tangent:
    """Misses are at least ``slope`` · work - ``offset`` · replica-seconds, work in mean requests."""

    slope: float
    offset: float


@dataclass(frozen=True, slots=True)
class _Source:
    """What serves: a variant, or a provider.

    Attributes:
        tangents: of its misses; none for a provider.
        largest: requests per second that a replica can serve at all; none for a provider.
        work: of a request, an input and an output token, in mean requests.
        usd: of an input and an output token at a provider.
    """

    tier: TierKey
    key: VariantKey | None
    tangents: tuple[Tangent, ...] = ()
    largest: float = math.inf
    work: tuple[float, float] = (0.0, 0.0)
    usd: tuple[float, float] = (0.0, 0.0)


def with_regret(runs: Sequence[Run], scenario: world.Scenario, found: Optimum | None = None) -> tuple[Run, ...]:
    """The runs with ``regret``: cost above the bound, as a share of it; None where there is no bound above 0.

    Args:
        runs: of the scenario.
        scenario: that they ran on.
        found: its optimum, if it is known already.
    """
    found = found or optimum(scenario)
    return tuple(dataclasses.replace(run, regret=regret(run, found)) for run in runs)


def regret(run: Run, found: Optimum) -> float | None:
    """Cost above the bound, as a share of it; None where the bound is 0."""
    return run.cost_usd / found.usd - 1 if found.usd > 0 else None


def optimum(scenario: world.Scenario) -> Optimum:
    """The bound for a scenario."""
    lab = laboratory.Laboratory(scenario)
    classes = tuple(lab.classes)
    shift = _shift(lab, classes)
    duration = max(lab.trace.duration_s, 1.0)
    length = max(SLOT_SECONDS, _SHIFTS * shift, duration / MOST_SLOTS)
    slots = max(1, int(duration / length + 0.01))  # the last arrival is a little before the end of the trace
    counted = census.take(lab, slots=slots, shift_seconds=shift)
    measured = [_measured(lab, key, classes) for key in _variants(lab)] + _providers(lab)
    usd, notes = _solve(_Program(lab, counted, measured, lab.misses, shift))
    planned = [_modelled(lab, key) for key in _variants(lab)] + _providers(lab)
    planned_usd, doubts = _solve(_Program(lab, counted, planned, lab.misses, shift, lossless=True))
    told = (*notes, *(f"planned: {note}" for note in doubts))
    return Optimum(usd, max(usd, planned_usd), duration / slots, told)


def _shift(lab: laboratory.Laboratory, classes: Iterable[str]) -> float:
    """How long a request may wait for its first work and still keep its promise: the longest of all classes."""
    longest = 0.0
    for tier in lab.tiers:
        found = lab.limits(tier, classes)
        limit = found.ttft_seconds if found.ttft_seconds is not None else found.e2e_seconds
        longest = max(longest, math.inf if limit is None else limit)
    return min(longest, max(lab.trace.duration_s, 1.0))


def _variants(lab: laboratory.Laboratory) -> list[VariantKey]:
    return [
        VariantKey(tier, variant.name)
        for tier in lab.tiers
        for variant in lab.snapshot.tiers[tier].variants
        if variant.spec.replicas.max > 0
    ]


def _providers(lab: laboratory.Laboratory) -> list[_Source]:
    found = []
    for tier in lab.tiers:
        rates = lab.snapshot.tiers[tier].token_rates
        if rates is not None:
            cost = [
                economics.request_usd(rates, input_tokens=one, cached_input_tokens=0.0, output_tokens=1.0 - one)
                for one in (1.0, 0.0)
            ]
            found.append(_Source(tier, None, usd=(cost[0], cost[1])))
    return found


def _measured(lab: laboratory.Laboratory, key: VariantKey, classes: Iterable[str]) -> _Source:
    """The variant with the curve of the simulated engine."""
    limits = lab.limits(key.tier, classes)
    promise = laboratory.promise(limits)
    curve = curves.measure(lab.profile(key), promise, lab.lengths, even=True, requests=REQUESTS, loads=LOADS)
    counted = REQUESTS * (1 - curves.WARM)
    points = [(0.0, 0.0)]
    for point in curve.points:
        sure = _DEVIATIONS * math.sqrt(max(point.met * (1 - point.met), 1 / counted) / counted)
        points.append((point.load, point.load * max(0.0, 1 - point.met - sure)))
    return _Source(key.tier, key, tangents(points), curves.stable(lab.profile(key), lab.mix), _work(lab, key))


def _modelled(lab: laboratory.Laboratory, key: VariantKey) -> _Source:
    """The variant with the largest load that the planner's capacity model admits, and no misses."""
    load = capacity.admissible_load(lab.profile(key), lab.mix, lab.limits(key.tier))
    return _Source(key.tier, key, (), load.requests_per_second, _work(lab, key))


def _work(lab: laboratory.Laboratory, key: VariantKey) -> tuple[float, float]:
    """Of an input and an output token, as shares of a mean request: by the time that they take of a busy engine."""
    profile, mix = lab.profile(key), lab.mix
    prompt = 1.0 / profile.prefill_tokens_per_second
    running = max(1.0, lab.curve(key).at(lab.curve(key).largest(lab.attainment)).running)
    answer = profile.itl_per_sequence_seconds + profile.itl_base_seconds / running
    whole = mix.input_tokens * prompt + mix.output_tokens * answer
    return prompt / whole, answer / whole


def tangents(points: Sequence[tuple[float, float]]) -> tuple[Tangent, ...]:
    """Lines that lie below every convex function through the points.

    There is one at each corner of the points' lower hull, with the mean slope of its two sides.

    Args:
        points: (load, misses per second) by rising load, the first at load 0.
    """
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    found = []
    for at, (load, missed) in enumerate(hull):
        sides = [_slope(hull[i], hull[i + 1]) for i in (at - 1, at) if 0 <= i < len(hull) - 1]
        slope = sum(sides) / len(sides) if 0 < at < len(hull) - 1 else sides[0] if at else 0.0
        if slope > 0:
            found.append(Tangent(slope, slope * load - missed))
    return tuple(found)


def _slope(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


def _solve(program: _Program) -> tuple[float, tuple[str, ...]]:
    """The least cost; with what had to be let go, since no controller could keep it."""
    for without, note in (
        (frozenset[str](), ""),
        (frozenset({"most"}), "the manifests' maxima can't carry the trace: bounded without them"),
        (frozenset({"most", "quality"}), "the quality can't be kept by what the classes allow: bounded without it"),
    ):
        usd = program.least(without)
        if usd is not None:
            return usd, (note,) if note else ()
    return 0.0, ("no controller can keep the promise: there is no bound",)


Key = tuple[str, int]
"""Class and segment."""
Terms = list[tuple[int, float]]
"""Columns with their factors in one row."""


@dataclass(slots=True)
class _Program:
    """The linear program of one scenario.

    Attributes:
        misses: how many requests may miss their promise.
        shift: how long a request may wait and keep its promise, seconds.
        lossless: nothing may miss, and replicas are whole where there are few columns of them.
    """

    lab: laboratory.Laboratory
    counted: census.Census
    sources: list[_Source]
    misses: int
    shift: float
    lossless: bool = False
    model: solver.Model = field(default_factory=solver.Model)
    missed: Terms = field(default_factory=list)
    worth: Terms = field(default_factory=list)
    late: dict[Key, Terms] = field(default_factory=dict)

    def least(self, without: frozenset[str]) -> float | None:
        """The least cost; None if the promise can't be kept."""
        self.model, self.missed, self.worth, self.late = solver.Model(), [], [], {}
        before: dict[VariantKey, int] = {}
        reaches = census.reaches(self.lab)
        totals = {} if self.lossless else self.counted.totals()
        for slot, groups in enumerate(self.counted.slots):
            work: list[Terms] = [[] for _ in self.sources]
            for key, group in groups.items():
                self._write_group(slot, key, group, reaches[key[0]], work)
            for key, total in totals.items():
                self._write_late(key, total, reaches[key[0]], work)
            before = self._write_replicas_of(slot, work, before, without)
        for terms in self.late.values():
            self.model.rows.add(terms, 0.0, 0.0)
        self.model.rows.add(self.missed, -math.inf, 0.0 if self.lossless else self.misses - self.counted.lost)
        if "quality" not in without:
            self._write_quality(reaches.values())
        return solver.bound(self.model, _SEARCH)

    @property
    def seconds(self) -> float:
        """Of a slot."""
        return self.duration / len(self.counted.slots)

    @property
    def duration(self) -> float:
        """Of the run."""
        return max(self.lab.trace.duration_s, 1.0)

    def _write_group(  # noqa: PLR0917 (one group in one slot)
        self, slot: int, key: Key, group: census.Group, reach: census.Reach, work: Sequence[Terms]
    ) -> None:
        """The requests of one class and segment in one slot: shares that are served, late, left over or failed."""
        columns, served = self.model.columns, Terms()
        for number, source in enumerate(self.sources):
            if source.tier in reach.tiers:
                column = columns.add(source.usd[0] * group.inputs + source.usd[1] * group.outputs, 0.0, 1.0)
                served.append((column, 1.0))
                work[number].append((column, source.work[0] * group.inputs + source.work[1] * group.outputs))
                self.worth.append((column, group.qualities[source.tier] - group.best))
        if not self.lossless:
            late, over, failed = (columns.add(0.0, 0.0, 1.0) for _ in range(3))
            served += [(late, 1.0), (over, 1.0), (failed, 1.0)]
            held = max(0.0, self.duration - (slot + 1) * self.seconds - self.shift)
            self.missed += [(late, float(group.requests)), (failed, float(group.requests))]
            self.missed.append((over, group.requests * (1 + held / world.PATIENCE_SECONDS)))
            self.worth += [(late, -group.best), (failed, -group.best)]
            self.late.setdefault(key, []).append((late, -float(group.requests)))
        self.model.rows.add(served, 1.0, 1.0)

    def _write_late(self, key: Key, total: census.Group, reach: census.Reach, work: Sequence[Terms]) -> None:
        """Requests of any slot that are served late in this one, each a mean one of its class and segment."""
        count = total.requests
        for number, source in enumerate(self.sources):
            if source.tier in reach.tiers:
                inputs, outputs = total.inputs / count, total.outputs / count
                column = self.model.columns.add(source.usd[0] * inputs + source.usd[1] * outputs, 0.0, math.inf)
                work[number].append((column, source.work[0] * inputs + source.work[1] * outputs))
                self.worth.append((column, total.qualities[source.tier] / count))
                self.late.setdefault(key, []).append((column, 1.0))

    def _write_replicas_of(
        self, slot: int, work: Sequence[Terms], before: Mapping[VariantKey, int], without: frozenset[str]
    ) -> dict[VariantKey, int]:
        """All variants in one slot; returns the columns of their replicas."""
        return {
            source.key: self._write_replicas(slot, source, terms, before.get(source.key), without)
            for source, terms in zip(self.sources, work, strict=True)
            if source.key is not None
        }

    def _write_replicas(  # noqa: PLR0917 (the parts of one variant in one slot)
        self,
        slot: int,
        source: _Source,
        work: Terms,
        before: int | None,
        without: frozenset[str],
    ) -> int:
        """The replicas of a variant, their misses and what their start costs; returns their column."""
        assert source.key is not None
        model, seconds = self.model, self.seconds
        bounds = self.lab.variant(source.key).spec.replicas
        usd = self._usd_per_second(source.key, slot)
        most = math.inf if "most" in without else float(max(bounds.max, bounds.min))
        whole = self.lossless and len(self.sources) * len(self.counted.slots) <= _FEW
        count = model.columns.add(usd * seconds, float(bounds.min), most, integer=whole)
        if work:
            model.rows.add([*work, (count, -source.largest * seconds)], -math.inf, 0.0)
            missed = model.columns.add(0.0, 0.0, 0.0 if self.lossless else math.inf)
            self.missed.append((missed, 1.0))
            for line in source.tangents:
                terms = [(column, line.slope * one) for column, one in work]
                model.rows.add([*terms, (count, -line.offset * seconds), (missed, -1.0)], -math.inf, 0.0)
        if before is not None:
            startup = min(self.lab.profile(source.key).startup_seconds, (slot - 1) * seconds)
            started = model.columns.add(usd * startup, 0.0, math.inf)
            model.rows.add([(count, 1.0), (before, -1.0), (started, -1.0)], -math.inf, 0.0)
        return count

    def _write_quality(self, reaches: Iterable[census.Reach]) -> None:
        """All answers together are worth at least what the policy keeps of always the best."""
        kept, counted = units.ratio(self.lab.policy.spec.objective.quality_retention), self.counted
        grouped = sum(group.best for groups in counted.slots for group in groups.values())
        slack = census.rounding(reaches) * counted.total
        self.model.rows.add(self.worth, kept * counted.best - grouped - counted.spared_best - slack, math.inf)

    def _usd_per_second(self, key: VariantKey, slot: int) -> float:
        """The lowest price that holds at any time of a slot or before the bill can be changed."""
        first = self.lab.usd_per_second(key)
        changes = sorted(
            (change.at, first * change.factor if change.factor is not None else _per_second(change.usd_per_hour))
            for change in self.lab.scenario.faults.price_changes
            if f"{key.tier}/{key.variant}".endswith(f"/{change.variant}")
            or change.variant == f"{key.tier}/{key.variant}"
        )
        begins, ends = slot * self.seconds, (slot + 1) * self.seconds
        in_force = [first, *(usd for at, usd in changes if at <= begins)][-1]
        return min([in_force, *(usd for at, usd in changes if begins < at < ends)])


def _per_second(usd_per_hour: float | None) -> float:
    return (usd_per_hour or 0.0) / units.SECONDS_PER_HOUR
