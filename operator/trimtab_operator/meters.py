"""The operator's own metrics. Names and labels come from ``telemetry`` alone; gauges say what the last cycle left."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from trimtab_core import signals, telemetry
from trimtab_core.planning import inputs
from trimtab_core.planning import plan as planning
from trimtab_core.snapshot import ReplicaPhase, Snapshot

from trimtab_operator import reconcile
from trimtab_operator.render import names

MISSING_AGE = -1.0


class Meters:
    """All series of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._families: dict[str, MetricWrapperBase] = {
            family.name: _make(family, self.registry) for family in telemetry.OPERATOR_FAMILIES
        }

    def serve(self, port: int) -> None:
        """Serve ``/metrics`` on all addresses, in a thread. Raises OSError where the port is taken."""
        prometheus_client.start_http_server(port, registry=self.registry)

    def led(self, *, leads: bool) -> None:
        """Whether this process leads. A follower shows nothing of plans: its numbers would be old."""
        self._gauge(telemetry.LEADER).set(float(leads))
        if not leads:
            for family in (
                telemetry.PLAN_USD_PER_HOUR,
                telemetry.REPLICAS_WANTED,
                telemetry.REPLICAS_READY,
                telemetry.WEIGHT,
                telemetry.FORECAST_ERROR,
            ):
                self._families[family.name].clear()

    def failed(self, reason: str) -> None:
        """One cycle failed."""
        family = self._families[telemetry.RECONCILE_ERRORS.name]
        assert isinstance(family, Counter)
        family.labels(reason).inc()

    def took(self, seconds: float) -> None:
        """How long one cycle took."""
        family = self._families[telemetry.RECONCILE_SECONDS.name]
        assert isinstance(family, Histogram)
        family.observe(seconds)

    def show(self, outcome: reconcile.Outcome) -> None:
        """What one cycle left."""
        for family in (
            telemetry.PLAN_USD_PER_HOUR, telemetry.REPLICAS_WANTED, telemetry.REPLICAS_READY, telemetry.WEIGHT,
            telemetry.SIGNAL_AGE, telemetry.FORECAST_ERROR,
        ):  # fmt: skip
            self._families[family.name].clear()
        self._show_tiers(outcome)
        self._show_policies(outcome.snapshot, outcome.plan)
        decided = self._families[telemetry.DECISIONS.name]
        assert isinstance(decided, Counter)
        for change in outcome.changes.replicas:
            decided.labels(change.key.tier, _decisive(change.reasons)).inc()
        for moved in outcome.changes.weights:
            decided.labels("", _decisive(moved.reasons)).inc()

    def _show_tiers(self, outcome: reconcile.Outcome) -> None:
        for tier in outcome.snapshot.tiers.values():
            namespace, _, name = tier.key.partition("/")
            cost = 0.0
            for variant in tier.variants:
                key = planning.VariantKey(tier.key, variant.name)
                target = names.target(namespace, names.engines(name, variant.name))
                self._gauge(telemetry.REPLICAS_WANTED, tier.key, variant.name, target).set(outcome.told.get(key, 0))
                ready = variant.count(ReplicaPhase.READY)
                self._gauge(telemetry.REPLICAS_READY, tier.key, variant.name).set(ready)
                if variant.price is not None:
                    cost += outcome.plan.replicas.get(key, variant.desired) * variant.price.usd_per_hour
            self._gauge(telemetry.PLAN_USD_PER_HOUR, tier.key).set(cost)
            self._gauge(telemetry.SIGNAL_AGE, tier.key, "sloAttainment").set(_age(tier.slo_attainment))

    def _show_policies(self, snapshot: Snapshot, plan: planning.Plan) -> None:
        for policy in snapshot.policies.values():
            for name, shares in {**policy.weights, **plan.weights.get(policy.key, {})}.items():
                for tier, share in shares.items():
                    self._gauge(telemetry.WEIGHT, policy.key, name, tier).set(share)
            for name, traffic in policy.traffic.items():
                age = _age(traffic.arrivals_per_second)
                self._gauge(telemetry.SIGNAL_AGE, policy.key, f"{name}.arrivalsPerSecond").set(age)

        for (policy_key, name), error in inputs.forecast_errors(plan.demand).items():
            self._gauge(telemetry.FORECAST_ERROR, policy_key, name).set(error)

    def _gauge(self, family: telemetry.Family, *labels: str) -> Gauge:
        found = self._families[family.name]
        assert isinstance(found, Gauge)
        return found.labels(*labels) if labels else found


def _make(family: telemetry.Family, registry: CollectorRegistry) -> MetricWrapperBase:
    """One family; the library adds ``_total`` to counters by itself."""
    if family.kind is telemetry.Kind.COUNTER:
        return Counter(family.name.removesuffix("_total"), family.help, family.labels, registry=registry)
    if family.kind is telemetry.Kind.HISTOGRAM:
        return Histogram(family.name, family.help, family.labels, buckets=family.buckets, registry=registry)
    return Gauge(family.name, family.help, family.labels, registry=registry)


def _decisive(reasons: tuple[planning.Reason, ...]) -> str:
    return reasons[0].code.value if reasons else planning.Code.STEADY.value


def _age(signal: signals.Signal) -> float:
    return MISSING_AGE if isinstance(signal, signals.Missing) else signal.age_seconds
