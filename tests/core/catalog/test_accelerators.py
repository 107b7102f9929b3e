"""Accelerators are found by name, alias and the labels that each kind of cluster puts on its nodes."""

from __future__ import annotations

import pytest
from trimtab_core.catalog import accelerators


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("L4", "L4"),
        ("l40s", "L40S"),
        ("A100", "A100-80"),
        ("NVIDIA-H100", "H100"),
        (" h200-141gb ", "H200"),
        ("A100-40GB", "A100-40"),
    ],
)
def test_a_name_is_found_in_any_usual_spelling(spelling: str, name: str) -> None:
    found = accelerators.find(spelling)
    assert found is not None
    assert found.name == name


def test_an_unknown_name_is_not_found_but_the_nearest_is_suggested() -> None:
    assert accelerators.find("H10") is None
    assert accelerators.suggest("H10") == "H100"
    assert accelerators.suggest("quantum") == ""


NODES = [
    pytest.param({"nvidia.com/gpu.product": "NVIDIA-L4"}, "L4", id="GPU feature discovery"),
    pytest.param({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-SHARED"}, "A100-80", id="with time slicing"),
    pytest.param({"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}, "A100-40", id="GKE"),
    pytest.param({"karpenter.k8s.aws/instance-gpu-name": "l40s"}, "L40S", id="Karpenter on AWS"),
    pytest.param(
        {"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-family": "p4de"},
        "A100-80",
        id="Karpenter on AWS, A100 told apart by family",
    ),
    pytest.param({"eks.amazonaws.com/instance-gpu-name": "h100"}, "H100", id="EKS"),
    pytest.param({"karpenter.azure.com/sku-gpu-name": "T4"}, "T4", id="Karpenter on Azure"),
    pytest.param({"kubernetes.io/arch": "amd64"}, None, id="no GPU"),
]


@pytest.mark.parametrize(("labels", "name"), NODES)
def test_a_node_is_known_by_its_labels(labels: dict[str, str], name: str | None) -> None:
    found = accelerators.from_labels(labels)
    assert (found.name if found else None) == name


def test_no_label_value_means_two_accelerators() -> None:
    owners: dict[tuple[str, str], str] = {}
    for accelerator in accelerators.ACCELERATORS.values():
        for selector in accelerator.selectors:
            for label, values in selector.items():
                for value in values:
                    assert owners.setdefault((label, value), accelerator.name) == accelerator.name


def test_every_accelerator_is_found_by_each_of_its_selectors() -> None:
    for accelerator in accelerators.ACCELERATORS.values():
        for selector in accelerator.selectors:
            labels = {label: values[0] for label, values in selector.items()}
            assert accelerators.from_labels(labels) == accelerator
