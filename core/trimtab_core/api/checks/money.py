"""Prices that nobody knows, and budgets that can't hold."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab_core import units
from trimtab_core.api import findings, v1alpha1
from trimtab_core.api.checks.manifests import Manifests, Market
from trimtab_core.catalog import prices
from trimtab_core.snapshot import Price


def missing_prices(manifests: Manifests, market: Market) -> Iterator[findings.Finding]:
    """Variants that may run and whose price is neither given nor in the catalogue."""
    for entry in manifests.tiers:
        for index, variant in enumerate(entry.object.spec.variants):
            if variant.replicas.max == 0:
                continue
            found = prices.for_variant(variant, cloud=market.cloud, region=market.region)
            if isinstance(found, prices.MissingPrice):
                problem, _, fix = found.reason.partition(": ")
                path = ("spec", "variants", index, "price" if variant.price else "name")
                yield entry.finding("price-missing", path, problem, fix)


def budgets_below_minimum(manifests: Manifests, market: Market) -> Iterator[findings.Finding]:
    """Budgets that the replicas which always run use up alone."""
    for policy in manifests.policies:
        budget = policy.object.spec.budget
        if budget is None:
            continue
        usd_per_hour = sum(_minimum_usd_per_hour(tier, market) for tier in manifests.tiers_of(policy).values())
        for field, limit, least in (
            ("usdPerHour", budget.usd_per_hour, usd_per_hour),
            ("usdPerMonth", budget.usd_per_month, usd_per_hour * units.HOURS_PER_MONTH),
        ):
            if limit is not None and least > units.decimal_number(limit):
                problem = f"the replicas that always run cost {units.format_usd(least)} in that time"
                fix = f'write at least "{least:.2f}", or lower replicas.min'
                yield policy.finding("budget-below-minimum", ("spec", "budget", field), problem, fix)


def _minimum_usd_per_hour(tier: v1alpha1.InferenceTier, market: Market) -> float:
    """What the minimum replicas of a tier cost; variants without a known price are a finding of their own."""
    total = 0.0
    for variant in tier.spec.variants:
        found = prices.for_variant(variant, cloud=market.cloud, region=market.region)
        if isinstance(found, Price):
            total += variant.replicas.min * found.usd_per_hour
    return total
