"""How a container's process is started: in its pod's network namespace, with mount and host name namespaces of its own.

Its root is made of the machine's own top-level folders, so every installed program is there; where something has to be mounted on a path
that does not exist, and on /etc, an overlay keeps the change inside the container. Users are not separated: processes run as root, and
runAsUser and readOnlyRootFilesystem have no effect.
"""

import collections.abc
import dataclasses
import os
import pathlib
import shlex

from .api import Object
from .network import PodNetwork

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True)
class Mount:
    """One bind mount: a file or folder of the machine, and the container's absolute path for it."""

    source: pathlib.Path
    target: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Launch:
    """Everything that one start of a container needs."""

    argv: list[str]
    env: dict[str, str]
    working_dir: str
    host_name: str
    etc: dict[str, str]  # file name below /etc -> content
    mounts: list[Mount]


def overlaid(mounts: list[Mount]) -> set[str]:
    """Return the top-level folders that need an overlay, because a mount point in them does not exist on the machine."""
    found = {"etc"}
    for mount in mounts:
        path = pathlib.Path(os.path.realpath(mount.target))
        same_kind = path.is_dir() if mount.source.is_dir() else path.is_file()
        if not same_kind and pathlib.Path("/", path.parts[1]).is_dir():
            found.add(path.parts[1])
    return found


def script(launch: Launch, folder: pathlib.Path) -> str:
    """Return the shell script that builds the root below `folder`, which must exist, and becomes the container's process."""
    quoted = shlex.quote(str(folder))
    lines = ["set -eu", f"hostname {shlex.quote(launch.host_name)}", f"mount -t tmpfs -o mode=0755 tmpfs {quoted}"]
    lines += [f"cd {quoted}", "mkdir root upper work"]
    lines += _top_level(overlaid(launch.mounts), first=folder.parts[1])
    for name, content in launch.etc.items():
        lines += [f"rm -f root/etc/{name}", f"printf %s {shlex.quote(content)} > root/etc/{name}"]
    for mount in launch.mounts:
        lines += _bind(mount)
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in launch.env.items())
    command = " ".join(shlex.quote(word) for word in launch.argv)
    lines.append(f"exec chroot root /usr/bin/env -i -C {shlex.quote(launch.working_dir)} {variables} {command}")
    return "\n".join(lines) + "\n"


def _top_level(overlays: set[str], *, first: str) -> list[str]:
    """Bind each folder of `/`; `first`, which holds the new root, comes before there is anything in that root."""
    lines = []
    for path in sorted(pathlib.Path("/").iterdir(), key=lambda path: (path.name != first, path.name)):
        name = shlex.quote(path.name)
        if path.is_symlink():
            lines.append(f"ln -s {shlex.quote(str(path.readlink()))} root/{name}")
        elif path.is_dir() and path.name in overlays:
            options = f"lowerdir=/{name},upperdir=upper/{name},workdir=work/{name}"
            lines.append(
                f"mkdir root/{name} upper/{name} work/{name}; mount -t overlay -o {options} overlay root/{name}"
            )
        elif path.is_dir():
            lines.append(f"mkdir root/{name}; mount --rbind /{name} root/{name}")
    return lines


def _bind(mount: Mount) -> list[str]:
    target, source = shlex.quote(mount.target), shlex.quote(str(mount.source))
    make = f"chroot root mkdir -p {target}"
    if not mount.source.is_dir():
        make = f"chroot root mkdir -p {shlex.quote(str(pathlib.PurePath(mount.target).parent))}; chroot root touch {target}"
    lines = [make, f"at=root$(chroot root readlink -f {target})", f'mount --bind {source} "$at"']
    if mount.read_only:
        lines.append('mount -o remount,bind,ro "$at"')
    return lines


def start_command(network: PodNetwork, script_path: pathlib.Path) -> list[str]:
    """Return the command that runs a script of `script`; every step of it execs, so the process id is the container's."""
    return [
        "nsenter",
        f"--net={network.namespace_path}",
        "--",
        "unshare",
        "--mount",
        "--uts",
        "--",
        "/bin/sh",
        str(script_path),
    ]


def exec_command(pid: int, env: dict[str, str], argv: list[str]) -> list[str]:
    """Return the command that runs `argv` inside the container whose process is `pid`."""
    enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--root", "--wd", "--", "/usr/bin/env", "-i"]
    return [*enter, *(f"{name}={value}" for name, value in env.items()), *argv]


def mounts_of(container: Object, volume_path: collections.abc.Callable[[str], pathlib.Path]) -> list[Mount]:
    """Return a container's mounts, parents before children. A subPath is resolved now: it does not follow later changes."""
    made = []
    for wanted in container.get("volumeMounts") or []:
        source = volume_path(wanted["name"])
        if sub := wanted.get("subPath"):
            source /= sub
            if not source.exists():
                source.mkdir(parents=True)
            source = source.resolve()
        made.append(Mount(source, wanted["mountPath"].rstrip("/") or "/", bool(wanted.get("readOnly"))))
    return sorted(made, key=lambda mount: mount.target.count("/"))
