"""``trimtab plan --prometheus``: one plan for the demand that a Prometheus shows, beside what runs."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import Result
from trimtab_cli import plan

from . import canned_prometheus, samples
from .samples import POLICY

CHAT = "default/chat"
DEMAND: Mapping[str, canned_prometheus.Groups] = {
    "trimtab_router_arrivals_total": {(CHAT, "default"): 20.0},
    "trimtab_router_requests_total": {(CHAT, "default", "small", "ok"): 20.0},
    "trimtab_router_input_tokens_total": {(CHAT, "default", "small"): 6000.0},  # 300 a request
    "trimtab_router_output_tokens_total": {(CHAT, "default", "small"): 1200.0},  # 60 a request
}
FLEET: Mapping[str, canned_prometheus.Groups] = {
    "trimtab_replicas_ready": {("default/small", "one"): 6.0, ("default/large", "one"): 1.0},
    "trimtab_weight": {(CHAT, "default", "default/small"): 1.0},
}


def run(*arguments: str | Path) -> Result:
    return samples.run(plan.command, *arguments)


def cells(result: Result, name: str) -> list[str]:
    line = next(line for line in result.output.splitlines() if line.startswith(name))
    return [cell.strip() for cell in line.removeprefix(name).replace("\u00a0", " ").split("  ") if cell.strip()]


def test_the_plan_for_what_arrives_now_stands_beside_what_runs(tmp_path: Path) -> None:
    with canned_prometheus.serve({**DEMAND, **FLEET}) as url:
        result = run("-f", samples.manifests(tmp_path), "--prometheus", url)

    assert result.exit_code == 0, result.output
    assert "20 requests/s over the last 5m" in result.output
    now, planned, _ = cells(result, "cost per hour")
    assert now == "$14.00"  # 6 × 1 + 1 × 8
    wanted = int(cells(result, "replicas of small/one")[1])
    assert cells(result, "replicas of large/one")[:2] == ["1", "1"]
    assert planned == f"${8 + wanted:.2f}"
    assert "demand of default: arrivals 20 req/s (" in result.output
    assert "tokens in 300 per request" in result.output
    assert "replicas as they are: $14.00/h" in result.output


def test_without_an_operator_the_plan_stands_alone_and_says_so(tmp_path: Path) -> None:
    with canned_prometheus.serve(DEMAND) as url:
        result = run("-f", samples.manifests(tmp_path), "--prometheus", url)

    assert result.exit_code == 0, result.output
    assert "note: no operator shows what runs now" in result.output
    assert len(cells(result, "cost per hour")) == 1


def test_two_sets_of_manifests_are_planned_for_the_same_demand(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path), samples.manifests(tmp_path, name="edited")
    file, out = after / "all.yaml", tmp_path / "out.json"
    file.write_text(file.read_text().replace('usdPerHour: "8.00"', 'usdPerHour: "4.00"'))

    with canned_prometheus.serve({**DEMAND, **FLEET}) as url:
        result = run("-f", after, "--against", before, "--prometheus", url, "--json", out)

    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert document["before"]["usd_per_hour"] - document["after"]["usd_per_hour"] == pytest.approx(4.0)
    assert document["after"]["slo_attainment"] is None  # nothing was simulated
    assert [one["after"] for one in document["changes"]] == ["4.00"]


def test_demand_above_all_that_may_run_breaks_a_promise(tmp_path: Path) -> None:
    demand = {**DEMAND, "trimtab_router_arrivals_total": {(CHAT, "default"): 4000.0}}
    with canned_prometheus.serve(demand) as url:
        result = run("-f", samples.manifests(tmp_path, most=2), "--prometheus", url)

    assert result.exit_code == 1
    assert "breaks  default/chat: demand exceeds what may run" in result.output


def test_a_budget_that_buys_too_little_is_kept_and_the_demand_is_not(tmp_path: Path) -> None:
    folder = samples.manifests(tmp_path, policy=POLICY + '  budget: {usdPerMonth: "6571"}\n')
    with canned_prometheus.serve(DEMAND) as url:
        result = run("-f", folder, "--prometheus", url)

    assert result.exit_code == 1
    assert "keeps   budget.usdPerMonth of default/chat: $6,570" in result.output  # the 9 USD/h that always run
    assert "breaks  default/chat: demand exceeds what may run" in result.output


def test_a_policy_that_nobody_measures_is_a_finding_not_an_idle_one(tmp_path: Path) -> None:
    with canned_prometheus.serve({}) as url:
        result = run("-f", samples.manifests(tmp_path), "--prometheus", url)

    assert result.exit_code == 1
    assert "shows no demand of default/chat" in result.output
    assert "see that it scrapes the routers" in result.output


def test_a_prometheus_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run("-f", samples.manifests(tmp_path), "--prometheus", url)

    assert result.exit_code == 2
    assert f"--prometheus: Prometheus {url} did not answer" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(503, "refused a query: HTTP Status Code 503"), (404, "refused a query: HTTP Status Code 404")],
)
def test_a_prometheus_that_refuses_is_told_in_one_line(tmp_path: Path, status: int, message: str) -> None:
    with canned_prometheus.serve({}, status=status) as url:
        result = run("-f", samples.manifests(tmp_path), "--prometheus", url)

    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("option", ["--minutes", "--scale", "--speed", "--policy", "--faults"])
def test_options_of_a_trace_are_refused_as_they_would_have_no_effect(tmp_path: Path, option: str) -> None:
    result = run("-f", samples.manifests(tmp_path), "--prometheus", "http://127.0.0.1:9", option, "2")

    assert result.exit_code == 2
    assert f"--prometheus and {option} exclude each other" in result.output


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    result = run("-f", samples.manifests(tmp_path), "--prometheus", "prometheus:9090")

    assert result.exit_code == 2
    assert "--prometheus prometheus:9090: no URL; write http://HOST:PORT" in result.output
