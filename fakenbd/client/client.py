"""A client of one connection: turns calls into requests that the server has to accept.

A request is inside of the export, a multiple of the minimum block, and no longer than the maximum
payload. Calls need not be: reads are widened to whole blocks and cut, the edges of a write are
read, changed and written back (one such write at a time), long calls are split into requests,
several of them in flight. A read returns exactly the bytes asked for, or raises.

Nothing is sent that the server did not offer. Where there is another way to the same result it is
used (zeroes are written as data, FUA is a write and a flush); otherwise the call raises
ClientError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from fakenbd.client.block_device import BlockDevice
from fakenbd.client.blocks import Blocks, cut, pieces
from fakenbd.client.channel import Timeouts
from fakenbd.client.connection import Connection
from fakenbd.client.noncompliance import Noncompliance, Tolerance
from fakenbd.client.pending import Pending
from fakenbd.client.reassembly import StatusReply
from fakenbd.client.target import Settings, Target, opened
from fakenbd.client.tls import TLS
from fakenbd.errors import ClientError, CommandError, FakenbdError
from fakenbd.protocol.constants import (
    Command,
    CommandFlag,
    Error,
    TransmissionFlag,
    spec_name,
)
from fakenbd.protocol.messages import Buffer
from fakenbd.protocol.negotiated import NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["Client"]

WINDOW: Final = 16
"""The most requests of one long call in flight."""

EFFECT: Final = 1 << 30
"""Bytes that one TRIM, WRITE_ZEROES or CACHE covers; more fails on servers with 32-bit lengths."""

READ: Final = int(Command.READ)


@attrs.define(eq=False, repr=False)
class Client(BlockDevice):
    """One connection to one export. `Client.connect` makes one."""

    _connection: Connection
    _contexts: tuple[str, ...]
    _effect: int = EFFECT
    _blocks: Blocks = attrs.field(init=False)
    _edges: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._blocks = Blocks.of(self.negotiated)

    def __repr__(self) -> str:
        state = "open" if self.failure is None else f"ended: {self.failure}"
        return f"<Client of export {quoted(self.export)}, {self.size} bytes, {state}>"

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        target: Target,
        *,
        export: str | None = None,
        contexts: Sequence[str] = ("base:allocation",),
        tolerance: Tolerance = "tolerant",
        timeout: float | Timeouts | None = None,
        tls: TLS | None = None,
        structured: bool = True,
        extended: bool = True,
        effect: int = EFFECT,
    ) -> AsyncIterator[Client]:
        """Connect to a URI, or over a stream, for as long as the block.

        `export` and `tls` override the URI. `timeout` is in seconds for each wait, or Timeouts. One
        TRIM, WRITE_ZEROES or CACHE covers at most `effect` bytes, a multiple of the server's
        blocks. Raises UriError, ConnectionLostError, ProtocolError, OptionRefusedError,
        ShutdownError, TLSError. The last message is DISC (see `connection`).
        """
        settings = Settings(
            target,
            export,
            tuple(contexts),
            tolerance,
            Timeouts.given(timeout),
            tls,
            structured,
            extended,
        )
        async with opened(settings) as (connection, selected):
            yield cls(connection, selected, effect)

    # --- what the server offers ----------------------------------------------------------------

    @property
    def negotiated(self) -> NegotiatedState:
        return self._connection.negotiated

    @property
    def contexts(self) -> tuple[str, ...]:
        return self._contexts

    @property
    def notes(self) -> Sequence[Noncompliance]:
        return self._connection.notes.kept

    @property
    def failure(self) -> FakenbdError | None:
        """The error that ended the connection; None while it is open."""
        return self._connection.failure

    # --- reading -------------------------------------------------------------------------------

    async def read(self, offset: int, length: int, *, df: bool = False) -> bytes:
        flags = CommandFlag.DF if df and self.offers(TransmissionFlag.SEND_DF) else 0
        blocks = self._blocks
        aligned = not (offset | length) & (blocks.portable - 1)
        if aligned and 0 < length <= blocks.payload and 0 <= offset <= blocks.size - length:
            try:
                data: bytes = await self._connection.submit(READ, offset, length, flags).wait()
            except CommandError as error:
                if error.error != Error.EOVERFLOW:
                    raise
            else:
                return data
        self._check_range(offset, length)
        low, high = blocks.widened(offset, length, blocks.portable)
        buffer = bytearray(high - low)
        await self._read_parts(low, memoryview(buffer), flags)
        return bytes(memoryview(buffer)[offset - low : offset - low + length])

    async def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer).cast("B")
        self._check_range(offset, len(view))
        end = offset + len(view)
        if self._blocks.widened(offset, len(view), self._blocks.portable) == (offset, end):
            await self._read_parts(offset, view, 0)
        else:
            view[:] = await self.read(offset, len(view))

    async def _read_parts(self, offset: int, view: memoryview, flags: int) -> None:
        parts: deque[tuple[Pending, int, memoryview]] = deque()
        for start in range(0, len(view), self._blocks.payload):
            part = view[start : start + self._blocks.payload]
            pending = self._connection.submit(READ, offset + start, len(part), flags, target=part)
            parts.append((pending, offset + start, part))
            if len(parts) == WINDOW:
                await self._read_part(*parts.popleft(), flags)
        while parts:
            await self._read_part(*parts.popleft(), flags)

    async def _read_part(self, pending: Pending, offset: int, part: memoryview, flags: int) -> None:
        """Wait for one part; read it in halves if it is too long for the server (C-138)."""
        try:
            await pending.wait()
        except CommandError as error:
            if error.error != Error.EOVERFLOW or len(part) <= self._blocks.portable:
                raise
            half = self._blocks.half(len(part))
            for start, piece in ((0, part[:half]), (half, part[half:])):
                again = self._connection.submit(
                    READ, offset + start, len(piece), flags, target=piece
                )
                await self._read_part(again, offset + start, piece, flags)

    # --- writing -------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        view = memoryview(data).cast("B")
        self._check_write(offset, len(view))
        flags = self._fua_flag(fua)
        whole, edges = self._blocks.edges(offset, len(view))
        for edge in edges:
            await self._patch(edge, view[edge.start - offset : edge.stop - offset], flags)
        inner = view[whole.start - offset : whole.stop - offset]
        await self._write_parts(whole.start, inner, flags)
        await self._without_fua(fua)

    async def _write_parts(self, offset: int, view: memoryview, flags: int) -> None:
        submit = self._connection.submit
        await self._all(
            submit(Command.WRITE, offset + start, size, flags, payload=view[start : start + size])
            for start, size in pieces(0, len(view), self._blocks.payload)
        )

    async def _patch(self, edge: range, data: Buffer, flags: int) -> None:
        """Change a part of one block: read it, change it, write it back."""
        block = edge.start - edge.start % self._blocks.minimum
        async with self._edges:
            content = bytearray(await self.read(block, self._blocks.minimum))
            content[edge.start - block : edge.stop - block] = data
            await self._write_parts(block, memoryview(content), flags)

    async def zero(
        self,
        offset: int,
        length: int,
        *,
        hole: bool = True,
        fast: bool = False,
        fua: bool = False,
    ) -> None:
        self._check_write(offset, length)
        offered = self.offers(TransmissionFlag.SEND_WRITE_ZEROES)
        if fast and not self.offers(TransmissionFlag.SEND_FAST_ZERO):
            raise ClientError("the server does not offer NBD_CMD_FLAG_FAST_ZERO")
        flags = self._fua_flag(fua)
        whole, edges = self._blocks.edges(offset, length)
        for edge in edges:
            await self._patch(edge, bytes(len(edge)), flags)
        if offered:
            how = (0 if hole else CommandFlag.NO_HOLE) | (CommandFlag.FAST_ZERO if fast else 0)
            await self._zero_parts(whole.start, whole.stop, flags | how)
        else:
            await self._write_zeroes(whole.start, whole.stop, flags)
        await self._without_fua(fua)

    async def _zero_parts(self, start: int, stop: int, flags: int) -> None:
        for place, size in pieces(start, stop, self._effect):
            try:
                await self._connection.submit(Command.WRITE_ZEROES, place, size, flags).wait()
            except CommandError as error:
                if error.error == Error.ENOTSUP and not flags & CommandFlag.FAST_ZERO:  # S-182
                    await self._write_zeroes(place, place + size, flags & CommandFlag.FUA)
                elif error.error == Error.EOVERFLOW and size > self._blocks.payload:
                    middle = place + self._blocks.half(size)
                    await self._zero_parts(place, middle, flags)
                    await self._zero_parts(middle, place + size, flags)
                else:
                    raise

    async def _write_zeroes(self, start: int, stop: int, flags: int) -> None:
        zeroes = memoryview(bytes(min(stop - start, self._blocks.payload)))
        submit = self._connection.submit
        await self._all(
            submit(Command.WRITE, place, size, flags, payload=zeroes[:size])
            for place, size in pieces(start, stop, self._blocks.payload)
        )

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        self._check_write(offset, length)
        self._check_offered(TransmissionFlag.SEND_TRIM, Command.TRIM)
        flags = self._fua_flag(fua)
        whole, _ = self._blocks.edges(offset, length)
        for place, size in pieces(whole.start, whole.stop, self._effect):
            await self._connection.submit(Command.TRIM, place, size, flags).wait()
        await self._without_fua(fua)

    async def cache(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        self._check_offered(TransmissionFlag.SEND_CACHE, Command.CACHE)
        low, high = self._blocks.widened(offset, length, self._blocks.minimum)
        for place, size in pieces(low, high, self._effect):
            await self._connection.submit(Command.CACHE, place, size).wait()

    async def flush(self) -> None:
        self._check_offered(TransmissionFlag.SEND_FLUSH, Command.FLUSH)
        await self._connection.submit(Command.FLUSH, 0, 0).wait()

    def share_edge_lock(self, other: Client) -> None:
        """Use one lock with another client of the export for writes to parts of blocks."""
        self._edges = other._edges

    # --- block status --------------------------------------------------------------------------

    async def block_status_once(
        self, offset: int, length: int, *, req_one: bool = False
    ) -> Mapping[str, Sequence[tuple[int, int]]]:
        self._check_range(offset, length)
        self._context(None)
        if not length:
            return dict.fromkeys(self.contexts, ())
        low, high = self._blocks.widened(offset, length, self._blocks.minimum)
        if not self.extended:
            high = min(high, low + (1 << 32) - self._blocks.minimum)
        reply = StatusReply(
            offset=low,
            length=high - low,
            contexts=self.negotiated.contexts,
            req_one=req_one,
            minimum=self._blocks.minimum,
            size=self.size,
        )
        flags = CommandFlag.REQ_ONE if req_one else 0
        pending = self._connection.submit(Command.BLOCK_STATUS, low, high - low, flags, reply=reply)
        found: Mapping[str, Sequence[tuple[int, int]]] = await pending.wait()
        if (low, high) == (offset, offset + length):
            return {name: found[name] for name in self.contexts}
        return {name: tuple(cut(found[name], offset - low, length)) for name in self.contexts}

    # --- the end -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Disconnect cleanly (NBD_CMD_DISC); the end of `connect`'s block does the same."""
        await self._connection.close()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended; `failure` has the reason."""
        await self._connection.ended.wait()

    # --- checks of a call ----------------------------------------------------------------------

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:  # C-88
            raise ClientError(f"{offset}+{length} is not inside of the export of {self.size} bytes")

    def _check_write(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        if self.offers(TransmissionFlag.READ_ONLY):  # C-104
            raise ClientError(f"the export {quoted(self.export)} is read-only")

    def _check_offered(self, flag: TransmissionFlag, command: Command) -> None:
        if not self.offers(flag):  # C-77, C-79, C-83
            raise ClientError(f"the server does not offer {spec_name(Command, command)}")

    def _fua_flag(self, fua: bool) -> int:
        if fua and not self.flags & (TransmissionFlag.SEND_FUA | TransmissionFlag.SEND_FLUSH):
            raise ClientError("the server offers neither NBD_CMD_FLAG_FUA nor NBD_CMD_FLUSH")
        return CommandFlag.FUA if fua and self.offers(TransmissionFlag.SEND_FUA) else 0

    async def _without_fua(self, fua: bool) -> None:
        if fua and not self.offers(TransmissionFlag.SEND_FUA):  # C-75
            await self.flush()

    async def _all(self, requests: Iterator[Pending]) -> None:
        """Make all requests, several of them in flight, and wait for each."""
        waiting: deque[Pending] = deque()
        for pending in requests:
            waiting.append(pending)
            if len(waiting) == WINDOW:
                await waiting.popleft().wait()
        while waiting:
            await waiting.popleft().wait()
