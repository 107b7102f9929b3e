"""What a controller is, and the one that matters: the shipped optimiser behind the shipped guards.

A controller sees a snapshot, as the operator would build it, and answers with a plan. Baselines implement the same
interface, so every difference between two runs is a difference of their decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trimtab_core import units
from trimtab_core.planning import guards, optimizer
from trimtab_core.planning import plan as plans
from trimtab_core.planning.plan import Decision, Plan, VariantKey
from trimtab_core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Orders:
    """What a controller decided in one cycle.

    Attributes:
        plan: wanted replicas and weights; what it doesn't name stays.
        decisions: the changes, as they are told to people; times are those of the snapshot.
    """

    plan: Plan
    decisions: tuple[Decision, ...] = ()


class Controller(Protocol):
    """Decides on replicas and weights.

    It must be copyable: when leadership is handed over, a copy of what it was before the run goes on, which knows of
    the past what the snapshot's memory and weights tell, and nothing else.
    """

    @property
    def name(self) -> str:
        """For tables, such as ``trimtab``."""
        ...

    @property
    def settings(self) -> str:
        """What it is set to, for people; may be empty."""
        ...

    @property
    def uses_cache(self) -> bool:
        """Whether its routers answer from the policy's cache."""
        ...

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """Time between two decisions."""
        ...

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """Replicas that are ready when the run begins; variants that it doesn't name have their minimum."""
        ...

    def step(self, snapshot: Snapshot) -> Orders:
        """Decide."""
        ...


class Trimtab:
    """The shipped planner.

    Args:
        planner: how it plans; the shipped defaults where not given.
    """

    name = "trimtab"
    settings = ""
    uses_cache = True

    def __init__(self, planner: optimizer.Settings | None = None) -> None:
        self._planner = planner or optimizer.Settings()
        self._previous: Plan | None = None

    def interval_seconds(self, snapshot: Snapshot) -> float:
        """The shortest retune interval of all policies."""
        return min(units.duration_seconds(policy.spec.retune.interval) for policy in snapshot.policies.values())

    def initial(self, snapshot: Snapshot) -> Mapping[VariantKey, int]:
        """The minimum of every variant: the prologue of a run gives it time to find its feet."""
        del snapshot
        return {}

    def step(self, snapshot: Snapshot) -> Orders:
        """The operator's sentence without its edges: optimise, guard, tell the difference."""
        plan = guards.guard(optimizer.optimize(snapshot, previous=self._previous, settings=self._planner), snapshot)
        self._previous = plan
        return Orders(plan, plans.decisions(snapshot, plan, plans.diff(snapshot, plan)))
