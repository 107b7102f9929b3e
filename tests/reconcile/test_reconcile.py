"""The sentence as a whole, told as scripts: what the world does, and what the loop must make of it."""

from __future__ import annotations

import itertools

import pytest
from trimtab_core.planning.plan import VariantKey
from trimtab_operator import errors, labels

from . import world

KEY = VariantKey("default/small", "l4")


def settled(**rates: float) -> world.World:
    """A world that has run long enough to stand still."""
    made = world.World(**rates)
    made.cycle(12)
    return made


def test_a_new_tier_gets_its_floor_and_a_table_before_any_metric_exists() -> None:
    made = world.World()
    made.metrics.failure = "Prometheus does not answer"
    made.cycle()
    assert made.cluster.count() == 1
    kinds = [each["kind"] for each in made.cluster.applied]
    assert kinds[0] == "ConfigMap"
    assert kinds[-1] == "Deployment"


def test_load_rises_and_replicas_follow_within_two_cycles() -> None:
    made = settled(default=1.0)
    before = made.cluster.count()
    made.metrics.rates["default"] = 40.0
    made.cycle(2)
    assert made.cluster.count() > before
    made.cycle(4)
    decisions = made.cluster.statuses["InferenceTier", "default", "small"]["decisions"]
    assert decisions[-1]["action"].startswith("small/l4 ")
    assert decisions[-1]["reasons"]
    assert any(reason == "Decided" and about == "small" for about, reason, _, _ in made.cluster.events)


def test_load_falls_and_the_emptiest_replicas_are_drained_before_the_count_falls() -> None:
    made = settled(default=40.0)
    busy = made.cluster.count()
    pods = made.cluster.pods["small--l4"]
    for pod in pods:
        pod.busy = 3.0
    emptiest = pods[-1]
    emptiest.busy = 1.0
    made.metrics.rates["default"] = 1.0
    for _ in range(20):
        made.cycle()
        if emptiest.annotations:
            break
    assert labels.DRAIN_SINCE in emptiest.annotations
    assert made.cluster.count() == busy, "the count stays while the victim works"
    routed = [end.name for end in made.memory.tables["default/chat"].tiers[0].endpoints]
    assert emptiest.name not in routed
    emptiest.busy = 0.0
    made.cycle(2)
    assert made.cluster.count() == busy - 1
    assert emptiest not in made.cluster.pods["small--l4"]


def test_a_victim_that_never_empties_goes_when_its_time_is_up() -> None:
    made = settled(default=40.0)
    busy = made.cluster.count()
    for pod in made.cluster.pods["small--l4"]:
        pod.busy = 5.0
    made.metrics.rates["default"] = 1.0
    made.cycle(6)
    assert made.cluster.count() == busy
    made.cycle(12)  # drain.timeout is 120 s, 8 cycles
    assert made.cluster.count() < busy


def test_load_that_returns_takes_the_mark_off_again() -> None:
    made = settled(default=40.0)
    pods = made.cluster.pods["small--l4"]
    for pod in pods:
        pod.busy = 3.0
    made.metrics.rates["default"] = 1.0
    while not any(labels.DRAIN_SINCE in pod.annotations for pod in pods):
        made.cycle()
    made.metrics.rates["default"] = 60.0
    made.cycle(2)
    assert not any(labels.DRAIN_SINCE in pod.annotations for pod in pods)


@pytest.mark.parametrize("trouble", ["gone", "NaN"])
def test_prometheus_goes_away_and_nothing_scales_down_and_the_condition_says_so(trouble: str) -> None:
    made = settled(default=40.0)
    busy = made.cluster.count()
    if trouble == "gone":
        made.metrics.failure = "Prometheus http://prometheus:9090 did not answer"
    made.metrics.nan = trouble == "NaN"
    made.cycle(40)  # 10 minutes
    assert made.cluster.count() >= busy
    condition = made.cluster.condition("chat", "RoutingPolicy", "MetricsAvailable")
    assert (condition["status"], condition["reason"]) == ("False", "QueryFailed" if trouble == "gone" else "NoSamples")
    made.metrics.failure, made.metrics.nan = "", False
    made.cycle(6)  # a whole window without a gap
    assert made.cluster.condition("chat", "RoutingPolicy", "MetricsAvailable")["status"] == "True"


def test_old_samples_never_scale_down() -> None:
    made = settled(default=40.0)
    busy = made.cluster.count()
    made.metrics.rates["default"] = 1.0
    made.metrics.age_seconds = 120.0
    made.cycle(20)
    assert made.cluster.count() >= busy
    assert made.cluster.condition("chat", "RoutingPolicy", "MetricsAvailable")["reason"] == "Stale"


def test_a_replica_that_never_gets_ready_is_no_capacity_and_is_told() -> None:
    made = world.World(default=1.0)
    made.cluster.never_ready = True
    made.cycle(40)
    assert made.cluster.ready() == 0
    assert made.cluster.condition("small", "InferenceTier", "Ready")["status"] == "False"
    assert all(end == [] for end in (each.endpoints for each in made.memory.tables["default/chat"].tiers))


def test_status_survives_a_restart() -> None:
    made = settled(default=10.0)
    count, weights = made.cluster.count(), made.memory.plan.weights if made.memory.plan else {}
    scaled = made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]["lastScaled"]
    made.restart()
    outcome = made.cycle()
    assert made.cluster.count() == count
    assert outcome.plan.weights == weights
    assert made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]["lastScaled"] == scaled
    assert made.memory.tables["default/chat"].version.startswith("2.1-")


def test_a_cycle_with_nothing_new_writes_no_status_and_no_event() -> None:
    made = settled(default=5.0)
    made.cycle(3)
    writes, events = made.cluster.status_writes, len(made.cluster.events)
    made.cycle(5)
    assert (made.cluster.status_writes, len(made.cluster.events)) == (writes, events)


def test_a_table_changes_its_version_only_with_its_content() -> None:
    made = settled(default=5.0)
    before = made.memory.tables["default/chat"]
    made.cycle(3)
    assert made.memory.tables["default/chat"] is before
    made.cluster.pods["small--l4"][0].ready_at = None
    made.cycle()
    after = made.memory.tables["default/chat"]
    assert after.revision == before.revision + 1
    assert after.content_hash != before.content_hash


def test_a_manual_edit_holds_and_is_remembered() -> None:
    made = settled(default=5.0)
    made.cluster.scale("small--l4", 7)
    made.cycle()
    assert made.cluster.count() == 7
    assert "overrideUntil" in made.cluster.statuses["InferenceTier", "default", "small"]["variants"][0]
    made.restart()
    made.cycle(5)
    assert made.cluster.count() == 7


def test_a_foreign_autoscaler_is_left_alone_and_named() -> None:
    made = settled(default=5.0)
    made.cluster.scalers[KEY] = "HorizontalPodAutoscaler mine"
    made.cycle()
    deployment = next(
        each
        for each in made.cluster.applied
        if each["metadata"]["name"] == "small--l4" and each["kind"] == "Deployment"
    )
    assert "replicas" not in deployment["spec"]
    condition = made.cluster.condition("small", "InferenceTier", "ConflictingScaler")
    assert condition["status"] == "True"
    assert "HorizontalPodAutoscaler mine" in condition["message"]


def test_a_tier_that_does_not_exist_is_named_and_the_others_serve() -> None:
    made = world.World(world.tier(), world.policy(tiers=("small", "lost")), default=5.0)
    made.cycle(5)
    condition = made.cluster.condition("chat", "RoutingPolicy", "ReferencesResolved")
    assert "InferenceTier lost not found in namespace default" in condition["message"]
    assert [each.name for each in made.memory.tables["default/chat"].tiers] == ["small"]


def test_one_refused_object_is_told_and_does_not_stop_the_others() -> None:
    made = world.World(default=5.0)
    made.cluster.refuses["small-engines"] = "422 clusterIP is immutable"
    made.cycle(3)
    condition = made.cluster.condition("small", "InferenceTier", "Applied")
    assert condition["status"] == "False"
    assert "Service default/small-engines: 422" in condition["message"]
    assert made.cluster.count() >= 1
    assert made.cluster.condition("chat", "RoutingPolicy", "Applied")["status"] == "True"


def test_an_unreachable_api_server_changes_nothing() -> None:
    made = settled(default=5.0)
    made.cluster.unreachable = True
    before = made.memory
    with pytest.raises(errors.ClusterUnreachableError):
        made.cycle()
    assert made.memory is before


def test_weights_move_once_per_interval_however_often_the_loop_is_woken() -> None:
    dear = {"name": "l4", "accelerator": {"type": "L4"}, "price": {"usdPerHour": "20"}, "profile": world.PROFILE}
    tiers = (world.tier("small", quality="0.88"), world.tier("large", quality="0.90", variants=[dear]))
    at_first = world.policy(tiers=("small", "large"), objective={"qualityRetention": "1.0"})
    made = world.World(*tiers, at_first, default=5.0)
    made.cycle(4)
    made.cluster.objects["RoutingPolicy", "default", "chat"] = world.policy(
        tiers=("small", "large"), objective={"qualityRetention": "0.9"}
    )
    moves = []
    for _ in range(60):
        outcome = made.cycle(seconds=1.0)
        moves += [outcome.snapshot.now for _ in outcome.changes.weights]
    assert len(moves) >= 2  # by steps of 0.1
    assert all(later - earlier >= 14 for earlier, later in itertools.pairwise(moves))


def test_after_a_start_the_past_comes_from_the_metrics_once() -> None:
    made = world.World(default=6.0)
    now = made.cluster.now
    made.metrics.past = {"default": ((now - 86_400.0, 9.0), (now - 120.0, 5.0), (now - 60.0, 5.5))}
    made.cycle()
    traffic = made.memory.snapshot.policies["default/chat"].traffic["default"]
    assert traffic.history[:2] == ((now - 120.0, 5.0), (now - 60.0, 5.5))
    assert 9.0 in traffic.season.week_bins
    made.cycle(3)
    assert len(made.metrics.periods) == 2  # the last two hours, and two weeks in bins of ten minutes
    recent, weeks = made.metrics.periods
    assert recent[2] == 60.0
    assert weeks[1] - weeks[0] == 14 * 86_400.0
    assert weeks[1] % 600 == 0


def test_metrics_that_do_not_answer_are_asked_for_the_past_again() -> None:
    made = world.World(default=6.0)
    made.metrics.failure = "down"
    made.cycle()
    assert not made.memory.recalled
    made.metrics.failure = ""
    made.cycle()
    assert made.memory.recalled
