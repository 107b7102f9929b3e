"""The headline experiment's arithmetic: halves, accuracy with its interval, rows, the fewest replicas, the picture."""

from __future__ import annotations

import gzip
import json
import pathlib
from xml.etree import ElementTree as ET

import bench_headline
import pytest
from headline import arrivals, experiment, outcomes, picture
from trimtab_cli import manifests
from trimtab_sim import known_prompts, report
from trimtab_sim.workload import Request


def answered(text: str, **found: float) -> outcomes.Answered:
    return outcomes.Answered("made", text, found)


def test_one_question_in_two_layouts_lies_in_one_half() -> None:
    for at in range(50):
        plain = answered(f"What is {at} plus 1?")
        assert plain.half == answered(f"what is {at} plus 1?\nA. {at}\nB. {at + 1}").half


def test_the_halves_are_about_halves() -> None:
    fitted = sum(answered(f"question number {at}").half == outcomes.FIT for at in range(2000))
    assert fitted == pytest.approx(1000, abs=112)  # five standard deviations of 22.4


def test_prompts_of_a_fleet_have_all_its_models_and_the_charge_for_8_bit_weights() -> None:
    fleet = experiment.Fleet("made", ("made",), {"little": "a", "big": "b"}, "big")
    found = [
        answered("one", a=0.0, b=1.0),
        answered("two", a=1.0),
        outcomes.Answered("other", "three", {"a": 1, "b": 1}),
    ]
    made = experiment.prompts(fleet, found, found[0].half)
    assert [prompt.text for prompt in made] == ["one"]
    assert made[0].outcomes == {"little": 0.0, "big": 1.0, "little-fp8": 0.0, "big-fp8": pytest.approx(0.994)}


def tally(differences: list[list[float]]) -> experiment.Tally:
    """A witness of one prompt for each list, each number a request that earned so much more than the big model."""
    prompts = [known_prompts.Prompt(str(at), {"big": 0.5}) for at in range(len(differences))]
    found = experiment.Tally(known_prompts.Known(prompts, seed=1), "big")
    for at, each in enumerate(differences):
        for difference in each:
            found(Request(0, 1.0, 1, 1, prompt=at), report.Outcome(1.0, "any", True, 0.1, 0.01, 2.0, 0.5 + difference))
    return found


def test_the_change_in_accuracy_is_the_mean_over_requests() -> None:
    assert tally([[-1.0], [0.0], [0.0], [0.0]]).change()[0] == pytest.approx(-0.25)
    assert tally([[-1.0] * 3, [0.0]]).change()[0] == pytest.approx(-0.75)


def test_the_interval_counts_prompts_and_not_how_often_they_are_asked() -> None:
    once, often = (
        tally([[-1.0], [0.0], [0.0], [0.0]]).change(),
        tally([[-1.0] * 50, [0.0] * 50, [0.0] * 50, [0.0] * 50]).change(),
    )
    # Four prompts of mean -1/4: sum of squares 0.75, over 4² and times 4/3 is a variance of 0.0625.
    assert once[1] == pytest.approx(1.96 * 0.25)
    assert often == pytest.approx(once)


def test_requests_of_the_prologue_are_not_counted() -> None:
    found = tally([[0.0]])
    found(Request(0, -1.0, 1, 1, prompt=0), report.Outcome(-1.0, "any", True, 9.0, 9.0, 9.0, 1.0))
    assert (found.answered, found.e2e_s) == (1, 2.0)


def row(name: str, usd: float, e2e_s: float, change: float) -> experiment.Row:
    return experiment.Row(name, usd, 0.1, 0.2, e2e_s, 2 * e2e_s, change, 0.01, 0.5, 0.995, 4.0, {"large": 1.0}, "")


ROWS = [row("a", 1000.0, 10.0, 0.0), row("b", 290.0, 5.0, -0.007), row("c", 210.0, 4.0, -0.02)]


def test_results_are_held_against_the_published_figures() -> None:
    found = {each["name"]: each for each in bench_headline.results(ROWS, [(0.0, 250.0), (0.2, 210.0)])}
    cost = found["cost of b against the first row"]
    assert (cost["value"], cost["target"], cost["met"]) == (pytest.approx(-0.71), -0.70, True)
    assert found["cost of c against the first row"]["met"] is False  # -79 % is not -80 %
    assert found["mean latency of b"]["met"] is True  # -50 %, published -42 %
    assert found["accuracy of b"]["met"] is True  # -0.7 points, published -0.8
    assert found["accuracy of c"]["met"] is False
    assert found["cost of the last row with 0% repeated"]["value"] == pytest.approx(-0.75)
    json.dumps(list(found.values()))


def test_the_table_names_the_saving(capsys: pytest.CaptureFixture[str]) -> None:
    bench_headline.show(ROWS)
    assert "71%" in capsys.readouterr().out


def test_the_picture_is_well_formed_and_names_all_rows() -> None:
    drawn = picture.draw(ROWS, [(0.0, 250.0), (0.5, 150.0)], "a <title>")
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.text]
    assert {"a <title>", "a", "b", "c", "50%"} <= set(texts)


@pytest.mark.parametrize("path", sorted(bench_headline.MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_manifests_are_sound_and_their_models_have_outcomes(path: pathlib.Path) -> None:
    bundle = manifests.load([path])
    assert not bundle.findings
    fleet = experiment.FLEETS[path.stem.removesuffix("-quantised")]
    known = set(fleet.models) | {model + experiment.QUANTISED for model in fleet.models}
    assert {tier.spec.model.name for tier in bundle.tiers} <= known


def test_days_pass_faster_at_the_wanted_mean_rate(tmp_path: pathlib.Path) -> None:
    (tmp_path / "traces").mkdir()
    with gzip.open(tmp_path / arrivals.HOUR, "wt") as file:
        file.write("t_s,input_tokens,output_tokens\n0.0,100,10\n1.0,200,20\n")
    with gzip.open(tmp_path / arrivals.RATES, "wt") as file:
        file.write("workload,start,t_min,mid_cal\n")
        file.writelines(f"conv,2024-05-12,{720 * at},{60 * (1 + at % 2)}\n" for at in range(6))
    trace = arrivals.days(tmp_path, "conv", first=1, count=1, speed=24, mean_rps=2.0, seed=1)
    assert trace.duration_s == pytest.approx(3600, abs=30)  # a day in an hour
    assert len(trace) == pytest.approx(7200, rel=0.1)
    halves = [sum(request.arrival_s < 1800 for request in trace), sum(request.arrival_s >= 1800 for request in trace)]
    assert halves[1] / halves[0] == pytest.approx(2.0, rel=0.15)  # the second half of each day has twice the rate
    assert {(request.input_tokens, request.output_tokens) for request in trace} == {(100, 10), (200, 20)}


def test_without_data_the_benchmark_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("TRIMTAB_DATA", str(tmp_path))
    assert bench_headline.main([]) == 0


@pytest.mark.parametrize("needed", range(1, 30))
@pytest.mark.parametrize("guess", [1, 4, 20])
def test_the_fewest_replicas_are_found_from_any_guess(needed: int, guess: int) -> None:
    asked: list[int] = []

    def keeps(count: int) -> bool:
        asked.append(count)
        return count >= needed

    assert experiment.fewest(keeps, guess, None) == needed
    assert len(asked) == len(set(asked)) <= 16  # every question is a simulated run
    assert experiment.fewest(lambda count: count >= needed, guess, needed) is None
    assert experiment.fewest(lambda count: count >= needed, guess, needed + 1) == needed
