"""The solver: whole numbers, promises before money, and good answers for large models in time."""

from __future__ import annotations

import math
import random

import pytest
from trimtab_core.planning import solver
from trimtab_core.planning.solver import Model, Search

SEARCH = Search(gap=0.01, time_limit_seconds=5.0)


def covering(demand: float, *offers: tuple[float, float, float]) -> Model:
    """Buy whole units of offers (price, size, most) that cover the demand, or break the promise at weight 1."""
    model = Model()
    columns = [(model.columns.add(price, 0.0, most, integer=True), size) for price, size, most in offers]
    short = model.columns.add(0.0, 0.0, 0.0)
    model.slacks[short] = 1.0
    model.rows.add([*columns, (short, 1.0)], demand, math.inf)
    return model


@pytest.mark.parametrize(
    ("model", "values", "cost"),
    [
        # 7 by threes at 2 and twos at 1.5: 3 + 2 + 2 costs 5, 3 + 3 + 2 would cost 5.5, four twos 6.
        pytest.param(covering(7.0, (2.0, 3.0, 9.0), (1.5, 2.0, 9.0)), [1, 2, 0], 5.0, id="the cheapest cover"),
        pytest.param(covering(7.0, (2.0, 3.0, 1.0), (1.5, 2.0, 1.0)), [1, 1, 2], 3.5, id="as much as there is"),
        pytest.param(covering(0.0, (2.0, 3.0, 9.0)), [0, 0], 0.0, id="nothing wanted"),
    ],
)
def test_a_small_model_is_solved_to_the_optimum(model: Model, values: list[float], cost: float) -> None:
    found = solver.solve(model, SEARCH)
    assert found is not None
    assert found.values == pytest.approx(values, abs=1e-5)
    assert (found.objective, found.proven) == (pytest.approx(cost), True)


def test_a_promise_is_not_traded_for_any_money() -> None:
    # A thousandth of a unit is missing; the unit that would give it costs a million.
    found = solver.solve(covering(1.001, (1e6, 1.0, 9.0)), SEARCH)
    assert found is not None
    assert found.values == pytest.approx([2.0, 0.0])


def test_the_lighter_promise_gives_way() -> None:
    """At most 5 to spend (weight 100), 10 wanted (weight 1): 5 are bought and 5 missing."""
    model = covering(10.0, (1.0, 1.0, 20.0))
    excess = model.columns.add(0.0, 0.0, 0.0)
    model.slacks[excess] = 100.0
    model.rows.add([(0, 1.0), (excess, -1.0)], -math.inf, 5.0)
    found = solver.solve(model, SEARCH)
    assert found is not None
    assert found.values == pytest.approx([5.0, 5.0, 0.0], abs=1e-4)


def test_a_breach_that_whole_numbers_cannot_reach_is_weighed() -> None:
    """Units of 2, a ceiling of 5 that weighs more: fractions would buy 2.5 units, whole ones are 2."""
    model = covering(10.0, (2.0, 2.0, 20.0))
    excess = model.columns.add(0.0, 0.0, 0.0)
    model.slacks[excess] = 100.0
    model.rows.add([(0, 2.0), (excess, -1.0)], -math.inf, 5.0)
    found = solver.solve(model, SEARCH)
    assert found is not None
    assert found.values == pytest.approx([2.0, 6.0, 0.0], abs=1e-4)


def test_a_model_without_any_solution_finds_none() -> None:
    model = Model()
    column = model.columns.add(1.0, 0.0, 1.0)
    model.rows.add([(column, 1.0)], 2.0, math.inf)
    assert solver.solve(model, SEARCH) is None


def large(seed: int, sites: int = 60) -> Model:
    """Customers served by whole units at sites, each customer able to use three sites."""
    rng, model = random.Random(seed), Model()
    units = [model.columns.add(rng.uniform(1.0, 10.0), 0.0, 20.0, integer=True) for _ in range(sites)]
    served: list[list[tuple[int, float]]] = [[] for _ in range(sites)]
    for _ in range(sites):
        shares = []
        for site in rng.sample(range(sites), 3):
            share = model.columns.add(0.0, 0.0, 1.0)
            served[site].append((share, rng.uniform(0.2, 3.0)))
            shares.append((share, 1.0))
        model.rows.add(shares, 1.0, 1.0)
    for unit, demand in zip(units, served, strict=True):
        model.rows.add([*demand, (unit, -1.0)], -math.inf, 0.0)
    return model


@pytest.mark.parametrize("seed", range(3))
def test_a_large_model_gets_a_whole_feasible_solution_near_its_relaxed_bound(seed: int) -> None:
    model = large(seed)
    found = solver.solve(model, Search(gap=0.01, time_limit_seconds=2.0))
    assert found is not None
    assert all(found.values[column] == round(found.values[column]) for column in model.columns.integer)
    relaxed = large(seed)
    relaxed.columns.integer.clear()
    bound = solver.solve(relaxed, SEARCH)
    assert bound is not None
    # Rounding every site up alone would cost about half a unit a site more, over 40 %.
    assert bound.objective <= found.objective <= 1.35 * bound.objective


def test_a_dive_alone_gives_a_start_and_leaves_the_bounds() -> None:
    model = large(0)
    dived = solver.solve(model, Search(gap=1.0, time_limit_seconds=2.0))  # any first solution will do
    best = solver.solve(model, Search(gap=0.001, time_limit_seconds=5.0))
    assert dived is not None
    assert best is not None
    assert best.objective <= dived.objective * (1 + 1e-9)


def test_the_last_solution_is_where_the_search_begins_if_it_is_better_than_a_dive() -> None:
    """With a gap at which the first solution will do, what comes back is no worse than what was given."""
    best = solver.solve(large(0), Search(gap=0.001, time_limit_seconds=5.0))
    assert best is not None
    model = large(0)
    model.start = {column: round(best.values[column]) for column in model.columns.integer}
    again = solver.solve(model, Search(gap=1.0, time_limit_seconds=2.0))
    assert again is not None
    assert again.objective <= best.objective * (1 + 1e-6)


def test_a_last_solution_that_no_longer_holds_does_no_harm() -> None:
    model = large(0)
    model.start = dict.fromkeys(model.columns.integer, 0)  # nothing runs: nobody is served
    found = solver.solve(model, Search(gap=1.0, time_limit_seconds=2.0))
    assert found is not None
    assert all(found.values[column] == round(found.values[column]) for column in model.columns.integer)
