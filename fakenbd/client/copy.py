"""Copying an export or a file to an export or a file, several pieces at a time.

The ranges with data are taken from the source's extents, and read and written in pieces by a few
workers; the rest is zeroed, which needs no transfer. Data that is all zeroes is treated alike. Any
error ends the copy and is raised. A file is written under another name, and renamed when it is
complete and, if that is requested, compared; an export keeps what was written before an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from os import PathLike
from typing import Any, Final, NamedTuple, TypeAlias

import attrs
import trio

from fakenbd.client.block_device import BlockDevice
from fakenbd.client.blocks import pieces
from fakenbd.client.file import FileEndpoint
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.pool import Pool
from fakenbd.client.resilient import ResilientClient, RetryPolicy
from fakenbd.client.tls import TLS
from fakenbd.errors import ClientError
from fakenbd.protocol.constants import State, TransmissionFlag
from fakenbd.protocol.messages import Buffer
from fakenbd.protocol.uri import Uri

__all__ = ["Copied", "Place", "Progress", "copy"]

PIECE: Final = 1 << 20
ZEROES: Final = bytes(PIECE)

Place: TypeAlias = str | Uri | PathLike[str]
"""A URI, or the path of a file. A string with "://" in it is a URI."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@attrs.frozen
class Copied:
    """The result of a copy, in bytes: all, and those that were transferred rather than zeroed."""

    size: int
    transferred: int


class _Piece(NamedTuple):
    offset: int
    length: int
    zero: bool


@attrs.define(eq=False)
class ExportEndpoint:
    """An export as one end of a copy."""

    client: BlockDevice

    @property
    def size(self) -> int:
        return self.client.size

    async def extents(self) -> AsyncGenerator[tuple[int, bool], None]:
        """Lengths that add up to the size, and whether each reads as zeroes."""
        if "base:allocation" not in self.client.contexts:
            yield self.size, False
            return
        extents = self.client.block_status(0, self.size, context="base:allocation")
        async for length, flags in extents:
            yield length, bool(flags & State.ZERO)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await self.client.read_into(offset, buffer)

    async def write(self, offset: int, data: Buffer) -> None:
        await self.client.write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        await self.client.zero(offset, length)

    async def finish(self) -> None:
        """Flush, if the server offers that."""
        if self.client.offers(TransmissionFlag.SEND_FLUSH):
            await self.client.flush()


_End: TypeAlias = ExportEndpoint | FileEndpoint


async def copy(
    source: Place,
    destination: Place,
    *,
    verify: bool = False,
    in_flight: int = 4,
    sparse: bool = True,
    connections: int = 4,
    policy: RetryPolicy | None = None,
    progress: Progress | None = None,
    tls: TLS | Callable[[Uri], TLS] | None = None,
    notes: list[Noncompliance] | None = None,
    **options: Any,
) -> Copied:
    """Copy all of `source` to `destination`; a file is created, or replaced, at the end.

    `verify` reads both once more and compares. `sparse` off transfers zeroes as data. With a
    `policy` the client reconnects, without one `connections` share the work if the server allows
    that. `tls` may depend on the URI. The breaches that were tolerated are added to
    `notes`. `options` are those of `Client.connect`.
    """
    if in_flight < 1:
        raise ValueError(f"in_flight must be at least 1, not {in_flight}")
    kept = notes if notes is not None else []

    async def connect(uri: Uri) -> BlockDevice:
        settings = {**options, "tls": tls(uri) if callable(tls) else tls}
        client: BlockDevice
        if policy is not None:
            resilient = ResilientClient.connect(uri, policy=policy, **settings)
            client = await stack.enter_async_context(resilient)
        else:
            pool = Pool.connect(uri, connections=connections, **settings)
            client = await stack.enter_async_context(pool)
        stack.callback(lambda: kept.extend(client.notes))
        return client

    async with AsyncExitStack() as stack:
        reading = await _end(stack, connect, source, None)
        writing = await _end(stack, connect, destination, reading.size)
        if writing.size < reading.size:
            raise ClientError(
                f"{destination} holds {writing.size} bytes, fewer than the {reading.size}"
                f" of {source}"
            )
        total = reading.size * (2 if verify else 1)
        work = _Work(reading, writing, sparse, total, progress)
        await work.each(work.transfer, in_flight)
        await writing.finish()
        if verify:
            await work.each(work.compare, in_flight)
        return Copied(reading.size, work.transferred)


async def _end(
    stack: AsyncExitStack,
    connect: Callable[[Uri], Awaitable[BlockDevice]],
    place: Place,
    size: int | None,
) -> _End:
    """One end of the copy; `size` is what the destination must hold, None for the source."""
    if isinstance(place, Uri) or "://" in str(place):
        return ExportEndpoint(
            await connect(place if isinstance(place, Uri) else Uri.parse(str(place)))
        )
    if size is None:
        return stack.enter_context(FileEndpoint.opened(str(place)))
    return stack.enter_context(FileEndpoint.created(str(place), size))


@attrs.define(eq=False)
class _Work:
    """The pieces of a copy, and its progress."""

    reading: _End
    writing: _End
    sparse: bool
    total: int
    progress: Progress | None
    done: int = 0
    transferred: int = 0

    async def each(self, task: Callable[[_Piece, bytearray], Any], workers: int) -> None:
        """Do `task` for each piece with so many workers. Raises the error of the first that fails.

        Each worker has a buffer of its own, which a task may use until it returns.
        """
        sending, receiving = trio.open_memory_channel[_Piece](0)
        failures: list[Exception] = []

        async def worker() -> None:
            buffer = bytearray(PIECE)
            async for piece in receiving:
                await task(piece, buffer)
                self.done += piece.length
                if self.progress is not None:
                    self.progress(self.done, self.total)

        async def feeder() -> None:
            async with sending:
                offset = 0
                async with aclosing(self.reading.extents()) as extents:
                    async for length, zero in extents:
                        zero = zero and self.sparse
                        for place, part in pieces(offset, offset + length, PIECE):
                            await sending.send(_Piece(place, part, zero))
                        offset += length

        async def guarded(job: Callable[[], Any]) -> None:
            try:
                await job()
            except Exception as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, feeder)
            for _ in range(workers):
                nursery.start_soon(guarded, worker)
        if failures:
            raise failures[0]

    async def transfer(self, piece: _Piece, buffer: bytearray) -> None:
        """Copy one piece."""
        offset, length, zero = piece
        if not zero:
            data = memoryview(buffer)[:length]
            await self.reading.read_into(offset, data)
            zero = self.sparse and buffer.startswith(ZEROES[:length])
            if not zero:
                await self.writing.write(offset, data)
                self.transferred += length
        if zero:
            await self.writing.zero(offset, length)

    async def compare(self, piece: _Piece, buffer: bytearray) -> None:
        """Compare one piece of the copy with the source."""
        offset, length, _ = piece
        await self.reading.read_into(offset, memoryview(buffer)[:length])
        ours = bytes(buffer[:length])
        await self.writing.read_into(offset, memoryview(buffer)[:length])
        theirs = bytes(buffer[:length])
        if ours != theirs:
            place = next(place for place in range(length) if ours[place] != theirs[place])
            raise ClientError(
                f"the copy differs from the source at byte {offset + place}: it has"
                f" {theirs[place]:#04x}, not {ours[place]:#04x}"
            )
