"""What the ring holds: records, which become entries only when somebody looks.

Recording must cost next to nothing, looking may cost. So a message is kept as it came, and all
the plain requests of one receive are one record of their wire bytes, as are their replies. A
record counts for as many entries as it will become. All kinds of record answer alike:

    entries()   what it means, the same objects each time
    wire()      the bytes on the wire, complete only while the record is handed to the sinks
    forget()    lets go of the bulk bytes
    outgoing    whether the server said it
    bulk        bytes that `forget` lets go of;  fixed: bytes that stay, where they are many
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs

from fakenbd.journal.entries import Connected, Ended, Entry, Failed, Heard, Said, Struck, Violated
from fakenbd.journal.payload import Payload, detach
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    MAXIMUM_PAYLOAD,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Command,
)
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientMessage,
    Data,
    Request,
    ServerMessage,
    SimpleReply,
)

__all__ = ["Happening", "HeardBatch", "Record", "SaidBatch", "Utterance"]

_Reply: TypeAlias = SimpleReply | Chunk


@attrs.define(eq=False)
class Happening:
    """A record that is no message: the entry itself."""

    entry: Connected | Struck | Violated | Ended | Failed
    index: int
    time: float
    connection: int | None
    count: int = 1
    bulk: int = 0
    fixed: int = 0
    outgoing: bool = False

    def entries(self) -> Sequence[Entry]:
        return (self.entry,)

    def wire(self) -> Sequence[Buffer]:
        return ()

    def forget(self) -> None:
        """There is nothing to let go of."""


@attrs.define(eq=False)
class Utterance:
    """One message of either side."""

    kind: type[Heard] | type[Said]
    index: int
    time: float
    connection: int
    message: ClientMessage | ServerMessage
    bulk: int = 0
    fixed: int = 0
    sent: Sequence[Buffer] | None = None
    entry: Heard | Said | None = None
    count: int = 1

    @property
    def outgoing(self) -> bool:
        return self.kind is Said

    def entries(self) -> Sequence[Entry]:
        if self.entry is None:
            message, payload = detach(self.message)
            self.message = message
            build: Callable[..., Heard | Said] = self.kind
            self.entry = build(self.index, self.time, self.connection, message, payload)
        return (self.entry,)

    def wire(self) -> Sequence[Buffer]:
        if self.sent is not None:
            return self.sent
        return encode_buffers(self.message if self.entry is None else self.entry.whole)

    def forget(self) -> None:
        self.entries()
        self.bulk = 0
        if self.entry is not None and self.entry.payload is not None:
            self.entry.payload.forget()


@attrs.define(eq=False)
class HeardBatch:
    """Consecutive plain READ and WRITE requests as they came.

    `headers` are those of all requests; `payloads` those of the WRITEs, each in pieces, and None
    once they were let go.
    """

    index: int
    time: float
    connection: int
    count: int
    headers: Buffer
    payloads: Sequence[Sequence[Buffer]] | None
    extended: bool
    structured: bool
    reads: int
    bulk: int = 0
    fixed: int = 0
    outgoing: bool = False
    _entries: Sequence[Heard] | None = None

    def entries(self) -> Sequence[Heard]:
        if self._entries is None:
            self._entries = tuple(
                Heard(self.index + position, self.time, self.connection, request, payload)
                for position, (request, payload) in enumerate(self._heard())
            )
        return self._entries

    def requests(self) -> Iterator[Request]:
        """The requests without their payloads, to pair replies with."""
        header = layout.EXTENDED_REQUEST if self.extended else layout.COMPACT_REQUEST
        for _, flags, command, cookie, offset, length in header.iter_unpack(self.headers):
            yield Request(command, cookie, offset, length, flags, extended=self.extended)

    def _heard(self) -> Iterator[tuple[Request, Payload | None]]:
        payloads = iter(self.payloads or ())
        for request in self.requests():
            payload = None
            if request.command == Command.WRITE:
                pieces = next(payloads, None)
                if request.length:
                    data = None if pieces is None else _joined(pieces)
                    payload = Payload(request.length, data)
            yield request, payload

    def wire(self) -> Sequence[Buffer]:
        if not self.payloads:
            return (self.headers,)
        view = memoryview(self.headers)
        size = len(view) // self.count
        payloads = iter(self.payloads)
        buffers: list[Buffer] = []
        for position, request in enumerate(self.requests()):
            buffers.append(view[position * size : (position + 1) * size])
            if request.command == Command.WRITE:
                buffers += next(payloads)
        return buffers

    def forget(self) -> None:
        self.bulk = 0
        if self._entries is not None:
            for entry in self._entries:
                if entry.payload is not None:
                    entry.payload.forget()
        self.payloads = None


@attrs.define(eq=False)
class SaidBatch:
    """The replies to a batch, one to each request in order: header, then content for a READ."""

    index: int
    time: float
    connection: int
    count: int
    batch: HeardBatch
    buffers: Sequence[Buffer]
    bulk: int
    fixed: int = 0
    outgoing: bool = True
    _entries: Sequence[Said] | None = None
    _forgotten: bool = False

    def entries(self) -> Sequence[Said]:
        if self._entries is None:
            self._entries = tuple(
                Said(self.index + position, self.time, self.connection, reply, payload)
                for position, (reply, payload) in enumerate(self._replies())
            )
        return self._entries

    def _replies(self) -> Iterator[tuple[_Reply, Payload | None]]:
        buffers = iter(self.buffers)
        for request in self.batch.requests():
            header = next(buffers)
            reply, length = _decode_header(header, request)
            payload = None
            if length is not None:
                data = None if self._forgotten else next(buffers)
                payload = Payload(length, data) if length else None
            yield reply, payload

    def wire(self) -> Sequence[Buffer]:
        return self.buffers

    def forget(self) -> None:
        self.bulk = 0
        if self._forgotten:
            return
        if self._entries is not None:
            for entry in self._entries:
                if entry.payload is not None:
                    entry.payload.forget()
        if len(self.buffers) == 2 * self.count:
            self.buffers = self.buffers[::2]
        else:
            self.buffers = tuple(self._headers())
        self._forgotten = True

    def _headers(self) -> Iterator[Buffer]:
        buffers = iter(self.buffers)
        for request in self.batch.requests():
            header = next(buffers)
            yield header
            if _decode_header(header, request)[1] is not None:
                next(buffers)


Record: TypeAlias = Happening | Utterance | HeardBatch | SaidBatch


def _decode_header(header: Buffer, request: Request) -> tuple[_Reply, int | None]:
    """The reply without its content, and the length of the content that follows (None: none)."""
    (magic,) = layout.U32.unpack_from(header)
    if magic == SIMPLE_REPLY_MAGIC:
        _, error, cookie = layout.SIMPLE_REPLY.unpack_from(header)
        follows = request.command == Command.READ and not error
        return SimpleReply(cookie, error), request.length if follows else None
    asked = None
    if magic == STRUCTURED_REPLY_MAGIC:
        form = layout.STRUCTURED_CHUNK
        _, flags, kind, cookie, length = form.unpack_from(header)
    else:
        form = layout.EXTENDED_CHUNK
        _, flags, kind, cookie, asked, length = form.unpack_from(header)
    if kind == ChunkType.OFFSET_DATA:
        (offset,) = layout.U64.unpack_from(header, form.size)
        chunk = Chunk(cookie, Data(offset, b""), flags, request_offset=asked)
        return chunk, length - layout.U64.size
    from fakenbd.protocol.decode_server import decode_reply  # the other half of what a server needs

    decoded = decode_reply(
        header,
        extended=magic == EXTENDED_REPLY_MAGIC,
        structured=True,
        data_length=lambda cookie: 0,
        limit=MAXIMUM_PAYLOAD,
    )
    if decoded is None:
        raise ValueError("a reply of a batch is cut: its header must be whole, its content apart")
    return decoded[0], None


def _joined(pieces: Sequence[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
