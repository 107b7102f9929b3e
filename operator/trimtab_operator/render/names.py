"""Names of rendered objects: derived from their owner's name, never random, never two the same.

A tier and its variant are joined by two hyphens, so that tier ``a-b`` with variant ``c`` and tier ``a`` with variant
``b-c`` stay apart; other objects have a fixed ending. What is too long, or holds what a DNS label can't, is cut and
told apart by a hash of the whole.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 52
"""A DNS label has 63 characters; Kubernetes adds ``-`` and 10 for a ReplicaSet's hash to what pods inherit."""
LABEL_LENGTH = 63
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def join(*parts: str, by: str = "--") -> str:
    """A DNS label that no other sequence of parts gives (with ``-`` between: none with the same last part)."""
    name = by.join(parts)
    if _LABEL.fullmatch(name) and len(name) <= LONGEST and not any("--" in part for part in parts):
        return name
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    cut = re.sub(r"[^-a-z0-9]", "-", name)[: LONGEST - len(digest) - 3].strip("-")
    return f"x{cut}-{digest}" if not cut[:1].isalpha() else f"{cut}-{digest}"


def engines(tier: str, variant: str) -> str:
    """Deployment, disruption budget and autoscaler of one variant."""
    return join(tier, variant)


def engine_service(tier: str) -> str:
    """The headless Service over all replicas of a tier."""
    return join(tier, "engines", by="-")


def router(policy: str) -> str:
    """Deployment, Service, disruption budget and autoscaler of a policy's router."""
    return join(policy, "router", by="-")


def table(policy: str) -> str:
    """The ConfigMap that holds a policy's routing table."""
    return join(policy, "table", by="-")


def target(namespace: str, deployment: str) -> str:
    """A Deployment among all namespaces, as a label value that selectors can match (63 characters, no slash)."""
    name = f"{deployment}.{namespace}"
    return name if len(name) <= LABEL_LENGTH else f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.trimtab"


def sidecar(policy: str) -> str:
    """The ConfigMap that holds the router as a sidecar of other pods."""
    return join(policy, "sidecar", by="-")
