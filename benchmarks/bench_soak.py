"""Ten minutes of everything at once: does the router lose, double or leak anything?

    python benchmarks/bench_soak.py [--minutes N] [--streams N] [--seed N] [--json FILE]

A router process between clients and six engine processes, all on loopback. Clients ask for streams and answers in one
piece, and some leave in the middle; engines refuse, break off and end streams in wrong ways by themselves, are killed,
frozen and started again; the table drains, adds and removes endpoints and moves weights. Afterwards what clients saw,
the router's ledger (its access log), its metrics and the engines' own counts, which survive them in mapped files, are
compared request by request.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from soak import run

HERE = pathlib.Path(__file__).parent
VERDICT = {True: "met", False: "MISSED", None: ""}


def main() -> int:
    """Run, print, write; 0 if all agrees, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default 10)")
    parser.add_argument("--streams", type=int, default=500, help="requests under way at one time (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked and what goes wrong (default 1)")
    parser.add_argument("--json", type=pathlib.Path, default=HERE / "out/soak.json", help="where to write the rows")
    options = parser.parse_args()
    if not 0.1 <= options.minutes <= 24 * 60:
        parser.error("--minutes: give 0.1 to 1440")
    if not 1 <= options.streams <= 5000:
        parser.error("--streams: give 1 to 5000")
    rows = run.soak(run.Plan(options.minutes * 60, options.streams, options.seed))
    for row in rows:
        target, met, beside = row["target"], row["met"], row["beside"]
        assert met is None or isinstance(met, bool)
        assert isinstance(beside, dict)
        bound = "" if target is None else f"{row['comparison']} {target:g}"
        others = ", ".join(f"{name} {value}" for name, value in beside.items())
        print(f"{row['name']!s:54} {row['value']:>14} {row['unit']!s:9} {bound:8} {VERDICT[met]:7} {others}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/bench_soak.py --minutes {options.minutes:g} --streams {options.streams}"
    document = {"command": command, "seed": options.seed, "data": None, "rows": rows}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if any(row["met"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
