"""The process around the sentence: leading, waking, surviving, and its own metrics and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from trimtab_core import telemetry
from trimtab_operator import errors, kube, labels, logs, loop, main, meters, settings
from trimtab_operator.observe import combined

from . import kube_api, world

TIER = {
    "spec": {
        "model": {"name": "m-8b", "quality": "0.5"},
        "variants": [{"name": "l4", "accelerator": {"type": "L4"}, "replicas": {"min": 1, "max": 3}}],
    }
}


class NoEngines:
    async def engines(self, addresses: Any, now: float) -> Any:
        return {}


@pytest.fixture
def api() -> kube_api.FakeApi:
    made = kube_api.FakeApi()
    made.put(kube.TIERS.path("team", "small"), TIER)
    return made


@pytest.fixture
def connection(api: kube_api.FakeApi) -> Iterator[kube.Kube]:
    with kube_api.connected(api) as made:
        yield made


def config(**more: Any) -> settings.Operator:
    lease = settings.Lease("system", "me", duration_seconds=1.5, renew_seconds=1.0, retry_seconds=0.1)
    given = {"debounce_seconds": 0.05, "metrics_port": 0, "loop": settings.Loop(interval_seconds=0.3), **more}
    return settings.Operator(lease, **given)


def control(connection: kube.Kube, **more: Any) -> loop.Loop:
    metrics = combined.CombinedMetrics(combined.Nothing(), NoEngines())
    clock = loop.Clock(asyncio.get_running_loop().time, asyncio.get_running_loop().time)
    return loop.Loop(connection, metrics, config(**more), meters=meters.Meters(), clock=clock)


async def until(check: Any, seconds: float = 20.0) -> None:
    """Wait for something that must come; the bound is only against hanging."""
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)


DEPLOYMENT = kube.DEPLOYMENTS.path("team", "small--l4")


def test_a_leader_reconciles_and_gives_the_lease_back(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    async def story() -> None:
        made = control(connection)
        running = asyncio.create_task(made.run())
        await until(lambda: DEPLOYMENT in api.objects)
        made.stop()
        await running

    asyncio.run(story())
    assert api.objects[DEPLOYMENT]["metadata"]["annotations"][labels.EPOCH] == "1"
    assert api.objects[kube.LEASES.path("system", "trimtab-operator")]["spec"]["holderIdentity"] == ""


def test_being_woken_is_enough_for_a_cycle(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    async def story() -> None:
        made = control(connection, loop=settings.Loop(interval_seconds=3600.0))
        running = asyncio.create_task(made.run())
        await until(lambda: DEPLOYMENT in api.objects)
        api.put(kube.TIERS.path("team", "other"), TIER)
        made.wake()
        await until(lambda: kube.DEPLOYMENTS.path("team", "other--l4") in api.objects)
        made.stop()
        await running

    asyncio.run(story())


def test_a_server_in_trouble_ends_no_loop(
    api: kube_api.FakeApi, connection: kube.Kube, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        made = control(connection)
        api.failures["inferencetiers"] = (503, "etcd leader changed")
        running = asyncio.create_task(made.run())
        await until(lambda: "cycle failed" in caplog.text)
        api.failures.clear()
        await until(lambda: DEPLOYMENT in api.objects)
        made.stop()
        await running

    asyncio.run(story())
    assert "Traceback" not in caplog.text


def test_a_follower_writes_nothing(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    other = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "leaseTransitions": 7, "renewTime": "now"}
    api.put(kube.LEASES.path("system", "trimtab-operator"), {"spec": other})

    async def story() -> None:
        made = control(connection)
        running = asyncio.create_task(made.run())
        await until(lambda: sum("leases" in path for _, path, _ in api.requests) >= 3)
        made.stop()
        await running

    asyncio.run(story())
    assert api.writes() == []


def test_a_leader_that_meets_a_higher_epoch_writes_nothing_until_it_leads_above_it(
    api: kube_api.FakeApi, connection: kube.Kube, caplog: pytest.LogCaptureFixture
) -> None:
    later = {"metadata": {"labels": {labels.MANAGED_BY: "trimtab"}, "annotations": {labels.EPOCH: "9"}}}
    api.put(kube.SERVICES.path("team", "any"), later)

    async def story() -> None:
        made = control(connection)
        running = asyncio.create_task(made.run())
        await until(lambda: DEPLOYMENT in api.objects)
        made.stop()
        await running

    asyncio.run(story())
    assert "epoch 9, this leader has 1" in caplog.text
    assert api.objects[DEPLOYMENT]["metadata"]["annotations"][labels.EPOCH] == "10"


def test_the_most_impatient_policy_sets_the_pace() -> None:
    made = world.World(world.tier(), world.policy(retune={"interval": "4s"}))
    snapshot = made.cycle().snapshot
    assert loop.shortest(snapshot, settings.Loop()) == 4.0
    assert loop.shortest(snapshot, settings.Loop(interval_seconds=2.0)) == 2.0


def test_missing_crds_and_roles_stop_the_start_with_the_fix(api: kube_api.FakeApi, connection: kube.Kube) -> None:
    api.absent.add("routingpolicies")
    with pytest.raises(errors.KindMissingError, match="kubectl apply --server-side -f crds/"):
        asyncio.run(main.check(connection, config()))
    api.absent.clear()
    api.failures["cachepolicies"] = (403, "forbidden")
    with pytest.raises(errors.AccessDeniedError, match=r"rbac\.yaml"):
        asyncio.run(main.check(connection, config()))


def test_a_taken_metrics_port_names_the_flag(connection: kube.Kube) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(errors.OperatorError, match=f"--metrics-port {port}: Address already in use"):
            asyncio.run(main.run(config(metrics_port=port), connection))


def test_kopf_only_watches_and_leaves_no_trace(connection: kube.Kube) -> None:
    registry = main.register(lambda: None, connection)
    watched = registry._watching.get_all_handlers()
    assert len(watched) == 5  # three kinds of ours, Deployments, pods
    assert not registry._changing.get_all_handlers()  # these write annotations and finalizers
    assert not registry._spawning.get_all_handlers()
    assert main.kopf_settings().posting.enabled is False


def test_kopf_uses_the_servers_address_and_token(connection: kube.Kube) -> None:
    connection.configuration.api_key["BearerToken"] = "Bearer abc"
    info = main.connection(connection)
    assert (info.server, info.scheme, info.token) == (connection.host, "Bearer", "abc")


def sample(made: meters.Meters, name: str, **given: str) -> float | None:
    return made.registry.get_sample_value(name, given)


def test_the_operators_metrics_say_what_the_last_cycle_left() -> None:
    made = meters.Meters()
    here = world.World(default=10.0)
    outcome = here.cycle(6)
    made.led(leads=True)
    made.show(outcome)
    made.took(0.2)
    made.failed("ClusterUnreachable")
    count = here.cluster.count()
    assert (
        sample(made, "trimtab_replicas_wanted", tier="default/small", variant="l4", target="small--l4.default") == count
    )
    assert sample(made, "trimtab_replicas_ready", tier="default/small", variant="l4") == count
    assert sample(made, "trimtab_plan_usd_per_hour", tier="default/small") == count
    assert sample(made, "trimtab_weight", policy="default/chat", **{"class": "default"}, tier="default/small") == 1.0
    assert sample(made, "trimtab_signal_age_seconds", object="default/chat", signal="default.arrivalsPerSecond") == 2.0
    assert sample(made, "trimtab_leader") == 1.0
    assert sample(made, "trimtab_reconcile_seconds_count") == 1.0
    assert sample(made, "trimtab_reconcile_errors_total", reason="ClusterUnreachable") == 1.0
    made.led(leads=False)
    assert sample(made, "trimtab_replicas_ready", tier="default/small", variant="l4") is None


def test_a_missing_signal_has_age_minus_one_and_decisions_count_by_reason() -> None:
    made, here = meters.Meters(), world.World(default=10.0)
    here.metrics.failure = "down"
    made.show(here.cycle())
    assert sample(made, "trimtab_signal_age_seconds", object="default/chat", signal="default.arrivalsPerSecond") == -1.0
    text = prometheus_client.generate_latest(made.registry).decode()
    assert 'trimtab_decisions_total{reason="' in text


def test_the_forecasts_error_is_exported_once_forecasts_have_been_scored() -> None:
    made, here = meters.Meters(), world.World(default=10.0)
    about = {"policy": "default/chat", "class": "default"}
    made.show(here.cycle())
    assert sample(made, "trimtab_forecast_error_ratio", **about) is None
    here.cycle(12)
    here.metrics.rates["default"] = 15.0
    made.show(here.cycle())
    # A rise by a half that nobody saw coming, among a dozen forecasts that were right.
    error = sample(made, "trimtab_forecast_error_ratio", **about)
    assert error is not None
    assert 0.01 < error < 0.5


def test_every_family_of_the_contract_is_exported_under_its_name() -> None:
    text = prometheus_client.generate_latest(meters.Meters().registry).decode()
    for family in telemetry.OPERATOR_FAMILIES:
        assert f"# TYPE {family.name} {family.kind}" in text


def test_logs_are_json_with_known_fields_only() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "decided: %s", ("l4 1 → 2",), None)
    record.epoch = 3
    record.secret = "sk-123"
    line = json.loads(logs.JsonFormatter().format(record))
    assert line["message"] == "decided: l4 1 → 2"
    assert line["epoch"] == 3
    assert "sk-123" not in json.dumps(line)
