"""What can go wrong in local mode; each message is one line with the fix.

``LocalError``
├── ``PortBusyError``   somebody else listens on the port that clients were promised
└── ``CannotRunError``  a rendered object that this machine can't run
"""

from __future__ import annotations


class LocalError(Exception):
    """Local mode can't do what was asked."""


class PortBusyError(LocalError):
    """A fixed port is taken."""

    def __init__(self, port: int, owner: int | None) -> None:
        who = f" by process {owner}" if owner is not None else ""
        super().__init__(f"port {port} is in use{who}; stop it, or choose another with --port")


class CannotRunError(LocalError):
    """A workload that has no program here."""
