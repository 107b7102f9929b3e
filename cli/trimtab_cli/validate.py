"""``trimtab validate``: manifests checked offline, each finding with its file, line, field and fix."""

from __future__ import annotations

import json
from pathlib import Path

import click
from trimtab_core.api.checks.manifests import Market
from trimtab_core.catalog import prices

from trimtab_cli import failure, manifests


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f", "--filename", "paths", required=True, multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Manifest, folder of manifests, or - for standard input. May be given several times.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--cloud", type=click.Choice(prices.CLOUDS), default=prices.CLOUDS[0], show_default=True,
    help="Whose list prices stand in for those that the manifests don't state.",
)  # fmt: skip
@click.option("--region", default="", help="Region of that cloud; its first price list when absent.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(paths: tuple[Path, ...], *, as_json: bool, cloud: str, region: str, debug: bool) -> None:
    """Check manifests offline: schema, rules and cross-references.

    Exit code 0: nothing found. 1: findings. 2: the files can't be read as manifests.
    """
    if region and all(market.region != region for market in prices.MARKETS if market.cloud == cloud):
        known = ", ".join(market.region for market in prices.MARKETS if market.cloud == cloud)
        raise failure.Usage(
            f"--region {region}: no price list of {cloud} for it; write one of {known}, or leave it out"
        )
    try:
        bundle = manifests.load(paths, Market(cloud, region))
    except manifests.ManifestError as error:
        if debug:
            raise
        raise failure.Usage(str(error)) from error
    if as_json:
        click.echo(json.dumps(_report(bundle), indent=2, ensure_ascii=False))
    else:
        _print(bundle)
    if bundle.findings:
        raise SystemExit(failure.Finding.exit_code)


def _report(bundle: manifests.Bundle) -> dict[str, object]:
    return {
        "files": [str(path) for path in bundle.files],
        "objects": {"tiers": len(bundle.tiers), "policies": len(bundle.policies), "caches": len(bundle.caches)},
        "skipped": bundle.skipped,
        "findings": [finding.to_dict() for finding in bundle.findings],
    }


def _print(bundle: manifests.Bundle) -> None:
    for finding in bundle.findings:
        click.echo(finding.text())
    counts = ", ".join(
        _count(len(objects), one, many)
        for objects, one, many in (
            (bundle.tiers, "tier", "tiers"),
            (bundle.policies, "policy", "policies"),
            (bundle.caches, "cache", "caches"),
        )
    )
    files = _count(len(bundle.files), "file", "files")
    other = f"; {bundle.skipped} objects of other kinds skipped" if bundle.skipped else ""
    if bundle.findings:
        click.echo(f"{_count(len(bundle.findings), 'finding', 'findings')} in {files}{other}", err=True)
    else:
        click.echo(f"fine: {counts} in {files}{other}")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
