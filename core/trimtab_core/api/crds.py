"""CustomResourceDefinitions made from the pydantic types: the only source of ``crds/*.yaml``.

``schema`` turns a type into a structural schema as apiextensions/v1 wants it: no ``$ref``, no ``anyOf`` with
null (a nullable field is one that may be absent), defaults written out in full, CEL rules from ``rules.py``.
``with_defaults`` does to an object what the API server does to it before it evaluates the rules.
Must not know about files or a cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_core.api import rules, v1alpha1

Schema = dict[str, Any]
"""A JSONSchemaProps of apiextensions/v1."""

PRESERVE = "x-kubernetes-preserve-unknown-fields"
VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"

_KEPT = (
    "description", "type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "maxProperties", "required", LIST_TYPE, LIST_KEYS,
)  # fmt: skip
"""Keywords of pydantic's JSON schema that mean the same in a structural schema, in the order of output."""


@dataclass(frozen=True, slots=True)
class Names:
    """How people call a kind on the command line, and the columns that ``kubectl get`` shows."""

    plural: str
    singular: str
    short: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column; priority 1 shows only with ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    priority: int = 0


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since creation.", type="date")

NAMES: Mapping[str, Names] = {
    "InferenceTier": Names(
        plural="inferencetiers",
        singular="inferencetier",
        short="tier",
        columns=(
            Column("Mode", ".spec.scaling.management", "How far Trimtab may go on its own."),
            Column("Desired", ".status.replicas", "Replicas asked for.", type="integer"),
            Column("Ready", ".status.readyReplicas", "Replicas that serve.", type="integer"),
            Column("$/h", ".status.usdPerHour", "What the tier costs now."),
            Column("SLO", ".status.sloAttainment", "Share of recent requests that met the SLO."),
            Column("Reason", ".status.reason", "Decisive reason of the last decision."),
            _AGE,
            Column("Model", ".spec.model.name", "Model that is served.", priority=1),
            Column("Quality", ".spec.model.quality", "Prior quality of its answers.", priority=1),
            Column("TTFT p95", ".spec.slo.ttft.p95", "Promised time to the first content byte.", priority=1),
            Column("ITL p95", ".spec.slo.itl.p95", "Promised time between two tokens.", priority=1),
        ),
    ),
    "RoutingPolicy": Names(
        plural="routingpolicies",
        singular="routingpolicy",
        short="route",
        columns=(
            Column("Router", ".spec.router.mode", "Where the router runs."),
            Column("$/h", ".status.usdPerHour", "What the policy's tiers cost now."),
            Column("Baseline $/h", ".status.baselineUsdPerHour", "Every request on the baseline tier."),
            Column("Saved", ".status.savedRatio", "Share of the baseline's cost that is saved."),
            Column("SLO", ".status.sloAttainment", "Share of recent requests that met the SLO."),
            Column("Reason", ".status.reason", "Decisive reason of the last decision."),
            _AGE,
            Column("Table", ".status.tableVersion", "Newest routing table.", priority=1),
            Column("Cache", ".spec.cache.ref", "CachePolicy in use.", priority=1),
        ),
    ),
    "CachePolicy": Names(
        plural="cachepolicies",
        singular="cachepolicy",
        short="cache",
        columns=(
            Column("Store", ".spec.store.type", "Where answers are kept."),
            Column("State", ".status.state", "How far the semantic cache is trusted."),
            Column("Exact", ".status.exactHitRate", "Share of requests answered by the exact cache."),
            Column("Semantic", ".status.semanticHitRate", "Share answered by the semantic cache."),
            Column("Wrong", ".status.wrongAnswerRate", "Measured share of wrong semantic hits."),
            Column("Saved $", ".status.savedUsd", "What the answers from the cache would have cost."),
            _AGE,
            Column("TTL", ".spec.ttl", "How long an answer may be given again.", priority=1),
            Column("Scope", ".spec.scope", "Who may be given an answer again.", priority=1),
        ),
    ),
}
"""Kind → its names and columns."""


def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind of ``v1alpha1.KINDS``, as it goes to the API server."""
    names = NAMES[kind]
    version = {
        "name": v1alpha1.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in names.columns],
        "schema": {"openAPIV3Schema": schema(kind)},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{v1alpha1.GROUP}", "labels": {"app.kubernetes.io/part-of": "trimtab"}},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": [names.short],
                "categories": ["trimtab"],
            },
            "versions": [version],
        },
    }


def schema(kind: str) -> Schema:
    """The structural schema of one kind."""
    raw = v1alpha1.KINDS[kind].model_json_schema(by_alias=True)
    result = _structural(raw, raw.get("$defs", {}))
    for name in ("apiVersion", "kind"):
        result["properties"][name] = {"type": "string", "description": _ABOUT[name]}
    result["properties"]["metadata"] = {"type": "object"}
    result["required"] = [name for name in result["required"] if name != "metadata"]
    if not result["required"]:
        del result["required"]
    result["properties"]["status"].pop("default", None)
    return result


_ABOUT = {
    "apiVersion": "Version of the schema of this object.",
    "kind": "Kind of this object.",
}


def _column(column: Column) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description,
    }  # fmt: skip
    return result | {"priority": column.priority} if column.priority else result


def _structural(raw: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """One node of pydantic's JSON schema as a structural one, references resolved."""
    raw = _resolved(raw, definitions)
    result: Schema = {key: copy.deepcopy(raw[key]) for key in _KEPT if key in raw}
    extra = raw.get("additionalProperties")
    if "properties" in raw:
        result["properties"] = {name: _structural(part, definitions) for name, part in raw["properties"].items()}
    elif isinstance(extra, dict):
        result["additionalProperties"] = _structural(extra, definitions)
    if extra is True:
        result[PRESERVE] = True
    if "items" in raw:
        result["items"] = _structural(raw["items"], definitions)
    if raw.get("default") not in (None, ""):
        # In full: the API server judges a default by the rules before it fills in the defaults inside it.
        result["default"] = with_defaults(_without_empty(raw["default"]), result)
    # Only a type has properties; pydantic gives fields titles too, and "tenants" would be taken for Tenants.
    if "properties" in raw and (declared := rules.RULES.get(raw.get("title", ""))):
        result[VALIDATIONS] = [_validation(rule) for rule in declared]
    return result


def _resolved(raw: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The node with its ``$ref`` and its optionality (``anyOf`` with null) folded into it; its own words win."""
    if "anyOf" in raw:
        (only,) = (part for part in raw["anyOf"] if part.get("type") != "null")
        raw = only | {key: value for key, value in raw.items() if key not in ("anyOf", "title")}
    if "$ref" in raw:
        target = definitions[raw["$ref"].rsplit("/", 1)[-1]]
        raw = target | {key: value for key, value in raw.items() if key not in ("$ref", "title")}
    return raw


def _validation(rule: rules.Rule) -> Schema:
    result = {"rule": rule.expression, "message": rule.message, "reason": "FieldValueInvalid"}
    return result | {"fieldPath": f".{rule.field}"} if rule.field else result


def _without_empty(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """A default without nulls and empty containers: absent is how Kubernetes spells those."""
    if isinstance(value, dict):
        parts = {name: _without_empty(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part not in (None, [], {})}
    if isinstance(value, list):
        return [_without_empty(part) for part in value]
    return value


def with_defaults(value: Any, node: Schema) -> Any:  # noqa: ANN401 (any JSON value)
    """A copy of an object as the API server sees it: nulls dropped, defaults of ``node`` filled in."""
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    parts = node.get("properties", {})
    result = {name: part for name, part in value.items() if part is not None or name not in parts}
    for name, part in parts.items():
        if name not in result and "default" in part:
            result[name] = copy.deepcopy(part["default"])
        if name in result:
            result[name] = with_defaults(result[name], part)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        return {name: with_defaults(part, extra) for name, part in result.items()}
    return result
