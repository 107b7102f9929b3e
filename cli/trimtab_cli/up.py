"""``trimtab up``: the manifests of a folder, run on this machine without Kubernetes, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f", "--filename", "paths", required=True, multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifest, or folder of manifests. May be given several times. Changes are taken over while it runs.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Where clients call.")
@click.option(
    "--time-scale", type=click.FloatRange(1, 1000), default=1.0, show_default=True,
    help="Divide start-up times, windows and control intervals by this. Answers keep their real speed.",
)  # fmt: skip
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=None,
    help="Seconds between two decisions; what the policies say when absent.",
)  # fmt: skip
@click.option("--debug", is_flag=True, help="Show the traceback of an error; keep the logs of all processes.")
def command(*, paths: tuple[Path, ...], port: int, time_scale: float, interval: float | None, debug: bool) -> None:
    """Run the manifests of a folder on this machine, without Kubernetes.

    The loop, the router and the rendered objects are those of a cluster; engines are simulated. Ctrl-C ends it all.
    """
    from rich.console import Console
    from trimtab_operator.local import session

    from trimtab_cli import running
    from trimtab_cli.demonstration import live, standing

    files = standing.Files(paths)
    objects = running.objects_of(paths, debug=debug)
    console = Console(highlight=False)
    with running.folder(keep=debug) as folder, live.View(console, time.monotonic) as view, running.told(debug=debug):
        options = session.Options(folder, port, time_scale, interval)
        code = running.until_stopped(standing.run(objects, files, options, view), view.say)
    raise SystemExit(code)
