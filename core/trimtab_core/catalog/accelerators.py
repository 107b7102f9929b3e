"""The accelerators that Trimtab knows: size, speed, and by which node labels each cluster calls them.

Speeds are the vendors' data-sheet numbers: memory bandwidth, and dense (not sparse) 16-bit matrix throughput.
Node labels differ by who puts them there: NVIDIA's GPU feature discovery, GKE, Karpenter on AWS and on
Azure, EKS. A Node matches an accelerator when it has all labels of any one of its ``selectors``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Selector = Mapping[str, tuple[str, ...]]
"""Node label → its possible values; all labels must match."""

NVIDIA_RESOURCE = "nvidia.com/gpu"
"""Name of the extended resource that Nodes offer."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One type of accelerator.

    Attributes:
        name: its name in ``spec.variants[].accelerator.type``.
        memory_gib: memory of one device, in GiB.
        bandwidth_gb_per_second: memory bandwidth, in 10⁹ bytes per second.
        tflops: dense 16-bit matrix throughput, in 10¹² operations per second.
        fp8: whether it computes in 8-bit floats, which doubles that throughput.
        selectors: ways in which Nodes are labelled with it, any of which is enough.
        aliases: other spellings that users write.
        fp4: whether it computes in 4-bit floats, which doubles it again.
        link: whether devices talk to each other faster than over PCIe.
        bandwidth_reached: share of what other devices reach of their data-sheet bandwidth (fitted, see ``profiles``).
    """

    name: str
    memory_gib: float
    bandwidth_gb_per_second: float
    tflops: float
    fp8: bool
    selectors: tuple[Selector, ...]
    aliases: tuple[str, ...] = ()
    resource: str = NVIDIA_RESOURCE
    fp4: bool = False
    link: bool = True
    bandwidth_reached: float = 1.0


def _selectors(
    *,
    products: tuple[str, ...],
    gke: tuple[str, ...] = (),
    aws: str = "",
    families: tuple[str, ...] = (),
    azure: str = "",
) -> tuple[Selector, ...]:
    """The known label sets of one accelerator.

    ``families`` replaces the GPU name on AWS where that name does not tell the memory size (both A100 are ``a100``).
    """
    found: list[Selector] = [{"nvidia.com/gpu.product": (*products, *(f"{product}-SHARED" for product in products))}]
    if gke:
        found.append({"cloud.google.com/gke-accelerator": gke})
    for domain in ("karpenter.k8s.aws", "eks.amazonaws.com"):
        if families:
            found.append({f"{domain}/instance-family": families})
        elif aws:
            found.append({f"{domain}/instance-gpu-name": (aws,)})
    if azure:
        found.append({"karpenter.azure.com/sku-gpu-name": (azure,)})
    return tuple(found)


_ALL = (
    Accelerator(
        "T4", 16, 320, 65, fp8=False, link=False,
        selectors=_selectors(products=("Tesla-T4", "NVIDIA-T4"), gke=("nvidia-tesla-t4",), aws="t4", azure="T4"),
    ),
    Accelerator(
        "A10G", 24, 600, 70, fp8=False, link=False,
        selectors=_selectors(products=("NVIDIA-A10G",), aws="a10g"),
    ),
    Accelerator(
        "L4", 24, 300, 121, fp8=True, link=False,
        selectors=_selectors(products=("NVIDIA-L4",), gke=("nvidia-l4",), aws="l4"),
    ),
    Accelerator(
        "L40S", 48, 864, 362, fp8=True, link=False,
        selectors=_selectors(products=("NVIDIA-L40S",), aws="l40s"),
    ),
    Accelerator(
        "A100-40", 40, 1555, 312, fp8=False,
        selectors=_selectors(
            products=("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"), gke=("nvidia-tesla-a100",), families=("p4d",)
        ),
        aliases=("A100-40GB", "A100-SXM4-40GB"),
    ),
    Accelerator(
        "A100-80", 80, 2039, 312, fp8=False,
        selectors=_selectors(
            products=("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"), gke=("nvidia-a100-80gb",), families=("p4de",),
            azure="A100",
        ),
        aliases=("A100", "A100-80GB", "A100-SXM4-80GB"),
    ),
    Accelerator(
        "H100", 80, 3350, 989, fp8=True,
        selectors=_selectors(
            products=("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"), gke=("nvidia-h100-80gb", "nvidia-h100-mega-80gb"),
            aws="h100",
        ),
        aliases=("H100-80", "H100-80GB", "H100-SXM"),
    ),
    Accelerator(
        "H100-NVL", 94, 3938, 835, fp8=True,
        selectors=_selectors(products=("NVIDIA-H100-NVL",), azure="H100"),
        aliases=("H100-94",),
    ),
    Accelerator(
        "H200", 141, 4800, 989, fp8=True,
        selectors=_selectors(products=("NVIDIA-H200",), gke=("nvidia-h200-141gb",), aws="h200"),
        aliases=("H200-141", "H200-141GB"),
    ),
    Accelerator(
        "B200", 180, 8000, 2250, fp8=True, fp4=True, bandwidth_reached=0.84,
        selectors=_selectors(products=("NVIDIA-B200",), gke=("nvidia-b200",), aws="b200"),
        aliases=("B200-180",),
    ),
)  # fmt: skip

ACCELERATORS: Mapping[str, Accelerator] = {accelerator.name: accelerator for accelerator in _ALL}
"""Name → accelerator, slowest first."""

_BY_SPELLING = {
    spelling.lower(): accelerator for accelerator in _ALL for spelling in (accelerator.name, *accelerator.aliases)
}


def find(name: str) -> Accelerator | None:
    """The accelerator of that name or alias, in any case, with or without ``NVIDIA-`` before it."""
    return _BY_SPELLING.get(name.strip().lower().removeprefix("nvidia-"))


def suggest(name: str) -> str:
    """The known name that is most like a wrong one, or an empty text."""
    near = difflib.get_close_matches(name.lower(), _BY_SPELLING, n=1, cutoff=0.5)
    return _BY_SPELLING[near[0]].name if near else ""


def from_labels(labels: Mapping[str, str]) -> Accelerator | None:
    """The accelerator that a Node's labels name; None if they name none that is known."""
    for accelerator in _ALL:
        if any(_matches(labels, selector.items()) for selector in accelerator.selectors):
            return accelerator
    return None


def _matches(labels: Mapping[str, str], wanted: Iterable[tuple[str, tuple[str, ...]]]) -> bool:
    return all(labels.get(label) in values for label, values in wanted)
