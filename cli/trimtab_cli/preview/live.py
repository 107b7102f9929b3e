"""``trimtab plan --prometheus``: one plan for the demand of now, beside what runs or beside other manifests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from trimtab_core import signals, units
from trimtab_operator import errors
from trimtab_sim import report

from trimtab_cli import failure, manifests, scenarios
from trimtab_cli.preview import changes, demand, oneshot, story


def tell(paths: Sequence[Path], against: Sequence[Path], url: str) -> story.Story:
    """The whole of it.

    Raises:
        failure.Usage: for an address that is none, or where nobody answers.
        failure.Finding: where no demand is to be seen.
        manifests.ManifestError: for manifests that can't be planned for.
    """
    if not url.startswith(("http://", "https://")):
        raise failure.Usage(f"--prometheus {url}: no URL; write http://HOST:PORT")
    bundle, doubts = scenarios.objects(paths)
    other = _other(against) if against else None
    try:
        seen = demand.look(url.rstrip("/"), time.time())
    except errors.MetricsError as error:
        raise failure.Usage(f"--prometheus: {error}; give the address of a Prometheus that answers") from error
    planned = oneshot.plan(bundle, seen)
    _require_demand(planned, url)
    before = oneshot.wanted(oneshot.plan(other, seen), ()) if other else oneshot.present(planned)
    return story.Story(
        load=_load(planned, url),
        before=before,
        after=oneshot.wanted(planned, doubts),
        changes=changes.between(other, bundle) if other else None,
        tiers=[],
        promised=0.0,
        limits=report.Promise(),
        notes=() if before else ("no operator shows what runs now, so there is nothing to compare with",),
        facts=[("Prometheus", url)],
        titles=_titles(compared=other is not None, running=before is not None),
        details=oneshot.details(planned),
    )


def _titles(*, compared: bool, running: bool) -> tuple[str, ...]:
    if compared:
        return "before", "after"
    return ("now", "planned") if running else ("planned",)


def _other(against: Sequence[Path]) -> manifests.Bundle:
    try:
        return scenarios.objects(against)[0]
    except manifests.ManifestError as error:
        raise manifests.ManifestError(f"--against: {error}") from error


def _require_demand(planned: oneshot.Planned, url: str) -> None:
    """No plan without a number: a missing one is never zero."""
    if not planned.snapshot.policies:
        raise manifests.ManifestError("no RoutingPolicy in the manifests: there is no demand to plan for; add one")
    unseen = oneshot.unseen(planned)
    if unseen:
        raise failure.Finding(
            f"{url} shows no demand of {', '.join(unseen)}: see that it scrapes the routers, and that the policy's "
            "namespace and name are those of the cluster"
        )


def _load(planned: oneshot.Planned, url: str) -> str:
    window = units.format_duration(demand.WINDOW_SECONDS)
    rate = sum(
        signals.sound(traffic.arrivals_per_second) or 0.0
        for policy in planned.snapshot.policies.values()
        for traffic in policy.traffic.values()
    )
    return f"{url}: {rate:.3g} requests/s over the last {window}"
