"""The cases of ``crd_cases`` as `trimtab validate` judges them; ``tests/cluster/test_crds.py`` asks the API server."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml
from trimtab_cli import manifests
from trimtab_core.api import rules, v1alpha1

FOLDER = pathlib.Path(__file__).parent / "crd_cases"
CASES = [
    (table["kind"], case)
    for path in sorted(FOLDER.glob("*.yaml"))
    for table in [yaml.safe_load(path.read_text())]
    for case in table["cases"]
]


def object_of(kind: str, case: dict[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": v1alpha1.API_VERSION, "kind": kind, "metadata": case.get("metadata", {"name": "case"})}
    return head | ({"spec": case["spec"]} if "spec" in case else {})


def verdict(kind: str, case: dict[str, Any], folder: pathlib.Path) -> list[str]:
    """What is said about the object alone; what it refers to is not there."""
    file = folder / "object.json"
    file.write_text(json.dumps(object_of(kind, case)))
    alone = ("unknown-field", "missing-field", "wrong-unit", "wrong-name", "wrong-value", "rule-broken")
    return [finding.text() for finding in manifests.load([file]).findings if finding.code in alone]


@pytest.mark.parametrize(("kind", "case"), [pytest.param(*each, id=f"{each[0]}: {each[1]['id']}") for each in CASES])
def test_an_object_is_accepted_or_refused_with_the_right_words(
    kind: str, case: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    said = verdict(kind, case, tmp_path)
    if "refused" not in case:
        assert said == []
    else:
        assert said != []
        for fragment in case["refused"]:
            assert fragment in " ".join(said)


def test_every_rule_is_broken_by_some_case(tmp_path: pathlib.Path) -> None:
    said = " ".join(line for kind, case in CASES if "refused" in case for line in verdict(kind, case, tmp_path))
    messages = {rule.message.partition(": ")[0] for declared in rules.RULES.values() for rule in declared}
    assert {message for message in messages if message not in said} == set()
