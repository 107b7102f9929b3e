"""Classes that no request can ever reach: the first class that matches takes a request, so order matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab_core import units
from trimtab_core.api import findings, v1alpha1
from trimtab_core.api.checks.manifests import Entry, Manifests, classes_of
from trimtab_core.api.v1alpha1 import routing_policy

Range = tuple[float, float]


def unreachable_classes(manifests: Manifests) -> Iterator[findings.Finding]:
    """Classes that contradict their policy, or whose requests earlier classes take all."""
    for policy in manifests.policies:
        spec, earlier = policy.object.spec, list[v1alpha1.RequestClass]()
        for path, request_class in classes_of(policy):
            yield from _contradictions(policy, path, request_class)
            takers = _takers(request_class, earlier)
            if takers:
                problem = f"it can never match: {' and '.join(takers)} before it take all its requests"
                yield policy.finding("class-never-matches", (*path, "name"), problem, _fix(request_class, takers))
            earlier.append(request_class)
        if not any(_matches_all(request_class) for request_class in spec.classes) and not _covers_all(spec.classes):
            problem = "a request that matches none of these classes is refused"
            fix = "add a last class {name: default, match: {}}"
            yield policy.finding("no-default-class", ("spec", "classes"), problem, fix)


def _contradictions(
    policy: Entry[v1alpha1.RoutingPolicy], path: findings.Path, request_class: v1alpha1.RequestClass
) -> Iterator[findings.Finding]:
    """Parts of a match that the rest of the policy rules out."""
    spec, match = policy.object.spec, request_class.match
    if match.models and not set(match.models) & set(spec.models):
        problem = f"it can never match: the policy answers only to {', '.join(spec.models)}"
        fix = "name one of those, or add the model to spec.models"
        yield policy.finding("class-never-matches", (*path, "match", "models"), problem, fix)
    known = {tenant.name for tenant in spec.tenants.known}
    if match.tenants and not spec.tenants.trusted_header and not set(match.tenants) & known:
        problem = "it can never match: none of these tenants is in spec.tenants.known"
        fix = "add the tenant there with its apiKeySecretRef, or set spec.tenants.trustedHeader"
        yield policy.finding("class-never-matches", (*path, "match", "tenants"), problem, fix)


def _takers(request_class: v1alpha1.RequestClass, earlier: Sequence[v1alpha1.RequestClass]) -> list[str]:
    """Names of earlier classes that together take every request of this one; empty if some are left."""
    wider = [other for other in earlier if _is_wider(other.match, request_class.match)]
    wanted = _range(request_class.match)
    for other in wider:
        low, high = _range(other.match)
        if low <= wanted[0] and wanted[1] <= high:
            return [other.name]
    return [other.name for other in wider] if _covered(wanted, [_range(other.match) for other in wider]) else []


def _is_wider(outer: routing_policy.ClassMatch, inner: routing_policy.ClassMatch) -> bool:
    """Whether every request that matches ``inner`` matches ``outer``, complexity aside."""
    return (
        outer.sensitive in (None, inner.sensitive)
        and outer.priority in (None, inner.priority)
        and (not outer.models or (bool(inner.models) and set(inner.models) <= set(outer.models)))
        and (not outer.tenants or (bool(inner.tenants) and set(inner.tenants) <= set(outer.tenants)))
        and outer.headers.items() <= inner.headers.items()
    )


def _matches_all(request_class: v1alpha1.RequestClass) -> bool:
    match = request_class.match
    return _is_wider(match, routing_policy.ClassMatch()) and _range(match) == (0.0, 1.0)


def _covers_all(classes: Sequence[v1alpha1.RequestClass]) -> bool:
    everything = routing_policy.ClassMatch()
    return _covered((0.0, 1.0), [_range(c.match) for c in classes if _is_wider(c.match, everything)])


def _range(match: routing_policy.ClassMatch) -> Range:
    if match.complexity is None:
        return 0.0, 1.0
    return units.ratio(match.complexity.min), units.ratio(match.complexity.max)


def _covered(wanted: Range, ranges: Sequence[Range]) -> bool:
    """Whether the ranges together hold all of ``wanted``."""
    reached = wanted[0]
    for low, high in sorted(ranges):
        if low > reached:
            break
        reached = max(reached, high)
    return bool(ranges) and reached >= wanted[1]


def _fix(request_class: v1alpha1.RequestClass, takers: Sequence[str]) -> str:
    if _matches_all(request_class):
        return f"remove it, or narrow the match of {takers[0]}"
    return f"move it above {takers[0]}, or remove it"
