"""What goes wrong in a simulated world, and when: values, and the YAML file that they come from.

Every part is a list; all may be left out. Moments and lengths are durations (``90s``, ``10m``), counted from the start
of the run; ``until`` left out means to the end. A ``variant`` is ``tier/variant``; where neither it nor a
``capacityType`` is given, every variant is meant (of preemptions: every Spot variant)::

    preemptions:                # the provider takes replicas back; their Deployment makes new ones
      - {at: 5m, share: 0.5, notice: 30s, noCapacityFor: 5m}  # a wave; `count: 3` instead of `share`
      - {perReplicaHour: 0.2, variant: small/l4-spot}         # each replica at that rate; `from`, `until`
    failures:                   # Lost: the machine is gone; Restart: the engine starts anew in its place; Frozen:
      - {at: 7m, variant: large/h100, count: 1, kind: Frozen, lasts: 2m}  # it looks well and makes no progress
      - {perReplicaHour: 0.05, kind: Restart}
    neverReady:                 # replicas created then stay pending for ever
      - {from: 5m, until: 10m, variant: large/h100}
    slowStart:                  # replicas created then take so many times as long to start
      - {from: 0s, factor: 3}
    capacityBlocked:            # no machine is found then: replicas wait, unpaid, until the period ends
      - {from: 5m, until: 20m, variant: large/h100}
    metricLoss:                 # that share of scrapes (1) of Routers, Engines or All (All) is lost
      - {from: 5m, until: 15m, of: Routers, share: 1.0}
    extraDelay:                 # scrapes arrive so much later
      - {from: 5m, until: 15m, by: 60s}
    nan:                        # that share of all values becomes NaN
      - {from: 5m, until: 15m, of: All, share: 0.5}
    staleSeries:                # a router is replaced at `from`; its series and those of dead engines never end
      - {from: 5m, until: 15m}
    priceChanges:               # planner and bill see it; `factor: 3` of the first price instead of `usdPerHour`
      - {at: 10m, variant: small/l4, usdPerHour: 2.5}
    coldCache:                  # the cache of answers is emptied
      - {at: 10m}
    leaderHandover:             # another controller goes on, from status alone, after a gap without decisions
      - {at: 10m, gap: 15s}
    outage:                     # nothing arrives then: it is lost upstream
      - {from: 5m, until: 10m}
    flashCrowd:                 # so many times as many arrive then
      - {from: 5m, until: 10m, factor: 10}

Unknown keys are refused. Knows nothing of controllers; ``trouble``, ``scrapes`` and ``arrivals`` make it happen.
"""

from __future__ import annotations

import math
import pathlib
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

import pydantic
import pydantic_core
from pydantic import Field
from trimtab_core import units
from trimtab_core.api import documents, findings
from trimtab_core.api.v1alpha1 import CapacityType, fields

_WRITTEN = "written by people"


class FaultError(ValueError):
    """A fault file that can't be used; the message names file, line and field, and says what to write."""


def _seconds(value: object, info: pydantic.ValidationInfo) -> object:
    """A duration as text, or seconds where code gives them: in a file a bare number has no unit."""
    if isinstance(value, str):
        return units.duration_seconds(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and info.context != _WRITTEN:
        return value
    raise ValueError("not a duration; write a number with a unit, such as 90s or 10m")


Seconds = Annotated[float, pydantic.BeforeValidator(_seconds), Field(ge=0)]
"""Written as ``90s`` or ``10m``."""
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
Factor = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False, strict=True)]
Variant = Annotated[str, Field(pattern=r"^([^/\s]+/){1,2}[^/\s]+$")]


class Period(fields.ApiModel):
    """A stretch of the run, seconds from its start; ``ends`` is not part of it."""

    begins: Seconds = Field(0.0, alias="from")
    ends: Seconds = Field(math.inf, alias="until")

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError("until must come after from")
        return self

    def holds(self, at: float) -> bool:
        """Whether ``at`` (seconds from the start of the run) lies in it."""
        return self.begins <= at < self.ends


class Whose(Period):
    """Variants, by name or by how they are bought; all where neither is given."""

    variant: Variant | None = None
    capacity_type: CapacityType | None = None

    @pydantic.model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.variant is not None and self.capacity_type is not None:
            raise ValueError("give variant or capacityType, not both")
        return self


class Strike(Whose):
    """Something that hits replicas: at one moment (``at``), or each of them at a rate within the period.

    Attributes:
        share, count: how many of them at that moment; all where neither is given.
        per_replica_hour: how often, in expectation, one replica is hit in an hour.
    """

    at: Seconds | None = None
    share: Share | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    per_replica_hour: Rate | None = None

    @pydantic.model_validator(mode="after")
    def _once_or_often(self) -> Self:
        if (self.at is None) == (self.per_replica_hour is None):
            raise ValueError("give either at, for one moment, or perReplicaHour, for a rate")
        if self.share is not None and self.count is not None:
            raise ValueError("give share or count, not both")
        if self.at is None and (self.share is not None or self.count is not None):
            raise ValueError("share and count go with at; perReplicaHour is the rate of each replica")
        if self.at is not None and self.model_fields_set & {"begins", "ends"}:
            raise ValueError("from and until go with perReplicaHour; at is one moment")
        return self


class Preemption(Strike):
    """The provider takes machines back.

    Attributes:
        notice: time between the word and the end, in which requests may finish.
        no_capacity_for: how long the variants hit find no machine afterwards.
    """

    notice: Seconds = 30.0
    no_capacity_for: Seconds = 0.0


class FailureKind(StrEnum):
    """How a replica fails."""

    LOST = "Lost"
    RESTART = "Restart"
    FROZEN = "Frozen"


class Failure(Strike):
    """A replica fails; ``lasts`` says how long one that is frozen stays so (until the end of the run)."""

    kind: FailureKind = FailureKind.LOST
    lasts: Seconds | None = None

    @pydantic.model_validator(mode="after")
    def _only_frozen_last(self) -> Self:
        if self.lasts is not None and self.kind is not FailureKind.FROZEN:
            raise ValueError("lasts goes with kind Frozen")
        return self


class SlowStart(Whose):
    """Replicas take ``factor`` times as long to start."""

    factor: Factor


class Readings(StrEnum):
    """Whose numbers are meant."""

    ALL = "All"
    ROUTERS = "Routers"
    ENGINES = "Engines"


class Spoiled(Period):
    """Scrapes, or values in them, that are no good, with probability ``share``."""

    of: Readings = Readings.ALL
    share: Share = 1.0

    def routers(self, at: float) -> bool:
        """Whether routers' numbers are meant at that time."""
        return self.holds(at) and self.of is not Readings.ENGINES

    def engines(self, at: float) -> bool:
        """Whether engines' numbers are meant at that time."""
        return self.holds(at) and self.of is not Readings.ROUTERS


class ExtraDelay(Period):
    """Scrapes arrive ``by`` seconds later."""

    by: Seconds


class PriceChange(fields.ApiModel):
    """A variant's price is another one from a moment on: a number, or a multiple of the price at the start."""

    at: Seconds
    variant: Variant
    usd_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    factor: Factor | None = None

    @pydantic.model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.usd_per_hour is None) == (self.factor is None):
            raise ValueError("give either usdPerHour or factor")
        return self


class Moment(fields.ApiModel):
    """Something that happens once."""

    at: Seconds


class Handover(Moment):
    """Another controller takes over, after ``gap`` seconds in which nobody decides."""

    gap: Seconds = 15.0


class FlashCrowd(Period):
    """``factor`` times as many requests arrive."""

    factor: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False, strict=True)]


class Faults(fields.ApiModel):
    """All that goes wrong in one run; empty for a world in which nothing does. See the module for the fields."""

    preemptions: tuple[Preemption, ...] = ()
    failures: tuple[Failure, ...] = ()
    never_ready: tuple[Whose, ...] = ()
    slow_start: tuple[SlowStart, ...] = ()
    capacity_blocked: tuple[Whose, ...] = ()
    metric_loss: tuple[Spoiled, ...] = ()
    extra_delay: tuple[ExtraDelay, ...] = ()
    nan: tuple[Spoiled, ...] = ()
    stale_series: tuple[Period, ...] = ()
    price_changes: tuple[PriceChange, ...] = ()
    cold_cache: tuple[Moment, ...] = ()
    leader_handover: tuple[Handover, ...] = ()
    outage: tuple[Period, ...] = ()
    flash_crowd: tuple[FlashCrowd, ...] = ()

    def __str__(self) -> str:
        """What goes wrong, in the words of the file; empty when nothing does."""
        counts = {field.alias: len(getattr(self, name)) for name, field in Faults.model_fields.items()}
        return ", ".join(f"{count} × {part}" for part, count in counts.items() if count)


NONE = Faults()
"""Nothing goes wrong."""


def load(path: pathlib.Path | str) -> Faults:
    """The faults of a YAML file.

    Raises:
        FaultError: naming the file, the line and the field at fault.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FaultError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FaultError(f"{path}: can't be read: it is not UTF-8 text") from error
    return parse(text, str(path))


def parse(text: str, file: str = "faults") -> Faults:
    """The faults of a YAML text. Raises FaultError, naming ``file``, the line and the field at fault."""
    try:
        found = documents.parse(text, file)
    except documents.NotYamlError as error:
        raise FaultError(str(error).replace("not a Kubernetes object", "not lists of faults by kind")) from error
    if not found:
        return NONE
    document = found[0]
    if len(found) > 1:
        raise FaultError(f"{file}:{found[1].line(())}: a second document; write all faults into one")
    for path in document.repeated:
        raise FaultError(f"{file}:{document.line(path)}: {findings.spell_path(path)}: given twice; join the lists")
    return _validated(document.value, lambda path: f"{file}:{document.line(path)}")


def of(value: Mapping[str, Any], where: str) -> Faults:
    """The faults of a mapping that is part of a larger file. Raises FaultError, naming ``where`` and the field."""
    return _validated(dict(value), lambda _: where)


def _validated(value: dict[str, Any], place: Callable[[findings.Path], str]) -> Faults:
    try:
        return Faults.model_validate(value, context=_WRITTEN)
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        path = problems[0]["loc"]
        found = findings.at(value, path)
        shown = f" = {findings.spell_value(found)}" if isinstance(found, str | int | float) else ""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        told = f"{findings.spell_path(path)}{shown}: {_told(problems[0])}{more}"
        raise FaultError(f"{place(path)}: {told}") from error


def _told(problem: pydantic_core.ErrorDetails) -> str:
    """What is wrong with one field, and what to write."""
    if problem["type"] == "extra_forbidden":
        of_list, known = problem["loc"][0], Faults
        if len(problem["loc"]) > 1:
            field = next(field for field in Faults.model_fields.values() if field.alias == of_list)
            known = typing.get_args(field.annotation)[0]
        return f"unknown; there are {', '.join(str(field.alias) for field in known.model_fields.values())}"
    if problem["type"] == "tuple_type":
        return "write a list"
    if problem["type"] == "string_pattern_mismatch":
        return "write tier/variant, such as small/l4"
    message = problem["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
