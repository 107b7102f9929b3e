"""A cluster that somebody else runs, named by TRIMTAB_TEST_KUBECONFIG; `scripts/kind_up.sh` makes one.

Its pods are real containers on real kubelets, so there are no image rules and no made nodes, and its pods' addresses have to be routed
from this machine (kind_up.sh adds the routes).
"""

import collections.abc
import pathlib
import shutil

import pytest

from .binaries import UnavailableError
from .kubectl import Kubectl, Object
from .pod_runner.images import Image
from .pod_runner.nodes import NodeSpec
from .session import Cluster, T


class ExternalCluster(Cluster):
    """Uses a cluster as it is. What only a LocalCluster can do skips the test that asks for it."""

    def __init__(self, folder: pathlib.Path, kubeconfig: pathlib.Path, program: str = "kubectl") -> None:
        super().__init__(folder)
        if not kubeconfig.is_file():
            raise UnavailableError(f"TRIMTAB_TEST_KUBECONFIG={kubeconfig} is not a file")
        if shutil.which(program) is None:
            raise UnavailableError(f"TRIMTAB_TEST_KUBECONFIG is set, but there is no {program} on PATH")
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_bytes(kubeconfig.read_bytes())
        self._kubeconfig.chmod(0o600)
        self._program = program

    @property
    def kubeconfig(self) -> pathlib.Path:
        """A copy of the given kubeconfig, so that its context cannot change under a running test."""
        return self._kubeconfig

    @property
    def kubectl(self) -> Kubectl:
        """kubectl with the given kubeconfig."""
        return Kubectl(self._program, self._kubeconfig)

    def inside(self, function: collections.abc.Callable[[], T], timeout: float = 60) -> T:
        """Call `function` here: pods are routed from this machine."""
        return function()

    def command(self, *argv: str, namespace: str = "default") -> list[str]:
        """Return the command as it is; cluster DNS names do not resolve."""
        return list(argv)

    def add_images(self, *rules: Image) -> None:
        """Skip: containers here are real ones."""
        pytest.skip("needs the pod runner's image table, which a cluster with kubelets has not")

    def add_node(self, spec: NodeSpec) -> None:
        """Skip: nodes here are real ones."""
        pytest.skip("needs the pod runner's made nodes, which a cluster with kubelets has not")

    def pod_log(self, namespace: str, pod: str, container: str) -> str:
        """Return what the container's present run has written."""
        return self.kubectl("logs", "-n", namespace, pod, "-c", container)

    def audit(self) -> list[Object]:
        """Skip: the audit log of this cluster is not ours."""
        pytest.skip("needs the audit log of the test's own API server")
