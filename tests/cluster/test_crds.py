"""The CRDs on a real API server: it takes them, and judges objects as `trimtab validate` does."""

import json
import pathlib
import typing

import pytest
import yaml

from . import session
from .kubectl import KubectlError, Object

pytestmark = pytest.mark.cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [
    (table["kind"], case)
    for path in sorted((ROOT / "tests" / "contract" / "crd_cases").glob("*.yaml"))
    for table in [yaml.safe_load(path.read_text())]
    for case in table["cases"]
]


@pytest.fixture(scope="module", autouse=True)
def _established(control_plane: session.Cluster) -> None:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))


PLURALS = {
    "InferenceTier": "inferencetiers",
    "RoutingPolicy": "routingpolicies",
    "CachePolicy": "cachepolicies",
}


def answer(cluster: session.Cluster, sent: Object) -> str:
    """What the API server says against an object; empty if it takes it. Nothing is kept.

    Posted as it is: `kubectl create` would judge unknown fields itself while the API server's OpenAPI is behind.
    """
    path = f"/apis/{sent['apiVersion']}/namespaces/default/{PLURALS[sent['kind']]}?dryRun=All&fieldValidation=Strict"
    try:
        cluster.kubectl("create", f"--raw={path}", "-f", "-", stdin=sent)
    except KubectlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("kind", "case"), [pytest.param(*each, id=f"{each[0]}: {each[1]['id']}") for each in CASES])
def test_the_api_server_agrees_with_validate(
    control_plane: session.Cluster, kind: str, case: dict[str, typing.Any]
) -> None:
    head = {"apiVersion": "inference.trimtab.dev/v1alpha1", "kind": kind}
    head["metadata"] = case.get("metadata", {"name": "case"})
    said = answer(control_plane, head | ({"spec": case["spec"]} if "spec" in case else {}))
    if "refused" not in case:
        assert said == ""
    else:
        assert said != ""
        for fragment in case["refused"]:
            assert fragment in said


def test_the_quickstart_is_taken_as_it_is(control_plane: session.Cluster) -> None:
    files = sorted((ROOT / "examples" / "quickstart").glob("*.yaml"))
    objects = [o for file in files if file.name != "kustomization.yaml" for o in yaml.safe_load_all(file.read_text())]
    assert [answer(control_plane, each) for each in objects] == [""] * 5


def test_defaults_are_those_of_the_types(control_plane: session.Cluster) -> None:
    spec = {"tiers": [{"ref": "small"}]}
    sent = {"apiVersion": "inference.trimtab.dev/v1alpha1", "kind": "RoutingPolicy", "metadata": {"name": "defaults"}}
    printed = control_plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=sent | {"spec": spec})
    kept = json.loads(printed)["spec"]
    assert kept["models"] == ["auto"]
    assert kept["classes"] == [{"name": "default", "match": {}, "onUnavailable": "Fallback"}]
    assert kept["router"]["replicas"] == {"min": 2, "max": 10}


def test_columns_short_names_and_category_are_served(control_plane: session.Cluster) -> None:
    space = control_plane.namespace("crds")
    tier = {
        "apiVersion": "inference.trimtab.dev/v1alpha1",
        "kind": "InferenceTier",
        "metadata": {"name": "small"},
        "spec": {
            "model": {"name": "llama-3.1-8b", "quality": "0.62"},
            "variants": [{"name": "l4", "accelerator": {"type": "L4"}}],
        },
    }
    control_plane.kubectl.apply(tier, namespace=space)
    status = json.dumps({"status": {"usdPerHour": "0.8", "sloAttainment": "0.99", "replicas": 1, "readyReplicas": 1}})
    control_plane.kubectl(
        "patch", "tier", "small", "-n", space, "--subresource=status", "--type=merge", "--patch", status
    )
    head, row = control_plane.kubectl("get", "tier", "-n", space).splitlines()
    assert head.split()[:6] == ["NAME", "MODE", "DESIRED", "READY", "$/H", "SLO"]
    assert row.split()[:6] == ["small", "Auto", "1", "1", "0.8", "0.99"]
    assert "inferencetier.inference.trimtab.dev/small" in control_plane.kubectl(
        "get", "trimtab", "-n", space, "-o", "name"
    )
    control_plane.kubectl("delete", "namespace", space, "--wait=false")
