"""The bytes of one request whose content was received, in bounded memory.

Runs that touch are merged. A server that scatters its chunks can make more runs than are kept;
then all runs are dropped, and nothing is reported about them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import attrs

__all__ = ["ByteRuns"]

LIMIT: Final = 4096
"""Runs kept of one reply."""


@attrs.define(eq=False)
class ByteRuns:
    """Runs of bytes that do not touch, in order; `lost` once there were more than are kept."""

    lost: bool = False
    _starts: list[int] = attrs.field(factory=list, init=False)
    _ends: list[int] = attrs.field(factory=list, init=False)

    def overlaps(self, start: int, end: int) -> bool:
        """Whether one of the bytes from `start` to `end` is certainly in a run."""
        starts = self._starts
        index = bisect_right(starts, start)
        if index and self._ends[index - 1] > start:
            return True
        return index < len(starts) and starts[index] < end

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` to `end`, which may be in runs already."""
        if self.lost:
            return
        starts, ends = self._starts, self._ends
        first = bisect_right(starts, start)
        if first and ends[first - 1] >= start:
            first -= 1
            start = starts[first]
        last = bisect_right(starts, end)
        if last > first:
            end = max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        if len(starts) > LIMIT:
            self.forget()

    def gap(self, start: int, end: int) -> int | None:
        """The first byte from `start` to `end` that certainly is in no run, or None."""
        if self.lost:
            return None
        index = bisect_right(self._starts, start)
        if index and self._ends[index - 1] > start:
            start = self._ends[index - 1]
        return start if start < end else None

    def forget(self) -> None:
        """Drop all runs: from now on nothing is certain."""
        self.lost = True
        self._starts.clear()
        self._ends.clear()
