"""Data written to an export, kept apart from its content.

Bytes live in pages, an immutable bytes object each, so that an aligned write stores one object
and a read of it hands out the same; a page is replaced and never changed, which lets a reply wait
while others write. Large writes are kept as blocks of 16 pages, for they would cost 16 times as
much; a block that is no longer written as a whole becomes pages. What is not bytes lives in ranges:
trimmed and zeroed stretches of any length, and the written parts of pages not written whole.

    block present                    all of it is data, and none of its pages is present
    page present, not partial        all of it is data
    page present, partial            its bytes are the page's, its states those of the ranges
    neither                          zeros where a range is set (hole or zero), else the content

A range has the state data only where a page is present; under a block or a whole page ranges may
have any state, which is corrected before the page becomes partial.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from fakenbd.export.content import Content, zeros
from fakenbd.export.extents import DATA, HOLE_ZERO, merged
from fakenbd.export.range_map import RangeMap
from fakenbd.protocol.constants import State
from fakenbd.protocol.messages import Buffer, Extent

__all__ = ["BLOCK", "PAGE", "Overlay"]

_SHIFT: Final = 12
PAGE: Final = 1 << _SHIFT
_MASK: Final = PAGE - 1
_BLOCK_SHIFT: Final = 16
BLOCK: Final = 1 << _BLOCK_SHIFT
_BLOCK_MASK: Final = BLOCK - 1
_PAGES_SHIFT: Final = _BLOCK_SHIFT - _SHIFT
_ZERO: Final = int(State.ZERO)
_FEW: Final = 1024


@attrs.define(eq=False)
class Overlay:
    """A writable layer over a content; its memory grows only with the data written."""

    content: Content
    _blocks: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _pages: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _partial: set[int] = attrs.field(factory=set, init=False)
    _ranges: RangeMap = attrs.field(factory=RangeMap, init=False)
    _runs_of_pages: tuple[list[int], list[int]] | None = attrs.field(default=None, init=False)

    # --- reading ------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> Buffer:
        """Exactly `length` immutable bytes from `offset` on."""
        within = offset & _MASK
        if within + length <= PAGE:
            page = self._pages.get(offset >> _SHIFT)
            if page is not None:
                return page if length == PAGE else page[within : within + length]
            block = self._blocks.get(offset >> _BLOCK_SHIFT)
            if block is not None:
                within = offset & _BLOCK_MASK
                return block[within : within + length]
            return self._read_unwritten(offset, length)
        end = offset + length
        parts: list[Buffer] = []
        gap = offset
        for start, piece in self._written(offset, end):
            if gap < start:
                parts.append(self._read_unwritten(gap, start - gap))
            gap = start + len(piece)
            if start < offset or gap > end:
                piece = piece[max(offset - start, 0) : end - start]
            parts.append(piece)
        if gap < end:
            parts.append(self._read_unwritten(gap, end - gap))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _written(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The blocks and pages that meet a range, whole, each with where it starts."""
        blocks, pages = self._blocks, self._pages
        for number in range(offset >> _BLOCK_SHIFT, (end + _BLOCK_MASK) >> _BLOCK_SHIFT):
            block = blocks.get(number)
            if block is not None:
                yield number << _BLOCK_SHIFT, block
                continue
            first = max(number << _PAGES_SHIFT, offset >> _SHIFT)
            stop = min((number + 1) << _PAGES_SHIFT, (end + _MASK) >> _SHIFT)
            for index in range(first, stop):
                page = pages.get(index)
                if page is not None:
                    yield index << _SHIFT, page

    def _read_unwritten(self, offset: int, length: int) -> Buffer:
        if not self._ranges:
            return self.content.read(offset, length)
        parts = [
            self.content.read(start, end - start) if flags is None else zeros(end - start)
            for start, end, flags in self._ranges.over(offset, offset + length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- writing ------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> Sequence[bytes]:
        """Keep a copy of `data` at `offset`; returns the copy, piece by piece."""
        length = len(data)
        if length == PAGE and not offset & _MASK:
            page = bytes(data)
            self._write_page(offset >> _SHIFT, page)
            return (page,)
        view = memoryview(data)
        end = offset + length
        at = offset
        pieces = []
        while at < end:
            if at & _BLOCK_MASK or end - at < BLOCK:
                stop = min(end, (at & ~_MASK) + PAGE)
            else:
                stop = at + BLOCK
            piece = bytes(view[at - offset : stop - offset])
            if stop - at == BLOCK:
                self._write_block(at >> _BLOCK_SHIFT, piece)
            elif stop - at == PAGE:
                self._write_page(at >> _SHIFT, piece)
            else:
                self._write_part(at, stop, piece)
            pieces.append(piece)
            at = stop
        return pieces

    def _write_block(self, number: int, block: bytes) -> None:
        if number not in self._blocks:
            self._runs_of_pages = None
            if self._pages:
                self._drop_pages(number << _PAGES_SHIFT, (number + 1) << _PAGES_SHIFT)
        self._blocks[number] = block

    def _write_page(self, index: int, page: bytes) -> None:
        if index not in self._pages:
            if index >> _PAGES_SHIFT in self._blocks:
                self._break_up(index >> _PAGES_SHIFT)
            else:
                self._runs_of_pages = None
        elif index in self._partial:
            self._partial.discard(index)
            self._runs_of_pages = None
        self._pages[index] = page

    def _break_up(self, number: int) -> None:
        """Replace a block by its pages."""
        block = self._blocks.pop(number)
        first = number << _PAGES_SHIFT
        for place in range(0, BLOCK, PAGE):
            self._pages[first + (place >> _SHIFT)] = block[place : place + PAGE]

    def _write_part(self, start: int, end: int, data: bytes) -> None:
        """Write inside one page."""
        index = start >> _SHIFT
        if index >> _PAGES_SHIFT in self._blocks:
            self._break_up(index >> _PAGES_SHIFT)
        elif index not in self._pages:
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
        """Make a range read as zeros and free its memory.

        Its extents are hole and zero, or zero alone where `hole` is False.
        """
        if not length:
            return
        end = offset + length
        for place in (offset, end):
            if place & _BLOCK_MASK and place >> _BLOCK_SHIFT in self._blocks:
                self._break_up(place >> _BLOCK_SHIFT)
        edges = {place >> _SHIFT for place in (offset, end) if place & _MASK}
        edges &= self._pages.keys()
        for index in edges - self._partial:
            self._partial.add(index)
            self._ranges.set(index << _SHIFT, (index + 1) << _SHIFT, DATA)
        self._ranges.set(offset, end, HOLE_ZERO if hole else _ZERO)
        self._drop_blocks((offset + _BLOCK_MASK) >> _BLOCK_SHIFT, end >> _BLOCK_SHIFT)
        self._drop_pages((offset + _MASK) >> _SHIFT, end >> _SHIFT)
        for index in edges:
            start = index << _SHIFT
            if all(state != DATA for *_, state in self._ranges.over(start, start + PAGE)):
                self._drop_pages(index, index + 1)
            else:
                low, high = max(start, offset), min(start + PAGE, end)
                self._replace(index, low, zeros(high - low))
        self._runs_of_pages = None

    def _drop_blocks(self, first: int, last: int) -> None:
        dropped = _between(self._blocks, first, last)
        if len(dropped) == len(self._blocks):
            # A dict that only loses keys keeps its table; a new one frees the memory.
            self._blocks = {}
            return
        for number in dropped:
            del self._blocks[number]

    def _drop_pages(self, first: int, last: int) -> None:
        dropped = _between(self._pages, first, last)
        if len(dropped) == len(self._pages):
            self._pages = {}
            self._partial = set()
            return
        for index in dropped:
            del self._pages[index]
        self._partial.difference_update(dropped)

    # --- extents ------------------------------------------------------------------------------

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
            blocks, pages, partial = self._blocks, self._pages, self._partial
            for index in range(first, last):
                if index >> _PAGES_SHIFT in blocks or (index in pages and index not in partial):
                    yield index, index + 1
            return
        starts, ends = self._runs_of_pages or self._find_runs()
        for run in range(bisect_right(ends, first), len(starts)):
            if starts[run] >= last:
                return
            yield starts[run], ends[run]

    def _find_runs(self) -> tuple[list[int], list[int]]:
        """All runs of whole pages: kept until a page comes or goes, for a map asks many times."""
        runs = [(index, index + 1) for index in self._pages.keys() - self._partial]
        runs += [(number << _PAGES_SHIFT, (number + 1) << _PAGES_SHIFT) for number in self._blocks]
        starts: list[int] = []
        ends: list[int] = []
        for start, end in sorted(runs):
            if ends and ends[-1] == start:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
        self._runs_of_pages = (starts, ends)
        return self._runs_of_pages


def _between(table: Mapping[int, bytes], first: int, last: int) -> list[int]:
    """The keys of a table from `first` up to `last`, however many that could be."""
    if last - first <= len(table):
        return [key for key in range(first, last) if key in table]
    return [key for key in table if first <= key < last]
