"""Scenario files: all that are there can be read, and every mistake is one line that names file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from savings import running, schema
from trimtab_cli import manifests

SCENARIOS = Path(__file__).resolve().parents[2] / "benchmarks" / "scenarios"
FILES = sorted(SCENARIOS.glob("*.yaml"))
GOOD = """
name: small
shows: A flat load that needs one replica, to test with.
manifests: manifests
trace: {course: [{minutes: 5, rps: 2}]}
targets: [{measure: attainment, at_least: 0.9}]
"""


def written(folder: Path, text: str = GOOD, name: str = "small.yaml", **changes: object) -> Path:
    path = folder / name
    fields = yaml.safe_load(text) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not None}))
    return path


def refused(path: Path) -> str:
    with pytest.raises(schema.ScenarioFileError) as told:
        schema.load(path)
    return str(told.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_that_ships_can_be_read_and_so_can_its_manifests(path: Path) -> None:
    scenario = schema.load(path)
    running.baselines_of(scenario)
    for given in (scenario.manifests, *scenario.beside.values()):
        assert manifests.load(running.paths(given, SCENARIOS)).findings == ()


def test_the_scenarios_that_were_asked_for_are_there() -> None:
    asked = {
        "conversation-hour", "code-hour", "week-2024-conv", "week-2024-code", "week-servegen", "mixed-lengths",
        "spot-waves", "night", "flash-crowd", "price-shock", "metric-blackout", "stale-series", "nan-storm",
        "never-ready", "capacity-blocked", "poisoned-forecast", "leader-handover",
    }  # fmt: skip
    assert asked <= {path.stem for path in FILES}


def test_a_good_file_says_what_is_written(tmp_path: Path) -> None:
    scenario = schema.load(written(tmp_path))
    assert isinstance(scenario.trace, schema.Course)
    assert scenario.trace.course[0].rps == 2.0
    assert scenario.data == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"shows": None}, "shows: Field required"),
        ({"trace": {"minutes": 5}}, "trace: give one of file (recorded), course (made up) and curve"),
        ({"trace": {"file": "x.csv", "scale": -1}}, "trace.scale: Input should be greater than 0; found '-1'"),
        ({"trace": {"file": "x.csv", "sclae": 1}}, "trace.sclae: unknown key"),
        ({"trace": {"course": [{"minutes": "5", "rps": 1}]}}, "trace.course.0.minutes: Input should be a valid number"),
        ({"targets": []}, "targets: List should have at least 1 item"),
        ({"targets": [{"measure": "attainment"}]}, "targets.0: give one of at_least and at_most"),
        ({"targets": [{"measure": "saved", "at_least": 0.3}]}, "targets.0: against belongs to saved"),
        ({"targets": [{"measure": "attainment", "at_least": 0.3, "against": ["x"]}]}, "targets.0: against belongs to"),
        ({"targets": [{"measure": "recovery_seconds", "at_most": 9}]}, "targets.0: after_minutes belongs to"),
        ({"targets": [{"measure": "profit", "at_least": 0.3}]}, "targets.0.measure: Input should be 'saved'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_a_mistake_is_told_by_file_and_field(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = written(tmp_path, **changes)
    message = refused(path)
    assert message.startswith(f"{path}: {told}")
    assert "\n" not in message


def test_a_scenario_is_called_as_its_file(tmp_path: Path) -> None:
    assert "name is 'small'; expected 'other', as the file is called" in refused(written(tmp_path, name="other.yaml"))


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ({}, "trace.lengths: give one of file, quantiles and mixed"),
        (
            {"quantiles": {"input": [[0, 1], [0.9, 5]], "output": [[0, 1], [1, 5]]}},
            "trace.lengths.quantiles.input: shares must rise from 0 to 1",
        ),
        (
            {"quantiles": {"input": [[0, 9], [0.5, 4], [1, 5]], "output": [[0, 1], [1, 5]]}},
            "trace.lengths.quantiles.input: tokens must not fall",
        ),
    ],
    ids=["none", "open", "falling"],
)
def test_lengths_are_checked(tmp_path: Path, lengths: dict[str, object], told: str) -> None:
    trace = {"course": [{"minutes": 5, "rps": 2}], "lengths": lengths}
    assert told in refused(written(tmp_path, trace=trace))


@pytest.mark.parametrize(
    ("text", "told"), [("a: [", "not YAML"), ("- 1", "found list; expected the fields of one scenario")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    assert refused(path).startswith(f"{path}: {told}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "can't be read: No such file" in refused(tmp_path / "none.yaml")


def test_a_baseline_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    scenario = schema.load(written(tmp_path, baselines=["hpa"]))
    with pytest.raises(schema.ScenarioFileError, match="small: baselines: 'hpa' is none of static-peak"):
        running.baselines_of(scenario)


def test_the_files_that_a_scenario_needs_are_known(tmp_path: Path) -> None:
    lengths = {"mixed": [{"share": 1, "lengths": {"file": "b"}}, {"share": 1, "lengths": {"file": "b"}}]}
    trace = {"curve": "a", "time": "t", "rate": "r", "lengths": lengths}
    assert schema.load(written(tmp_path, trace=trace)).data == ("a", "b")


def test_in_a_hurry_traces_are_cut_and_courses_thinned(tmp_path: Path) -> None:
    cut = schema.load(written(tmp_path, trace={"file": "x", "scale": 9}, quick={"minutes": 3})).hurried().trace
    assert isinstance(cut, schema.Recorded)
    assert (cut.minutes, cut.scale) == (3.0, 9.0)
    thinned = schema.load(written(tmp_path, quick={"scale": 0.5})).hurried().trace
    assert isinstance(thinned, schema.Course)
    assert thinned.course[0].rps == 1.0  # half of 2
