"""A small fleet to simulate: two tiers, quick to start, and traces made for the occasion."""

from __future__ import annotations

from typing import Any

from trimtab_core.api import v1alpha1
from trimtab_sim import prompts, traces, world
from trimtab_sim.workload import Trace


def tier(name: str, quality: str, variants: list[dict[str, Any]], **spec: Any) -> v1alpha1.InferenceTier:
    """A tier promising TTFT 2 s and ITL 60 ms to 95 %."""
    return v1alpha1.InferenceTier.model_validate(
        {
            "apiVersion": "inference.trimtab.dev/v1alpha1",
            "kind": "InferenceTier",
            "metadata": {"name": name},
            "spec": {
                "model": {"name": f"model-{name}", "quality": quality},
                "slo": {"ttft": {"p95": "2s"}, "itl": {"p95": "60ms"}, "attainment": "0.95"},
                "variants": variants,
                "scaling": {"scaleDownWindow": "60s"},
                "drain": {"timeout": "60s"},
                **spec,
            },
        }
    )


def variant(name: str, usd: str, *, speed: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A variant of ITL (20 + 1 n) ms and 10,000 prompt tokens/s, ``speed`` times as fast, 20 s to start."""
    return {
        "name": name,
        "accelerator": {"type": "L4"},
        "price": {"usdPerHour": usd},
        "replicas": {"min": 0, "max": 20},
        "profile": {
            "itlBase": f"{20 / speed:g}ms",
            "itlPerSequence": f"{1 / speed:g}ms",
            "prefillTokensPerSecond": int(10_000 * speed),
            "kvTokens": 200_000,
            "maxSequences": 128,
            "startup": "20s",
        },
        **changes,
    }


def policy(**spec: Any) -> v1alpha1.RoutingPolicy:
    """A policy over both tiers that keeps 80 % of the best quality; sensitive requests on the large tier alone."""
    return v1alpha1.RoutingPolicy.model_validate(
        {
            "apiVersion": "inference.trimtab.dev/v1alpha1",
            "kind": "RoutingPolicy",
            "metadata": {"name": "chat"},
            "spec": {
                "tiers": [{"ref": "small"}, {"ref": "large"}],
                "classes": [
                    {"name": "sensitive", "match": {"sensitive": True}, "allow": ["large"], "onUnavailable": "Reject"},
                    {"name": "default"},
                ],
                "objective": {"qualityRetention": "0.80"},
                **spec,
            },
        }
    )


SMALL = tier("small", "0.60", [variant("l4", "1.00")])
CACHE = v1alpha1.CachePolicy.model_validate(
    {"apiVersion": "inference.trimtab.dev/v1alpha1", "kind": "CachePolicy", "metadata": {"name": "answers"}}
)
LARGE = tier("large", "0.80", [variant("h100", "8.00", replicas={"min": 1, "max": 20})])


def flat_trace(*, minutes: float = 3.0, rps: float = 4.0, seed: int = 1, mix: prompts.Mix | None = None) -> Trace:
    """Short requests at a constant mean rate."""
    course = (traces.synthetic.Phase("flat", 1.0, 1.0, 1.0),)
    return traces.synthesize(minutes=minutes, seed=seed, mean_rps=rps, course=course, mix=mix)


def scenario(
    trace: Trace | None = None,
    *,
    tiers: tuple[v1alpha1.InferenceTier, ...] = (SMALL, LARGE),
    policies: tuple[v1alpha1.RoutingPolicy, ...] | None = None,
    caches: tuple[v1alpha1.CachePolicy, ...] = (),
    policy_spec: dict[str, Any] | None = None,
    **settings: Any,
) -> world.Scenario:
    """The two tiers under one policy; every part can be replaced."""
    chosen = (policy(**(policy_spec or {})),) if policies is None else policies
    values: dict[str, Any] = {"prologue": 120.0} | settings
    return world.Scenario(tiers, chosen, caches, trace or flat_trace(), world.Settings(**values))


def external(name: str, quality: str, *, usd: str = "5.00") -> v1alpha1.InferenceTier:
    """A tier behind a provider, at so many USD per million output tokens and a fifth of that for input."""
    return v1alpha1.InferenceTier.model_validate(
        {
            "apiVersion": "inference.trimtab.dev/v1alpha1",
            "kind": "InferenceTier",
            "metadata": {"name": name},
            "spec": {
                "model": {"name": f"model-{name}", "quality": quality},
                "external": {
                    "url": "https://provider.example/v1",
                    "apiKeySecretRef": {"name": "key", "key": "token"},
                    "price": {"inputUsdPerMillionTokens": f"{float(usd) / 5:g}", "outputUsdPerMillionTokens": usd},
                    "maxRequestsPerSecond": 100,
                },
            },
        }
    )
