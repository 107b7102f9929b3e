"""Merging a user's pod template patch over the rendered template, the way ``kubectl patch`` would.

Maps merge, null removes, other values replace. A list whose items have a merge key (Kubernetes' own ones) merges
item by item; any other list replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
_APPENDED = ("tolerations",)


def merge(rendered: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A new map: ``rendered`` with ``patch`` over it; neither is changed."""
    merged = dict(rendered)
    for name, value in patch.items():
        before = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            merged[name] = _merge_lists(name, before, value)
        else:
            merged[name] = value
    return merged


def _merge_lists(name: str, before: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """One list over another, by the merge key of the field's name."""
    if name in _APPENDED:
        return [*before, *(item for item in patch if item not in before)]
    key = _KEYS.get(name)
    if key is None or not all(isinstance(item, Mapping) and key in item for item in (*before, *patch)):
        return list(patch)
    merged = {item[key]: item for item in before}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = merge(merged.get(item[key], {}), item)
    return list(merged.values())
