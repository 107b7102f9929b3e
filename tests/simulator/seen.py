"""Snapshots as a controller would see them, made for the occasion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trimtab_core.planning.plan import VariantKey
from trimtab_core.signals import Fresh, Missing
from trimtab_core.snapshot import ClassTraffic, Replica, ReplicaPhase, Snapshot

POLICY = "default/chat"


def pod(
    running: float | None = 0.0,
    waiting: float | None = 0.0,
    *,
    kv_usage: float = 0.0,
    phase: ReplicaPhase = ReplicaPhase.READY,
) -> Replica:
    """A replica with these readings; None is a missing one."""

    def signal(value: float | None) -> Fresh | Missing:
        return Missing("not scraped") if value is None else Fresh(value, 1.0)

    return Replica("any", phase, 0.0, "", signal(running), signal(waiting), signal(kv_usage))


PENDING = pod(None, None, phase=ReplicaPhase.PENDING)


def with_replicas(
    snapshot: Snapshot, replicas: Mapping[VariantKey, tuple[Replica, ...]], *, now: float | None = None
) -> Snapshot:
    """The snapshot with these replicas, as many as were asked for, draining ones aside."""
    tiers = dict(snapshot.tiers)
    for key, members in replicas.items():
        desired = sum(1 for one in members if one.phase is not ReplicaPhase.DRAINING)
        variants = tuple(
            dataclasses.replace(each, replicas=members, desired=desired) if each.name == key.variant else each
            for each in tiers[key.tier].variants
        )
        tiers[key.tier] = dataclasses.replace(tiers[key.tier], variants=variants)
    return dataclasses.replace(snapshot, tiers=tiers, now=snapshot.now if now is None else now)


def with_traffic(snapshot: Snapshot, traffic: Mapping[str, ClassTraffic]) -> Snapshot:
    """The snapshot with this traffic of its policy."""
    policies = dict(snapshot.policies)
    policies[POLICY] = dataclasses.replace(policies[POLICY], traffic=traffic)
    return dataclasses.replace(snapshot, policies=policies)
