"""Which of many decisions is to be explained, and in which form."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from trimtab_core.planning.plan import Decision

from trimtab_cli import failure
from trimtab_cli.explanation import account
from trimtab_cli.pages import wording

_PIPE_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """Which decision is wanted, and how it is printed.

    Attributes:
        at_s: in force then, seconds since the start; the last when None.
        tier: only decisions about it, by name or key; empty for all.
        back: so many before that one.
        list_all: all that are in question instead of one.
        as_json: for machines.
    """

    at_s: float | None
    tier: str
    back: int
    list_all: bool
    as_json: bool

    def kept(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions that are in question."""
        return [
            one
            for one in decisions
            if (self.at_s is None or one.time <= self.at_s)
            and (not self.tier or self.tier in {one.tier, one.tier.rpartition("/")[2]})
        ]

    def one(self, decisions: Sequence[Decision]) -> Decision | None:
        """The one that is wanted; None where there is none."""
        kept = self.kept(decisions)
        return kept[-1 - self.back] if len(kept) > self.back else None

    def show(self, told: account.Account) -> None:
        """Print an account."""
        if self.as_json:
            click.echo(json.dumps(told.to_dict(), indent=1, ensure_ascii=False))
        else:
            account.show(_console(), told)

    def tell_all(self, decisions: Sequence[Decision], clock: Callable[[float], str] = wording.clock) -> None:
        """Print all that are in question."""
        kept = [(clock(one.time), one) for one in self.kept(decisions)]
        if self.as_json:
            told = [
                {"time": time, "tier": one.tier, "action": one.action, "reasons": one.reasons} for time, one in kept
            ]
            click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        else:
            account.listing(_console(), kept)

    def missing(self, count: int) -> failure.Finding:
        """There is no such decision."""
        about = f" about {self.tier}" if self.tier else ""
        until = f" up to {wording.clock(self.at_s)}" if self.at_s is not None else ""
        return failure.Finding(f"no such decision{about}{until}: there are {count} in all; see --list")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
