"""A client on a socket that asks many things at once and keeps every answer as it came."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from fakenbd.protocol.constants import ChunkFlag, ClientFlag, Info, Option
from fakenbd.protocol.decode import decode_greeting, decode_option_reply, decode_reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    ErrorReply,
    Greeting,
    InfoQuery,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    Request,
    SimpleReply,
)
from fakenbd.protocol.uri import Uri

__all__ = ["Wire"]


@attrs.define(eq=False)
class Wire:
    """A connection; `contexts` are the names of the ids that the server gave out."""

    sock: socket.socket
    structured: bool = False
    contexts: dict[int, str] = attrs.field(factory=dict)
    incoming: bytes = b""

    @classmethod
    def to(cls, uri: str) -> Wire:
        where = Uri.parse(uri)
        if where.transport == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(where.socket)
        else:
            sock = socket.create_connection((where.host, where.port))
        sock.settimeout(60)
        return cls(sock)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, *messages: ClientMessage) -> None:
        self.sock.sendall(b"".join(map(encode, messages)))

    def hear(self, decode: Callable[..., Any], **options: Any) -> Any:
        """One message of the server, None at the end of its words."""
        while True:
            decoded = decode(self.incoming, **options)
            if decoded is not None:
                message, size = decoded
                self.incoming = self.incoming[size:]
                return message
            data = self.sock.recv(1 << 20)
            if not data:
                assert self.incoming == b""
                return None
            self.incoming += data

    def greet(self, flags: int = ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES) -> Greeting:
        greeting: Greeting = self.hear(decode_greeting)
        self.say(ClientFlags(flags))
        return greeting

    def option(self, request: OptionRequest) -> list[OptionReply]:
        """All replies to an option."""
        self.say(request)
        replies: list[OptionReply] = []
        while not replies or not isinstance(replies[-1].body, Ack | ErrorReply):
            replies.append(self.hear(decode_option_reply, limit=1 << 16))
        return replies

    def opened(self, export: str = "", context: str = "base:allocation") -> list[OptionReply]:
        """Agree to structured replies and a context, and open an export; the replies to GO."""
        self.greet()
        self.option(OptionRequest(Option.STRUCTURED_REPLY))
        self.structured = True
        query = MetaContextQuery(export, [context])
        for reply in self.option(OptionRequest(Option.SET_META_CONTEXT, query)):
            if isinstance(reply.body, MetaContext):
                self.contexts[reply.body.context_id] = reply.body.name
        return self.option(OptionRequest(Option.GO, InfoQuery(export, [Info.BLOCK_SIZE])))

    def answers(self, requests: Sequence[Request]) -> list[list[SimpleReply | Chunk]]:
        """Send all requests at once; for each its whole reply, message by message."""
        self.say(*(attrs.evolve(each, cookie=place) for place, each in enumerate(requests)))
        answers: list[list[SimpleReply | Chunk]] = [[] for _ in requests]
        left = len(requests)
        while left:
            reply = self.hear(
                decode_reply,
                extended=False,
                structured=self.structured,
                data_length=lambda cookie: 0 if requests[cookie].command else 1 << 30,
                limit=1 << 26,
            )
            answers[reply.cookie].append(reply)
            left -= isinstance(reply, SimpleReply) or bool(reply.flags & ChunkFlag.DONE)
        return answers
