"""A real Kubernetes control plane for tests, and the small pod runner that stands in for its kubelets.

Everything lives inside one process, network and mount namespace whose first process is `host.py`: when that process goes, for
whatever reason, the kernel takes every other process, interface and mount with it, so a broken test leaves nothing behind.

binaries.py finds the programs, credentials.py makes certificates and tokens, control_plane.py starts the components, pod_runner/ runs
pods, host.py puts them together inside the namespaces, session.py is what a test holds, conftest.py has the fixtures.
"""
