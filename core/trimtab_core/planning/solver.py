"""Solve a mixed-integer linear program whose promises come before money. The only place that touches HiGHS.

A model is columns, rows, and *slacks*: columns that say how far a promise is broken, each with its weight. Every
promise is kept if that can be: the slacks are held at zero. Only otherwise are they let go: with whole numbers
relaxed to fractions the weighted sum of breaches is made least, and with the breaches held there money is made
least. So no promise is ever traded for money. (Where whole numbers can't reach the least breach, as a budget may not
divide by a price, breaches and money are weighed in one objective, at ``DEAR`` for a breach.)

Small models are solved to proven optimality in milliseconds. For large ones HiGHS alone spends its first second on
cutting planes before it has a good solution; so a *dive* first rounds the relaxed solution a few columns at a time,
solving in between, and hands the result over as a start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import highspy
import numpy as np

DEAR = 1000.0
"""One unit of the promise that gives way first, in ``Search.unit``, where breach and money must be weighed."""
FEW = 40
"""Up to this many whole numbers the solver proves the optimum in milliseconds, without help for a first solution."""
DIVE_STEPS = 12
"""At least one in this many of the open whole numbers is rounded in one step of a dive."""
EXACT = 1e-6
"""A gap, or a distance from a whole number, below this is none."""

Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(slots=True)
class Columns:
    """Columns as they are added."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)

    def add(self, cost: float, lower: float, upper: float, *, integer: bool = False) -> int:
        """Add a column; returns its number."""
        if integer:
            self.integer.append(len(self.cost))
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.cost) - 1


@dataclass(slots=True)
class Rows:
    """Rows as they are added, in compressed form."""

    start: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)

    def add(self, terms: Iterable[tuple[int, float]], lower: float, upper: float) -> None:
        """Add a row: the sum of (column, factor) terms lies between the bounds."""
        for column, value in terms:
            self.index.append(column)
            self.value.append(value)
        self.start.append(len(self.index))
        self.lower.append(lower)
        self.upper.append(upper)


@dataclass(slots=True)
class Model:
    """A program to be minimised.

    Attributes:
        slacks: for each column that says how far a promise is broken, its weight among the breaches. Such a column
            has cost 0 and bounds 0 to 0.
        start: values of whole-number columns to begin from, such as the last solution's; any that are known.
    """

    columns: Columns = field(default_factory=Columns)
    rows: Rows = field(default_factory=Rows)
    slacks: dict[int, float] = field(default_factory=dict)
    start: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Search:
    """How hard to look.

    Attributes:
        gap: relative distance to the proven optimum at which large models stop.
        time_limit_seconds: wall time for one run of the solver.
        unit: a typical cost, in which ``DEAR`` is counted.
    """

    gap: float
    time_limit_seconds: float
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """A solution.

    Attributes:
        values: of all columns, whole ones whole.
        objective: their cost.
        proven: best within the gap; otherwise the best found in time.
    """

    values: list[float]
    objective: float
    proven: bool


def solve(model: Model, search: Search) -> Found | None:
    """The best solution found; None if there is none even with every promise broken.

    Deterministic for equal input as long as the time limit isn't reached: one thread, a fixed seed.
    """
    return _Solver(model, search).solve()


def bound(model: Model, search: Search) -> float | None:
    """What no solution that keeps every promise can cost less than, proven within the time; None if there is none."""
    solver = _Solver(model, search)
    if solver.run() is None:
        return None
    if solver.whole.size:
        solver.set_kind(highspy.HighsVarType.kInteger)
        solver.run()
        return float(solver.highs.getInfo().mip_dual_bound)
    return float(solver.highs.getInfo().objective_function_value)


@dataclass(slots=True)
class _Solver:
    """HiGHS with one model in it."""

    model: Model
    search: Search
    highs: highspy.Highs = field(init=False)
    whole: np.ndarray[Any, np.dtype[np.int32]] = field(init=False)

    def __post_init__(self) -> None:
        self.whole = np.array(self.model.columns.integer, dtype=np.int32)
        self.highs = highspy.Highs()  # type: ignore[no-untyped-call]
        gap = self.search.gap if self.whole.size > FEW else EXACT
        options = {"output_flag": False, "threads": 1, "random_seed": 0, "mip_rel_gap": gap}
        for option, value in options.items():
            self.highs.setOptionValue(option, value)
        self.highs.passModel(_arrays(self.model))

    def solve(self) -> Found | None:
        """Relax, dive, and search between the two."""
        values = self.relax()
        if values is None or not self.whole.size:
            return None if values is None else self.found(values, proven=True)
        start = self.begin(values) if self.whole.size > FEW else None
        self.set_kind(highspy.HighsVarType.kInteger)
        if start is not None:
            self.highs.setSolution(self.whole.size, self.whole, start[self.whole])
        best = self.run()
        if best is None:
            best = self.weigh()
        if best is None:
            return None
        proven = self.highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        if self.highs.getInfo().mip_gap > EXACT:
            # Inside the gap the other columns may have moved for nothing: the best ones for these whole numbers.
            fixed = self.fix(self.model.columns.integer, _whole(best, self.model.columns.integer))
            best = best if fixed is None else fixed
        return self.found(best, proven=proven)

    def run(self) -> Vector | None:
        """Run with a time limit of its own, as HiGHS counts the time of all runs together; None if nothing feasible."""
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + self.search.time_limit_seconds)
        self.highs.run()
        if self.highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        values = np.array(self.highs.getSolution().col_value, dtype=np.float64)
        return values if bool(np.isfinite(values).all()) else None

    def relax(self) -> Vector | None:
        """Without whole numbers: every promise kept, or all broken as little as can be."""
        values = self.run()
        if values is not None or not self.model.slacks:
            return values
        self.open_slacks()
        self.set_costs(self.breaches())
        least = self.run()
        if least is None:
            return None
        for column in self.model.slacks:
            # Rounded up by what the solver itself tolerates, or its own answer might be refused.
            self.highs.changeColBounds(column, 0.0, max(0.0, float(least[column])) * (1 + 1e-6) + 1e-6)
        self.set_costs(self.money())
        return self.run()

    def weigh(self) -> Vector | None:
        """Whole numbers can't reach the least breach: weigh breaches and money together."""
        self.open_slacks()
        self.set_costs(self.money() + DEAR * self.search.unit * self.breaches())
        return self.run()

    def begin(self, values: Vector) -> Vector | None:
        """A good solution to begin from: what a dive finds, or the one that was given if that is better."""
        found, given = self.dive(values), None
        if len(self.model.start) == self.whole.size:
            lower, upper = self.model.columns.lower, self.model.columns.upper
            counts = [min(max(self.model.start[at], lower[at]), upper[at]) for at in self.model.columns.integer]
            given = self.fix(self.model.columns.integer, counts)
            self.free()
        costs = self.money()
        return min((one for one in (found, given) if one is not None), key=lambda one: float(costs @ one), default=None)

    def dive(self, values: Vector) -> Vector | None:
        """Round the columns nearest to whole numbers, solve for the rest, and again, until all are whole.

        Each step lets load find other replicas, so that tiers are filled rather than rounded up one by one.
        Leaves the bounds as they should be. None if a step had no way on.
        """
        at: Vector | None = values
        left = list(self.model.columns.integer)
        while at is not None and left:
            distance = {column: abs(float(at[column]) - round(float(at[column]))) for column in left}
            left.sort(key=lambda column, distance=distance: (distance[column], column))  # type: ignore[misc]
            count = sum(1 for column in left if distance[column] <= EXACT) + 1 + len(left) // DIVE_STEPS
            step, left, before = left[:count], left[count:], at
            at = self.fix(step, _whole(before, step))
            if at is None:
                at = self.fix(step, [float(math.ceil(before[column] - EXACT)) for column in step])
        self.free()
        return at

    def free(self) -> None:
        """Whole numbers may be anything within their bounds again."""
        for column in self.model.columns.integer:
            self.highs.changeColBounds(column, self.model.columns.lower[column], self.model.columns.upper[column])

    def fix(self, columns: Sequence[int], counts: Sequence[float]) -> Vector | None:
        """Solve with these columns at these values."""
        for column, count in zip(columns, counts, strict=True):
            self.highs.changeColBounds(column, count, count)
        return self.run()

    def found(self, values: Vector, *, proven: bool) -> Found:
        """The values with whole ones whole."""
        result = [float(value) for value in values]
        for column in self.model.columns.integer:
            result[column] = float(round(result[column]))
        return Found(result, float(self.money() @ values), proven)

    def open_slacks(self) -> None:
        """Let every promise be broken."""
        for column in self.model.slacks:
            self.highs.changeColBounds(column, 0.0, math.inf)

    def money(self) -> Vector:
        """The costs of all columns."""
        return np.array(self.model.columns.cost, dtype=np.float64)

    def breaches(self) -> Vector:
        """The weights of the slacks among all columns."""
        weights = np.zeros(len(self.model.columns.cost), dtype=np.float64)
        for column, weight in self.model.slacks.items():
            weights[column] = weight
        return weights

    def set_costs(self, costs: Vector) -> None:
        self.highs.changeColsCost(costs.size, np.arange(costs.size, dtype=np.int32), costs)

    def set_kind(self, kind: highspy.HighsVarType) -> None:
        kinds = np.full(self.whole.size, kind.value, dtype=np.uint8)
        self.highs.changeColsIntegrality(self.whole.size, self.whole, kinds)


def _whole(values: Vector, columns: Sequence[int]) -> list[float]:
    return [float(round(float(values[column]))) for column in columns]


def _arrays(model: Model) -> highspy.HighsLp:
    """The model as HiGHS takes it, with whole numbers still relaxed."""
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(model.columns.cost), len(model.rows.lower)
    program.col_cost_ = np.array(model.columns.cost, dtype=np.float64)
    program.col_lower_ = np.array(model.columns.lower, dtype=np.float64)
    program.col_upper_ = np.array(model.columns.upper, dtype=np.float64)
    program.row_lower_ = np.array(model.rows.lower, dtype=np.float64)
    program.row_upper_ = np.array(model.rows.upper, dtype=np.float64)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.array(model.rows.start, dtype=np.int32)
    program.a_matrix_.index_ = np.array(model.rows.index, dtype=np.int32)
    program.a_matrix_.value_ = np.array(model.rows.value, dtype=np.float64)
    return program
