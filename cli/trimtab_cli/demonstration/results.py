"""What a demo says at its end: the table, the JSON file and the HTML report, all from the same runs. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.planning.plan import Decision
from trimtab_sim import baselines, report

from trimtab_cli.demonstration import outcomes, page, picture, plots
from trimtab_cli.demonstration.replay import clock

NAMES = {
    "trimtab": "Trimtab",
    baselines.StaticPeak.name: "static peak on the best tier",
    baselines.HpaOnQueue.name: "HPA on queue length",
}
_SHARE_WINDOWS = 30
NUMBERS = (
    "requests", "cost", "$/1,000 requests", "Trimtab saves", "SLO met", "TTFT p95", "ITL p95", "end to end p95",
    "GPU hours", "GPU use", "replica changes", "quality kept",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is told of one demo.

    Attributes:
        runs: Trimtab's first.
        promised: share of requests that had to meet their SLO.
        limits: of latency, seconds.
        trace: what was replayed, with every change made to it.
        time_scale: by what waits were divided.
        stream_interval: tokens in one event of a stream.
        run_in_s: uncounted run-in.
        facts: (name, value) pairs about the run.
        tiers: names, cheapest answers first, for the order of plots.
        answered: arrival in seconds and who answered, of every request.
    """

    runs: Sequence[report.Run]
    promised: float
    limits: report.Promise
    health: outcomes.Health
    errors: Sequence[tuple[str, int]]
    trace: str
    time_scale: float
    stream_interval: int
    run_in_s: float
    facts: Sequence[tuple[str, str]]
    tiers: Sequence[str]
    answered: Sequence[tuple[float, str]]

    @property
    def ours(self) -> report.Run:
        """Trimtab's run."""
        return self.runs[0]

    @property
    def held(self) -> bool:
        """Whether the SLO held in Trimtab's run."""
        return self.ours.slo_attainment >= self.promised


def headline(story: Story) -> str:
    """The demo in one or two sentences."""
    run = story.ours
    told = (
        f"{run.requests:,} requests in {clock(run.duration_s)} cost {units.format_usd(run.cost_usd)} with Trimtab; "
        f"{_percent(run.slo_attainment, 1)} of them met the SLO ({_percent(story.promised)} promised)."
    )
    others = [
        f"{units.format_usd(other.cost_usd)} with {_name(other)} ({_percent(run.saved_against(other))} saved)"
        for other in story.runs[1:]
    ]
    return f"{told} The same load would have cost {' and '.join(others)}." if others else told


_MEASURED = (
    "Trimtab's requests, latencies, failures and routing: real HTTP through the real router, sent open-loop at the "
    "trace's times; latencies count from those times. Replicas, weights and decisions are those of the operator's own "
    "loop; cost is the integral of the running replicas' prices. The load client began 99 % of its requests within "
    "{late} of their time (the last within {worst}), and its own clock lagged by {lag} at the 99th percentile."
)
_ENGINES = (
    "The engines: they speak vLLM's protocol and take as long as the variants' profiles say, but no GPU and no model "
    "is behind them; {interval} tokens come in one event of a stream."
)
_BASELINES = (
    " The baselines: run in the simulator on the same trace, profiles and shortened times, each in its best setting."
)
_SHORTENED = (
    "Start-up times, scale-down windows and control intervals are divided by {scale:g} for all controllers, so that "
    "minutes show what hours do. Requests, prices and SLOs are as they are."
)
_ASSUMED = (
    "Prompts are synthetic, as no public trace holds texts; the quality kept is estimated from the tiers' priors."
)
_RUN_IN = "A run-in of {seconds:g} s before the replay, in which the fleet finds its feet."


def honesty(story: Story) -> list[tuple[str, str]]:
    """What is measured, what simulated, what shortened, what assumed."""
    health = story.health
    late, worst, lag = (_milliseconds(value) for value in (health.late_p99, health.late_max, health.lag_p99))
    told = [
        ("Replayed", f"{story.trace}."),
        ("Measured", _MEASURED.format(late=late, worst=worst, lag=lag)),
        ("Simulated", _ENGINES.format(interval=story.stream_interval) + (_BASELINES if len(story.runs) > 1 else "")),
        ("Shortened", _SHORTENED.format(scale=story.time_scale)),
        ("Assumed", _ASSUMED),
    ]
    if story.run_in_s:
        told.append(("Not counted", _RUN_IN.format(seconds=story.run_in_s)))
    return told


def columns(story: Story) -> list[page.Column]:
    """One column per controller."""
    return [
        page.Column(
            name=_name(run),
            origin=run.measured,
            cells=(
                f"{run.requests:,}",
                units.format_usd(run.cost_usd),
                units.format_usd(run.usd_per_1k_requests),
                "" if run is story.ours else _percent(story.ours.saved_against(run)),
                _percent(run.slo_attainment, 1) + ("" if run.slo_attainment >= story.promised else ", missed"),
                _seconds(run.ttft_p95_s),
                _seconds(run.itl_p95_s),
                _seconds(run.e2e_p95_s),
                f"{run.gpu_hours:.2f}",
                _percent(run.gpu_utilisation),
                str(run.replica_changes),
                _percent(run.quality_retention, 1),
            ),
        )
        for run in story.runs
    ]


def build_page(story: Story) -> page.Page:
    """The HTML report's content."""
    return page.Page(
        title="Trimtab demo",
        headline=headline(story),
        duration_seconds=story.ours.duration_s,
        cards=_cards(story),
        honesty=honesty(story),
        numbers=NUMBERS,
        columns=columns(story),
        figures=_figures(story),
        scaling=[_told(one) for one in story.ours.decisions if not picture.moves_weights(one)],
        routing=[_told(one) for one in story.ours.decisions if picture.moves_weights(one)],
        facts=[*story.facts, *((f"{_name(run)} settings", run.settings) for run in story.runs if run.settings)],
    )


def _cards(story: Story) -> list[page.Card]:
    run = story.ours
    cards = [page.Card("Cost", units.format_usd(run.cost_usd), f"measured, {clock(run.duration_s)}")]
    for other in story.runs[1:]:
        saved = run.saved_against(other)
        cards.append(page.Card(f"Saved against {_name(other)}", _percent(saved), "simulated baseline", saved > 0))
    cards += [
        page.Card("SLO met", _percent(run.slo_attainment, 1), f"promised {_percent(story.promised)}", story.held),
        page.Card("Per 1,000 requests", units.format_usd(run.usd_per_1k_requests), f"{run.requests:,} requests"),
        page.Card("Quality kept", _percent(run.quality_retention, 1), "of always the best tier, estimated"),
    ]
    return cards


def _figures(story: Story) -> list[page.Figure]:
    run = story.ours
    replicas = [
        plots.Series(
            name, [(p.t_s, float(p.ready.get(name, 0) + p.pending.get(name, 0))) for p in run.series], at, step=True
        )
        for at, name in enumerate(story.tiers, 1)
    ]
    return [
        page.Figure(
            plots.Chart("Load", "requests/s", [plots.Series("offered", _smooth(run), 1)]),
            "What the trace asked for, a running mean.",
        ),
        page.Figure(
            plots.Chart("Replicas by tier", "replicas", replicas, stacked=True, whole=True),
            "Ready and starting ones; leaving ones are not drawn, but paid.",
        ),
        page.Figure(
            plots.Chart("What the fleet costs", "$/h", [_cost(one, at) for at, one in enumerate(story.runs, 1)]),
            "All replicas, starting and leaving ones included. Dashed: simulated baselines.",
        ),
        page.Figure(_shares(story), "Where each window's requests were answered."),
        page.Figure(_latency("End-to-end latency, p95", "e2e_p95_s", story.runs, story.limits.e2e_s), _WINDOWS),
        page.Figure(_latency("Time to first token, p95", "ttft_p95_s", story.runs, story.limits.ttft_s), _WINDOWS),
        page.Figure(_latency("Time between tokens, p95", "itl_p95_s", story.runs, story.limits.itl_s), _WINDOWS),
        page.Figure(_attainment(story), "Share of each window's requests that met every promised latency."),
    ]


_WINDOWS = "Over the requests that arrived in each window. Dashed: simulated baselines."


def _latency(title: str, field: str, runs: Sequence[report.Run], limit: float | None) -> plots.Chart:
    """One latency of all controllers over time, with the promise."""
    lines = []
    for at, run in enumerate(runs, 1):
        points = [(p.t_s, math.nan if (value := getattr(p, field)) is None else float(value)) for p in run.series]
        lines.append(plots.Series(_name(run), points, at, dashed=run.measured == "simulated"))
    return plots.Chart(title, "s", lines, limit=None if limit is None else (limit, f"SLO {_seconds(limit)}"))


def _attainment(story: Story) -> plots.Chart:
    """How well the SLO was kept over time, with the promise."""
    lines = [
        plots.Series(
            _name(run),
            [(p.t_s, math.nan if p.slo_attainment is None else 100 * p.slo_attainment) for p in run.series],
            at,
            dashed=run.measured == "simulated",
        )
        for at, run in enumerate(story.runs, 1)
    ]
    return plots.Chart(
        "SLO met", "% of requests", lines, limit=(100 * story.promised, _percent(story.promised)), top=100
    )


def _cost(run: report.Run, colour: int) -> plots.Series:
    points = [(point.t_s, point.usd_per_hour) for point in run.series]
    return plots.Series(_name(run), points, colour, step=True, dashed=run.measured == "simulated")


def _shares(story: Story) -> plots.Chart:
    """Share of the answers by tier over time, stacked to 100 %."""
    names = [*story.tiers, *sorted({who for _, who in story.answered} - set(story.tiers))]
    step = story.ours.duration_s / _SHARE_WINDOWS
    counts = [Counter[str]() for _ in range(_SHARE_WINDOWS)]
    for at, who in story.answered:
        counts[min(max(int(at / step), 0), _SHARE_WINDOWS - 1)][who] += 1
    lines = []
    for colour, name in enumerate(names, 1):
        points = [(at * step, 100 * window[name] / max(1, window.total())) for at, window in enumerate(counts)]
        share = story.ours.share_by_tier.get(name, 0.0)
        lines.append(plots.Series(f"{name} {_percent(share)}", points, colour, step=True))
    return plots.Chart("Share by tier", "% of requests", lines, stacked=True)


def _smooth(run: report.Run, width: int = 3) -> list[plots.Point]:
    """Arrivals per second as a running mean over ``width`` points, so that the course shows through the noise."""
    values = [point.arrivals_per_second for point in run.series]
    smoothed = []
    for at, point in enumerate(run.series):
        around = values[max(0, at - width // 2) : at + width // 2 + 1]
        smoothed.append((point.t_s, sum(around) / len(around)))
    return smoothed


def _told(decision: Decision) -> page.Told:
    before, after = decision.cost_before_usd_per_hour, decision.cost_after_usd_per_hour
    cost = f"{before:.2f}" if abs(before - after) < 0.005 else f"{before:.2f} → {after:.2f}"  # noqa: PLR2004 (a cent)
    return page.Told(clock(decision.time), decision.tier.rpartition("/")[2], decision.action, cost, decision.reasons)


def _name(run: report.Run) -> str:
    return NAMES.get(run.controller, run.controller)


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"  # the space must not break


def _seconds(value: float | None) -> str:
    return "–" if value is None else units.format_duration(float(f"{value:.3g}"))


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.0f} ms"
