"""The mixed-integer linear program of one component: what is weighed, and what must hold.

Columns: replicas N (integer) with additions and removals; shares X of each class segment by tier; moved
shares; and one slack for each promise that may have to be broken. Rows:

- every segment is served:             Σ_t X[c,s,t] = 1
- work fits:                           Σ λ_c/S · work · X <= use · (Σ_v up_v · speed_v · N_v - warm_t - doubtful_t)
                                         + stretch_t + overload_t,    stretch_t <= 5 % of use · Σ_v speed_v · N_v
- part of it without spot:             share_t · Σ λ_c/S · work · X <= use · Σ_{v not spot} speed_v · N_v + lacking_t
- the rest, when spot is lost:         Σ λ_c/S · work · X <= crisis · (Σ_v speed_v · N_v - cover_t) + overload_t
- what is lacking after a wave in pool p:  Σ λ_c/S · work · X <= crisis · (Σ_v speed_v · N_v - wave · speed_p · N_p)
                                         + lacking_p
- which can be borne now and then:     Σ_p risk_p · lacking_p <= bearable · Σ λ_c/S · work · X + overload_t
- an external API's rate limit:        Σ λ_c/S · X <= limit_t + overload_t
- a tier that must not sleep:          Σ_v N_v >= 1
- quality by policy:                   Σ λ_c/S · q · X + Σλ · quality_p >= retention · Σ λ_c · best_c
- quality by class:                    Σ q · X / S + quality_c >= least quality
- money by policy:                     Σ price · N + Σ external · X - excess_p <= ceiling

Objective: USD per hour, plus what switching costs (start-up seconds at full price over the amortisation time, moved
shares at a few percent of their cost) and a price for stretching replicas. The slacks are the
promises: ``solver`` keeps them all, or breaks them as little as can be in the declared order, before it looks at money.

Shares on segments only approximate a split by rank from below (a mixed segment counts at its mean), so what the
solver calls enough quality is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab_core import units
from trimtab_core.planning import problem, solver
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ClassName, PolicyKey, TierKey, Weights

LEVEL = 100.0
"""Each further level of the declared order weighs this much more."""
REMOVAL_COST = 0.01
"""Removing a replica must save at least this share of its price: ties leave the fleet as it is."""
QUALITY_REWARD = 0.002
"""Value of quality beyond what is asked, as a share of a request's cost: decides between equally cheap plans."""
SPREAD_COST = 0.03
"""What the largest of several spot pools costs more, as a share of its price: worth a spread, not a dearer variant."""
STRETCH = 0.05
"""Replicas may be planned to take this much more than their share, as forecasts are no more exact than that ..."""
STRETCH_COST = 2.0
"""... at this multiple of what the work costs on the cheapest variant."""
CRISIS = 1.1
"""Share of the admissible load that replicas bear for one start-up time while lost ones are replaced."""
BROKEN = 1e-4
"""A slack above this is a broken promise; below, rounding noise of the solver."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Which of the two questions is asked.

    Attributes:
        carrying: None plans replicas and shares for the planned demand. Otherwise only shares, for present demand:
            by variant, the ready replicas that may be counted on; shares in force move only where they must.
        target: shares to start from where none are in force.
        start: replicas to begin the search with: the last plan's.
    """

    carrying: Mapping[VariantKey, int] | None = None
    target: Mapping[PolicyKey, Weights] = field(default_factory=dict)
    start: Mapping[VariantKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found.

    Attributes:
        proven: optimal within the gap; otherwise the best found within the time limit.
        broken: by kind, how much of the promise can't be kept: ``capacity`` in reference replicas,
            ``quality`` as a share of the best quality, ``budget`` in USD per hour, ``spot`` in reference replicas that
            aren't spot.
    """

    replicas: Mapping[VariantKey, int]
    weights: Mapping[PolicyKey, Mapping[ClassName, Mapping[TierKey, float]]]
    objective: float
    proven: bool
    broken: Mapping[str, float]


def solve(component: problem.Component, settings: problem.Settings, goal: Goal | None = None) -> Solution | None:
    """Solve one component; None if the solver found nothing at all.

    Deterministic for equal input as long as the time limit isn't reached: one thread, a fixed seed.
    """
    program = _Program(component, settings, goal or Goal())
    program.write()
    if not program.model.columns.cost:
        return Solution({}, {}, 0.0, proven=True, broken={})
    search = solver.Search(settings.gap, settings.time_limit_seconds, program.dearest())
    found = solver.solve(program.model, search)
    return None if found is None else program.solution(found)


def bound(component: problem.Component, settings: problem.Settings) -> float | None:
    """What no plan can cost less than, as proven within the settings' time and gap; None if a promise must break."""
    program = _Program(component, settings, Goal())
    program.write()
    return solver.bound(program.model, solver.Search(settings.gap, settings.time_limit_seconds, program.dearest()))


@dataclass(slots=True)
class _Program:
    """One program while it is written and solved."""

    component: problem.Component
    settings: problem.Settings
    goal: Goal
    model: solver.Model = field(default_factory=solver.Model)
    replicas: dict[VariantKey, int] = field(default_factory=dict)
    shares: list[list[dict[TierKey, int]]] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    work_usd: dict[TierKey, float] = field(default_factory=dict)
    worst: int | None = None

    def write(self) -> None:
        """All columns and rows."""
        for tier in self.component.tiers:
            prices = [v.usd_per_hour / v.speed for v in tier.variants if v.speed]
            self.work_usd[tier.key] = min(prices, default=0.0) / tier.utilisation
        for tier in self.component.tiers:
            self.write_tier(tier)
        for request_class in self.component.classes:
            self.write_class(request_class)
        for tier in self.component.tiers:
            self.write_capacity(tier)
        for policy in self.component.policies:
            self.write_policy(policy)

    def dearest(self) -> float:
        """The dearest replica-hour, at least a cent."""
        return max((variant.usd_per_hour for variant in self.component.variants), default=0.0) + 0.01

    def penalty(self, kind: str, *, downshift: bool = True) -> float:
        """Weight of one unit of a broken promise: quality is below load only where downshifting is declared."""
        level = {"capacity": 1, "spot": 0, "quality": 0 if downshift else 2, "budget": 3}[kind]
        return float(LEVEL**level)

    def slack(self, kind: str, penalty: float) -> int:
        column = self.model.columns.add(0.0, 0.0, 0.0)
        self.model.slacks[column] = penalty
        self.broken[column] = kind
        return column

    def demand(self, request_class: problem.ClassChoice) -> float:
        """Requests per second that must be carried; those that can go nowhere yet need nothing."""
        if self.goal.carrying is None:
            return request_class.load.planned
        return request_class.load.now if self.ready.intersection(request_class.tiers) else 0.0

    def rate(self, request_class: problem.ClassChoice) -> float:
        """Requests per second that shares are decided for: idle classes have a little, so that theirs are too."""
        return max(self.demand(request_class), problem.IDLE_REQUESTS_PER_SECOND)

    def write_tier(self, tier: problem.TierChoice) -> None:
        for variant in tier.variants:
            carrying = self.goal.carrying
            low, high = (variant.low, variant.high) if carrying is None else (carrying[variant.key],) * 2
            count = self.model.columns.add(variant.usd_per_hour, low, high, integer=carrying is None)
            self.replicas[variant.key] = count
            if carrying is None and variant.key in self.goal.start:
                self.model.start[count] = self.goal.start[variant.key]
            if self.goal.carrying is not None or low == high:
                continue
            added = self.model.columns.add(variant.switch_usd_per_hour, 0.0, math.inf)
            removed = self.model.columns.add(REMOVAL_COST * variant.usd_per_hour, 0.0, math.inf)
            self.model.rows.add([(count, 1.0), (added, -1.0)], -math.inf, variant.current)
            self.model.rows.add([(count, 1.0), (removed, 1.0)], variant.current, math.inf)
        pools = [variant for variant in tier.variants if variant.spot and variant.speed and variant.high]
        if len(pools) > 1 and self.goal.carrying is None:
            self.write_spread(pools)
        if tier.keep_one and self.goal.carrying is None:
            self.model.rows.add([(self.replicas[v.key], 1.0) for v in tier.variants if v.high], 1.0, math.inf)

    def write_spread(self, pools: Sequence[problem.VariantChoice]) -> None:
        """Among spot variants that cost about the same, none gets much more than another: a wave takes one of them."""
        largest = self.model.columns.add(SPREAD_COST * max(v.usd_per_hour / v.speed for v in pools), 0.0, math.inf)
        for variant in pools:
            self.model.rows.add([(self.replicas[variant.key], variant.speed), (largest, -1.0)], -math.inf, 0.0)

    def request_usd(self, request_class: problem.ClassChoice, key: TierKey) -> float:
        """USD per hour of one request per second on the tier, at full use of its cheapest variant."""
        external = request_class.external_usd[key] * units.SECONDS_PER_HOUR
        return external + request_class.work[key] * self.work_usd[key]

    def write_class(self, request_class: problem.ClassChoice) -> None:
        rate, tiers = self.rate(request_class), self.open_tiers(request_class)
        usd = {key: rate * self.request_usd(request_class, key) for key in tiers}
        reward = QUALITY_REWARD * max(usd.values(), default=0.0)
        parts = len(next(iter(request_class.segment_quality.values()), ()))
        segments = []
        for part in range(parts if tiers else 0):
            columns = {}
            for key in tiers:
                external = rate * request_class.external_usd[key] * units.SECONDS_PER_HOUR
                cost = external - reward * request_class.segment_quality[key][part]
                columns[key] = self.model.columns.add(cost / parts, 0.0, 1.0)
            self.model.rows.add([(column, 1.0) for column in columns.values()], 1.0, 1.0)
            segments.append(columns)
        self.shares.append(segments)
        if segments:
            self.write_moves(request_class, tiers, self.settings.move_cost * max(usd.values()))
            self.write_least_quality(request_class, segments)

    def open_tiers(self, request_class: problem.ClassChoice) -> tuple[TierKey, ...]:
        """Tiers that may get a share: when only ready replicas count, those that have any (all if none has)."""
        if self.goal.carrying is None:
            return request_class.tiers
        return tuple(key for key in request_class.tiers if key in self.ready) or request_class.tiers

    @property
    def ready(self) -> set[TierKey]:
        """Tiers that can serve now."""
        return {tier.key for tier in self.component.tiers if tier.ready}

    def write_moves(self, request_class: problem.ClassChoice, tiers: Sequence[TierKey], cost: float) -> None:
        """Shares stay where they are unless moving them pays; pinned ones stay."""
        before = request_class.before
        if self.goal.carrying is not None:
            before = before or self.goal.target.get(request_class.policy, {}).get(request_class.name, {})
            cost = max(cost, self.dearest() * 1e-3)
        segments = self.shares[-1]
        total = sum(before.get(key, 0.0) for key in tiers)
        if len(tiers) < 2 or not total:  # noqa: PLR2004 (a single tier has nothing to move)
            return
        for key in tiers:
            terms = [(columns[key], 1.0 / len(segments)) for columns in segments]
            share = before.get(key, 0.0) / total
            if request_class.pinned:
                self.model.rows.add(terms, share, share)
            else:
                moved = self.model.columns.add(cost, 0.0, 1.0)
                self.model.rows.add([*terms, (moved, -1.0)], -math.inf, share)

    def write_least_quality(self, request_class: problem.ClassChoice, segments: list[dict[TierKey, int]]) -> None:
        if not request_class.min_quality or len(segments[0]) < 2:  # noqa: PLR2004 (nothing to choose)
            return
        terms = [
            (column, request_class.segment_quality[key][part] / len(segments))
            for part, columns in enumerate(segments)
            for key, column in columns.items()
        ]
        least = min(request_class.min_quality, request_class.best_quality)
        self.model.rows.add([*terms, (self.slack("quality", self.penalty("quality")), 1.0)], least, math.inf)

    def shares_of(self, key: TierKey) -> list[tuple[int, problem.ClassChoice, float]]:
        """(column, class, requests per second at share 1) of every share that the tier may get."""
        return [
            (columns[key], request_class, self.demand(request_class) / len(segments))
            for request_class, segments in zip(self.component.classes, self.shares, strict=True)
            for columns in segments
            if key in columns
        ]

    def write_capacity(self, tier: problem.TierChoice) -> None:
        shares = self.shares_of(tier.key)
        if not shares:
            return
        overload = self.slack("capacity", self.penalty("capacity"))
        if tier.external_limit is not None:
            terms = [(column, rate) for column, _, rate in shares]
            self.model.rows.add([*terms, (overload, -tier.external_limit)], -math.inf, tier.external_limit)
            if self.goal.carrying is not None:
                self.model.rows.add([(overload, 1.0), (self.worst_overload(), -1.0)], -math.inf, 0.0)
            return
        carrying = self.goal.carrying
        ratio = tier.utilisation if carrying is None else tier.ready_utilisation
        terms = [(column, rate * request_class.work[tier.key]) for column, request_class, rate in shares]
        work = list(terms)
        usable = [variant for variant in tier.variants if variant.speed]
        up = {v.key: v.availability if carrying is None else 1.0 for v in usable}
        terms += [(self.replicas[v.key], -ratio * v.speed * up[v.key]) for v in usable]
        spare = tier.warm * min((v.speed for v in usable if v.high), default=0.0) if carrying is None else 0.0
        if carrying is None:
            spare += sum(v.doubtful * v.speed for v in usable)
            terms.append((self.write_stretch(tier, usable), -1.0))
            self.write_cover(tier, usable, [*work, (overload, -1.0)])
            self.write_waves(tier, usable, work, overload)
        self.model.rows.add([*terms, (overload, -1.0)], -math.inf, -ratio * spare)
        if carrying is None and tier.on_demand_share and any(v.spot for v in usable):
            self.write_on_demand(tier, work)
        supply = sum(carrying[v.key] * v.speed for v in tier.variants) if carrying is not None else 0.0
        if supply:
            self.model.rows.add([(overload, 1.0 / supply), (self.worst_overload(), -1.0)], -math.inf, 0.0)

    def write_stretch(self, tier: problem.TierChoice, usable: Sequence[problem.VariantChoice]) -> int:
        """A little more work than is planned with, at a price: a small rest is rarely worth a replica of its own."""
        cost = STRETCH_COST * self.work_usd[tier.key]
        stretch = self.model.columns.add(cost, 0.0, math.inf)
        room = [(self.replicas[v.key], -STRETCH * tier.utilisation * v.speed) for v in usable]
        self.model.rows.add([(stretch, 1.0), *room], -math.inf, 0.0)
        return stretch

    def write_cover(
        self, tier: problem.TierChoice, usable: Sequence[problem.VariantChoice], work: Sequence[tuple[int, float]]
    ) -> None:
        """When as many spot replicas are lost as may be, the rest gets by with its queues as full as can be borne."""
        fastest = max((v.speed for v in usable if v.spot), default=0.0)
        ratio = max(CRISIS, tier.ready_utilisation)
        doubtful = sum(v.doubtful * v.speed for v in usable)
        if tier.cover and fastest:
            terms = [(self.replicas[v.key], -ratio * v.speed) for v in usable]
            self.model.rows.add([*work, *terms], -math.inf, -ratio * (tier.cover * fastest + doubtful))

    def write_waves(
        self,
        tier: problem.TierChoice,
        usable: Sequence[problem.VariantChoice],
        work: Sequence[tuple[int, float]],
        overload: int,
    ) -> None:
        """What is lacking when a wave takes a pool, weighted by how often that is, can be borne (``spot_cover``)."""
        known = tier.waves
        pools = [v for v in usable if known is not None and v.high and v.key.variant in known.share]
        if known is None or not pools:
            return
        ratio, largest = max(CRISIS, tier.ready_utilisation), max(known.risk.values())
        # In units of the largest risk, so that the slack is counted in replicas.
        missed = [(column, -known.bearable / largest * each) for column, each in work]
        for pool in pools:
            lacking = self.model.columns.add(0.0, 0.0, math.inf)
            gone = known.share[pool.key.variant]
            stays = {v.key: v.speed * (1.0 - gone) if v is pool else v.speed for v in usable}
            terms = [(self.replicas[key], -ratio * speed) for key, speed in stays.items()]
            self.model.rows.add([*work, *terms, (lacking, -1.0)], -math.inf, 0.0)
            missed.append((lacking, known.risk[pool.key.variant] / largest))
        self.model.rows.add([*missed, (overload, -1.0)], -math.inf, 0.0)

    def write_on_demand(self, tier: problem.TierChoice, work: Sequence[tuple[int, float]]) -> None:
        """What isn't spot carries its share of the work alone."""
        terms = [(column, tier.on_demand_share * each) for column, each in work]
        terms += [(self.replicas[v.key], -tier.utilisation * v.speed) for v in tier.variants if v.speed and not v.spot]
        lacking = self.slack("spot", self.penalty("spot"))
        self.model.rows.add([*terms, (lacking, -1.0)], -math.inf, 0.0)

    def worst_overload(self) -> int:
        """The largest relative overload: what can't be avoided is spread evenly."""
        if self.worst is None:
            self.worst = self.slack("unevenness", self.penalty("capacity"))
        return self.worst

    def write_policy(self, policy: problem.PolicyChoice) -> None:
        self.write_retention(policy)
        if not math.isfinite(policy.ceiling_usd_per_hour) or self.goal.carrying is not None:
            return
        excess = self.slack("budget", self.penalty("budget") / self.dearest())
        own = set(policy.tiers)
        terms = [
            (self.replicas[variant.key], variant.usd_per_hour)
            for tier in self.component.tiers
            if tier.key in own
            for variant in tier.variants
        ]
        for request_class, segments in zip(self.component.classes, self.shares, strict=True):
            if request_class.policy == policy.key:
                rate = self.demand(request_class) * units.SECONDS_PER_HOUR / max(1, len(segments))
                terms += [
                    (column, rate * request_class.external_usd[key])
                    for columns in segments
                    for key, column in columns.items()
                    if request_class.external_usd[key]
                ]
        self.model.rows.add([*terms, (excess, -1.0)], -math.inf, policy.ceiling_usd_per_hour)

    def write_retention(self, policy: problem.PolicyChoice) -> None:
        terms: list[tuple[int, float]] = []
        wanted, total = 0.0, 0.0
        for request_class, segments in zip(self.component.classes, self.shares, strict=True):
            if request_class.policy != policy.key or not segments:
                continue
            rate = self.rate(request_class)
            total += rate
            wanted += rate * request_class.best_quality
            terms += [
                (column, rate * request_class.segment_quality[key][part] / len(segments))
                for part, columns in enumerate(segments)
                for key, column in columns.items()
            ]
        if not total or not policy.retention:
            return
        # Divided by the total, so that the row's scale doesn't depend on traffic.
        missing = self.slack("quality", self.penalty("quality", downshift=policy.downshift))
        scaled = [(column, value / total) for column, value in terms]
        self.model.rows.add([*scaled, (missing, 1.0)], policy.retention * wanted / total - 1e-9, math.inf)

    def solution(self, found: solver.Found) -> Solution:
        """The column values in the words of the problem."""
        values = found.values
        broken: dict[str, float] = {}
        for column, kind in self.broken.items():
            if values[column] > BROKEN and kind != "unevenness":
                broken[kind] = broken.get(kind, 0.0) + values[column]
        weights: dict[PolicyKey, dict[ClassName, Mapping[TierKey, float]]] = {}
        for request_class, segments in zip(self.component.classes, self.shares, strict=True):
            shares = dict.fromkeys(request_class.tiers, 0.0) if segments else {}
            for columns in segments:
                for key, column in columns.items():
                    shares[key] += max(0.0, values[column]) / len(segments)
            weights.setdefault(request_class.policy, {})[request_class.name] = normalised(shares)
        return Solution(
            {key: round(values[column]) for key, column in self.replicas.items()},
            weights,
            found.objective,
            found.proven,
            broken,
        )


def normalised(shares: Mapping[TierKey, float]) -> dict[TierKey, float]:
    """The shares summing to exactly 1, to six digits, without solver dust; an empty mapping stays empty."""
    kept = {key: round(share, 6) for key, share in shares.items() if share > 1e-4}  # noqa: PLR2004 (dust)
    total = sum(kept.values())
    if not total:
        return {}
    largest = max(sorted(kept), key=lambda key: kept[key])
    result = {key: round(share / total, 6) for key, share in kept.items()}
    result[largest] += 1.0 - sum(result.values())
    return result
