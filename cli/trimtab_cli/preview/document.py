"""A preview as JSON and as Markdown. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from trimtab_sim import report

from trimtab_cli.preview import story, table
from trimtab_cli.preview.side import Side


def build(told: story.Story) -> dict[str, Any]:
    """The JSON document: both sides, the changed fields, and what would break."""
    return {
        "load": told.load,
        "notes": list(told.notes),
        **{name.lower(): value for name, value in told.facts},
        "details": [{"name": name, "text": text} for name, text in told.details],
        "changes": [dataclasses.asdict(change) for change in told.changes or ()],
        "before": _side(told.before) if told.before else None,
        "after": _side(told.after),
        "broken": told.after.broken,
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "usd_per_hour": round(side.usd_per_hour, 4),
        "usd_per_month": round(side.usd_per_month, 2),
        "slo_attainment": side.attainment,
        "quality_retention": side.quality_retention,
        "replicas": {key: {"mean": round(mean, 3), "most": most} for key, (mean, most) in side.replicas.items()},
        "share_by_tier": dict(side.shares),
        "checks": [dataclasses.asdict(check) for check in side.checks],
        "broken": side.broken,
        **(report.document([side.run]) if side.run else {}),
    }


def markdown(told: story.Story) -> str:
    """A comment for a pull request: the verdict first."""
    mark = "❌" if told.after.broken else "✅"
    promises = "\n".join(f"- {'✅ keeps' if kept else '❌ breaks'} {text}" for kept, text in told.after.promises)
    tables = table.markdown(told.lines, told.changes or (), told.titles)
    details = "".join(f"\n- {name}: {text}" for name, text in told.details)
    notes = "".join(f"\nNote: {note}.\n" for note in told.notes)
    head = f"### {mark} trimtab plan: {story.verdict(told)}"
    return f"{head}\n\n{promises}\n\n{tables}\nLoad: {told.load}.\n{details}{notes}"
