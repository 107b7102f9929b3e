"""
A value that satisfies a JSON schema, as constrained decoding would yield one. Pure; deterministic.

Covers what applications send for structured output: types, `enum`, `const`, `anyOf`/`oneOf`/`allOf`, local `$ref`,
required and optional properties, bounds of numbers, lengths of strings and arrays, the common string formats.
`pattern` is not solved: the string then has the right length only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_WORD = "the quick brown fox "
_FORMATS = {
    "date-time": "2024-02-29T12:00:00Z",
    "date": "2024-02-29",
    "time": "12:00:00Z",
    "email": "reader@example.com",
    "uuid": "6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}
_DEEPEST = 32


class SchemaError(ValueError):
    """The schema is wrong or cannot be met; the message is the grammar's complaint."""


def text(schema: object) -> str:
    """Return JSON text that satisfies `schema` (an object, a boolean, or such JSON as text). Raises SchemaError."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise SchemaError(f"Invalid JSON schema: {error.msg}") from error
    try:
        return json.dumps(_value(schema, root=schema, depth=0), ensure_ascii=False)
    except (AttributeError, LookupError, OverflowError, TypeError) as error:
        raise SchemaError(f"malformed JSON schema: {error}") from error


def _value(schema: object, *, root: object, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    if depth > _DEEPEST:
        raise SchemaError("schema is nested too deeply")
    if schema is True or schema == {}:
        return {}
    if not isinstance(schema, dict):
        raise SchemaError("schema must be an object")
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root=root, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        if not schema["enum"]:
            raise SchemaError("enum must not be empty")
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return _value(schema[name][0], root=root, depth=depth + 1)
    if schema.get("allOf"):
        return _value(_merged(schema, root), root=root, depth=depth + 1)
    return _by_type(schema, root=root, depth=depth)


def _by_type(schema: Mapping[str, Any], *, root: object, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind not in _TYPES:
        raise SchemaError(f"Invalid type: {kind}")
    if kind == "object":
        properties = schema.get("properties", {})
        missing: dict[str, object] = {name: {} for name in schema.get("required", []) if name not in properties}
        shallow = depth < _DEEPEST // 2  # past this only required properties, so that recursive schemas end
        wanted = {name: rule for name, rule in properties.items() if shallow or name in schema.get("required", [])}
        return {name: _value(rule, root=root, depth=depth + 1) for name, rule in {**wanted, **missing}.items()}
    if kind == "array":
        count = max(int(schema.get("minItems", 0)), 0 if schema.get("maxItems") == 0 or depth >= _DEEPEST // 2 else 1)
        return [_value(schema.get("items", {"type": "string"}), root=root, depth=depth + 1) for _ in range(count)]
    if kind == "string":
        return _string(schema)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return True if kind == "boolean" else None


def _string(schema: Mapping[str, Any]) -> str:
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None:
        return known
    shortest, longest = int(schema.get("minLength", 0)), schema.get("maxLength")
    length = max(shortest, len(_WORD.strip()))
    if longest is not None:
        if int(longest) < shortest:
            raise SchemaError("maxLength is smaller than minLength")
        length = min(length, int(longest))
    return (_WORD * (length // len(_WORD) + 1))[:length]


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf", 1)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    nudge = 1 if whole else 1e-6
    low = max(low, above + nudge) if isinstance(above, (int, float)) and not isinstance(above, bool) else low
    high = min(high, below - nudge) if isinstance(below, (int, float)) and not isinstance(below, bool) else high
    value = min(max(7, low), high)
    if whole:
        value = math.ceil(value) if math.ceil(value) <= high else math.floor(value)
    if isinstance(step, (int, float)) and step > 0 and value % step:
        up = math.ceil(value / step) * step
        value = up if up <= high else math.floor(value / step) * step
    if not low <= value <= high:
        raise SchemaError("no number lies within minimum and maximum")
    return int(value) if whole else value


def _resolve(reference: object, root: object) -> object:
    node = root
    for part in str(reference).removeprefix("#").split("/"):
        if part and (not isinstance(node, dict) or part not in node):
            raise SchemaError(f"Cannot resolve $ref: {reference}")
        if part and isinstance(node, dict):
            node = node[part]
    return node


def _merged(schema: Mapping[str, Any], root: object) -> dict[str, Any]:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        rules = _resolve(part["$ref"], root) if isinstance(part, dict) and "$ref" in part else part
        if not isinstance(rules, dict):
            raise SchemaError("allOf must hold objects")
        for key, value in rules.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged.setdefault(key, value)
    return merged
