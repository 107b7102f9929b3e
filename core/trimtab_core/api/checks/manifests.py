"""The set of objects that are checked together, each with the document that it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from trimtab_core.api import findings, v1alpha1
from trimtab_core.api.documents import Document
from trimtab_core.api.schema_check import ApiObject

Kind = TypeVar("Kind", bound=ApiObject)


@dataclass(frozen=True, slots=True)
class Entry(Generic[Kind]):
    """One object and its document."""

    object: Kind
    document: Document

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return self.object.metadata.namespace

    @property
    def name(self) -> str:
        """The object's name."""
        return self.object.metadata.name

    def finding(self, code: str, path: findings.Path, problem: str, fix: str) -> findings.Finding:
        """A finding about one of its fields."""
        return self.document.finding(code, path, problem, fix)


AnyEntry = Entry[v1alpha1.InferenceTier] | Entry[v1alpha1.RoutingPolicy] | Entry[v1alpha1.CachePolicy]


@dataclass(frozen=True, slots=True)
class Market:
    """Where prices come from for variants that state none; see ``catalog.prices.resolve``."""

    cloud: str = "aws"
    region: str = ""


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything that was read, in the order of reading.

    Attributes:
        tiers, policies, caches: the objects that are right in themselves.
        broken: (kind, namespace, name) of the others: they exist, and what is wrong with them has been said.
    """

    tiers: tuple[Entry[v1alpha1.InferenceTier], ...] = ()
    policies: tuple[Entry[v1alpha1.RoutingPolicy], ...] = ()
    caches: tuple[Entry[v1alpha1.CachePolicy], ...] = ()
    broken: frozenset[tuple[str, str, str]] = frozenset()

    def names(self, kind: str, namespace: str) -> list[str]:
        """The names of one kind in one namespace, broken objects included."""
        right = [e.name for e in self.entries if (e.object.kind, e.namespace) == (kind, namespace)]
        return right + sorted(name for k, n, name in self.broken if (k, n) == (kind, namespace))

    @property
    def entries(self) -> tuple[AnyEntry, ...]:
        """All objects, tiers first."""
        return (*self.tiers, *self.policies, *self.caches)

    def tier(self, namespace: str, name: str) -> v1alpha1.InferenceTier | None:
        """The tier of that name, or None."""
        return next((e.object for e in self.tiers if (e.namespace, e.name) == (namespace, name)), None)

    def cache(self, namespace: str, name: str) -> v1alpha1.CachePolicy | None:
        """The cache policy of that name, or None."""
        return next((e.object for e in self.caches if (e.namespace, e.name) == (namespace, name)), None)

    def tiers_of(self, policy: Entry[v1alpha1.RoutingPolicy]) -> dict[str, v1alpha1.InferenceTier]:
        """Those tiers of a policy that were read too, in the policy's order."""
        names = [ref.ref for ref in policy.object.spec.tiers]
        return {name: tier for name in names if (tier := self.tier(policy.namespace, name)) is not None}

    def allowed(
        self, policy: Entry[v1alpha1.RoutingPolicy], request_class: v1alpha1.RequestClass
    ) -> dict[str, v1alpha1.InferenceTier] | None:
        """The tiers that may serve a class; None if one of them was not read or is broken, so that nothing is sure."""
        names = request_class.allow or [ref.ref for ref in policy.object.spec.tiers]
        tiers = self.tiers_of(policy)
        return {name: tiers[name] for name in names} if all(name in tiers for name in names) else None


def classes_of(
    policy: Entry[v1alpha1.RoutingPolicy],
) -> Iterator[tuple[findings.Path, v1alpha1.RequestClass]]:
    """The classes of a policy with their paths."""
    for index, request_class in enumerate(policy.object.spec.classes):
        yield ("spec", "classes", index), request_class
