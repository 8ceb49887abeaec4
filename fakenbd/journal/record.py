"""What the ring holds: records, which become entries only when somebody looks.

Recording must cost next to nothing, looking may cost. So a message is kept as it came, and all
the plain requests of one receive are one record with their replies (`exchange`). A record counts
for as many entries as it will become. All kinds of record answer alike:

    entries()   what it means, the same objects each time
    parts()     what sinks take: itself, or a record for each side
    forget()    lets go of the bulk bytes
    bulk        bytes that `forget` lets go of;  fixed: bytes that stay, where they are many

and its parts also

    wire()      the bytes on the wire, complete only while the part is handed to the sinks
    outgoing    whether the server said it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from fakenbd.journal.entries import Connected, Ended, Entry, Failed, Heard, Said, Struck, Violated
from fakenbd.journal.exchange import Exchange, HeardBatch, SaidBatch
from fakenbd.journal.payload import detach
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Buffer, ClientMessage, ServerMessage

__all__ = ["Happening", "Part", "Record", "Utterance"]


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

    def parts(self) -> Sequence[Happening]:
        return (self,)

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

    def parts(self) -> Sequence[Utterance]:
        return (self,)

    def wire(self) -> Sequence[Buffer]:
        if self.sent is not None:
            return self.sent
        return encode_buffers(self.message if self.entry is None else self.entry.whole)

    def forget(self) -> None:
        self.entries()
        self.bulk = 0
        if self.entry is not None and self.entry.payload is not None:
            self.entry.payload.forget()


Part: TypeAlias = Happening | Utterance | HeardBatch | SaidBatch
Record: TypeAlias = Happening | Utterance | Exchange
