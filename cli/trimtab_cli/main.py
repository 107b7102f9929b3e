"""The ``trimtab`` command: a lazy group, so that a router process never imports the planner and vice versa."""

from __future__ import annotations

import importlib
import sys

import click

COMMANDS = {
    "demo": ("trimtab_cli.demo", "Watch the whole loop work on this machine, and see what it saves."),
    "up": ("trimtab_cli.up", "Run the manifests of a folder on this machine, without Kubernetes."),
    "validate": ("trimtab_cli.validate", "Check manifests offline: schema, rules and cross-references."),
    "simulate": ("trimtab_cli.simulate", "Replay a trace in simulated time, beside baselines."),
    "plan": ("trimtab_cli.plan", "Predict what an edit of manifests changes in cost, SLO and quality."),
    "explain": ("trimtab_cli.explain", "Explain one decision: inputs, reasons, alternatives, outcome."),
    "operator": ("trimtab_cli.operator", "Run the operator (in a cluster)."),
    "router": ("trimtab_cli.router", "Run the router (data plane)."),
    "engine-sim": ("trimtab_cli.engine_sim", "Run a vLLM-shaped engine without a GPU."),
}
"""Command name → (module with an attribute ``command``, one-line help)."""


class LazyGroup(click.Group):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trimtab")
def cli() -> None:
    """Cost-aware inference on Kubernetes: replicas and routing weights from real prices, at a kept SLO."""


def main() -> None:
    """Entry point of the console script and of ``python -m trimtab_cli``."""
    sys.exit(cli(prog_name="trimtab"))


if __name__ == "__main__":
    main()
