"""Rows of a table: how we do at some work, how a peer does, and what the ratio must be.

Both sides are measured in turns, so that a machine that slows down slows both, and the medians are
compared. A row is a context manager that sets both sides up and yields one function for each;
a function measures once and returns a number.
"""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Literal, TypeAlias

import attrs

from tests.bench.loads import Setting

__all__ = ["ROWS", "Result", "Row", "measure", "row", "table"]

Measure: TypeAlias = Callable[[], float]
Sides: TypeAlias = tuple[Measure, Measure]


@attrs.frozen
class Row:
    """`target` is what ours divided by the peer's must at least, or at most, be."""

    name: str
    work: str
    peer: str
    unit: str
    target: float
    bound: Literal["at least", "at most"]
    short: bool
    once: bool
    sides: Callable[[Setting], AbstractContextManager[Sides]]


@attrs.frozen
class Result:
    """The medians of one row, or why it could not be measured."""

    row: Row
    ours: float = 0.0
    theirs: float = 0.0
    runs: tuple[tuple[float, float], ...] = ()
    trouble: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else 0.0

    @property
    def reached(self) -> bool:
        if self.trouble:
            return False
        if self.row.bound == "at least":
            return self.ratio >= self.row.target
        return self.ratio <= self.row.target

    def json(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "work": self.row.work,
            "peer": self.row.peer,
            "unit": self.row.unit,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": round(self.ratio, 3),
            "target": f"{self.row.bound} {self.row.target}",
            "reached": self.reached,
            "runs": self.runs,
            "trouble": self.trouble,
            "python": platform.python_version(),
        }


ROWS: Final[dict[str, Row]] = {}


def row(
    name: str,
    work: str,
    peer: str,
    unit: str,
    target: float,
    bound: Literal["at least", "at most"] = "at least",
    *,
    short: bool = False,
    once: bool = False,
) -> Callable[[Callable[[Setting], Iterator[Sides]]], Callable[[Setting], Iterator[Sides]]]:
    """Add a row; `short` puts it into the short form, `once` says that one run is exact enough."""

    def add(
        sides: Callable[[Setting], Iterator[Sides]],
    ) -> Callable[[Setting], Iterator[Sides]]:
        ROWS[name] = Row(name, work, peer, unit, target, bound, short, once, contextmanager(sides))
        return sides

    return add


def measure(row: Row, setting: Setting) -> Result:
    """Both sides in turns, as often as the setting says."""
    runs = []
    try:
        with row.sides(setting) as (ours, theirs):
            for turn in range(1 if row.once else setting.runs):
                # Who goes first changes, or one side would always find the caches warm.
                if turn % 2:
                    peer, own = theirs(), ours()
                else:
                    own, peer = ours(), theirs()
                runs.append((own, peer))
                print(".", end="", file=sys.stderr, flush=True)
    except Exception as error:
        return Result(row, trouble=f"{type(error).__name__}: {error}")
    return Result(
        row,
        statistics.median(own for own, _ in runs),
        statistics.median(peer for _, peer in runs),
        tuple(runs),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results: list[Result]) -> str:
    """The results as text, one line a row."""
    cells = [("row", "work", "ours", "peer", "", "unit", "ratio", "target", "")]
    for result in results:
        row = result.row
        sign = ">=" if row.bound == "at least" else "<="
        cells.append(
            (
                row.name,
                row.work,
                _number(result.ours),
                _number(result.theirs),
                row.peer,
                row.unit,
                f"{result.ratio:.2f}",
                f"{sign} {row.target:g}",
                result.trouble or ("" if result.reached else "missed"),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    rights = {2, 3, 6}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in rights else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
