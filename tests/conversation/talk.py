"""A conversation as bytes: a server without sockets, and what a client says to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from fakenbd.conversation import Handshake
from fakenbd.conversation.conversation import Conversation
from fakenbd.conversation.export_options import Catalogue
from fakenbd.conversation.shared_state import SharedState
from fakenbd.conversation.source import ExportSource
from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.faults.answer import CloseConnection
from fakenbd.journal import Journal
from fakenbd.protocol.constants import Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    ClientFlags,
    ClientMessage,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
)

__all__ = ["Talk", "handshake"]


def handshake(
    *, structured: bool = False, context: str = "", name: str = "", sizes: bool = True
) -> bytes:
    """What a plain client says before its first request; `sizes`: it asks for block sizes."""
    said: list[ClientMessage] = [ClientFlags(3)]
    if structured:
        said.append(OptionRequest(Option.STRUCTURED_REPLY))
    if context:
        query = MetaContextQuery(name, [context])
        said.append(OptionRequest(Option.SET_META_CONTEXT, query))
    said.append(OptionRequest(Option.GO, InfoQuery(name, [3] if sizes else [])))
    return b"".join(encode(message) for message in said)


@attrs.define(eq=False)
class Talk:
    """One connection to a server of `exports`; what leaves is collected in `answers`.

    `markers` are the actions that were asked of the owner, up to the one that ends the connection.
    `now` is the time, which stands still unless somebody sets it.
    """

    exports: Sequence[Export]
    faults: Faults = attrs.field(factory=Faults)
    options: dict[str, Any] = attrs.field(factory=dict)
    speaks: Handshake = attrs.field(factory=Handshake)
    answers: bytearray = attrs.field(factory=bytearray)
    markers: list[Any] = attrs.field(factory=list)
    shared: SharedState = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)
    over: bool = False
    now: float = 0.0

    def __attrs_post_init__(self) -> None:
        exports = {export.name: export for export in self.exports}
        self.shared = SharedState(
            ExportSource(Catalogue(exports, self.speaks)),
            self.speaks,
            self.faults,
            Journal(lambda: self.now, **self.options),
            lambda: self.now,
        )
        self.connect()

    @property
    def journal(self) -> Journal:
        return self.shared.journal

    def connect(self) -> None:
        """Begin a connection."""
        self.over = False
        self.shared.connections += 1
        number = self.shared.connections
        self.journal.connected(number, "client", "memory")
        self.conversation = Conversation(self.shared, number)
        self.conversation.begin()
        self.collect()

    def say(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Let `data` come in, in pieces that end at `cuts`, until the server has ended."""
        conversation = self.conversation
        start = 0
        for end in (*sorted(cuts), len(data)):
            while start < end and not self.over and conversation.reads:
                room = conversation.get_buffer()
                count = min(len(room), end - start)
                room[:count] = data[start : start + count]
                start += count
                conversation.buffer_updated(count)
                self.collect()

    def wait(self) -> None:
        """Let time pass until nothing waits for it any more."""
        conversation = self.conversation
        while not self.over and conversation.deadline() < float("inf"):
            self.now = conversation.deadline()
            conversation.advance()
            self.collect()

    def leave(self) -> None:
        """The client is gone."""
        self.conversation.client_closed("EOF")
        self.conversation.closed()

    def collect(self) -> None:
        """Take what leaves."""
        conversation = self.conversation
        while not self.over:
            buffers = conversation.outgoing()
            action = conversation.action
            if buffers:
                data = b"".join(buffers)
                self.answers += data
                conversation.left(len(data))
            elif action is not None:
                self.markers.append(action)
                self.over = isinstance(action, CloseConnection) and not action.reading
                if not self.over:
                    conversation.acted()
                if isinstance(action, CloseConnection) and action.reading:
                    conversation.discard(action)
            elif conversation.more:
                conversation.resume()
            else:
                return
