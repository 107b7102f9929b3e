"""Evaluates what a CRD's schema says beyond types: CEL rules, and lists whose entries must differ.

The same rules run in the API server on every write; here they run offline with the same text and the same
defaults in place. ``tests/contract/crd_cases`` holds both to one verdict.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cel
from trimtab_core.api import crds, findings


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that does not hold.

    Attributes:
        path: the field at fault.
        message: the rule's own message, with what to change.
    """

    path: findings.Path
    message: str


def violations(kind: str, value: Mapping[str, Any]) -> list[Violation]:
    """Everything in an object of a known kind that its schema's rules refuse; its types must be right already."""
    schema = _schema(kind)
    return list(_walk(crds.with_defaults(value, schema), schema, ()))


@functools.cache
def _schema(kind: str) -> crds.Schema:
    return crds.schema(kind)


@functools.lru_cache(maxsize=512)
def _program(expression: str) -> Any:  # noqa: ANN401 (the library has no types)
    return cel.compile(expression)


def _walk(value: Any, node: crds.Schema, path: findings.Path) -> Iterator[Violation]:  # noqa: ANN401 (any JSON value)
    for rule in node.get(crds.VALIDATIONS, ()):
        if not _holds(rule["rule"], value):
            field = rule.get("fieldPath", "").removeprefix(".")
            yield Violation((*path, field) if field else path, rule["message"])
    if isinstance(value, dict):
        for name, part in node.get("properties", {}).items():
            if name in value:
                yield from _walk(value[name], part, (*path, name))
    if isinstance(value, list):
        yield from _duplicates(value, node, path)
        for index, item in enumerate(value):
            yield from _walk(item, node["items"], (*path, index))


def _holds(expression: str, value: Any) -> bool:  # noqa: ANN401 (any JSON value)
    """Whether a rule is true; one that can't be evaluated is not, as in the API server."""
    try:
        return _program(expression).execute({"self": value}) is True
    except (ValueError, TypeError, RuntimeError, LookupError):
        return False


def _duplicates(items: list[Any], node: crds.Schema, path: findings.Path) -> Iterator[Violation]:
    """Entries of a set or of a keyed list that came before."""
    if node.get(crds.LIST_TYPE) not in ("set", "map"):
        return
    keys: list[str] = node.get(crds.LIST_KEYS, [])
    seen: set[Any] = set()
    for index, item in enumerate(items):
        identity = tuple(item.get(key) for key in keys) if keys else item
        if identity in seen:
            where = (*path, index, keys[0]) if keys else (*path, index)
            yield Violation(where, f"{_spelled(identity)} is in the list already: every entry must differ; remove one")
        seen.add(identity)


def _spelled(identity: Any) -> str:  # noqa: ANN401 (a key or a plain value)
    return ", ".join(repr(part) for part in identity) if isinstance(identity, tuple) else repr(identity)
