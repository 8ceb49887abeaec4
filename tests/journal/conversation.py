"""One conversation with something of everything, recorded with a clock that counts milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from fakenbd.journal import Journal
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    Extent,
    Greeting,
    Hole,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    Raw,
    RawBody,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)

__all__ = ["millisecond_clock", "received", "recorded", "sample", "sent"]


def received(journal: Journal, connection: int, message: ClientMessage) -> int:
    """Record a message received, behind all that was received before."""
    at = journal.totals.bytes_received
    return journal.received(connection, message, len(encode(message)), at)


def sent(
    journal: Journal, connection: int, message: ServerMessage, about: int | None = None
) -> int:
    """Record a message sent, behind all that was sent before."""
    at = journal.totals.bytes_sent
    return journal.sent(connection, message, len(encode(message)), at, about)


def millisecond_clock() -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) / 1000


def recorded(**options: Any) -> Journal:
    """A journal with a whole session: handshake, commands, firings, breaches, ends."""
    journal = Journal(millisecond_clock(), **options)
    sample(journal)
    return journal


def sample(journal: Journal) -> None:
    journal.connected(1, "127.0.0.1:41873", "tcp", "127.0.0.1:10809")
    sent(journal, 1, Greeting())
    received(journal, 1, ClientFlags())
    received(journal, 1, OptionRequest(8))
    sent(journal, 1, OptionReply(8, Ack()), 3)
    received(journal, 1, OptionRequest(10, MetaContextQuery("disk", ["base:allocation"])))
    sent(journal, 1, OptionReply(10, MetaContext(1, "base:allocation")), 5)
    sent(journal, 1, OptionReply(10, Ack()), 5)
    received(journal, 1, OptionRequest(3, RawBody(b"\x1b[2J")))
    journal.violated(1, "C-14", "MUST", "NBD_OPT_LIST came with data", 8)
    sent(journal, 1, OptionReply(3, Server("di\x1b[2Jsk\udcff", "a \u202edisk")), 8)
    sent(journal, 1, OptionReply(3, ErrorReply("no"), type=0x80000003), 8)
    received(journal, 1, OptionRequest(7, InfoQuery("disk", [3, 77])))
    sent(journal, 1, OptionReply(7, InfoExport(1024, 5)), 12)
    sent(journal, 1, OptionReply(7, InfoBlockSize()), 12)
    sent(journal, 1, OptionReply(7, Ack(), length=9), 12)
    received(journal, 1, Request(0, 7, 4096, 512))
    sent(journal, 1, SimpleReply(7, 5), 16)
    journal.fired(1, "second read fails", ["error"], 1, "error 0 -> NBD_EIO", 16)
    journal.connected(2, "", "unix")
    received(journal, 1, Request(0, 8, 0, 1024, 4))
    sent(journal, 1, Chunk(8, Data(0, bytes(512))), 20)
    sent(journal, 1, Chunk(8, Hole(512, 512), 1), 20)
    received(journal, 1, Request(1, 9, 512, 6, 1, b"hidden"))
    sent(journal, 1, Chunk(9, ErrorChunk(28, "full\n", 512), 1), 23)
    received(journal, 1, Request(7, 10, 0, 1024))
    sent(journal, 1, Chunk(10, Status(1, [Extent(1000), Extent(24, 3)]), 1), 25)
    journal.fired(1, "odd tail", ["extents"], 12, "", 25)
    received(journal, 2, Raw(b"GET / HTTP/1.1\r\n"))
    journal.violated(1, "C-89", "SHOULD", "the range was asked for twice", 20)
    journal.internal_failure(None, "journal.jsonl is given up: No space left on device")
    received(journal, 1, Request(2, 11))
    journal.closed(1, "client", "DISC")
    journal.closed(2, "server", "RST", "after 16 bytes")
