"""What the operator was told on its command line, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab_core import observation


@dataclass(frozen=True, slots=True)
class Loop:
    """What one reconcile needs; the same in a cluster and in local mode.

    Attributes:
        interval_seconds: time between two cycles where no policy asks for less.
        window_seconds: what rates are taken over.
        settle_seconds: how long routers may take to follow a new table.
        prometheus_url: what ScaledObjects are told to ask.
        prometheus_url: str = ""
    judging: how observations are judged.
    """

    interval_seconds: float = 15.0
    window_seconds: float = 60.0
    settle_seconds: float = 5.0
    prometheus_url: str = ""
    judging: observation.Settings = field(default_factory=observation.Settings)


@dataclass(frozen=True, slots=True)
class Lease:
    """Leader election.

    Attributes:
        namespace, name: of the Lease object.
        identity: of this process, unique among all that ever ran.
        duration_seconds: how long a leader that is silent stays leader.
        renew_seconds: by when a renewal must have succeeded, or this process stops acting.
        retry_seconds: time between two tries.
    """

    namespace: str
    identity: str
    name: str = "trimtab-operator"
    duration_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Operator:
    """All of the operator process.

    Attributes:
        namespaces: that it looks after; empty means all.
        prometheus_url: base address, or empty where there is none: it runs and holds.
        prometheus_timeout_seconds: for one query.
        kubeconfig: path, or empty for the pod's own account or the default file.
        metrics_port: where it serves its own ``/metrics``; 0 switches that off.
        resync_seconds: every object is applied again after this long, changed or not.
        debounce_seconds: least time between two cycles, however often it is woken.
    """

    lease: Lease
    namespaces: tuple[str, ...] = ()
    prometheus_url: str = ""
    prometheus_timeout_seconds: float = 5.0
    kubeconfig: str = ""
    metrics_port: int = 9090
    resync_seconds: float = 600.0
    debounce_seconds: float = 1.0
    loop: Loop = field(default_factory=Loop)
