"""One conversation with something of everything, recorded with a clock that counts milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from fakenbd.journal import Journal
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
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
    SimpleReply,
    Status,
)

__all__ = ["millisecond_clock", "recorded", "sample"]


def millisecond_clock() -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) / 1000


def recorded(**options: Any) -> Journal:
    """A journal with a whole session: handshake, commands, strikes, breaches, ends."""
    journal = Journal(millisecond_clock(), **options)
    sample(journal)
    return journal


def sample(journal: Journal) -> None:
    journal.connected(1, "127.0.0.1:41873", "tcp", "127.0.0.1:10809")
    journal.said(1, Greeting())
    journal.heard(1, ClientFlags())
    journal.heard(1, OptionRequest(8))
    journal.said(1, OptionReply(8, Ack()))
    journal.heard(1, OptionRequest(10, MetaContextQuery("disk", ["base:allocation"])))
    journal.said(1, OptionReply(10, MetaContext(1, "base:allocation")))
    journal.said(1, OptionReply(10, Ack()))
    journal.heard(1, OptionRequest(3, RawBody(b"\x1b[2J")))
    journal.violated(1, "C-14", "MUST", "NBD_OPT_LIST came with data", 8)
    journal.said(1, OptionReply(3, Server("di\x1b[2Jsk\udcff", "a \u202edisk")))
    journal.said(1, OptionReply(3, ErrorReply("no"), type=0x80000003))
    journal.heard(1, OptionRequest(7, InfoQuery("disk", [3, 77])))
    journal.said(1, OptionReply(7, InfoExport(1024, 5)))
    journal.said(1, OptionReply(7, InfoBlockSize()))
    journal.said(1, OptionReply(7, Ack(), length=9))
    journal.heard(1, Request(0, 7, 4096, 512))
    journal.said(1, SimpleReply(7, 5))
    journal.struck(1, "second read fails", ["error"], 1, "error 0 -> NBD_EIO")
    journal.connected(2, "", "unix")
    journal.heard(1, Request(0, 8, 0, 1024, 4))
    journal.said(1, Chunk(8, Data(0, bytes(512))))
    journal.said(1, Chunk(8, Hole(512, 512), 1))
    journal.heard(1, Request(1, 9, 512, 6, 1, b"hidden"))
    journal.said(1, Chunk(9, ErrorChunk(28, "full\n", 512), 1))
    journal.heard(1, Request(7, 10, 0, 1024))
    journal.said(1, Chunk(10, Status(1, [Extent(1000), Extent(24, 3)]), 1))
    journal.struck(1, "odd tail", ["extents"], 12, "")
    journal.heard(2, Raw(b"GET / HTTP/1.1\r\n"))
    journal.violated(1, "C-89", "SHOULD", "the range was asked for twice", 20)
    journal.failed(None, "journal.jsonl is given up: No space left on device")
    journal.heard(1, Request(2, 11))
    journal.ended(1, "client", "DISC")
    journal.ended(2, "server", "RST", "after 16 bytes")
