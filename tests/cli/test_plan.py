"""``trimtab plan`` from the outside: both sides in numbers, what changed, and exit codes that a pull request can use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from trimtab_cli import plan

from . import samples
from .samples import POLICY

BUDGET = '  budget: {{usdPerHour: "{usd}"}}\n'


def run(*arguments: str | Path) -> Result:
    return samples.run(plan.command, *arguments)


def cheaper(folder: Path) -> Path:
    """The same manifests with the large tier at half its price."""
    path = samples.manifests(folder, name="edited")
    file = path / "all.yaml"
    file.write_text(file.read_text().replace('usdPerHour: "8.00"', 'usdPerHour: "4.00"'))
    return path


def cells(result: Result, name: str) -> list[str]:
    """The cells of one line of the table, without its name."""
    line = next(line for line in result.output.splitlines() if line.startswith(name))
    return [
        cell.strip()
        for cell in line.removeprefix(name).replace("\u00a0", " ").replace("\u2212", "-").split("  ")
        if cell.strip()
    ]


def test_a_cheaper_edit_is_told_in_money_and_by_field(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path), cheaper(tmp_path)

    result = run("-f", after, "--against", before, "--trace", samples.trace(tmp_path))

    assert result.exit_code == 0, result.output
    assert cells(result, "InferenceTier default/large") == ["spec.variants[one].price.usdPerHour", "8.00", "4.00"]
    # one replica of each tier all the time: 1 + 8 before, 1 + 4 after
    assert cells(result, "cost per hour") == ["$9.00", "$5.00", "-$4.00 (-44.4 %)"]
    assert cells(result, "cost per month") == ["$6,570", "$3,650", "-$2,920 (-44.4 %)"]
    assert cells(result, "replicas of large/one") == ["1", "1", "same"]
    assert "keeps   SLO of default/chat" in result.output


def test_without_another_side_the_plan_is_told_alone(tmp_path: Path) -> None:
    result = run("-f", samples.manifests(tmp_path), "--trace", samples.trace(tmp_path))

    assert result.exit_code == 0, result.output
    assert cells(result, "cost per hour") == ["$9.00"]
    assert "difference" not in result.output


def test_an_edit_that_misses_the_slo_breaks_a_promise(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path), samples.manifests(tmp_path, most=1, name="edited")

    result = run("-f", after, "--against", before, "--trace", samples.trace(tmp_path), "--scale", "40")

    assert result.exit_code == 1
    assert "breaks  SLO of default/chat" in result.output
    assert "90 % are promised" in result.output.splitlines()[-1].replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("budget", "code", "told"),
    [
        # 9 USD/h are spent on the two replicas that always run; the large tier alone is asked to fit in less.
        pytest.param('usdPerHour: "9.50"', 0, "keeps   budget.usdPerHour of default/chat: $9.00", id="just enough"),
        pytest.param('usdPerHour: "8.00"', 1, "breaks  budget.usdPerHour of default/chat: $9.00", id="per hour"),
        # 9 × 730 = 6,570
        pytest.param('usdPerMonth: "6000"', 1, "breaks  budget.usdPerMonth of default/chat: $6,570", id="per month"),
    ],
)
def test_a_budget_is_held_against_what_its_tiers_cost(tmp_path: Path, budget: str, code: int, told: str) -> None:
    folder = samples.manifests(tmp_path, policy=POLICY + f"  budget: {{{budget}}}\n")

    result = run("-f", folder, "--trace", samples.trace(tmp_path))

    assert result.exit_code == code, result.output
    assert told in result.output


def test_markdown_has_the_verdict_first(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path), cheaper(tmp_path)

    result = run("-f", after, "--against", before, "--trace", samples.trace(tmp_path), "--format", "markdown")

    lines = result.output.splitlines()
    assert lines[0] == "### ✅ trimtab plan: keeps every promise"
    assert "| `InferenceTier default/large` | `spec.variants[one].price.usdPerHour` | 8.00 | 4.00 |" in lines
    assert "| cost per hour | $9.00 | $5.00 | -$4.00 (-44.4 %) |" in [
        line.replace("\u00a0", " ").replace("\u2212", "-") for line in lines
    ]


def test_both_sides_are_in_the_json_file_and_on_the_page(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path), cheaper(tmp_path)
    out, web = tmp_path / "out.json", tmp_path / "out.html"

    run("-f", after, "--against", before, "--trace", samples.trace(tmp_path), "--json", out, "--html", web)

    document = json.loads(out.read_text())
    assert (document["before"]["usd_per_hour"], document["after"]["usd_per_hour"]) == (9.0, 5.0)
    assert document["changes"] == [
        {
            "about": "InferenceTier default/large",
            "field": "spec.variants[one].price.usdPerHour",
            "before": "8.00",
            "after": "4.00",
        }
    ]
    assert document["after"]["runs"][0]["controller"] == "trimtab"
    text = web.read_text()
    assert "What changes" in text
    assert 'aria-label="What the fleet costs"' in text


def test_equal_sides_differ_in_nothing(tmp_path: Path) -> None:
    folder = samples.manifests(tmp_path)

    result = run("-f", folder, "--against", folder, "--trace", samples.trace(tmp_path))

    assert "no field of the manifests differs" in result.output
    assert cells(result, "cost per hour") == ["$9.00", "$9.00", "same"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "absent"], "--against: absent: no such file or folder"),
        (["--prometheus", "http://127.0.0.1:9"], "--prometheus and --trace exclude each other"),
        (["--policy", "default/other"], "policy 'default/other' is not in the manifests"),
        (["--html", "/nowhere/out.html"], "--html /nowhere/out.html: can't be written"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("-f", samples.manifests(tmp_path), "--trace", samples.trace(tmp_path), *arguments)

    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_a_policy_that_is_new_is_planned_alone_and_the_change_is_told(tmp_path: Path) -> None:
    before, after = samples.manifests(tmp_path, policy=""), samples.manifests(tmp_path, name="edited")

    result = run("-f", after, "--against", before, "--trace", samples.trace(tmp_path))

    assert result.exit_code == 0, result.output
    assert "note: the policy default/chat is not among the manifests before the edit" in result.output
    assert cells(result, "RoutingPolicy default/chat") == ["absent", "there"]
    assert cells(result, "cost per hour") == ["$9.00"]
