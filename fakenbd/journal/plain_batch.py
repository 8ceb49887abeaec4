"""Plain requests and their replies, one record for all of one receive.

The hot path appends one of these and goes on; the entries of the requests and of the replies are
made when they are first read, and cached. Nothing but that cache ever changes: `lighter` makes
another record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

import attrs

from fakenbd.journal.entries import Received, Sent
from fakenbd.journal.payload import Payload
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    MAXIMUM_PAYLOAD,
    ChunkFlag,
    ChunkType,
    Command,
)
from fakenbd.protocol.messages import Buffer, Chunk, Data, Request, SimpleReply

if TYPE_CHECKING:
    from fakenbd.export import StableRead

__all__ = ["PlainBatch", "ReceivedBatch", "SentBatch"]

_Entry = TypeVar("_Entry", Received, Sent)
_Reply: TypeAlias = SimpleReply | Chunk

_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_DATA: Final = int(ChunkType.OFFSET_DATA).to_bytes(2, "big")


@attrs.define(eq=False)
class PlainBatch:
    """Consecutive plain READs and WRITEs as they came, and the replies to them, in order.

    `headers` are those of all requests, `payloads` those of the WRITEs, each in pieces. `buffers`
    are for each reply a header, then content where a READ succeeded. A `light` batch has no
    payloads any more, and its buffers are the headers alone. Where there are no buffers at all, the
    requests are READs that succeeded, and their content is read from the `stable_read` again.
    `count` is of requests and replies together; `at` and `sent_at` are the stream offsets of the
    first of each.
    """

    index: int
    time: float
    connection: int
    count: int
    headers: Buffer
    payloads: Sequence[Sequence[Buffer]]
    buffers: Sequence[Buffer]
    extended: bool
    structured: bool
    stable_read: StableRead | None
    at: int
    sent_at: int
    bulk: int
    fixed: int
    light: bool = False
    _received: tuple[Received, ...] | None = None
    _sent: tuple[Sent, ...] | None = None

    def received(self) -> tuple[Received, ...]:
        """The requests."""
        entries = self._received
        if entries is None:
            self._received = entries = tuple(self._decode_requests())
        return entries

    def sent(self) -> tuple[Sent, ...]:
        """The replies."""
        entries = self._sent
        if entries is None:
            self._sent = entries = tuple(self._decode_replies())
        return entries

    def entries(self) -> Sequence[Received | Sent]:
        return *self.received(), *self.sent()

    def parts(self) -> tuple[ReceivedBatch, SentBatch]:
        index, time, connection, count = self.index, self.time, self.connection, self.count // 2
        return (
            ReceivedBatch(index, time, connection, count, self),
            SentBatch(index + count, time, connection, count, self),
        )

    def lighter(self) -> PlainBatch:
        if not self.bulk:
            return self
        return PlainBatch(
            self.index,
            self.time,
            self.connection,
            self.count,
            self.headers,
            (),
            self._reply_headers(),
            self.extended,
            self.structured,
            self.stable_read,
            self.at,
            self.sent_at,
            0,
            self.fixed,
            True,
            _light(self._received),
            _light(self._sent),
        )

    def requests(self) -> Iterator[Request]:
        """The requests without their payloads."""
        for _, flags, command, cookie, offset, length in self._headers():
            yield Request(command, cookie, offset, length, flags, extended=self.extended)

    def _headers(self) -> Iterator[tuple[int, ...]]:
        form = layout.EXTENDED_REQUEST if self.extended else layout.COMPACT_REQUEST
        return form.iter_unpack(self.headers)

    def _decode_requests(self) -> Iterator[Received]:
        size = len(self.headers) // (self.count // 2)
        payloads = iter(self.payloads)
        at = self.at
        for index, request in enumerate(self.requests(), self.index):
            payload = None
            if request.command == _WRITE:
                data = None if self.light else _joined(next(payloads))
                payload = Payload(request.length, data) if request.length else None
            yield Received(index, self.time, self.connection, request, payload, at)
            at += size + (payload.length if payload is not None else 0)

    def _decode_replies(self) -> Iterator[Sent]:
        first, at = self.index + self.count // 2, self.sent_at
        replies = self._replies() if self.buffers else self._read_again()
        for place, (reply, payload, size) in enumerate(replies):
            index, about = first + place, self.index + place
            yield Sent(index, self.time, self.connection, reply, payload, at, about)
            at += size + (payload.length if payload is not None else 0)

    def _replies(self) -> Iterator[tuple[_Reply, Payload | None, int]]:
        """Each reply without its content, the content, and the length of the header."""
        buffers = iter(self.buffers)
        for request in self.requests():
            header = next(buffers)
            reply, length = _decode_header(header, request)
            payload = None
            if length is not None:
                data = None if self.light else next(buffers)
                payload = Payload(length, data) if length else None
            yield reply, payload, len(header)

    def _read_again(self) -> Iterator[tuple[_Reply, Payload | None, int]]:
        """The same, with content that is read from the export when it is asked for."""
        assert self.stable_read is not None, "what has no source keeps its buffers"
        form = layout.EXTENDED_CHUNK if self.extended else layout.STRUCTURED_CHUNK
        for request in self.requests():
            cookie, offset, length = request.cookie, request.offset, request.length
            payload = Payload(length, partial(self.stable_read, offset, length))
            if self.structured:
                asked = offset if self.extended else None
                body = Data(offset, b"")
                chunk = Chunk(cookie, body, ChunkFlag.DONE.value, request_offset=asked)
                yield chunk, payload, form.size + layout.U64.size
            else:
                yield SimpleReply(cookie), payload, layout.SIMPLE_REPLY.size

    def _reply_headers(self) -> Sequence[Buffer]:
        each, rest = divmod(len(self.buffers), self.count // 2)
        if not rest:
            # The usual cases, all replies with content or none, need no look at each header.
            return self.buffers[::each]
        headers, buffers = [], iter(self.buffers)
        for _, _, command, *_ in self._headers():
            header = next(buffers)
            headers.append(header)
            if _has_content(header, command):
                next(buffers)
        return headers


@attrs.define(eq=False)
class ReceivedBatch:
    """The requests of a batch."""

    index: int
    time: float
    connection: int
    count: int
    exchange: PlainBatch
    outgoing: ClassVar = False

    def entries(self) -> Sequence[Received]:
        return self.exchange.received()

    def wire(self) -> Sequence[Buffer]:
        view = memoryview(self.exchange.headers)
        if not self.exchange.payloads:
            return (view,)
        size = len(view) // self.count
        payloads = iter(self.exchange.payloads)
        buffers: list[Buffer] = []
        for position, request in enumerate(self.exchange.requests()):
            buffers.append(view[position * size : (position + 1) * size])
            if request.command == _WRITE:
                buffers += next(payloads)
        return buffers


@attrs.define(eq=False)
class SentBatch:
    """The replies of a batch."""

    index: int
    time: float
    connection: int
    count: int
    exchange: PlainBatch
    outgoing: ClassVar = True

    def entries(self) -> Sequence[Sent]:
        return self.exchange.sent()

    def wire(self) -> Sequence[Buffer]:
        return self.exchange.buffers


def _light(entries: tuple[_Entry, ...] | None) -> tuple[_Entry, ...] | None:
    return None if entries is None else tuple(entry.lighter() for entry in entries)


def _has_content(header: Buffer, command: int) -> bool:
    """Whether content follows this header of a reply to `command`."""
    if len(header) == layout.SIMPLE_REPLY.size:
        return command == _READ and not any(header[4:8])
    return header[6:8] == _DATA


def _decode_header(header: Buffer, request: Request) -> tuple[_Reply, int | None]:
    """The reply without its content, and the length of the content that follows (None: none)."""
    content = _has_content(header, request.command)
    if len(header) == layout.SIMPLE_REPLY.size:
        _, error, cookie = layout.SIMPLE_REPLY.unpack_from(header)
        return SimpleReply(cookie, error), request.length if content else None
    if content:
        asked = None
        if request.extended:
            form = layout.EXTENDED_CHUNK
            _, flags, _, cookie, asked, length = form.unpack_from(header)
        else:
            form = layout.STRUCTURED_CHUNK
            _, flags, _, cookie, length = form.unpack_from(header)
        (offset,) = layout.U64.unpack_from(header, form.size)
        chunk = Chunk(cookie, Data(offset, b""), flags, request_offset=asked)
        return chunk, length - layout.U64.size
    # Imported here: a running server does not need it.
    from fakenbd.protocol.decode_server import decode_reply

    decoded = decode_reply(
        header,
        extended=layout.U32.unpack_from(header)[0] == EXTENDED_REPLY_MAGIC,
        structured=True,
        data_length=lambda cookie: 0,
        limit=MAXIMUM_PAYLOAD,
    )
    if decoded is None:
        raise ValueError("a reply of a batch is cut: its header must be whole, its content apart")
    return decoded[0], None


def _joined(pieces: Sequence[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
