"""A cluster ends completely: processes, namespaces, interfaces and mounts, in order and when its owner is killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from . import binaries, local, manifests
from .pod_runner.nodes import NodeSpec
from .session import eventually

pytestmark = pytest.mark.cluster

OWNER = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from cluster import binaries, local
made = local.LocalCluster(pathlib.Path(sys.argv[2]), binaries.find())
made.start()
print("ready", flush=True)
sys.stdin.read()
"""


def same(path: str) -> int | None:
    """Return the number of the namespace that a path names; None when it is not there."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - a link to a namespace, not a path in the file system
    except OSError:
        return None


def processes_in(process_namespace: int | None) -> list[int]:
    """Return the ids of all processes of a cluster: they share a process namespace."""
    ids = [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]
    return [pid for pid in ids if same(f"/proc/{pid}/ns/pid") == process_namespace]


def process_namespace_of(owner: int) -> int | None:
    """Return the process namespace of the cluster that a descendant of the process `owner` has made."""
    children = pathlib.Path(f"/proc/{owner}/task/{owner}/children").read_text().split()
    mine = same("/proc/self/ns/pid")
    own = [same(f"/proc/{child}/ns/pid_for_children") for child in children]
    return next((number for number in own if number not in {mine, None}), None)


def kept_namespaces() -> list[str]:
    """Return the network namespaces that have a name, and would outlive their processes."""
    folder = pathlib.Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def links() -> set[str]:
    """Return the network interfaces of the machine itself."""
    listed = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
    return {row["ifname"] for row in json.loads(listed.stdout)}


def mounts() -> str:
    """Return the mounts of the machine itself."""
    return pathlib.Path("/proc/self/mounts").read_text()


@pytest.fixture
def found(pod_runner: local.LocalCluster) -> binaries.Binaries:
    """The programs; the session's cluster says that they can be had."""
    return binaries.find()


def test_stopping_a_cluster_leaves_nothing_behind(found: binaries.Binaries, tmp_path: pathlib.Path) -> None:
    before = (kept_namespaces(), links(), mounts())
    cluster = local.LocalCluster(tmp_path / "own", found)
    cluster.start([NodeSpec("only")], [manifests.SERVER_IMAGE])
    try:
        beside = cluster.start_process("beside", "sleep", "1000")
        cluster.kubectl.apply(manifests.pod("web", manifests.server()))
        eventually(lambda: all(manifests.ready(one) for one in cluster.pods("default")), "the pod is ready")
        own = same(f"/proc/{cluster.host_pid}/ns/pid_for_children")
        members = processes_in(own)
        networks = {same(f"/proc/{pid}/ns/net") for pid in members}
        # host.py, etcd, kube-apiserver, kube-controller-manager, kube-scheduler; the pod's holder and its server
        assert (len(members), len(networks)) == (7, 2)
        assert (kept_namespaces(), links(), mounts()) == before, (
            "the machine does not see the cluster's links and mounts"
        )
    finally:
        cluster.stop()
    assert beside.popen.poll() is not None
    assert processes_in(own) == []
    assert (kept_namespaces(), links(), mounts()) == before
    cluster.stop()


def test_a_cluster_ends_with_its_owner_even_when_that_is_killed(
    found: binaries.Binaries, tmp_path: pathlib.Path
) -> None:
    tests = pathlib.Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", OWNER, str(tests), str(tmp_path / "own")]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"ready\n"
        own = process_namespace_of(owner.pid)
        assert len(processes_in(own)) == 5
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdin.close()
        owner.stdout.close()
    eventually(lambda: not processes_in(own), "every process of the cluster is gone")


def test_a_component_that_cannot_start_is_named_with_the_end_of_its_log(
    found: binaries.Binaries, tmp_path: pathlib.Path
) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho flag provided but not defined >&2\nexit 1\n")
    broken.chmod(0o755)
    cluster = local.LocalCluster(tmp_path / "own", binaries.Binaries({**found.paths, "kube-apiserver": broken}))
    with pytest.raises(
        binaries.UnavailableError, match=r"(?s)kube-apiserver ended with 1:.*flag provided but not defined"
    ):
        cluster.start()
    assert cluster.host_pid is None
