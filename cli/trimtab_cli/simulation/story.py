"""The page of ``trimtab simulate``: Trimtab's run beside the baselines, over time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core import units
from trimtab_sim import report

from trimtab_cli.pages import figures, page, runs, wording
from trimtab_cli.simulation import table

OURS = "trimtab"
_NUMBERS = (*runs.NUMBERS, "regret", "reversals per hour", "wrong-way moves")

_SIMULATED = (
    "Clock, replicas and arrivals. Replicas take as long as the variants' profiles say; requests share them as they "
    "share an engine's batches. Snapshot, planner, guards, classification, weights and endpoint choice are the code "
    "that runs in a cluster."
)
_BASELINES = "Each baseline is shown in its best setting on this very trace; the settings are at the end of this page."
_REGRET = (
    "Regret is the cost above that of an optimum which knows all arrivals, start-ups and prices in advance: no "
    "controller can have less than none."
)
_CONDUCT = (
    "A reversal is a change of direction of a tier's replicas, counted for the tier that has most. A wrong-way move is "
    "a scale-down, or a weight moved away from a healthy tier, that no fresh signal justifies."
)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is told of one simulation.

    Attributes:
        runs: Trimtab's first.
        promised: share of requests that had to meet their SLO.
        limits: of latency.
        tiers: names, cheapest answers first.
        trace: what was replayed, with every change made to it.
        prompts: where the prompts come from.
        notes: what must be known of the trace, and promises that can't be kept.
        facts: (name, value) pairs about the run.
    """

    runs: Sequence[report.Run]
    promised: float
    limits: report.Promise
    tiers: Sequence[str]
    trace: str
    prompts: str
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]

    @property
    def ours(self) -> report.Run:
        """Trimtab's run."""
        return self.runs[0]

    @property
    def best_baseline(self) -> report.Run | None:
        """The cheapest of the baselines that keep the SLO; None where none does."""
        keeping = [run for run in self.runs[1:] if run.slo_attainment >= self.promised]
        return min(keeping, key=lambda run: run.cost_usd, default=None)


def build_page(story: Story) -> page.Page:
    """The page's content."""
    decisions = story.ours.decisions
    settings = [(f"{run.controller} settings", told) for run in story.runs if (told := table.settings(run))]
    return page.Page(
        title="Trimtab, simulated",
        headline=_headline(story),
        duration_seconds=story.ours.duration_s,
        cards=_cards(story),
        honesty=_honesty(story),
        heading="Trimtab and the baselines" if len(story.runs) > 1 else "The numbers",
        numbers=_NUMBERS,
        columns=[_column(story, run) for run in story.runs],
        figures=_figures(story),
        scaling=[runs.told(one) for one in decisions if not runs.moves_weights(one)],
        routing=[runs.told(one) for one in decisions if runs.moves_weights(one)],
        facts=[*story.facts, *settings],
    )


def _headline(story: Story) -> str:
    run, other = story.ours, story.best_baseline
    told = (
        f"{run.requests:,} requests in {wording.clock(run.duration_s)} cost {units.format_usd(run.cost_usd)} with "
        f"Trimtab; {wording.attainment(run.slo_attainment, story.promised)} of them met the SLO "
        f"({wording.percent(story.promised)} promised)."
    )
    if other is not None:
        told += f" The cheapest baseline that keeps it, {other.controller}, costs {units.format_usd(other.cost_usd)}."
    elif len(story.runs) > 1:
        told += " No baseline keeps it."
    return told


def _cards(story: Story) -> list[page.Card]:
    run, other = story.ours, story.best_baseline
    held = run.slo_attainment >= story.promised
    cards = [page.Card("Cost", units.format_usd(run.cost_usd), wording.clock(run.duration_s))]
    if other is not None:
        saved = run.saved_against(other)
        cards.append(page.Card("Saved", wording.percent(saved), f"against {other.controller}", saved > 0))
    kept = wording.attainment(run.slo_attainment, story.promised)
    cards += [
        page.Card("SLO met", kept, f"promised {wording.percent(story.promised)}", held),
        page.Card("Per 1,000 requests", units.format_usd(run.usd_per_1k_requests), f"{run.requests:,} requests"),
        page.Card("Quality kept", wording.percent(run.quality_retention, 1), "of always the best tier, estimated"),
    ]
    if run.regret is not None:
        cards.append(page.Card("Regret", wording.percent(run.regret, 1), "above the offline optimum"))
    return cards


def _honesty(story: Story) -> list[tuple[str, str]]:
    told = [("Replayed", f"{story.trace}."), ("Simulated", _SIMULATED)]
    if len(story.runs) > 1:
        told.append(("Baselines", _BASELINES))
    told += [("Assumed", f"{runs.ASSUMED} Prompts: {story.prompts}."), ("Conduct", _CONDUCT)]
    if any(run.regret is not None for run in story.runs):
        told.append(("Regret", _REGRET))
    return told + [("Note", f"{note}.") for note in story.notes]


def _column(story: Story, run: report.Run) -> page.Column:
    cells = (
        *runs.cells(run, story.ours, story.promised),
        table.regret(run).replace("%", "\u00a0%"),
        f"{run.reversals_per_hour:.1f}",
        str(run.wrong_way_moves),
    )
    return page.Column(_name(run), "", cells, main=run is story.ours)


def _figures(story: Story) -> list[page.Figure]:
    course = figures.Course(
        runs=story.runs,
        names=[_name(run) for run in story.runs],
        tiers=story.tiers,
        promised=story.promised,
        limits=story.limits,
        others="baselines",
    )
    return figures.of_simulations(course)


def _name(run: report.Run) -> str:
    return "Trimtab" if run.controller == OURS else run.controller
