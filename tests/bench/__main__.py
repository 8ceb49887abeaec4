"""`python -m tests.bench [NAME…]`: how fast fakenbd is next to the servers that people use.

Runs the rows of that name, or all; `--short` a few of them, quickly. Prints a table, and writes
JSON where `--json` says. It never fails: the machine it runs on is part of what it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

# Each of these adds its rows, in this order.
import tests.bench.transmission  # isort: skip
import tests.bench.machine  # isort: skip
import tests.bench.starting  # isort: skip
import tests.bench.client  # isort: skip
import tests.bench.growth  # noqa: F401  # isort: skip
from tests.bench.loads import Setting
from tests.bench.measure import ROWS, measure, table
from tests.bench.servers import folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--short", action="store_true", help="less than a minute, less exact")
    parser.add_argument("--runs", type=int, help="runs of each side (5, short: 3)")
    parser.add_argument("--seconds", type=float, help="seconds of load in each (1, short: 0.2)")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ROWS]
    if unknown:
        parser.error(f"no row is named {unknown[0]}; there are {', '.join(ROWS)}")
    setting = Setting(
        runs=arguments.runs or (3 if arguments.short else 5),
        seconds=arguments.seconds or (0.2 if arguments.short else 1.0),
        short=arguments.short,
    )
    rows = [
        row
        for name, row in ROWS.items()
        if (name in arguments.names if arguments.names else row.short or not arguments.short)
    ]
    results = []
    with folder() as place:
        # What is installed has its bytecode; a checkout may not be allowed to write it.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(place)
        for row in rows:
            print(f"\r{row.name} ", end="", file=sys.stderr, flush=True)
            results.append(measure(row, setting))
    print(file=sys.stderr)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps([result.json() for result in results], indent=1))


if __name__ == "__main__":
    main()
