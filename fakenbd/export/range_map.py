"""A map from byte ranges of any length to flags.

Sorted, disjoint ranges in three parallel lists, found by bisection; neighbours with equal flags
are one range. The cost of a range does not depend on its length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import attrs

__all__ = ["RangeMap"]


@attrs.define(eq=False)
class RangeMap:
    """A map from ranges of offsets to flags."""

    _starts: list[int] = attrs.field(factory=list, init=False)
    _ends: list[int] = attrs.field(factory=list, init=False)
    _flags: list[int] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._starts)

    def set(self, start: int, end: int, flags: int) -> None:
        """Set `flags` from `start` up to `end`, replacing what was set there."""
        if start >= end:
            return
        # Ranges that only touch are looked at as well, to be joined where the flags are equal.
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        starts, ends, kept = [start], [end], [flags]
        if first < last:
            left_start, left_flags = self._starts[first], self._flags[first]
            right_end, right_flags = self._ends[last - 1], self._flags[last - 1]
            if left_start < start:
                if left_flags == flags:
                    starts[0] = left_start
                else:
                    starts.insert(0, left_start)
                    ends.insert(0, start)
                    kept.insert(0, left_flags)
            if right_end > end:
                if right_flags == flags:
                    ends[-1] = right_end
                else:
                    starts.append(end)
                    ends.append(right_end)
                    kept.append(right_flags)
        self._starts[first:last] = starts
        self._ends[first:last] = ends
        self._flags[first:last] = kept

    def over(self, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """Start, end and flags of the pieces of a range, in order; None where nothing was set."""
        index = bisect_right(self._ends, start)
        while start < end:
            if index == len(self._starts) or self._starts[index] >= end:
                yield start, end, None
                return
            if self._starts[index] > start:
                yield start, self._starts[index], None
                start = self._starts[index]
            stop = min(self._ends[index], end)
            yield start, stop, self._flags[index]
            start = stop
            index += 1
