"""``trimtab demo``: a short one from end to end, and every way to call it wrongly."""

from __future__ import annotations

import json
import math
import pathlib
import signal
import socket

import psutil
import pytest
from click.testing import CliRunner
from trimtab_cli import demo, failure
from trimtab_cli.demonstration import show
from trimtab_sim import workload

from . import local_mode

pytestmark = pytest.mark.process

FIELDS = {
    "controller", "requests", "cost_usd", "usd_per_1k_requests", "slo_attainment", "ttft_p95_s", "itl_p95_s",
    "e2e_p95_s", "gpu_hours", "gpu_utilisation", "replica_changes", "share_by_tier",
}  # fmt: skip


def test_a_short_demo_from_end_to_end(tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{at / 8},{200 + 10 * (at % 7)},{20 + at % 30}" for at in range(160)]  # 8 a second for 20 s
    trace.write_text("t_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    folder, out = local_mode.manifests(tmp_path / "manifests"), tmp_path / "out.json"
    ended = local_mode.run(
        *("demo", "--trace", str(trace), "--minutes", "1", "--scale", "1"),
        *("-f", str(folder), "--port", str(local_mode.free_port())),
        *("--json", str(out), "--html", str(tmp_path / "out.html")),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "160 requests in 0:19 cost $" in ended.stdout
    found = json.loads(out.read_text())
    ours, *baselines = found["runs"]
    assert [ours["controller"], ours["measured"]] == ["trimtab", "measured"]
    assert len(baselines) == 2
    assert {run["measured"] for run in baselines} == {"simulated"}
    for run in found["runs"]:
        assert set(run) >= FIELDS
        assert run["requests"] == 160
        assert math.isclose(sum(run["share_by_tier"].values()), 1.0, abs_tol=1e-4)
        assert math.isclose(run["usd_per_1k_requests"], run["cost_usd"] / 0.160, rel_tol=1e-4)
    assert ours["failed"] == 0
    assert ours["e2e_p95_s"] > ours["ttft_p95_s"] > 0
    assert abs(ours["cost_usd"] - integral(ours["series"], ours["duration_s"])) < 0.1 * ours["cost_usd"]
    assert found["load_client"]["sent"] >= 160
    for decision in found["decisions"]:
        assert set(decision) >= {
            "time",
            "tier",
            "action",
            "reasons",
            "cost_before_usd_per_hour",
            "cost_after_usd_per_hour",
        }
        assert 0 <= decision["time"] <= ours["duration_s"]
    assert (tmp_path / "out.html").read_text().count("<svg") == 8


def integral(series: list[dict[str, float]], duration_s: float) -> float:
    """USD of a course that is sampled at its points."""
    ends = [point["t_s"] for point in series[1:]] + [duration_s]
    return sum(p["usd_per_hour"] * (end - p["t_s"]) / 3600 for p, end in zip(series, ends, strict=True))


def test_an_interrupted_demo_leaves_no_process(tmp_path: pathlib.Path) -> None:
    folder = local_mode.manifests(tmp_path / "manifests")
    with local_mode.running(
        tmp_path / "log", "demo", "-f", str(folder), "--port", str(local_mode.free_port()), "--scale", "0.1"
    ) as started:
        started.until_printed("run-in")
        children = started.children()
        assert len(children) >= 3
        assert started.stop(signal.SIGINT) == 130
        assert not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        assert "Traceback" not in started.printed


# Called wrongly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--trace", "nowhere.csv"], "nowhere.csv", id="no such trace"),
        pytest.param(["--trace", __file__], "expected a CSV", id="not a trace"),
        pytest.param(["--minutes", "0.01"], "--minutes 0.01 is too short", id="too short"),
        pytest.param(["--minutes", "nan"], "--minutes", id="not a number"),
        pytest.param(["--speed", "0"], "--speed", id="no speed"),
        pytest.param(["--scale", "-1"], "--scale -1: write a number above 0, or auto", id="negative scale"),
        pytest.param(["--scale", "much"], "--scale much: write a number", id="no number"),
        pytest.param(["--port", "0"], "--port", id="no port"),
        pytest.param(["-f", "nowhere"], "nowhere: no such file or folder", id="no manifests"),
        pytest.param(
            ["--json", "nowhere/out.json"], "the folder nowhere does not exist", id="no folder for the results"
        ),
        pytest.param(["--html", "/"], "can't be written", id="a folder as the report"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(demo.command, arguments)
    assert ended.exit_code == 2, ended.output
    assert said in ended.output
    assert len(ended.stderr.splitlines()) == 1 or "Usage:" in ended.stderr  # click's own complaints have three lines
    assert isinstance(ended.exception, SystemExit)  # no traceback


def test_debug_shows_where_it_went_wrong() -> None:
    ended = CliRunner().invoke(demo.command, ["--trace", "nowhere.csv", "--debug"])
    assert isinstance(ended.exception, workload.TraceError)


def test_a_busy_port_is_told_before_anything_starts(tmp_path: pathlib.Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        ended = local_mode.run("demo", "-f", str(local_mode.manifests(tmp_path)), "--port", str(other.getsockname()[1]))
    assert ended.returncode == 2
    assert "is in use" in ended.stderr


@pytest.mark.parametrize(
    ("rate", "inputs", "outputs", "scale"),
    [
        pytest.param(5.0, 1000, 200, 4.0, id="the demo's rate: 20 / 5"),
        pytest.param(5.0, 12000, 200, 0.5, id="long inputs: 30,000 / (5 × 12,000)"),
        pytest.param(5.0, 1000, 500, 2.0, id="long outputs: 5,000 / (5 × 500)"),
        pytest.param(80.0, 100, 10, 0.25, id="a busy trace is thinned"),
    ],
)
def test_a_trace_is_scaled_to_what_the_machine_can_replay(rate: float, inputs: int, outputs: int, scale: float) -> None:
    requests = tuple(workload.Request(at, at / rate, inputs, outputs) for at in range(1001))
    assert show.fitting_scale(workload.Trace(requests, "test"), mean_rps=20.0) == pytest.approx(scale, rel=0.01)


def test_the_quickstart_is_found() -> None:
    assert (show.quickstart() / "routing.yaml").is_file()


def test_a_missed_slo_is_a_finding() -> None:
    assert failure.Finding("x").exit_code == 1
