"""List prices of GPU instances, each with its date and source, and how a variant's price is found.

A price that is not known is an error with its reason, never zero and never a made-up default: an optimiser that
believes a wrong price moves real machines. Clouds sell GPUs in instances of fixed shapes, so the price of
``count`` devices is the cheapest share of an instance that has at least that many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core.api import v1alpha1
from trimtab_core.catalog import accelerators
from trimtab_core.snapshot import Price

REGION_LABEL = "topology.kubernetes.io/region"
INSTANCE_LABEL = "node.kubernetes.io/instance-type"


@dataclass(frozen=True, slots=True)
class MissingPrice:
    """No price is known; the reason says what to write in the manifest."""

    reason: str


@dataclass(frozen=True, slots=True)
class Shape:
    """One instance type: its accelerators and what it costs per hour, on demand and as spot if that is known."""

    accelerator: str
    gpus: int
    instance: str
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None = None

    def usd_per_hour(self, capacity_type: v1alpha1.CapacityType) -> float | None:
        """What the whole instance costs when bought like that; None if unknown."""
        if capacity_type is v1alpha1.CapacityType.ON_DEMAND:
            return self.on_demand_usd_per_hour
        return self.spot_usd_per_hour if capacity_type is v1alpha1.CapacityType.SPOT else None


@dataclass(frozen=True, slots=True)
class Market:
    """The instances of one cloud in one region, as its price list had them on a day."""

    cloud: str
    region: str
    as_of: str
    source: str
    shapes: tuple[Shape, ...]


_KARPENTER_AWS = "aws/karpenter-provider-aws zz_generated.pricing_aws.go"
_KARPENTER_AZURE = "Azure/karpenter-provider-azure zz_generated.pricing.go"
_KARPENTER_GCP = "cloudpilot-ai/karpenter-provider-gcp initial-prices.json"

MARKETS = (
    Market("aws", "us-east-1", "2026-07-20", _KARPENTER_AWS, (
        Shape("T4", 1, "g4dn.xlarge", 0.526),
        Shape("T4", 4, "g4dn.12xlarge", 3.912),
        Shape("T4", 8, "g4dn.metal", 7.824),
        Shape("A10G", 1, "g5.xlarge", 1.006),
        Shape("A10G", 4, "g5.12xlarge", 5.672),
        Shape("A10G", 8, "g5.48xlarge", 16.288),
        Shape("L4", 1, "g6.xlarge", 0.8048),
        Shape("L4", 4, "g6.12xlarge", 4.6016),
        Shape("L4", 8, "g6.48xlarge", 13.3504),
        Shape("L40S", 1, "g6e.xlarge", 1.861),
        Shape("L40S", 4, "g6e.12xlarge", 10.4926),
        Shape("L40S", 8, "g6e.48xlarge", 30.1312),
        Shape("A100-40", 8, "p4d.24xlarge", 21.9576),
        Shape("A100-80", 8, "p4de.24xlarge", 27.4471),
        Shape("H100", 1, "p5.4xlarge", 6.88),
        Shape("H100", 8, "p5.48xlarge", 55.04),
        Shape("H200", 8, "p5en.48xlarge", 63.296),
        Shape("B200", 8, "p6-b200.48xlarge", 113.933),
    )),
    Market("azure", "eastus", "2026-06-18", _KARPENTER_AZURE, (
        Shape("T4", 1, "Standard_NC4as_T4_v3", 0.526),
        Shape("T4", 4, "Standard_NC64as_T4_v3", 4.352),
        Shape("A100-80", 1, "Standard_NC24ads_A100_v4", 3.673),
        Shape("A100-80", 2, "Standard_NC48ads_A100_v4", 7.346),
        Shape("A100-80", 4, "Standard_NC96ads_A100_v4", 14.692),
        Shape("H100-NVL", 1, "Standard_NC40ads_H100_v5", 6.98),
        Shape("H100-NVL", 2, "Standard_NC80adis_H100_v5", 13.96),
        Shape("H100", 8, "Standard_ND96is_H100_v5", 88.488),
    )),
    Market("gcp", "us-central1", "2026-08-06", _KARPENTER_GCP, (
        Shape("L4", 1, "g2-standard-4", 0.706832, 0.397336),
        Shape("L4", 2, "g2-standard-24", 2.00083, 1.12482),
        Shape("L4", 4, "g2-standard-48", 4.00167, 2.24963),
        Shape("L4", 8, "g2-standard-96", 8.00333, 4.49926),
        Shape("A100-40", 1, "a2-highgpu-1g", 3.67339, 1.92802),
        Shape("A100-40", 2, "a2-highgpu-2g", 7.34677, 3.85604),
        Shape("A100-40", 4, "a2-highgpu-4g", 14.6935, 7.71208),
        Shape("A100-40", 8, "a2-highgpu-8g", 29.3871, 15.4242),
        Shape("A100-80", 1, "a2-ultragpu-1g", 5.0688, 2.75955),
        Shape("A100-80", 2, "a2-ultragpu-2g", 10.1376, 5.51909),
        Shape("A100-80", 4, "a2-ultragpu-4g", 20.2752, 11.0382),
        Shape("A100-80", 8, "a2-ultragpu-8g", 40.5504, 22.0764),
        Shape("H100", 1, "a3-highgpu-1g", 11.0612, 6.32619),
        Shape("H100", 2, "a3-highgpu-2g", 22.1225, 12.6524),
        Shape("H100", 4, "a3-highgpu-4g", 44.245, 25.3048),
        Shape("H100", 8, "a3-highgpu-8g", 88.49, 50.6095),
    )),
    Market("gcp", "europe-west4", "2026-08-06", _KARPENTER_GCP, (
        Shape("L4", 1, "g2-standard-4", 0.742916, 0.38986),
        Shape("L4", 2, "g2-standard-24", 2.10297, 1.1036),
        Shape("L4", 4, "g2-standard-48", 4.20595, 2.2071),
        Shape("L4", 8, "g2-standard-96", 8.4119, 4.4142),
        Shape("A100-40", 1, "a2-highgpu-1g", 3.74797, 1.6928),
        Shape("A100-40", 8, "a2-highgpu-8g", 29.9838, 13.543),
        Shape("A100-80", 1, "a2-ultragpu-1g", 5.58092, 2.9452),
        Shape("A100-80", 8, "a2-ultragpu-8g", 44.6473, 23.562),
        Shape("H100", 1, "a3-highgpu-1g", 14.0676, 5.5148),
        Shape("H100", 8, "a3-highgpu-8g", 112.54, 44.119),
    )),
)  # fmt: skip
"""The price lists, the default of each cloud first."""

CLOUDS = tuple(dict.fromkeys(market.cloud for market in MARKETS))


def resolve(
    accelerator: str,
    capacity_type: v1alpha1.CapacityType,
    *,
    count: int = 1,
    explicit_usd_per_hour: float | None = None,
    node_labels: Mapping[str, str] | None = None,
    cloud: str = "aws",
    region: str = "",
) -> Price | MissingPrice:
    """What one replica-hour costs, or why nobody knows.

    Args:
        accelerator: name in the accelerator catalogue.
        capacity_type: how it is bought.
        count: devices of one replica.
        explicit_usd_per_hour: what the user wrote; it wins.
        node_labels: labels of a Node that runs the variant; its region and instance type are used if listed.
        cloud: whose price list to use, one of ``CLOUDS``, where no label tells.
        region: region of that cloud; its first list when empty.
    """
    if explicit_usd_per_hour is not None:
        if explicit_usd_per_hour > 0:
            return Price(explicit_usd_per_hour, "spec")
        return MissingPrice("price.usdPerHour must be above 0: write what a replica costs per hour")
    known = accelerators.find(accelerator)
    if known is None:
        near = accelerators.suggest(accelerator)
        hint = f"write {near!r}" if near else "set price.usdPerHour"
        return MissingPrice(f"accelerator {accelerator!r} is not in the catalogue: {hint}")
    if capacity_type is v1alpha1.CapacityType.RESERVED:
        return MissingPrice("reserved capacity has no list price: set price.usdPerHour to the agreed price")
    labels = node_labels or {}
    market = _market(labels.get(REGION_LABEL, ""), cloud, region)
    if market is None:
        return MissingPrice(f"the catalogue has no price list for {cloud} {region}".rstrip() + ": set price.usdPerHour")
    return _in_market(market, known.name, capacity_type, count=count, instance=labels.get(INSTANCE_LABEL, ""))


def for_variant(
    variant: v1alpha1.Variant,
    *,
    node_labels: Mapping[str, str] | None = None,
    cloud: str = "aws",
    region: str = "",
) -> Price | MissingPrice:
    """``resolve`` with what a variant's spec says."""
    return resolve(
        variant.accelerator.type,
        variant.capacity_type,
        count=variant.accelerator.count,
        explicit_usd_per_hour=float(variant.price.usd_per_hour) if variant.price else None,
        node_labels=node_labels,
        cloud=cloud,
        region=region,
    )


def _market(node_region: str, cloud: str, region: str) -> Market | None:
    """The price list of a Node's region; where that is not listed, the one asked for by argument."""
    for market in MARKETS:
        if node_region and market.region == node_region:
            return market
    for market in MARKETS:
        if market.cloud == cloud and region in ("", market.region):
            return market
    return None


def _in_market(
    market: Market, accelerator: str, capacity_type: v1alpha1.CapacityType, *, count: int, instance: str
) -> Price | MissingPrice:
    """The cheapest share of ``count`` devices, of the instance type named if the list has it."""
    offers = [shape for shape in market.shapes if shape.accelerator == accelerator and shape.gpus >= count]
    offers = [shape for shape in offers if shape.instance == instance] or offers
    priced = [
        (usd_per_hour * count / shape.gpus, shape.instance)
        for shape in offers
        if (usd_per_hour := shape.usd_per_hour(capacity_type)) is not None
    ]
    if not priced:
        kind = "spot" if capacity_type is v1alpha1.CapacityType.SPOT else "on-demand"
        return MissingPrice(
            f"no {kind} price of {count} × {accelerator} is known for {market.cloud} {market.region}: "
            "set price.usdPerHour"
        )
    usd_per_hour, name = min(priced)
    return Price(round(usd_per_hour, 6), f"catalogue {market.cloud} {market.region} {name}", market.as_of)
