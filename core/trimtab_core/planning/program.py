"""The mixed-integer linear program of one component, and the only place that touches HiGHS.

Columns: replicas N (integer) with additions and removals; shares X of each class segment by tier; moved
shares; and one slack for each promise that may have to be broken. Rows:

- every segment is served:             Σ_t X[c,s,t] = 1
- work fits:                           Σ λ_c/S · work · X <= use · Σ_v speed_v · N_v + overload_t
- an external API's rate limit:        Σ λ_c/S · X <= limit_t + overload_t
- a tier that must not sleep:          Σ_v N_v >= 1
- quality by policy:                   Σ λ_c/S · q · X + Σλ · quality_p >= retention · Σ λ_c · best_c
- quality by class:                    Σ q · X / S + quality_c >= least quality
- money by policy:                     Σ price · N + Σ external · X - excess_p <= ceiling

Objective: USD per hour, plus what switching costs (start-up seconds at full price over the amortisation time, moved
shares at a few percent of their cost). First every promise is kept: the slacks are held at zero. Only if that can't be
done are they let go, and then found in the declared order: with replicas in fractions the sum of breaches is made
least, with what is to give way first counting least and each next level ``LEVEL`` times more; with the breaches held
there, money is made least. So no promise is ever traded for money. (Where whole replicas can't reach the least breach,
as a budget may not divide by a price, breaches and money are weighed in one program, at ``DEAR`` for a breach.)

Shares on segments only approximate a split by rank from below (a mixed segment counts at its mean), so what the
solver calls enough quality is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np

from trimtab_core import units
from trimtab_core.planning import problem
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ClassName, PolicyKey, TierKey, Weights

LEVEL = 100.0
"""Each further level of the declared order weighs this much more."""
DEAR = 1000.0
"""One unit of the promise that gives way first, in dearest replica-hours, where breach and money must be weighed."""
REMOVAL_COST = 0.01
"""Removing a replica must save at least this share of its price: ties leave the fleet as it is."""
QUALITY_REWARD = 0.002
"""Value of quality beyond what is asked, as a share of a request's cost: decides between equally cheap plans."""
FEW = 40
"""Up to this many replica counts the solver proves the optimum in milliseconds, without help for a first solution."""
DIVE_STEPS = 12
"""At least one in this many of the open counts is rounded in one step of a dive."""
EXACT = 1e-6
"""A gap below this is none."""
BROKEN = 1e-5
"""A slack above this is a broken promise; below, rounding noise of the solver."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Which of the two questions is asked.

    Attributes:
        ready_only: False plans replicas and shares for the planned demand; True keeps the replicas that
            are ready, and finds shares for present demand that stay near ``target``.
    """

    ready_only: bool = False
    target: Mapping[PolicyKey, Weights] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found.

    Attributes:
        proven: optimal within the gap; otherwise the best found within the time limit.
        broken: by kind, how much of the promise can't be kept: ``capacity`` in reference replicas,
            ``quality`` as a share of the best quality, ``budget`` in USD per hour.
    """

    replicas: Mapping[VariantKey, int]
    weights: Mapping[PolicyKey, Mapping[ClassName, Mapping[TierKey, float]]]
    objective: float
    proven: bool
    broken: Mapping[str, float]


@dataclass(slots=True)
class _Columns:
    """Columns as they are added."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)

    def add(self, cost: float, lower: float, upper: float, *, integer: bool = False) -> int:
        if integer:
            self.integer.append(len(self.cost))
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.cost) - 1


@dataclass(slots=True)
class _Rows:
    """Rows as they are added, in compressed form."""

    start: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)

    def add(self, terms: Sequence[tuple[int, float]], lower: float, upper: float, kind: str = "") -> None:
        for column, value in terms:
            self.index.append(column)
            self.value.append(value)
        self.start.append(len(self.index))
        self.lower.append(lower)
        self.upper.append(upper)
        self.kind.append(kind)


def solve(component: problem.Component, settings: problem.Settings, goal: Goal | None = None) -> Solution | None:
    """Solve one component; None if the solver found nothing at all.

    Deterministic for equal input as long as the time limit isn't reached: one thread, a fixed seed.
    """
    program = _Program(component, settings, goal or Goal())
    program.write()
    return program.run()


@dataclass(slots=True)
class _Program:
    """One program while it is written and solved."""

    component: problem.Component
    settings: problem.Settings
    goal: Goal
    columns: _Columns = field(default_factory=_Columns)
    rows: _Rows = field(default_factory=_Rows)
    replicas: dict[VariantKey, int] = field(default_factory=dict)
    shares: list[list[dict[TierKey, int]]] = field(default_factory=list)
    slacks: list[tuple[int, str, float]] = field(default_factory=list)
    work_usd: dict[TierKey, float] = field(default_factory=dict)
    worst: int | None = None

    def write(self) -> None:
        """All columns and rows."""
        for tier in self.component.tiers:
            prices = [v.usd_per_hour / v.speed for v in tier.variants if v.speed]
            self.work_usd[tier.key] = min(prices, default=0.0)
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
        level = {"capacity": 1, "quality": 0 if downshift else 2, "budget": 3}[kind]
        return float(LEVEL**level)

    def slack(self, kind: str, penalty: float) -> int:
        column = self.columns.add(0.0, 0.0, 0.0)
        self.slacks.append((column, kind, penalty))
        return column

    def demand(self, request_class: problem.ClassChoice) -> float:
        """Requests per second that must be carried."""
        return request_class.load.now if self.goal.ready_only else request_class.load.planned

    def rate(self, request_class: problem.ClassChoice) -> float:
        """Requests per second that shares are decided for: idle classes have a little, so that theirs are too."""
        return max(self.demand(request_class), problem.IDLE_REQUESTS_PER_SECOND)

    def write_tier(self, tier: problem.TierChoice) -> None:
        for variant in tier.variants:
            low, high = (variant.ready, variant.ready) if self.goal.ready_only else (variant.low, variant.high)
            count = self.columns.add(variant.usd_per_hour, low, high, integer=not self.goal.ready_only)
            self.replicas[variant.key] = count
            if self.goal.ready_only or low == high:
                continue
            added = self.columns.add(variant.switch_usd_per_hour, 0.0, math.inf)
            removed = self.columns.add(REMOVAL_COST * variant.usd_per_hour, 0.0, math.inf)
            self.rows.add([(count, 1.0), (added, -1.0)], -math.inf, variant.current)
            self.rows.add([(count, 1.0), (removed, 1.0)], variant.current, math.inf)
        if tier.keep_one and not self.goal.ready_only:
            self.rows.add([(self.replicas[v.key], 1.0) for v in tier.variants if v.high], 1.0, math.inf, "bounds")

    def request_usd(self, request_class: problem.ClassChoice, key: TierKey) -> float:
        """USD per hour of one request per second on the tier, at full use of its cheapest variant."""
        external = request_class.external_usd[key] * units.SECONDS_PER_HOUR
        return external + request_class.work[key] * self.work_usd[key] / self.settings.utilisation

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
                columns[key] = self.columns.add(cost / parts, 0.0, 1.0)
            self.rows.add([(column, 1.0) for column in columns.values()], 1.0, 1.0)
            segments.append(columns)
        self.shares.append(segments)
        if segments:
            self.write_moves(request_class, tiers, self.settings.move_cost * max(usd.values()))
            self.write_least_quality(request_class, segments)

    def open_tiers(self, request_class: problem.ClassChoice) -> tuple[TierKey, ...]:
        """Tiers that may get a share: when only ready replicas count, those that have any (all if none has)."""
        if not self.goal.ready_only:
            return request_class.tiers
        ready = {tier.key for tier in self.component.tiers if tier.ready}
        return tuple(key for key in request_class.tiers if key in ready) or request_class.tiers

    def write_moves(self, request_class: problem.ClassChoice, tiers: Sequence[TierKey], cost: float) -> None:
        """Shares stay where they are unless moving them pays; pinned ones stay."""
        before: Mapping[TierKey, float] = request_class.before
        if self.goal.ready_only:
            before = self.goal.target.get(request_class.policy, {}).get(request_class.name, before)
            cost = max(cost, self.dearest() * 1e-3)
        segments = self.shares[-1]
        total = sum(before.get(key, 0.0) for key in tiers)
        if len(tiers) < 2 or not total:  # noqa: PLR2004 (a single tier has nothing to move)
            return
        for key in tiers:
            terms = [(columns[key], 1.0 / len(segments)) for columns in segments]
            share = before.get(key, 0.0) / total
            if request_class.pinned:
                self.rows.add(terms, share, share)
            else:
                moved = self.columns.add(cost, 0.0, 1.0)
                self.rows.add([*terms, (moved, -1.0)], -math.inf, share)

    def write_least_quality(self, request_class: problem.ClassChoice, segments: list[dict[TierKey, int]]) -> None:
        if not request_class.min_quality or len(segments[0]) < 2:  # noqa: PLR2004 (nothing to choose)
            return
        terms = [
            (column, request_class.segment_quality[key][part] / len(segments))
            for part, columns in enumerate(segments)
            for key, column in columns.items()
        ]
        least = min(request_class.min_quality, request_class.best_quality)
        self.rows.add([*terms, (self.slack("quality", self.penalty("quality")), 1.0)], least, math.inf, "quality")

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
            self.rows.add([*terms, (overload, -tier.external_limit)], -math.inf, tier.external_limit, "capacity")
            return
        ratio = self.settings.ready_utilisation if self.goal.ready_only else self.settings.utilisation
        terms = [(column, rate * request_class.work[tier.key]) for column, request_class, rate in shares]
        terms += [(self.replicas[v.key], -ratio * v.speed) for v in tier.variants if v.speed]
        self.rows.add([*terms, (overload, -1.0)], -math.inf, 0.0, "capacity")
        ready = sum(v.ready * v.speed for v in tier.variants)
        if self.goal.ready_only and ready:
            self.rows.add([(overload, 1.0 / ready), (self.worst_overload(), -1.0)], -math.inf, 0.0)

    def worst_overload(self) -> int:
        """The largest relative overload: what can't be avoided is spread evenly."""
        if self.worst is None:
            self.worst = self.slack("unevenness", self.penalty("capacity"))
        return self.worst

    def write_policy(self, policy: problem.PolicyChoice) -> None:
        self.write_retention(policy)
        if not math.isfinite(policy.ceiling_usd_per_hour) or self.goal.ready_only:
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
        self.rows.add([*terms, (excess, -1.0)], -math.inf, policy.ceiling_usd_per_hour, "budget")

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
        self.rows.add([*scaled, (missing, 1.0)], policy.retention * wanted / total - 1e-9, math.inf, "quality")

    def run(self) -> Solution | None:
        """Relax, round, and search between the two; None if even the relaxed program has no solution."""
        if not self.columns.cost:
            return Solution({}, {}, 0.0, proven=True, broken={})
        solver = self.solver()
        values = self.relax(solver)
        if values is None or not self.columns.integer:
            return None if values is None else self.solution(solver, values, proven=True)
        dived = self.dive(solver, values) if len(self.columns.integer) > FEW else None
        start = self.rounded(values) if dived is None else [float(dived[column]) for column in self.columns.integer]
        self.set_integer(solver, highspy.HighsVarType.kInteger)
        columns = np.array(self.columns.integer, dtype=np.int32)
        solver.setSolution(columns.size, columns, np.array(start, dtype=np.float64))
        found = self.attempt(solver)
        if found is None:
            found = self.weigh(solver)
        if found is None:
            return None
        proven = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        if solver.getInfo().mip_gap > EXACT:
            found = self.polish(solver, found)
        return self.solution(solver, found, proven=proven)

    def attempt(self, solver: highspy.Highs) -> np.ndarray | None:
        """Run the solver with a time limit of its own: HiGHS counts the time of all runs together."""
        solver.setOptionValue("time_limit", solver.getRunTime() + self.settings.time_limit_seconds)
        solver.run()
        return _values(solver)

    def relax(self, solver: highspy.Highs) -> np.ndarray | None:
        """The program with replicas in fractions: every promise kept, or all broken as little as can be."""
        self.set_integer(solver, highspy.HighsVarType.kContinuous)
        values = self.attempt(solver)
        if values is not None or not self.slacks:
            return values
        money = self.open_slacks(solver)
        solver.changeColsCost(money.size, np.arange(money.size, dtype=np.int32), self.breaches())
        least = self.attempt(solver)
        if least is None:
            return None
        for column, _, _ in self.slacks:
            solver.changeColBounds(column, 0.0, max(0.0, least[column]) * (1 + 1e-6) + 1e-6)
        solver.changeColsCost(money.size, np.arange(money.size, dtype=np.int32), money)
        return self.attempt(solver)

    def weigh(self, solver: highspy.Highs) -> np.ndarray | None:
        """Whole replicas can't reach the least breach: weigh breaches and money together."""
        money = self.open_slacks(solver)
        cost = money + DEAR * self.dearest() * self.breaches()
        solver.changeColsCost(money.size, np.arange(money.size, dtype=np.int32), cost)
        return self.attempt(solver)

    def open_slacks(self, solver: highspy.Highs) -> np.ndarray:
        """Let every promise be broken; the costs of all columns in money."""
        for column, _, _ in self.slacks:
            solver.changeColBounds(column, 0.0, math.inf)
        return np.array(self.columns.cost, dtype=np.float64)

    def breaches(self) -> np.ndarray:
        """Weights of the slacks among all columns, by the declared order."""
        weights = np.zeros(len(self.columns.cost), dtype=np.float64)
        for column, _, penalty in self.slacks:
            weights[column] = penalty
        return weights

    def set_integer(self, solver: highspy.Highs, kind: highspy.HighsVarType) -> None:
        columns = np.array(self.columns.integer, dtype=np.int32)
        if columns.size:
            solver.changeColsIntegrality(columns.size, columns, np.full(columns.size, kind.value, dtype=np.uint8))

    def dive(self, solver: highspy.Highs, values: np.ndarray) -> np.ndarray | None:
        """Round the counts nearest to whole ones, solve for the rest, and again, until all are whole.

        Each step lets the load find other replicas, so that tiers are filled rather than rounded up one by one.
        Leaves the bounds as it found them. None if a step had no way on.
        """
        found: np.ndarray | None = values
        left = list(self.columns.integer)
        while found is not None and left:
            at = found
            left.sort(key=lambda column: (abs(at[column] - round(at[column])), column))
            whole = sum(1 for column in left if abs(at[column] - round(at[column])) <= EXACT)
            step, left = left[: whole + 1 + len(left) // DIVE_STEPS], left[whole + 1 + len(left) // DIVE_STEPS :]
            found = self.fix(solver, step, [round(at[column]) for column in step])
            if found is None:
                found = self.fix(solver, step, [math.ceil(at[column] - EXACT) for column in step])
        for column in self.columns.integer:
            solver.changeColBounds(column, self.columns.lower[column], self.columns.upper[column])
        return found

    def fix(self, solver: highspy.Highs, columns: Sequence[int], counts: Sequence[int]) -> np.ndarray | None:
        """Solve with these columns at these counts."""
        for column, count in zip(columns, counts, strict=True):
            solver.changeColBounds(column, float(count), float(count))
        return self.attempt(solver)

    def rounded(self, values: np.ndarray) -> list[float]:
        """Whole replicas that carry what the fractions carry: fractions down, then the cheapest fill."""
        counts: dict[VariantKey, int] = {}
        for tier in self.component.tiers:
            able = [v for v in tier.variants if v.speed]
            wanted = sum(v.speed * float(values[self.replicas[v.key]]) for v in able)
            for variant in tier.variants:
                counts[variant.key] = max(variant.low, math.floor(float(values[self.replicas[variant.key]]) + EXACT))
            while (short := wanted - sum(v.speed * counts[v.key] for v in able)) > EXACT:
                room = [v for v in able if counts[v.key] < v.high]
                if not room:
                    break
                # By the price of filling the gap with this variant alone.
                best = min(room, key=lambda v: (math.ceil(short / v.speed - EXACT) * v.usd_per_hour, v.key))
                counts[best.key] += 1
        return [float(counts[variant.key]) for variant in self.component.variants]

    def polish(self, solver: highspy.Highs, values: np.ndarray) -> np.ndarray:
        """The best shares for these replicas: inside the gap, shares may have moved for nothing."""
        best = self.fix(solver, self.columns.integer, [round(float(values[column])) for column in self.columns.integer])
        return values if best is None else best

    def solver(self) -> highspy.Highs:
        """HiGHS with the program in it."""
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("random_seed", 0),
            ("mip_rel_gap", self.settings.gap if len(self.columns.integer) > FEW else EXACT),
        ):
            solver.setOptionValue(option, value)
        solver.passModel(self.model())
        return solver

    def model(self) -> highspy.HighsLp:
        """The arrays of the program."""
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = len(self.columns.cost), len(self.rows.lower)
        program.col_cost_ = np.array(self.columns.cost, dtype=np.float64)
        program.col_lower_ = np.array(self.columns.lower, dtype=np.float64)
        program.col_upper_ = np.array(self.columns.upper, dtype=np.float64)
        program.row_lower_ = np.array(self.rows.lower, dtype=np.float64)
        program.row_upper_ = np.array(self.rows.upper, dtype=np.float64)
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.array(self.rows.start, dtype=np.int32)
        program.a_matrix_.index_ = np.array(self.rows.index, dtype=np.int32)
        program.a_matrix_.value_ = np.array(self.rows.value, dtype=np.float64)
        kinds = [highspy.HighsVarType.kContinuous] * len(self.columns.cost)
        for column in self.columns.integer:
            kinds[column] = highspy.HighsVarType.kInteger
        program.integrality_ = kinds
        return program

    def solution(self, solver: highspy.Highs, values: np.ndarray, *, proven: bool) -> Solution:
        """The column values in the words of the problem."""
        broken: dict[str, float] = {}
        for column, kind, _ in self.slacks:
            if values[column] > BROKEN and kind != "unevenness":
                broken[kind] = broken.get(kind, 0.0) + float(values[column])
        weights: dict[PolicyKey, dict[ClassName, Mapping[TierKey, float]]] = {}
        for request_class, segments in zip(self.component.classes, self.shares, strict=True):
            shares = dict.fromkeys(request_class.tiers, 0.0) if segments else {}
            for columns in segments:
                for key, column in columns.items():
                    shares[key] += max(0.0, float(values[column])) / len(segments)
            weights.setdefault(request_class.policy, {})[request_class.name] = normalised(shares)
        return Solution(
            {key: round(float(values[column])) for key, column in self.replicas.items()},
            weights,
            float(solver.getInfo().objective_function_value),
            proven,
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


def _values(solver: highspy.Highs) -> np.ndarray | None:
    """Column values of a feasible solution; None if there is none."""
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    values = np.array(solver.getSolution().col_value, dtype=np.float64)
    return values if values.size and bool(np.isfinite(values).all()) else None
