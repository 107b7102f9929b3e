"""kubectl as a function."""

import json
import pathlib
import subprocess
import typing

Object = dict[str, typing.Any]


class KubectlError(Exception):
    """kubectl ended with an error; the message is its own."""


class Kubectl:
    """Runs kubectl against one kubeconfig. `prefix` is the command that enters the cluster's network."""

    def __init__(self, program: str, kubeconfig: pathlib.Path, prefix: tuple[str, ...] = ()) -> None:
        # A cache of its own: test clusters share their address, and the usual cache goes by address.
        cache = kubeconfig.parent / "kubectl-cache"
        self._command = (*prefix, program, f"--kubeconfig={kubeconfig}", f"--cache-dir={cache}")

    def __call__(self, *args: str, stdin: str | Object | list[Object] | None = None, timeout: float = 60) -> str:
        """Return what kubectl prints. Objects given as `stdin` are sent as JSON (use `-f -`). Raises KubectlError."""
        if isinstance(stdin, list):
            stdin = {"apiVersion": "v1", "kind": "List", "items": stdin}
        text = json.dumps(stdin) if isinstance(stdin, dict) else stdin
        command = [*self._command, *args]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *args: str) -> Object:
        """Return `kubectl get ... -o json` parsed."""
        parsed: Object = json.loads(self("get", *args, "-o", "json"))
        return parsed

    def apply(self, *objects: Object, namespace: str = "default") -> None:
        """Apply objects on the server's side, as Trimtab does."""
        self("apply", "-n", namespace, "--server-side", "--force-conflicts", "-f", "-", stdin=list(objects))
