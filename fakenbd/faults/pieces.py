"""Where one chunk or extent is split into many: at a size, at drawn sizes, or at runs of zeroes.

All functions are generators, so that a split into very many pieces builds nothing in advance.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat
from random import Random
from typing import Final

from fakenbd.protocol.messages import Buffer

__all__ = ["MAXIMUM_PIECES", "SECTOR", "hole_runs", "piece_lengths", "runs"]

MAXIMUM_PIECES: Final = 1 << 16
SECTOR: Final = 512


def piece_lengths(by: int | str, address: str) -> Iterator[int]:
    """The length of each piece: always `by`, or up to 1024 bytes drawn at `address` if "random"."""
    if isinstance(by, int):
        return repeat(by)
    random = Random(address)
    return iter(lambda: random.randint(1, 2 * SECTOR), 0)


def runs(
    total: int, lengths: Iterator[int], most: int = MAXIMUM_PIECES
) -> Iterator[tuple[int, int]]:
    """Start and stop of each piece of `total` bytes; the last of `most` takes what is left."""
    start = 0
    for size in islice(lengths, most - 1):
        if start + size >= total:
            break
        yield start, start + size
        start += size
    yield start, total


def hole_runs(data: Buffer, offset: int) -> Iterator[tuple[int, int, bool]]:
    """Start and stop of each run of zero sectors, or of others, and whether it is one of zeroes.

    `data` lies at `offset` of the export, from whose start the sectors are counted.
    """
    view = memoryview(data)
    begun, position, was_zero = 0, 0, None
    while position < len(view):
        stop = min(len(view), position + SECTOR - (offset + position) % SECTOR)
        is_zero = not any(view[position:stop])
        if was_zero is not None and is_zero != was_zero:
            yield begun, position, was_zero
            begun = position
        was_zero, position = is_zero, stop
    yield begun, position, bool(was_zero)
