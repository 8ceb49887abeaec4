"""Records, which the ring holds, and which become entries only when they are read.

Recording must cost next to nothing, reading may cost more. So a message is kept as it came, and all
the plain requests of one receive are one record with their replies (`plain_batch`). A record
counts for as many entries as it will become. All kinds of record have the same interface:

    entries()   its entries, the same objects each time
    parts()     what sinks take: itself, or a record for each side
    lighter()   the same record without the bulk bytes
    bulk        bytes that are missing from `lighter`;  fixed: bytes that stay, where they are many

and its parts also

    wire()      the bytes on the wire, complete only while the part is handed to the sinks
    outgoing    whether it is a message of the server

A record never changes, so that any thread may read it while another one records; only its decoded
entries are cached, by one assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

from fakenbd.journal.entries import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Noted,
    Received,
    Sent,
    Violated,
)
from fakenbd.journal.payload import Payload, detach
from fakenbd.journal.plain_batch import PlainBatch, ReceivedBatch, SentBatch
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Buffer, ClientMessage, ServerMessage

__all__ = ["EventRecord", "MessageRecord", "Part", "Record"]


@attrs.define(eq=False)
class EventRecord:
    """A record of anything but a message: the entry itself."""

    entry: Connected | FaultFired | Violated | Closed | InternalFailure | Noted
    index: int
    time: float
    connection: int | None
    count: int = 1
    bulk: int = 0
    fixed: int = 0
    outgoing: bool = False

    def entries(self) -> Sequence[Entry]:
        return (self.entry,)

    def parts(self) -> Sequence[EventRecord]:
        return (self,)

    def wire(self) -> Sequence[Buffer]:
        return ()

    def lighter(self) -> EventRecord:
        return self


@attrs.define(eq=False)
class MessageRecord:
    """One message of either side; `sent` are the bytes that left, if not its encoding.

    `origin` is `(at,)` for a message received and `(at, about)` for one sent.
    """

    kind: type[Received] | type[Sent]
    index: int
    time: float
    connection: int
    message: ClientMessage | ServerMessage
    origin: tuple[int] | tuple[int, int | None]
    bulk: int = 0
    fixed: int = 0
    sent: Sequence[Buffer] | None = None
    entry: Received | Sent | None = None
    count: int = 1

    @property
    def outgoing(self) -> bool:
        return self.kind is Sent

    def entries(self) -> Sequence[Received | Sent]:
        entry = self.entry
        if entry is None:
            self.entry = entry = self._entry(*detach(self.message))
        return (entry,)

    def _entry(self, message: Any, payload: Payload | None) -> Received | Sent:
        build: Callable[..., Received | Sent] = self.kind
        return build(self.index, self.time, self.connection, message, payload, *self.origin)

    def parts(self) -> Sequence[MessageRecord]:
        return (self,)

    def wire(self) -> Sequence[Buffer]:
        if self.sent is not None:
            return self.sent
        return encode_buffers(self.message)

    def lighter(self) -> MessageRecord:
        if not self.bulk:
            return self
        entry = self.entry
        message, payload = detach(self.message) if entry is None else (entry.message, entry.payload)
        light = self._entry(message, payload.lighter() if payload is not None else None)
        stamp = self.index, self.time, self.connection
        return MessageRecord(self.kind, *stamp, message, self.origin, 0, self.fixed, None, light)


Part: TypeAlias = EventRecord | MessageRecord | ReceivedBatch | SentBatch
Record: TypeAlias = EventRecord | MessageRecord | PlainBatch
