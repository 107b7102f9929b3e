"""What a demo says at its end: the table, the JSON file and the HTML report, all from the same runs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_core import units
from trimtab_sim import baselines, report

from trimtab_cli.demonstration import outcomes
from trimtab_cli.pages import figures, page, plots, runs, wording

NAMES = {
    "trimtab": "Trimtab",
    baselines.StaticPeak.name: "static peak on the best tier",
    baselines.HpaOnQueue.name: "HPA on queue length",
}
_SHARE_WINDOWS = 30


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
        f"{run.requests:,} requests in {wording.clock(run.duration_s)} "
        f"cost {units.format_usd(run.cost_usd)} with Trimtab; "
        f"{wording.attainment(run.slo_attainment, story.promised)} of them met the SLO "
        f"({wording.percent(story.promised)} promised)."
    )
    others = [
        f"{units.format_usd(other.cost_usd)} with {_name(other)} ({wording.percent(run.saved_against(other))} saved)"
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
        page.Column(_name(run), run.measured, runs.cells(run, story.ours, story.promised), main=run is story.ours)
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
        heading="Trimtab and the baselines",
        numbers=runs.NUMBERS,
        columns=columns(story),
        figures=_figures(story),
        scaling=[runs.told(one) for one in story.ours.decisions if not runs.moves_weights(one)],
        routing=[runs.told(one) for one in story.ours.decisions if runs.moves_weights(one)],
        facts=[*story.facts, *((f"{_name(run)} settings", run.settings) for run in story.runs if run.settings)],
    )


def _cards(story: Story) -> list[page.Card]:
    run = story.ours
    cards = [page.Card("Cost", units.format_usd(run.cost_usd), f"measured, {wording.clock(run.duration_s)}")]
    for other in story.runs[1:]:
        saved = run.saved_against(other)
        cards.append(
            page.Card(f"Saved against {_name(other)}", wording.percent(saved), "simulated baseline", saved > 0)
        )
    cards += [
        page.Card(
            "SLO met",
            wording.attainment(run.slo_attainment, story.promised),
            f"promised {wording.percent(story.promised)}",
            story.held,
        ),
        page.Card("Per 1,000 requests", units.format_usd(run.usd_per_1k_requests), f"{run.requests:,} requests"),
        page.Card("Quality kept", wording.percent(run.quality_retention, 1), "of always the best tier, estimated"),
    ]
    return cards


def _figures(story: Story) -> list[page.Figure]:
    course = figures.Course(
        runs=story.runs,
        names=[_name(run) for run in story.runs],
        tiers=story.tiers,
        promised=story.promised,
        limits=story.limits,
        others="simulated baselines",
    )
    return [
        figures.load(course),
        figures.replicas(course),
        figures.cost(course),
        page.Figure(_shares(story), "Where each window's requests were answered."),
        *figures.latencies(course),
        figures.attainment(course),
    ]


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
        lines.append(plots.Series(f"{name} {wording.percent(share)}", points, colour, step=True))
    return plots.Chart("Share by tier", "% of requests", lines, stacked=True)


def _name(run: report.Run) -> str:
    return NAMES.get(run.controller, run.controller)


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.0f} ms"
