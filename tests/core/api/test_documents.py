"""YAML becomes objects that know their lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core.api import documents, findings


def only(text: str) -> documents.Document:
    (document,) = documents.parse(text, "a.yaml")
    return document


def test_every_field_knows_its_line() -> None:
    document = only("kind: A\nspec:\n  # why\n  list:\n  - name: a\n  - {name: b, deep: {er: 1}}\n")
    assert document.line(("kind",)) == 1
    assert document.line(("spec", "list")) == 4
    assert document.line(("spec", "list", 0, "name")) == 5
    assert document.line(("spec", "list", 1, "deep", "er")) == 6


def test_a_field_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    document = only("kind: A\nspec:\n  list:\n  - name: a\n")
    assert document.line(("spec", "list", 0, "missing", "deeper")) == 4
    assert document.line(("other",)) == 1


def test_documents_of_one_file_count_its_lines_on() -> None:
    first, second = documents.parse("kind: A\n---\n# nothing\n---\n\nkind: B\n", "a.yaml")
    assert (first.line(("kind",)), second.line(("kind",))) == (1, 6)


def test_merge_keys_are_resolved_and_what_is_written_wins() -> None:
    document = only("base: &base {a: 1, b: 2}\nspec:\n  <<: *base\n  b: 3\n")
    assert document.value["spec"] == {"a": 1, "b": 3}
    assert document.repeated == ()


def test_a_field_given_twice_is_remembered() -> None:
    assert only("spec:\n  a: 1\n  b: 2\n  a: 3\n").repeated == (("spec", "a"),)


def test_dates_stay_texts_as_in_kubernetes() -> None:
    assert only("a: 2026-08-01\nb: 2026-08-01T12:00:00Z").value == {"a": "2026-08-01", "b": "2026-08-01T12:00:00Z"}


def test_the_items_of_a_list_are_objects_of_their_own() -> None:
    first, second = documents.parse("kind: List\nitems:\n- kind: A\n- kind: B\n  metadata: {name: b}\n", "a.yaml")
    assert (first.kind, second.kind, second.name, second.namespace) == ("A", "B", "b", "default")
    assert second.line(("metadata", "name")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: {", "a.yaml:1: not YAML", id="open brace"),
        pytest.param("a: b: c", "a.yaml:1: not YAML: mapping values are not allowed here", id="two colons"),
        pytest.param(
            "a: !!python/object:os.system x",
            "a.yaml:1: not YAML: could not determine a constructor",
            id="a tag of Python",
        ),
        pytest.param("- a\n- b", "a.yaml:1: not a Kubernetes object", id="a list"),
        pytest.param("kind: List\nitems: [1]", "a.yaml:2: not a Kubernetes object", id="a number in a list"),
    ],
)
def test_what_is_not_a_manifest_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(documents.NotYamlError) as caught:
        documents.parse(text, "a.yaml")
    assert message in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_makes_it_fail_in_any_other_way(text: str) -> None:
    said = ""
    try:
        documents.parse(text, "a.yaml")
    except documents.NotYamlError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        (("spec", "variants", 0, "replicas"), "spec.variants[0].replicas"),
        (("metadata", "annotations", "a.b/c"), 'metadata.annotations["a.b/c"]'),
        ((), ""),
    ],
)
def test_a_path_is_spelled_as_kubectl_does(path: findings.Path, spelled: str) -> None:
    assert findings.spell_path(path) == spelled


def test_a_long_value_is_cut_and_none_is_nothing() -> None:
    assert findings.spell_value({"a": "é"}) == '{"a": "é"}'
    assert len(findings.spell_value("x" * 1000)) == 60
    assert findings.spell_value(None) == ""
