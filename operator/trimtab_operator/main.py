"""The operator process: kopf watches and wakes, the loop decides.

Nothing but registration and wiring. Handlers are event handlers on purpose: kopf then writes no annotation and no
finalizer on anybody's object, and nothing can hang a deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import kopf

from trimtab_operator import errors, kube, labels, loop, meters, settings
from trimtab_operator.observe import combined, prometheus, scrape

STOP_SECONDS = 10.0
WATCH_RETRY_SECONDS = 5.0
log = logging.getLogger(__name__)


async def run(config: settings.Operator, api: kube.Kube) -> None:
    """Run until cancelled.

    Raises:
        errors.OperatorError: when the API server can't be used or the metrics port is taken.
    """
    await check(api, config)
    meter = meters.Meters()
    if config.metrics_port:
        try:
            meter.serve(config.metrics_port)
        except OSError as error:
            raise errors.OperatorError(f"--metrics-port {config.metrics_port}: {error.strerror}") from error
    answers = _answers(config)
    async with scrape.Scraper(dict) as engines:
        control = loop.Loop(
            api,
            combined.CombinedMetrics(answers, engines),
            config,
            meters=meter,
            clock=loop.Clock(time.time, time.monotonic),  # noqa: TID251 (the edge)
        )
        watching = asyncio.create_task(watch(control, config, api))
        reconciling = asyncio.create_task(control.run())
        try:
            await asyncio.wait({watching, reconciling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            control.stop()
            watching.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(watching, reconciling, return_exceptions=True), STOP_SECONDS)
            api.close()


async def check(api: kube.Kube, config: settings.Operator) -> None:
    """See that the API server answers and serves our kinds. Raises errors.ClusterError with the fix."""
    namespace = config.namespaces[0] if config.namespaces else ""
    for kind in kube.OWN:
        try:
            await api.items(kind.path(namespace), metadata_only=True)
        except errors.NotFoundError as error:
            message = f"the API server {api.host} serves no {kind.plural}: kubectl apply --server-side -f crds/"
            raise errors.KindMissingError(message) from error
        except errors.AccessDeniedError as error:
            message = f"{error}; give the operator's account the role in manifests/base/rbac.yaml"
            raise errors.AccessDeniedError(message) from error


async def watch(control: loop.Loop, config: settings.Operator, api: kube.Kube) -> None:
    """Have kopf watch what matters and wake the loop; until cancelled.

    In a thread with an event loop of its own: kopf takes over its loop's signals, and ends on an unknown watch error.
    The operator goes on by its interval meanwhile.
    """
    here, stop = asyncio.get_running_loop(), threading.Event()
    registry = register(lambda: here.call_soon_threadsafe(control.wake), api)
    try:
        while True:
            try:
                await asyncio.to_thread(_watch, registry, config, stop)
            except Exception as error:  # noqa: BLE001 (whatever ends kopf, watching begins anew)
                log.error("watching ended: %r", error)  # noqa: TRY400 (the line says it all)
            await asyncio.sleep(WATCH_RETRY_SECONDS)
    finally:
        stop.set()


def _watch(registry: kopf.OperatorRegistry, config: settings.Operator, stop: threading.Event) -> None:
    """Run kopf until ``stop``, blocking."""
    asyncio.run(
        kopf.operator(
            registry=registry,
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not config.namespaces,
            namespaces=list(config.namespaces),
            stop_flag=stop,
        )
    )


def register(woken: Callable[[], object], api: kube.Kube) -> kopf.OperatorRegistry:
    """All handlers: every one only wakes."""
    registry = kopf.OperatorRegistry()

    async def wake(**_: Any) -> None:  # noqa: ANN401 (kopf's keywords)
        woken()

    for kind in kube.OWN:
        kopf.on.event(labels.GROUP, kind.plural, registry=registry)(wake)
    owned = {labels.MANAGED_BY: labels.MANAGER}
    kopf.on.event("apps", "v1", "deployments", labels=owned, registry=registry)(wake)
    kopf.on.event("", "v1", "pods", labels=owned, registry=registry)(wake)

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 (kopf's keywords)
        return connection(api)

    return registry


def connection(api: kube.Kube) -> kopf.ConnectionInfo:
    """The same server and credentials as ``kube`` uses, for kopf's own connections."""
    config = api.configuration
    given = config.auth_settings().get("BearerToken", {}).get("value") or ""
    scheme, _, token = given.rpartition(" ")
    return kopf.ConnectionInfo(
        server=config.host,
        ca_path=config.ssl_ca_cert,
        insecure=not config.verify_ssl,
        certificate_path=config.cert_file,
        private_key_path=config.key_file,
        scheme=scheme or ("Bearer" if token else None),
        token=token or None,
        username=config.username or None,
        password=config.password or None,
    )


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf without traces: no Events, no annotations of its own, none of its resource scans."""
    given = kopf.OperatorSettings()
    given.posting.enabled = False
    given.scanning.disabled = True
    given.persistence.finalizer = f"{labels.GROUP}/none"
    given.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=labels.GROUP)
    given.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=labels.GROUP)
    given.watching.server_timeout = 300
    return given


def _answers(config: settings.Operator) -> combined.Answers:
    """Prometheus, or the one that says that there is none."""
    if not config.prometheus_url:
        return combined.Nothing()
    return prometheus.PrometheusMetrics(config.prometheus_url, timeout_seconds=config.prometheus_timeout_seconds)
