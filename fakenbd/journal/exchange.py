"""Plain requests and their replies, one record for all of one receive.

The hot path appends one of these and goes on; whoever looks gets a batch of what was heard and a
batch of what was said, made then and cached. Nothing but that cache ever changes: `lighter` makes
another record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import attrs

from fakenbd.journal.entries import Heard, Said
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
    from fakenbd.export import Source

__all__ = ["Exchange", "HeardBatch", "SaidBatch"]

_Entry = TypeVar("_Entry", Heard, Said)
_Reply: TypeAlias = SimpleReply | Chunk

_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_DATA: Final = int(ChunkType.OFFSET_DATA).to_bytes(2, "big")


@attrs.define(eq=False)
class Exchange:
    """Consecutive plain READs and WRITEs as they came, and the replies to them, in order.

    `headers` are those of all requests, `payloads` those of the WRITEs, each in pieces, and None
    once they were let go; `buffers` are as in `SaidBatch`. Where there are none, all requests are
    READs that succeeded, and their content is read from the `source` again. `count` is of requests
    and replies together; `at` and `said_at` are the stream offsets of the first of each.
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
    at: int
    said_at: int
    bulk: int
    fixed: int
    _light: bool = False
    _parts: tuple[HeardBatch, SaidBatch] | None = None

    def parts(self) -> tuple[HeardBatch, SaidBatch]:
        parts = self._parts
        if parts is None:
            count = self.count // 2
            index, time, connection = self.index, self.time, self.connection
            heard = HeardBatch(
                index, time, connection, count, self.at, self.headers, self.payloads, self.extended
            )
            said = SaidBatch(
                index + count,
                time,
                connection,
                count,
                self.said_at,
                heard,
                self.buffers,
                self.structured,
                None if self.buffers else self.source,
                self._light,
            )
            self._parts = parts = heard, said
        return parts

    def entries(self) -> Sequence[Heard | Said]:
        heard, said = self.parts()
        return *heard.entries(), *said.entries()

    def lighter(self) -> Exchange:
        if not self.bulk:
            return self
        headers = self._reply_headers()
        parts = self._parts
        if parts is not None:
            heard, said = parts
            heard = attrs.evolve(heard, payloads=None, entries=_light(heard.decoded))
            said = attrs.evolve(
                said, batch=heard, buffers=headers, light=True, entries=_light(said.decoded)
            )
            parts = heard, said
        return Exchange(
            self.index,
            self.time,
            self.connection,
            self.count,
            self.headers,
            None,
            headers,
            self.extended,
            self.structured,
            None,
            self.at,
            self.said_at,
            0,
            self.fixed,
            True,
            parts,
        )

    def _reply_headers(self) -> Sequence[Buffer]:
        each, rest = divmod(len(self.buffers), self.count // 2)
        if not rest:
            # All with content, or none, as nearly always: nobody need look into them.
            return self.buffers[::each]
        headers, buffers = [], iter(self.buffers)
        for _, _, command, *_ in _form(self.extended).iter_unpack(self.headers):
            header = next(buffers)
            headers.append(header)
            if _has_content(header, command):
                next(buffers)
        return headers


@attrs.define(eq=False)
class HeardBatch:
    """The requests of an exchange.

    `payloads` are those of the WRITEs, each in pieces, and None once they were let go.
    """

    index: int
    time: float
    connection: int
    count: int
    at: int
    headers: Buffer
    payloads: Sequence[Sequence[Buffer]] | None
    extended: bool
    outgoing: bool = False
    decoded: Sequence[Heard] | None = attrs.field(default=None, alias="entries")

    def entries(self) -> Sequence[Heard]:
        entries = self.decoded
        if entries is None:
            self.decoded = entries = tuple(self._decode())
        return entries

    def requests(self) -> Iterator[Request]:
        """The requests without their payloads, to pair replies with."""
        for _, flags, command, cookie, offset, length in _form(self.extended).iter_unpack(
            self.headers
        ):
            yield Request(command, cookie, offset, length, flags, extended=self.extended)

    def _decode(self) -> Iterator[Heard]:
        payloads = iter(self.payloads or ())
        at = self.at
        for index, request in enumerate(self.requests(), self.index):
            payload = None
            if request.command == _WRITE:
                pieces = next(payloads, None)
                if request.length:
                    data = None if pieces is None else _joined(pieces)
                    payload = Payload(request.length, data)
            yield Heard(index, self.time, self.connection, request, payload, at)
            at += _form(self.extended).size + (payload.length if payload is not None else 0)

    def wire(self) -> Sequence[Buffer]:
        if not self.payloads:
            return (self.headers,)
        view = memoryview(self.headers)
        size = len(view) // self.count
        payloads = iter(self.payloads)
        buffers: list[Buffer] = []
        for position, request in enumerate(self.requests()):
            buffers.append(view[position * size : (position + 1) * size])
            if request.command == _WRITE:
                buffers += next(payloads)
        return buffers


@attrs.define(eq=False)
class SaidBatch:
    """The replies of an exchange: for each a header, then content where a READ succeeded.

    Once it is `light` the content is gone, and `buffers` are the headers alone. With a `source`
    there are no buffers: every reply is a whole READ's.
    """

    index: int
    time: float
    connection: int
    count: int
    at: int
    batch: HeardBatch
    buffers: Sequence[Buffer]
    structured: bool
    source: Source | None
    light: bool
    outgoing: bool = True
    decoded: Sequence[Said] | None = attrs.field(default=None, alias="entries")

    def entries(self) -> Sequence[Said]:
        entries = self.decoded
        if entries is None:
            self.decoded = entries = tuple(self._decode())
        return entries

    def wire(self) -> Sequence[Buffer]:
        return self.buffers

    def _decode(self) -> Iterator[Said]:
        replies = self._replies() if self.source is None else self._read_again(self.source)
        at, about = self.at, self.batch.index
        for place, (reply, payload, size) in enumerate(replies):
            yield Said(
                self.index + place, self.time, self.connection, reply, payload, at, about + place
            )
            at += size + (payload.length if payload is not None else 0)

    def _replies(self) -> Iterator[tuple[_Reply, Payload | None, int]]:
        """Each reply without its content, the content, and the length of the header."""
        buffers = iter(self.buffers)
        for request in self.batch.requests():
            header = next(buffers)
            reply, length = _decode_header(header, request)
            payload = None
            if length is not None:
                data = None if self.light else next(buffers)
                payload = Payload(length, data) if length else None
            yield reply, payload, len(header)

    def _read_again(self, source: Source) -> Iterator[tuple[_Reply, Payload | None, int]]:
        form = layout.EXTENDED_CHUNK if self.batch.extended else layout.STRUCTURED_CHUNK
        for request in self.batch.requests():
            cookie, offset, length = request.cookie, request.offset, request.length
            payload = Payload(length, partial(source, offset, length))
            if self.structured:
                asked = offset if self.batch.extended else None
                body = Data(offset, b"")
                chunk = Chunk(cookie, body, ChunkFlag.DONE.value, request_offset=asked)
                yield chunk, payload, form.size + layout.U64.size
            else:
                yield SimpleReply(cookie), payload, layout.SIMPLE_REPLY.size


def _form(extended: bool) -> Struct:
    return layout.EXTENDED_REQUEST if extended else layout.COMPACT_REQUEST


def _light(entries: Sequence[_Entry] | None) -> Sequence[_Entry] | None:
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
    from fakenbd.protocol.decode_server import decode_reply  # the other half of what a server needs

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
