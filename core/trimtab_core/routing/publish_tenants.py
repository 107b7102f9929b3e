"""From a policy's tenants to the table's: hashes and file paths, never a secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import tenants
from trimtab_core.routing import table

SALT_FILE, STORE_PASSWORD_FILE = "tenants.salt", "limits.password"
"""Files beside the keys of external tiers; no tier's name has a dot."""

_PORT = "6379"


def table_part(spec: v1alpha1.RoutingPolicySpec, keys: Mapping[str, Sequence[str]], *, folder: str) -> table.Tenants:
    """The tenants of a policy as routers need them, sorted by name.

    Args:
        spec: of the policy.
        keys: tenant name → SHA-256 (hex) of its API keys; a tenant that has none here is known by no key.
        folder: of the files with secrets, as routers see it.
    """
    given = spec.tenants
    known = []
    for tenant in sorted(given.known, key=lambda each: each.name):
        first, *further = tuple(keys.get(tenant.name, ())) or ("",)
        known.append(table.Tenant(tenant.name, first, further, _own_limits(tenant)))
    isolate = given.prefix_caching is tenants.PrefixCaching.ISOLATED and bool(known or given.trusted_header)
    return table.Tenants(
        required=given.required,
        trusted_header=given.trusted_header,
        known=known,
        trusted_peers=sorted(given.trusted_peers),
        default_limits=limits(given.default_limits),
        max_output_tokens=given.max_output_tokens,
        store=store(given, folder, routers=spec.router.replicas.max),
        isolate=isolate,
        salt_file=f"{folder}/{SALT_FILE}" if isolate and given.salt_secret_ref else "",
    )


def _own_limits(tenant: tenants.Tenant) -> table.Limits | None:
    spec = tenant.limits
    if tenant.usd_per_month is not None:
        spec = (spec or tenants.TenantLimits()).model_copy(update={"usd_per_month": tenant.usd_per_month})
    return limits(spec)


def limits(spec: tenants.TenantLimits | None) -> table.Limits | None:
    """The limits of one tenant as a table has them."""
    if spec is None:
        return None
    day, month = spec.usd_per_day, spec.usd_per_month
    return table.Limits(
        requests_per_minute=spec.requests_per_minute,
        tokens_per_minute=spec.tokens_per_minute,
        tokens_per_day=spec.tokens_per_day,
        usd_per_day=units.decimal_number(day) if day is not None else None,
        usd_per_month=units.decimal_number(month) if month is not None else None,
        concurrent_requests=spec.concurrent_requests,
    )


def store(spec: tenants.Tenants, folder: str, *, routers: int) -> table.Store:
    """The store of what tenants use.

    Args:
        spec: of the policy's tenants.
        folder: of the file with the store's password.
        routers: that share the limits at most.
    """
    given = spec.store
    if given.type is tenants.LimitStoreType.MEMORY:
        return table.Store()
    found = re.match(tenants.URL_PATTERN, given.url or "")
    assert found is not None, "the schema has checked it"
    scheme, user, host, port, database = found.groups()
    return table.Store(
        kind="Redis",
        address=f"{host}:{port or _PORT}",
        database=int(database or 0),
        tls=scheme == "rediss",
        username=user or "",
        password_file=f"{folder}/{STORE_PASSWORD_FILE}" if given.password_secret_ref else "",
        timeout_seconds=units.duration_seconds(given.timeout),
        on_failure=spec.on_store_failure.value,
        routers=routers,
    )
