"""Ports on loopback: free ones for replicas, and who sits on one that is taken."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from trimtab_operator.local import failures

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"


def free(taken: set[int]) -> int:
    """A port that nobody listens on now and that is not in ``taken``; it is added there."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            taken.add(port)
            return port


def require(port: int) -> None:
    """Make sure that a fixed port is free. Raises PortBusyError with its owner where the system shows it.

    The probe allows reuse of addresses (an ended run leaves connections in TIME_WAIT) but not of ports: a router that
    listens with SO_REUSEPORT would share its port with a second one without a word.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except PermissionError as error:
            raise failures.LocalError(f"port {port} needs special rights; choose one above 1023 with --port") from error
        except OSError as error:
            raise failures.PortBusyError(port, owner(port)) from error


def owner(port: int, proc: Path = Path("/proc")) -> int | None:
    """The process that listens on a TCP port, or None where the system doesn't show it (other users, other systems)."""
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listeners(proc / "net" / table, port)}
    if not inodes:
        return None
    for folder in proc.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue
    return None


def _listeners(table: Path, port: int) -> list[str]:
    """Socket inodes that listen on the port, from one table of the kernel."""
    try:
        rows = table.read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for row in rows:
        fields = row.split()
        local = re.fullmatch(r"[0-9A-F]+:([0-9A-F]{4})", fields[1])
        if local and int(local[1], 16) == port and fields[3] == _LISTEN:
            found.append(fields[9])
    return found
