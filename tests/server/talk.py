"""A conversation as bytes: a server without sockets, and what a client says to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.profile import Handshake
from fakenbd.protocol.constants import Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    ClientFlags,
    ClientMessage,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
)
from fakenbd.server.conversation import Conversation
from fakenbd.server.service import Service

__all__ = ["Talk", "handshake"]


def handshake(*, structured: bool = False, context: str = "", name: str = "") -> bytes:
    """What a plain client says before its first request."""
    said: list[ClientMessage] = [ClientFlags(3)]
    if structured:
        said.append(OptionRequest(Option.STRUCTURED_REPLY))
    if context:
        query = MetaContextQuery(name, [context])
        said.append(OptionRequest(Option.SET_META_CONTEXT, query))
    said.append(OptionRequest(Option.GO, InfoQuery(name, [3])))
    return b"".join(encode(message) for message in said)


@attrs.define(eq=False)
class Talk:
    """One connection to a server of `exports`; what it answers is collected in `answers`."""

    exports: Sequence[Export]
    faults: Faults = attrs.field(factory=Faults)
    options: dict[str, Any] = attrs.field(factory=dict)
    speaks: Handshake = attrs.field(factory=Handshake)
    answers: bytearray = attrs.field(factory=bytearray)
    markers: list[object] = attrs.field(factory=list)
    service: Service = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.service = Service.of(
            self.exports,
            handshake=self.speaks,
            faults=self.faults,
            journal=Journal(lambda: 0.0, **self.options),
            clock=lambda: 0.0,
        )
        self.connect()

    @property
    def journal(self) -> Journal:
        return self.service.journal

    def connect(self) -> None:
        """Begin a connection."""
        self.service.connections += 1
        number = self.service.connections
        self.journal.connected(number, "client", "memory")
        self.conversation = Conversation(self.service, number)
        self.conversation.begin()
        self.collect()

    def say(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Let `data` come in, in pieces that end at `cuts`, until the server has said goodbye."""
        start = 0
        for end in (*sorted(cuts), len(data)):
            while start < end and not self.markers:
                room = self.conversation.room()
                count = min(len(room), end - start)
                room[:count] = data[start : start + count]
                start += count
                self.conversation.received(count)
                self.collect()

    def leave(self) -> None:
        """The client is gone."""
        self.conversation.end("client", "EOF")
        self.conversation.closed()

    def collect(self) -> None:
        """Take what is ready to leave."""
        conversation = self.conversation
        while True:
            agenda = conversation.agenda
            ready, agenda.ready, agenda.marked = agenda.ready, [], False
            for departure in ready:
                if isinstance(departure, bytes | bytearray | memoryview):
                    self.answers += departure
                else:
                    self.markers.append(departure)
            if not conversation.more:
                return
            conversation.resume()
