"""One connection as its two sides put it on the wire, message by message, before an Observer."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from fakenbd.obligations import Finding, Gap, Observer, Siblings, Start
from fakenbd.protocol.constants import Command, Option, TransmissionFlag
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorReply,
    Greeting,
    InfoBlockSize,
    InfoExport,
    MetaContext,
    OptionReply,
    ReplyBody,
    Request,
    ServerMessage,
    SimpleReply,
)
from tests.obligations.stage import HELLO, STRUCTURED, command, go, read, set_contexts

__all__ = [
    "BLOCKS",
    "BLOCK_STATUS",
    "EXPORT",
    "FLAGS",
    "SIMPLE_EXPORT",
    "SIZE",
    "Wire",
    "answer",
    "greeted",
    "opened",
    "refusal",
]

SIZE = 1 << 20
FLAGS = int(sum(TransmissionFlag)) & ~int(
    TransmissionFlag.READ_ONLY
    | TransmissionFlag.SEND_RESIZE
    | TransmissionFlag.BLOCK_STATUS_PAYLOAD
)

BLOCKS = InfoBlockSize(1, 4096, 1 << 25)

EXPORT = InfoExport(SIZE, FLAGS)
SIMPLE_EXPORT = InfoExport(SIZE, FLAGS & ~TransmissionFlag.SEND_DF)
BLOCK_STATUS = command(Command.BLOCK_STATUS, 0, 4096, cookie=5)


@attrs.define(eq=False)
class Wire:
    """Each call returns the ids of the rules that were found broken; `found` are all findings."""

    client_label: Hashable | None = None
    siblings: Siblings | None = None
    start: Start = Start.GREETING
    found: list[Finding] = attrs.Factory(list)
    observer: Observer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.observer = Observer(self.start, self.client_label, self.siblings)

    def client(self, *sent: ClientMessage | bytes | Gap, count: int | None = None) -> list[str]:
        """The client sends these at once, or only the first `count` bytes."""
        return self._sent(self.observer.client_sent, sent, count)

    def server(self, *sent: ServerMessage | bytes | Gap, count: int | None = None) -> list[str]:
        """These leave at once, or only their first `count` bytes."""
        return self._sent(self.observer.server_sent, sent, count)

    def replies(self, option: int, *bodies: ReplyBody) -> list[str]:
        """Replies to `option` leave, the last one an ACK."""
        return self.server(*(OptionReply(option, body) for body in (*bodies, Ack())))

    def client_left(self, how: str = "EOF") -> list[str]:
        return self._took(self.observer.client_closed(how, 0))

    def server_left(self, how: str = "EOF") -> list[str]:
        return self._took(self.observer.server_closed(how, 0))

    def tls_failed(self, by: str, head: bytes) -> list[str]:
        return self._took(self.observer.tls_failed(by, head, 0))

    def _sent(self, show, sent, count: int | None) -> list[str]:
        rules: list[str] = []
        if count is not None:
            return self._took(show(b"".join(map(encode, sent))[:count], 0))
        for each in sent:
            data = each if isinstance(each, bytes | Gap) else encode(each)
            rules += self._took(show(data, 0))
        return rules

    def _took(self, findings) -> list[str]:
        self.found += findings
        return [finding.rule for finding in findings]


def answer(request: Request, *, structured: bool = True) -> Chunk | SimpleReply:
    """All of a READ in one message."""
    content = bytes(request.length)
    if not structured:
        return SimpleReply(request.cookie, 0, content)
    return Chunk(request.cookie, Data(request.offset, content), 1)


def refusal(option: int, kind: int) -> OptionReply:
    return OptionReply(option, ErrorReply("no"), kind)


def greeted(hello: ClientFlags | None = HELLO) -> Wire:
    """A connection with its greeting and client flags."""
    wire = Wire()
    wire.server(Greeting())
    if hello is not None:
        wire.client(hello)
    return wire


def opened(
    client_label: Hashable | None = None,
    siblings: Siblings | None = None,
    *,
    structured: bool = True,
    size: int = SIZE,
    flags: int = FLAGS,
    block_size: InfoBlockSize | None = BLOCKS,
    commanded: bool = True,
) -> Wire:
    """A connection whose client has opened the export, and has read once unless given otherwise."""
    wire = Wire(client_label, siblings)
    wire.server(Greeting())
    wire.client(HELLO)
    if structured:
        wire.client(STRUCTURED)
        wire.replies(Option.STRUCTURED_REPLY)
        wire.client(set_contexts())
        wire.replies(Option.SET_META_CONTEXT, MetaContext(1, "base:allocation"))
    wire.client(go())
    blocks = () if block_size is None else (block_size,)
    wire.replies(Option.GO, InfoExport(size, flags if structured else flags & ~128), *blocks)
    if commanded:
        first = read(0, 4096, cookie=0xF1)
        wire.client(first)
        wire.server(answer(first, structured=structured))
    assert wire.found == []
    return wire
