"""One object against its type: unknown fields, wrong types, wrong units, each with what to write instead.

What the API server would refuse for its types is refused here too: numbers are not texts, texts are not
numbers. Rules that compare fields are ``rules.py``; references to other objects are ``cross_check.py``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from trimtab_core import units
from trimtab_core.api import crds, findings, v1alpha1
from trimtab_core.api.documents import Document
from trimtab_core.api.v1alpha1 import fields

ApiObject = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy | v1alpha1.CachePolicy

_PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_LOOSE_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]+)")
_UNIT_SPELLINGS = {
    "ms": "ms", "msec": "ms", "millis": "ms", "milliseconds": "ms", "us": "us", "µs": "us",
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
}  # fmt: skip
_HOURS_PER_DAY = 24
_LEAST_MILLISECONDS = 10
"""From here on a bare number in a latency is read as milliseconds: nobody promises a p95 of 800 seconds."""
_LATENCY_FIELDS = ("p95", "itlBase", "itlPerSequence")


def is_ours(document: Document) -> bool:
    """Whether an object is meant for Trimtab, rightly spelled or not."""
    return document.api_version.partition("/")[0] == v1alpha1.GROUP or document.kind in v1alpha1.KINDS


def check(document: Document) -> ApiObject | list[findings.Finding]:
    """The typed object, or everything that is wrong with the document's types."""
    problems = _check_head(document)
    if problems:
        return problems
    problems = [
        document.finding("repeated-field", path, "the field is given twice", "keep one of the two")
        for path in document.repeated
    ]
    schema = crds.schema(document.kind)
    value = crds.with_defaults(document.value, schema)
    try:
        parsed = v1alpha1.KINDS[document.kind].model_validate_json(json.dumps(value, default=str), strict=True)
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        return problems + [_finding(document, schema, detail) for detail in details]
    return problems or parsed


def _check_head(document: Document) -> list[findings.Finding]:
    """Version and kind, without which no schema can be chosen."""
    if document.kind not in v1alpha1.KINDS:
        near = _nearest(document.kind, v1alpha1.KINDS)
        fix = f"did you mean {near}?" if near else f"write one of {', '.join(v1alpha1.KINDS)}"
        return [document.finding("unknown-kind", ("kind",), f"there is no such kind in {v1alpha1.GROUP}", fix)]
    if document.api_version != v1alpha1.API_VERSION:
        fix = f"write {v1alpha1.API_VERSION}"
        return [document.finding("unknown-version", ("apiVersion",), "this version is not served", fix)]
    return []


def _finding(document: Document, schema: crds.Schema, detail: ErrorDetails) -> findings.Finding:
    """One error of pydantic in Trimtab's words."""
    path: findings.Path = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    value = findings.at(document.value, path)
    node = _node(schema, path)
    if kind == "extra_forbidden":
        return _unknown_field(document, schema, path)
    if kind == "missing":
        about = str(node.get("description", "")).rstrip(".")
        fix = f"add it: {about}" if about else "add it"
        return document.finding("missing-field", path, "a required field is missing", fix)
    pattern = node.get("pattern", "")
    has_unit = pattern in _UNIT_PATTERNS
    if kind == "string_pattern_mismatch" or (kind == "string_type" and has_unit):
        problem, fix = _describe_text(pattern, value, str(path[-1]))
        return document.finding("wrong-unit" if has_unit else "wrong-name", path, problem, fix)
    describe = _DESCRIPTIONS.get(kind)
    problem, fix = describe(value, context) if describe else (detail["msg"][0].lower() + detail["msg"][1:], "")
    return document.finding("wrong-value", path, problem, fix)


def _unknown_field(document: Document, schema: crds.Schema, path: findings.Path) -> findings.Finding:
    known = sorted(_node(schema, path[:-1]).get("properties", {}))
    near = _nearest(str(path[-1]), known)
    fix = f"did you mean {near}?" if near else f"remove it; known here: {', '.join(known)}"
    return document.finding("unknown-field", path, "there is no such field", fix)


def _node(schema: crds.Schema, path: findings.Path) -> crds.Schema:
    """The schema of the field at a path; empty where there is none."""
    node = schema
    for part in path:
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return node


def _nearest(word: str, known: Mapping[str, Any] | list[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("_", ""), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""


def _describe_text(pattern: str, value: Any, field: str) -> tuple[str, str]:  # noqa: ANN401 (any JSON value)
    if pattern == units.DURATION_PATTERN:
        return "not a duration", _duration_fix(value, field)
    if pattern == units.DECIMAL_PATTERN:
        return "not a decimal number in quotes", _decimal_fix(value)
    if pattern == units.RATIO_PATTERN:
        return "not a ratio from 0 to 1 in quotes", _ratio_fix(value)
    return f"it must match {pattern}", _name_fix(value) if pattern == fields.DNS_LABEL_PATTERN else ""


_UNIT_PATTERNS = (units.DURATION_PATTERN, units.DECIMAL_PATTERN, units.RATIO_PATTERN)


def _duration_fix(value: Any, field: str) -> str:  # noqa: ANN401 (any JSON value)
    """What the user probably meant: the unit that fits the field, or the unit that they spelled out."""
    text = str(value).strip()
    if _PLAIN_NUMBER.fullmatch(text):
        latency = field in _LATENCY_FIELDS and float(text) >= _LEAST_MILLISECONDS
        return f"write {text}ms" if latency else f"write {text}s (units: us, ms, s, m, h)"
    loose = _LOOSE_DURATION.fullmatch(text)
    if loose:
        number, unit = loose[1], loose[2].lower()
        if unit in ("d", "day", "days"):
            return f"write {float(number) * _HOURS_PER_DAY:g}h: days are not known to the API server"
        if unit in _UNIT_SPELLINGS:
            return f"write {number}{_UNIT_SPELLINGS[unit]}"
    return "write a number with a unit, such as 800ms, 15s, 10m or 24h"


def _decimal_fix(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return f'quote it: "{value:.9f}'.rstrip("0").rstrip(".") + '"'
    text = str(value).strip().lstrip("$").replace(",", "." if str(value).count(",") == 1 else "")
    return f'write "{text}"' if _PLAIN_NUMBER.fullmatch(text) else 'write digits in quotes, such as "0.35"'


def _ratio_fix(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    text = str(value).strip().rstrip("%").strip()
    if _PLAIN_NUMBER.fullmatch(text):
        number = float(text)
        if number <= 1 and not str(value).strip().endswith("%"):
            return f'quote it: "{text}"'
        if number <= 100:  # noqa: PLR2004 (per cent)
            return f'write "{number / 100:.9g}" for {number:g} %'
    return 'write a value from 0 to 1 in quotes, such as "0.99"'


def _name_fix(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    text = re.sub(r"[^a-z0-9-]+", "-", str(value).lower()).strip("-")
    return f"write {text!r}" if text else "use lower-case letters, digits and dashes"


_Describe = Callable[[Any, Mapping[str, Any]], tuple[str, str]]

_DESCRIPTIONS: Mapping[str, _Describe] = {
    "string_type": lambda value, _: ("it must be a text", _text_fix(value)),
    "int_type": lambda value, _: ("it must be a whole number", f"write {str(value).strip()} without quotes"),
    "int_from_float": lambda _value, _: ("it must be a whole number", "drop the part after the point"),
    "bool_type": lambda _value, _: ("it must be true or false", "write true or false without quotes"),
    "enum": lambda value, context: _choice(value, str(context.get("expected", ""))),
    "literal_error": lambda value, context: _choice(value, str(context.get("expected", ""))),
    "list_type": lambda _value, _: ("it must be a list", "begin each entry with a dash"),
    "too_short": lambda _value, context: (f"it needs at least {context['min_length']} entries", "add one"),
    "too_long": lambda _value, context: (f"it may have at most {context['max_length']} entries", "remove some"),
    "string_too_short": lambda _value, _: ("it must not be empty", "write a value or remove the field"),
    "string_too_long": lambda _value, context: (f"it is longer than {context['max_length']} characters", "shorten it"),
    "greater_than_equal": lambda _value, context: ("it is too small", f"write {context['ge']} or more"),
    "less_than_equal": lambda _value, context: ("it is too large", f"write {context['le']} or less"),
    "model_type": lambda _value, _: ("it must be an object", "write its fields below it, indented"),
    "model_attributes_type": lambda _value, _: ("it must be an object", "write its fields below it, indented"),
    "dict_type": lambda _value, _: ("it must be an object", "write its fields below it, indented"),
}
"""Pydantic's error type → problem and fix, from the value and the error's context."""


def _text_fix(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    return (
        "write one text in quotes" if isinstance(value, dict | list) else f'quote it: "{findings.spell_value(value)}"'
    )


def _choice(value: Any, expected: str) -> tuple[str, str]:  # noqa: ANN401 (any JSON value)
    words = re.findall(r"'([^']*)'", expected)
    near = _nearest(str(value), words)
    return "it is not one of the known words", (f"did you mean {near}?" if near else f"write {expected}")
