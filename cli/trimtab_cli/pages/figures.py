"""The plots of one or several runs over time: load, replicas, cost rate, latency, SLO. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab_core.routing import promises
from trimtab_core.routing import table as tables
from trimtab_sim import report

from trimtab_cli.pages import page, plots, wording

COLOURS = 12
"""That the page knows."""


@dataclass(frozen=True, slots=True)
class Course:
    """Runs on the same load, as they are drawn.

    Attributes:
        runs: the one that the page is about first; it is drawn solid, the others dashed.
        names: of the runs, for legends.
        tiers: names, cheapest answers first.
        promised: share of requests that had to meet their SLO.
        limits: of latency.
        others: what the dashed lines are, such as ``simulated baselines``; empty where there are none.
    """

    runs: Sequence[report.Run]
    names: Sequence[str]
    tiers: Sequence[str]
    promised: float
    limits: report.Promise
    others: str = ""

    @property
    def dashes(self) -> str:
        """What a caption must say of dashed lines."""
        return f" Dashed: {self.others}." if len(self.runs) > 1 and self.others else ""


def strictest_limits(table: tables.RoutingTable | None) -> report.Promise:
    """The latency limits to draw: the strictest of the classes, and where those have none, of the tiers."""
    listed = (table.classes, table.tiers) if table else ((), ())
    classes, tiers = (report.Promise.of(promises.strictest(*(one.slo for one in part))) for part in listed)
    return report.Promise(classes.ttft_s or tiers.ttft_s, classes.itl_s or tiers.itl_s, classes.e2e_s or tiers.e2e_s)


def load(course: Course) -> page.Figure:
    """Arrivals."""
    lines = [plots.Series("offered", _smooth(course.runs[0]), 1)]
    return page.Figure(plots.Chart("Load", "requests/s", lines), "What the trace asked for, a running mean.")


def replicas(course: Course) -> page.Figure:
    """The main run's replicas by tier, stacked."""
    run = course.runs[0]
    lines = [
        plots.Series(name, [(p.t_s, _counted(p, (name,))) for p in run.series], colour, step=True)
        for colour, name in enumerate(course.tiers, 1)
    ]
    return page.Figure(
        plots.Chart("Replicas by tier", "replicas", lines, stacked=True, whole=True),
        "Ready and starting ones; leaving ones are not drawn, but paid.",
    )


def all_replicas(course: Course) -> page.Figure:
    """Every run's replicas, all tiers together."""
    lines = [
        _line(course, at, ((p.t_s, _counted(p, {*p.ready, *p.pending})) for p in run.series), step=True)
        for at, run in enumerate(course.runs)
    ]
    caption = f"Ready and starting ones of all tiers, large and small.{course.dashes}"
    return page.Figure(plots.Chart("Replicas", "replicas", lines, whole=True), caption)


def cost(course: Course) -> page.Figure:
    """What every run's fleet cost per hour."""
    lines = [
        _line(course, at, ((p.t_s, p.usd_per_hour) for p in run.series), step=True)
        for at, run in enumerate(course.runs)
    ]
    caption = f"All replicas, starting and leaving ones included.{course.dashes}"
    return page.Figure(plots.Chart("What the fleet costs", "$/h", lines), caption)


def latencies(course: Course) -> list[page.Figure]:
    """The three latencies, each with its promise."""
    limits = course.limits
    parts = (
        ("End-to-end latency, p95", "e2e_p95_s", limits.e2e_s),
        ("Time to first token, p95", "ttft_p95_s", limits.ttft_s),
        ("Time between tokens, p95", "itl_p95_s", limits.itl_s),
    )
    return [_latency(course, title, field, limit) for title, field, limit in parts]


def _latency(course: Course, title: str, field: str, limit: float | None) -> page.Figure:
    lines = [
        _line(course, at, ((p.t_s, _number(getattr(p, field))) for p in run.series))
        for at, run in enumerate(course.runs)
    ]
    drawn = None if limit is None else (limit, f"SLO {wording.seconds(limit)}")
    caption = f"Over the requests that arrived in each window.{course.dashes}"
    return page.Figure(plots.Chart(title, "s", lines, limit=drawn), caption)


def attainment(course: Course) -> page.Figure:
    """How well the SLO was kept, with the promise."""
    lines = [
        _line(course, at, ((p.t_s, 100 * _number(p.slo_attainment)) for p in run.series))
        for at, run in enumerate(course.runs)
    ]
    limit = (100 * course.promised, wording.percent(course.promised))
    chart = plots.Chart("SLO met", "% of requests", lines, limit=limit, top=100)
    return page.Figure(chart, "Share of each window's requests that met every promised latency.")


def _line(course: Course, at: int, points: Iterable[plots.Point], *, step: bool = False) -> plots.Series:
    """One run's line: its name, its colour, dashed unless it is the main one."""
    return plots.Series(course.names[at], list(points), at % COLOURS + 1, step=step, dashed=at > 0)


def _counted(point: report.Point, tiers: Iterable[str]) -> float:
    return float(sum(point.ready.get(name, 0) + point.pending.get(name, 0) for name in tiers))


def _number(value: float | None) -> float:
    """A missing value leaves a gap."""
    return math.nan if value is None else value


def _smooth(run: report.Run, width: int = 3) -> list[plots.Point]:
    """Arrivals per second as a running mean over ``width`` points, so that the course shows through the noise."""
    values = [point.arrivals_per_second for point in run.series]
    smoothed = []
    for at, point in enumerate(run.series):
        around = values[max(0, at - width // 2) : at + width // 2 + 1]
        smoothed.append((point.t_s, sum(around) / len(around)))
    return smoothed


def of_simulations(course: Course) -> list[page.Figure]:
    """All that is drawn of simulated runs."""
    return [
        load(course),
        replicas(course),
        all_replicas(course),
        cost(course),
        *latencies(course),
        attainment(course),
    ]
