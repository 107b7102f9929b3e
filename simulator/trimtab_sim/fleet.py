"""All replicas of a simulated cluster: they start, drain and go as told, and every second of them is paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trimtab_core import units
from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import CapacityProfile, ReplicaPhase

from trimtab_sim import engine, replicas, report


@dataclass(frozen=True, slots=True)
class Kind:
    """What all replicas of one variant have in common.

    Attributes:
        profile: how fast they are, and how long they take to start.
        usd_per_hour: of one replica.
        accelerators: of one replica.
        fitting: sequences that run, on average, at the largest load that keeps the SLO.
        drain_seconds: how long requests may finish when a replica is told to go.
        requests_per_second: of the trace's mix, at that largest load.
    """

    profile: CapacityProfile
    usd_per_hour: float
    accelerators: int
    fitting: float
    drain_seconds: float
    requests_per_second: float = 0.0


@dataclass(slots=True)
class _Account:
    """What one variant has cost and done so far.

    Attributes:
        paid_seconds, sequence_seconds: of replicas that are gone.
        usd_per_hour: price of a replica now.
        usd_before: what earlier prices made of all paid seconds until the price changed, above the price of now.
    """

    usd_per_hour: float
    paid_seconds: float = 0.0
    sequence_seconds: float = 0.0
    usd_before: float = 0.0


class Fleet:
    """Replicas by variant.

    Args:
        clock: the engine of events; what happens before its time 0 is not billed.
        kinds: the variants that can run.
        changed: told after every change of a replica's phase.
        start: how a replica comes up that is created now; None for as its profile says.
    """

    def __init__(
        self,
        clock: engine.Engine,
        kinds: Mapping[VariantKey, Kind],
        changed: Callable[[VariantKey, replicas.Replica], None],
        *,
        start: Callable[[VariantKey], replicas.Start | None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self.kinds = kinds
        self._changed = changed
        self._start = start
        self._members: dict[VariantKey, dict[str, replicas.Replica]] = {key: {} for key in kinds}
        self._by_name: dict[str, replicas.Replica] = {}
        self._accounts = {key: _Account(kind.usd_per_hour) for key, kind in kinds.items()}
        self._served_before: dict[str, float] = {}
        self._number = 0
        self.desired: dict[VariantKey, int] = dict.fromkeys(kinds, 0)
        self.changes = 0

    def members(self) -> Iterator[tuple[VariantKey, replicas.Replica]]:
        """All replicas that are not gone, in order of variant and creation."""
        for key, members in self._members.items():
            for replica in members.values():
                yield key, replica

    def of(self, key: VariantKey) -> tuple[replicas.Replica, ...]:
        """The replicas of one variant that are not gone."""
        return tuple(self._members[key].values())

    def find(self, name: str) -> replicas.Replica | None:
        """The replica of that name; None if it is gone."""
        return self._by_name.get(name)

    def start(self, key: VariantKey, count: int) -> None:
        """Have ``count`` replicas ready at once: the state in which a run begins. Counted as no change."""
        for _ in range(count):
            self._create(key).start_now()
        self.desired[key] = self.desired[key] + count

    def scale(self, key: VariantKey, desired: int) -> None:
        """Tell a variant how many replicas it should have.

        Those that are pending go first, the youngest before the others, then the ready ones with the fewest requests.
        """
        if desired == self.desired[key]:
            return
        if self._clock.now >= 0:
            self.changes += abs(desired - self.desired[key])
        self.desired[key] = desired
        staying = self._refill(key)
        for replica in sorted(staying, key=_expendable)[: max(0, len(staying) - desired)]:
            replica.drain(self.kinds[key].drain_seconds)

    def _refill(self, key: VariantKey) -> list[replicas.Replica]:
        """Create what is missing, as a Deployment does, which doesn't count those that leave; those that stay."""
        staying = [one for one in self._members[key].values() if one.phase is not ReplicaPhase.DRAINING]
        staying += [self._create(key) for _ in range(self.desired[key] - len(staying))]
        return staying

    def preempt(self, key: VariantKey, replica: replicas.Replica, notice_s: float) -> None:
        """The provider takes a replica's machine; another one is created at once."""
        replica.preempt(notice_s)
        self._refill(key)

    def lose(self, key: VariantKey, replica: replicas.Replica) -> None:
        """A replica and its machine are gone without a word; another one is created at once."""
        replica.kill()
        self._refill(key)

    def reprice(self, key: VariantKey, usd_per_hour: float) -> None:
        """Replicas of a variant cost that much from now on."""
        account = self._accounts[key]
        paid = account.paid_seconds + sum(self._paid_seconds(one) for one in self._members[key].values())
        account.usd_before += paid / units.SECONDS_PER_HOUR * (account.usd_per_hour - usd_per_hour)
        account.usd_per_hour = usd_per_hour

    def usd_per_hour(self) -> float:
        """What everything costs that has a machine: starting, ready and draining."""
        now = self._clock.now
        return sum(
            sum(one.placed_at <= now for one in members.values()) * self._accounts[key].usd_per_hour
            for key, members in self._members.items()
        )

    def state(self) -> report.Fleet:
        """The fleet as the course shows it, by tier."""
        ready: Counter[str] = Counter()
        pending: Counter[str] = Counter()
        for key, replica in self.members():
            tier = key.tier.partition("/")[2] or key.tier
            ready[tier] += replica.phase is ReplicaPhase.READY
            pending[tier] += replica.phase is ReplicaPhase.PENDING
        return report.Fleet(self._clock.now, dict(ready), dict(pending), self.usd_per_hour())

    def begin_billing(self) -> None:
        """The run proper begins: what replicas have served so far is not counted. Paying begins at time 0 anyway."""
        for key, replica in self.members():
            replica.processor.advance()
            self._served_before[replica.name] = replica.processor.sequence_seconds
            self._accounts[key].sequence_seconds = 0.0

    def bill(self) -> report.Bill:
        """What time 0 to now has cost. External calls are not in it."""
        usd = hours = busy = 0.0
        for key, kind in self.kinds.items():
            account = self._accounts[key]
            paid, served = account.paid_seconds, account.sequence_seconds
            for replica in self._members[key].values():
                replica.processor.advance()
                paid += self._paid_seconds(replica)
                served += self._served_seconds(replica)
            usd += paid / units.SECONDS_PER_HOUR * account.usd_per_hour + account.usd_before
            hours += paid / units.SECONDS_PER_HOUR * kind.accelerators
            busy += min(served / kind.fitting, paid) / units.SECONDS_PER_HOUR * kind.accelerators
        return report.Bill(usd, hours, busy, self.changes)

    def _create(self, key: VariantKey) -> replicas.Replica:
        self._number += 1
        name = f"{key.tier.partition('/')[2] or key.tier}-{key.variant}-{self._number}"

        def changed(replica: replicas.Replica) -> None:
            if replica.phase is None:
                del self._members[key][replica.name], self._by_name[replica.name]
                account = self._accounts[key]
                account.paid_seconds += self._paid_seconds(replica)
                account.sequence_seconds += self._served_seconds(replica)
            self._changed(key, replica)

        replica = replicas.Replica(name, self._clock, self.kinds[key].profile, changed, start=self._start(key))
        self._members[key][name] = self._by_name[name] = replica
        return replica

    def _paid_seconds(self, replica: replicas.Replica) -> float:
        ended = self._clock.now if replica.gone_at is None else replica.gone_at
        return max(0.0, ended - max(replica.placed_at, 0.0))

    def _served_seconds(self, replica: replicas.Replica) -> float:
        return replica.processor.sequence_seconds - self._served_before.get(replica.name, 0.0)


def _expendable(replica: replicas.Replica) -> tuple[bool, int, float]:
    """Sort key: what is least missed comes first."""
    engine_ = replica.processor
    return (replica.phase is ReplicaPhase.READY, engine_.running + engine_.waiting, -replica.created_at)
