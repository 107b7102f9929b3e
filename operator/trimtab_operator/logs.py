"""Structured logs: one JSON object per line, with the fields that a record was given and no others.

Fields come from an allow-list of what this package logs, so that no object's content can slip in.
"""

from __future__ import annotations

import json
import logging
import sys

from trimtab_core import recall

FIELDS = ("epoch", "object", "tier", "reasons", "costBeforeUsdPerHour", "costAfterUsdPerHour")
_QUIET = ("kopf", "urllib3", "aiohttp", "kubernetes", "asyncio")


class JsonFormatter(logging.Formatter):
    """A log record as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": recall.rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(*, debug: bool) -> None:
    """Log to standard error; libraries only from warnings on, unless debugging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # one line for each time that it woke us
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # warns that it leaves signals to us
