"""How the Prometheus operator finds engines and routers; only where its kinds exist. Pure."""

from __future__ import annotations

from typing import Any

from trimtab_operator import labels
from trimtab_operator.render import objects, router, tier

Manifest = dict[str, Any]

POD_MONITOR = "PodMonitor"
"""Optional kind: the Prometheus operator's. Pods, not Services, are scraped: a pod that is leaving still counts."""
SCRAPE_INTERVAL = "5s"


def engines(owner: objects.Owner, name: str, *, epoch: int) -> Manifest:
    """Scrapes all replicas of a tier."""
    return _monitor(owner, name, labels.engine(owner.metadata.name), port=tier.PORT_NAME, epoch=epoch)


def routers(owner: objects.Owner, name: str, *, epoch: int) -> Manifest:
    """Scrapes all routers of a policy, sidecars too."""
    return _monitor(owner, name, labels.router(owner.metadata.name), port=router.ADMIN_PORT_NAME, epoch=epoch)


def _monitor(owner: objects.Owner, name: str, selector: dict[str, str], *, port: str, epoch: int) -> Manifest:
    made = objects.frame("monitoring.coreos.com/v1", POD_MONITOR, name, owner=owner, component="monitor", epoch=epoch)
    # Router and engine series carry labels of ours that must not be overwritten by those of the scrape.
    endpoint = {"port": port, "path": "/metrics", "interval": SCRAPE_INTERVAL, "honorLabels": True}
    made["spec"] = {"selector": {"matchLabels": selector}, "podMetricsEndpoints": [endpoint]}
    return made
