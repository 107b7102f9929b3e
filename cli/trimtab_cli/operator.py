"""``trimtab operator``: the operator process."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import uuid

import click
from trimtab_core import observation, units
from trimtab_core.catalog import prices
from trimtab_operator import errors, kube, logs, main, settings

from trimtab_cli import failure

POD_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Duration(click.ParamType[float]):
    """A duration such as 15s."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        try:
            seconds = units.duration_seconds(str(value))
        except units.UnitError as error:
            self.fail(str(error), param, ctx)
        if seconds < 1:
            self.fail(f"{value} is too short; the shortest interval is 1s", param, ctx)
        return seconds


@click.command(name="operator")
@click.option("--namespace", "namespaces", multiple=True, metavar="NS", help="Namespace to look after; repeatable.")
@click.option("--all-namespaces", is_flag=True, help="Look after all namespaces (the default without --namespace).")
@click.option("--prometheus-url", default="", metavar="URL", envvar="TRIMTAB_PROMETHEUS_URL", help="Prometheus to ask.")
@click.option("--kubeconfig", default="", metavar="FILE", help="Instead of the pod's account or the default file.")
@click.option("--interval", type=Duration(), default="15s", show_default=True, help="Longest time between two cycles.")
@click.option("--window", type=Duration(), default=None, help="What rates are taken over; four intervals by default.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), default=9090, show_default=True, help="0 switches it off."
)
@click.option("--lease-namespace", default="", metavar="NS", help="Where the Lease is; the pod's own by default.")
@click.option(
    "--cloud",
    type=click.Choice(prices.CLOUDS),
    default=prices.CLOUDS[0],
    show_default=True,
    help="Whose price list holds where no node label tells.",
)
@click.option("--region", default="", help="Region of that list.")
@click.option("--debug", is_flag=True, help="Tracebacks, and more in the log.")
def command(  # noqa: PLR0913, PLR0917 (one argument per flag)
    namespaces: tuple[str, ...],
    all_namespaces: bool,  # noqa: FBT001 (click's way)
    prometheus_url: str,
    kubeconfig: str,
    interval: float,
    window: float | None,
    metrics_port: int,
    lease_namespace: str,
    cloud: str,
    region: str,
    debug: bool,  # noqa: FBT001
) -> None:
    """Run the operator: it looks after InferenceTiers, RoutingPolicies and CachePolicies until it is stopped."""
    if namespaces and all_namespaces:
        raise failure.Usage("--namespace and --all-namespaces exclude each other: give one of them")
    if prometheus_url and not prometheus_url.startswith(("http://", "https://")):
        raise failure.Usage(f"--prometheus-url {prometheus_url!r} is no URL: write http://HOST:PORT")
    lease = settings.Lease(
        lease_namespace or _own_namespace(),
        f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}",
    )
    judging = observation.Settings(cloud=cloud, region=region)
    config = settings.Operator(
        lease=lease,
        namespaces=namespaces,
        prometheus_url=prometheus_url.rstrip("/"),
        kubeconfig=kubeconfig,
        metrics_port=metrics_port,
        loop=settings.Loop(interval, window or 4 * interval, prometheus_url=prometheus_url, judging=judging),
    )
    logs.configure(debug=debug)
    try:
        asyncio.run(_run(config))
    except errors.AccessDeniedError as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error
    except errors.OperatorError as error:
        if debug:
            raise
        raise failure.Finding(str(error)) from error


async def _run(config: settings.Operator) -> None:
    """Run until SIGTERM or SIGINT."""
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    api = kube.connect(config.kubeconfig)
    try:
        await main.run(config, api)
    except asyncio.CancelledError:
        return


def _own_namespace() -> str:
    """The namespace of this pod, else ``default``."""
    named = os.environ.get("POD_NAMESPACE", "")
    if named:
        return named
    try:
        return pathlib.Path(POD_NAMESPACE_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return "default"
