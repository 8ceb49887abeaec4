"""A file as content, with its holes as the file system reports them.

The file is opened at first use and read by position, so nothing is held in memory and the file may
change underneath: every reply reflects its current content. With `seek_hole` the segments come from
SEEK_DATA and SEEK_HOLE byte for byte, which is what qemu-nbd answers; an export that rounds the
size up then has qemu-nbd's bug: the end of the file is a hole in its last sector.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from fakenbd.errors import ServeError
from fakenbd.export.content import padded_segments
from fakenbd.export.extents import DATA, HOLE_ZERO
from fakenbd.protocol.messages import Buffer, Extent

__all__ = ["File"]


@attrs.define(eq=False)
class File:
    """The bytes of a regular file or a block device, then zeros.

    Raises ServeError, one sentence, from any method when the file cannot be opened or read.
    """

    path: Path = attrs.field(converter=Path)
    seek_hole: bool = False
    _descriptor: int | None = attrs.field(default=None, init=False, repr=False)

    @property
    def size(self) -> int:
        return os.lseek(self._open(), 0, os.SEEK_END)

    @property
    def sparse(self) -> bool:
        return self.seek_hole

    @property
    def stable(self) -> bool:
        return False

    def read(self, offset: int, length: int) -> Buffer:
        descriptor = self._open()
        wanted = min(length, max(self.size - offset, 0))
        try:
            data = os.pread(descriptor, wanted, offset) if wanted else b""
            while len(data) < wanted:
                more = os.pread(descriptor, wanted - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise ServeError(
                f"cannot read {self.path} at offset {offset}: {error.strerror}"
            ) from error
        return data.ljust(length, b"\0")

    def segments(self, offset: int, length: int) -> Iterator[Extent]:
        if not self.seek_hole:
            yield from padded_segments(self.size, offset, length)
            return
        end = offset + length
        while offset < end:
            data = self._seek(offset, os.SEEK_DATA, end)
            if data > offset:
                yield Extent(data - offset, HOLE_ZERO)
            offset = self._seek(data, os.SEEK_HOLE, end) if data < end else end
            if offset > data:
                yield Extent(offset - data, DATA)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is not None:
            return self._descriptor
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for a writer before it can be refused.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise ServeError(f"cannot open {self.path}: {error.strerror}") from error
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            os.close(descriptor)
            raise ServeError(f"cannot serve {self.path}: not a regular file or a block device")
        self._descriptor = descriptor
        return descriptor

    def _seek(self, offset: int, whence: int, end: int) -> int:
        """The next data or hole from `offset` on, at most `end`: past the file there is neither."""
        if offset >= self.size:
            return end
        try:
            return min(os.lseek(self._open(), offset, whence), end)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end
            raise ServeError(f"cannot find the holes of {self.path}: {error.strerror}") from error
