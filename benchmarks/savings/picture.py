"""One picture of a scenario: load, replicas, cost rate and SLO over time, as an SVG that stands by itself."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from trimtab_cli.pages import figures, page, plots
from trimtab_sim import report
from trimtab_sim.report import Run

from savings import running

COLOURS = (
    "#1f6feb", "#d9730d", "#0f8a6d", "#8250df", "#6b7280", "#b3267a", "#8a6d00", "#0e7490", "#a16207", "#4d7c0f",
    "#be5a5a", "#475569",
)  # fmt: skip
LINES = 4
"""Runs in one picture: more would hide one another."""
_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #5b6470; }
.title { font-size: 14px; font-weight: 600; fill: #1b1f24; }
.unit { text-anchor: middle; }
.grid { stroke: #dde2e8; fill: none; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 6 4; stroke-width: 1.5; }
.area { opacity: 0.8; }
.limit { stroke: #b3261e; stroke-width: 1.5; stroke-dasharray: 3 3; fill: none; }
.limit-label { fill: #b3261e; }
"""
_TITLE, _LEGEND, _GAP, _EDGE = 22, 34, 14, 12
_INDENT, _SWATCH, _ROW = 50.0, 38.0, 16
_LETTER = 6.2
"""Width of a letter of the legend, in units of the drawing."""


def draw(outcome: running.Outcome) -> str:
    """The picture as the text of an SVG file."""
    shown = chosen(outcome)
    course = figures.Course(
        runs=list(shown.values()),
        names=list(shown),
        tiers=_tiers(outcome.ours),
        promised=outcome.wanted,
        limits=report.Promise(),
    )
    found = [figures.load(course), figures.replicas(course), figures.cost(course), figures.attainment(course)]
    panels = [_panel(at, figure, outcome.duration_s) for at, figure in enumerate(found)]
    width = 2 * plots.WIDTH + _GAP + 2 * _EDGE
    height = 2 * _height() + _GAP + 2 * _EDGE
    drawing = "".join(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><style>{_STYLE}</style><rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        f"{_coloured(drawing)}</svg>\n"
    )


def chosen(outcome: running.Outcome) -> Mapping[str, Run]:
    """Trimtab, the runs beside it, and the cheapest baselines that keep the SLO (or nearly), up to ``LINES``."""
    beside = list(outcome.scenario.beside)
    others = sorted(
        (name for name in outcome.runs if name != running.TRIMTAB and name not in beside),
        key=lambda name: (outcome.runs[name].slo_attainment < outcome.wanted, outcome.runs[name].cost_usd),
    )
    names = [running.TRIMTAB, *beside, *others][:LINES]
    return {name: outcome.runs[name] for name in names}


def _tiers(run: Run) -> Sequence[str]:
    return sorted({name for point in run.series for name in (*point.ready, *point.pending)})


def _height() -> int:
    return plots.HEIGHT + _TITLE + _LEGEND


def _panel(at: int, figure: page.Figure, duration_s: float) -> str:
    """One chart with its title above and its legend below."""
    x = _EDGE + at % 2 * (plots.WIDTH + _GAP)
    y = _EDGE + at // 2 * (_height() + _GAP)
    chart = figure.chart
    drawn = plots.draw(chart, duration_s).replace(
        'class="plot"', f'y="{_TITLE}" width="{plots.WIDTH}" height="{plots.HEIGHT}"', 1
    )
    title = f'<text class="title" x="4" y="14">{html.escape(chart.title)}</text>'
    return f'<g transform="translate({x} {y})">{title}{drawn}{_legend(chart)}</g>'


def _legend(chart: plots.Chart) -> str:
    """A short line in its colour and a name for each series, in as many rows as they need; none for a single one."""
    if len(chart.series) < 2:
        return ""
    parts, x, y = [], _INDENT, _TITLE + plots.HEIGHT + 10
    for series in chart.series:
        width = _SWATCH + _LETTER * len(series.name)
        if x + width > plots.WIDTH:
            x, y = _INDENT, y + _ROW
        dashed = " dashed" if series.dashed else ""
        stroke = f"stroke:var(--s{series.colour})"
        parts.append(f'<path class="line{dashed}" style="{stroke}" d="M{x:.1f} {y - 4}h18"/>')
        parts.append(f'<text x="{x + 23:.1f}" y="{y}">{html.escape(series.name)}</text>')
        x += width
    return "".join(parts)


def _coloured(drawing: str) -> str:
    """Colours written out: not everything that shows an SVG knows variables."""
    return re.sub(r"var\(--s(\d+)\)", lambda found: COLOURS[int(found[1]) - 1], drawing)
