"""Values for JSON schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_sim.engine_sim import schema_values


def holds(schema: dict[str, Any], value: Any) -> bool:
    """A small checker of the rules that these tests use."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if schema["type"] == "object":
        inside = all(name in value and holds(rule, value[name]) for name, rule in schema.get("properties", {}).items())
        return inside and set(schema.get("required", [])) <= set(value)
    if schema["type"] == "array":
        return len(value) >= schema.get("minItems", 0) and all(holds(schema["items"], one) for one in value)
    if schema["type"] == "string":
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6)
    if schema["type"] in ("integer", "number"):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-50, 50))
    return {
        "type": draw(st.sampled_from(["integer", "number"])),
        "minimum": low,
        "maximum": low + draw(st.integers(0, 9)),
    }


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    shortest = draw(st.integers(0, 40))
    return {"type": "string", "minLength": shortest, "maxLength": shortest + draw(st.integers(0, 9))}


LEAVES = numbers() | strings() | st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"enum": ["a", "b"]}])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3))
        | st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)},
            st.dictionaries(st.sampled_from("abcdef"), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_the_value_satisfies_its_schema(schema: dict[str, Any]) -> None:
    assert holds(schema, json.loads(schema_values.text(schema)))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param({"const": 3}, 3, id="const"),
        pytest.param({"anyOf": [{"type": "null"}, {"type": "string"}]}, None, id="the first of anyOf"),
        pytest.param(
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"], "type": "object"}]},
            {"a": 1},
            id="allOf merged",
        ),
        pytest.param(
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer", "maximum": 3}}}, 3, id="a local reference"
        ),
        pytest.param({"type": "string", "format": "date"}, "2024-02-29", id="a format"),
        pytest.param({"type": "integer", "exclusiveMinimum": 7}, 8, id="an exclusive bound"),
        pytest.param({"type": "integer", "multipleOf": 5}, 10, id="a multiple"),
        pytest.param({"type": ["integer", "null"], "maximum": 1}, 1, id="the first of several types"),
        pytest.param({"properties": {"a": {"type": "boolean"}}}, {"a": True}, id="an object by its properties"),
        pytest.param('{"type": "boolean"}', True, id="a schema as text"),
        pytest.param({}, {}, id="anything"),
    ],
)
def test_a_schema_gets_this_value(schema: Any, value: Any) -> None:
    assert json.loads(schema_values.text(schema)) == value


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        pytest.param({"type": "frob"}, "Invalid type: frob", id="an unknown type"),
        pytest.param({"enum": []}, "enum must not be empty", id="an empty enum"),
        pytest.param({"$ref": "#/nowhere"}, "Cannot resolve", id="a reference to nothing"),
        pytest.param({"type": "integer", "minimum": 3, "maximum": 2}, "no number lies within", id="crossed bounds"),
        pytest.param({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength is smaller", id="crossed lengths"),
        pytest.param([], "schema must be an object", id="a list"),
        pytest.param("{", "Invalid JSON schema", id="broken text"),
    ],
)
def test_a_schema_that_cannot_be_met_is_an_error(schema: Any, message: str) -> None:
    with pytest.raises(schema_values.SchemaError, match=message):
        schema_values.text(schema)


def test_a_recursive_schema_ends() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}, "required": ["name"]}
    value = json.loads(schema_values.text(tree))
    assert value["name"]


def test_endless_required_recursion_is_an_error() -> None:
    with pytest.raises(schema_values.SchemaError, match="nested too deeply"):
        schema_values.text({"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]})
