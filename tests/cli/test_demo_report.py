"""The demo's report: every number of the runs is in it, every plot, and nothing that must be fetched."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import math
import pathlib
import re

import pytest
from rich.console import Console
from trimtab_cli.demonstration import outcomes, results, show
from trimtab_cli.pages import page, plots, runs
from trimtab_core.planning.plan import Decision
from trimtab_sim import report
from trimtab_sim.workload import Trace


def point(t_s: float, **changes: object) -> report.Point:
    values: dict[str, object] = {
        "t_s": t_s,
        "arrivals_per_second": 4.0,
        "ready": {"small": 2, "large": 1},
        "pending": {"small": 1},
        "usd_per_hour": 12.5,
        "ttft_p95_s": 0.4,
        "itl_p95_s": 0.03,
        "e2e_p95_s": 9.0,
        "slo_attainment": 1.0,
    }
    return report.Point(**{**values, **changes})  # type: ignore[arg-type]


def run(controller: str, cost_usd: float, measured: str = "simulated", **changes: object) -> report.Run:
    values: dict[str, object] = {
        "controller": controller,
        "requests": 400,
        "cost_usd": cost_usd,
        "usd_per_1k_requests": cost_usd / 0.4,
        "slo_attainment": 0.97,
        "ttft_p95_s": 0.5,
        "itl_p95_s": 0.04,
        "e2e_p95_s": 14.0,
        "gpu_hours": 1.25,
        "gpu_utilisation": 0.5,
        "replica_changes": 7,
        "share_by_tier": {"cache": 0.05, "large": 0.15, "small": 0.8},
        "failed": 0,
        "duration_s": 120.0,
        "expected_quality": 0.8,
        "quality_retention": 0.975,
        "measured": measured,
        "series": (point(0.0), point(60.0, ttft_p95_s=None), point(90.0)),
    }
    return report.Run(**{**values, **changes})  # type: ignore[arg-type]


DECISION = Decision(
    65.0, "default/small", "small/l4 2 → 3 <now>", ("arrivals rose 4 → 9 req/s", "start-up takes 6 s"), 12.5, 12.9
)
MOVE = Decision(66.0, "default/small", "simple: large 30 % → 20 %, small 70 % → 80 %", ("cheaper",), 12.9, 12.9)
OURS = run("trimtab", 0.40, "measured", decisions=(DECISION, MOVE))
BASELINES = (run("static-peak", 1.0), run("hpa-queue", 0.8, settings="target 1"))


def story(ours: report.Run = OURS, others: tuple[report.Run, ...] = BASELINES) -> results.Story:
    return results.Story(
        runs=(ours, *others),
        promised=0.95,
        limits=report.Promise(2.0, 0.06, 45.0),
        health=outcomes.Health(400, 0.004, 0.015, 0.003, 0.02),
        errors=(),
        trace="azure.csv (scale 4.6)",
        time_scale=15.0,
        stream_interval=8,
        run_in_s=12.0,
        facts=[("Trace", "azure <conv>")],
        tiers=["small", "large"],
        answered=[(float(at), "cache" if at % 20 == 0 else "small") for at in range(120)],
    )


class Reader(html.parser.HTMLParser):
    """Checks that tags close in order and collects what could be fetched."""

    VOID = {"meta", "br", "path", "link", "img"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(told: results.Story) -> tuple[str, Reader]:
    text = page.render(results.build_page(told))
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return text, reader


# The page --------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone() -> None:
    text, reader = rendered(story())
    assert reader.addresses == []
    assert "script" not in reader.tags
    assert not re.search(r"https?://", text)


def test_every_plot_is_drawn() -> None:
    _, reader = rendered(story())
    assert reader.tags.count("svg") == 8


def test_every_run_is_labelled_by_how_its_numbers_were_made() -> None:
    text, _ = rendered(story())
    assert text.count('class="origin">measured<') == 1
    assert text.count('class="origin">simulated<') == 2


def test_what_is_measured_simulated_shortened_and_assumed_is_said() -> None:
    text, _ = rendered(story())
    for label in ("Replayed", "Measured", "Simulated", "Shortened", "Assumed", "Not counted"):
        assert f"<dt>{label}</dt>" in text
    assert "divided by 15" in text
    assert "azure.csv (scale 4.6)." in text


def test_texts_are_escaped() -> None:
    text, _ = rendered(story())
    assert "azure &lt;conv&gt;" in text
    assert "2 → 3 &lt;now&gt;" in text


def test_decisions_are_told_with_time_money_and_reasons() -> None:
    text, _ = rendered(story())
    assert "1:05" in text  # 65 s
    assert "12.50 → 12.90" in text
    assert "arrivals rose 4 → 9 req/s" in text


def test_moves_of_weights_are_told_apart_from_replicas() -> None:
    told = results.build_page(story())
    assert [one.action for one in told.scaling] == [DECISION.action]
    assert [(one.action, one.cost) for one in told.routing] == [(MOVE.action, "12.90")]
    assert "1 moves of weights between tiers" in page.render(told)


def test_a_run_without_decisions_or_baselines_is_a_page_too() -> None:
    text, _ = rendered(story(run("trimtab", 0.4, "measured"), ()))
    assert "No replica count had to change." in text
    assert "The baselines" not in text


# Sentences and files -----------------------------------------------------------------------------------------------


def test_the_headline_compares_with_every_baseline() -> None:
    told = results.headline(story()).replace("\u00a0", " ")
    assert "400 requests in 2:00 cost $0.4 with Trimtab; 97.0 % of them met the SLO (95 % promised)" in told
    assert "$1.00 with static peak on the best tier (60 % saved)" in told  # 1 - 0.4 / 1.0
    assert "$0.8 with HPA on queue length (50 % saved)" in told  # 1 - 0.4 / 0.8


def test_a_baseline_that_missed_the_slo_is_marked() -> None:
    columns = results.columns(story(OURS, (run("hpa-queue", 0.8, slo_attainment=0.93),)))
    at = runs.NUMBERS.index("SLO met")
    assert [column.cells[at].replace("\u00a0", " ") for column in columns] == ["97.0 %", "93.0 %, missed"]


@pytest.mark.parametrize(("attainment", "held"), [(0.95, True), (0.9499, False)])
def test_the_slo_held_if_the_promised_share_met_it(attainment: float, *, held: bool) -> None:
    assert story(dataclasses.replace(OURS, slo_attainment=attainment)).held is held


def test_the_table_has_a_line_for_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    show.print_story(story(), Console(width=200))
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    for name in runs.NUMBERS:
        assert name in printed
    assert "60 %" in printed


def test_the_json_file_has_every_field(tmp_path: pathlib.Path) -> None:
    wish = show.Wish(
        None, 2.0, 1.0, "auto", (), 0, tmp_path / "out.json", tmp_path / "out.html", 8080, True, False, 4.0, 15.0
    )
    show.write_files(wish, story(), Trace((), "a trace"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert [one["controller"] for one in found["runs"]] == ["trimtab", "static-peak", "hpa-queue"]
    for one in found["runs"]:
        assert set(one) >= {
            "controller", "requests", "cost_usd", "usd_per_1k_requests", "slo_attainment", "ttft_p95_s", "itl_p95_s",
            "e2e_p95_s", "gpu_hours", "gpu_utilisation", "replica_changes", "share_by_tier",
        }  # fmt: skip
    assert len(found["decisions"]) == 2
    for decision in found["decisions"]:
        assert set(decision) >= {
            "time", "tier", "action", "reasons", "cost_before_usd_per_hour", "cost_after_usd_per_hour",
        }  # fmt: skip
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


# Plots -----------------------------------------------------------------------------------------------------------


def paths(drawing: str, css: str) -> list[str]:
    return re.findall(rf'<path class="{css}"[^>]* d="([^"]*)"', drawing)


def test_a_missing_value_leaves_a_gap() -> None:
    line = plots.Series("x", [(0, 1.0), (1, 1.0), (2, math.nan), (3, 1.0), (4, 1.0)], 1)
    (path,) = paths(plots.draw(plots.Chart("t", "s", [line]), 4.0), "line")
    assert path.count("M") == 2


def test_a_step_holds_until_the_next_point_and_to_the_end() -> None:
    line = plots.Series("x", [(0, 0.0), (5, 4.0)], 1, step=True)
    (path,) = paths(plots.draw(plots.Chart("t", "s", [line]), 10.0), "line")
    corners = [tuple(map(float, corner.split())) for corner in path.removeprefix("M").split("L")]
    left, middle, right = corners[0][0], corners[1][0], corners[-1][0]
    assert [x for x, _ in corners] == [left, middle, middle, right]
    assert middle == pytest.approx((left + right) / 2, abs=0.1)  # 5 of 10 s
    assert [y for _, y in corners] == [corners[0][1]] * 2 + [corners[-1][1]] * 2


def test_stacked_areas_stand_on_each_other() -> None:
    areas = [plots.Series("a", [(0, 1.0)], 1, step=True), plots.Series("b", [(0, 3.0)], 2, step=True)]
    upper, lower = paths(plots.draw(plots.Chart("t", "n", areas, stacked=True), 1.0), "area")
    heights = [sorted({float(corner.split()[1]) for corner in path.strip("MZ").split("L")}) for path in (upper, lower)]
    assert heights[0][1] == heights[1][0]  # the floor of the upper is the top of the lower
    assert (heights[0][1] - heights[0][0]) == pytest.approx(3 * (heights[1][1] - heights[1][0]), rel=0.01)


@pytest.mark.parametrize(
    ("top", "whole", "numbers"),
    [
        pytest.param(3.9, False, ["0", "1", "2", "3", "4"], id="just below a tick"),
        pytest.param(0.07, False, ["0", "0.02", "0.04", "0.06", "0.08"], id="small"),
        pytest.param(2.0, True, ["0", "1", "2"], id="counts have no halves"),
        pytest.param(0.0, False, ["0", "0.25", "0.5", "0.75", "1"], id="nothing"),
    ],
)
def test_the_axis_has_round_numbers(top: float, numbers: list[str], *, whole: bool) -> None:
    drawing = plots.draw(plots.Chart("t", "u", [plots.Series("x", [(0, top)], 1)], whole=whole), 10.0)
    assert re.findall(r'text-anchor="end">([^<]*)<', drawing) == numbers


def test_the_promise_is_drawn_and_always_in_sight() -> None:
    chart = plots.Chart("t", "s", [plots.Series("x", [(0, 0.1)], 1)], limit=(2.0, "SLO 2s"))
    drawing = plots.draw(chart, 10.0)
    assert len(paths(drawing, "limit")) == 1
    assert "SLO 2s" in drawing
