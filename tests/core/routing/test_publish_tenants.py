"""A policy's tenants as a table has them: hashes, limits, the store's address, and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_core.api import v1alpha1
from trimtab_core.routing import publish_tenants, table


def part(tenants: dict[str, Any], keys: dict[str, tuple[str, ...]] | None = None) -> table.Tenants:
    spec = v1alpha1.RoutingPolicySpec.model_validate({"tiers": [{"ref": "small"}], "tenants": tenants})
    return publish_tenants.table_part(spec, keys or {}, folder="/keys")


def test_nobody_known_means_nothing_to_keep_apart() -> None:
    assert part({}) == table.Tenants()


def test_every_limit_reaches_the_table() -> None:
    limits = {
        "requestsPerMinute": 1, "tokensPerMinute": 2, "tokensPerDay": 3, "usdPerDay": "0.5", "usdPerMonth": "6",
        "concurrentRequests": 7,
    }  # fmt: skip
    made = part({"known": [{"name": "a", "limits": limits}], "defaultLimits": {"requestsPerMinute": 9}})
    assert made.known == [table.Tenant("a", limits=table.Limits(1, 2, 3, 0.5, 6.0, 7))]
    assert made.default_limits == table.Limits(requests_per_minute=9)


def test_the_short_form_of_a_monthly_budget_joins_the_other_limits() -> None:
    made = part({"known": [{"name": "a", "usdPerMonth": "5", "limits": {"requestsPerMinute": 1}}]})
    assert made.known[0].limits == table.Limits(requests_per_minute=1, usd_per_month=5.0)


@pytest.mark.parametrize(
    ("tenants", "isolate", "salt_file"),
    [
        ({"known": [{"name": "a"}]}, True, ""),
        ({"trustedHeader": True, "saltSecretRef": {"name": "s", "key": "k"}}, True, "/keys/tenants.salt"),
        ({"known": [{"name": "a"}], "prefixCaching": "Shared", "saltSecretRef": {"name": "s", "key": "k"}}, False, ""),
        ({"saltSecretRef": {"name": "s", "key": "k"}}, False, ""),
    ],
    ids=["known tenants", "a secret of its own", "shared on purpose", "nobody is told apart"],
)
def test_prefix_caches_are_kept_apart_where_tenants_are(
    tenants: dict[str, Any], *, isolate: bool, salt_file: str
) -> None:
    made = part(tenants)
    assert (made.isolate, made.salt_file) == (isolate, salt_file)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://limits", table.Store("Redis", "limits:6379")),
        ("rediss://app@limits.team.svc:7000/3", table.Store("Redis", "limits.team.svc:7000", 3, True, "app")),
        ("redis://[fd00::1]:6380", table.Store("Redis", "[fd00::1]:6380")),
    ],
)
def test_an_address_of_a_store_is_taken_apart(url: str, expected: table.Store) -> None:
    made = part({"store": {"type": "Redis", "url": url, "timeout": "50ms"}, "onStoreFailure": "Deny"}).store
    wanted = {"timeout_seconds": 0.05, "on_failure": "Deny", "routers": 10}
    assert made == type(expected)(**{**{f: getattr(expected, f) for f in expected.__struct_fields__}, **wanted})


def test_the_password_of_a_store_is_a_file() -> None:
    secret = {"name": "redis", "key": "password"}
    made = part({"store": {"type": "Redis", "url": "redis://limits", "passwordSecretRef": secret}}).store
    assert made.password_file == "/keys/limits.password"
