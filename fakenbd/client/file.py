"""A file as one end of a copy; reads and writes run in threads, so that no disk delays a reply.

Writes take turns: a file system admits one writer to a file at a time, and threads that wait for
that in the kernel use the processor that the next reply needs. Written data is sent to the disk
soon and dropped from the page cache: a copy larger than memory would evict everything else, and
filling unused memory takes the system longer than the copying.

A new file is written beside the one that it replaces, and renamed when it is complete, so that an
aborted copy is never taken for the whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, TypeVar

import attrs
import trio

from fakenbd.errors import ClientError
from fakenbd.protocol.messages import Buffer

__all__ = ["FileEndpoint"]

_T = TypeVar("_T")

_CACHED: Final = 16
"""Writes after which an earlier one has most likely reached the disk."""


@attrs.define(eq=False)
class FileEndpoint:
    """An open file of `size` bytes. Every OSError is raised as a ClientError with the path."""

    path: str
    size: int
    _descriptor: int
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _cached: deque[tuple[int, int]] = attrs.field(factory=deque, init=False)

    @classmethod
    @contextmanager
    def opened(cls, path: str) -> Iterator[FileEndpoint]:
        """The file to read."""
        with ExitStack() as stack:
            with _naming_file("open", path):
                descriptor = os.open(path, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                # stat gives 0 for block devices.
                size = os.lseek(descriptor, 0, os.SEEK_END)
            yield cls(path, size, descriptor)

    @classmethod
    @contextmanager
    def created(cls, path: str, size: int) -> Iterator[FileEndpoint]:
        """A new file of `size` bytes, all of them a hole. It is at `path` after the block.

        An existing file keeps its owner and its permissions; if the block raises, its content.
        """
        with ExitStack() as stack:
            with _naming_file("open", path):
                goal = os.path.realpath(path)
                before = _replaceable(goal)
                part = f"{goal}.{secrets.token_hex(4)}.part"
                descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                stack.callback(os.close, descriptor)
                stack.callback(_remove, part)
                os.truncate(descriptor, size)
                if before is not None:
                    with suppress(PermissionError):
                        os.fchown(descriptor, before.st_uid, before.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            yield cls(path, size, descriptor)
            with _naming_file("rename", part):
                os.rename(part, goal)

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
            self._let_go(offset, len(view))

        async with self._turn:
            await self._in_thread("write", write)

    def _let_go(self, offset: int, length: int) -> None:
        """Start writing these bytes to the disk, and drop earlier ones from the page cache."""
        self._cached.append((offset, length))
        oldest = self._cached.popleft() if len(self._cached) > _CACHED else None
        for begin, count in filter(None, ((offset, length), oldest)):
            with suppress(OSError):  # it is only advice
                os.posix_fadvise(self._descriptor, begin, count, os.POSIX_FADV_DONTNEED)

    async def zero(self, offset: int, length: int) -> None:
        """Do nothing: a new file is a hole where nothing was written."""
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Do nothing: the content of a file is visible at once."""
        await trio.lowlevel.checkpoint()

    async def _in_thread(self, what: str, work: Callable[[], _T]) -> _T:
        with _naming_file(what, self.path):
            return await trio.to_thread.run_sync(work)


def _replaceable(path: str) -> os.stat_result | None:
    """The stat of the file at `path`, or None. Raises OSError if it must not be replaced."""
    try:
        # Opening checks the permission; non-blocking, for a pipe without a reader would block.
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        known = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(known.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return known


def _remove(path: str) -> None:
    # After the rename there is nothing to remove.
    with suppress(OSError):
        os.unlink(path)


@contextmanager
def _naming_file(what: str, path: str) -> Iterator[None]:
    """Raise an OSError as a ClientError with the operation and the path."""
    try:
        yield
    except (OSError, EOFError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClientError(f"cannot {what} {path}: {reason}") from error
