"""THE HOT PATH: where requests are parsed, answered and gathered. One place, one loop.

Whole requests are taken straight out of the receive buffer. A run of plain ones (READ and WRITE
without flags, in bounds, that no fault wants and no obligation can object to) is answered here:
a header packed, a slice of content that nobody copied, both appended to one list that one system
call sends and the journal keeps as it is. Anything else ends the run and is answered at leisure by
`commands`, through the teller.

What this loop must not do, for it runs once for every request of a client's life: create objects
that are not sent, call a function that is not needed, look anything up twice, copy content, read a
clock, wait. And it must not answer otherwise than the leisurely way would, which a test compares.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.faults.answer import CloseConnection
from fakenbd.faults.event import Event
from fakenbd.protocol.constants import (
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
)
from fakenbd.protocol.decode_client import decode_request, decode_request_header, payload_length
from fakenbd.protocol.messages import Buffer
from fakenbd.server.commands import answer_command
from fakenbd.server.teller import Teller
from fakenbd.server.terms import LARGEST_PAYLOAD

__all__ = ["Transmission"]

_HEADER: Final = 28
_REQUEST: Final = struct.Struct(">QQQL")  # magic, flags and command as one number
_PLAIN_READ: Final = REQUEST_MAGIC << 32 | Command.READ
_PLAIN_WRITE: Final = REQUEST_MAGIC << 32 | Command.WRITE
_SIMPLE: Final = struct.Struct(">LLQ").pack
_DATA: Final = struct.Struct(">LHHQLQ").pack
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_LEAD: Final = STRUCTURED_REPLY_MAGIC, ChunkFlag.DONE.value, ChunkType.OFFSET_DATA.value

_READ_REPLY: Final = {False: 16, True: 28}
"""Bytes of the header of a simple reply, and of a data chunk with its offset."""

_GATHER: Final = 1 << 23
"""Replies of so many bytes are sent before more requests are looked at."""


@attrs.define(eq=False)
class Transmission:
    """The transmission phase of one connection.

    `needed` is how many bytes the message at the front of the buffer takes in all, as far as is
    known; `more` that `take` stopped because enough was gathered; `left` that DISC came;
    `over` that an answer ends the connection.
    """

    teller: Teller
    needed: int = 1
    more: bool = False
    left: bool = False
    over: bool = False
    refused: str = ""
    """Why the connection cannot go on, when its bytes make no sense or ask for too much."""

    def take(self, buffer: bytearray, view: memoryview, position: int, end: int) -> int:
        """Answer all whole requests in buffer[position:end]; returns where it stopped."""
        self.more = False
        self.needed = 1
        while not (self.left or self.over or self.refused or self.more):
            position = self._run(buffer, view, position, end)
            if self.more or end - position < self.needed:
                break
            after = self._one(view[position:end])
            if not after:
                break
            position += after
        return position

    def _run(self, buffer: bytearray, view: memoryview, position: int, end: int) -> int:
        teller = self.teller
        terms, watch = teller.terms, teller.watch
        export = terms.export
        if export is None or terms.extended or not watch.clean or teller.shutting_down:
            return position
        if teller.agenda.blocked:
            return position
        structured = terms.structured
        touched = teller.faults.touched_commands
        reading = _READ not in touched and not (structured and export.sparse)
        writing = _WRITE not in touched and watch.clean_writes
        size = min(watch.clean_end, export.size)
        mask, pending = watch.clean_mask, watch.pending
        maximum = min(watch.clean_maximum, terms.maximum_payload)
        cookies: set[int]
        unpack, read, cookies = _REQUEST.unpack_from, export.read, set()
        magic, done, data = _LEAD
        out: list[Buffer] = []
        payloads: list[Sequence[bytes]] = []
        runs: list[Buffer] = []
        add, cookie_seen = out.append, cookies.add
        first, start, total = position, position, 0
        while end - position >= _HEADER and total < _GATHER:
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
                if structured:
                    add(_DATA(magic, done, data, cookie, length + 8, offset))
                else:
                    add(_SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie))
                add(read(offset, length))
                total += length
                position += _HEADER
            elif head == _PLAIN_WRITE:
                payload = position + _HEADER
                if not writing:
                    break
                if end - payload < length:
                    self.needed = _HEADER + length
                    break
                position = payload + length
                # The one copy of what is written: the export keeps it, and so does the journal.
                payloads.append(export.write(offset, view[payload:position]))
                runs.append(view[start:payload])
                start = position
                read = export.read
                add(_SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie))
            else:
                break
            cookie_seen(cookie)
        if out:
            runs.append(view[start:position])
            headers = b"".join(runs)
            count = len(headers) // _HEADER
            reads = count - len(payloads)
            journal = teller.service.journal
            journal.plain_batch(
                teller.connection,
                headers,
                count,
                payloads,
                out,
                extended=False,
                structured=structured,
                stable_read=export.stable_read,
                received=position - first,
                sent=total + reads * _READ_REPLY[structured] + len(payloads) * _READ_REPLY[False],
            )
            teller.agenda.gathered(out, count)
            self.more = total >= _GATHER
        return position

    def _one(self, view: memoryview) -> int:
        """Answer the request at the front of `view`, whatever it is; 0 if it is not whole yet."""
        teller = self.teller
        extended = teller.terms.extended
        head = 32 if extended else _HEADER
        try:
            header = decode_request_header(view, extended=extended)
            if header is None:
                self.needed = 1
                return 0
            length = payload_length(header)
            if length > LARGEST_PAYLOAD:
                self.refused = f"a request announced a payload of {length} bytes"
                teller.hear(header, head, lambda: teller.watch.request(header))
                return 0
            decoded = decode_request(view, extended=extended, limit=LARGEST_PAYLOAD)
        except ProtocolError as error:
            teller.blame(teller.watch.misframed(view[:8]))
            self.refused = str(error)
            return 0
        if decoded is None:
            self.needed = head + length
            return 0
        request, taken = decoded
        teller.hear(request, taken, lambda: teller.watch.request(request))
        terms = teller.terms
        if request.command == Command.DISC:
            # The command has no reply, so a fault on it has only the closing to change.
            truth = []
            self.left = True
        else:
            truth = answer_command(terms, request, shutting_down=teller.shutting_down)
        event = Event(
            "command",
            teller.connection,
            request=request,
            tls=terms.tls,
            structured=terms.structured,
            extended=terms.extended,
            export=terms.export_name,
        )
        answer = teller.tell((event,), truth)
        # One request at a time while a flood of content waits to leave.
        self.more = request.length >= _GATHER and bool(answer)
        if any(isinstance(step, CloseConnection) for step in answer):
            self.over = True
        return taken
