"""What the operator starts routers with is what the router's command takes, and what a sidecar is started with is small."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from trimtab_cli import router
from trimtab_core.api import v1alpha1
from trimtab_operator.render import router as render


def made(mode: str, **router_fields: Any) -> v1alpha1.RoutingPolicy:
    spec = {
        "models": ["auto"],
        "tiers": [{"ref": "small"}],
        "classes": [{"name": "default", "match": {}}],
        "router": {"mode": mode, **router_fields},
    }
    metadata = {"name": "chat", "namespace": "team", "uid": "u"}
    return v1alpha1.RoutingPolicy.model_validate({"metadata": metadata, "spec": spec})


@pytest.mark.parametrize(("mode", "host"), [("Gateway", "0.0.0.0"), ("Sidecar", "127.0.0.1")])
def test_the_rendered_arguments_are_understood_and_a_sidecar_is_called_from_its_pod_alone(mode: str, host: str) -> None:
    container = render.container(made(mode), {})
    assert container["args"][0] == "router"
    context = router.command.make_context("router", list(container["args"][1:]))
    given: dict[str, Any] = context.params
    assert (given["host"], given["port"]) == (host, container["ports"][0]["containerPort"])
    # Probes and Prometheus come from outside the pod.
    assert (given["admin_host"], given["admin_port"]) == ("0.0.0.0", container["ports"][1]["containerPort"])
    assert given["drain_seconds"] > 0


def test_what_a_policy_wants_told_of_its_requests_is_passed_on() -> None:
    policy = made("Gateway", accessLog=True, otlpEndpoint="http://otel:4318", otlpRatio="0.25")
    given = router.command.make_context("router", list(render.container(policy, {})["args"][1:])).params
    assert (given["access_log"], given["otlp_endpoint"], given["otlp_ratio"]) == (True, "http://otel:4318", 0.25)


HEAVY = ("pydantic", "kopf", "httpx", "yaml", "numpy", "highspy", "aiohttp", "requests", "prometheus_client", "redis")
"""What other parts of Trimtab use, and a router must not load: beside an application it has 40 MiB."""


def test_a_router_loads_none_of_what_only_others_need() -> None:
    listing = "import json, sys; from trimtab_cli import router; from trimtab_router import main; print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    loaded = {name.partition(".")[0] for name in json.loads(shown)}
    assert "trimtab_router" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert "trimtab_operator" not in loaded
