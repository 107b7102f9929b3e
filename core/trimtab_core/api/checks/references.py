"""Names that must lead somewhere, and names that must be given only once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trimtab_core import units
from trimtab_core.api import findings
from trimtab_core.api.checks.manifests import AnyEntry, Manifests, classes_of


def duplicate_names(manifests: Manifests) -> Iterator[findings.Finding]:
    """Two objects of one kind, namespace and name: the second would overwrite the first."""
    seen: dict[tuple[str, str, str], str] = {}
    for entry in manifests.entries:
        key = (entry.object.kind, entry.namespace, entry.name)
        if key in seen:
            problem = f"{seen[key]} has an object of this kind and name already"
            yield entry.finding("duplicate-name", ("metadata", "name"), problem, "rename one of the two")
        else:
            line = entry.document.line(("metadata", "name"))
            seen[key] = f"{entry.document.file}:{line}"


def missing_tiers(manifests: Manifests) -> Iterator[findings.Finding]:
    """Tiers that a policy names and nobody defines."""
    for policy in manifests.policies:
        known = manifests.names("InferenceTier", policy.namespace)
        for index, tier in enumerate(policy.object.spec.tiers):
            if tier.ref not in known:
                problem = f"there is no InferenceTier of this name in namespace {policy.namespace}"
                path = ("spec", "tiers", index, "ref")
                yield policy.finding("tier-not-found", path, problem, _did_you_mean(tier.ref, known, "tier"))


def missing_caches(manifests: Manifests) -> Iterator[findings.Finding]:
    """Cache policies that a policy names and nobody defines."""
    for policy in manifests.policies:
        ref, known = policy.object.spec.cache, manifests.names("CachePolicy", policy.namespace)
        if ref is not None and ref.ref not in known:
            problem = f"there is no CachePolicy of this name in namespace {policy.namespace}"
            path = ("spec", "cache", "ref")
            yield policy.finding("cache-not-found", path, problem, _did_you_mean(ref.ref, known, "cache"))


def models_claimed_twice(manifests: Manifests) -> Iterator[findings.Finding]:
    """Model names that two policies of a namespace answer: a client could not tell which one serves it."""
    owners: dict[tuple[str, str], str] = {}
    for policy in manifests.policies:
        for index, model in enumerate(policy.object.spec.models):
            owner = owners.setdefault((policy.namespace, model), policy.name)
            if owner != policy.name:
                problem = f"RoutingPolicy/{owner} answers to this model name already"
                path = ("spec", "models", index)
                yield policy.finding("model-claimed-twice", path, problem, "rename it in one of the two policies")


def shared_cache_for_sensitive(manifests: Manifests) -> Iterator[findings.Finding]:
    """A cache that gives one tenant's answers to others, on a policy that has sensitive requests."""
    for policy in manifests.policies:
        ref = policy.object.spec.cache
        cache = manifests.cache(policy.namespace, ref.ref) if ref else None
        sensitive = [c.name for c in policy.object.spec.classes if c.match.sensitive]
        if cache is not None and sensitive and cache.spec.scope == "Shared":
            problem = f"class {sensitive[0]} is sensitive, and this cache shares answers between tenants"
            fix = "set its scope to Tenant, or use another cache"
            yield policy.finding("shared-cache", ("spec", "cache", "ref"), problem, fix)


def unreachable_quality(manifests: Manifests) -> Iterator[findings.Finding]:
    """Classes that ask for better answers than any of their tiers gives."""
    for policy in manifests.policies:
        for path, request_class in classes_of(policy):
            tiers = manifests.allowed(policy, request_class)
            if request_class.min_quality is None or not tiers:
                continue
            name, best = max(tiers.items(), key=lambda item: units.ratio(item[1].spec.model.quality))
            if units.ratio(request_class.min_quality) > units.ratio(best.spec.model.quality):
                problem = f"the best allowed tier, {name}, has quality {best.spec.model.quality}"
                fix = f'write "{best.spec.model.quality}" or less, or allow a better tier'
                yield policy.finding("quality-unreachable", (*path, "minQuality"), problem, fix)


def wrong_templates(manifests: Manifests) -> Iterator[findings.Finding]:
    """Patches of a pod template that are not shaped like one: they would change nothing."""
    for tier in manifests.tiers:
        yield from _wrong_template(tier, ("spec", "engine", "podTemplate"), tier.object.spec.engine.pod_template)
    for policy in manifests.policies:
        yield from _wrong_template(policy, ("spec", "router", "podTemplate"), policy.object.spec.router.pod_template)


def _wrong_template(
    entry: AnyEntry, path: findings.Path, patch: Mapping[str, Any] | None
) -> Iterator[findings.Finding]:
    for name in patch or {}:
        if name not in ("metadata", "spec"):
            problem, fix = "a pod template has metadata and spec only", "move it below podTemplate.spec"
            yield entry.finding("wrong-template", (*path, name), problem, fix)


def _did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"write one of {', '.join(names)}" if names else f"define the {what} in the same files"
