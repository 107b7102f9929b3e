"""What the loop remembers in the objects' status: one place that writes it and reads it back. Pure.

A restart, or another leader, goes on from here. Must not know who stores the status.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

from trimtab_core import learning, units, waves
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import inference_tier
from trimtab_core.signals import Fresh, Missing, Signal, known
from trimtab_core.snapshot import VariantMemory, Weights

START_UTILISATION = 0.85
"""Share planned with before anything was learned: the rest is for uneven routing and errors of the profile."""
SHARE_DIGITS = 6
"""Decimals of a share in status: far below what routers can tell apart."""


def rfc3339(seconds: float) -> str:
    """A moment as Kubernetes writes it, to the millisecond where it has a fraction."""
    moment = dt.datetime.fromtimestamp(round(seconds, 3), dt.UTC)
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def epoch_seconds(text: str | None) -> float | None:
    """Epoch seconds of an RFC 3339 moment; None for no text and for one that nobody can read."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def memory(tier: v1alpha1.InferenceTier, variant: str) -> VariantMemory:
    """What was remembered of a variant."""
    for status in tier.status.variants:
        if status.name == variant:
            return VariantMemory(
                fewer_since=epoch_seconds(status.fewer_since),
                last_scaled_at=epoch_seconds(status.last_scaled),
                blocked_until=epoch_seconds(status.blocked_until),
                override_until=epoch_seconds(status.override_until),
                lost_at=epoch_seconds(status.lost_at),
                losses_per_hour=None if status.losses_per_hour is None else float(status.losses_per_hour),
                waves=_waves(status),
            )
    return VariantMemory()


def utilisation(tier: v1alpha1.InferenceTier) -> float:
    """Share of the admissible load that is planned with: as learned so far, else where learning starts."""
    return float(tier.status.utilisation) if tier.status.utilisation is not None else START_UTILISATION


def utilisation_field(learned: float) -> str:
    """The same as status holds it: hundredths, so that only what matters is written."""
    return f"{learned:.2f}"


def learned(tier: v1alpha1.InferenceTier, variant: str, prior: learning.Law) -> learning.Learned:
    """What was learned of a variant's replicas; nothing yet where status holds no law."""
    status = next((status for status in tier.status.variants if status.name == variant), None)
    told = status.profile if status is not None else None
    if status is None or told is None:
        return learning.begin(prior)
    known, kv_tokens = status.learning or inference_tier.Learning(), told.kv_tokens
    if told.itl_base is None or told.itl_per_sequence is None or told.prefill_tokens_per_second is None:
        return dataclasses.replace(learning.begin(prior), kv_tokens=kv_tokens)
    law = learning.Law(
        units.duration_seconds(told.itl_base),
        units.duration_seconds(told.itl_per_sequence),
        float(told.prefill_tokens_per_second),
    )
    error = learning.CONFIDENT if known.error is None else units.ratio(known.error)
    resumed = learning.resume(prior, law, error=error, sequences=known.sequences, samples=known.samples)
    return dataclasses.replace(resumed, kv_tokens=kv_tokens)


def learned_profile(known: learning.Learned) -> v1alpha1.Profile | None:
    """What may be counted on of what was learned, to four digits, as a user would write it; None without any."""
    if known.law is None:
        return None if known.kv_tokens is None else v1alpha1.Profile(kv_tokens=known.kv_tokens)
    return v1alpha1.Profile(
        itl_base=_milliseconds(known.law.itl_base_seconds),
        itl_per_sequence=_milliseconds(known.law.itl_per_sequence_seconds),
        prefill_tokens_per_second=max(1, int(float(f"{known.law.prefill_tokens_per_second:.4g}"))),
        kv_tokens=known.kv_tokens,
    )


def learned_fields(known: learning.Learned | None) -> dict[str, dict[str, object] | None]:
    """The same as fields of a variant's status, None where nothing is learned; empty without knowledge."""
    if known is None:
        return {}
    profile = learned_profile(known)
    if profile is None:
        return {"profile": None, "learning": None}
    trust = {
        "samples": known.samples,
        "error": f"{min(1.0, known.error):.3f}",
        "sequences": round(known.sequences),
    }
    return {"profile": profile.to_dict(), "learning": trust}


def _milliseconds(seconds: float) -> str:
    """Four digits of a duration; a step may take microseconds and less."""
    return f"{float(f'{seconds * 1e3:.4g}'):.9f}".rstrip("0").rstrip(".") + "ms"


def memory_fields(remembered: VariantMemory) -> dict[str, str]:
    """The same as fields of a variant's status; what is None is left out."""
    moments = {
        "fewerSince": remembered.fewer_since,
        "lastScaled": remembered.last_scaled_at,
        "blockedUntil": remembered.blocked_until,
        "overrideUntil": remembered.override_until,
        "lostAt": remembered.lost_at,
    }
    fields = {name: rfc3339(moment) for name, moment in moments.items() if moment is not None}
    if remembered.losses_per_hour is not None:
        fields["lossesPerHour"] = _loss_rate(remembered.losses_per_hour)
    seen = remembered.waves
    if (seen.per_hour, seen.share) != (waves.PRIOR_PER_HOUR, waves.PRIOR_SHARE):
        fields["wavesPerHour"] = _loss_rate(seen.per_hour)
        fields["waveShare"] = f"{seen.share:.2f}"
    return fields


def _waves(status: v1alpha1.inference_tier.VariantStatus) -> waves.Waves:
    """What is known of losses that go together."""
    rate, share = status.waves_per_hour, status.wave_share
    return waves.known(None if rate is None else float(rate), None if share is None else units.ratio(share))


def _loss_rate(per_hour: float) -> str:
    """Two significant digits, at most four decimals: noise below that writes nothing."""
    shown = f"{float(f'{min(per_hour, 999.0):.2g}'):.4f}".rstrip("0").rstrip(".")
    return shown or "0"


def spent(policy: v1alpha1.RoutingPolicy, now: float) -> Signal:
    """USD that the policy's tiers have cost since the calendar month (UTC) of ``now`` began.

    What status counted, and since then what status says they cost per hour: status is written whenever that changes.
    So nothing is lost while no operator runs, only taken at the last known rate.
    """
    counted = policy.status.spend
    until = epoch_seconds(counted.as_of) if counted is not None else None
    if counted is None or until is None:
        return Missing("nothing was counted yet")
    begin = month_begin(now)
    usd = units.decimal_number(counted.usd) if until >= begin else 0.0
    rate = units.decimal_number(policy.status.usd_per_hour or "0")
    return Fresh(usd + rate * max(0.0, now - max(until, begin)) / units.SECONDS_PER_HOUR, max(0.0, now - until))


def spend_fields(spent_usd: Signal, now: float) -> dict[str, str]:
    """The same as status holds it, as of ``now``; counting begins at zero."""
    usd = known(spent_usd) or 0.0
    return {"usd": f"{usd:.6f}".rstrip("0").rstrip("."), "asOf": rfc3339(now)}


def month_begin(now: float) -> float:
    """When the calendar month (UTC) of a moment began, epoch seconds."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def weights(policy: v1alpha1.RoutingPolicy) -> Weights:
    """The weights in force: shares of classes and tiers that are still in the spec, summing to 1 for each class."""
    namespace = policy.metadata.namespace
    known = {tier.ref for tier in policy.spec.tiers}
    allowed = {cls.name: set(cls.allow) & known if cls.allow else known for cls in policy.spec.classes}
    found: dict[str, dict[str, float]] = {}
    for status in policy.status.classes:
        shares = {tier: float(text) for tier, text in status.weights.items() if tier in allowed.get(status.name, ())}
        whole = sum(shares.values())
        if whole > 0:
            found[status.name] = {f"{namespace}/{tier}": share / whole for tier, share in shares.items()}
    return found


def weight_fields(shares: Mapping[str, float]) -> dict[str, str]:
    """The shares of one class as status holds them: by tier name, adding up to 1 after rounding; zeros left out.

    What rounding loses goes to the largest share.
    """
    units = 10**SHARE_DIGITS
    parts = {tier.partition("/")[2] or tier: round(share * units) for tier, share in sorted(shares.items())}
    if parts:
        largest = max(parts, key=lambda tier: parts[tier])
        parts[largest] += units - sum(parts.values())
    return {tier: _decimal(part, units) for tier, part in parts.items() if part > 0}


def _decimal(part: int, units: int) -> str:
    """A share of ``units`` as a plain decimal."""
    whole, rest = divmod(part, units)
    return f"{whole}.{rest:0{SHARE_DIGITS}d}".rstrip("0").rstrip(".")
