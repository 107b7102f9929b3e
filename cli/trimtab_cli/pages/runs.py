"""Runs as lines of a table and decisions as lines of a list, the same for the demo, simulations and previews. Pure."""

from __future__ import annotations

from trimtab_core import units
from trimtab_core.planning.plan import Decision
from trimtab_sim import report

from trimtab_cli.pages import page, wording

ASSUMED = "Prompts are synthetic where the trace holds none; the quality kept is estimated from the tiers' priors."
"""What a page about simulated runs says of its prompts."""
NUMBERS = (
    "requests", "cost", "$/1,000 requests", "Trimtab saves", "SLO met", "TTFT p95", "ITL p95", "end to end p95",
    "GPU hours", "GPU use", "replica changes", "quality kept",
)  # fmt: skip
CENT = 0.005


def cells(run: report.Run, ours: report.Run, promised: float) -> tuple[str, ...]:
    """One run's numbers, in the order of ``NUMBERS``."""
    return (
        f"{run.requests:,}",
        units.format_usd(run.cost_usd),
        units.format_usd(run.usd_per_1k_requests),
        "" if run is ours else wording.percent(ours.saved_against(run)),
        wording.attainment(run.slo_attainment, promised) + ("" if run.slo_attainment >= promised else ", missed"),
        wording.seconds(run.ttft_p95_s),
        wording.seconds(run.itl_p95_s),
        wording.seconds(run.e2e_p95_s),
        f"{run.gpu_hours:.2f}",
        wording.percent(run.gpu_utilisation),
        str(run.replica_changes),
        wording.percent(run.quality_retention, 1),
    )


def told(decision: Decision) -> page.Told:
    """One decision for the list."""
    before, after = decision.cost_before_usd_per_hour, decision.cost_after_usd_per_hour
    cost = f"{before:.2f}" if abs(before - after) < CENT else f"{before:.2f} → {after:.2f}"
    tier = decision.tier.rpartition("/")[2]
    return page.Told(wording.clock(decision.time), tier, decision.action, cost, decision.reasons)


def moves_weights(decision: Decision) -> bool:
    """Whether a decision is about shares: such as ``simple: small 60 % → 70 %``, not ``small/l4 2 → 3``."""
    return "%" in decision.action
