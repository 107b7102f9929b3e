"""The part of docs/benchmarks.md that the scenarios fill: what each shows, its table, targets and picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """Every scenario replays a trace in simulated time: Trimtab's shipped planner, guards, weights and routing, on
the manifests named, beside baselines in their cheapest setting that keeps the SLO, found by simulating their settings
on the same trace. Replicas behave as their profiles say, so the tables compare decisions, not engines; how near the
simulated replica is to a measured one stands under *fidelity*. Prices are list prices. A saving counts as met only
where Trimtab itself keeps the SLO, and is taken against the cheapest of the baselines named that keeps it too.
Settings of baselines are the best in hindsight; Trimtab's are those of its manifests. Regret is the cost above that
of an [offline optimum](decisions/0010-the-oracle.md), which knows every arrival; wrong-way moves and reversals are
[defined](decisions/0011-faults-and-conduct.md) by the truth, not by what a controller saw. Times are simulated: no
number depends on the machine, except where the planner's solver is stopped by its time limit before its optimum is
proven.
"""
_COLUMNS = (
    "run", "cost", "$/1,000 requests", "SLO met", "TTFT p95", "ITL p95", "GPU h", "GPU use", "changes", "regret",
    "setting",
)  # fmt: skip


def section(name: str, found: Mapping[str, Any]) -> str:
    """The section for the whole result file."""
    scenarios: Sequence[Mapping[str, Any]] = found["scenarios"]
    told = f"All: `{found['command']}`. Data: {found['data']}."
    parts = [f"## {name}", "", HEAD, told, "", *summary(scenarios), ""]
    for scenario in scenarios:
        parts += _scenario(scenario)
    return "\n".join(parts)


def summary(scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
    """All targets of all scenarios in one table."""
    lines = ["| scenario | target | value | met |", "| --- | --- | --- | --- |"]
    for scenario in scenarios:
        if scenario.get("skipped"):
            lines.append(f"| [{scenario['name']}](#{scenario['name']}) | – | skipped: {scenario['skipped']} | – |")
        for row in scenario["rows"]:
            what = row["name"].partition(": ")[2]
            lines.append(
                f"| [{scenario['name']}](#{scenario['name']}) | {what} {_sign(row)} {_number(row['target'], row)} "
                f"| {_number(row['value'], row)} | {'met' if row['met'] else '**missed**'} |"
            )
    return lines


def _scenario(scenario: Mapping[str, Any]) -> list[str]:
    lines = [f"### {scenario['name']}", "", scenario["shows"], ""]
    if scenario.get("skipped"):
        return [*lines, f"Skipped: {scenario['skipped']}.", ""]
    told = (
        f"`{scenario['command']}`, seed {scenario['seed']}. {scenario['trace']}: {scenario['requests']:,} requests in "
        f"{_hours(scenario['duration_s'])}; manifests {', '.join(f'`{path}`' for path in scenario['manifests'])}; "
        f"{100 * scenario['wanted']:g} % of the requests must meet the SLO."
    )
    lines += [told, "", *_table(scenario["runs"]), ""]
    if any(row["beside"] for row in scenario["rows"]):
        lines += [f"- {_told(row)}" for row in scenario["rows"]] + [""]
    if scenario.get("picture"):
        lines += [f"![{scenario['name']}: load, replicas, cost and SLO over time]({scenario['picture']})", ""]
    if scenario.get("not_shown"):
        lines += [f"Not shown: {scenario['not_shown']}", ""]
    return lines


def _table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    for run in runs:
        cells = (
            run["name"], f"${run['cost_usd']:,.2f}", f"${run['usd_per_1k_requests']:.3f}",
            f"{100 * run['slo_attainment']:.2f} %", _seconds(run["ttft_p95_s"]), _seconds(run["itl_p95_s"]),
            f"{run['gpu_hours']:,.1f}", f"{100 * run['gpu_utilisation']:.0f} %", str(run["replica_changes"]),
            "–" if run["regret"] is None else f"{100 * run['regret']:.1f} %", run["settings"] or "–",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _told(row: Mapping[str, Any]) -> str:
    verdict = "met" if row["met"] else "**missed**"
    beside = ", ".join(f"{name} {_beside(value)}" for name, value in row["beside"].items())
    what = row["name"].partition(": ")[2]
    return f"{what}: {_number(row['value'], row)} ({_sign(row)} {_number(row['target'], row)}: {verdict})" + (
        f"; beside: {beside}" if beside else ""
    )


def _sign(row: Mapping[str, Any]) -> str:
    return {">=": "≥", "<=": "≤"}[row["comparison"]]


def _number(value: float | None, row: Mapping[str, Any]) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.4g} %" if row["unit"].startswith("of ") else f"{value:,.4g} {row['unit']}"


def _beside(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else str(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 3 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
