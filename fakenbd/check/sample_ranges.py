"""Ranges of an export to read, write and map: its ends and its middle, on blocks and off them."""

from __future__ import annotations

from typing import Final, TypeAlias

from fakenbd.client import BlockDevice

__all__ = [
    "LARGE",
    "MAPPED",
    "WHOLE",
    "SampleRange",
    "clipped",
    "ends",
    "parts",
    "places",
    "writable_spans",
]

LARGE: Final = 1 << 18
"""Bytes of one large request."""

WHOLE: Final = 1 << 26
MAPPED: Final = 1 << 36
"""Sizes up to which an export is read whole, and mapped whole; of a larger one, a part."""

SampleRange: TypeAlias = tuple[int, int]
"""Offset and length."""


def clipped(size: int, *spans: SampleRange) -> list[SampleRange]:
    """The spans cut to an export of that size, without empty ones."""
    kept: list[SampleRange] = []
    for offset, length in spans:
        start = max(0, min(offset, size))
        length = min(length, size - start)
        if length > 0 and (start, length) not in kept:
            kept.append((start, length))
    return kept


def places(size: int) -> list[SampleRange]:
    """Spans at the start, in the middle and at the end; on blocks and off them."""
    return clipped(
        size,
        (0, LARGE),
        (512, 512),
        (size // 2, 4096),
        (size // 3, 700),
        (size - 4096, 4096),
        (size - 1, 1),
    )


def parts(size: int, count: int, longest: int) -> list[SampleRange]:
    """`count` spans that do not touch, spread over the export."""
    step = max(1, size // count)
    length = max(1, min(longest, step - 1))
    return clipped(size, *((step * part, length) for part in range(count)))


def ends(size: int, most: int) -> list[SampleRange]:
    """The whole export, or its beginning and its end."""
    if size <= most:
        return clipped(size, (0, size))
    return [(0, most // 2), (size - most // 2, most // 2)]


def writable_spans(client: BlockDevice, *spans: SampleRange) -> list[SampleRange]:
    """The spans, on whole sectors where no block size was negotiated (C-93)."""
    if client.block_size is None and client.size % 512 == 0:
        spans = tuple((start - start % 512, length + -length % 512) for start, length in spans)
    return clipped(client.size, *spans)
