"""``trimtab explain`` from the outside: from a file, from a cluster's status, and from a simulation run again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from trimtab_cli import explain, simulate

from tests import loopback

from . import samples

DECISION: Mapping[str, Any] = {
    "time": 65.0,
    "tier": "default/small",
    "action": "small/l4 2 → 3",
    "reasons": ["arrivals of simple rose 4 → 9 req/s", "at most 2 more at once"],
    "cost_before_usd_per_hour": 12.0,
    "cost_after_usd_per_hour": 13.5,
    "binding": "capacity",
    "inputs": [
        {"about": "simple", "name": "arrivals", "value": 9.0, "unit": "req/s", "state": "Fresh", "age_seconds": 5.0, "note": ""},
        {"about": "simple", "name": "tokens in", "value": None, "unit": "per request", "state": "Missing", "age_seconds": None, "note": "nobody answered"},
        {"about": "simple", "name": "planned for", "value": 11.0, "unit": "req/s", "state": "Forecast", "age_seconds": None, "note": ""},
        {"about": "l4", "name": "start-up", "value": 90.0, "unit": "s", "state": "Given", "age_seconds": None, "note": ""},
    ],
    "alternatives": [{"name": "replicas as they are", "usd_per_hour": 12.0, "why_not": "carries 6 of 9 req/s"}],
    "guards": ["cap_step"],
}  # fmt: skip
MOVE = {
    **DECISION,
    "time": 130.0,
    "tier": "default/large",
    "action": "simple: large 40 % → 30 %",
    "inputs": [],
    "guards": [],
}
SERIES = [
    {"t_s": 0.0, "usd_per_hour": 12.0, "arrivals_per_second": 4.0, "slo_attainment": 1.0},
    {"t_s": 160.0, "usd_per_hour": 13.5, "arrivals_per_second": 10.0, "slo_attainment": 0.97},
]


def run(*arguments: str | Path) -> Result:
    return samples.run(explain.command, *arguments)


def written(folder: Path, *decisions: Mapping[str, Any]) -> Path:
    path = folder / "out.json"
    path.write_text(json.dumps({"runs": [{"series": SERIES}], "decisions": decisions}))
    return path


def words(result: Result) -> str:
    """The output with every run of spaces as one."""
    return " ".join(result.output.replace("\u00a0", " ").split())


# From a file -----------------------------------------------------------------------------------------------------


def test_one_decision_is_told_with_all_that_the_file_knows(tmp_path: Path) -> None:
    result = run(written(tmp_path, DECISION))

    assert result.exit_code == 0, result.output
    told = words(result)
    for part in (
        "small/l4 2 → 3 when 1:05 where default/small",
        "fleet $12.00 → $13.50/h, +$1.50 (+12.5 %)",
        "binding capacity",
        "- arrivals of simple rose 4 → 9 req/s - at most 2 more at once",
        "guards that changed it - cap_step",
        "simple arrivals 9 req/s Fresh 5s old",
        "simple tokens in – Missing nobody answered",
        "replicas as they are $12.00/h carries 6 of 9 req/s",
        "cost at 2:40 $13.50/h $13.50/h",  # 65 s and a start-up of 90 s: the point at 160 s
        "load at 2:40 11 req/s of these classes 10 req/s of all classes",
        "SLO met at 2:40 97.0 %",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        pytest.param([], "simple: large", id="the last"),
        pytest.param(["--back", "1"], "small/l4", id="the one before"),
        pytest.param(["--at", "2m"], "small/l4", id="in force at a time"),
        pytest.param(["--tier", "small"], "small/l4", id="of a tier by its name"),
        pytest.param(["--tier", "default/large"], "simple: large", id="of a tier by its key"),
    ],
)
def test_which_decision_is_wanted_can_be_said(tmp_path: Path, arguments: list[str], action: str) -> None:
    result = run(written(tmp_path, DECISION, MOVE), *arguments)

    assert result.output.startswith(action)


def test_all_decisions_can_be_listed(tmp_path: Path) -> None:
    result = run(written(tmp_path, DECISION, MOVE), "--list")

    assert [line.split()[:2] for line in result.output.splitlines()[1:]] == [
        ["1:05", "default/small"],
        ["2:10", "default/large"],
    ]


def test_an_account_can_be_had_as_json(tmp_path: Path) -> None:
    told = json.loads(run(written(tmp_path, DECISION), "--json").output)

    assert told["action"] == DECISION["action"]
    assert told["inputs"] == DECISION["inputs"]
    assert told["alternatives"] == DECISION["alternatives"]
    assert told["outcome"][0] == {"name": "cost at 2:40", "expected": "$13.50/h", "came": "$13.50/h"}


def test_a_file_of_an_earlier_version_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    old = {key: value for key, value in DECISION.items() if key not in {"inputs", "alternatives", "guards", "binding"}}

    result = run(written(tmp_path, old))

    assert result.exit_code == 0, result.output
    assert "the file keeps no inputs" in result.output


# From a simulation -----------------------------------------------------------------------------------------------


def rising(folder: Path) -> Path:
    """A request a second for two minutes, then twenty a second: more than one replica carries."""
    path = folder / "rise.csv"
    calm = [f"{at},300,60" for at in range(120)]
    busy = [f"{120 + at / 20},300,60" for at in range(3600)]
    path.write_text("\n".join(["t_s,input_tokens,output_tokens", *calm, *busy]) + "\n")
    return path


def test_a_simulation_is_run_again_up_to_the_moment_and_explained_in_full(tmp_path: Path) -> None:
    given = ("-f", samples.manifests(tmp_path), "--trace", rising(tmp_path), "--tier", "small")
    listed = json.loads(run(*given, "--list", "--json").output)
    first = next(one for one in listed if one["action"].startswith("small/one"))
    minutes, _, seconds = first["time"].partition(":")
    at = f"{minutes}m{seconds}s"

    document = json.loads(run(*given, "--at", at, "--json").output)
    back = next(place for place in range(3) if "small/one" in _action(run(*given, "--at", at, "--back", str(place))))
    told = words(run(*given, "--at", at, "--back", str(back)))

    assert told.startswith(first["action"])
    assert f"in force at {first['time']}" in told
    parts = ("inputs", "default arrivals", "one price 1 $/h Given spec", "alternatives", "weights in force", "outcome")
    for part in parts:
        assert part in told
    arrivals = next(one for one in document["inputs"] if one["name"] == "arrivals")
    assert arrivals["state"] == "Fresh"
    assert 0 < arrivals["age_seconds"] <= 10


def _action(result: Result) -> str:
    return result.output.splitlines()[0]


def test_the_same_decisions_as_in_the_simulation_are_listed(tmp_path: Path) -> None:
    folder, trace, out = samples.manifests(tmp_path), rising(tmp_path), tmp_path / "out.json"
    samples.run(simulate.command, "-f", folder, "--trace", trace, "--baselines", "none", "--json", out)

    again = json.loads(run("-f", folder, "--trace", trace, "--at", "4m", "--list", "--json").output)

    simulated = [one["action"] for one in json.loads(out.read_text())["decisions"] if one["time"] <= 240]
    assert [one["action"] for one in again] == simulated
    assert simulated


def test_where_nothing_was_decided_the_plan_in_force_is_explained(tmp_path: Path) -> None:
    trace = samples.trace(tmp_path)

    result = run("-f", samples.manifests(tmp_path), "--trace", trace, "--at", "1m")

    assert result.exit_code == 0, result.output
    assert result.output.startswith("nothing changed")
    assert "default arrivals" in words(result)
    assert "one ready 1 replicas" in words(result)


# From a cluster --------------------------------------------------------------------------------------------------

STATUS = {
    "usdPerHour": "13.5",
    "sloAttainment": "0.971",
    "signals": [
        {"name": "running", "state": "Fresh", "value": "12", "age": "5s"},
        {"name": "waiting", "state": "Missing", "reason": "not scraped"},
    ],
    "variants": [
        {
            "name": "one",
            "desired": 3,
            "ready": 2,
            "pending": 1,
            "usdPerHour": "1",
            "priceSource": "spec",
            "startup": "90s",
        }
    ],
    "decisions": [
        {
            "time": "2027-01-15T08:00:00Z",
            "action": "small/one 2 → 3",
            "reasons": ["arrivals rose"],
            "costBeforeUsdPerHour": "2",
            "costAfterUsdPerHour": "3",
            "bindingConstraint": "capacity",
        }
    ],
}


SPEC = {
    "model": {"name": "m", "quality": "0.6"},
    "slo": {"attainment": "0.95"},
    "variants": [{"name": "one", "accelerator": {"type": "L4"}}],
}
TIER = "/apis/inference.trimtab.dev/v1alpha1/namespaces/shop/inferencetiers/small"
POLICY = "/apis/inference.trimtab.dev/v1alpha1/namespaces/shop/routingpolicies/chat"
OBJECTS: Mapping[str, Any] = {
    TIER: {"metadata": {"name": "small", "namespace": "shop"}, "spec": SPEC, "status": STATUS},
    TIER.replace("small", "odd"): {"metadata": {"name": "odd"}, "spec": {"model": 7}},
    POLICY: {
        "metadata": {"name": "chat", "namespace": "shop"},
        "spec": {"tiers": [{"ref": "small"}, {"ref": "large"}]},
        "status": {
            "classes": [{"name": "simple", "weights": {"small": "0.7", "large": "0.3"}}],
            "signals": [{"name": "simple.arrivalsPerSecond", "state": "Stale", "value": "4.2", "age": "90s"}],
            "decisions": [
                {"time": f"2027-01-15T08:0{at}:00Z", "action": f"simple: move {at}", "reasons": []} for at in range(3)
            ],
        },
    },
}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig for an API server on loopback that holds the objects above."""

    def answer(path: str) -> tuple[int, bytes]:
        found = OBJECTS.get(path)
        return 200 if found else 404, json.dumps(found or {"message": "not found"}).encode()

    with loopback.answering(answer) as address:
        path = tmp_path / "kubeconfig"
        path.write_text(kube_config(address))
        yield path


def kube_config(address: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def test_a_tier_s_last_decision_is_told_from_its_status(kubeconfig: Path) -> None:
    told = words(run("tier", "small", "-n", "shop", "--kubeconfig", kubeconfig))

    for part in (
        "small/one 2 → 3 when 2027-01-15T08:00:00Z where shop/small fleet $2.00 → $3.00/h, +$1.00 (+50.0 %) binding capacity",
        "- arrivals rose",
        "small running 12 Fresh 5s old",
        "small waiting – Missing not scraped",
        "one pending 1 replicas Fresh",
        "one price 1 $/h Given spec",
        "SLO met now at least 95 % 97.1 %",
        "not kept in status",
    ):
        assert part in told


def test_a_policy_s_decisions_come_with_its_weights_and_signals(kubeconfig: Path) -> None:
    told = words(run("policy", "chat", "-n", "shop", "--kubeconfig", kubeconfig, "--back", "1"))

    assert told.startswith("simple: move 1 when 2027-01-15T08:01:00Z")
    assert "simple arrivalsPerSecond 4.2 Stale 90s old" in told
    assert "- simple: small 70 %, large 30 %" in told


def test_an_object_s_decisions_can_be_listed(kubeconfig: Path) -> None:
    listed = json.loads(run("policy", "chat", "-n", "shop", "--kubeconfig", kubeconfig, "--list", "--json").output)

    assert [one["action"] for one in listed] == ["simple: move 0", "simple: move 1", "simple: move 2"]
    assert listed[2]["time"] == "2027-01-15T08:02:00Z"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("huge", 2, "no tier huge in namespace shop: see `kubectl get inferencetiers -A`"),
        ("odd", 2, "tier shop/odd: spec.model: "),
    ],
)
def test_an_object_that_can_t_be_explained_is_named(kubeconfig: Path, name: str, code: int, message: str) -> None:
    result = run("tier", name, "-n", "shop", "--kubeconfig", kubeconfig)

    assert result.exit_code == code
    assert message in result.output
    assert result.output.count("\n") == 1


def test_an_api_server_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "config").write_text(kube_config(address))
        result = run("tier", "small", "--kubeconfig", tmp_path / "config")

    assert result.exit_code == 2
    assert address in result.output
    assert "Traceback" not in result.output


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to explain: write `tier NAME`"),
        (["tier"], 2, "tier: write `tier NAME`"),
        (["absent.json"], 2, "absent.json: can't be read: No such file or directory"),
        (["{folder}/text.json"], 2, "text.json: not JSON"),
        (["{folder}/list.json"], 2, "list.json: no decisions in it; name a file that `trimtab simulate --json`"),
        (["{folder}/odd.json"], 2, "odd.json: decisions can't be read"),
        (["{folder}/out.json", "--tier", "huge"], 1, "no such decision about huge: there are 1 in all; see --list"),
        (["{folder}/out.json", "--at", "1m"], 1, "no such decision up to 1:00"),
        (["{folder}/out.json", "--at", "soon"], 2, "soon"),
        (["{folder}/out.json", "-f", "{folder}"], 2, "two things to explain"),
        (["tier", "small", "--kubeconfig", "{folder}/absent"], 2, "kubeconfig"),
        (["tier", "small", "--at", "1m"], 2, "--at counts from the start of a run"),
        (["-f", "{folder}/manifests", "--minutes", "2", "--at", "3m"], 2, "--at 3:00 is after the end of the trace"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    written(tmp_path, DECISION)
    samples.manifests(tmp_path)
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "odd.json").write_text('{"decisions": [{"time": "soon"}]}')

    result = run(*(argument.format(folder=tmp_path) for argument in arguments))

    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_notes_go_on_under_another_leader(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("leaderHandover: [{at: 1m, gap: 15s}]\n")
    given = ("-f", samples.manifests(tmp_path), "--trace", rising(tmp_path), "--faults", faults, "--at", "4m")

    listed = json.loads(run(*given, "--list", "--json").output)

    assert any(one["time"] > "2:00" for one in listed)  # the rise comes after the change of leader
