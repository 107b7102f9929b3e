"""Fixtures: one real control plane, with made GPU nodes and a pod runner, for the whole test session.

`control_plane` has at least an API server; `cluster` also runs Deployments as pods; `pod_runner` is a cluster whose pods are local
processes. Each skips with the reason where that cannot be had.
"""

import collections.abc
import functools
import os
import pathlib
import sys

import pytest

from . import binaries, external, local, session
from .pod_runner import images, nodes

TRIMTAB = (sys.executable, "-m", "trimtab_cli.main")
ENGINE = (*TRIMTAB, "engine-sim")
ENGINE_WORDS = ("vllm serve", "python3 -m vllm.entrypoints.openai.api_server")
PYTHON = (sys.executable,)
IMAGES = [
    images.Image("vllm/vllm-openai*", ENGINE, dict.fromkeys(ENGINE_WORDS, ENGINE)),
    images.Image("*trimtab*", TRIMTAB, {"trimtab": TRIMTAB}),
    images.Image("python*", PYTHON, {"python": PYTHON, "python3": PYTHON}),
    images.Image("busybox*", ("sh",)),
]
NODES = [
    nodes.NodeSpec("cpu-1"),
    nodes.NodeSpec("l4-1", gpus=2, labels={"nvidia.com/gpu.product": "NVIDIA-L4"}),
    nodes.NodeSpec("a100-1", gpus=4, labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}),
]


@functools.cache
def _binaries() -> binaries.Binaries | binaries.UnavailableError:
    try:
        binaries.check_machine()
        return binaries.find()
    except binaries.UnavailableError as error:
        return error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests on a real control plane more time than the suite's limit for one test."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane, where that is wanted, before any test's time limit runs."""
    chosen = any(item.get_closest_marker("cluster") for item in session.items)
    if chosen and not session.config.option.collectonly and "TRIMTAB_TEST_KUBECONFIG" not in os.environ:
        _binaries()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[session.Cluster]:
    """A cluster with at least an API server: for schemas, admission, RBAC."""
    folder = tmp_path_factory.mktemp("cluster")
    made = _external(folder) if os.environ.get("TRIMTAB_TEST_KUBECONFIG") else _local(folder)
    try:
        yield made
    finally:
        made.stop()


def _external(folder: pathlib.Path) -> session.Cluster:
    try:
        return external.ExternalCluster(folder, pathlib.Path(os.environ["TRIMTAB_TEST_KUBECONFIG"]))
    except binaries.UnavailableError as error:
        pytest.fail(str(error))


def _local(folder: pathlib.Path) -> session.Cluster:
    found = _binaries()
    if isinstance(found, binaries.UnavailableError):
        if os.environ.get("CI") == "true":
            pytest.fail(f"the cluster tests must not be skipped in CI: {found}")
        pytest.skip(str(found))
    made = local.LocalCluster(folder, found)
    made.start(NODES, IMAGES)
    return made


@pytest.fixture(scope="session")
def cluster(control_plane: session.Cluster) -> session.Cluster:
    """A cluster that turns Deployments into running pods."""
    if control_plane.missing:
        pytest.skip(
            f"no {' and '.join(control_plane.missing)}: KUBEBUILDER_ASSETS alone cannot run pods, see scripts/control_plane/build.sh"
        )
    return control_plane


@pytest.fixture(scope="session")
def pod_runner(cluster: session.Cluster) -> local.LocalCluster:
    """A cluster whose pods are local processes, for what only the pod runner can show."""
    if not isinstance(cluster, local.LocalCluster):
        pytest.skip("TRIMTAB_TEST_KUBECONFIG names a cluster with kubelets of its own; this tests the pod runner")
    return cluster
