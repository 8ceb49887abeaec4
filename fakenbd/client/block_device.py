"""The commands of an export, over one connection, over several, or over one with retries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Literal

import attrs

from fakenbd.client.noncompliance import Noncompliance
from fakenbd.errors import ClientError
from fakenbd.protocol.constants import TransmissionFlag
from fakenbd.protocol.messages import Buffer, Extent
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["BlockDevice"]


class BlockDevice(ABC):
    """An export to read, write and query.

    All methods may be called from several tasks at once. They raise CommandError for an error
    reply, ClientError for what the export or the server does not allow, and the error that ended
    the connection: ProtocolError, ConnectionLostError, DeadlineExceededError, ShutdownError.
    """

    __slots__ = ()

    # --- what the server offers ----------------------------------------------------------------

    @property
    @abstractmethod
    def negotiated(self) -> NegotiatedState:
        """The negotiated state, which must not be changed. The properties below are parts of it."""

    @property
    @abstractmethod
    def notes(self) -> Sequence[Noncompliance]:
        """The breaches that were tolerated so far."""

    @property
    @abstractmethod
    def contexts(self) -> tuple[str, ...]:
        """The metadata contexts that were asked for and selected."""

    @property
    def size(self) -> int:
        """The size of the export in bytes, cut to whole blocks."""
        return self.negotiated.size or 0

    @property
    def flags(self) -> int:
        """The transmission flags (TransmissionFlag), without those that contradict the rest."""
        return self.negotiated.flags

    @property
    def block_size(self) -> BlockSize | None:
        """The block sizes (NBD_INFO_BLOCK_SIZE), if the server sent them."""
        return self.negotiated.block_size

    @property
    def style(self) -> Literal["oldstyle", "newstyle", "fixed"]:
        """The kind of handshake; "newstyle" is the one without options but NBD_OPT_EXPORT_NAME."""
        if self.negotiated.oldstyle:
            return "oldstyle"
        return "fixed" if self.negotiated.fixed else "newstyle"

    @property
    def structured(self) -> bool:
        """Whether structured replies were negotiated."""
        return self.negotiated.structured

    @property
    def extended(self) -> bool:
        """Whether extended headers were negotiated."""
        return self.negotiated.extended

    @property
    def tls(self) -> bool:
        """Whether the connection is protected by TLS."""
        return self.negotiated.tls

    @property
    def export(self) -> str:
        """The name that was asked for."""
        return self.negotiated.export or ""

    @property
    def canonical_name(self) -> str | None:
        """The canonical name (NBD_INFO_NAME), if the server sent it."""
        return self.negotiated.canonical_name

    @property
    def description(self) -> str | None:
        """The description (NBD_INFO_DESCRIPTION), if the server sent it."""
        return self.negotiated.description

    def offers(self, flag: TransmissionFlag) -> bool:
        """Whether the server set a transmission flag."""
        return bool(self.flags & flag)

    # --- commands ------------------------------------------------------------------------------

    @abstractmethod
    async def read(self, offset: int, length: int, *, df: bool = False) -> bytes:
        """Read exactly `length` bytes from `offset`. `df` asks for one chunk, if offered."""

    @abstractmethod
    async def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`, without a copy where possible.

        After an error, replies may still be written to the buffer until the connection ends.
        """

    @abstractmethod
    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data` at `offset`; with `fua` it is stable when this returns."""

    @abstractmethod
    async def zero(
        self,
        offset: int,
        length: int,
        *,
        hole: bool = True,
        fast: bool = False,
        fua: bool = False,
    ) -> None:
        """Make a range read as zeroes. `hole` permits unmapping; `fast` fails rather than write."""

    @abstractmethod
    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Discard the content of a range, in whole blocks: partial ones at its edges are kept."""

    @abstractmethod
    async def cache(self, offset: int, length: int) -> None:
        """Ask the server to prepare a range for reading."""

    @abstractmethod
    async def flush(self) -> None:
        """Make everything stable that was written, zeroed or trimmed before."""

    @abstractmethod
    async def block_status_once(
        self, offset: int, length: int, *, req_one: bool = False
    ) -> Mapping[str, Sequence[tuple[int, int]]]:
        """The reply to one BLOCK_STATUS: for each context at least one extent from `offset` on.

        An extent is its length and its flags. The extents may cover less than the range,
        differently in each context, but never more.
        """

    def block_status(
        self, offset: int, length: int, *, context: str | None = None, req_one: bool = False
    ) -> AsyncIterator[Extent]:
        """Iterate over the extents of a range in one context, with as many requests as needed.

        `context` None means the first one selected. `req_one` asks for one extent at a time.
        """
        return _Extents(self, self._context(context), offset, offset + length, req_one)

    def _context(self, name: str | None) -> str:
        if not self.contexts:
            raise ClientError("the server selected no metadata context, so it has no block status")
        if name is None:
            return self.contexts[0]
        if name not in self.contexts:
            raise ClientError(f"the metadata context {quoted(name)} is not selected")
        return name


@attrs.define(eq=False)
class _Extents(AsyncIterator[Extent]):
    """Extents one by one; not a generator, which a caller that stops early would have to close."""

    client: BlockDevice
    context: str
    offset: int
    end: int
    req_one: bool
    ready: Iterator[tuple[int, int]] = attrs.field(factory=lambda: iter(()))

    async def __anext__(self) -> Extent:
        for length, flags in self.ready:
            self.offset += length
            return Extent(length, flags)
        if self.offset >= self.end:
            raise StopAsyncIteration
        block_status_once = await self.client.block_status_once(
            self.offset, self.end - self.offset, req_one=self.req_one
        )
        self.ready = iter(block_status_once[self.context])
        return await self.__anext__()
