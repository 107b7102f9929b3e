"""The CRDs are complete structural schemas, current, bounded, and say the same as the types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trimtab_cli.validation import schema_rules
from trimtab_core.api import crds, reference, rules, v1alpha1

ROOT = Path(__file__).resolve().parents[3]
KINDS = list(v1alpha1.KINDS)


def nodes(node: crds.Schema, path: str = "") -> Iterator[tuple[str, crds.Schema]]:
    """A schema and everything inside it, with paths."""
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}.*")


def below_spec(kind: str) -> list[tuple[str, crds.Schema]]:
    return [each for each in nodes(crds.schema(kind)) if each[0].startswith((".spec", ".status"))]


def test_the_generated_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gen_crds.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_file_that_is_not_current_is_named_with_the_target_that_writes_it(tmp_path: Path) -> None:
    copy = tmp_path / "scripts" / "gen_crds.py"
    copy.parent.mkdir()
    copy.write_text((ROOT / "scripts" / "gen_crds.py").read_text())
    done = subprocess.run([sys.executable, str(copy), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "crds/inferencetiers.yaml is out of date: run `make gen` and commit the result" in done.stderr
    assert subprocess.run([sys.executable, str(copy)], check=False).returncode == 0
    assert subprocess.run([sys.executable, str(copy), "--check"], check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_description(kind: str) -> None:
    bare = [path for path, node in below_spec(kind) if not path.endswith(("[]", ".*")) and not node.get("description")]
    assert bare == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_structural_and_has_no_floats(kind: str) -> None:
    text = json.dumps(crds.schema(kind))
    assert not re.search(r'"(\$ref|anyOf|allOf|oneOf|const|nullable)":', text)
    assert [path for path, node in nodes(crds.schema(kind)) if node.get("type") in (None, "number")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_a_spec_is_bounded_so_that_rules_have_a_bounded_cost(kind: str) -> None:
    limits = {"array": "maxItems", "string": "maxLength"}
    unbounded = [
        path
        for path, node in below_spec(kind)
        if (key := limits.get(node["type"])) and key not in node and "enum" not in node
    ]
    maps = [path for path, node in below_spec(kind) if "additionalProperties" in node and "maxProperties" not in node]
    assert unbounded + maps == []


@pytest.mark.parametrize("kind", KINDS)
def test_keyed_lists_have_keys_that_every_entry_must_have(kind: str) -> None:
    for path, node in below_spec(kind):
        if node.get(crds.LIST_TYPE) == "map":
            assert set(node[crds.LIST_KEYS]) <= set(node["items"]["required"]), path
        if node.get(crds.LIST_TYPE) == "set":
            assert node["items"]["type"] == "string", path


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_show_fields_that_exist(kind: str) -> None:
    known = {path for path, _ in nodes(crds.schema(kind))} | {".metadata.creationTimestamp"}
    assert [column.path for column in crds.NAMES[kind].columns if column.path not in known] == []


def test_kubectl_knows_the_kinds_by_short_names_and_category() -> None:
    names = [crds.crd(kind)["spec"]["names"] for kind in KINDS]
    assert [name["shortNames"] for name in names] == [["tier"], ["route"], ["cache"]]
    assert all(name["categories"] == ["trimtab"] for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_status_is_a_subresource_and_passed_through_parts_keep_unknown_fields(kind: str) -> None:
    (version,) = crds.crd(kind)["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    kept = {path for path, node in nodes(version["schema"]["openAPIV3Schema"]) if node.get(crds.PRESERVE)}
    assert (
        kept
        == {
            "InferenceTier": {".spec.engine.env[]", ".spec.engine.podTemplate", ".spec.variants[].tolerations[]"},
            "RoutingPolicy": {".spec.router.podTemplate", ".spec.router.resources", ".status.signals[]"},
            "CachePolicy": set(),
        }[kind]
    )


def test_every_rule_is_in_some_crd_and_says_what_to_change() -> None:
    placed = {
        (rule["rule"], rule["message"])
        for kind in KINDS
        for _, node in nodes(crds.schema(kind))
        for rule in node.get(crds.VALIDATIONS, ())
    }
    declared = [rule for found in rules.RULES.values() for rule in found]
    assert {(rule.expression, rule.message) for rule in declared} == placed
    for rule in declared:
        problem, _, fix = rule.message.partition(": ")
        assert problem
        assert fix, rule.message


@pytest.mark.parametrize("kind", KINDS)
def test_rules_stand_on_objects_and_point_at_their_fields(kind: str) -> None:
    for path, node in nodes(crds.schema(kind)):
        for rule in node.get(crds.VALIDATIONS, ()):
            assert rule.get("fieldPath", "").removeprefix(".") in ("", *node["properties"]), (path, rule)


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_obeys_its_own_schema_and_rules(kind: str) -> None:
    for path, node in nodes(crds.schema(kind)):
        if "default" in node:
            assert list(schema_rules._walk(node["default"], node, ())) == [], path
            assert crds.with_defaults(node["default"], node) == node["default"], "nothing is left to fill in"


def test_the_e2e_latency_keeps_its_name() -> None:
    spec = crds.schema("InferenceTier")["properties"]["spec"]
    assert list(spec["properties"]["slo"]["properties"]) == ["ttft", "itl", "e2e", "attainment"]


def test_a_class_says_everything_that_it_leaves_out() -> None:
    filled = crds.with_defaults({"spec": {"tiers": [{"ref": "small"}], "budget": None}}, crds.schema("RoutingPolicy"))
    assert filled["spec"]["classes"] == [{"name": "default", "match": {}, "onUnavailable": "Fallback"}]
    assert filled["spec"]["resilience"]["connectTimeout"] == "2s"
    assert "budget" not in filled["spec"], "null counts as absent"


def test_nulls_inside_what_is_passed_through_are_kept() -> None:
    value = {"spec": {"engine": {"podTemplate": {"spec": {"affinity": None}}}}}
    filled = crds.with_defaults(value, crds.schema("InferenceTier"))
    assert filled["spec"]["engine"]["podTemplate"] == {"spec": {"affinity": None}}


def test_the_reference_names_every_field_once() -> None:
    page = reference.markdown()
    for kind in KINDS:
        for path, _ in below_spec(kind):
            if not path.endswith(("[]", ".*")) and path not in (".spec", ".status"):
                assert f"`{path.removeprefix('.')}`" in page


def values(node: crds.Schema) -> st.SearchStrategy[Any]:
    """Values that obey the types of a schema (not its rules)."""
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node["type"] == "boolean":
        return st.booleans()
    if node["type"] == "integer":
        return st.integers(node.get("minimum", 0), node.get("maximum", 2**31))
    if node["type"] == "string":
        return _texts(node)
    if node["type"] == "array":
        few = min(3, node.get("maxItems", 3))
        unique = (lambda item: item[node[crds.LIST_KEYS][0]]) if crds.LIST_KEYS in node else None
        if node.get(crds.LIST_TYPE) == "set":
            unique = str
        return st.lists(values(node["items"]), min_size=node.get("minItems", 0), max_size=few, unique_by=unique)
    if "additionalProperties" in node:
        return st.dictionaries(
            st.from_regex(r"[a-z]{1,8}", fullmatch=True), values(node["additionalProperties"]), max_size=2
        )
    required = set(node.get("required", ()))
    parts = {name: values(part) for name, part in node.get("properties", {}).items()}
    return st.fixed_dictionaries(
        {name: part for name, part in parts.items() if name in required},
        optional={name: part for name, part in parts.items() if name not in required},
    )


def _texts(node: crds.Schema) -> st.SearchStrategy[str]:
    longest = min(node.get("maxLength", 20), 20)
    if "pattern" in node:
        pattern = node["pattern"].removeprefix("^").removesuffix("$")
        return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(lambda text: len(text) <= longest)
    return st.text("abc -/é", min_size=node.get("minLength", 0), max_size=longest)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_schema_allows_the_types_read_and_write_back(kind: str) -> None:
    schema = crds.schema(kind)
    specs = values(schema["properties"]["spec"])
    statuses = values(schema["properties"]["status"])

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(specs, statuses)
    def check(spec: dict[str, Any], status: dict[str, Any]) -> None:
        value = {"metadata": {"name": "a", "ownerReferences": [{"uid": "1"}]}, "spec": spec, "status": status}
        head = {"apiVersion": v1alpha1.API_VERSION, "kind": kind}
        filled = crds.with_defaults(head | value, schema)
        read = v1alpha1.KINDS[kind].model_validate_json(json.dumps(filled), strict=True)
        assert read == v1alpha1.KINDS[kind].model_validate(head | value), "the types have the defaults of the schema"
        written = read.to_dict()
        assert written["metadata"]["ownerReferences"] == [{"uid": "1"}], "foreign metadata is kept"
        assert v1alpha1.KINDS[kind].model_validate(written) == read

    check()
