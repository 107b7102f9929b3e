"""Knative's pod autoscaler (KPA): concurrency in a stable window, and a panic mode that looks at a tenth of it.

Source: knative serving ``pkg/autoscaler/scaling/autoscaler.go``. Every tick, with ready pods r (at least 1) and the
requests in flight of all pods, averaged over each window:

    desired = ceil(average / (target · utilisation)), between floor(r / max_down) and ceil(r · max_up)

Panic begins, or goes on, when the panic window's wish, before those limits, is at least ``panic_threshold`` · r; it
ends a stable window after that was last so. While it lasts, the count never falls below the most that was wanted in
it. Without data nothing changes. Requests that the activator holds for a sleeping service count as one in flight.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from trimtab_core.planning.plan import VariantKey
from trimtab_core.snapshot import ReplicaPhase, Snapshot, VariantState

from trimtab_sim.baselines import autoscaled, hpa, routes

TICK_SECONDS = 5.0
"""Between two evaluations here: a scrape's interval."""


@dataclass(frozen=True, slots=True)
class KpaSettings:
    """A KPA; the defaults are Knative's, but for the target, which is 100 there.

    Attributes:
        target: requests in flight per pod at which it is full.
        utilisation: share of the target that is aimed at.
        stable_seconds: length of the stable window.
        panic_share: length of the panic window, as a share of the stable one.
        panic_threshold: so many times the ready pods must be wanted for panic.
        max_up, max_down: factors by which the count may grow and shrink at once.
        tick_seconds: time between two evaluations, 2 in Knative; longer where scrapes are, as it sees nothing new.
        grace_seconds: the last pod stays for so long after the stable window has become empty.
    """

    target: float
    utilisation: float = 0.7
    stable_seconds: float = 60.0
    panic_share: float = 0.10
    panic_threshold: float = 2.0
    max_up: float = 1000.0
    max_down: float = 2.0
    tick_seconds: float = TICK_SECONDS
    grace_seconds: float = 30.0


@dataclass(slots=True)
class Kpa:
    """One KPA's memory and arithmetic.

    Attributes:
        samples: requests in flight of all pods, and when.
        panic_since: when the panic threshold was last exceeded; None when calm.
        most: the most that was wanted in this panic.
    """

    settings: KpaSettings
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    panic_since: float | None = None
    most: int = 0

    def scale(self, in_flight: float | None, ready: int, now: float) -> int | None:
        """Pods wanted; None when there is nothing to judge by.

        Args:
            in_flight: requests of all pods now; None if none can be read.
            ready: pods that serve.
            now: seconds.
        """
        settings = self.settings
        while self.samples and self.samples[0][0] <= now - settings.stable_seconds:
            self.samples.popleft()
        if in_flight is not None:
            self.samples.append((now, in_flight))
        panic = self._mean(now - settings.panic_share * settings.stable_seconds)
        stable = self._mean(now - settings.stable_seconds)
        if panic is None or stable is None:
            return None
        value, pods = settings.target * settings.utilisation, max(1, ready)
        stable_wish, panic_wish = hpa.ceil(stable / value), hpa.ceil(panic / value)
        highest, lowest = math.ceil(settings.max_up * pods), math.floor(pods / settings.max_down)
        if panic_wish / pods >= settings.panic_threshold:
            self.panic_since = now
        elif self.panic_since is not None and self.panic_since + settings.stable_seconds < now:
            self.panic_since, self.most = None, 0
        wanted = min(max(stable_wish, lowest), highest)
        if self.panic_since is None:
            return wanted
        self.most = max(self.most, wanted, min(max(panic_wish, lowest), highest))
        return self.most

    def _mean(self, since: float) -> float | None:
        values = [value for at, value in self.samples if at > since]
        return sum(values) / len(values) if values else None


class Knative(autoscaled.Autoscaled):
    """One KPA for each serving variant.

    Args:
        bounds: min-scale (0 lets it sleep) and max-scale of each serving variant.
        settings: of all its KPAs, or of each.
        shorten: by how much a demonstration has shortened times.
        routing: where requests go.
    """

    name = "knative"

    def __init__(
        self,
        bounds: routes.Bounds,
        settings: autoscaled.Each[KpaSettings],
        *,
        shorten: float = 1.0,
        routing: routes.Routing = routes.BEST,
    ) -> None:
        self._settings = autoscaled.spread(bounds, settings)
        tick = min((one.tick_seconds for one in self._settings.values()), default=TICK_SECONDS)
        super().__init__(bounds, autoscaled.told(self._settings, _told), tick / shorten, routing)
        self._shorten = shorten
        self._kpas: dict[VariantKey, Kpa] = {}
        self._busy_at: dict[VariantKey, float] = {}

    def decide(self, key: VariantKey, variant: VariantState, snapshot: Snapshot) -> int:
        """The KPA's wish; zero only after window and grace."""
        settings = self._settings[key]
        kpa = self._kpas.setdefault(key, Kpa(settings))
        now, ready = snapshot.now * self._shorten, variant.count(ReplicaPhase.READY)
        in_flight = autoscaled.in_flight(variant.replicas)
        if in_flight is None and not ready:  # the activator holds what comes
            in_flight = 1.0 if routes.arrives(snapshot, key.tier, self._routing) else 0.0
        wanted = kpa.scale(in_flight, ready, now)
        if wanted is None:
            return variant.desired
        busy_at = self._busy_at.setdefault(key, now)
        if wanted:
            self._busy_at[key] = now
        elif now - busy_at < settings.grace_seconds:
            return min(1, variant.desired)
        return wanted


def _told(settings: KpaSettings) -> str:
    return f"target {settings.target:g} in flight per pod at {settings.utilisation:.0%}"
