"""``trimtab simulate`` from the outside: table, JSON, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from trimtab_cli import simulate
from trimtab_cli.simulation import table
from trimtab_sim import report, search

from . import samples
from .samples import POLICY, manifests, trace


def run(*arguments: str | Path) -> Result:
    return samples.run(simulate.command, *arguments)


def test_a_table_beside_baselines_and_a_json_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    result = run("-f", manifests(tmp_path), "--trace", trace(tmp_path, seconds=60), "--json", out)

    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "trace.csv: 60 requests in 59s"
    assert [line.split()[0] for line in lines[3:6]] == ["trimtab", "static-peak", "hpa-queue"]
    assert "static-peak: 1 × large/one; smallest of 1 fleets tried" in result.output
    document = json.loads(out.read_text())
    assert [found["controller"] for found in document["runs"]] == ["trimtab", *search.NAMES]
    assert document["runs"][0]["requests"] == 60
    assert document["slo_attainment_wanted"] == 0.9
    assert document["trace"] == "trace.csv"
    assert "assumed shares" in document["prompts"]


def test_without_a_trace_a_synthetic_one_is_used_and_says_so(tmp_path: Path) -> None:
    result = run("-f", manifests(tmp_path), "--minutes", "2", "--baselines", "none", "--seed", "3")

    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        "synthetic, after the statistics of the Azure 2023 conversation trace (2 min, seed 3)"
    )
    assert "static-peak" not in result.output


def test_equal_commands_write_equal_files(tmp_path: Path) -> None:
    folder, file = manifests(tmp_path), trace(tmp_path)
    first, second = tmp_path / "1.json", tmp_path / "2.json"

    for out in (first, second):
        run("-f", folder, "--trace", file, "--scale", "2", "--speed", "1.5", "--baselines", "none", "--json", out)

    assert first.read_text() == second.read_text()


def test_a_missed_slo_is_a_finding_and_the_table_is_shown_all_the_same(tmp_path: Path) -> None:
    load = ("--trace", trace(tmp_path), "--scale", "40")

    result = run("-f", manifests(tmp_path, most=1), *load, "--baselines", "none")

    assert result.exit_code == 1
    assert "% missed" in result.output
    assert "% of the requests met it, 90.00% are promised" in result.output.splitlines()[-1]
    assert result.output.splitlines()[-1].startswith("trimtab: the SLO was missed: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baselines", "hpa-cpu"], "--baselines hpa-cpu: hpa-cpu is none of static-peak, hpa-queue, "),
        (["--baselines", ","], "--baselines ,: nothing is none of"),
        (["--speed", "0"], "speed must be a finite number above 0, not 0"),
        (["--minutes", "-1"], "minutes must be a finite number above 0, not -1"),
        (["--scale", "nan"], "scale must be a finite number above 0, not nan"),
        (["--policy", "default/other"], "policy 'default/other' is not in the manifests; there are default/chat"),
        (["--trace", "absent.csv"], "absent.csv: can't be read: No such file or directory"),
        (["--minutes", "1", "--json", "/nowhere/out.json"], "--json /nowhere/out.json: can't be written: the folder"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("-f", manifests(tmp_path), "--trace", trace(tmp_path), "--baselines", "none", *arguments)

    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_manifests_that_are_no_good_are_refused_with_the_first_finding(tmp_path: Path) -> None:
    broken = POLICY.replace("{ref: large}", "{ref: huge}, {ref: vast}")

    result = run("-f", manifests(tmp_path, policy=broken), "--trace", trace(tmp_path))

    assert result.exit_code == 2
    assert "huge" in result.output
    assert "see `trimtab validate`" in result.output
    assert result.output.count("\n") == 1


def test_manifests_without_a_policy_are_refused(tmp_path: Path) -> None:
    result = run("-f", manifests(tmp_path, policy=""), "--trace", trace(tmp_path))

    assert result.exit_code == 2
    assert "no RoutingPolicy in the manifests" in result.output


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = run("-f", tmp_path / "absent", "--debug")

    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_the_json_file_tells_regret_and_conduct_of_every_run(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    run("-f", manifests(tmp_path), "--trace", trace(tmp_path), "--baselines", "static-peak", "--json", out)

    for found in json.loads(out.read_text())["runs"]:
        assert set(found) >= {"regret", "reversals_per_hour", "wrong_way_moves"}
        assert found["wrong_way_moves"] == 0
        assert isinstance(found["regret"], float)


def test_the_tables_have_a_line_for_each_controller_and_its_conduct(tmp_path: Path) -> None:
    result = run("-f", manifests(tmp_path), "--trace", trace(tmp_path), "--baselines", "static-peak")

    lines = result.output.splitlines()
    kept, conduct = (next(at for at, line in enumerate(lines) if title in line) for title in ("regret", "wrong-way"))
    assert "reversals/h" in lines[conduct]
    for head in (kept, conduct):
        assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["trimtab", "static-peak"]


def test_the_page_shows_every_controller_over_time_and_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "out.html"

    run("-f", manifests(tmp_path), "--trace", trace(tmp_path), "--baselines", "static-peak", "--html", file)

    text = file.read_text()
    for title in ("Load", "Replicas by tier", "What the fleet costs", "End-to-end latency, p95", "SLO met"):
        assert f'aria-label="{title}"' in text
    assert "static-peak settings" in text
    assert "http" not in text.replace("http-equiv", "")


def test_faults_are_part_of_the_run(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("flashCrowd:\n- {from: 30s, until: 60s, factor: 3}\n")
    out = tmp_path / "out.json"
    given = ("-f", manifests(tmp_path), "--trace", trace(tmp_path), "--baselines", "none", "--json", out)

    run(*given, "--faults", faults)

    # 120 requests, one a second; about 60 more in the 30 s of the crowd
    assert json.loads(out.read_text())["runs"][0]["requests"] > 150


@pytest.mark.parametrize("width", [80, 112, 200])
def test_no_number_is_cut_off_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str], width: int) -> None:
    ours = report.Run(
        "trimtab", 1000, 1234.56, 1234.56, 0.94321, 0.505, 0.0607, 20.1, 18.12, 0.63, 19,
        {"cache": 0.01, "large": 0.46, "medium": 0.5, "small": 0.03}, 0, 1200.0, 0.87, 0.985,
        reversals_per_hour=60.1, wrong_way_moves=12, regret=0.123,
    )  # fmt: skip

    table.show(Console(width=width), (ours, dataclasses.replace(ours, controller="hpa-running")), 0.95)

    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= width
    for number in ("$1,234.56", "12.3%", "94.32% missed", "505ms", "60.7ms", "20.1s", "18.12", "63%", "60.1", "98.5%"):
        assert printed.count(number) >= 2
