"""What a scenario file may say, and reading it: unknown keys and wrong values are told by file and field."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]


Manifests = str | Annotated[list[str], Field(min_length=1)]
"""A path, or several."""


class ScenarioFileError(ValueError):
    """A scenario file that can't be used; the message names file and field, what was found and what is expected."""


class _Strict(pydantic.BaseModel):
    """A mapping without surprises: unknown keys are refused, values are never converted from other types."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Prompts(_Strict):
    """What the made-up prompts are like; see ``trimtab_sim.prompts.Mix``."""

    easy: Share = 0.60
    middling: Share = 0.25
    sensitive: Share = 0.04
    repeated: Share = 0.05


class Recorded(_Strict):
    """A recorded trace: every request of it, with its lengths.

    Attributes:
        file: below the data folder.
        minutes: from its beginning; all of it when None.
        scale: times the recorded rate, at unchanged duration.
    """

    file: str
    minutes: Positive | None = None
    scale: Positive = 1.0
    prompts: Prompts = Prompts()


Quantile = tuple[Share, Annotated[int, Field(ge=1)]]
"""Share of the requests, and the tokens that they don't exceed."""


class Quantiles(_Strict):
    """Lengths by published quantiles, from share 0 to share 1, input and output apart."""

    input: Annotated[list[Quantile], Field(min_length=2)]
    output: Annotated[list[Quantile], Field(min_length=2)]

    @pydantic.field_validator("input", "output")
    @classmethod
    def _whole(cls, given: list[Quantile]) -> list[Quantile]:
        shares = [share for share, _ in given]
        if shares != sorted(set(shares)) or (shares[0], shares[-1]) != (0.0, 1.0):
            raise ValueError("shares must rise from 0 to 1")
        if any(after < before for (_, before), (_, after) in itertools.pairwise(given)):
            raise ValueError("tokens must not fall")
        return given


class Lengths(_Strict):
    """Where the lengths of made-up requests come from: one of the three.

    Attributes:
        file: a recorded trace below the data folder: a random row of it for each request.
        quantiles: published quantiles.
        mixed: kinds of requests with their shares of all requests.
    """

    file: str | None = None
    quantiles: Quantiles | None = None
    mixed: Annotated[list[Kind], Field(min_length=2)] | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> Lengths:
        if sum(part is not None for part in (self.file, self.quantiles, self.mixed)) != 1:
            raise ValueError("give one of file, quantiles and mixed")
        return self


class Kind(_Strict):
    """One kind of request among others."""

    share: Share
    lengths: Lengths


class Stretch(_Strict):
    """A stretch of a made-up course: requests per second, constant or from one rate to another in a straight line."""

    minutes: Positive
    rps: NotNegative | tuple[NotNegative, NotNegative]

    def thinned(self, scale: float) -> Stretch:
        """The same with so many times the rate."""
        rps = tuple(scale * rate for rate in self.rps) if isinstance(self.rps, tuple) else scale * self.rps
        return self.model_copy(update={"rps": rps})


class Course(_Strict):
    """Made-up rates.

    Attributes:
        cv: coefficient of variation of the time between arrivals at constant rate; 1 is Poisson.
        lengths: those of the Azure 2023 conversation trace when None.
    """

    course: Annotated[list[Stretch], Field(min_length=1)]
    cv: Positive = 1.0
    lengths: Lengths | None = None
    prompts: Prompts = Prompts()


class Curve(_Strict):
    """Published rates, of which requests are sampled.

    Attributes:
        curve: a CSV below the data folder, in order of time.
        select: column → value of the rows that are used.
        time, seconds: name of the column of times, and how many seconds its unit has.
        rate, per_seconds: name of the column of rates, and over how many seconds it counts requests.
        scale: times the published rate.
        minutes: from the beginning; all when None.
        cv: as in ``Course``.
    """

    curve: str
    select: dict[str, str] = {}
    time: str
    seconds: Positive = 1.0
    rate: str
    per_seconds: Positive = 1.0
    scale: Positive = 1.0
    minutes: Positive | None = None
    cv: Positive = 1.0
    lengths: Lengths
    prompts: Prompts = Prompts()


def _kind_of(given: object) -> str:
    """Which kind of trace a mapping means: by the key that only this kind has."""
    if isinstance(given, pydantic.BaseModel):
        return type(given).__name__
    keys = given if isinstance(given, dict) else {}
    return next((kind for key, kind in _KINDS.items() if key in keys), "none")


_KINDS = {"file": "Recorded", "course": "Course", "curve": "Curve"}
Trace = Annotated[
    Annotated[Recorded, pydantic.Tag("Recorded")]
    | Annotated[Course, pydantic.Tag("Course")]
    | Annotated[Curve, pydantic.Tag("Curve")],
    pydantic.Discriminator(
        _kind_of,
        custom_error_type="kind",
        custom_error_message="give one of file (recorded), course (made up) and curve (published rates)",
    ),
]


class Quick(_Strict):
    """What ``--quick`` changes: a shorter trace (not for courses), a thinner one, or both.

    Attributes:
        minutes: instead of the trace's own.
        scale: instead of the trace's own; of a course, times the rates that it says.
    """

    minutes: Positive | None = None
    scale: Positive | None = None


Measure = Literal[
    "saved", "attainment", "attainment_gained", "regret", "wrong_way_moves", "reversals_10min_max",
    "recovery_seconds", "failed",
]  # fmt: skip


class Target(_Strict):
    """A number of Trimtab's run and what it should be.

    Attributes:
        measure: ``saved``: share of the cost of the cheapest run of ``against`` that keeps the SLO. ``attainment``:
            share of the requests that met the SLO; ``attainment_gained``: the same less that of ``against``.
            ``recovery_seconds``: from ``after_minutes`` until the SLO is kept for three minutes. The rest: fields of
            the run's report.
        against: other runs of the scenario: baselines, or names in ``beside``.
        after_minutes: when the disturbance begins that must be recovered from.
        why: where a limit comes from that is not a constant of the project's goals.
    """

    measure: Measure
    at_least: float | None = None
    at_most: float | None = None
    against: list[str] = []
    after_minutes: NotNegative | None = None
    why: str = ""

    @pydantic.model_validator(mode="after")
    def _sound(self) -> Target:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give one of at_least and at_most")
        if (self.measure in {"saved", "attainment_gained"}) != bool(self.against):
            raise ValueError("against belongs to saved and attainment_gained, and these need it")
        if (self.measure == "recovery_seconds") != (self.after_minutes is not None):
            raise ValueError("after_minutes belongs to recovery_seconds, and this needs it")
        return self


class Scenario(_Strict):
    """One scenario.

    Attributes:
        name: as the file is called.
        shows: in a sentence or two, what the scenario is there for.
        manifests: folders and files of manifests, from the scenario's own folder.
        beside: name → other manifests that Trimtab runs on the same trace, as a comparison.
        policy: that gets the trace; the first one when empty.
        faults: what goes wrong, in the format of ``trimtab_sim.faults``.
        baselines: names of baselines, or ``all``.
        by_mean_weights: baselines that run once more, with the demand-weighted mean of Trimtab's own weights, so that
            autoscaling alone is compared; named ``NAME by mean weights``.
        oracle: whether the regret to the offline optimum is computed.
        prologue_minutes: run-in, not counted; the simulator's default when None.
        points: of the course in plots and of recovery times.
        targets: what must come out.
        not_shown: what the numbers don't tell, for readers.
    """

    name: Name
    shows: Annotated[str, Field(min_length=20)]
    manifests: Manifests
    beside: dict[Name, Manifests] = {}
    policy: str = ""
    trace: Trace
    quick: Quick = Quick()
    faults: dict[str, list[dict[str, Any]]] = {}
    baselines: list[str] | Literal["all"] = []
    by_mean_weights: list[str] = []
    oracle: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    prologue_minutes: NotNegative | None = None
    points: Annotated[int, Field(ge=20, le=2000)] = 120
    targets: Annotated[list[Target], Field(min_length=1)]
    not_shown: str = ""

    @property
    def data(self) -> tuple[str, ...]:
        """Files below the data folder that the scenario needs."""
        trace = self.trace
        if isinstance(trace, Recorded):
            return (trace.file,)
        lengths = _files(trace.lengths)
        return (trace.curve, *lengths) if isinstance(trace, Curve) else lengths

    def hurried(self) -> Scenario:
        """The scenario as ``--quick`` runs it."""
        changes = {name: value for name, value in self.quick if value is not None}
        trace: Recorded | Course | Curve = self.trace
        if not isinstance(trace, Course):
            trace = trace.model_copy(update=changes)
        elif self.quick.scale is not None:
            trace = trace.model_copy(update={"course": [one.thinned(self.quick.scale) for one in trace.course]})
        return self.model_copy(update={"trace": trace})


def _files(lengths: Lengths | None) -> tuple[str, ...]:
    if lengths is None:
        return ()
    if lengths.mixed is not None:
        return tuple(dict.fromkeys(file for kind in lengths.mixed for file in _files(kind.lengths)))
    return (lengths.file,) if lengths.file else ()


def load(path: pathlib.Path) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioFileError: naming file and field.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioFileError(f"{path}: can't be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioFileError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise ScenarioFileError(f"{path}: found {type(given).__name__}; expected the fields of one scenario")
    try:
        found = Scenario.model_validate_json(json.dumps(given, default=str))
    except pydantic.ValidationError as error:
        raise ScenarioFileError(f"{path}: {_told(error)}") from error
    if found.name != path.stem:
        raise ScenarioFileError(f"{path}: name is {found.name!r}; expected {path.stem!r}, as the file is called")
    return found


def _told(error: pydantic.ValidationError) -> str:
    """The first thing that is wrong: field, problem, what was found, and how many more there are."""
    first, *more = error.errors()
    field = ".".join(str(part) for part in first["loc"] if part not in _KINDS.values()) or "the whole file"
    problem = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict | list) else f"; found {str(first['input'])[:60]!r}"
    return f"{field}: {problem}{found}" + (f" (and {len(more)} more)" if more else "")
