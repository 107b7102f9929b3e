"""Decisions out of the status of a tier or policy in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from trimtab_core import recall, units
from trimtab_core.api import v1alpha1
from trimtab_core.api.v1alpha1 import fields, inference_tier
from trimtab_core.planning import inputs
from trimtab_core.planning.plan import Decision
from trimtab_operator import errors, kube

from trimtab_cli import failure
from trimtab_cli.explanation.account import Account, Outcome
from trimtab_cli.pages import wording

KINDS = {"tier": kube.TIERS, "policy": kube.POLICIES}
"""What can be named on the command line."""
Object = v1alpha1.InferenceTier | v1alpha1.RoutingPolicy


@dataclass(frozen=True, slots=True)
class Found:
    """An object with its decisions, oldest first."""

    about: Object
    decisions: Sequence[Decision]


def read(kind: str, namespace: str, name: str, kubeconfig: str) -> Found:
    """The object's status.

    Raises:
        failure.Usage: if it is not there, can't be read, or the cluster can't be used.
    """
    try:
        value = asyncio.run(_get(kind, namespace, name, kubeconfig))
    except errors.NotFoundError as error:
        raise failure.Usage(
            f"no {kind} {name} in namespace {namespace}: see `kubectl get {KINDS[kind].plural} -A`"
        ) from error
    except errors.ClusterError as error:
        raise failure.Usage(str(error)) from error
    form: type[Object] = v1alpha1.InferenceTier if kind == "tier" else v1alpha1.RoutingPolicy
    try:
        about = form.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise failure.Usage(f"{kind} {namespace}/{name}: {where}: {first['msg']}; is it of another version?") from error
    return Found(about, [_decision(about, record) for record in about.status.decisions])


async def _get(kind: str, namespace: str, name: str, kubeconfig: str) -> dict[str, Any]:
    api = kube.connect(kubeconfig)
    try:
        found = await api.get(KINDS[kind].path(namespace, name))
    finally:
        api.close()
    return {**found, "apiVersion": v1alpha1.API_VERSION, "kind": KINDS[kind].name}


def _decision(about: Object, record: fields.DecisionRecord) -> Decision:
    return Decision(
        recall.epoch_seconds(record.time) or 0.0,
        f"{about.metadata.namespace}/{about.metadata.name}",
        record.action,
        tuple(record.reasons),
        float(record.cost_before_usd_per_hour or 0),
        float(record.cost_after_usd_per_hour or 0),
        record.binding_constraint or "",
        _inputs(about),
    )


def _inputs(about: Object) -> tuple[inputs.Input, ...]:
    """What status shows of signals and, for a tier, of its variants: as of the last cycle."""
    if isinstance(about, v1alpha1.InferenceTier):
        told = tuple(_signal(about.metadata.name, one) for one in about.status.signals)
        return told + tuple(one for variant in about.status.variants for one in _variant(variant))
    parsed = (inference_tier.SignalStatus.model_validate(one) for one in about.status.signals)
    return tuple(_signal("", one) for one in parsed)


def _signal(about: str, told: inference_tier.SignalStatus) -> inputs.Input:
    """A signal; those of policies are named ``class.signal``."""
    group, _, name = told.name.rpartition(".")
    age = None if told.age is None else units.duration_seconds(told.age)
    number = None if told.value is None else float(told.value)
    return inputs.Input(group or about, name, number, "", told.state, age, told.reason or "")


def _variant(told: inference_tier.VariantStatus) -> list[inputs.Input]:
    counts = (
        ("asked for", told.desired),
        ("ready", told.ready),
        ("pending", told.pending),
        ("draining", told.draining),
    )
    found = [
        inputs.Input(told.name, name, float(count), "replicas", "Fresh")
        for name, count in counts
        if count or name in {"asked for", "ready"}
    ]
    if told.usd_per_hour is not None:
        source = " ".join(part for part in (told.price_source, told.price_as_of) if part)
        found.append(inputs.Input(told.name, "price", float(told.usd_per_hour), "$/h", inputs.GIVEN, note=source))
    if told.startup is not None:
        startup = units.duration_seconds(told.startup)
        found.append(inputs.Input(told.name, inputs.STARTUP, startup, "s", inputs.GIVEN))
    return found


def tell(found: Found, decision: Decision) -> Account:
    """The account of one of the object's decisions."""
    about = found.about
    weights = about.status.classes if isinstance(about, v1alpha1.RoutingPolicy) else ()
    return Account(
        time=recall.rfc3339(decision.time),
        source=f"status of {about.kind} {about.metadata.namespace}/{about.metadata.name}; inputs as of its last cycle",
        decision=decision,
        guards=(),
        inputs=decision.inputs,
        alternatives=(),
        weights=[(one.name, _shares(one.weights)) for one in weights],
        outcome=_outcome(about),
        untold=("alternatives and guards are not kept in status: `trimtab explain -f DIR --trace FILE` has them",),
    )


def _shares(shares: dict[str, str]) -> str:
    return ", ".join(f"{tier} {wording.percent(float(share))}" for tier, share in shares.items())


def _outcome(about: Object) -> list[Outcome]:
    """What is true now."""
    found = []
    if about.status.usd_per_hour is not None:
        found.append(Outcome("cost of it now", "", f"{wording.usd(float(about.status.usd_per_hour))}/h"))
    if about.status.slo_attainment is not None:
        promised = _promised(about)
        expected = f"at least {wording.percent(promised)}" if promised is not None else ""
        found.append(Outcome("SLO met now", expected, wording.percent(float(about.status.slo_attainment), 1)))
    return found


def _promised(about: Object) -> float | None:
    return None if about.spec.slo is None else units.ratio(about.spec.slo.attainment)
