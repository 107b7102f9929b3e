"""`trimtab engine-sim`: a server that looks like vLLM, without a GPU."""

from __future__ import annotations

import os
import sys

import click
from trimtab_sim.engine_sim import faults, lifecycle, settings

from trimtab_cli import failure


def _help() -> str:
    """Return the flags as a list; they are parsed by the simulator, since users' vLLM arguments may hold any flag."""
    width = max(len(flag.name) for flag in settings.FLAGS)
    lines = [f"  {flag.name.ljust(width)}  {flag.help}" for flag in settings.FLAGS]
    kinds = [f"  {kind.ljust(width)}  {meaning}" for kind, meaning in faults.KINDS.items()]
    return "\n".join(
        (
            "Serve a model that does not exist, in vLLM's shapes and with its metrics.",
            "",
            "Flags of vLLM keep their names; those without a meaning here are ignored with a line on stderr.",
            "Each --sim-x may also be given as TRIMTAB_SIM_X in the environment.",
            "",
            "\b",
            "Flags:",
            *lines,
            "",
            "\b",
            "Kinds of --sim-fault:",
            *kinds,
        )
    )


@click.command(
    name="engine-sim",
    help=_help(),
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 140,
    },
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the simulator until it is told to stop."""
    try:
        given, ignored = settings.read_arguments(arguments)
        config = settings.load(given, os.environ)
    except settings.SettingsError as error:
        raise click.UsageError(str(error)) from error
    if ignored:
        print(f"engine-sim: ignored: {' '.join(ignored)}", file=sys.stderr, flush=True)  # noqa: T201 - a server's log line
    try:
        lifecycle.serve(config)
    except lifecycle.StartError as error:
        raise failure.Usage(str(error)) from error
