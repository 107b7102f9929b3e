"""The two tables of ``trimtab simulate``: what each controller cost and kept, and how it behaved."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from trimtab_core import units
from trimtab_sim import report

from trimtab_cli.pages import wording

_KEPT = (
    "controller", "cost", "$/1k req", "saved", "regret", "SLO met", "TTFT p95", "ITL p95", "e2e p95", "quality",
)  # fmt: skip
_CONDUCT = ("", "GPU h", "GPU use", "changes", "reversals/h", "wrong-way", "share by tier")


def show(console: Console, runs: Sequence[report.Run], promised: float) -> None:
    """Print both tables, and what each controller was set to; Trimtab's run first."""
    kept = _table(_KEPT)
    conduct = _table(_CONDUCT, last_left=True)
    for run in runs:
        kept.add_row(*_kept(run, runs[0], promised))
        conduct.add_row(*_behaved(run))
    console.print(kept)
    console.print()
    console.print(conduct)
    for run in runs:
        told = settings(run)
        if told:
            console.print(f"{run.controller}: {told}", style="dim")


def settings(run: report.Run) -> str:
    """What a controller was set to, and what else was tried."""
    return "; ".join((run.settings, *run.notes[1:]) if run.settings else run.notes[1:])


def _table(titles: Sequence[str], *, last_left: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        left = at == 0 or (last_left and at == len(titles) - 1)
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    return table


def _kept(run: report.Run, ours: report.Run, promised: float) -> tuple[str, ...]:
    missed = "" if run.slo_attainment >= promised else " missed"
    return (
        run.controller,
        units.format_usd(run.cost_usd),
        units.format_usd(run.usd_per_1k_requests),
        "" if run is ours else f"{ours.saved_against(run):+.1%}",
        regret(run),
        f"{run.slo_attainment:.2%}{missed}",
        wording.seconds(run.ttft_p95_s),
        wording.seconds(run.itl_p95_s),
        wording.seconds(run.e2e_p95_s),
        f"{run.quality_retention:.1%}",
    )


def _behaved(run: report.Run) -> tuple[str, ...]:
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in run.share_by_tier.items())
    return (
        run.controller,
        f"{run.gpu_hours:.2f}",
        f"{run.gpu_utilisation:.0%}",
        str(run.replica_changes),
        f"{run.reversals_per_hour:.1f}",
        str(run.wrong_way_moves),
        shares,
    )


def regret(run: report.Run) -> str:
    """Cost above the offline optimum's."""
    return wording.NOTHING if run.regret is None else f"{run.regret:.1%}"
