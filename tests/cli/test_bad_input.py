"""Bad input to the commands that plan: a clear line with place and fix, or the least bad plan; never a traceback."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import pytest
from click import Command
from click.testing import Result
from trimtab_cli import explain, plan, simulate

from . import samples

HEAD = "t_s,input_tokens,output_tokens\n"
CALM = "".join(f"{at},300,60\n" for at in range(60))
COMMANDS = {"simulate": simulate.command, "plan": plan.command, "explain": explain.command}
USAGE, FINDING, FINE = 2, 1, 0


@dataclass(frozen=True)
class Case:
    """One thing that is wrong.

    Attributes:
        told: what must be said; ``{trace}``, ``{yaml}`` and ``{faults}`` stand for the files.
        code: exit code of ``simulate`` and ``plan``.
        trace: the trace file.
        edit: what is replaced in the manifests, and by what.
        policy: lines that are added to the policy.
        faults: the faults file.
    """

    told: str
    code: int = USAGE
    trace: str | bytes = HEAD + CALM
    edit: tuple[str, str] = ("", "")
    policy: str = ""
    faults: str = ""


TRACES = {
    "unsorted times": Case("{trace}:4: time goes back by 2 s; expected rows sorted by time", trace=HEAD + "0,9,9\n5,9,9\n3,9,9\n"),
    "zero tokens": Case("{trace}:2: input_tokens is '0'; expected a whole number from 1", trace=HEAD + "0,0,9\n"),
    "negative tokens": Case("{trace}:3: output_tokens is '-9'; expected a whole number from 1", trace=HEAD + "0,9,9\n1,9,-9\n"),
    "absurd tokens": Case("{trace}:2: input_tokens is '99999999999'; expected a whole number", trace=HEAD + "0,99999999999,9\n"),
    "half a token": Case("{trace}:2: input_tokens is '1.5'; expected a whole number", trace=HEAD + "0,1.5,9\n"),
    "a time that is none": Case("{trace}:2: t_s is 'nan'; expected a finite number", trace=HEAD + "nan,9,9\n"),
    "a word for a number": Case("{trace}:2: input_tokens is 'ten'; expected", trace=HEAD + "0,ten,9\n"),
    "a missing column": Case("{trace}:2: found 2 fields in '0,9'; expected 3", trace=HEAD + "0,9\n"),
    "another format": Case("{trace}:1: found 'a,b'; expected a CSV with the columns", trace="a,b\n1,2\n"),
    "an empty file": Case("{trace}: empty; expected a CSV", trace=""),
    "a header alone": Case("{trace}: no requests in it; expected a CSV", trace=HEAD),
    "a gzip that breaks off": Case("{trace}: damaged gzip", trace=gzip.compress(HEAD.encode() * 99)[:40]),
    "bytes that are no text": Case("{trace}:1: ", trace=bytes(range(128, 256))),
    "a long gap": Case(
        "note: 1 gap of 5m53s or more without a request, the longest 33m21s from 0:59: replayed as recorded", FINE,
        trace=HEAD + CALM + "".join(f"{2060 + at},300,60\n" for at in range(60)),
    ),
    "a request that fits nowhere": Case(
        "note: 1 request of more tokens than the 200,000 of the largest KV cache: no replica can hold them", FINE,
        trace=HEAD + CALM + "60,5000000,60\n",
    ),
}  # fmt: skip
USD = 'usdPerHour: "1.00"'
MANIFESTS = {
    "a negative price": Case('{yaml}:11: InferenceTier/small: spec.variants[0].price.usdPerHour = "-1.00": ', edit=(USD, 'usdPerHour: "-1.00"')),
    "a price of zero": Case("usdPerHour must be above 0; write what a replica costs", edit=(USD, 'usdPerHour: "0"')),
    "a price that is no number": Case('spec.variants[0].price.usdPerHour = "NaN": not a decimal number', edit=(USD, 'usdPerHour: "NaN"')),
    "an unknown GPU without a price": Case(
        "{yaml}:9: InferenceTier/small: spec.variants[0].name = \"one\": accelerator 'L5' is not in the catalogue; write 'L4'",
        edit=(f"type: L4}}\n    price: {{{USD}}}", "type: L5}"),
    ),
    "an unknown GPU with price and profile": Case(
        "note: tier small, variant one: accelerator 'L5' is not in the catalogue", FINE, edit=("type: L4", "type: L5"),
    ),
    "a limit below what may run": Case("{yaml}:12: InferenceTier/small: spec.variants[0].replicas.min = 5: min must not be above max", edit=("min: 1, max: 20", "min: 5, max: 2")),
    "an SLO of zero": Case('spec.slo.ttft.p95 = "0s": p95 must be above 0', edit=("ttft: {p95: 2s}", "ttft: {p95: 0s}")),
    "an SLO that no variant can keep": Case(
        '{yaml}:7: InferenceTier/small: spec.slo.ttft.p95 = "1ms": no variant can meet it: the best, small/one, takes', FINDING,
        edit=("ttft: {p95: 2s}", "ttft: {p95: 1ms}"),
    ),
    "an SLO of the policy that no tier can keep": Case(
        'RoutingPolicy/chat: spec.slo.ttft.p95 = "1ms": no variant can meet it', FINDING, policy="  slo: {ttft: {p95: 1ms}}\n",
    ),
    "a quality that no tier has": Case(
        'spec.classes[0].minQuality = "0.95": the best allowed tier, large, has quality 0.80', FINDING,
        policy='  classes: [{name: all, minQuality: "0.95"}]\n',
    ),
    "a budget below the minimum": Case(
        'RoutingPolicy/chat: spec.budget.usdPerHour = "5": the replicas that always run cost $9.00 in that time; write at least "9.00"', FINDING,
        policy='  budget: {usdPerHour: "5"}\n',
    ),
    "a month's budget below the minimum": Case(
        'spec.budget.usdPerMonth = "5000": the replicas that always run cost $6,570.00', FINDING, policy='  budget: {usdPerMonth: "5000"}\n',
    ),
    "a negative budget": Case('spec.budget.usdPerHour = "-5": ', policy='  budget: {usdPerHour: "-5"}\n'),
    "a tier that is not there": Case("spec.tiers[1].ref", edit=("{ref: large}", "{ref: huge}")),
    "no YAML": Case("{yaml}:", edit=("kind: RoutingPolicy", "kind: [")),
}  # fmt: skip
FAULTS = {
    "an unknown fault": Case("{faults}:1: flashcrowd: unknown; there are preemptions", faults="flashcrowd: []\n"),
    "a fault that ends before it begins": Case(
        "{faults}:1: flashCrowd[0]: until must come after from", faults="flashCrowd: [{from: 1m, until: 30s, factor: 3}]\n",
    ),
    "a fault of a variant that is not there": Case(
        "variant 'small/none' is not in the manifests", faults="neverReady: [{from: 1m, variant: small/none}]\n",
    ),
}  # fmt: skip
CASES = {**TRACES, **MANIFESTS, **FAULTS}


def called(command: Command, case: Case, folder: Path) -> tuple[Result, str]:
    """The result of a command, and what it must say."""
    path = samples.manifests(folder, policy=samples.POLICY + case.policy)
    yaml, trace, faults = path / "all.yaml", folder / "trace.csv", folder / "faults.yaml"
    if case.edit[0]:
        text = yaml.read_text()
        assert case.edit[0] in text
        yaml.write_text(text.replace(*case.edit, 1))
    trace.write_bytes(case.trace if isinstance(case.trace, bytes) else case.trace.encode())
    arguments: list[str | Path] = ["-f", path, "--trace", trace]
    if case.faults:
        faults.write_text(case.faults)
        arguments += ["--faults", faults]
    if command is simulate.command:
        arguments += ["--baselines", "none"]
    told = case.told.replace("{yaml}", str(yaml)).replace("{trace}", str(trace)).replace("{faults}", str(faults))
    return samples.run(command, *arguments), told


@pytest.mark.parametrize("name", ["simulate", "plan"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_named_with_its_place_and_never_a_traceback(tmp_path: Path, case: Case, name: str) -> None:
    result, told = called(COMMANDS[name], case, tmp_path)

    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == case.code, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    if case.code == USAGE:
        assert result.output.count("\n") == 1


@pytest.mark.parametrize("case", [case for case in MANIFESTS.values() if case.code == FINDING], ids=str)
def test_what_can_t_be_kept_still_gets_the_least_bad_plan(tmp_path: Path, case: Case) -> None:
    result, _ = called(plan.command, case, tmp_path)

    assert "cost per hour" in result.output
    assert "replicas of large/one" in result.output
    assert "breaks  " in result.output


@pytest.mark.parametrize("case", [TRACES["unsorted times"], MANIFESTS["a negative price"]], ids=["trace", "manifest"])
def test_explain_begins_with_the_same_checks(tmp_path: Path, case: Case) -> None:
    result, told = called(explain.command, case, tmp_path)

    assert result.exit_code == USAGE
    assert told in result.output
