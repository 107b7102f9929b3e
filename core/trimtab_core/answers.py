"""Answers to queries, indexed by what they are about and judged as signals. Pure.

An answer is read as it came: a failed query and a query without series are both ``Missing``, with different
reasons. Zero is only read where there is evidence of it: a labelled counter appears with its first event, so a
class without series had no event *if* a router of its policy was seen. Must not know what a signal is used for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_core import signals, telemetry
from trimtab_core.telemetry import Answer

TABLES = "tables"
"""Name of the question which router serves by which table."""


@dataclass(frozen=True, slots=True)
class QueryFailure:
    """A query that could not be answered, and why; never the same as an empty answer."""

    reason: str


Answers = Mapping[str, tuple[Answer, ...] | QueryFailure]
"""By signal name of ``queries``."""


def queries(window_seconds: float) -> dict[str, telemetry.Query]:
    """All that one cycle asks: traffic, latency, money, and the tables that routers serve by."""
    tables = telemetry.Query(telemetry.TABLE_INFO, telemetry.Operation.LAST, (telemetry.POLICY, "version", "pod"))
    return {**telemetry.traffic_queries(window_seconds), TABLES: tables}


@dataclass(frozen=True, slots=True)
class Applied:
    """A table that routers of a policy serve by; ``pod`` is empty where the metrics don't tell routers apart."""

    policy: str
    version: str
    pod: str
    observed_at: float


_Labelled = tuple[dict[str, str], Answer]


class Reader:
    """One cycle's answers, ready to be asked about classes and tiers.

    Args:
        answers: by signal name.
        now: epoch seconds.
        freshness: how long a measurement counts.
    """

    def __init__(self, answers: Answers, now: float, freshness: signals.Freshness) -> None:
        self._now = now
        self._freshness = freshness
        self._failures: dict[str, str] = {}
        self._by_class: dict[tuple[str, str, str], list[_Labelled]] = defaultdict(list)
        self._by_tier: dict[tuple[str, str], list[_Labelled]] = defaultdict(list)
        self._values: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._asked = set(answers)
        labels_of = {name: query.by for name, query in queries(1.0).items()}
        for name, group in answers.items():
            if isinstance(group, QueryFailure):
                self._failures[name] = group.reason
            elif name in labels_of and name != TABLES:
                self._index(name, labels_of[name], group)
        self.applied = _applied(answers)
        self._seen = _newest(self.applied)

    def _index(self, name: str, by: tuple[str, ...], group: tuple[Answer, ...]) -> None:
        """File the answers of one query under their class and, where they name one, their tier."""
        for answer in group:
            labels = dict(zip(by, answer.labels, strict=True))
            policy = labels[telemetry.POLICY]
            self._by_class[name, policy, labels[telemetry.CLASS]].append((labels, answer))
            for label, value in labels.items():
                self._values[name, policy, label].add(value)
            if labels.get(telemetry.TIER):
                namespace = policy.partition("/")[0]
                self._by_tier[name, f"{namespace}/{labels[telemetry.TIER]}"].append((labels, answer))

    def of_class(
        self, name: str, policy: str, request_class: str, *, tiers: frozenset[str] | None = None, **where: str
    ) -> signals.Signal:
        """The sum of a class's series; zero where a router of the policy was seen and shows none.

        Args:
            name: signal name.
            policy: ``namespace/name``.
            request_class: the class.
            tiers: only series of these tiers, by name; None takes all.
            where: label values that series must have.
        """
        found = self._by_class.get((name, policy, request_class), [])
        if tiers is not None:
            found = [(labels, answer) for labels, answer in found if labels.get(telemetry.TIER) in tiers]
        return self._judge(name, found, where, self._seen.get(policy))

    def of_tier(self, name: str, tier: str, *, zero: bool = False, **where: str) -> signals.Signal:
        """The sum of a tier's series over all policies and classes of its namespace.

        Args:
            name: signal name.
            tier: ``namespace/name``.
            zero: no series count as zero, for a part whose whole was seen.
            where: label values that series must have.
        """
        return self._judge(name, self._by_tier.get((name, tier), []), where, self._now if zero else None)

    def tier_values(self, name: str, tier: str, label: str) -> tuple[str, ...]:
        """The values that a label has among a tier's series, sorted."""
        return tuple(sorted({labels[label] for labels, _ in self._by_tier.get((name, tier), []) if label in labels}))

    def policy_values(self, name: str, policy: str, label: str) -> tuple[str, ...]:
        """The values that a label has among a policy's series, sorted."""
        return tuple(sorted(self._values.get((name, policy, label), ())))

    def routers(self, policy: str) -> int:
        """How many routers of a policy were seen; one where the metrics don't tell them apart."""
        return len({one.pod for one in self.applied if one.policy == policy})

    def failure(self) -> str:
        """Why queries failed, or empty when none did."""
        return "; ".join(sorted(set(self._failures.values())))

    def _judge(
        self,
        name: str,
        found: list[_Labelled],
        where: Mapping[str, str],
        evidence_of_zero: float | None,
    ) -> signals.Signal:
        """Read the matching answers as one signal, as good as its worst part."""
        if name in self._failures:
            return signals.Missing(self._failures[name])
        if name not in self._asked:
            return signals.Missing("not asked")
        parts = [answer for labels, answer in found if all(labels.get(key) == value for key, value in where.items())]
        if not parts:
            if evidence_of_zero is None:
                return signals.Missing("no series")
            return signals.read(signals.Sample(0.0, evidence_of_zero), self._now, self._freshness)
        return signals.total(self._read(part) for part in parts)

    def _read(self, answer: Answer) -> signals.Signal:
        """One answer as a signal."""
        return signals.read(signals.Sample(answer.value, answer.observed_at), self._now, self._freshness)


def _applied(answers: Answers) -> tuple[Applied, ...]:
    """The tables in force, sorted by policy, version and pod."""
    group = answers.get(TABLES, ())
    if isinstance(group, QueryFailure):
        return ()
    found = [
        Applied(policy, version, pod, answer.observed_at)
        for answer in group
        for policy, version, pod in (answer.labels,)
        if answer.value > 0
    ]
    return tuple(sorted(found, key=lambda one: (one.policy, one.version, one.pod)))


def _newest(applied: tuple[Applied, ...]) -> dict[str, float]:
    """When a router of each policy was last seen, epoch seconds."""
    seen: dict[str, float] = {}
    for one in applied:
        seen[one.policy] = max(one.observed_at, seen.get(one.policy, one.observed_at))
    return seen
