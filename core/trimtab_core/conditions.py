"""Every condition type and reason that status may carry, and how conditions settle from cycle to cycle. Pure.

The lists are fixed: users wait on these words, alerts match them, documentation is made from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trimtab_core import recall
from trimtab_core.api.v1alpha1 import fields

TRUE, FALSE, UNKNOWN = fields.ConditionStatus.TRUE, fields.ConditionStatus.FALSE, fields.ConditionStatus.UNKNOWN


class Type(StrEnum):
    """What a condition is about. All but ``CONFLICTING_SCALER`` and ``PROGRESSING`` are good when True."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    APPLIED = "Applied"
    REFERENCES_RESOLVED = "ReferencesResolved"
    METRICS_AVAILABLE = "MetricsAvailable"
    PRICE_RESOLVED = "PriceResolved"
    PROFILE_KNOWN = "ProfileKnown"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    SLO_MET = "SloMet"
    WITHIN_BUDGET = "WithinBudget"
    TABLE_CURRENT = "TableCurrent"
    CONFLICTING_SCALER = "ConflictingScaler"


class Reason(StrEnum):
    """Why it is so."""

    # Ready
    SERVING = "Serving"
    EXTERNAL = "External"
    SCALED_TO_ZERO = "ScaledToZero"
    NO_READY_REPLICA = "NoReadyReplica"
    NO_READY_ROUTER = "NoReadyRouter"
    NO_READY_TIER = "NoReadyTier"
    SIDECAR = "Sidecar"
    IN_USE = "InUse"
    NOT_REFERENCED = "NotReferenced"
    # Progressing
    STARTING = "Starting"
    DRAINING = "Draining"
    SETTLED = "Settled"
    # Applied
    APPLIED = "Applied"
    REFUSED = "Refused"
    # ReferencesResolved
    RESOLVED = "Resolved"
    TIER_NOT_FOUND = "TierNotFound"
    CACHE_NOT_FOUND = "CacheNotFound"
    # MetricsAvailable
    FRESH = "Fresh"
    STALE = "Stale"
    NO_SAMPLES = "NoSamples"
    QUERY_FAILED = "QueryFailed"
    # PriceResolved, ProfileKnown
    PRICE_UNKNOWN = "PriceUnknown"
    KNOWN = "Known"
    PROFILE_UNKNOWN = "ProfileUnknown"
    PROFILE_DIFFERS = "ProfileDiffers"
    # CapacityAvailable
    AVAILABLE = "Available"
    BLOCKED = "CapacityBlocked"
    REPLICAS_FAILED = "ReplicasFailed"
    # SloMet
    MET = "Met"
    MISSED = "Missed"
    NOT_MEASURED = "NotMeasured"
    # WithinBudget
    WITHIN = "Within"
    EXCEEDED = "Exceeded"
    # TableCurrent
    CURRENT = "Current"
    ROUTER_BEHIND = "RouterBehind"
    NO_ROUTER_SEEN = "NoRouterSeen"
    # ConflictingScaler
    SINGLE_WRITER = "SingleWriter"
    SECOND_WRITER = "SecondWriter"


BAD_WHEN_TRUE = frozenset({Type.CONFLICTING_SCALER})
"""Types whose True is the warning."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one cycle finds about one type. The message holds the fix and no number that moves all the time."""

    type: Type
    status: fields.ConditionStatus
    reason: Reason
    message: str = ""

    @property
    def bad(self) -> bool:
        """Whether people should be warned."""
        return self.status is (TRUE if self.type in BAD_WHEN_TRUE else FALSE) and self.type is not Type.PROGRESSING


def settle(
    before: Sequence[fields.Condition], verdicts: Iterable[Verdict], *, now: float, generation: int | None
) -> list[fields.Condition]:
    """The conditions now: a transition time moves only when the status does."""
    earlier = {condition.type: condition for condition in before}
    settled = []
    for verdict in verdicts:
        old = earlier.get(verdict.type)
        since = old.last_transition_time if old and old.status is verdict.status else recall.rfc3339(int(now))
        settled.append(
            fields.Condition(
                type=verdict.type,
                status=verdict.status,
                reason=verdict.reason,
                message=verdict.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return settled


def turned(before: Sequence[fields.Condition], verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts worth an Event: those that turned bad, and those that turned good after having been bad."""
    earlier = {condition.type: condition for condition in before}
    news = []
    for verdict in verdicts:
        old = earlier.get(verdict.type)
        if old is None and verdict.type is Type.READY:
            continue  # nothing is ready when it was just made
        if old is not None and old.status is verdict.status:
            continue
        was_bad = old is not None and Verdict(verdict.type, old.status, verdict.reason).bad
        if verdict.bad or (was_bad and verdict.status is not UNKNOWN):
            news.append(verdict)
    return news
