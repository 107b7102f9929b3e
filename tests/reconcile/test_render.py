"""What is rendered, word for word: golden YAML, and the rules that it must keep.

A golden file changes by running once with TRIMTAB_WRITE_GOLDEN=1; the difference is read in review.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import observation
from trimtab_core.api import v1alpha1
from trimtab_core.planning.plan import Plan, Prediction, Source, VariantKey
from trimtab_operator import drain, labels, reconcile, render
from trimtab_operator.render import names, patch, scalers, table
from trimtab_operator.render import tier as tiers

GOLDEN = pathlib.Path(__file__).parent / "golden"
Manifest = dict[str, Any]


def small(**spec: Any) -> v1alpha1.InferenceTier:
    """The tier of the quickstart, with two variants."""
    whole = {
        "model": {"name": "llama-3.1-8b", "source": "hf://meta-llama/Llama-3.1-8B-Instruct", "quality": "0.62"},
        "slo": {"ttft": {"p95": "800ms"}, "itl": {"p95": "60ms"}},
        "engine": {
            "args": ["--max-model-len", "8192"],
            "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}],
            "podTemplate": {
                "metadata": {"labels": {"team": "search"}},
                "spec": {
                    "priorityClassName": "inference",
                    "containers": [{"name": "engine", "resources": {"requests": {"cpu": "4", "memory": "24Gi"}}}],
                    "volumes": [{"name": "cache", "hostPath": {"path": "/models"}}],
                },
            },
        },
        "variants": [
            {
                "name": "l4-spot",
                "accelerator": {"type": "L4"},
                "capacityType": "Spot",
                "quantization": "fp8",
                "price": {"usdPerHour": "0.35"},
                "replicas": {"min": 0, "max": 12},
                "nodeSelector": {"pool": "spot"},
                "tolerations": [{"key": "spot", "operator": "Exists"}],
                "profile": {"maxSequences": 128},
            },
            {"name": "a100x2", "accelerator": {"type": "A100-80", "count": 2}, "args": ["--enforce-eager"]},
        ],
        "drain": {"timeout": "90s"},
        **spec,
    }
    metadata = {"name": "small", "namespace": "team", "uid": "uid-small"}
    return v1alpha1.InferenceTier.model_validate({"metadata": metadata, "spec": whole})


def chat(**spec: Any) -> v1alpha1.RoutingPolicy:
    whole = {"tiers": [{"ref": "small"}, {"ref": "frontier"}], "resilience": {"totalTimeout": "5m"}, **spec}
    metadata = {"name": "chat", "namespace": "team", "uid": "uid-chat"}
    return v1alpha1.RoutingPolicy.model_validate({"metadata": metadata, "spec": whole})


def frontier() -> v1alpha1.InferenceTier:
    external = {
        "url": "https://api.example.com/v1",
        "apiKeySecretRef": {"name": "provider", "key": "token"},
        "price": {"inputUsdPerMillionTokens": "2", "outputUsdPerMillionTokens": "8"},
    }
    spec = {"model": {"name": "frontier", "quality": "0.95"}, "external": external}
    metadata = {"name": "frontier", "namespace": "team", "uid": "uid-frontier"}
    return v1alpha1.InferenceTier.model_validate({"metadata": metadata, "spec": spec})


def rendered(
    *objects: Any,
    scale: dict[str, int] | None = None,
    marks: tuple[drain.Mark, ...] = (),
    optional: tuple[str, ...] = (),
) -> list[Manifest]:
    seen = observation.Observation(
        tuple(each for each in objects if each.kind == "InferenceTier"),
        tuple(each for each in objects if each.kind == "RoutingPolicy"),
        (),
        {},
        {},
        {},
        optional_kinds=frozenset(optional),
    )
    snapshot = observation.snapshot(seen, now=1_800_000_000.0, epoch=3)
    plan = Plan({}, {}, {}, Prediction(0, 0, 1, 0), Source.FLOOR)
    found = reconcile.publish_tables(seen, snapshot, plan, reconcile.Memory(3))
    counts = {VariantKey("team/small", name): count for name, count in (scale or {}).items()}
    step = drain.Step(counts, marks, frozenset())
    return render.render(render.Inputs(seen, step, found, 3, "http://prometheus:9090")).objects


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def compare(name: str, objects: list[Manifest]) -> None:
    text = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=120)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("TRIMTAB_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), (
        f"{path.name} differs; if it should, run with TRIMTAB_WRITE_GOLDEN=1"
    )


def only(objects: list[Manifest], kind: str, name: str = "") -> Manifest:
    found = [each for each in objects if each["kind"] == kind and (not name or each["metadata"]["name"] == name)]
    assert len(found) == 1, [each["metadata"]["name"] for each in objects]
    return found[0]


def test_a_tier_becomes_a_service_and_a_deployment_and_budget_per_variant() -> None:
    compare("tier", rendered(small(), scale={"l4-spot": 3, "a100x2": 0}))


def test_a_policy_becomes_a_table_and_a_router_that_scales_on_its_own_cpu() -> None:
    objects = rendered(frontier(), chat())
    table_text = only(objects, "ConfigMap")["data"].pop(table.FILE)
    assert '"policy":"team/chat"' in table_text
    compare("policy", objects)


def test_a_sidecar_is_a_snippet_with_an_init_container_that_goes_on() -> None:
    objects = rendered(frontier(), chat(router={"mode": "Sidecar"}))
    only(objects, "ConfigMap", "chat-table")["data"].pop(table.FILE)
    compare("sidecar", objects)


@pytest.mark.parametrize("actuator", ["HPA", "KEDA"])
def test_an_autoscaler_gets_the_count_and_the_deployment_does_not(actuator: str) -> None:
    objects = rendered(small(scaling={"actuator": actuator}), optional=("ScaledObject", "PodMonitor"))
    for deployment in (each for each in objects if each["kind"] == "Deployment"):
        assert "replicas" not in deployment["spec"]
        assert labels.TOLD not in deployment["metadata"]["annotations"]
    compare(
        f"tier-{actuator.lower()}",
        [each for each in objects if each["kind"] not in ("Deployment", "PodDisruptionBudget")],
    )


def test_without_keda_in_the_cluster_the_count_is_written_directly() -> None:
    objects = rendered(small(scaling={"actuator": "KEDA"}), scale={"l4-spot": 2})
    assert only(objects, "Deployment", "small--l4-spot")["spec"]["replicas"] == 2


def test_tables_come_first_then_marks_and_deployments_last() -> None:
    marks = (
        drain.Mark(VariantKey("team/small", "l4-spot"), "pod-a", 1_800_000_000.0, -1000),
        drain.Mark(VariantKey("team/small", "l4-spot"), "pod-b", None, 0),
    )
    objects = rendered(small(), chat(), marks=marks)
    kinds = [each["kind"] for each in objects]
    assert kinds[:3] == ["ConfigMap", "Pod", "Pod"]
    assert kinds.index("Deployment") == len(kinds) - 3
    told, released = objects[1:3]
    assert told["metadata"] == {
        "name": "pod-a",
        "namespace": "team",
        "annotations": {labels.DRAIN_SINCE: "2027-01-15T08:00:00Z", labels.DELETION_COST: "-1000"},
    }
    assert released["metadata"]["annotations"] == {labels.DRAIN_SINCE: None, labels.DELETION_COST: None}


def test_every_object_belongs_to_its_cr_and_says_who_wrote_it() -> None:
    for each in rendered(small(), frontier(), chat(), optional=("PodMonitor",)):
        metadata = each["metadata"]
        owner = metadata["ownerReferences"][0]
        assert owner["uid"] in ("uid-small", "uid-chat")
        assert owner["controller"] is True
        assert metadata["namespace"] == "team"
        assert metadata["labels"][labels.MANAGED_BY] == "trimtab"
        assert metadata["annotations"][labels.EPOCH] == "3"


def test_a_pod_is_given_time_to_load_and_time_to_leave() -> None:
    pod = only(rendered(small()), "Deployment", "small--l4-spot")["spec"]["template"]["spec"]
    engine = pod["containers"][0]
    timeout = int(engine["args"][engine["args"].index("--shutdown-timeout") + 1])
    assert timeout == 90
    assert pod["terminationGracePeriodSeconds"] == 5 + 90 + 15  # preStop, drain, and what vLLM takes to go
    startup = engine["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800


def test_the_template_does_not_depend_on_what_was_planned_or_learned() -> None:
    before = only(rendered(small(), scale={"l4-spot": 1}), "Deployment", "small--l4-spot")
    learned = small().model_copy(
        update={
            "status": v1alpha1.InferenceTierStatus.model_validate(
                {"variants": [{"name": "l4-spot", "profile": {"maxSequences": 7}, "startup": "9s"}]}
            )
        }
    )
    after = only(rendered(learned, scale={"l4-spot": 9}), "Deployment", "small--l4-spot")
    assert before["spec"]["template"] == after["spec"]["template"]
    assert (before["spec"]["replicas"], after["spec"]["replicas"]) == (1, 9)


def test_an_accelerator_that_the_catalogue_does_not_know_is_left_to_the_node_selector() -> None:
    unknown = {"name": "x", "accelerator": {"type": "Z9"}, "nodeSelector": {"gpu": "z9"}}
    pod = only(rendered(small(variants=[unknown])), "Deployment")["spec"]["template"]["spec"]
    assert "affinity" not in pod
    assert pod["nodeSelector"] == {"gpu": "z9"}


def test_a_table_too_large_for_a_configmap_is_refused_by_name() -> None:
    policy = chat(tiers=[{"ref": f"t{n}"} for n in range(16)], models=[f"{n:03}-" + "x" * 190 for n in range(32)])
    seen = observation.Observation((), (policy,), (), {}, {}, {})
    snapshot = observation.snapshot(seen, now=1.0, epoch=1)
    plan = Plan({}, {}, {}, Prediction(0, 0, 1, 0), Source.FLOOR)
    made = reconcile.publish_tables(seen, snapshot, plan, reconcile.Memory(1))["team/chat"]
    wide = type(made)(
        **{**{name: getattr(made, name) for name in made.__struct_fields__}, "models": ["m" * 200] * 6000}
    )
    found = render.render(render.Inputs(seen, drain.Step({}, (), frozenset()), {"team/chat": wide}, 1))
    assert "split the policy" in found.refused["ConfigMap team/chat-table"]
    assert not [each for each in found.objects if each["kind"] == "ConfigMap"]


part = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)


@given(st.lists(st.tuples(part, part), min_size=2, max_size=8, unique=True))
def test_no_two_variants_share_a_name_and_every_name_is_a_label(pairs: list[tuple[str, str]]) -> None:
    made = [names.engines(tier, variant) for tier, variant in pairs]
    assert len(set(made)) == len(made)
    for name in [*made, *(names.router(tier) for tier, _ in pairs), *(names.target("n" * 63, name) for name in made)]:
        assert len(name) <= 63
        assert name[0].isalpha() or "." in name
        assert name[-1].isalnum()


@pytest.mark.parametrize(
    ("rendered_part", "given_patch", "expected"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": None}, {"a": 1}, id="null removes"),
        pytest.param({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}, id="maps merge"),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
            id="keyed lists merge by key",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]},
            {"volumes": [{"name": "v", "$patch": "delete"}]},
            {"volumes": [{"name": "w"}]},
            id="$patch deletes",
        ),
        pytest.param({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}, id="plain lists replace"),
        pytest.param(
            {"tolerations": [{"key": "a"}]},
            {"tolerations": [{"key": "b"}]},
            {"tolerations": [{"key": "a"}, {"key": "b"}]},
            id="tolerations add up",
        ),
        pytest.param(
            {"env": [{"name": "A"}]}, {"env": [{"value": "x"}]}, {"env": [{"value": "x"}]}, id="an item without its key"
        ),
        pytest.param({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}, id="another type replaces"),
    ],
)
def test_a_pod_template_patch_merges_as_kubectl_does(
    rendered_part: Manifest, given_patch: Manifest, expected: Manifest
) -> None:
    assert patch.merge(rendered_part, given_patch) == expected


def test_the_wanted_count_is_found_by_the_label_that_the_autoscaler_selects() -> None:
    made = scalers.hpa(small(), small().spec.variants[0], epoch=1)
    selector = made["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]
    assert selector == {"target": "small--l4-spot.team"}


def test_the_arguments_of_the_user_come_last_so_that_they_win() -> None:
    args = tiers.arguments(small(), small().spec.variants[1])
    assert args[-3:] == ["--max-model-len", "8192", "--enforce-eager"]
    assert args[args.index("--tensor-parallel-size") + 1] == "2"
