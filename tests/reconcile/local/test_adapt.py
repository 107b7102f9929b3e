"""What local mode changes of manifests: what only a cluster has, and how long things wait. Nothing else."""

from __future__ import annotations

import pytest
from trimtab_core import units
from trimtab_core.api import v1alpha1
from trimtab_core.catalog import profiles
from trimtab_operator.local import adapt

from .. import world  # noqa: TID252 (the tests of the same area)

TIER = world.tier(
    scaling={
        "actuator": "HPA",
        "scaleDownWindow": "5m",
        "scaleToZero": {"after": "10m", "hold": "60s"},
    },
    drain={"timeout": "120s"},
)
POLICY = world.policy(
    retune={"interval": "15s", "maxWeightStep": "0.10"},
    router={"mode": "Sidecar", "replicas": {"min": 2, "max": 10}},
    slo={"e2e": {"p95": "30s"}},
)


def adapted_tier(time_scale: float = 1.0) -> v1alpha1.InferenceTier:
    (found,) = adapt.adapt([TIER], time_scale)
    assert isinstance(found, v1alpha1.InferenceTier)
    return found


def adapted_policy(time_scale: float = 1.0) -> v1alpha1.RoutingPolicy:
    (found,) = adapt.adapt([POLICY], time_scale)
    assert isinstance(found, v1alpha1.RoutingPolicy)
    return found


def startup(tier: v1alpha1.InferenceTier) -> float:
    profile = profiles.resolve(tier.spec.model.name, tier.spec.variants[0])
    assert profile is not None
    return profile.startup_seconds


def test_autoscalers_and_sidecars_become_what_one_machine_has() -> None:
    assert adapted_tier().spec.scaling.actuator is v1alpha1.Actuator.DIRECT
    router = adapted_policy().spec.router
    assert router.mode is v1alpha1.RouterMode.GATEWAY
    assert (router.replicas.min, router.replicas.max) == (1, 1)


def test_without_a_time_scale_no_wait_changes() -> None:
    scaling = adapted_tier().spec.scaling
    assert (scaling.scale_down_window, scaling.scale_to_zero) == ("5m", TIER.spec.scaling.scale_to_zero)
    assert startup(adapted_tier()) == startup(TIER) == 30.0
    assert adapted_policy().spec.retune.interval == "15s"


def test_a_time_scale_divides_what_waits_for_hardware_or_evidence() -> None:
    tier = adapted_tier(10)
    assert startup(tier) == pytest.approx(3.0)  # 30 s / 10
    assert tier.spec.scaling.scale_down_window == "30s"  # 5 m / 10
    assert tier.spec.scaling.scale_to_zero is not None
    assert tier.spec.scaling.scale_to_zero.after == "1m"  # 10 m / 10


def test_a_start_up_that_only_the_catalogue_knows_is_divided_too() -> None:
    bare = world.tier(variants=[{"name": "l4", "accelerator": {"type": "L4"}}])
    (found,) = adapt.adapt([bare], 10)
    assert isinstance(found, v1alpha1.InferenceTier)
    assert startup(found) == pytest.approx(startup(bare) / 10, rel=1e-6)


def test_requests_prices_and_promises_are_never_touched() -> None:
    tier, policy = adapted_tier(15), adapted_policy(15)
    assert tier.spec.slo == TIER.spec.slo
    assert tier.spec.drain == TIER.spec.drain
    assert tier.spec.scaling.scale_to_zero is not None
    assert tier.spec.scaling.scale_to_zero.hold == "60s"  # clients wait in real time
    assert [variant.price for variant in tier.spec.variants] == [variant.price for variant in TIER.spec.variants]
    assert (policy.spec.slo, policy.spec.retune.max_weight_step) == (POLICY.spec.slo, "0.10")


@pytest.mark.parametrize(
    ("seconds", "time_scale", "shortest", "result"),
    [
        pytest.param(60.0, 1.0, 10.0, 60.0, id="unscaled"),
        pytest.param(60.0, 4.0, 10.0, 15.0, id="divided"),
        pytest.param(60.0, 15.0, 10.0, 10.0, id="not below the shortest"),
        pytest.param(5.0, 15.0, 10.0, 5.0, id="what is short already stays"),
    ],
)
def test_a_wait_has_a_least_length(seconds: float, time_scale: float, shortest: float, result: float) -> None:
    assert adapt.shortened(seconds, time_scale, shortest) == result


@pytest.mark.parametrize(
    ("time_scale", "interval", "result"),
    [
        pytest.param(1.0, None, (15.0, 60.0), id="as the policy asks"),
        pytest.param(15.0, None, (2.0, 10.0), id="not below two seconds, nor rates over less than ten"),
        pytest.param(1.0, 5.0, (5.0, 60.0), id="as the command line asks"),
    ],
)
def test_the_loop_keeps_the_pace_of_the_policies(
    time_scale: float, interval: float | None, result: tuple[float, float]
) -> None:
    loop = adapt.loop(adapt.adapt([POLICY], time_scale), time_scale, interval)
    assert (loop.interval_seconds, loop.window_seconds) == result


def test_durations_stay_writable() -> None:
    for time_scale in (3.0, 7.0, 15.0):
        tier = adapted_tier(time_scale)
        assert v1alpha1.InferenceTier.model_validate(tier.to_dict()) == tier
        assert units.duration_seconds(tier.spec.scaling.scale_down_window) == pytest.approx(300 / time_scale, rel=1e-5)


def test_where_time_is_shortened_more_room_is_kept_until_something_is_learned() -> None:
    assert adapted_tier().status.utilisation is None
    assert adapted_tier(20.0).status.utilisation == adapt.SHORT_WINDOW_UTILISATION


def test_a_share_that_is_known_already_stays() -> None:
    learned = TIER.model_copy(update={"status": TIER.status.model_copy(update={"utilisation": "0.93"})})
    (found,) = adapt.adapt([learned], 20.0)
    assert isinstance(found, v1alpha1.InferenceTier)
    assert found.status.utilisation == "0.93"
