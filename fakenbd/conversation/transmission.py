"""The transmission phase: requests taken straight out of the receive buffer. The hot path.

A run of plain READs and WRITEs (no flags, within the limits of both source and observer, no fault
armed for the command) is answered here: a packed header and an uncopied slice of content, both
appended to one list that one system call sends and the journal keeps as it is. Any other request is
answered by the responder, one at a time.

A batch is put in an empty queue and nothing is put behind it before it has left, so that journal
and observer get everything in the order of events.

The loop runs once for every request. It must not create objects that are not sent, make a function
call that is not needed, look anything up twice, copy content, read a clock, or wait. Its replies
must always equal the responder's, which a test compares.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import attrs

from fakenbd.conversation.framing import HEADER, frame
from fakenbd.conversation.responder import Responder
from fakenbd.conversation.send_item import Batch
from fakenbd.conversation.send_queue import TURN_BYTES, TURN_MESSAGES
from fakenbd.errors import ProtocolError
from fakenbd.export import Export
from fakenbd.protocol.constants import (
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
)
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import Buffer, Request

__all__ = ["Transmission"]

_REQUEST: Final = struct.Struct(">QQQL")  # magic, flags and command as one number
_HEAD: Final = struct.Struct(">Q").unpack_from
_PLAIN_READ: Final = REQUEST_MAGIC << 32 | Command.READ
_PLAIN_WRITE: Final = REQUEST_MAGIC << 32 | Command.WRITE
_SIMPLE: Final = struct.Struct(">LLQ").pack
_DATA: Final = struct.Struct(">LHHQLQ").pack
_SIMPLE_SIZE: Final = 16
_DATA_SIZE: Final = 28
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_LEAD: Final = STRUCTURED_REPLY_MAGIC, ChunkFlag.DONE.value, ChunkType.OFFSET_DATA.value
_NOTHING: Final = Limits(0, 0)


@attrs.define(eq=False)
class Transmission:
    """`needed` is the size in bytes of the first message in the buffer, as far as is known; `more`:
    `take` stopped because its replies have to leave first.
    """

    responder: Responder
    needed: int = 1
    more: bool = False
    refused: str = ""
    """Why the connection has to end: the bytes do not decode, or announce too much."""
    disconnected: bool = False
    """Whether NBD_CMD_DISC was received."""
    _limits: Limits = _NOTHING
    _reads: bool = False
    _writes: bool = False
    _export: Export | None = None
    _read: Limits | None = None
    _write: Limits | None = None
    _sparse: bool | None = None
    _failure: Exception | None = None
    """The exception of the next request's content, if it was tried."""
    _careful: int = 0
    """Bytes of requests that have to be shown to the observer one by one."""

    def take(self, buffer: bytearray, view: memoryview, position: int, end: int) -> int:
        """Answer whole requests in buffer[position:end]; returns where it stopped."""
        queue = self.responder.queue
        self.more = False
        self.needed = 1
        export = self._fast()
        turn = TURN_MESSAGES
        while position < end:
            if not (export is None or queue.out or self._failure or self._careful):
                start = position
                position = self._run(export, buffer, view, position, end)
                if position > start:
                    self.more = end - position >= self.needed
                    break
            if end - position < self.needed:
                break
            after = self._one(view[position:end])
            if not after:
                break
            position += after
            self._careful = max(0, self._careful - after)
            turn -= 1
            if self.disconnected or queue.is_silent:
                break
            if (
                not turn
                or queue.size >= TURN_BYTES
                or (
                    # A batch has to wait for all before it, but not for a client that reads late.
                    export is not None
                    and queue.out
                    and not (queue.blocked or self._careful)
                    and self._is_plain(buffer, position, end)
                )
            ):
                self.more = position < end
                break
        return position

    def _fast(self) -> Export | None:
        """The export that plain requests read from and write to; None if there is no fast path."""
        responder = self.responder
        if responder.shutting_down or responder.queue.is_silent:
            return None
        export = self._export
        if export is None:
            # One export for as long as the connection lasts.
            export = self._export = responder.shared.source.direct(responder.state)
            if export is None:
                return None
        limits = responder.observer.limits
        read, write = limits(_READ), limits(_WRITE)
        if read is not self._read or write is not self._write or export.sparse is not self._sparse:
            self._read, self._write, self._sparse = read, write, export.sparse
            self._combine(read, write)
        return export if self._reads or self._writes else None

    def _combine(self, read: Limits | None, write: Limits | None) -> None:
        """Set the limits to what both the observer (the given limits) and the source allow."""
        source, state = self.responder.shared.source, self.responder.state
        reads, writes = source.limits(state, _READ), source.limits(state, _WRITE)
        read = None if reads is None or read is None else reads & read
        write = None if writes is None or write is None else writes & write
        self._reads, self._writes = read is not None, write is not None
        both = [limits for limits in (read, write) if limits is not None]
        self._limits = both[0] & both[-1] if both else _NOTHING

    def _is_plain(self, buffer: bytearray, position: int, end: int) -> bool:
        if end - position < HEADER:
            return False
        (head,) = _HEAD(buffer, position)
        touched = self.responder.faults.touched_commands
        return (head == _PLAIN_READ and self._reads and _READ not in touched) or (
            head == _PLAIN_WRITE and self._writes and _WRITE not in touched
        )

    def _run(
        self, export: Export, buffer: bytearray, view: memoryview, position: int, end: int
    ) -> int:
        responder = self.responder
        touched = responder.faults.touched_commands
        reading = self._reads and _READ not in touched
        writing = self._writes and _WRITE not in touched
        limits = self._limits
        size, maximum, mask = limits.end, limits.maximum, limits.mask
        pending = responder.observer.in_flight
        structured = responder.state.structured
        cookies: set[int]
        unpack, read, cookies = _REQUEST.unpack_from, export.read, set()
        magic, done, data = _LEAD
        out: list[Buffer] = []
        payloads: list[Sequence[bytes]] = []
        runs: list[Buffer] = []
        add, cookie_seen = out.append, cookies.add
        first = start = position
        total = 0
        try:
            while end - position >= HEADER and total < TURN_BYTES:
                head, cookie, offset, length = unpack(buffer, position)
                if (
                    not 0 < length <= maximum
                    or offset + length > size
                    or (offset | length) & mask
                    or cookie in pending
                    or cookie in cookies
                ):
                    break
                if head == _PLAIN_READ:
                    if not reading:
                        break
                    content = read(offset, length)
                    if structured:
                        add(_DATA(magic, done, data, cookie, length + 8, offset))
                    else:
                        add(_SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie))
                    add(content)
                    total += length
                    position += HEADER
                elif head == _PLAIN_WRITE:
                    payload = position + HEADER
                    if not writing:
                        break
                    if end - payload < length:
                        self.needed = HEADER + length
                        break
                    # The only copy of written data, shared by the export and the journal.
                    payloads.append(export.write(offset, view[payload : payload + length]))
                    position = payload + length
                    runs.append(view[start:payload])
                    start = position
                    read = export.read
                    add(_SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie))
                else:
                    break
                cookie_seen(cookie)
        except Exception as error:
            # The content could not be read or written: the responder answers, next.
            self._failure = error
        if out and end - position >= HEADER and unpack(buffer, position)[1] in cookies:
            # A cookie comes again before its reply has left: the observer has to see both.  C-72
            self._careful = position + 1 - first
            self._failure = None
            return first
        if out:
            runs.append(view[start:position])
            headers = b"".join(runs)
            count = len(headers) // HEADER
            writes = len(payloads)
            reply = _DATA_SIZE if structured else _SIMPLE_SIZE
            sent = total + (count - writes) * reply + writes * _SIMPLE_SIZE
            batch = Batch(
                out,
                sent,
                headers,
                count,
                payloads,
                position - first,
                structured,
                export.stable_read,
            )
            responder.queue.put_batch(batch)
        return position

    def _one(self, view: memoryview) -> int:
        """Answer the first request in `view`, whatever it is; returns 0 if it is not whole yet."""
        responder = self.responder
        extended = responder.state.extended
        try:
            request, size = frame(view, extended=extended)
        except ProtocolError as error:
            self.refused = str(error)
            return 0
        if request is None:
            self.needed = size
            return 0
        entry = responder.received(request, size)
        if not isinstance(request, Request):
            self.refused = "an option came where a request was due"
            return size
        if request.extended != extended:
            self.refused = "a request has the form of header that was not negotiated"
            return size
        failure, self._failure = self._failure, None
        self.answer(request, entry, failure)
        return size

    def answer(self, request: Request, entry: int, failure: Exception | None = None) -> None:
        """Answer a request that was recorded as `entry` of the journal."""
        self.responder.request(request, entry, failure)
        self.disconnected = request.command == Command.DISC
