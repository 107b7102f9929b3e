"""SLOs that no variant can meet even when idle, and variants of which nothing is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trimtab_core import capacity, units
from trimtab_core.api import findings, v1alpha1
from trimtab_core.api.checks.manifests import Manifests, classes_of
from trimtab_core.catalog import profiles

_PARTS = ("ttft", "itl", "e2e")


def unknown_profiles(manifests: Manifests) -> Iterator[findings.Finding]:
    """Variants that may run and whose capacity can't be guessed: nothing could be planned for them."""
    for entry in manifests.tiers:
        for index, variant in enumerate(entry.object.spec.variants):
            if variant.replicas.max == 0 or profiles.resolve(entry.object.spec.model.name, variant) is not None:
                continue
            accelerator = variant.accelerator
            judged = profiles.explain(
                entry.object.spec.model.name, accelerator.type, accelerator.count, variant.quantization
            )
            problem, _, fix = (judged.reason if isinstance(judged, profiles.NoPrior) else "").partition(": ")
            path = ("spec", "variants", index, "profile" if variant.profile else "accelerator")
            yield entry.finding("profile-missing", path, problem, fix)


def infeasible_slos(manifests: Manifests) -> Iterator[findings.Finding]:
    """Promises that no variant keeps even for a lone request."""
    for entry in manifests.tiers:
        tiers = {entry.name: entry.object}
        for part, problem, fix in _infeasible(entry.object.spec.slo, tiers):
            yield entry.finding("slo-infeasible", ("spec", "slo", part, "p95"), problem, fix)
    for policy in manifests.policies:
        spec = policy.object.spec
        tiers = manifests.tiers_of(policy)
        if spec.slo is not None and len(tiers) == len(spec.tiers):
            for part, problem, fix in _infeasible(spec.slo, tiers):
                yield policy.finding("slo-infeasible", ("spec", "slo", part, "p95"), problem, fix)
        for path, request_class in classes_of(policy):
            if request_class.slo is not None:
                allowed = manifests.allowed(policy, request_class) or {}
                for part, problem, fix in _infeasible(request_class.slo, allowed):
                    yield policy.finding("slo-infeasible", (*path, "slo", part, "p95"), problem, fix)


def _infeasible(
    slo: v1alpha1.LatencySlo, tiers: Mapping[str, v1alpha1.InferenceTier]
) -> Iterator[tuple[str, str, str]]:
    """The parts of an SLO that none of the tiers can keep, each with problem and fix.

    An external API, and a variant whose profile is unknown, may keep anything.
    """
    limits = capacity.limits(slo)
    found: dict[str, capacity.Limits] = {}
    for name, tier in tiers.items():
        running = [variant for variant in tier.spec.variants if variant.replicas.max > 0]
        if tier.spec.external is not None or not running:
            return
        for variant in running:
            profile = profiles.resolve(tier.spec.model.name, variant)
            if profile is None:
                return
            found[f"{name}/{variant.name}"] = capacity.best_achievable(profile, capacity.DEFAULT_MIX, limits.quantile)
    for part in _PARTS:
        limit = getattr(limits, f"{part}_seconds")
        if limit is None or not found:
            continue
        best, seconds = min(
            ((name, getattr(at, f"{part}_seconds")) for name, at in found.items()), key=lambda it: it[1]
        )
        if seconds > limit:
            mix, least = capacity.DEFAULT_MIX, units.format_duration(_rounded_up(seconds))
            problem = (
                f"no variant can meet it: the best, {best}, takes {least} for a lone request of "
                f"{mix.input_tokens:.0f} tokens in, {mix.output_tokens:.0f} out"
            )
            fix = f"write at least {units.format_duration(_rounded_up(1.5 * seconds))}, or add a faster variant"
            yield part, problem, fix


def _rounded_up(seconds: float) -> float:
    """To two significant digits, upwards."""
    digits = 10.0 ** (len(f"{int(seconds * 1e6)}") - 2) / 1e6
    return -(-seconds // digits) * digits
