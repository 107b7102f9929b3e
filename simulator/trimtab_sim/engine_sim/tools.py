"""
Tool calls: which tool a request forces, and with what arguments. Pure.

No model decides here, so tool_choice "auto" never calls a tool; a choice by name or "required" always does. As in vLLM
both need a tool parser, whose name does not matter.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trimtab_sim.engine_sim import protocol, schema_values, settings


@dataclasses.dataclass(frozen=True, slots=True)
class ForcedTool:
    """
    A tool that will be called.

    Attributes:
        name: The function's name.
        arguments: JSON text that satisfies its parameters.
        by_name: Whether the client named it; the finish reason is `stop` then, and `tool_calls` else.

    """

    name: str
    arguments: str
    by_name: bool


def read(fields: protocol.Fields) -> dict[str, Any]:
    """Return the schema of parameters by function name. Raises protocol.ApiError for a tool without a name."""
    found: dict[str, Any] = {}
    for at, tool in enumerate(fields.items("tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise protocol.ApiError(f"tools[{at}] must be a function with a name", param="tools")
        found[function["name"]] = function.get("parameters") or {"type": "object"}
    return found


def forced(offered: dict[str, Any], choice: object, config: settings.Settings) -> ForcedTool | None:
    """
    Return the tool that `tool_choice` forces, None if it forces none.

    Raises:
        protocol.ApiError: The choice names no offered tool, or the server has no tool parser.

    """
    if choice is None and offered:
        choice = "auto"
    if choice in (None, "none") or (choice == "auto" and not offered):
        return None
    if not offered:
        raise protocol.ApiError("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    parser = config.tool_call_parser
    if choice == "auto":
        if parser is None or not config.enable_auto_tool_choice:
            raise protocol.ApiError(
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            )
        return None
    wanted = _named(choice)
    if (wanted is None and choice != "required") or (wanted is not None and wanted not in offered):
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        raise protocol.ApiError(message, param="tool_choice")
    if parser is None:
        shown = '"required"' if wanted is None else f'function "{wanted}"'
        raise protocol.ApiError(f"tool_choice={shown} requires --tool-call-parser to be set")
    name = next(iter(offered)) if wanted is None else wanted
    try:
        return ForcedTool(name, schema_values.text(offered[name]), by_name=wanted is not None)
    except schema_values.SchemaError as error:
        raise protocol.ApiError(f"Grammar error: {error}") from error


def _named(choice: object) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
