"""The page of ``trimtab plan``: both sides in numbers and over time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_sim import report

from trimtab_cli.pages import figures, page, runs, wording
from trimtab_cli.preview import table
from trimtab_cli.preview.side import Side

_SIMULATED = (
    "Both sides are the shipped planner, guards and routing on the same requests in simulated time; replicas take as "
    "long as the variants' profiles say."
)
_PLANNED = (
    "One plan by the shipped planner for the demand that Prometheus shows now, as it should be once all replicas are "
    "up. Nothing was simulated: latencies are kept by the capacity model's estimate."
)
_MONTH = "A month counts 730 hours like those of this load."


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is told of one preview.

    Attributes:
        load: what it was planned for, as one line.
        before: None where nothing is compared.
        titles: of both sides, or of the one.
        changes: of the manifests; None where one set of them stands alone.
        tiers: names, cheapest answers first.
        promised, limits: of the edited manifests.
        facts: (name, value) pairs.
        details: (name, text) pairs about the plan, where one plan was made.
    """

    load: str
    before: Side | None
    after: Side
    changes: Sequence[page.Change] | None
    tiers: Sequence[str]
    promised: float
    limits: report.Promise
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]
    titles: Sequence[str] = ("before", "after")
    details: Sequence[tuple[str, str]] = ()

    @property
    def lines(self) -> list[table.Line]:
        """The numbers."""
        return table.lines(self.before, self.after)


def verdict(story: Story) -> str:
    """Whether all is kept, in a few words."""
    broken = len(story.after.broken)
    return f"would break {wording.count(broken, 'promise')}" if broken else "keeps every promise"


def build_page(story: Story) -> page.Page:
    """The page's content."""
    run = story.after.run
    decisions = run.decisions if run else ()
    return page.Page(
        title="Trimtab plan",
        headline=_headline(story),
        duration_seconds=run.duration_s if run else 1.0,
        cards=_cards(story),
        honesty=_honesty(story),
        heading="The numbers",
        numbers=[line.name for line in story.lines],
        columns=_columns(story),
        figures=_figures(story, run) if run else [],
        scaling=[runs.told(one) for one in decisions if not runs.moves_weights(one)],
        routing=[runs.told(one) for one in decisions if runs.moves_weights(one)],
        facts=[*story.details, *story.facts],
        changes=story.changes or (),
    )


def _headline(story: Story) -> str:
    told = f"It {verdict(story)} on {story.load}."
    if story.before is None:
        return told
    change = wording.usd_change(story.before.usd_per_month, story.after.usd_per_month)
    if change == wording.SAME:
        return f"The cost stays as it is. {told}"
    return f"The cost of a month changes by {change}. {told}"


def _cards(story: Story) -> list[page.Card]:
    before, after = story.before, story.after
    past = [f"was {text}" for text in _sums(before)] if before else ["mean", "of such hours", "estimated"]
    hour, month, quality = _sums(after)
    cards = [page.Card("Cost per hour", hour, past[0]), page.Card("Cost per month", month, past[1])]
    if after.attainment is not None:
        kept = after.attainment >= story.promised
        note = f"promised {wording.percent(story.promised)}"
        cards.append(page.Card("SLO met", wording.attainment(after.attainment, story.promised), note, kept))
    broken = len(after.broken)
    told = wording.count(broken, "promise") if broken else "nothing"
    cards.append(page.Card("Quality kept", quality, past[2]))
    cards.append(page.Card("Would break", told, "of SLO and budgets", not broken))
    return cards


def _sums(side: Side) -> tuple[str, str, str]:
    """Cost per hour and month, and quality."""
    quality = wording.NOTHING if side.quality_retention is None else wording.percent(side.quality_retention, 1)
    return wording.usd(side.usd_per_hour), wording.usd(side.usd_per_month), quality


def _honesty(story: Story) -> list[tuple[str, str]]:
    simulated = story.after.run is not None
    told = [("Load", f"{story.load}."), ("How", _SIMULATED if simulated else _PLANNED), ("Month", _MONTH)]
    told += [("Assumed", runs.ASSUMED)] * simulated
    told += [("Note", f"{note}.") for note in story.notes]
    return told + [("Keeps" if kept else "Breaks", f"{text}.") for kept, text in story.after.promises]


def _columns(story: Story) -> list[page.Column]:
    after = page.Column(story.titles[-1], "", [line.after for line in story.lines], main=True)
    if story.before is None:
        return [after]
    return [
        page.Column(story.titles[0], "", [line.before for line in story.lines]),
        after,
        page.Column("difference", "", [line.difference for line in story.lines]),
    ]


def _figures(story: Story, run: report.Run) -> list[page.Figure]:
    past = story.before.run if story.before else None
    course = figures.Course(
        runs=[run, past] if past else [run],
        names=[*reversed(story.titles)],
        tiers=story.tiers,
        promised=story.promised,
        limits=story.limits,
        others="before the edit",
    )
    return figures.of_simulations(course)
