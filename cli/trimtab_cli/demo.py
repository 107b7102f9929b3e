"""``trimtab demo``: a trace replayed through the whole loop on this machine, and what it cost beside baselines."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_MINUTES = 3.0
DEFAULT_RPS = 20.0
"""Mean rate of the synthetic trace: its burst is what two cores can send, relay and simulate without being late."""
TIME_SCALE = 20.0
"""A start-up of 4 minutes takes 12 s, a scale-down window of 5 minutes 15 s."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--trace", "trace_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Azure CSV, t_s,input_tokens,output_tokens CSV or Mooncake JSONL, plain or gzip; synthetic when absent.",
)  # fmt: skip
@click.option("--minutes", type=float, default=DEFAULT_MINUTES, show_default=True, help="Length of the replay.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Replay the trace so many times faster.")
@click.option(
    "--scale", default="auto", show_default=True, metavar="NUMBER|auto",
    help="So many times the trace's request rate; auto takes as much as a fleet is needed for and two cores can send.",
)  # fmt: skip
@click.option(
    "-f", "--filename", "paths", multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifests; the quickstart when absent.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the trace, the texts and the baselines.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all results here.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the report with plots here."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Where the router listens."
)
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Simulate the baselines afterwards.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; keep the logs of all processes.")
def command(  # noqa: PLR0913 (one argument for each option)
    *,
    trace_file: Path | None,
    minutes: float,
    speed: float,
    scale: str,
    paths: tuple[Path, ...],
    seed: int,
    json_file: Path | None,
    html_file: Path | None,
    port: int,
    baselines: bool,
    debug: bool,
) -> None:
    """Watch the whole loop work on this machine, and see what it saves.

    A trace is replayed as real HTTP requests through the router to simulated engines, while the operator's own loop
    moves replicas and weights. Exit code 0: the SLO held. 1: it was missed. 2: something can't be used.
    """
    from trimtab_cli.demonstration import show

    wish = show.Wish(
        trace_file=trace_file,
        minutes=minutes,
        speed=speed,
        scale=scale,
        paths=paths,
        seed=seed,
        json_file=json_file,
        html_file=html_file,
        port=port,
        baselines=baselines,
        debug=debug,
        mean_rps=DEFAULT_RPS,
        time_scale=TIME_SCALE,
    )
    raise SystemExit(show.run(wish))
