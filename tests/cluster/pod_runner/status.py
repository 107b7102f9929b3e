"""A pod's status as the API wants it, from the states of its containers. Pure."""

import collections.abc
import typing

from .api import Object

TRUE, FALSE = "True", "False"


class State(typing.Protocol):
    """What is read from a container; `container.Container` is one."""

    spec: Object
    name: str
    state: Object
    last_state: Object
    restarts: int
    exit_code: int | None

    @property
    def running(self) -> bool:
        """Whether a process of it lives."""

    @property
    def health(self) -> "HealthState":
        """What its probes say."""


class HealthState(typing.Protocol):
    """The two results that the status shows."""

    started: bool
    ready: bool


def container_status(one: State) -> Object:
    """Return one entry of containerStatuses."""
    alive = "running" in one.state
    return {
        "name": one.name,
        "image": one.spec["image"],
        "imageID": f"stand-in://{one.spec['image']}",
        "state": one.state,
        "lastState": one.last_state,
        "restartCount": one.restarts,
        "ready": alive and one.health.ready,
        "started": alive and one.health.started,
    }


def init_status(one: State) -> Object:
    """Return one entry of initContainerStatuses: an ordinary init container is ready once it has succeeded."""
    made = container_status(one)
    if one.spec.get("restartPolicy") != "Always":
        made["ready"] = one.exit_code == 0
        made["started"] = "running" in one.state
    return made


def phase(main: collections.abc.Sequence[State], *, initialized: bool, init_failed: bool) -> str:
    """Return the pod's phase."""
    if init_failed:
        return "Failed"
    if not initialized:
        return "Pending"
    if all(one.exit_code is not None for one in main):
        return "Succeeded" if all(one.exit_code == 0 for one in main) else "Failed"
    begun = any("waiting" not in one.state or one.restarts for one in main)
    return "Running" if begun else "Pending"


def conditions(
    pod: Object,
    main: collections.abc.Sequence[State],
    sidecars: collections.abc.Sequence[State],
    *,
    initialized: bool,
    now: str,
) -> list[Object]:
    """Return the conditions that a kubelet owns; lastTransitionTime changes only with the status."""
    over = initialized and all(one.exit_code is not None for one in main)
    lame = [one.name for one in (*main, *sidecars) if not ("running" in one.state and one.health.ready)]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    held = {entry["type"]: entry for entry in pod.get("status", {}).get("conditions") or []}
    shut = [gate for gate in gates if held.get(gate, {}).get("status") != TRUE]
    reason = "PodCompleted" if over else "ContainersNotReady"
    message = f"containers with unready status: [{' '.join(lame)}]" if lame and not over else ""
    containers_ready = initialized and not lame
    rows: list[tuple[str, bool, str, str]] = [
        ("PodReadyToStartContainers", True, "", ""),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        ("ContainersReady", containers_ready, "" if containers_ready else reason, message),
        ("Ready", containers_ready and not shut, _why(containers_ready, shut, reason), message),
    ]
    made = []
    for kind, good, why, text in rows:
        status = TRUE if good else FALSE
        same = held.get(kind, {}).get("status") == status
        at = held[kind].get("lastTransitionTime", now) if same else now
        made.append({"type": kind, "status": status, "reason": why, "message": text, "lastTransitionTime": at})
    return made


def _why(containers_ready: bool, shut: list[str], reason: str) -> str:  # noqa: FBT001 - private, called once
    if not containers_ready:
        return reason
    return "ReadinessGatesNotReady" if shut else ""
