"""What the guides and the example workflow tell people to type: commands, options and files that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from trimtab_cli import main
from trimtab_sim import faults

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "docs" / "guides" / f"{name}.md" for name in ("simulate", "plan", "explain")]
WORKFLOW = ROOT / "examples" / "github-actions" / "trimtab-plan.yaml"


def typed() -> Iterator[tuple[str, str]]:
    """Every command line: in blocks of the guides, in tables, and in the workflow."""
    for guide in GUIDES:
        text = guide.read_text().replace("\\\n", " ")
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            yield from ((guide.name, line) for line in block.splitlines() if line.startswith("trimtab "))
        yield from ((guide.name, line) for line in re.findall(r"^\| `(trimtab [^`]*)`", text, re.MULTILINE))
    for step in yaml.safe_load(WORKFLOW.read_text())["jobs"]["plan"]["steps"]:
        if step.get("run", "").startswith("trimtab "):
            yield WORKFLOW.name, step["run"].partition(">")[0]


COMMANDS = list(typed())


def test_there_are_commands_in_every_guide_and_in_the_workflow() -> None:
    assert {source for source, _ in COMMANDS} == {*(guide.name for guide in GUIDES), WORKFLOW.name}


@pytest.mark.parametrize(("source", "line"), COMMANDS, ids=[f"{source}: {line[:60]}" for source, line in COMMANDS])
def test_a_command_in_a_guide_is_understood(source: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    command.make_context(name, arguments)  # raises on an option that does not exist


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_long_option_in_a_guide_belongs_to_its_command(guide: Path) -> None:
    command = main.cli.get_command(click.Context(main.cli), guide.stem)
    assert command is not None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    others = {"--json", "--html"}  # of the commands whose files explain reads
    assert set(re.findall(r"`(--[a-z]+)", guide.read_text())) <= known | others


def test_the_faults_in_the_guide_are_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "guides" / "simulate.md").read_text(), re.DOTALL)

    assert faults.parse(block) != faults.NONE
