"""What the scenarios leave behind: a file that grows by scenario, a page that tells all of it, and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import bench_savings
import pytest
from savings import page, picture, running, schema, sources

MANIFESTS = """
apiVersion: inference.trimtab.dev/v1alpha1
kind: InferenceTier
metadata: {name: only}
spec:
  model: {name: model-only, quality: "0.8"}
  slo: {ttft: {p95: 2s}, itl: {p95: 80ms}, attainment: "0.90"}
  variants:
  - name: l4
    accelerator: {type: L4}
    price: {usdPerHour: "1"}
    replicas: {min: 1, max: 9}
    profile: {itlBase: 20ms, itlPerSequence: 1ms, prefillTokensPerSecond: 10000, kvTokens: 200000, maxSequences: 64, startup: 20s}
---
apiVersion: inference.trimtab.dev/v1alpha1
kind: RoutingPolicy
metadata: {name: chat}
spec: {tiers: [{ref: only}]}
"""
SCENARIO = """
name: {name}
shows: A flat load that needs one replica, to test with.
manifests: m.yml
beside: {{twin: m.yml}}
trace: {trace}
prologue_minutes: 1
points: 20
seed: 1
targets:
- {{measure: attainment, at_least: 0.9}}
- {{measure: saved, against: [twin], at_least: 0.3}}
"""
COURSE = "{course: [{minutes: 2, rps: 2}], prompts: {sensitive: 0.0}}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "m.yml").write_text(MANIFESTS)
    (tmp_path / "flat.yaml").write_text(SCENARIO.format(name="flat", trace=COURSE))
    (tmp_path / "gone.yaml").write_text(SCENARIO.format(name="gone", trace="{file: gone.csv}"))
    monkeypatch.setenv("TRIMTAB_DATA", str(tmp_path))
    return tmp_path


def bench(folder: Path, *arguments: str, into: str = "out.json") -> int:
    return bench_savings.main(["--scenarios", str(folder), "--json", str(folder / into), *arguments])


def test_a_run_prints_writes_and_draws_and_tells_what_was_missed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder) == 1  # a twin saves nothing
    printed = capsys.readouterr().out
    assert "met    SLO met: 1, wanted >= 0.9" in printed
    assert "MISSED saved against twin: 0, wanted >= 0.3" in printed
    assert "skipped: gone.csv is not in" in printed
    found = json.loads((folder / "out.json").read_text())
    assert [one["name"] for one in found["scenarios"]] == ["flat", "gone"]
    assert [row["met"] for row in found["rows"]] == [True, False]
    assert [one["name"] for one in found["scenarios"][0]["runs"]] == ["trimtab", "twin"]
    ET.parse(folder / "flat.svg")


def test_equal_seeds_give_equal_results(folder: Path) -> None:
    for name in ("one.json", "two.json"):
        bench(folder, "--only", "flat", into=name)
    assert (folder / "one.json").read_text() == (folder / "two.json").read_text()


def test_ours_alone_takes_baselines_from_the_file_while_the_scenario_is_the_same(folder: Path) -> None:
    file, scenario = folder / "flat.yaml", folder / "out.json"
    file.write_text(file.read_text() + "baselines: [static-peak]\n")
    bench(folder, "--only", "flat")
    found = json.loads(scenario.read_text())
    static = next(one for one in found["scenarios"][0]["runs"] if one["name"] == "static-peak")
    static["cost_usd"] = 99.0  # tells it from one that was run
    scenario.write_text(json.dumps(found))
    bench(folder, "--only", "flat", "--ours")
    assert costs(scenario)["static-peak"] == 99.0
    file.write_text(file.read_text().replace("rps: 2", "rps: 3"))
    bench(folder, "--only", "flat", "--ours")
    assert costs(scenario)["static-peak"] != 99.0


def costs(file: Path) -> dict[str, float]:
    return {one["name"]: one["cost_usd"] for one in json.loads(file.read_text())["scenarios"][0]["runs"]}


def test_a_scenario_run_again_replaces_itself_alone(folder: Path) -> None:
    file = folder / "out.json"
    bench_savings.write(file, [result("flat", 1.0), result("gone", 2.0)])
    bench_savings.write(file, [result("flat", 3.0)])
    found = json.loads(file.read_text())["scenarios"]
    assert [(one["name"], one["rows"][0]["value"]) for one in found] == [("flat", 3.0), ("gone", 2.0)]


def test_an_unknown_scenario_is_told_with_those_that_there_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, "--only", "none") == 2
    assert capsys.readouterr().err == "bench_savings: --only none: no such scenario; there are flat, gone\n"


def result(name: str, value: float = 0.4, **changes: Any) -> dict[str, Any]:
    rows = [
        {"name": f"{name}: saved against hpa", "value": value, "unit": "of the cost", "target": 0.3,
         "comparison": ">=", "met": value >= 0.3, "beside": {"hpa $": 12.5}},
    ]  # fmt: skip
    runs = [
        {"name": "trimtab", "cost_usd": 7.5, "usd_per_1k_requests": 0.25, "slo_attainment": 0.995, "ttft_p95_s": 0.4,
         "itl_p95_s": 0.05, "gpu_hours": 3.0, "gpu_utilisation": 0.6, "replica_changes": 4, "settings": "",
         "regret": 0.125},
    ]  # fmt: skip
    plain = {"name": name, "shows": "Something.", "seed": 1, "rows": rows, "runs": runs, "command": "run it",
             "manifests": ["m"], "trace": "made up", "requests": 12345, "duration_s": 7200.0, "wanted": 0.99,
             "picture": f"images/{name}.svg", "not_shown": "The sea."}  # fmt: skip
    return plain | changes


def test_the_page_tells_every_target_table_and_picture() -> None:
    skipped = result("gone", rows=[], runs=[], skipped="no data")
    text = page.section("savings", {"command": "all", "data": "d", "scenarios": [result("flat"), skipped]})
    assert "| [flat](#flat) | saved against hpa ≥ 30 % | 40 % | met |" in text
    assert "| [gone](#gone) | – | skipped: no data | – |" in text
    assert "| trimtab | $7.50 | $0.250 | 99.50 % | 400 ms | 50 ms | 3.0 | 60 % | 4 | 12.5 % | – |" in text
    assert "| GPU use | changes | regret | setting |" in text
    assert "beside: hpa $ 12.5" in text
    assert "![flat: load, replicas, cost and SLO over time](images/flat.svg)" in text
    assert "12,345 requests in 120 min" in text
    assert "Not shown: The sea." in text


def test_a_fleet_beside_is_spared_what_hits_variants_that_it_lacks(folder: Path) -> None:
    (folder / "other.yml").write_text(MANIFESTS.replace("name: l4", "name: other"))
    text = (folder / "flat.yaml").read_text().replace("twin: m.yml", "twin: other.yml")
    (folder / "flat.yaml").write_text(text + "faults: {priceChanges: [{at: 0s, variant: only/l4, factor: 3}]}\n")
    outcome = running.run(schema.load(folder / "flat.yaml"), folder, sources.data_folder())
    assert outcome.ours.cost_usd == pytest.approx(3 * outcome.runs["twin"].cost_usd)


def test_a_picture_shows_ours_those_beside_and_the_cheapest_that_keep_the_slo(folder: Path) -> None:
    scenario = schema.load(folder / "flat.yaml")
    outcome = running.run(scenario, folder, sources.data_folder())
    extra = {f"base-{at}": outcome.ours for at in range(5)}
    outcome.runs.update(extra)
    assert list(picture.chosen(outcome)) == ["trimtab", "twin", "base-0", "base-1"]
    drawn = picture.draw(outcome)
    assert "var(" not in drawn
    assert drawn.count("<svg") == 5  # four charts in one
