"""`trimtab validate` names file, line, field, value and fix of everything that is wrong, and nothing else.

Each row changes one line of a set of manifests that is right; the finding must stand at the line that was changed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from trimtab_cli import manifests, validate

ROOT = Path(__file__).resolve().parents[2]

RIGHT = """\
apiVersion: inference.trimtab.dev/v1alpha1
kind: InferenceTier
metadata:
  name: small
spec:
  model:
    name: llama-3.1-8b
    quality: "0.62"
  slo:
    ttft: {p95: 800ms}
    itl: {p95: 60ms}
  variants:
  - name: l40s
    accelerator: {type: L40S, count: 1}
    replicas: {min: 1, max: 4}
  drain: {timeout: 120s}
---
apiVersion: inference.trimtab.dev/v1alpha1
kind: InferenceTier
metadata:
  name: large
spec:
  model:
    name: llama-3.3-70b
    quality: "0.82"
  slo:
    ttft: {p95: 2s}
  variants:
  - name: h200
    accelerator: {type: H200, count: 2}
    price: {usdPerHour: "15.82"}
    replicas: {min: 1, max: 8}
---
apiVersion: inference.trimtab.dev/v1alpha1
kind: RoutingPolicy
metadata:
  name: assistant
spec:
  models: [auto]
  tiers:
  - ref: small
  - ref: large
  classes:
  - name: sensitive
    match: {sensitive: true}
    allow: [large]
    onUnavailable: Reject
  - name: batch
    match: {priority: batch}
    slo: {e2e: {p95: 10m}}
  - name: default
    match: {}
    minQuality: "0.60"
  budget:
    usdPerHour: "40"
  cache: {ref: answers}
---
apiVersion: inference.trimtab.dev/v1alpha1
kind: CachePolicy
metadata:
  name: answers
spec:
  ttl: 1h
  scope: Tenant
"""


@dataclass(frozen=True)
class Row:
    """One mistake.

    Attributes:
        old, new: the line as it is right, and as somebody wrote it.
        code, field: of the finding.
        says: words of its problem and fix.
        at: text of the line where the finding stands, if not the changed one.
        also: code of a second finding that the mistake brings.
    """

    id: str
    old: str
    new: str
    code: str
    field: str
    says: tuple[str, ...]
    at: str = ""
    also: str = ""


SECOND_POLICY = """\
apiVersion: inference.trimtab.dev/v1alpha1
kind: RoutingPolicy
metadata:
  name: second
spec:
  models: [auto] # second
  tiers: [{ref: small}]
"""
ROWS = [
    # What the types refuse.
    Row("unknown field", "    replicas: {min: 1, max: 4}", "    replica: {min: 1, max: 4}", "unknown-field",
        "spec.variants[0].replica", ("did you mean replicas?",)),
    Row("unknown field like no other", "  drain: {timeout: 120s}", "  colour: blue", "unknown-field",
        "spec.colour", ("remove it", "known here: drain, engine, external")),
    Row("snake case", "  budget:", "  on_budget_exceeded:", "unknown-field", "spec.on_budget_exceeded", ("no such field",)),
    Row("missing field", '    quality: "0.62"', "    source: hf://a/b", "missing-field", "spec.model.quality",
        ("a required field is missing", "Prior probability"), at="  model:"),
    Row("latency without unit, in quotes", "    ttft: {p95: 800ms}", '    ttft: {p95: "800"}', "wrong-unit",
        "spec.slo.ttft.p95", ("not a duration", "write 800ms")),
    Row("latency without unit, a number", "    ttft: {p95: 800ms}", "    ttft: {p95: 800}", "wrong-unit",
        "spec.slo.ttft.p95", ("write 800ms",)),
    Row("latency in bare seconds", "    ttft: {p95: 800ms}", "    ttft: {p95: 0.8}", "wrong-unit",
        "spec.slo.ttft.p95", ("write 0.8s",)),
    Row("timeout without unit", "  drain: {timeout: 120s}", "  drain: {timeout: 120}", "wrong-unit",
        "spec.drain.timeout", ("write 120s",)),
    Row("unit spelled out", "  drain: {timeout: 120s}", "  drain: {timeout: 2 minutes}", "wrong-unit",
        "spec.drain.timeout", ("write 2m",)),
    Row("days", "  drain: {timeout: 120s}", "  drain: {timeout: 1.5d}", "wrong-unit",
        "spec.drain.timeout", ("write 36h", "days are not known")),
    Row("no duration at all", "  drain: {timeout: 120s}", "  drain: {timeout: soon}", "wrong-unit",
        "spec.drain.timeout", ("such as 800ms",)),
    Row("money without quotes", '    price: {usdPerHour: "15.82"}', "    price: {usdPerHour: 15.82}", "wrong-unit",
        "spec.variants[0].price.usdPerHour", ('quote it: "15.82"',)),
    Row("whole money without quotes", '    price: {usdPerHour: "15.82"}', "    price: {usdPerHour: 15}", "wrong-unit",
        "spec.variants[0].price.usdPerHour", ('quote it: "15"',)),
    Row("money with its sign", '    price: {usdPerHour: "15.82"}', '    price: {usdPerHour: "$15.82"}', "wrong-unit",
        "spec.variants[0].price.usdPerHour", ('write "15.82"',)),
    Row("money with a comma", '    price: {usdPerHour: "15.82"}', '    price: {usdPerHour: "15,82"}', "wrong-unit",
        "spec.variants[0].price.usdPerHour", ('write "15.82"',)),
    Row("negative money", '    price: {usdPerHour: "15.82"}', '    price: {usdPerHour: "-1"}', "wrong-unit",
        "spec.variants[0].price.usdPerHour", ("digits in quotes",)),
    Row("ratio without quotes", '    quality: "0.62"', "    quality: 0.62", "wrong-unit",
        "spec.model.quality", ('quote it: "0.62"',)),
    Row("ratio in per cent", '    quality: "0.62"', '    quality: "62%"', "wrong-unit",
        "spec.model.quality", ('write "0.62" for 62 %',)),
    Row("ratio above one", '    quality: "0.62"', '    quality: "62"', "wrong-unit",
        "spec.model.quality", ('write "0.62" for 62 %',)),
    Row("ratio of nothing known", '    quality: "0.62"', '    quality: "high"', "wrong-unit",
        "spec.model.quality", ("from 0 to 1 in quotes",)),
    Row("name in capitals", "  - name: l40s", "  - name: L40S_main", "wrong-name",
        "spec.variants[0].name", ("'l40s-main'",)),
    Row("number in quotes", "    accelerator: {type: L40S, count: 1}", '    accelerator: {type: L40S, count: "1"}',
        "wrong-value", "spec.variants[0].accelerator.count", ("whole number", "write 1 without quotes")),
    Row("number too large", "    accelerator: {type: L40S, count: 1}", "    accelerator: {type: L40S, count: 32}",
        "wrong-value", "spec.variants[0].accelerator.count", ("too large", "16 or less")),
    Row("number too small", "    replicas: {min: 1, max: 4}", "    replicas: {min: -1, max: 4}",
        "wrong-value", "spec.variants[0].replicas.min", ("too small", "0 or more")),
    Row("text without quotes", "    name: llama-3.1-8b", "    name: 405", "wrong-value",
        "spec.model.name", ('quote it: "405"',)),
    Row("truth in quotes", "    match: {sensitive: true}", '    match: {sensitive: "true"}', "wrong-value",
        "spec.classes[0].match.sensitive", ("write true or false without quotes",)),
    Row("unknown word", "  scope: Tenant", "  scope: tenants", "wrong-value", "spec.scope", ("did you mean Tenant?",)),
    Row("word like no other", "  scope: Tenant", "  scope: galaxy", "wrong-value", "spec.scope", ("write 'Tenant' or 'Shared'",)),
    Row("list expected", "  models: [auto]", "  models: auto", "wrong-value", "spec.models", ("must be a list",)),
    Row("object expected", "  drain: {timeout: 120s}", "  drain: 120s", "wrong-value", "spec.drain", ("must be an object",)),
    Row("field given twice", "  drain: {timeout: 120s}", "  drain: {timeout: 120s}\n  drain: {timeout: 60s}",
        "repeated-field", "spec.drain", ("given twice",), at="  drain: {timeout: 60s}"),
    Row("unknown kind", "kind: CachePolicy", "kind: CachePolicies", "unknown-kind", "kind", ("did you mean CachePolicy?",)),
    Row("unknown version", "apiVersion: inference.trimtab.dev/v1alpha1\nkind: CachePolicy",
        "apiVersion: inference.trimtab.dev/v1beta1\nkind: CachePolicy", "unknown-version", "apiVersion",
        ("write inference.trimtab.dev/v1alpha1",), at="apiVersion: inference.trimtab.dev/v1beta1"),
    # What the rules refuse; all of them are in tests/contract/crd_cases.
    Row("min above max", "    replicas: {min: 1, max: 4}", "    replicas: {min: 5, max: 4}", "rule-broken",
        "spec.variants[0].replicas.min", ("min must not be above max", "lower min or raise max")),
    Row("any tier may serve a sensitive class", "    allow: [large]", "    allow: []", "rule-broken",
        "spec.classes[0].allow", ("a sensitive class must list the tiers", "set allow")),
    Row("two variants of one name", "  drain: {timeout: 120s}",
        "  - {name: l40s, accelerator: {type: L4}}", "rule-broken", "spec.variants[1].name", ("in the list already",)),
    # What only the whole set, or the catalogue, shows.
    Row("tier not found", "  - ref: small", "  - ref: smal", "tier-not-found", "spec.tiers[0].ref", ("did you mean small?",)),
    Row("cache not found", "  cache: {ref: answers}", "  cache: {ref: anwsers}", "cache-not-found", "spec.cache.ref",
        ("did you mean answers?",)),
    Row("two objects of one name", "  name: large\n", "  name: small\n", "duplicate-name", "metadata.name",
        ("has an object of this kind and name already",), also="tier-not-found"),
    Row("price missing", '    price: {usdPerHour: "15.82"}', "    capacityType: Spot", "price-missing",
        "spec.variants[0].name", ("no spot price of 2 × H200 is known for aws us-east-1", "set price.usdPerHour"),
        at="  - name: h200"),
    Row("accelerator misspelled", "    accelerator: {type: L40S, count: 1}", "    accelerator: {type: L40, count: 1}",
        "price-missing", "spec.variants[0].name", ("'L40' is not in the catalogue", "write 'L40S'"), at="  - name: l40s",
        also="profile-missing"),
    Row("capacity unknown", "    name: llama-3.1-8b", "    name: our-assistant", "profile-missing",
        "spec.variants[0].accelerator", ("can't be read from its name", "write all of profile"),
        at="    accelerator: {type: L40S, count: 1}"),
    Row("model does not fit", "    accelerator: {type: H200, count: 2}", "    accelerator: {type: H100, count: 1}",
        "profile-missing", "spec.variants[0].accelerator", ("do not fit in 1 × H100", "raise accelerator.count")),
    Row("SLO that no variant can meet", "    itl: {p95: 60ms}", "    itl: {p95: 15ms}", "slo-infeasible",
        "spec.slo.itl.p95", ("the best, small/l40s, takes 26ms", "write at least 38ms")),
    Row("first token that no variant can meet", "    ttft: {p95: 2s}", "    ttft: {p95: 100ms}", "slo-infeasible",
        "spec.slo.ttft.p95", ("the best, large/h200", "a lone request of 1200 tokens in, 200 out")),
    Row("class SLO that no tier can meet", "    slo: {e2e: {p95: 10m}}", "    slo: {e2e: {p95: 5s}}", "slo-infeasible",
        "spec.classes[1].slo.e2e.p95", ("no variant can meet it",)),
    Row("class shadowed by an equal one", "    match: {sensitive: true}", "    match: {priority: batch}",
        "class-never-matches", "spec.classes[1].name", ("sensitive before it", "move it above"), at="  - name: batch"),
    Row("class shadowed by a wider one", "    match: {priority: batch}", "    match: {}",
        "class-never-matches", "spec.classes[2].name", ("batch before it take all",), at="  - name: default"),
    Row("class for a model that the policy does not answer", "    match: {priority: batch}", "    match: {models: [gpt]}",
        "class-never-matches", "spec.classes[1].match.models", ("answers only to auto",)),
    Row("class for tenants that nobody knows", "    match: {priority: batch}", "    match: {tenants: [acme]}",
        "class-never-matches", "spec.classes[1].match.tenants", ("none of these tenants", "trustedHeader")),
    Row("no class for the rest", "    match: {}", "    match: {priority: urgent}", "no-default-class",
        "spec.classes", ("is refused", "add a last class"), at="  classes:"),
    Row("model name of another policy", "  cache: {ref: answers}", "  cache: {ref: answers}\n---\n" + SECOND_POLICY,
        "model-claimed-twice", "spec.models[0]", ("RoutingPolicy/assistant answers to this model name already",),
        at="  models: [auto] # second"),
    Row("quality that no allowed tier has", '    minQuality: "0.60"', '    minQuality: "0.90"', "quality-unreachable",
        "spec.classes[2].minQuality", ("the best allowed tier, large, has quality 0.82",)),
    Row("a cache that shares answers, and sensitive requests", "  scope: Tenant", "  scope: Shared", "shared-cache",
        "spec.cache.ref", ("class sensitive is sensitive",), at="  cache: {ref: answers}"),
    Row("pod template with the fields of a pod spec", "  drain: {timeout: 120s}",
        "  engine: {podTemplate: {nodeName: a, spec: {}}}", "wrong-template", "spec.engine.podTemplate.nodeName",
        ("metadata and spec only", "move it below podTemplate.spec")),
    Row("router template with the fields of a pod spec", "  cache: {ref: answers}",
        "  router: {podTemplate: {hostNetwork: true}}", "wrong-template", "spec.router.podTemplate.hostNetwork", ("metadata and spec",)),
    # 1 × 1.861 + 1 × 15.82 = 17.68
    Row("budget below the minimum", '    usdPerHour: "40"', '    usdPerHour: "17.60"', "budget-below-minimum",
        "spec.budget.usdPerHour", ("cost $17.68", 'write at least "17.68"', "lower replicas.min")),
    # 17.681 × 730 = 12907.13
    Row("budget of the month below the minimum", '    usdPerHour: "40"', '    usdPerMonth: "9000"',
        "budget-below-minimum", "spec.budget.usdPerMonth", ("cost $12,907.13", 'write at least "12907.13"')),
]  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(validate.command, arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the manifests that are right."""
    (tmp_path / "all.yaml").write_text(RIGHT)
    return tmp_path


def test_what_is_right_has_no_findings(folder: Path) -> None:
    result = run("-f", str(folder))
    assert (result.exit_code, result.output) == (0, "fine: 2 tiers, 1 policy, 1 cache in 1 file\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_mistake_is_named_with_line_field_and_fix(row: Row, folder: Path) -> None:
    assert RIGHT.count(row.old) == 1, "the changed text must stand once in the manifests"
    text = RIGHT.replace(row.old, row.new)
    (folder / "all.yaml").write_text(text)

    found = manifests.load([folder]).findings

    assert sorted(finding.code for finding in found) == sorted(filter(None, (row.code, row.also)))
    finding = next(finding for finding in found if finding.code == row.code)
    changed = RIGHT[: RIGHT.index(row.old)].count("\n") + 1
    line = text.splitlines().index(row.at) + 1 if row.at else changed
    assert (finding.line, finding.field) == (line, row.field)
    assert finding.file == str(folder / "all.yaml")
    for words in row.says:
        assert words in finding.text()


def test_every_kind_of_finding_has_a_row() -> None:
    sources = [*(ROOT / "core/trimtab_core/api").rglob("*.py"), ROOT / "cli/trimtab_cli/manifests.py"]
    codes = {code for path in sources for code in re.findall(r'finding\(\s*"([a-z-]+)"', path.read_text())}
    codes |= {"wrong-unit", "wrong-name"}
    assert codes - {row.code for row in ROWS} == set()


def test_findings_are_printed_one_a_line_and_the_exit_code_is_1(folder: Path) -> None:
    (folder / "all.yaml").write_text(RIGHT.replace("{p95: 800ms}", '{p95: "800"}').replace("ttl: 1h", "ttl: 1 hour"))
    result = run("-f", str(folder))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f'{folder}/all.yaml:10: InferenceTier/small: spec.slo.ttft.p95 = "800": not a duration; write 800ms',
        f'{folder}/all.yaml:63: CachePolicy/answers: spec.ttl = "1 hour": not a duration; write 1h',
    ]
    assert result.stderr == "2 findings in 1 file\n"


def test_json_holds_every_part_of_a_finding(folder: Path) -> None:
    (folder / "all.yaml").write_text(RIGHT.replace("ttl: 1h", "ttl: 3600"))
    result = run("-f", str(folder), "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding == {
        "code": "wrong-unit",
        "file": f"{folder}/all.yaml",
        "line": 63,
        "kind": "CachePolicy",
        "name": "answers",
        "field": "spec.ttl",
        "value": "3600",
        "problem": "not a duration",
        "fix": "write 3600s (units: us, ms, s, m, h)",
    }


def test_json_of_what_is_right_counts_the_objects(folder: Path) -> None:
    report = json.loads(run("-f", str(folder), "--json").stdout)
    assert report["objects"] == {"tiers": 2, "policies": 1, "caches": 1}
    assert report["findings"] == []


USAGE = {
    "no such file": (["-f", "nowhere.yaml"], None, "nowhere.yaml: no such file or folder"),
    "empty folder": (["-f", "."], None, "no YAML files in this folder"),
    "not YAML": (["-f", "x.yaml"], "a: [1,", "x.yaml:1: not YAML"),
    "tabs": (["-f", "x.yaml"], "a:\n\tb: 1", "x.yaml:2: not YAML: found character '\\t'"),
    "not text": (["-f", "x.yaml"], b"\xff\xfe\x00", "x.yaml: not text in UTF-8"),
    "not an object": (["-f", "x.yaml"], "just words", "x.yaml:1: not a Kubernetes object"),
    "nothing of ours": (["-f", "x.yaml"], "kind: Pod\napiVersion: v1", "no object of inference.trimtab.dev in x.yaml"),
    "unfolds itself": (["-f", "x.yaml"], "a: &a [1]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '*a'] * 10)}]\n" for i in range(9)), "unfolds to more than"),
    "refers to itself": (["-f", "x.yaml"], "a: &a [*a]", "x.yaml: not a manifest: nested too deeply"),
    "unknown region": (["-f", ".", "--region", "mars-1"], None, "--region mars-1: no price list of aws"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "content", "says"), USAGE.values(), ids=USAGE.keys())
def test_unreadable_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str], content: str | bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("trimtab: ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("-f", str(tmp_path / "nowhere"), "--debug")
    assert isinstance(result.exception, manifests.ManifestError)


def test_a_folder_is_read_with_lists_json_and_other_kinds_but_without_kustomizations(tmp_path: Path) -> None:
    tier, large, policy, cache = RIGHT.split("---\n")
    inner = "".join(f"  {line}\n" for line in tier.splitlines())
    (tmp_path / "list.yaml").write_text("apiVersion: v1\nkind: List\nitems:\n-" + inner[1:])
    (tmp_path / "large.json").write_text(json.dumps(yaml.safe_load(large)))
    (tmp_path / "rest.yml").write_text(
        f"{policy}---\n{cache}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\n"
    )
    (tmp_path / "kustomization.yaml").write_text("resources: [list.yaml]")
    (tmp_path / "notes.txt").write_text("not YAML: [")
    result = run("-f", str(tmp_path))
    assert result.output == "fine: 2 tiers, 1 policy, 1 cache in 3 files; 1 objects of other kinds skipped\n"


def test_a_finding_in_a_list_has_the_line_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: inference.trimtab.dev/v1alpha1\n"
        "  kind: CachePolicy\n  metadata: {name: a}\n  spec:\n    ttl: 60\n"
    )
    (finding,) = manifests.load([tmp_path]).findings
    assert (finding.line, finding.field) == (8, "spec.ttl")


def test_objects_of_one_name_in_two_namespaces_are_different_objects(tmp_path: Path) -> None:
    tier = RIGHT.split("---\n", maxsplit=1)[0]
    (tmp_path / "one.yaml").write_text(tier)
    (tmp_path / "two.yaml").write_text(tier.replace("  name: small\n", "  name: small\n  namespace: other\n"))
    assert manifests.load([tmp_path]).findings == ()


def test_standard_input_is_read_where_a_dash_is_given() -> None:
    result = CliRunner().invoke(validate.command, ["-f", "-"], input=RIGHT.replace("ttl: 1h", "ttl: 60"))
    assert result.exit_code == 1
    assert (
        result.stdout
        == "standard input:63: CachePolicy/answers: spec.ttl = 60: not a duration; write 60s (units: us, ms, s, m, h)\n"
    )


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    assert len(manifests.load([folder, folder / "all.yaml"]).tiers) == 2


def test_what_refers_to_a_broken_object_is_not_a_finding_too(folder: Path) -> None:
    (folder / "all.yaml").write_text(RIGHT.replace("  drain: {timeout: 120s}", "  drain: 1"))
    bundle = manifests.load([folder])
    assert [tier.metadata.name for tier in bundle.tiers] == ["large"]
    assert [finding.code for finding in bundle.findings] == ["wrong-value"]


@pytest.mark.parametrize(
    ("ranges", "shadowed"),
    [
        pytest.param([("0", "0.5"), ("0.5", "1")], True, id="two halves take all"),
        pytest.param([("0.4", "1"), ("0", "0.6")], True, id="overlapping, in any order"),
        pytest.param([("0", "0.5"), ("0.6", "1")], False, id="a gap is left"),
        pytest.param([("0", "0.9")], False, id="the top is left"),
    ],
)
def test_classes_that_share_out_all_complexity_leave_nothing_for_the_rest(
    ranges: list[tuple[str, str]], *, shadowed: bool, folder: Path
) -> None:
    classes = "".join(
        f"  - {{name: c{n}, match: {{complexity: {{min: '{low}', max: '{high}'}}}}}}\n"
        for n, (low, high) in enumerate(ranges)
    )
    (folder / "all.yaml").write_text(RIGHT.replace("  - name: default\n", f"{classes}  - name: default\n"))
    assert [finding.code for finding in manifests.load([folder]).findings] == ["class-never-matches"] * shadowed


def test_the_quickstart_is_fine() -> None:
    result = run("-f", str(ROOT / "examples/quickstart"))
    assert result.output == "fine: 3 tiers, 1 policy, 1 cache in 5 files\n"


def test_prices_of_another_cloud_are_asked_for_by_name() -> None:
    result = run("-f", str(ROOT / "examples/quickstart"), "--cloud", "gcp", "--region", "europe-west4")
    assert result.exit_code == 1
    assert "no on-demand price of 1 × L40S is known for gcp europe-west4; set price.usdPerHour" in result.stdout
