"""Finds the control plane's programs, or says in one line why there are none.

Order: the folder named by KUBEBUILDER_ASSETS (which usually holds no controller manager and no scheduler), filled up from the Go build
that `scripts/control_plane/build.sh` keeps outside the tree. The build is started from here only when CI=true or
TRIMTAB_BUILD_CONTROL_PLANE=1, because it takes minutes.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "scripts" / "control_plane" / "build.sh"
TOOLS = ("hostname", "ip", "nft", "nsenter", "openssl", "setpriv", "unshare")
API_SERVER = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


class UnavailableError(Exception):
    """The control plane cannot run here; the message is the reason to skip with, and the way out."""


@dataclasses.dataclass(frozen=True)
class Binaries:
    """Paths of the programs found, by name."""

    paths: dict[str, pathlib.Path]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the controllers that were not found: without them Deployments never become running pods."""
        return tuple(name for name in CONTROLLERS if name not in self.paths)

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


def check_machine() -> None:
    """Raise UnavailableError when this machine cannot hold a cluster, whatever programs there are."""
    if os.geteuid() != 0:
        raise UnavailableError("a test cluster needs root for its namespaces")
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise UnavailableError(f"no {', '.join(absent)}: run scripts/control_plane/debian.sh")


def find(environment: dict[str, str] | None = None) -> Binaries:
    """Return what can be started here. Raises UnavailableError when not even an API server can."""
    env = dict(os.environ) if environment is None else environment
    folders = []
    if assets := env.get("KUBEBUILDER_ASSETS"):
        folders.append(pathlib.Path(assets))
        if not _executables(folders[0], API_SERVER[:2]):
            raise UnavailableError(f"KUBEBUILDER_ASSETS={assets} holds no etcd and kube-apiserver")
    folders.append(_go_build(env))
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        for name, path in _executables(folder, (*API_SERVER, *CONTROLLERS)).items():
            found.setdefault(name, path)
    if "kubectl" not in found and (on_path := shutil.which("kubectl", path=env.get("PATH"))):
        found["kubectl"] = pathlib.Path(on_path)
    if absent := [name for name in API_SERVER if name not in found]:
        raise UnavailableError(
            f"no {', '.join(absent)}: run scripts/control_plane/build.sh (needs Go 1.26, takes about 5 minutes)"
        )
    return Binaries(found)


def _executables(folder: pathlib.Path, names: tuple[str, ...]) -> dict[str, pathlib.Path]:
    return {name: folder / name for name in names if os.access(folder / name, os.X_OK)}


def _go_build(env: dict[str, str]) -> pathlib.Path:
    """Return the folder of the Go build, building first where the environment asks for it."""
    wanted = env.get("CI") == "true" or env.get("TRIMTAB_BUILD_CONTROL_PLANE") == "1"
    command = [str(BUILD)] if wanted else [str(BUILD), "--where"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(
            f"{BUILD.relative_to(ROOT)} failed with exit code {done.returncode}; its messages stand above"
        )
    return pathlib.Path(done.stdout.strip())
