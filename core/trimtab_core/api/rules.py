"""The CEL rules of the CRDs, as data: everything that one object alone can tell.

The API server evaluates them on ``kubectl apply --dry-run=server``, ``trimtab validate`` evaluates the same
text offline. So a rule uses only what both understand: standard CEL (no Kubernetes extension libraries),
and every message says what to change. Defaults are in place when a rule runs; an optional field without
a default needs ``has``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import cache_policy, fields, inference_tier, resilience, routing_policy, tenants


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on every object of one type.

    Attributes:
        expression: CEL that must be true; ``self`` is the object.
        message: what is wrong, a colon, and what to change.
        field: name of the field at fault inside ``self``, or empty when it is the object itself.
    """

    expression: str
    message: str
    field: str = ""


_NAMES = (
    Rule(
        "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 40 lower-case letters, digits and dashes: other names are made from it",
    ),
)

_SHARED: dict[type[fields.ApiModel], tuple[Rule, ...]] = {
    fields.Percentile: (
        Rule("duration(self.p95) > duration('0s')", "p95 must be above 0: write such as 800ms", "p95"),
    ),
    fields.LatencySlo: (
        Rule(
            "has(self.ttft) || has(self.itl) || has(self.e2e)",
            "an SLO must promise something: set ttft.p95, itl.p95 or e2e.p95",
        ),
        Rule(
            "!has(self.ttft) || !has(self.e2e) || duration(self.ttft.p95) < duration(self.e2e.p95)",
            "ttft.p95 must be below e2e.p95: the first byte comes before the last; lower ttft or raise e2e",
            "ttft",
        ),
        Rule(
            "!has(self.itl) || !has(self.e2e) || duration(self.itl.p95) < duration(self.e2e.p95)",
            "itl.p95 must be below e2e.p95: lower itl or raise e2e",
            "itl",
        ),
        Rule("double(self.attainment) > 0.0", "attainment must be above 0: write such as '0.95'", "attainment"),
    ),
}

_TIER: dict[type[fields.ApiModel], tuple[Rule, ...]] = {
    v1alpha1.InferenceTier: _NAMES,
    inference_tier.ServedModel: (
        Rule("double(self.quality) > 0.0", "quality must be above 0: a tier of quality 0 answers nothing", "quality"),
    ),
    inference_tier.HourlyPrice: (
        Rule(
            "double(self.usdPerHour) > 0.0",
            "usdPerHour must be above 0: write what a replica costs, or leave price out to have it resolved",
            "usdPerHour",
        ),
    ),
    inference_tier.ReplicaBounds: (
        Rule("self.min <= self.max", "min must not be above max: lower min or raise max", "min"),
    ),
    inference_tier.TokenPrice: (
        Rule(
            "!has(self.cachedInputUsdPerMillionTokens) || "
            "double(self.cachedInputUsdPerMillionTokens) <= double(self.inputUsdPerMillionTokens)",
            "cached input must not cost more than input: swap the two prices",
            "cachedInputUsdPerMillionTokens",
        ),
    ),
    inference_tier.InferenceTierSpec: (
        Rule(
            "(has(self.variants) && size(self.variants) > 0) != has(self.external)",
            "exactly one of variants and external is needed: variants for own replicas, external for a provider",
        ),
        Rule(
            "!has(self.variants) || size(self.variants) == 0 || self.variants.exists(v, v.replicas.max > 0)",
            "no variant may run: raise replicas.max of at least one variant above 0",
            "variants",
        ),
        Rule(
            "!has(self.scaling.scaleToZero) || !has(self.variants) || self.variants.all(v, v.replicas.min == 0)",
            "scaleToZero needs replicas.min 0 on every variant: set them to 0 or remove scaleToZero",
            "scaling",
        ),
        Rule(
            "!has(self.scaling.scaleToZero) || !has(self.external)",
            "scaleToZero has no meaning for an external API: remove scaleToZero",
            "scaling",
        ),
    ),
    inference_tier.Scaling: (
        Rule(
            "!has(self.scaleToZero) || self.actuator != 'HPA'",
            "an HPA keeps at least one replica: choose actuator Direct or KEDA, or remove scaleToZero",
            "actuator",
        ),
    ),
    inference_tier.ScaleToZero: (
        Rule("duration(self.after) > duration('0s')", "after must be above 0: write such as 10m", "after"),
    ),
}

_POLICY: dict[type[fields.ApiModel], tuple[Rule, ...]] = {
    v1alpha1.RoutingPolicy: _NAMES,
    routing_policy.ComplexityRange: (
        Rule(
            "double(self.min) < double(self.max)",
            "complexity.min must be below complexity.max: an empty range matches no request",
            "min",
        ),
    ),
    routing_policy.ClassMatch: (
        Rule(
            "!has(self.headers) || self.headers.all(name, name.matches('^[a-z0-9-]+$'))",
            "header names must be in lower case (letters, digits, dashes): they are compared that way",
            "headers",
        ),
    ),
    routing_policy.RequestClass: (
        Rule(
            "!has(self.match.sensitive) || !self.match.sensitive || (has(self.allow) && size(self.allow) > 0)",
            "a sensitive class must list the tiers that may see its requests: set allow",
            "allow",
        ),
        Rule(
            "!has(self.match.sensitive) || !self.match.sensitive || self.onUnavailable == 'Reject'",
            "a sensitive class must fail closed: set onUnavailable to Reject",
            "onUnavailable",
        ),
    ),
    routing_policy.Budget: (
        Rule(
            "has(self.usdPerHour) || has(self.usdPerMonth)",
            "a budget needs a ceiling: set usdPerHour, usdPerMonth or both",
        ),
        Rule(
            "!has(self.usdPerHour) || double(self.usdPerHour) > 0.0",
            "usdPerHour must be above 0: write such as '40'",
            "usdPerHour",
        ),
        Rule(
            "!has(self.usdPerMonth) || double(self.usdPerMonth) > 0.0",
            "usdPerMonth must be above 0: write such as '20000'",
            "usdPerMonth",
        ),
        Rule(
            "!has(self.usdPerHour) || !has(self.usdPerMonth) || double(self.usdPerMonth) >= double(self.usdPerHour)",
            "usdPerMonth would be used up in less than one hour at usdPerHour: raise it or lower usdPerHour",
            "usdPerMonth",
        ),
        Rule(
            "!('Reject' in self.whenExceeded) || self.whenExceeded[size(self.whenExceeded) - 1] == 'Reject'",
            "Reject must come last in whenExceeded: nothing is left to degrade after it",
            "whenExceeded",
        ),
    ),
    tenants.TenantLimits: (
        Rule(
            "!has(self.usdPerDay) || double(self.usdPerDay) > 0.0",
            "limits.usdPerDay must be above 0: write such as '20'",
            "usdPerDay",
        ),
        Rule(
            "!has(self.usdPerMonth) || double(self.usdPerMonth) > 0.0",
            "limits.usdPerMonth must be above 0: write such as '500'",
            "usdPerMonth",
        ),
        Rule(
            "has(self.requestsPerMinute) || has(self.tokensPerMinute) || has(self.tokensPerDay) || "
            "has(self.usdPerDay) || has(self.usdPerMonth) || has(self.concurrentRequests)",
            "limits must limit something: set one of them or remove limits",
        ),
    ),
    tenants.Tenant: (
        Rule(
            "!has(self.usdPerMonth) || !has(self.limits) || !has(self.limits.usdPerMonth)",
            "usdPerMonth is given twice: keep limits.usdPerMonth and remove the other",
            "usdPerMonth",
        ),
        Rule(
            "!has(self.furtherKeySecretRefs) || size(self.furtherKeySecretRefs) == 0 || has(self.apiKeySecretRef)",
            "furtherKeySecretRefs come beside a first key: set apiKeySecretRef",
            "furtherKeySecretRefs",
        ),
    ),
    tenants.LimitStore: (
        Rule(
            "self.type != 'Redis' || has(self.url)",
            "a shared store of limits needs url: write such as redis://limits:6379/0",
            "url",
        ),
        Rule(
            "self.type == 'Redis' || (!has(self.url) && !has(self.passwordSecretRef))",
            "limits in memory have no url and no password: set type to Redis or remove them",
        ),
        Rule("duration(self.timeout) > duration('0s')", "timeout must be above 0: write such as 100ms", "timeout"),
    ),
    tenants.Tenants: (
        Rule(
            "!self.required || self.trustedHeader || "
            "(has(self.known) && self.known.exists(tenant, has(tenant.apiKeySecretRef)))",
            "required would refuse every request: give a known tenant an apiKeySecretRef, or set trustedHeader",
            "required",
        ),
        Rule(
            "!has(self.trustedPeers) || size(self.trustedPeers) == 0 || self.trustedHeader",
            "trustedPeers say whose X-Trimtab-Tenant is believed: set trustedHeader or remove them",
            "trustedPeers",
        ),
    ),
    resilience.Hedging: (
        Rule(
            "double(self.quantile) >= 0.5 && double(self.quantile) < 1.0",
            "quantile must be from 0.5 to below 1, or nearly every request is asked twice: write such as '0.95'",
            "quantile",
        ),
    ),
    resilience.Queue: (
        Rule(
            "double(self.startAt) >= 1.0",
            "startAt must be at least 1, or engines stand idle while requests wait: write such as '2.0'",
            "startAt",
        ),
        Rule("duration(self.maxWait) > duration('0s')", "maxWait must be above 0: write such as 10s", "maxWait"),
    ),
    resilience.Breaker: (
        Rule("double(self.failureRatio) > 0.0", "failureRatio must be above 0: write such as '0.5'", "failureRatio"),
        Rule("duration(self.window) > duration('0s')", "window must be above 0: write such as 10s", "window"),
    ),
    resilience.RetryBudget: (
        Rule("duration(self.window) > duration('0s')", "window must be above 0: write such as 10s", "window"),
    ),
    resilience.Resilience: (
        Rule(
            "duration(self.connectTimeout) <= duration(self.firstByteTimeout)",
            "connectTimeout must not be above firstByteTimeout: lower it or raise firstByteTimeout",
            "connectTimeout",
        ),
        Rule(
            "duration(self.firstByteTimeout) <= duration(self.totalTimeout)",
            "firstByteTimeout must not be above totalTimeout: lower it or raise totalTimeout",
            "firstByteTimeout",
        ),
        Rule(
            "duration(self.connectTimeout) > duration('0s')",
            "connectTimeout must be above 0: write such as 2s",
            "connectTimeout",
        ),
        Rule(
            "duration(self.idleTimeout) > duration('0s')",
            "idleTimeout must be above 0: write such as 30s",
            "idleTimeout",
        ),
        Rule(
            "duration(self.stallAfter) > duration('0s')", "stallAfter must be above 0: write such as 5s", "stallAfter"
        ),
        Rule(
            "duration(self.answerTimeout) > duration('0s')",
            "answerTimeout must be above 0: write such as 5m",
            "answerTimeout",
        ),
    ),
    routing_policy.Retune: (
        Rule(
            "duration(self.interval) >= duration('1s')", "interval must be at least 1s: write such as 15s", "interval"
        ),
        Rule(
            "double(self.maxWeightStep) > 0.0",
            "maxWeightStep must be above 0, or weights never move: write such as '0.10'",
            "maxWeightStep",
        ),
    ),
    routing_policy.RouterReplicas: (
        Rule("self.min <= self.max", "min must not be above max: lower min or raise max", "min"),
    ),
    routing_policy.RoutingPolicySpec: (
        Rule(
            "self.classes.all(c, !has(c.allow) || c.allow.all(name, self.tiers.exists(t, t.ref == name)))",
            "a class allows a tier that the policy does not list: add it to spec.tiers or remove it from allow",
            "classes",
        ),
        Rule(
            "!has(self.baselineTier) || self.tiers.exists(t, t.ref == self.baselineTier)",
            "baselineTier is not among spec.tiers: add it there or name one of them",
            "baselineTier",
        ),
        Rule(
            "self.tenants.store.type == 'Redis' || (self.router.mode == 'Gateway' && self.router.replicas.max == 1) || "
            "(!has(self.tenants.defaultLimits) && (!has(self.tenants.known) || "
            "self.tenants.known.all(t, !has(t.limits) && !has(t.usdPerMonth))))",
            "limits of tenants kept in memory hold for one router only: "
            "set tenants.store to a Redis, or router.replicas.max to 1",
            "tenants",
        ),
        Rule(
            "double(self.retune.probeShare) * double(size(self.tiers)) <= 1.0",
            "probeShare times the number of tiers is above 1: lower retune.probeShare",
            "retune",
        ),
    ),
}

_CACHE: dict[type[fields.ApiModel], tuple[Rule, ...]] = {
    v1alpha1.CachePolicy: _NAMES,
    cache_policy.CacheStore: (
        Rule(
            "self.type != 'Redis' || has(self.url)",
            "a Redis store needs url: write such as redis://cache:6379/0",
            "url",
        ),
        Rule(
            "self.type == 'Redis' || !has(self.url)",
            "a Memory store has no url: set type to Redis or remove url",
            "url",
        ),
        Rule(
            "self.type == 'Redis' || !has(self.passwordSecretRef)",
            "a Memory store has no password: set type to Redis or remove passwordSecretRef",
            "passwordSecretRef",
        ),
    ),
    cache_policy.SemanticCache: (
        Rule(
            "!self.enabled || (double(self.maxWrongAnswerRate) > 0.0 && double(self.maxWrongAnswerRate) <= 0.5)",
            "maxWrongAnswerRate must be above 0 and at most 0.5: no finite sample proves a rate of 0",
            "maxWrongAnswerRate",
        ),
        Rule(
            "!self.enabled || double(self.shadowSample) > 0.0",
            "the semantic cache measures its wrong answers: set shadowSample above 0 or enabled to false",
            "shadowSample",
        ),
    ),
    cache_policy.CachePolicySpec: (
        Rule(
            "duration(self.ttl) > duration('0s')",
            "ttl must be above 0: to switch off, disable exact and semantic",
            "ttl",
        ),
    ),
}

RULES: Mapping[str, tuple[Rule, ...]] = {
    model.__name__: rules for table in (_SHARED, _TIER, _POLICY, _CACHE) for model, rules in table.items()
}
"""Name of the API type → its rules."""
