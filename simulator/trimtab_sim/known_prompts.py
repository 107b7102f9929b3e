"""Prompts whose answers are known model by model, laid over the arrivals of a trace.

No public trace holds times and texts together, so times and lengths come from a trace and texts from a set of prompts
that several models have answered; the pairing is random and seeded. Whoever serves a request then earns what its model
really earned on that prompt. How often a prompt comes again is an assumption that has to be stated with every result,
as no public data tells it.

A set is smaller than a trace. Each of its prompts therefore stands for many of its kind: two requests with the text of
one prompt are the same question only where one was drawn as a repeat of the other, and only then may a cache answer.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimtab_sim import workload
from trimtab_sim.prompts import Message
from trimtab_sim.workload import Request, Trace

REACH = 20_000
"""A repeat takes the prompt of one of so many latest requests."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        text: as a user would send it.
        outcomes: how good each model's answer was, 0 to 1, by model name.
    """

    text: str
    outcomes: Mapping[str, float]


class Known:
    """Prompts with known outcomes; a ``prompts.Source``. Equal only to itself.

    Args:
        found: at least one prompt; ValueError otherwise.
        seed: of the order in which they come.
    """

    def __init__(self, found: Sequence[Prompt], *, seed: int) -> None:
        if not found:
            raise ValueError("a set of known prompts needs at least one")
        self.prompts = list(found)
        random.Random(f"known prompts {seed}").shuffle(self.prompts)

    def number(self, request: Request) -> int:
        """Which of ``prompts`` the request stands for. Every stretch of as many new prompts has each of them once."""
        return request.prompt % len(self.prompts)

    def key(self, request: Request) -> int:
        """The number of the prompt: turns and context are the same for all requests of one text."""
        return self.number(request)

    def messages(self, request: Request) -> list[Message]:
        """The text as the only message."""
        return [{"role": "user", "content": self.prompts[self.number(request)].text}]

    def outcome(self, request: Request, model: str) -> float | None:
        """What the model earned on this prompt; None if it was not asked."""
        return self.prompts[self.number(request)].outcomes.get(model)

    def mean(self, model: str) -> float:
        """What the model earns over all prompts. Raises KeyError if it was not asked all of them."""
        return sum(prompt.outcomes[model] for prompt in self.prompts) / len(self.prompts)


@dataclass(frozen=True, slots=True)
class _Repeating:
    """Requests of a trace with the prompts that they ask, made anew for each iteration."""

    origin: Iterable[Request]
    repeats: float
    seed: int

    def __iter__(self) -> Iterator[Request]:
        rng = random.Random(f"repeats {self.seed}")
        latest: list[Request] = []
        fresh = 0
        for at, request in enumerate(self.origin):
            if latest and rng.random() < self.repeats:
                source = latest[int(rng.random() * len(latest))]
                made = dataclasses.replace(source, number=request.number, arrival_s=request.arrival_s)
            else:
                made = dataclasses.replace(request, prompt=fresh, difficulty=0.0, sensitive=False)
                fresh += 1
            if len(latest) < REACH:
                latest.append(made)
            else:
                latest[at % REACH] = made
            yield made


def assign(trace: Trace, *, repeats: float, seed: int) -> Trace:
    """The trace with prompts numbered from 0 in order of first arrival, a share of them repeats.

    A repeat asks what a uniformly drawn earlier request asked, so that popular prompts become more popular: the
    process of H. A. Simon (Biometrika 42, 1955), whose popularity follows a power law, as Zipf found of words. It
    takes the lengths of the request that it repeats. Numbers and times of the trace stay.

    Args:
        trace: arrivals and lengths.
        repeats: share of the requests that repeat an earlier one, from 0 to below 1.
        seed: equal seeds give equal traces.

    Raises:
        workload.TraceError: if ``repeats`` lies outside.
    """
    if not 0 <= repeats < 1:
        raise workload.TraceError(f"repeats must lie in 0 to below 1, not {repeats:g}")
    repeating = _Repeating(trace.origin, repeats, seed)
    origin = tuple(repeating) if isinstance(trace.origin, tuple) else repeating
    return Trace(origin, f"{trace.source}, {repeats:.0%} repeated")
