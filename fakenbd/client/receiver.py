"""Parses the replies of a connection, and gives results to the requests in flight.

All available bytes are received into one large buffer, and every whole reply in it is parsed before
more are received. `parse` is the hot path: the usual reply, all content of a READ in one chunk,
costs one look at its header and one copy. It must leave everything unusual to `_take`. Nothing is
allocated for a length field alone: the buffer grows with the bytes received, and longer content is
received directly into the buffer of its request.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import attrs
import outcome

from fakenbd.client.noncompliance import Notes
from fakenbd.client.pending import Pending
from fakenbd.client.reassembly import ReadReply, Reply, asked
from fakenbd.client.transport import Transport
from fakenbd.errors import ClientError, ConnectionLostError, ProtocolError
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
)
from fakenbd.protocol.decode import decode_reply
from fakenbd.protocol.messages import Chunk, SimpleReply
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Receiver"]

BUFFER: Final = 1 << 18
"""Bytes received at once."""

DIRECT: Final = 1 << 14
"""Content of which at least so many bytes are missing is received directly into its target."""

_READ_CHUNK: Final = struct.Struct("!IHHQIQ")
_EXTENDED_READ_CHUNK: Final = struct.Struct("!IHHQQQQ")
"""A chunk with content: magic, flags, type, cookie, …, payload length, the content's offset."""

READ: Final = int(Command.READ)

Answer = Callable[[int, Pending, outcome.Outcome[Any]], None]


@attrs.define(eq=False)
class Receiver:
    """Parses the replies on `transport`; `answer` is called with the result of each request."""

    transport: Transport
    negotiated: NegotiatedState
    in_flight: dict[int, Pending]
    notes: Notes
    answer: Answer
    _content: tuple[memoryview, int, bool] | None = attrs.field(default=None, init=False)
    """Content being received directly: rest of the target, cookie, whether it is the last."""
    mid_message: bool = attrs.field(default=False, init=False)
    """Whether a reply is received in part."""

    async def run(self, leftover: bytes) -> None:
        view = memoryview(bytearray(max(BUFFER, len(leftover))))
        start, end = 0, len(leftover)
        view[:end] = leftover
        while True:
            start = self.parse(view, start, end)
            if self._content is not None:
                await self._receive_content(*self._content)
                start = end = 0
                continue
            if start == end:
                start = end = 0
                if len(view) > BUFFER:
                    view = memoryview(bytearray(BUFFER))
            elif end == len(view):
                # One chunk is longer than the buffer, which grows only with the bytes received.
                room = len(view) if start else 2 * len(view)
                larger = memoryview(bytearray(room))
                larger[: end - start] = view[start:end]
                view, start, end = larger, 0, end - start
            self.mid_message = start != end
            count = await self.transport.receive_into(view[end:])
            if not count:
                self._end_of_stream(end - start)
            end += count

    async def _receive_content(self, part: memoryview, cookie: int, last: bool) -> None:
        self._content = None
        self.mid_message = True
        while part:
            count = await self.transport.receive_into(part)
            if not count:
                self._end_of_stream(1)
            part = part[count:]
        if last:
            self._finish(cookie, self.in_flight[cookie])

    def _end_of_stream(self, begun: int) -> None:
        where = " in the middle of a reply" if begun else ""
        waiting = len(self.in_flight)
        if waiting:
            where += f", with {waiting} requests unanswered"
        raise ConnectionLostError(f"the server closed the connection{where}")

    def parse(self, view: memoryview, start: int, end: int) -> int:
        """Parse the whole replies from `start` to `end`; returns where the next one begins."""
        in_flight = self.in_flight
        extended = self.negotiated.extended
        head = _EXTENDED_READ_CHUNK if extended else _READ_CHUNK
        unpack, size = head.unpack_from, head.size
        expected = EXTENDED_REPLY_MAGIC if extended else STRUCTURED_REPLY_MAGIC
        usual = extended or self.negotiated.structured
        while end - start >= 4:
            if usual and end - start > size:
                fields = unpack(view, start)
                pending = in_flight.get(fields[3])
                if (
                    pending is not None
                    and pending.command == READ
                    and pending.reply is None
                    and fields[0] == expected
                    and fields[1] & 1
                    and fields[2] == 1
                    and fields[-2] == pending.length + 8
                    and fields[-1] == pending.offset
                    and (not extended or fields[4] == pending.offset)
                    and start + size + pending.length <= end
                ):
                    first = start + size
                    start = first + pending.length
                    self._answer_read(fields[3], pending, view[first:start])
                    continue
            taken = self._take(view[start:end])
            start += taken
            if not taken or self._content is not None:
                break
        return start

    def _take(self, view: memoryview) -> int:
        """Take one simple reply or one chunk; returns its bytes, 0 where some are missing."""
        (magic,) = layout.U32.unpack_from(view)
        if self.negotiated.extended and magic == EXTENDED_REPLY_MAGIC:
            return self._take_chunk(view, layout.EXTENDED_CHUNK)
        if self.negotiated.structured and magic == STRUCTURED_REPLY_MAGIC:
            return self._take_chunk(view, layout.STRUCTURED_CHUNK)
        if magic == SIMPLE_REPLY_MAGIC and not self.negotiated.extended:
            return self._take_simple(view)
        _, taken = self._decode(view)  # raises: not a negotiated magic
        return taken

    def _take_simple(self, view: memoryview) -> int:
        start = layout.SIMPLE_REPLY.size
        if len(view) < start:
            return 0
        _, error, cookie = layout.SIMPLE_REPLY.unpack_from(view)
        pending = self._pending(cookie)
        read = pending.command == READ
        if read and self.negotiated.structured:
            raise ProtocolError(
                f"a simple reply came to {asked(pending.command, pending.offset, pending.length)},"
                " in spite of structured replies",
                rule="S-122",
            )
        if not read or error:
            pending.gathered().simple(error)
            self._finish(cookie, pending)
            return start
        end = start + pending.length
        if len(view) >= end:
            self._answer_read(cookie, pending, view[start:end])
            return end
        if end - len(view) <= DIRECT:
            return 0
        self._begin_content(cookie, pending.offset, pending.length, view[start:], last=True)
        return len(view)

    def _take_chunk(self, view: memoryview, header: struct.Struct) -> int:
        start = header.size
        if len(view) < start:
            return 0
        _, flags, kind, cookie, *_, length = header.unpack_from(view)
        end: int = start + length
        pending = self._pending(cookie)
        if 0 < end - len(view) <= DIRECT and length <= pending.length:
            return 0  # a correct chunk: when its rest has come, `parse` takes it
        reply = pending.gathered()
        if length > reply.limit(kind):
            raise ProtocolError(
                f"a chunk in the reply to {asked(reply.command, reply.offset, reply.length)}"
                f" announces {length} bytes of payload, at most {reply.limit(kind)} are taken",
                rule="S-144",
            )
        content = start + layout.U64.size
        if len(view) >= end:
            self._take_whole_chunk(view[:end], cookie, reply)
            return end
        if kind != ChunkType.OFFSET_DATA or end - len(view) <= DIRECT or len(view) <= content:
            return 0
        (offset,) = layout.U64.unpack_from(view, start)
        if header is layout.EXTENDED_CHUNK:
            reply.check_request_offset(header.unpack_from(view)[4])
        last = bool(flags & ChunkFlag.DONE)
        self._begin_content(cookie, offset, end - content, view[content:], last=last)
        return len(view)

    def _take_whole_chunk(self, view: memoryview, cookie: int, reply: Reply) -> None:
        chunk, _ = self._decode(view)
        assert isinstance(chunk, Chunk), "the magic is a chunk's"
        if reply.take(chunk):
            self._finish(cookie, self.in_flight[cookie])

    def _decode(self, view: memoryview) -> tuple[SimpleReply | Chunk, int]:
        decoded = decode_reply(
            view,
            extended=self.negotiated.extended,
            structured=self.negotiated.structured,
            data_length=lambda cookie: 0,
            limit=len(view),
        )
        assert decoded is not None, "all its bytes are there"
        return decoded

    def _begin_content(
        self, cookie: int, offset: int, size: int, there: memoryview, *, last: bool
    ) -> None:
        """Receive content of a READ directly into its target, first the bytes in the buffer."""
        reply = self.in_flight[cookie].gathered()
        if not isinstance(reply, ReadReply):
            raise reply.unexpected("data")
        part = reply.claim(offset, size)
        part[: len(there)] = there
        self._content = part[len(there) :], cookie, last

    def _pending(self, cookie: int) -> Pending:
        pending = self.in_flight.get(cookie)
        if pending is None:
            raise ProtocolError(
                f"a reply came for cookie {cookie}, which no request in flight has", rule="S-123"
            )
        return pending

    # --- answers -------------------------------------------------------------------------------

    def _answer_read(self, cookie: int, pending: Pending, content: memoryview) -> None:
        """Finish a READ whose content came in one piece."""
        if pending.target is None:
            self.answer(cookie, pending, outcome.Value(bytes(content)))
        else:
            pending.target[:] = content
            self.answer(cookie, pending, outcome.Value(None))

    def _finish(self, cookie: int, pending: Pending) -> None:
        """Finish a request whose reply is complete. Raises ProtocolError for a hard breach."""
        reply = pending.gathered()
        result: outcome.Outcome[Any]
        try:
            value = reply.finish()
            self.notes.add(reply.notes)
            if pending.command == READ:
                value = bytes(value) if pending.target is None else None
            result = outcome.Value(value)
        except ClientError as error:
            result = outcome.Error(error)
        self.answer(cookie, pending, result)
