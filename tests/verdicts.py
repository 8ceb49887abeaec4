"""Verdicts drawn by lot from reports of `fakenbd check`, to be read against their transcripts.

    python -m tests.verdicts --seed 7 reports/libnbd/report.json reports/qemu/report.json …

Thirty failures and thirty passes, each with all that the verdict was made from. Whoever reads them
notes for each whether cause, subject and sentence are right, and whether a pass looked at anything.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw", "main", "page"]

FAILED = ("fail", "xfail", "flaky", "xpass")
PASSED = ("pass", "warn")


def draw(
    cases: Sequence[dict[str, Any]], seed: int, failures: int, passes: int
) -> list[dict[str, Any]]:
    """So many failed and so many passed cases, or as many as there are; the same for one seed."""
    lot = random.Random(f"verdicts/{seed}")
    drawn: list[dict[str, Any]] = []
    for names, count in ((FAILED, failures), (PASSED, passes)):
        among = sorted(
            (case for case in cases if case["verdict"] in names),
            key=lambda case: (case["client"], case["id"]),
        )
        drawn += lot.sample(among, min(count, len(among)))
    return drawn


def page(number: int, case: dict[str, Any]) -> Iterator[str]:
    """The lines about one case."""
    cause = f" ({case['cause']})" if case["cause"] else ""
    way = f", {case['way']}" if case.get("way") else ""
    yield f"{'=' * 96}\n{number}. {case['client']}: {case['id']}: {case['verdict']}{cause}{way}"
    yield f"   verdict:  {case['reason']}"
    for also in case["also"]:
        yield f"   also:     {also['cause']} {also['rule']} {also['operation']}: {also['reason']}"
    yield f"   about:    {case['summary']}"
    yield f"   expected: {case['expected']}"
    for rule in case["rules"]:
        yield f"   rule:     {rule['id']} {rule['level']}: {rule['text']}"
    for each in case["operations"]:
        yield f"   -- {each['operation']}: {each['ended']}, fires: {each['fires']}"
        yield f"      command: {each['command'] or '(the reference client)'}"
        for what in ("wrong", "output", "errors"):
            for line in each[what].splitlines()[:12]:
                yield f"      {what}: {line}"
        for line in each["transcript"].splitlines():
            yield f"      {line}"


def main(words: Sequence[str] | None = None) -> int:
    """Print the drawn cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.verdicts", description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path, metavar="report.json")
    parser.add_argument("--seed", type=int, default=None, help="the seed of the lot (drawn)")
    parser.add_argument("--failures", type=int, default=30)
    parser.add_argument("--passes", type=int, default=30)
    given = parser.parse_args(words)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    cases = [
        case for report in given.reports for case in json.loads(report.read_text("utf-8"))["cases"]
    ]
    drawn = draw(cases, seed, given.failures, given.passes)
    print(f"seed {seed}: {len(drawn)} of {len(cases)} cases")
    for number, case in enumerate(drawn, 1):
        print("\n".join(page(number, case)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
