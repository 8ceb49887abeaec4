"""A file as one end of a copy; reads and writes go to threads, so that no disk holds up a reply."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import trio

from fakenbd.errors import ClientError
from fakenbd.protocol.messages import Buffer

__all__ = ["FileEnd"]

_T = TypeVar("_T")


@attrs.define(eq=False)
class FileEnd:
    """An open file of `size` bytes. Every failure of the system is a ClientError that names it."""

    path: str
    size: int
    _descriptor: int

    @classmethod
    @contextmanager
    def opened(cls, path: str, size: int | None) -> Iterator[FileEnd]:
        """The file to read (`size` None), or a new file of `size` bytes, all of them a hole."""
        try:
            if size is None:
                descriptor = os.open(path, os.O_RDONLY)
                # Block devices say 0 in stat.
                size = os.lseek(descriptor, 0, os.SEEK_END)
            else:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
                os.truncate(descriptor, size)
        except (OSError, ValueError, OverflowError) as error:
            raise _failed("open", path, error) from error
        try:
            yield cls(path, size, descriptor)
        finally:
            os.close(descriptor)

    async def extents(self) -> AsyncGenerator[tuple[int, bool], None]:
        """Lengths that add up to the size, and whether each is a hole."""
        place = 0
        while place < self.size:
            data = await self._seek(place, os.SEEK_DATA)
            if data > place:
                yield data - place, True
            if data < self.size:
                place = await self._seek(data, os.SEEK_HOLE)
                yield place - data, False
            else:
                place = data

    async def _seek(self, place: int, whence: int) -> int:
        """Where the next data or hole begins; the end of the file where there is none."""
        await trio.lowlevel.checkpoint()
        try:
            return min(os.lseek(self._descriptor, place, whence), self.size)
        except OSError:
            return self.size

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        def read() -> None:
            done = 0
            while done < len(buffer):
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
                if not count:
                    raise EOFError(f"it ends before byte {offset + len(buffer)}")
                done += count

        await self._in_thread("read", read)

    async def write(self, offset: int, data: Buffer) -> None:
        def write() -> None:
            view = memoryview(data).cast("B")
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)

        await self._in_thread("write", write)

    async def zero(self, offset: int, length: int) -> None:
        """Nothing to do: a new file is a hole where nothing was written."""
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Nothing to do: what a file holds, everybody sees."""
        await trio.lowlevel.checkpoint()

    async def _in_thread(self, what: str, work: Callable[[], _T]) -> _T:
        try:
            return await trio.to_thread.run_sync(work)
        except (OSError, EOFError) as error:
            raise _failed(what, self.path, error) from error


def _failed(what: str, path: str, error: Any) -> ClientError:
    return ClientError(f"cannot {what} {path}: {getattr(error, 'strerror', None) or error}")
