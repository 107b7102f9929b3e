"""How commands fail: one clear line with the fix, and the right exit code."""

from __future__ import annotations

import click


class Finding(click.ClickException):
    """The command worked and found something wrong: exit code 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the line to standard error, without click's prefix of usage."""
        del file
        click.echo(f"trimtab: {self.message}", err=True)


class Usage(Finding):
    """The command was called wrongly or can't start: exit code 2."""

    exit_code = 2
