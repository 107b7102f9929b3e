"""Runs every check on a set of manifests."""

from __future__ import annotations

from trimtab_core.api import findings
from trimtab_core.api.checks import feasibility, money, reachability, references
from trimtab_core.api.checks.manifests import Manifests, Market

_ON_OBJECTS = (
    references.duplicate_names,
    references.missing_tiers,
    references.missing_caches,
    references.models_claimed_twice,
    references.shared_cache_for_sensitive,
    references.unreachable_quality,
    references.wrong_templates,
    reachability.unreachable_classes,
    feasibility.unknown_profiles,
    feasibility.infeasible_slos,
)
_ON_MARKET = (money.missing_prices, money.budgets_below_minimum)


def check(manifests: Manifests, market: Market) -> list[findings.Finding]:
    """Everything that is wrong between the objects, in no particular order."""
    found = [finding for each in _ON_OBJECTS for finding in each(manifests)]
    return found + [finding for each in _ON_MARKET for finding in each(manifests, market)]
