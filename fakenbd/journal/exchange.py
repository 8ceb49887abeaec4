"""Plain requests and their replies, one record for all of one receive.

The hot path appends one of these and goes on; whoever looks gets a batch of what was heard and a
batch of what was said, made then and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fakenbd.journal.entries import Heard, Said
from fakenbd.journal.payload import Payload
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    MAXIMUM_PAYLOAD,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
)
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Buffer, Chunk, Data, Request, SimpleReply

if TYPE_CHECKING:
    from fakenbd.export import Source

__all__ = ["Exchange", "HeardBatch", "SaidBatch"]

_Reply: TypeAlias = SimpleReply | Chunk


@attrs.define(eq=False)
class Exchange:
    """Consecutive plain READs and WRITEs as they came, and the replies to them, in order.

    `headers` are those of all requests, `payloads` those of the WRITEs, each in pieces; `buffers`
    are what `SaidBatch` says. Where all are READs of a `source`, there need be no buffers: what
    was said can be said again. `count` is of requests and replies together.
    """

    index: int
    time: float
    connection: int
    count: int
    headers: Buffer
    payloads: Sequence[Sequence[Buffer]] | None
    buffers: Sequence[Buffer]
    extended: bool
    structured: bool
    source: Source | None
    bulk: int
    fixed: int
    _forgotten: bool = False
    _parts: tuple[HeardBatch, SaidBatch] | None = None

    def parts(self) -> tuple[HeardBatch, SaidBatch]:
        if self._parts is None:
            count = self.count // 2
            index, time, connection = self.index, self.time, self.connection
            heard = HeardBatch(
                index, time, connection, count, self.headers, self.payloads, self.extended
            )
            buffers = self.buffers or tuple(self._replies(heard))
            said = SaidBatch(
                index + count, time, connection, count, heard, buffers, self._forgotten
            )
            self._parts = heard, said
            self.payloads, self.buffers = None, ()
        return self._parts

    def _replies(self, heard: HeardBatch) -> Iterator[Buffer]:
        """Header and content of each reply, from the source."""
        assert self.source is not None, "what has no source keeps its buffers"
        for request in heard.requests():
            data = self.source(request.offset, request.length)
            reply: _Reply = SimpleReply(request.cookie, 0, data)
            if self.structured:
                body = Data(request.offset, data)
                reply = Chunk(request.cookie, body, flags=ChunkFlag.DONE.value)
            yield from encode_buffers(reply)

    def entries(self) -> Sequence[Heard | Said]:
        heard, said = self.parts()
        return *heard.entries(), *said.entries()

    def forget(self) -> None:
        if not self.bulk:
            return
        self.bulk = 0
        each, rest = divmod(len(self.buffers), self.count // 2)
        if self._parts is None and not rest:
            # All with content, or none, as nearly always: nobody need look into them.
            self.buffers = self.buffers[::each]
            self.payloads = None
        else:
            for part in self.parts():
                part.forget()
        self._forgotten = True


@attrs.define(eq=False)
class HeardBatch:
    """The requests of an exchange.

    `payloads` are those of the WRITEs, each in pieces, and None once they were let go.
    """

    index: int
    time: float
    connection: int
    count: int
    headers: Buffer
    payloads: Sequence[Sequence[Buffer]] | None
    extended: bool
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
        _forget(self._entries)
        self.payloads = None


@attrs.define(eq=False)
class SaidBatch:
    """The replies of an exchange: for each a header, then content where a READ succeeded.

    Once it was `forgotten` the content is gone, and `buffers` are the headers alone.
    """

    index: int
    time: float
    connection: int
    count: int
    batch: HeardBatch
    buffers: Sequence[Buffer]
    forgotten: bool
    outgoing: bool = True
    _entries: Sequence[Said] | None = None

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
                data = None if self.forgotten else next(buffers)
                payload = Payload(length, data) if length else None
            yield reply, payload

    def wire(self) -> Sequence[Buffer]:
        return self.buffers

    def forget(self) -> None:
        _forget(self._entries)
        self.buffers = tuple(self._headers())
        self.forgotten = True

    def _headers(self) -> Iterator[Buffer]:
        buffers = iter(self.buffers)
        for request in self.batch.requests():
            header = next(buffers)
            yield header
            if _decode_header(header, request)[1] is not None:
                next(buffers)


def _forget(entries: Iterable[Heard | Said] | None) -> None:
    for entry in entries or ():
        if entry.payload is not None:
            entry.payload.forget()


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
