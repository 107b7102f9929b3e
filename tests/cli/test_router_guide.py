"""The router's guide names every flag, error, header and metric that there is, and none that there isn't."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import msgspec
import yaml
from trimtab_cli import router
from trimtab_core import telemetry
from trimtab_core.api import v1alpha1
from trimtab_router import access_log, errors, heads, witness

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "router.md").read_text()


def test_every_flag_is_in_the_guide_and_every_flag_in_it_exists() -> None:
    flags = {name for option in router.command.params if isinstance(option, click.Option) for name in option.opts}
    flags = {name for name in flags if name.startswith("--") and name != "--help"}
    assert set(re.findall(r"`(--[a-z-]+)`", GUIDE)) == flags


def test_the_commands_are_understood() -> None:
    lines = re.findall(r"^trimtab (.*)$", GUIDE, re.MULTILINE)
    assert lines
    for line in lines:
        router.command.make_context("router", shlex.split(line)[1:])


def test_every_error_stands_with_its_status_and_code() -> None:
    _, _, rest = GUIDE.partition("### Errors")
    rows = [line for line in rest.partition("## Headers")[0].splitlines() if re.match(r"\| \d", line)]
    written = {(int(status), code) for row in rows for status in row.split("|")[1].split(",") for code in _codes(row)}
    for row in errors.TABLE.values():
        assert (row.status, row.code) in written, row
    assert {code for _, code in written} == {row.code for row in errors.TABLE.values()}


def _codes(row: str) -> list[str | None]:
    return list(re.findall(r"`([a-z_]+)`", row.split("|")[2])) or [None]


def test_every_metric_of_the_router_is_in_the_guide_and_no_other() -> None:
    _, _, rest = GUIDE.partition("| family (`trimtab_router_…`)")
    rows = [line for line in rest.partition("**Access log**")[0].splitlines() if line.startswith("| `")]
    named = {f"trimtab_router_{name}" for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}
    assert named == {family.name for family in telemetry.ROUTER_FAMILIES}


def test_every_field_of_the_access_log_is_in_the_guide() -> None:
    _, _, rest = GUIDE.partition("**Access log**")
    fields = msgspec.json.decode(access_log.line(witness.Record(0.0, 0.0, "r")))
    assert set(re.findall(r"`([a-zA-Z]+)`", rest.partition("**Traces**")[0])) == {*fields, "traceId"}


def test_every_header_that_engines_get_and_every_one_of_an_answer_is_in_the_guide() -> None:
    served = heads.served(
        request_id="r", model="m", tier="t", class_="c", cache="off", attempts=1, cost_usd=0.1
    ).decode()
    names = [line.partition(":")[0] for line in served.splitlines()]
    assert all(f"`{name}`" in GUIDE for name in [*names, *(each.decode() for each in heads.FORWARDED)])


def test_the_fields_in_its_examples_are_fields_of_the_api() -> None:
    tenants, external = (yaml.safe_load(block)["spec"] for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))
    metadata = {"name": "x", "namespace": "y"}
    spec = {"tiers": [{"ref": "small"}], **tenants}
    policy = v1alpha1.RoutingPolicy.model_validate({"metadata": metadata, "spec": spec})
    assert policy.spec.tenants.known[0].limits is not None
    spec = {"model": {"name": "m", "quality": "0.9"}, **external}
    tier = v1alpha1.InferenceTier.model_validate({"metadata": metadata, "spec": spec})
    assert tier.spec.external is not None
    assert tier.spec.external.models == {"auto": "large-2026"}
