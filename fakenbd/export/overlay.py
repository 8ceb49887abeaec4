"""What was written to an export, kept apart from its content.

Bytes live in pages, an immutable bytes object each, so that an aligned write stores one object
and a read of it hands out the same; a page is replaced and never changed, which lets a reply wait
while others write. What is not bytes lives in ranges: trimmed and zeroed stretches of any length,
and the written parts of pages that were not written whole.

    page present, not partial        all of it is data
    page present, partial            its bytes are the page's, its states those of the ranges
    no page                          zeros where a range is set (hole or zero), else the content

A range says data only where a page is present; under a whole page ranges may say anything, and
are put right before the page becomes partial.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import attrs

from fakenbd.export.content import Content, zeros
from fakenbd.export.extents import DATA, HOLE_ZERO, merged
from fakenbd.export.ranges import Ranges
from fakenbd.protocol.constants import State
from fakenbd.protocol.messages import Buffer, Extent

__all__ = ["PAGE", "Overlay"]

_SHIFT: Final = 12
PAGE: Final = 1 << _SHIFT
_MASK: Final = PAGE - 1
_ZERO: Final = int(State.ZERO)
_FEW: Final = 1024


@attrs.define(eq=False)
class Overlay:
    """A writable layer over a content; its memory grows with what was written and nothing else."""

    content: Content
    _pages: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _partial: set[int] = attrs.field(factory=set, init=False)
    _ranges: Ranges = attrs.field(factory=Ranges, init=False)
    _runs_of_pages: tuple[list[int], list[int]] | None = attrs.field(default=None, init=False)

    # --- reading ------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> Buffer:
        """Exactly `length` immutable bytes from `offset` on."""
        index = offset >> _SHIFT
        within = offset & _MASK
        if within + length <= PAGE:
            page = self._pages.get(index)
            if page is None:
                return self._read_unwritten(offset, length)
            return page if length == PAGE else page[within : within + length]
        end = offset + length
        stop = (end + _MASK) >> _SHIFT
        pages: list[bytes | None] = list(map(self._pages.get, range(index, stop)))
        parts: list[Buffer] = []
        gap = offset
        for page in pages:
            start = index << _SHIFT
            index += 1
            if page is None:
                continue
            if gap < start:
                parts.append(self._read_unwritten(gap, start - gap))
            gap = start + PAGE
            if start < offset or gap > end:
                page = page[max(offset - start, 0) : end - start]
            parts.append(page)
        if gap < end:
            parts.append(self._read_unwritten(gap, end - gap))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_unwritten(self, offset: int, length: int) -> Buffer:
        if not self._ranges:
            return self.content.read(offset, length)
        parts = [
            self.content.read(start, end - start) if flags is None else zeros(end - start)
            for start, end, flags in self._ranges.over(offset, offset + length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- writing ------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> None:
        """Keep a copy of `data` at `offset`."""
        length = len(data)
        if length == PAGE and not offset & _MASK:
            self._write_page(offset >> _SHIFT, bytes(data))
            return
        view = memoryview(data)
        end = offset + length
        at = offset
        while at < end:
            start = at & ~_MASK
            stop = min(end, start + PAGE)
            piece = bytes(view[at - offset : stop - offset])
            if stop - at == PAGE:
                self._write_page(at >> _SHIFT, piece)
            else:
                self._write_part(at, stop, piece)
            at = stop

    def _write_page(self, index: int, page: bytes) -> None:
        if index not in self._pages:
            self._runs_of_pages = None
        elif index in self._partial:
            self._partial.discard(index)
            self._runs_of_pages = None
        self._pages[index] = page

    def _write_part(self, start: int, end: int, data: bytes) -> None:
        """Write inside one page."""
        index = start >> _SHIFT
        if index not in self._pages:
            self._partial.add(index)
        self._replace(index, start, data)
        if index in self._partial:
            self._ranges.set(start, end, DATA)
            first = index << _SHIFT
            if all(state == DATA for *_, state in self._ranges.over(first, first + PAGE)):
                self._partial.discard(index)
                self._runs_of_pages = None

    def _replace(self, index: int, start: int, data: Buffer) -> None:
        first = index << _SHIFT
        old = self.read(first, PAGE)
        within = start - first
        self._pages[index] = b"".join((old[:within], data, old[within + len(data) :]))

    # --- zeroing ------------------------------------------------------------------------------

    def zero(self, offset: int, length: int, *, hole: bool) -> None:
        """Make a range read as zeros and give its memory back.

        It is told as hole and zero, or as zero alone where `hole` is False.
        """
        if not length:
            return
        end = offset + length
        first, last = (offset + _MASK) >> _SHIFT, end >> _SHIFT
        edges = {place >> _SHIFT for place in (offset, end) if place & _MASK}
        edges &= self._pages.keys()
        for index in edges - self._partial:
            self._partial.add(index)
            self._ranges.set(index << _SHIFT, (index + 1) << _SHIFT, DATA)
        self._ranges.set(offset, end, HOLE_ZERO if hole else _ZERO)
        self._drop(first, last)
        for index in edges:
            start = index << _SHIFT
            if all(state != DATA for *_, state in self._ranges.over(start, start + PAGE)):
                self._drop(index, index + 1)
            else:
                low, high = max(start, offset), min(start + PAGE, end)
                self._replace(index, low, zeros(high - low))
        self._runs_of_pages = None

    def _drop(self, first: int, last: int) -> None:
        """Forget the pages from `first` up to `last`."""
        pages = self._pages
        if last - first <= len(pages):
            dropped = [index for index in range(first, last) if index in pages]
        else:
            dropped = [index for index in pages if first <= index < last]
        if len(dropped) == len(pages):
            # A dict that only loses keys keeps its table; a new one gives the memory back.
            self._pages = {}
            self._partial = set()
            return
        for index in dropped:
            del pages[index]
        self._partial.difference_update(dropped)

    # --- telling ------------------------------------------------------------------------------

    def segments(self, offset: int, length: int) -> Iterator[Extent]:
        """The true extents of exactly `length` bytes, equal neighbours joined."""
        return merged(self._pieces(offset, offset + length))

    def _pieces(self, offset: int, end: int) -> Iterator[Extent]:
        for first, last in self._whole_pages(offset >> _SHIFT, (end + _MASK) >> _SHIFT):
            start, stop = max(first << _SHIFT, offset), min(last << _SHIFT, end)
            yield from self._between(offset, start)
            yield Extent(stop - start, DATA)
            offset = stop
        yield from self._between(offset, end)

    def _between(self, offset: int, end: int) -> Iterator[Extent]:
        """The extents of a stretch without whole pages."""
        for start, stop, flags in self._ranges.over(offset, end):
            if flags is None:
                yield from self.content.segments(start, stop - start)
            else:
                yield Extent(stop - start, flags)

    def _whole_pages(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) of each run of whole pages that meets a range of pages."""
        if last - first <= _FEW:
            pages, partial = self._pages, self._partial
            for index in range(first, last):
                if index in pages and index not in partial:
                    yield index, index + 1
            return
        starts, ends = self._runs_of_pages or self._find_runs()
        for run in range(bisect_right(ends, first), len(starts)):
            if starts[run] >= last:
                return
            yield starts[run], ends[run]

    def _find_runs(self) -> tuple[list[int], list[int]]:
        """All runs of whole pages: kept until a page comes or goes, for a map asks many times."""
        starts: list[int] = []
        ends: list[int] = []
        previous = -2
        for index in sorted(self._pages.keys() - self._partial):
            if index != previous + 1:
                starts.append(index)
                ends.append(index)
            ends[-1] = index + 1
            previous = index
        self._runs_of_pages = (starts, ends)
        return self._runs_of_pages
