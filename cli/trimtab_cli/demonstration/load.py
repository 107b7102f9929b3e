"""The load of a demo: a trace as requests with texts, sent by the load client in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from trimtab_operator.local import child
from trimtab_sim import prompts
from trimtab_sim.workload import Request, Trace

from trimtab_cli.demonstration import outcomes

GIVE_UP_SECONDS = 60.0
"""How long after the last request began answers are waited for; what has not ended then has failed."""
_RUN_IN_PROMPTS = 1_000_003
"""Added to the prompts of the run-in: other texts, or they would fill the cache for the replay."""


def shots(trace: Trace, *, model: str, seed: int, run_in_seconds: float = 0.0) -> Iterator[outcomes.Shot]:
    """The requests to send, in order of time.

    Args:
        trace: with its synthetic prompts assigned.
        model: name that clients of the policy send.
        seed: of the texts.
        run_in_seconds: so long before time 0 the beginning of the trace is sent once, with other texts and
            negative indices: the fleet finds its feet before anything is counted.
    """
    beginning = [request for request in trace.requests if request.arrival_s < run_in_seconds]
    for place, request in enumerate(beginning):
        moved = replace(request, arrival_s=request.arrival_s - run_in_seconds, prompt=request.prompt + _RUN_IN_PROMPTS)
        yield _shot(moved, place - len(beginning), model=model, seed=seed)
    for place, request in enumerate(trace.requests):
        yield _shot(request, place, model=model, seed=seed)


def _shot(request: Request, index: int, *, model: str, seed: int) -> outcomes.Shot:
    """One request: greedy, so that a repeated one may come from the cache, and exactly as long as in the trace."""
    body = {
        "model": model,
        "messages": prompts.messages(request, seed),
        "max_tokens": request.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return outcomes.Shot(index, request.arrival_s, msgspec.json.encode(body).decode())


@dataclass(slots=True)
class Client:
    """The running load client.

    Attributes:
        health: its last word, once it has ended well.
    """

    process: child.Child
    results: Path
    health: outcomes.Health | None = None
    _offset: int = 0

    @classmethod
    async def start(cls, url: str, plan: Path, start_at: float, folder: Path) -> Client:
        """Start sending a plan (a file of shots) whose zero is at ``start_at``, epoch seconds."""
        results = folder / "results.jsonl"
        results.touch()
        argv = [
            sys.executable,
            *("-m", "trimtab_cli.demonstration.load_client"),
            *(url, str(plan), str(results), repr(start_at), str(GIVE_UP_SECONDS)),
        ]
        return cls(await child.Child.start(argv, os.environ, folder / "load-client.log"), results)

    def news(self) -> list[outcomes.Outcome]:
        """The requests that ended since the last call. A line that is not yet whole waits for the next."""
        with self.results.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        self._offset += len(whole) + (1 if whole else 0)
        lines = [outcomes.line_decoder.decode(text) for text in whole.splitlines()]
        self.health = next((line.health for line in lines if line.health is not None), self.health)
        return [line.outcome for line in lines if line.outcome is not None]


def write_plan(path: Path, planned: Iterator[outcomes.Shot]) -> int:
    """Write shots, a line each; returns their number."""
    count = 0
    with path.open("wb") as file:
        for shot in planned:
            file.write(outcomes.encoder.encode(shot) + b"\n")
            count += 1
    return count
