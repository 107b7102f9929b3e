"""Telling people what a cycle did: status where it changed, Events for decisions and for conditions that turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab_core import conditions

from trimtab_operator import statuses

if TYPE_CHECKING:
    from trimtab_operator import reconcile

MESSAGE_LENGTH = 1000
"""An Event's message may have 1,024 characters."""


async def report(cluster: reconcile.Cluster, cycle: statuses.Cycle) -> list[statuses.Report]:
    """Write what changed and emit what is news; returns the status of all objects.

    Args:
        cluster: where to.
        cycle: what was seen and done.
    """
    told = statuses.reports(cycle)
    changed = {one.about: one.status for one in told if one.changed}
    if changed:
        await cluster.write_status(changed)
    for one in told:
        for reason, message, warning in events(one):
            await cluster.emit_event(one.about, reason, message, warning=warning)
    return told


def events(told: statuses.Report) -> list[tuple[str, str, bool]]:
    """The Events about one object: (reason, message, whether a warning); never the same twice in a row."""
    made = [("Decided", _sentence(decision.action, decision.reasons), False) for decision in told.decisions]
    for verdict in conditions.turned(told.before, told.verdicts):
        message = f"{verdict.type} is {verdict.status}: {verdict.message or verdict.reason}"
        made.append((verdict.reason.value, message[:MESSAGE_LENGTH], verdict.bad))
    return made


def _sentence(action: str, reasons: tuple[str, ...]) -> str:
    """An action with its decisive reason."""
    return (f"{action}: {reasons[0]}" if reasons else action)[:MESSAGE_LENGTH]
