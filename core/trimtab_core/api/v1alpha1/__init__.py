"""``inference.trimtab.dev/v1alpha1``: the three kinds, with their specs and statuses."""

from trimtab_core.api.v1alpha1.cache_policy import CachePolicy, CachePolicySpec, CachePolicyStatus
from trimtab_core.api.v1alpha1.fields import API_VERSION, GROUP, VERSION, LatencySlo
from trimtab_core.api.v1alpha1.inference_tier import (
    Actuator,
    CapacityType,
    InferenceTier,
    InferenceTierSpec,
    InferenceTierStatus,
    Management,
    Profile,
    Variant,
)
from trimtab_core.api.v1alpha1.routing_policy import (
    OnUnavailable,
    RequestClass,
    RouterMode,
    RoutingPolicy,
    RoutingPolicySpec,
    RoutingPolicyStatus,
)

KINDS: dict[str, type[InferenceTier] | type[RoutingPolicy] | type[CachePolicy]] = {
    "InferenceTier": InferenceTier,
    "RoutingPolicy": RoutingPolicy,
    "CachePolicy": CachePolicy,
}
"""Kind name → type, in the order in which users should create them."""

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Actuator",
    "CachePolicy",
    "CachePolicySpec",
    "CachePolicyStatus",
    "CapacityType",
    "InferenceTier",
    "InferenceTierSpec",
    "InferenceTierStatus",
    "LatencySlo",
    "Management",
    "OnUnavailable",
    "Profile",
    "RequestClass",
    "RouterMode",
    "RoutingPolicy",
    "RoutingPolicySpec",
    "RoutingPolicyStatus",
    "Variant",
]
