"""``trimtab router``: run the data plane."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from trimtab_cli import failure

FILE = click.Path(path_type=Path)


@click.command()
@click.option(
    "--table", type=click.Path(path_type=Path), required=True, help="File of the routing table; may appear later."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port for clients.")
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    help="Port for /metrics, /healthz, /readyz and the admin views; worker i takes the i-th port after it.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds that requests under way may go on after SIGTERM.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the port."
)
@click.option("--tls-certificate", type=FILE, help="PEM file of a certificate and its chain; the port then speaks TLS.")
@click.option(
    "--tls-key", type=FILE, help="PEM file of the certificate's key. Both files are read again when they change."
)
@click.option(
    "--upstream-ca", type=FILE, help="PEM file of authorities to trust for https providers, besides the system's."
)
@click.option("--admin-host", help="Address of the admin port; the same as --host if left out.")
@click.option("--access-log", is_flag=True, help="One line of JSON on standard error for each request; no contents.")
@click.option(
    "--otlp-endpoint", metavar="URL", help="Collector of traces that takes OTLP over HTTP, as http://HOST:4318."
)
@click.option(
    "--otlp-ratio",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of requests to trace that come without a trace of their own.",
)
@click.option("--debug", is_flag=True, help="Tracebacks, and more in the log.")
def command(  # noqa: PLR0913 (one for each option)
    *,
    table: Path,
    host: str,
    port: int,
    admin_port: int,
    drain_seconds: float,
    workers: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    upstream_ca: Path | None,
    admin_host: str | None,
    access_log: bool,
    otlp_endpoint: str | None,
    otlp_ratio: float,
    debug: bool,
) -> None:
    """Run the router (data plane).

    It serves OpenAI's API by the routing table in FILE, takes over every new version of it, and keeps the
    last good one. Without a table it waits, alive and not ready.
    """
    from trimtab_router import main, settings, tls

    if (tls_certificate is None) != (tls_key is None):
        raise failure.Usage("--tls-certificate and --tls-key go together; give both or none")
    if otlp_endpoint is not None:
        _check_collector(otlp_endpoint)
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    options = settings.Settings(
        table=table,
        host=host,
        port=port,
        admin_port=admin_port,
        drain_seconds=drain_seconds,
        workers=workers,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        upstream_ca=upstream_ca,
        admin_host=admin_host,
        access_log=access_log,
        otlp_endpoint=otlp_endpoint,
        otlp_ratio=otlp_ratio,
    )
    try:
        code = main.serve(options)
    except (main.PortBusyError, tls.FilesError) as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error
    sys.exit(code)


def _check_collector(url: str) -> None:
    from trimtab_router import otlp

    try:
        otlp.collector(url)
    except ValueError as error:
        raise failure.Usage(f"--otlp-endpoint: {error}") from error
