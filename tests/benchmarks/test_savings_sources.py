"""Traces of scenarios: courses, published curves and lengths become requests at the rates that were asked for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from savings import schema, sources
from trimtab_sim import synthetic
from trimtab_sim.workload import TraceError

CURVE = "who,minute,per_minute\nus,10,60\nthem,10,999\nus,20,120\nus,30,0\nus,40,60\n"


def scenario(trace: dict[str, object]) -> schema.Scenario:
    fields = {"name": "x", "shows": "What the test is there to show.", "manifests": "m", "trace": trace}
    return schema.Scenario.model_validate({**fields, "targets": [{"measure": "attainment", "at_least": 0.9}]})


def curve(folder: Path, text: str = CURVE, **changes: object) -> schema.Scenario:
    (folder / "curve.csv").write_text(text)
    asked = {"curve": "curve.csv", "select": {"who": "us"}, "time": "minute", "seconds": 60.0, "rate": "per_minute",
             "per_seconds": 60.0, "lengths": {"quantiles": FLAT}}  # fmt: skip
    return scenario(asked | changes)


FLAT = {"input": [(0.0, 100), (1.0, 100)], "output": [(0.0, 10), (1.0, 10)]}


def counted(times: list[float], begins: float, ends: float) -> int:
    return sum(begins <= time < ends for time in times)


def test_a_published_curve_is_sampled_row_by_row(tmp_path: Path) -> None:
    trace = sources.load(curve(tmp_path, scale=10.0), tmp_path)
    times = [request.arrival_s for request in trace]
    assert counted(times, 0, 600) == pytest.approx(6000, rel=0.05)  # 60 a minute × 10 × 10 minutes
    assert counted(times, 600, 1200) == pytest.approx(12000, rel=0.05)
    assert counted(times, 1200, 1800) == 0
    assert counted(times, 1800, 9999) == pytest.approx(6000, rel=0.05)  # the last row lasts as long as the one before
    assert {(request.input_tokens, request.output_tokens) for request in trace} == {(100, 10)}


def test_a_curve_can_be_cut(tmp_path: Path) -> None:
    assert sources.load(curve(tmp_path, minutes=15.0), tmp_path).duration_s < 900


def test_a_curve_of_other_columns_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"curve\.csv:2: 'when'; expected the columns when and per_minute"):
        sources.load(curve(tmp_path, time="when"), tmp_path)


def test_a_curve_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"0 rows of \{'who': 'nobody'\}; expected a course of rates"):
        sources.load(curve(tmp_path, select={"who": "nobody"}), tmp_path)


def test_a_ramp_rises_in_a_straight_line(tmp_path: Path) -> None:
    ramp = scenario({"course": [{"minutes": 10.0, "rps": (0.0, 20.0)}, {"minutes": 10.0, "rps": 20.0}]})
    times = [request.arrival_s for request in sources.load(ramp, tmp_path)]
    assert counted(times, 0, 300) == pytest.approx(1500, rel=0.1)  # a quarter of 20 × 600 / 2
    assert counted(times, 300, 600) == pytest.approx(4500, rel=0.1)
    assert counted(times, 600, 1200) == pytest.approx(12000, rel=0.05)


def test_equal_seeds_give_equal_traces(tmp_path: Path) -> None:
    course = scenario({"course": [{"minutes": 2.0, "rps": 5.0}]})
    first, again = (sources.load(course, tmp_path).requests for _ in range(2))
    assert first == again
    other = sources.load(course.model_copy(update={"seed": 1}), tmp_path).requests
    assert first != other


def test_a_recorded_trace_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n0,5,6\n1,7,8\n90,1,1\n")
    trace = sources.load(scenario({"file": "t.csv", "minutes": 1.0, "prompts": {"repeated": 0.0}}), tmp_path)
    assert [(one.arrival_s, one.input_tokens, one.output_tokens) for one in trace] == [(0, 5, 6), (1, 7, 8)]


def test_lengths_of_a_recorded_trace_stay_together(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n0,5,6\n1,7,8\n")
    asked = scenario({"course": [{"minutes": 5.0, "rps": 4.0}], "lengths": {"file": "t.csv"}})
    assert {(one.input_tokens, one.output_tokens) for one in sources.load(asked, tmp_path)} == {(5, 6), (7, 8)}


def test_kinds_of_requests_come_by_their_shares() -> None:
    short, long = synthetic.Rows(((10, 1),)), synthetic.Rows(((9000, 100),))
    mixed, rng = sources.Mixed((0.8, 1.0), (short, long)), random.Random(1)
    drawn = [mixed(rng, 0.0) for _ in range(5000)]
    assert drawn.count((10, 1)) / 5000 == pytest.approx(0.8, abs=0.02)


def test_missing_data_is_known_beforehand(tmp_path: Path) -> None:
    asked = scenario({"file": "gone.csv"})
    assert sources.missing(asked, tmp_path) == ("gone.csv",)
    (tmp_path / "gone.csv").write_text("")
    assert sources.missing(asked, tmp_path) == ()
