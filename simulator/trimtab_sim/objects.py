"""The objects of a scenario as an API server would hold them, and what a controller sees of the cluster through them.

Specs are the user's; statuses are what the controller last wrote, and all that outlives it. Knows nothing of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trimtab_core import observation, recall
from trimtab_core.answers import Answers
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import inference_tier, routing_policy
from trimtab_core.observation import EngineReading, ObservedReplica, ObservedVariant
from trimtab_core.planning.plan import Plan, VariantKey
from trimtab_core.snapshot import Snapshot

from trimtab_sim import replicas

EPOCH_SECONDS = 1_700_000_000.0
"""The moment that controllers take for the start of the run; any would do."""


class Objects:
    """Tiers, policies and caches with their statuses."""

    def __init__(
        self,
        tiers: Iterable[v1alpha1.InferenceTier],
        policies: Iterable[v1alpha1.RoutingPolicy],
        caches: Iterable[v1alpha1.CachePolicy],
        window_seconds: float = 60.0,
    ) -> None:
        self._judging = observation.Settings(window_seconds=window_seconds)
        self._tiers = {observation.key(tier.metadata): tier for tier in tiers}
        self._policies = {observation.key(policy.metadata): policy for policy in policies}
        self._caches = tuple(caches)

    def look(  # noqa: PLR0917 (the parts of an observation)
        self,
        now: float,
        variants: Mapping[VariantKey, ObservedVariant],
        answers: Answers,
        engines: Mapping[str, EngineReading],
        previous: Snapshot | None = None,
        *,
        term: int = 1,
    ) -> Snapshot:
        """What the operator would see at ``now`` (epoch seconds) in its ``term`` as leader."""
        seen = observation.Observation(
            tiers=tuple(self._tiers.values()),
            policies=tuple(self._policies.values()),
            caches=self._caches,
            variants=variants,
            answers=answers,
            engines=engines,
        )
        return observation.snapshot(seen, now=now, epoch=term, previous=previous, settings=self._judging)

    def remember(self, plan: Plan, seen: Snapshot) -> None:
        """Write what the operator would write to status, and nothing else: the loop lives by it alone.

        Args:
            plan: that is in force now.
            seen: what it was made from, which holds what was learned of the replicas.
        """
        for key, tier in self._tiers.items():
            statuses = [
                inference_tier.VariantStatus.model_validate(
                    {
                        "name": variant.name,
                        **recall.memory_fields(plan.memory[VariantKey(key, variant.name)]),
                        **recall.learned_fields(variant.learned),
                    }
                )
                for variant in seen.tiers[key].variants
                if VariantKey(key, variant.name) in plan.memory
            ]
            learned = plan.headroom.get(key)
            utilisation = tier.status.utilisation if learned is None else recall.utilisation_field(learned.utilisation)
            status = tier.status.model_copy(update={"variants": statuses, "utilisation": utilisation})
            self._tiers[key] = tier.model_copy(update={"status": status})
        for key, policy in self._policies.items():
            classes = [
                routing_policy.ClassWeights(name=name, weights=recall.weight_fields(shares))
                for name, shares in plan.weights.get(key, {}).items()
            ]
            status_ = policy.status.model_copy(update={"classes": classes})
            self._policies[key] = policy.model_copy(update={"status": status_})

    def reprice(self, key: VariantKey, usd_per_hour: float) -> None:
        """The user fixes another price of a variant."""
        tier = self._tiers[key.tier]
        price = inference_tier.HourlyPrice.model_validate({"usdPerHour": f"{usd_per_hour:.6f}"})
        variants = [
            variant.model_copy(update={"price": price}) if variant.name == key.variant else variant
            for variant in tier.spec.variants
        ]
        spec = tier.spec.model_copy(update={"variants": variants})
        self._tiers[key.tier] = tier.model_copy(update={"spec": spec})


def observed(desired: int, members: Iterable[replicas.Replica]) -> ObservedVariant:
    """A variant as a cluster shows it.

    Args:
        desired: replicas that its Deployment was told to have.
        members: its replicas; those that are gone are left out.
    """
    shown = tuple(
        ObservedReplica(
            name=replica.name,
            phase=replica.phase,
            created_at=EPOCH_SECONDS + replica.created_at,
            ready_at=None if replica.ready_at is None else EPOCH_SECONDS + replica.ready_at,
            address=f"{replica.name}:8000",
        )
        for replica in members
        if replica.phase is not None
    )
    return ObservedVariant(desired, shown, told=desired)
