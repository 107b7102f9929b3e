"""The fault scenarios that ship, at half of their load: whatever breaks, nothing moves the wrong way."""

from __future__ import annotations

from pathlib import Path

import pytest
from savings import running, schema, sources
from trimtab_sim.report import Run

SCENARIOS = Path(__file__).resolve().parents[2] / "benchmarks" / "scenarios"
FAULTS = (
    "metric-blackout", "stale-series", "nan-storm", "never-ready", "capacity-blocked", "leader-handover",
    "poisoned-forecast",
)  # fmt: skip

LEAST = {"poisoned-forecast": 0.80, "metric-blackout": 0.80, "nan-storm": 0.80}
"""Attainment: after an outage the return costs some minutes, and what nobody measures while load doubles, too."""


def hurried(name: str) -> tuple[schema.Scenario, Run]:
    scenario = schema.load(SCENARIOS / f"{name}.yaml").hurried()
    return scenario, running.run(scenario, SCENARIOS, sources.data_folder()).ours


@pytest.mark.parametrize("name", FAULTS)
def test_no_move_is_made_that_no_fresh_signal_justifies(name: str) -> None:
    scenario, run = hurried(name)
    assert any(scenario.faults.values())
    assert run.requests > 20_000
    assert run.wrong_way_moves == 0
    assert run.slo_attainment >= LEAST.get(name, 0.95)
