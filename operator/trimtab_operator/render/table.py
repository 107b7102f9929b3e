"""A routing table as a ConfigMap. Pure."""

from __future__ import annotations

from typing import Any

from trimtab_core.api import v1alpha1
from trimtab_core.routing import table as tables

from trimtab_operator import labels
from trimtab_operator.render import names, objects

Manifest = dict[str, Any]

FILE = "table.json"
"""Key in the ConfigMap, and so the file's name in the router's mount."""
FOLDER = "/etc/trimtab/table"
"""Where routers mount it."""
COMPONENT = "routing-table"
LIMIT_BYTES = 1024 * 1024 - 16 * 1024
"""etcd takes 1 MiB per object (1.5 MiB with its own overhead); the rest of the object needs some of that."""


class TooLargeError(ValueError):
    """A table that no ConfigMap can hold."""


def render(policy: v1alpha1.RoutingPolicy, table: tables.RoutingTable, *, epoch: int) -> Manifest:
    """The ConfigMap of a policy's table.

    Raises:
        TooLargeError: with the size and what to split.
    """
    text = tables.encode(table).decode()
    size = len(text.encode())
    if size > LIMIT_BYTES:
        raise TooLargeError(
            f"the routing table of {table.policy} has {size} bytes, a ConfigMap holds {LIMIT_BYTES}: "
            "split the policy, or its tiers, into several"
        )
    name = names.table(policy.metadata.name)
    made = objects.frame("v1", "ConfigMap", name, owner=policy, component=COMPONENT, epoch=epoch)
    made["metadata"]["labels"] |= labels.router(policy.metadata.name)
    made["metadata"]["annotations"][labels.TABLE] = table.version
    made["data"] = {FILE: text}
    return made
