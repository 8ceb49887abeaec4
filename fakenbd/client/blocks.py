"""Blocks of an export: where a request must begin and end, and how long it may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from fakenbd.protocol.constants import MAXIMUM_PAYLOAD
from fakenbd.protocol.messages import Extent
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Blocks", "cut", "pieces"]

PORTABLE: Final = 512
"""The block, in bytes, that reads are aligned to where the server advertised none (C-93)."""


@attrs.frozen
class Blocks:
    """The geometry of an export. `minimum` is a power of two, `payload` a multiple of it.

    `portable` is the block that reads are widened to: the minimum, or 512 where none was
    negotiated.
    """

    size: int
    minimum: int = 1
    payload: int = MAXIMUM_PAYLOAD
    portable: int = PORTABLE

    @classmethod
    def of(cls, negotiated: NegotiatedState) -> Blocks:
        """The geometry of the export that was opened."""
        size, blocks = negotiated.size or 0, negotiated.block_size
        if blocks is None:
            return cls(size)
        payload = min(blocks.maximum, MAXIMUM_PAYLOAD)
        payload -= payload % blocks.minimum
        return cls(size, blocks.minimum, payload, blocks.minimum)

    def widened(self, offset: int, length: int, block: int) -> tuple[int, int]:
        """The whole blocks that hold a range, within the export: first byte, and past the last."""
        if not length:  # C-95: no request of length 0
            return offset, offset
        end = offset + length
        return offset - offset % block, min(end + -end % block, self.size)

    def edges(self, offset: int, length: int) -> tuple[range, Sequence[range]]:
        """A range as its whole blocks, and the parts of blocks at its edges."""
        end = offset + length
        start, stop = offset + -offset % self.minimum, end - end % self.minimum
        if start > stop:
            return range(offset, offset), (range(offset, end),)
        return range(start, stop), tuple(filter(len, (range(offset, start), range(stop, end))))

    def half(self, length: int) -> int:
        """Half of `length`, in whole blocks, to repeat a request that was too long."""
        half = length // 2
        return half + -half % self.minimum


def pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """A range in pieces of at most `size` bytes: the place and the length of each."""
    while start < stop:
        yield start, min(size, stop - start)
        start += size


def cut(extents: Sequence[tuple[int, int]], skip: int, length: int) -> Iterator[Extent]:
    """Extents without their first `skip` bytes, and `length` bytes of them at most."""
    for extent, flags in extents:
        usable = min(extent - skip, length)
        if usable > 0:
            yield Extent(usable, flags)
            length -= usable
        skip = max(skip - extent, 0)
