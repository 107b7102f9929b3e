"""The tables of ``trimtab simulate``: what each controller cost and kept, and how it behaved."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from trimtab_core import units
from trimtab_sim import report

from trimtab_cli.pages import wording

WIDE = 112
"""From so many columns of text on, two tables are enough; below, three."""
_PARTS = {
    True: (
        ("cost", "$/1k req", "saved", "regret", "SLO met", "TTFT p95", "ITL p95", "e2e p95", "quality"),
        ("GPU h", "GPU use", "changes", "reversals/h", "wrong-way", "share by tier"),
    ),
    False: (
        ("cost", "$/1k req", "saved", "regret", "SLO met", "quality"),
        ("TTFT p95", "ITL p95", "e2e p95", "GPU h", "GPU use", "changes"),
        ("reversals/h", "wrong-way", "share by tier"),
    ),
}
"""Columns of each table, for wide and for narrow terminals."""
_LEFT = "share by tier"


def show(console: Console, runs: Sequence[report.Run], promised: float) -> None:
    """Print all numbers of all runs, and what each controller was set to; Trimtab's run first."""
    cells = [(run.controller, _cells(run, runs[0], promised)) for run in runs]
    for at, titles in enumerate(_PARTS[console.width >= WIDE]):
        if at:
            console.print()
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("" if at else "controller", no_wrap=True)
        for title in titles:
            table.add_column(title, justify="left" if title == _LEFT else "right", no_wrap=title != _LEFT)
        for name, found in cells:
            table.add_row(name, *(found[title] for title in titles))
        console.print(table)
    for run in runs:
        told = settings(run)
        if told:
            console.print(f"{run.controller}: {told}", style="dim")


def settings(run: report.Run) -> str:
    """What a controller was set to, and what else was tried."""
    return "; ".join((run.settings, *run.notes[1:]) if run.settings else run.notes[1:])


def _cells(run: report.Run, ours: report.Run, promised: float) -> dict[str, str]:
    """One run's numbers by column."""
    missed = "" if run.slo_attainment >= promised else " missed"
    return {
        "cost": units.format_usd(run.cost_usd),
        "$/1k req": units.format_usd(run.usd_per_1k_requests),
        "saved": "" if run is ours else f"{ours.saved_against(run):+.1%}",
        "regret": regret(run),
        "SLO met": f"{run.slo_attainment:.2%}{missed}",
        "TTFT p95": wording.seconds(run.ttft_p95_s),
        "ITL p95": wording.seconds(run.itl_p95_s),
        "e2e p95": wording.seconds(run.e2e_p95_s),
        "quality": f"{run.quality_retention:.1%}",
        "GPU h": f"{run.gpu_hours:.2f}",
        "GPU use": f"{run.gpu_utilisation:.0%}",
        "changes": str(run.replica_changes),
        "reversals/h": f"{run.reversals_per_hour:.1f}",
        "wrong-way": str(run.wrong_way_moves),
        "share by tier": ", ".join(f"{tier} {share:.0%}" for tier, share in run.share_by_tier.items()),
    }


def regret(run: report.Run) -> str:
    """Cost above the offline optimum's."""
    return wording.NOTHING if run.regret is None else f"{run.regret:.1%}"
