"""An HTML report: one file that needs nothing else, filled from values. Pure but for its own template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import markupsafe

from trimtab_cli.pages import plots


@dataclass(frozen=True, slots=True)
class Card:
    """One number that matters.

    Attributes:
        note: one line below it: against what, or how it was made.
        good: True and False colour the number, None doesn't.
    """

    name: str
    value: str
    note: str
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: a cell for each of ``Page.numbers``.

    Attributes:
        name: such as a controller's.
        origin: how its numbers were made; empty where that is the same for all.
        main: the one that the page is about.
    """

    name: str
    origin: str
    cells: Sequence[str]
    main: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """One decision as it is told."""

    time: str
    tier: str
    action: str
    cost: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs between two sets of manifests; empty where one of them doesn't have it."""

    about: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with what to see in it."""

    chart: plots.Chart
    caption: str


@dataclass(frozen=True, slots=True)
class Page:
    """All that the report shows.

    Attributes:
        headline: the run in one sentence.
        honesty: (label, text) pairs: what is measured, what simulated, what shortened.
        heading: of the table.
        numbers: what the table compares, a line each.
        columns: what is compared.
        scaling, routing: decisions about replicas and about weights, in order of time.
        facts: (name, value) pairs about the run, such as trace, seed and machine.
        changes: of the manifests, where two sets are compared.
    """

    title: str
    headline: str
    duration_seconds: float
    cards: Sequence[Card]
    honesty: Sequence[tuple[str, str]]
    heading: str
    numbers: Sequence[str]
    columns: Sequence[Column]
    figures: Sequence[Figure]
    scaling: Sequence[Told]
    routing: Sequence[Told]
    facts: Sequence[tuple[str, str]]
    changes: Sequence[Change] = ()


def render(page: Page) -> str:
    """The report as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trimtab_cli.pages", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["draw"] = lambda chart: markupsafe.Markup(  # noqa: S704 (our own SVG, texts escaped in it)
        plots.draw(chart, page.duration_seconds)
    )
    return environment.get_template("page.html.j2").render(page=page)
