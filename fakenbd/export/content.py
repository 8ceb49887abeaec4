"""Content: the bytes of an export before anything is written to it.

Content is read-only and addressed: the bytes at an offset follow from the offset alone, so that
an export of any size needs no memory and the order of access cannot change a byte. Buffers that
`read` returns are immutable (bytes, or slices of static buffers), so that a reply can be sent
without a copy long after it was read. Past its natural end every content is zeros. Files are in
`file.py`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from fakenbd.export.extents import DATA, HOLE_ZERO
from fakenbd.protocol.messages import Buffer, Extent

__all__ = [
    "PERIOD",
    "BytesContent",
    "Content",
    "FunctionContent",
    "Hex",
    "Pattern",
    "RandomBytes",
    "Text",
    "ZeroPadded",
    "Zeros",
    "describe_origin",
]

PERIOD: Final = 1_048_573
"""After so many bytes a pattern repeats: the largest prime below 2**20.

Being prime to every block size, it shows data that was displaced by blocks as wrong.
"""

_STATIC: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(_STATIC))
_DISTINCTIVE: Final = 8
_SAMPLE: Final = 16


class Content(Protocol):
    """The interface of an export's content."""

    @property
    def size(self) -> int | None:
        """The natural size in bytes; None for unlimited content."""

    @property
    def sparse(self) -> bool:
        """Whether `segments` can ever report anything but data before the natural end."""

    @property
    def stable(self) -> bool:
        """Whether the same range reads the same bytes at any time."""

    def read(self, offset: int, length: int) -> Buffer:
        """Exactly `length` immutable bytes from `offset` on; zeros past the natural end."""

    def segments(self, offset: int, length: int) -> Iterable[Extent]:
        """The runs of data (0) and of hole and zero (3) that make up exactly `length` bytes."""

    def close(self) -> None:
        """Release resources such as file descriptors; a later read may open them again."""


def zeros(length: int) -> Buffer:
    """`length` zero bytes; a slice of a static buffer up to 1 MiB."""
    return _ZEROS[:length] if length <= _STATIC else bytes(length)


def padded_segments(size: int, offset: int, length: int) -> list[Extent]:
    """Extents of exactly `length` bytes: data up to `size`, then a hole that reads as zeros."""
    data = min(max(size - offset, 0), length)
    both = (Extent(data, DATA), Extent(length - data, HOLE_ZERO))
    return [extent for extent in both if extent.length]


@functools.lru_cache(maxsize=8)
def _window(seed: str) -> bytes:
    """The bytes of one period of a pattern, followed by its first 1 MiB again.

    With the repetition any read of up to 1 MiB is one slice, wherever in the period it starts.
    """
    once = random.Random(seed).randbytes(PERIOD)
    return (once * 3)[: PERIOD + _STATIC]


@attrs.define(eq=False)
class _Windowed:
    """Pseudo-random bytes of unlimited length, with a period of PERIOD, the same in every run."""

    _seed: str
    _view: memoryview | None = attrs.field(default=None, init=False, repr=False)

    @property
    def size(self) -> None:
        return None

    @property
    def sparse(self) -> bool:
        return False

    @property
    def stable(self) -> bool:
        return True

    def read(self, offset: int, length: int) -> Buffer:
        view = self._view
        if view is None:
            view = self._view = memoryview(_window(self._seed))
        start = offset % PERIOD
        if length <= _STATIC:
            return view[start : start + length]
        parts = [view[start:PERIOD]]
        whole, rest = divmod(length - (PERIOD - start), PERIOD)
        parts.extend([view[:PERIOD]] * whole)
        parts.append(view[:rest])
        return b"".join(parts)

    def segments(self, offset: int, length: int) -> list[Extent]:
        return [Extent(length, DATA)] if length else []

    def close(self) -> None:
        """Do nothing: the buffer is shared by all contents of one seed."""

    def locate(self, data: Buffer) -> int | None:
        """The offset modulo PERIOD at which `data` lies; None if it is not from this content.

        Fewer than 8 bytes are ambiguous and give None.
        """
        if len(data) < _DISTINCTIVE:
            return None
        head = bytes(data[:_STATIC])
        offset = _window(self._seed).find(head)
        if offset < 0 or self.read(offset, len(data)) != data:
            return None
        return offset


@attrs.define(eq=False)
class Pattern(_Windowed):
    """The default content: bytes from which their offset can be found (see `describe_origin`)."""

    _seed: str = attrs.field(default="fakenbd pattern", init=False)


def _named(seed: int | str) -> str:
    return f"fakenbd random {seed}"


@attrs.define(eq=False)
class RandomBytes(_Windowed):
    """Bytes like those of `Pattern`, from a given seed."""

    _seed: str = attrs.field(converter=_named, alias="seed")


def describe_origin(
    data: Buffer, expected_offset: int, content: Pattern | RandomBytes | None = None
) -> str:
    """One sentence for a failure message: where bytes read at `expected_offset` belong.

    It describes the first wrong byte and those after it.
    """
    content = content or Pattern()
    expected = bytes(content.read(expected_offset, len(data)))
    read = bytes(data)
    wrong = next(
        (i for i, pair in enumerate(zip(read, expected, strict=True)) if pair[0] != pair[1]), None
    )
    if wrong is None:
        return f"these {len(read)} bytes belong at offset {expected_offset}, where they were read"
    at = expected_offset + wrong
    sample = read[wrong : wrong + _SAMPLE]
    if not any(sample):
        return f"from offset {at} on there are zeros instead of the content"
    found = content.locate(sample)
    if found is None:
        return (
            f"from offset {at} on these bytes are not from this content: "
            f"{sample.hex(' ')} instead of {expected[wrong : wrong + _SAMPLE].hex(' ')}"
        )
    return f"from offset {at} on these bytes belong at offset {found} (+ k x {PERIOD})"


@attrs.define(eq=False)
class Zeros:
    """Zeros of unlimited length: one hole."""

    @property
    def size(self) -> None:
        return None

    @property
    def sparse(self) -> bool:
        return True

    @property
    def stable(self) -> bool:
        return True

    def read(self, offset: int, length: int) -> Buffer:
        return zeros(length)

    def segments(self, offset: int, length: int) -> list[Extent]:
        return [Extent(length, HOLE_ZERO)] if length else []

    def close(self) -> None:
        """Do nothing."""


@attrs.define(eq=False)
class BytesContent:
    """The given bytes, then zeros."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def sparse(self) -> bool:
        return False

    @property
    def stable(self) -> bool:
        return True

    def read(self, offset: int, length: int) -> Buffer:
        return self.data[offset : offset + length].ljust(length, b"\0")

    def segments(self, offset: int, length: int) -> list[Extent]:
        return padded_segments(len(self.data), offset, length)

    def close(self) -> None:
        """Do nothing."""


def _from_text(text: str) -> bytes:
    return text.encode()


def _from_hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"expected pairs of hexadecimal digits, got {digits!r}") from None


@attrs.define(eq=False)
class Text(BytesContent):
    """A text in UTF-8, then zeros."""

    data: bytes = attrs.field(converter=_from_text, alias="text")


@attrs.define(eq=False)
class Hex(BytesContent):
    """Bytes written as pairs of hexadecimal digits (spaces allowed between pairs), then zeros."""

    data: bytes = attrs.field(converter=_from_hex, alias="digits")


@attrs.define(eq=False)
class ZeroPadded:
    """Another content up to `size` bytes, then zeros; used where the size is rounded up."""

    content: Content
    size: int

    @property
    def sparse(self) -> bool:
        return self.content.sparse

    @property
    def stable(self) -> bool:
        return self.content.stable

    def read(self, offset: int, length: int) -> Buffer:
        within = min(max(self.size - offset, 0), length)
        if within == length:
            return self.content.read(offset, length)
        return bytes(self.content.read(offset, within)).ljust(length, b"\0")

    def segments(self, offset: int, length: int) -> Iterable[Extent]:
        within = min(max(self.size - offset, 0), length)
        yield from self.content.segments(offset, within)
        if within < length:
            yield Extent(length - within, HOLE_ZERO)

    def close(self) -> None:
        self.content.close()


@attrs.define(eq=False)
class FunctionContent:
    """Content from a function `(offset, length) -> bytes`; all of it is data."""

    function: Callable[[int, int], Buffer]
    size: int | None = None

    @property
    def sparse(self) -> bool:
        return False

    @property
    def stable(self) -> bool:
        return False

    def read(self, offset: int, length: int) -> Buffer:
        """The function's bytes. Raises ValueError when it gives more or fewer than asked."""
        data = bytes(self.function(offset, length))
        if len(data) != length:
            raise ValueError(
                f"the content function gave {len(data)} bytes for offset {offset}, length {length}"
            )
        return data

    def segments(self, offset: int, length: int) -> list[Extent]:
        if self.size is not None:
            return padded_segments(self.size, offset, length)
        return [Extent(length, DATA)] if length else []

    def close(self) -> None:
        """Do nothing: resources of the function belong to its owner."""
