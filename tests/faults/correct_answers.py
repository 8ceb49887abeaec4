"""True answers, and their bytes written out by hand, for the tables of this folder."""

from __future__ import annotations

from typing import Final

import attrs

from fakenbd.faults.answer import Answer, CloseConnection, StartTLS
from fakenbd.faults.event import Event
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    Data,
    Greeting,
    Hole,
    InfoExport,
    InfoText,
    OptionReply,
    Request,
    SimpleReply,
    Status,
)

COOKIE: Final = 0x0102030405060708


@attrs.frozen
class CorrectAnswer:
    """An event, its true answer, and the bytes of each message of that."""

    event: Event
    answer: Answer
    pieces: tuple[str, ...] = ()

    @property
    def wire(self) -> bytes:
        return bytes.fromhex("".join(self.pieces))


READ: Final = Request(0, COOKIE, 4096, 16)

SIMPLE: Final = CorrectAnswer(
    Event("command", 1, request=READ),
    [SimpleReply(COOKIE, 0, b"0123456789abcdef")],
    ("67446698 00000000 0102030405060708", "30313233343536373839616263646566"),
)
CHUNKS: Final = CorrectAnswer(
    Event("command", 1, request=READ, structured=True),
    [Chunk(COOKIE, Data(4096, b"01234567")), Chunk(COOKIE, Hole(4104, 8), flags=1)],
    (
        "668e33ef 0000 0001 0102030405060708 00000010 0000000000001000 3031323334353637",
        "668e33ef 0001 0002 0102030405060708 0000000c 0000000000001008 00000008",
    ),
)
EXTENDED: Final = CorrectAnswer(
    Event("command", 1, request=attrs.evolve(READ, extended=True), extended=True),
    [Chunk(COOKIE, Hole(4096, 16), flags=1, request_offset=4096)],
    (
        "6e8a278c 0001 0002 0102030405060708 0000000000001000 000000000000000c"
        "0000000000001000 00000010",
    ),
)
STATUS: Final = CorrectAnswer(
    Event("command", 1, request=Request(7, COOKIE, 0, 1024), structured=True),
    [Chunk(COOKIE, Status(1, [(1000, 0), (24, 3)]), flags=1)],
    ("668e33ef 0001 0005 0102030405060708 00000014 00000001000003e8 00000000 00000018 00000003",),
)
GO: Final = CorrectAnswer(
    Event("option", 1, option=7),
    [
        OptionReply(7, InfoExport(1024, 0x6D)),
        OptionReply(7, InfoText(1, "disk")),
        OptionReply(7, Ack()),
    ],
    (
        "0003e889045565a9 00000007 00000003 0000000c 0000 0000000000000400 006d",
        "0003e889045565a9 00000007 00000003 00000006 0001 6469736b",
        "0003e889045565a9 00000007 00000001 00000000",
    ),
)
STARTTLS: Final = CorrectAnswer(
    Event("option", 1, option=5),
    [OptionReply(5, Ack()), StartTLS()],
    ("0003e889045565a9 00000005 00000001 00000000",),
)
ABORT: Final = CorrectAnswer(
    Event("option", 1, option=2, tls=True),
    [OptionReply(2, Ack()), CloseConnection()],
    ("0003e889045565a9 00000002 00000001 00000000",),
)
GREETING: Final = CorrectAnswer(
    Event("greeting", 1), [Greeting()], ("4e42444d41474943 49484156454f5054 0003",)
)
CONNECT: Final = CorrectAnswer(Event("connect", 1), [])

CORRECT_ANSWERS: Final = (SIMPLE, CHUNKS, EXTENDED, STATUS, GO, STARTTLS, ABORT, GREETING, CONNECT)
