"""The replicas of one workload: how many there should be, and which of them leave first."""

from __future__ import annotations

from collections.abc import Callable

from trimtab_core.snapshot import ReplicaPhase

from trimtab_operator.local import replica as replicas
from trimtab_operator.local.probe import Probe
from trimtab_operator.local.workload import Workload

_LEAVES_FIRST = (ReplicaPhase.FAILED, ReplicaPhase.PENDING, ReplicaPhase.READY)


class Group:
    """One workload and its replicas, ended ones included.

    Args:
        start: makes a replica of a workload and sets it going.

    """

    def __init__(self, workload: Workload, start: Callable[[Workload], replicas.Replica]) -> None:
        self.workload = workload
        self.replicas: list[replicas.Replica] = []
        self._start = start

    def alive(self) -> list[replicas.Replica]:
        """Those that have not ended, leaving ones included."""
        return [one for one in self.replicas if one.ended_at is None]

    def staying(self) -> list[replicas.Replica]:
        """Those that were not told to leave."""
        return [one for one in self.alive() if not one.leaving]

    async def settle(self, wanted: int, probe: Probe) -> None:
        """Start or let go until ``wanted`` replicas of the present template stay.

        Replicas of an earlier template stay until those of the present one serve in their place.
        """
        present = [one for one in self.staying() if one.digest == self.workload.digest]
        earlier = [one for one in self.staying() if one.digest != self.workload.digest]
        for _ in range(wanted - len(present)):
            present.append(self._start(self.workload))  # noqa: PERF401 (a start is an act, not an element)
        serving = sum(1 for one in present if one.phase is ReplicaPhase.READY)
        for one in await _by_leave(earlier, probe):
            if len(earlier) + serving > wanted:
                one.leave()
                earlier.remove(one)
        for one in (await _by_leave(present, probe))[: max(0, len(present) - wanted)]:
            one.leave()


async def _by_leave(members: list[replicas.Replica], probe: Probe) -> list[replicas.Replica]:
    """In the order in which they leave, a ReplicaSet's: failed, starting, cheapest to delete, emptiest, youngest."""
    ranked = []
    for one in members:
        busy = await probe.in_flight(one.metrics_address) if one.phase is ReplicaPhase.READY else None
        rank = (_LEAVES_FIRST.index(one.phase), one.deletion_cost, busy or 0.0, -one.created_at, one.name)
        ranked.append((rank, one))
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]
