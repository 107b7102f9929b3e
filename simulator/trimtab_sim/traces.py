"""Reading traces: the published formats, plain or gzip, with errors that name file, line, finding and expectation.

Three formats are told apart by their first line: the Azure CSV (``TIMESTAMP,ContextTokens,GeneratedTokens``), a CSV
with at least ``t_s,input_tokens,output_tokens``, and Mooncake's JSONL (``timestamp`` in ms, ``input_length``,
``output_length``). Traces hold no texts: ``prompts.assign`` gives every request a synthetic prompt.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import pathlib
import random
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime

from trimtab_sim import prompts, synthetic, workload
from trimtab_sim.workload import Request, Trace, TraceError

EXPECTED = (
    "a CSV with the columns TIMESTAMP,ContextTokens,GeneratedTokens (Azure) or t_s,input_tokens,output_tokens, "
    "or JSON lines with timestamp (ms), input_length and output_length (Mooncake); plain or gzip"
)
MAX_TOKENS = 10_000_000
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_LINE = 1 << 20

synthesize = synthetic.synthesize
"""The other way to a trace: make one from published statistics."""

Row = tuple[float, int, int]
"""Time in seconds (any origin), input tokens, output tokens."""
Line = tuple[int, str]
"""Number from 1, text without line end."""


class _RowError(ValueError):
    """What is wrong with one row and what is expected; the reader adds file and line."""


def load(
    path: str | pathlib.Path,
    *,
    speed: float = 1.0,
    scale: float = 1.0,
    minutes: float | None = None,
    seed: int = 0,
    mix: prompts.Mix | None = None,
) -> Trace:
    """Read a trace and make it the workload that is asked for.

    Args:
        path: the file.
        speed: how much faster than recorded it is replayed; 2 doubles the rate and halves the duration.
        scale: how many times the rate, at unchanged duration; see ``workload.resample``.
        minutes: length of the replay (after ``speed``); all of it when None.
        seed: of resampling and of the synthetic prompts.
        mix: of the synthetic prompts.

    Raises:
        TraceError: naming file, line, what was found and what is expected; or the argument at fault.
    """
    _check(speed=speed, scale=scale, minutes=minutes)
    file, rng = pathlib.Path(path), random.Random(f"trace {seed}")
    requests = workload.spread_ties(_requests(file), rng)
    if minutes is not None:
        requests = workload.cut(requests, until_s=minutes * workload.SECONDS_PER_MINUTE * speed)
    requests = workload.compress(workload.resample(requests, scale=scale, rng=rng), speed=speed)
    if not requests:
        raise TraceError(f"{file}: no requests are left after the cut to {minutes} minutes at scale {scale:g}")
    changes = [f"speed {speed:g}"] * (speed != 1) + [f"scale {scale:g}"] * (scale != 1)
    if minutes is not None:
        changes.append(f"first {minutes:g} min")
    source = file.name + (f" ({', '.join(changes)})" if changes else "")
    labelled = prompts.assign(workload.number(requests), seed=seed, mix=mix or prompts.Mix())
    return Trace(labelled, source)


def _check(*, speed: float, scale: float, minutes: float | None) -> None:
    for name, value in (("speed", speed), ("scale", scale), ("minutes", minutes)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise TraceError(f"{name} must be a finite number above 0, not {value:g}")


def _requests(file: pathlib.Path) -> list[Request]:
    """All requests of the file, their times counted from the first."""
    rows: list[Row] = []
    lines = _lines(file)
    numbered, parse = _parser(file, lines)
    for at, fields in numbered:
        try:
            row = parse(fields)
        except _RowError as error:
            raise TraceError(f"{file}:{at}: {error}") from error
        if rows and row[0] < rows[-1][0]:
            raise TraceError(f"{file}:{at}: time goes back by {rows[-1][0] - row[0]:g} s; expected rows sorted by time")
        rows.append(row)
    if not rows:
        raise TraceError(f"{file}: no requests in it; expected {EXPECTED}")
    start = rows[0][0]
    return [Request(at, time - start, given, made) for at, (time, given, made) in enumerate(rows)]


def _lines(file: pathlib.Path) -> Iterator[Line]:
    """The lines that are not empty, unpacked if the file begins like gzip."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            stream = gzip.open(raw, "rb") if packed else raw  # noqa: SIM115 (closed with raw)
            for at, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), b""), start=1):
                text = _text(file, at, line)
                if text:
                    yield at, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{file}: damaged gzip ({error}); expected a whole gzip file") from error
    except OSError as error:
        raise TraceError(f"{file}: can't be read: {error.strerror or error}") from error


def _text(file: pathlib.Path, at: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if at == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise TraceError(f"{file}:{at}: not UTF-8 text ({error.reason}); expected {EXPECTED}") from error


def _parser(file: pathlib.Path, lines: Iterator[Line]) -> tuple[Iterator[tuple[int, str]], Callable[[str], Row]]:
    """The rest of the lines and the function that reads one of them, by the first line."""
    at, first = next(lines, (0, ""))
    if not first:
        raise TraceError(f"{file}: empty; expected {EXPECTED}")
    if first.startswith("{"):
        return itertools.chain([(at, first)], lines), _mooncake
    columns = [name.strip().strip('"') for name in first.split(",")]
    for names, time_of in (
        (("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _timestamp),
        (("t_s", "input_tokens", "output_tokens"), _seconds),
    ):
        if set(names) <= set(columns):
            return lines, _csv_row(columns, names, time_of)
    raise TraceError(f"{file}:{at}: found {first[:80]!r}; expected {EXPECTED}")


def _csv_row(columns: list[str], names: tuple[str, str, str], time_of: Callable[[str], float]) -> Callable[[str], Row]:
    time_at, input_at, output_at = (columns.index(name) for name in names)

    def parse(text: str) -> Row:
        fields = next(csv.reader([text])) if '"' in text else text.split(",")
        if len(fields) != len(columns):
            raise _RowError(f"found {len(fields)} fields in {text[:80]!r}; expected {len(columns)}")
        given, made = _tokens(names[1], fields[input_at]), _tokens(names[2], fields[output_at])
        return time_of(fields[time_at]), given, made

    return parse


def _mooncake(text: str) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise _RowError(f"found {text[:80]!r}; expected a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise _RowError(f"found {text[:80]!r}; expected a JSON object")
    missing = [name for name in ("timestamp", "input_length", "output_length") if name not in row]
    if missing:
        raise _RowError(f"{', '.join(missing)} missing; expected timestamp (ms), input_length and output_length")
    given, made = _tokens("input_length", row["input_length"]), _tokens("output_length", row["output_length"])
    return _finite("timestamp", row["timestamp"]) / 1000, given, made


def _seconds(text: str) -> float:
    return _finite("t_s", text)


def _timestamp(text: str) -> float:
    """Epoch seconds; times without a zone are taken as UTC, since only differences matter."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise _RowError(f"TIMESTAMP is {text[:40]!r}; expected a time such as 2023-11-16 18:15:46.680590") from error
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(moment.isoformat() + "+00:00")
    return moment.timestamp()


def _finite(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _RowError(f"{name} is {str(value)[:40]!r}; expected a finite number")
    return number


def _tokens(name: str, value: object) -> int:
    count = _finite(name, value)
    if count != int(count) or not 1 <= count <= MAX_TOKENS:
        raise _RowError(f"{name} is {str(value)[:40]!r}; expected a whole number from 1 to {MAX_TOKENS}")
    return int(count)
