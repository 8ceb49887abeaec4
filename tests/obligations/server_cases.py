"""Every judged rule broken once or more, each time beside messages that keep it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs

from fakenbd.protocol.constants import Command, CommandFlag, Info, Option, Reply
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportName,
    ExportNameReply,
    Extent,
    Greeting,
    Hole,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    NoneChunk,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    RawBody,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)

__all__ = ["CASES", "Case", "Message"]

Message: TypeAlias = ClientMessage | ServerMessage

SIZE = 1 << 20
READ_ONLY = 3
FLAGS = 0x0D6D & ~0x80  # all but DF
WITH_DF = FLAGS | 0x80
BASE, BITMAP = "base:allocation", "qemu:dirty-bitmap:b0"
LONG, NUL, LATIN = "x" * 4097, "a\0b", "\udce4"


@attrs.frozen
class Case:
    """`before`, then either `broken`, which breaks exactly `rules`, or `clean`: none."""

    rules: tuple[str, ...]
    before: Sequence[Message]
    broken: Sequence[Message]
    clean: Sequence[Message]

    @property
    def id(self) -> str:
        return "+".join(self.rules)


# --- words of a handshake ------------------------------------------------------------------------

START = (Greeting(3), ClientFlags(3))
NAME = OptionRequest(Option.EXPORT_NAME, ExportName("disk"))
LIST = OptionRequest(Option.LIST)
ABORT = OptionRequest(Option.ABORT)
STARTTLS = OptionRequest(Option.STARTTLS)
INFO = OptionRequest(Option.INFO, InfoQuery("disk", [Info.BLOCK_SIZE]))
GO = OptionRequest(Option.GO, InfoQuery("disk", [Info.BLOCK_SIZE]))
PLAIN_GO = OptionRequest(Option.GO, InfoQuery("disk"))


def ack(option: int, data: bytes = b"") -> OptionReply:
    return OptionReply(option, Ack(data))


def error(option: int, kind: int = Reply.ERR_UNSUP, text: str = "") -> OptionReply:
    return OptionReply(option, ErrorReply(text), kind)


def info(body: Any, option: int = Option.GO) -> OptionReply:
    return OptionReply(option, body)


def raw(kind: int, data: bytes, option: int = Option.GO) -> OptionReply:
    return OptionReply(option, RawBody(data), kind)


def exchanged(option: int) -> tuple[Message, ...]:
    return OptionRequest(option), ack(option)


def gone(size: int = SIZE, flags: int = FLAGS, *more: Any) -> tuple[Message, ...]:
    """The answer to GO."""
    return (*(info(body) for body in (InfoExport(size, flags), *more)), ack(Option.GO))


def select(*queries: str, option: int = Option.SET_META_CONTEXT) -> OptionRequest:
    return OptionRequest(option, MetaContextQuery("disk", queries))


def selected(context_id: int, name: str, option: int = Option.SET_META_CONTEXT) -> OptionReply:
    return OptionReply(option, MetaContext(context_id, name))


SET_ACK = ack(Option.SET_META_CONTEXT)
STRUCTURED = (*START, *exchanged(Option.STRUCTURED_REPLY))
EXTENDED = (*START, *exchanged(Option.EXTENDED_HEADERS))
CONTEXTS = (select(BASE, BITMAP), selected(7, BASE), selected(1, BITMAP), SET_ACK)
TLS = (*START, STARTTLS, ack(Option.STARTTLS))

CODE = InfoExport(SIZE, FLAGS)


def handshake(
    rules: str, before: Sequence[Message], broken: Sequence[Message], clean: Sequence[Message]
) -> Case:
    return Case(tuple(rules.split()), (*START, *before), broken, clean)


BAD_STRINGS = (LONG, NUL, LATIN, "ä" * 2049)

GREETINGS = [
    Case(("S-04",), (), [Greeting(7)], [Greeting(3)]),
    Case(("S-04",), (), [Greeting(0x8000)], [Greeting(0)]),
    Case(("S-09",), (), [OldstyleGreeting(SIZE, 0x30001)], [OldstyleGreeting(2**64 - 1, 1)]),
    Case(
        ("S-09",), (), [OldstyleGreeting(SIZE, 1, reserved=b"\1" * 124)], [OldstyleGreeting(0, 1)]
    ),
    Case(("S-61",), (), [OldstyleGreeting(SIZE, 0)], [OldstyleGreeting(SIZE, 1)]),
    Case(("S-62",), (), [OldstyleGreeting(SIZE, 0x81)], [OldstyleGreeting(SIZE, 0x6D)]),
]

EXPORT_NAMES = [
    handshake("S-64", [NAME], [ExportNameReply(SIZE, 1)], [ExportNameReply(SIZE, 1, b"")]),
    Case(
        ("S-64",),
        (Greeting(1), ClientFlags(1), NAME),
        [ExportNameReply(SIZE, 1, b"")],
        [ExportNameReply(SIZE, 1)],
    ),
    Case(
        ("S-64",),
        (Greeting(3), ClientFlags(1), NAME),
        [ExportNameReply(SIZE, 1, b"\1" * 124)],
        [ExportNameReply(SIZE, 1)],
    ),
    handshake(
        "S-65", [NAME], [ExportNameReply(0x3E889045565A9, 1, b"")], [ExportNameReply(SIZE, 1, b"")]
    ),
    handshake("S-65", [NAME], [error(1, Reply.ERR_UNKNOWN)], [ExportNameReply(0, 1, b"")]),
    handshake("S-61", [NAME], [ExportNameReply(SIZE, 0, b"")], [ExportNameReply(SIZE, 3, b"")]),
    handshake("S-62", [NAME], [ExportNameReply(SIZE, 0x81, b"")], [ExportNameReply(0, 1, b"")]),
]

OPTIONS = [
    handshake("S-21", [LIST], [ack(Option.GO)], [ack(Option.LIST)]),
    handshake("S-22", [LIST], [raw(5, b"", 3)], [OptionReply(3, Server("disk")), ack(3)]),
    handshake("S-22", [GO], [raw(0x7FFFFFFF, b"")], [error(7)]),
    handshake("S-23", [GO], [error(7, 0x8000000B, "odd")], [error(7, 0x8000000A)]),
    handshake("S-24", [GO], [OptionReply(7, Server("disk"))], [error(7, Reply.ERR_UNKNOWN)]),
    handshake("S-24", [LIST], [info(CODE, 3)], [error(3, Reply.ERR_POLICY, "no")]),
    handshake("S-24", [STARTTLS], [selected(1, BASE, 5)], [error(5)]),
    handshake("S-25", [LIST], [ack(3, b"data")], [ack(3)]),
    *(
        handshake("S-27", [GO], [error(7, text=text)], [error(7, text="ä\x1b%n")])
        for text in BAD_STRINGS
    ),
    handshake("S-30", [LIST, ack(3)], [ack(3)], [GO, *gone()]),
    handshake("S-30", [GO, error(7)], [info(CODE)], [GO, *gone()]),
    handshake("S-31", [], [ack(3)], [LIST, ack(3)]),
    handshake("S-35", [ABORT], [error(2, Reply.ERR_SHUTDOWN)], [ack(2)]),
    handshake("S-40", [LIST], [raw(2, b"\0\0\0\x05disk", 3)], [OptionReply(3, Server()), ack(3)]),
    handshake("S-41", [LIST], [raw(2, b"\0\0", 3)], [ack(3)]),
    *(
        handshake(
            "S-42", [LIST], [OptionReply(3, Server("disk", text))], [OptionReply(3, Server())]
        )
        for text in BAD_STRINGS
    ),
    handshake("S-42", [LIST], [OptionReply(3, Server(LONG))], [OptionReply(3, Server("x" * 4096))]),
]

INFOS = [
    handshake("S-50", [GO], [ack(7)], gone()),
    handshake("S-50", [INFO], [ack(6)], [info(CODE, 6), ack(6)]),
    handshake("S-51", [GO], [raw(3, b"\0\0" + bytes(9))], gone()),
    handshake("S-51", [GO], [raw(3, b"\0\0")], gone()),
    handshake("S-52", [GO], gone(SIZE, FLAGS, InfoExport(5, FLAGS)), gone()),
    handshake(
        "S-52",
        [GO],
        gone(SIZE, FLAGS, InfoBlockSize(), InfoBlockSize()),
        gone(SIZE, FLAGS, InfoBlockSize(), InfoText(4), InfoText(4), InfoText(0xFFFF, NUL)),
    ),
    handshake("S-53", [GO], [raw(3, b"\0\3" + bytes(13))], gone(0, FLAGS, InfoBlockSize())),
    *(
        handshake(
            "S-54",
            [GO],
            [info(InfoBlockSize(minimum, 1 << 17, 1 << 25))],
            [info(InfoBlockSize(1 << 16, 1 << 17, 1 << 25))],
        )
        for minimum in (0, 3, 513, 1 << 17)
    ),
    *(
        handshake(
            "S-55",
            [GO],
            [info(InfoBlockSize(1024, preferred, 1 << 25))],
            [info(InfoBlockSize(1024, 1024, 1 << 25))],
        )
        for preferred in (0, 512, 1025, 3000)
    ),
    handshake("S-55", [GO], [info(InfoBlockSize(1, 256, 256))], [info(InfoBlockSize(1, 512, 512))]),
    *(
        handshake(
            "S-56", [GO], [info(InfoBlockSize(1, 4096, top))], [info(InfoBlockSize(1, 4096, 5000))]
        )
        for top in (0, 4095)
    ),
    handshake(
        "S-57",
        [GO],
        gone(1000, FLAGS, InfoBlockSize(512, 512, 4096)),
        gone(1000, FLAGS, InfoBlockSize(1, 512, 4096)),
    ),
    handshake("S-58", [INFO, info(CODE, 6), ack(6), GO], gone(SIZE + 512), gone()),
    handshake("S-59", [INFO, info(CODE, 6), ack(6), GO], gone(SIZE, FLAGS | 2), gone()),
    handshake("S-58 S-59", [INFO, info(CODE, 6), ack(6), GO], gone(0, 1), gone()),
    handshake(
        "S-58", [LIST, ack(3), INFO, info(CODE, 6), ack(6), GO], gone(0), [error(7), LIST, ack(3)]
    ),
    handshake("S-61", [GO], gone(SIZE, 0), gone(SIZE, 1)),
    handshake("S-62", [GO], gone(SIZE, WITH_DF), gone(SIZE, FLAGS)),
    handshake("S-62", [GO], gone(SIZE, 0x801), gone(SIZE, 0x841)),
    Case(("S-62",), (*STRUCTURED, GO), gone(SIZE, 0x1001), gone(SIZE, WITH_DF)),
    Case(("S-61",), (*EXTENDED, GO), gone(SIZE, 0x1080), gone(SIZE, 0x1081)),
    handshake(
        "S-67",
        [GO],
        [info(InfoBlockSize()), error(7, Reply.ERR_BLOCK_SIZE_REQD)],
        [error(7, Reply.ERR_POLICY)],
    ),
    handshake(
        "S-70", [GO], [info(InfoText(Info.NAME, LONG))], [info(InfoText(Info.NAME, "x" * 4096))]
    ),
    handshake(
        "S-70", [GO], [info(InfoText(2, LATIN))], [info(InfoText(2, "")), info(InfoText(9, LATIN))]
    ),
    *(handshake("S-71", [GO], [raw(3, data)], gone()) for data in (b"", b"\0")),
    handshake(
        "S-72",
        [GO],
        [info(InfoText(1, "disk")), error(7, Reply.ERR_UNKNOWN)],
        [error(7, Reply.ERR_UNKNOWN)],
    ),
    Case(("S-91",), (*EXTENDED, GO), [error(7)], [error(7, Reply.ERR_UNKNOWN)]),
]

# What a client did not ask for, the server may demand; other data make another question.
QUESTIONS = [
    handshake("S-67", [GO], [error(7, Reply.ERR_BLOCK_SIZE_REQD)], [error(7)]),
    handshake("S-50", [PLAIN_GO], [ack(7)], [error(7, Reply.ERR_BLOCK_SIZE_REQD)]),
    handshake("S-61", [INFO, info(CODE, 6), ack(6), PLAIN_GO], gone(5, 0), gone(5, 1)),
    handshake("S-61", [INFO, info(CODE, 6), error(6), GO], gone(5, 0), gone(5, 1)),
    handshake("S-61", [INFO, info(CODE, 6), ack(6), LIST, ack(3), GO], gone(5, 0), gone(5, 1)),
]

METAS = [
    Case(("S-81",), (*STRUCTURED, select(BASE)), [selected(1, BITMAP)], [selected(1, BASE)]),
    Case(("S-81",), (*STRUCTURED, select("base:x")), [selected(1, BASE)], [SET_ACK]),
    Case(("S-81",), (*STRUCTURED, select()), [selected(1, BASE)], [SET_ACK]),
    Case(
        ("S-82",),
        (*STRUCTURED, select(BASE, BITMAP), selected(1, BASE)),
        [selected(1, BITMAP)],
        [selected(0, BITMAP)],
    ),
    Case(
        ("S-83",),
        (*STRUCTURED, select(BASE, BITMAP), selected(1, BASE)),
        [selected(2, BASE)],
        [selected(2, BITMAP)],
    ),
    *(
        Case(
            ("S-84",),
            (*STRUCTURED, select(BASE, "x-a:")),
            [selected(1, name)],
            [selected(1, "x-a:b")],
        )
        for name in ("", "allocation", ":b", f"x-a:{LONG}", "x-a:\0", "x-a:\udcff")
    ),
    Case(("S-84",), (*STRUCTURED, select(BASE)), [raw(4, b"\0\0\1", 10)], [SET_ACK]),
    Case(
        ("S-84",),
        (*STRUCTURED, select(option=9)),
        [selected(0, "base", 9)],
        [selected(0, BASE, 9), selected(0, "x-a:", 9)],
    ),
    Case(("S-86",), (*STRUCTURED, select("base:")), [selected(1, BASE)], [SET_ACK]),
    Case(
        ("S-87",),
        (*STRUCTURED, OptionRequest(10, RawBody(b"\0\0\0\x09disk"))),
        [SET_ACK],
        [error(10, Reply.ERR_INVALID)],
    ),
]

REQUIRED = Reply.ERR_TLS_REQD
MODES = [
    handshake("S-100", [STARTTLS], [error(5, REQUIRED)], [ack(5)]),
    handshake("S-100 S-35", [ABORT], [error(2, REQUIRED)], [ack(2)]),
    Case(("S-101",), (*TLS, LIST), [error(3, REQUIRED)], [error(3)]),
    handshake("S-102", [LIST, error(3, REQUIRED)], [GO, *gone()], [STARTTLS, ack(5), GO, *gone()]),
    handshake(
        "S-102", [LIST, error(3, REQUIRED)], [LIST, ack(3)], [GO, error(7, REQUIRED), ABORT, ack(2)]
    ),
    handshake("S-61", [GO, error(7, REQUIRED), LIST, ack(3), GO], gone(5, 0), gone(5, 1)),
    handshake("S-109", [STARTTLS, error(5)], [LIST, error(3, REQUIRED)], [GO, *gone()]),
    handshake(
        "S-109",
        [LIST, error(3, REQUIRED)],
        [STARTTLS, error(5, Reply.ERR_POLICY)],
        [STARTTLS, error(5, Reply.ERR_SHUTDOWN)],
    ),
    handshake("S-109", [GO, error(7, REQUIRED)], [STARTTLS, error(5)], [STARTTLS, ack(5)]),
    Case(("S-110",), (*TLS, STARTTLS), [ack(5)], [error(5, Reply.ERR_INVALID)]),
]

# --- words of transmission -----------------------------------------------------------------------


def opened(
    form: Sequence[Message], *more: Any, size: int = SIZE, flags: int = FLAGS
) -> Sequence[Message]:
    return (*form, GO, *gone(size, flags, *more))


SIMPLE = opened(START)
CHUNKS = opened(STRUCTURED, flags=WITH_DF)
WIDE = opened(EXTENDED, flags=WITH_DF)


def read(offset: int = 0, length: int = 4096, flags: int = 0) -> Request:
    return Request(Command.READ, 1, offset, length, flags)


def done(body: Any, kind: int | None = None, cookie: int = 1, at: int | None = None) -> Chunk:
    return Chunk(cookie, body, 1, kind, request_offset=at)


def part(body: Any, kind: int | None = None) -> Chunk:
    return Chunk(1, body, 0, kind)


def data(offset: int = 0, length: int = 4096) -> Data:
    return Data(offset, bytes(length))


NONE = done(NoneChunk())
WHOLE = done(data())
WRITE = Request(Command.WRITE, 1, 0, 512, payload=bytes(512))
FLUSH = Request(Command.FLUSH, 1)
TRIM = Request(Command.TRIM, 1, 512, 512)
ZEROES = Request(Command.WRITE_ZEROES, 1, 512, 512)
FAST = Request(Command.WRITE_ZEROES, 1, 512, 512, CommandFlag.FAST_ZERO)
DISC = Request(Command.DISC, 9)
OK = SimpleReply(1)
EIO = ErrorChunk(5, "bad")


def at(offset: int, number: int = 5) -> ErrorChunk:
    return ErrorChunk(number, "bad", offset)


def reading(rules: str, broken: Sequence[Message], clean: Sequence[Message] = (WHOLE,)) -> Case:
    """Replies to a READ of 0+4096 in chunks."""
    return Case(tuple(rules.split()), (*CHUNKS, read()), broken, clean)


def chunked(
    rules: str, request: Request, broken: Sequence[Message], clean: Sequence[Message]
) -> Case:
    return Case(tuple(rules.split()), (*CHUNKS, request), broken, clean)


FORMS = [
    Case(("S-90",), (*WIDE, read()), [SimpleReply(1, 5)], [done(EIO, at=0)]),
    Case(("S-90",), (*WIDE, read()), [WHOLE], [done(data(), at=0)]),
    Case(("S-90",), (*CHUNKS, read()), [done(data(), at=0)], [WHOLE]),
    Case(("S-121",), (*SIMPLE, read()), [WHOLE], [SimpleReply(1, 0, bytes(4096))]),
    reading("S-122", [SimpleReply(1, 0, bytes(4096))]),
    reading("S-122", [SimpleReply(1, 5)], [done(EIO)]),
    chunked("S-123", FLUSH, [SimpleReply(2)], [OK]),
    reading("S-123", [done(data(), cookie=0)]),
    chunked("S-124", FLUSH, [OK, OK], [OK, FLUSH, OK]),
    chunked("S-124", WRITE, [part(EIO), OK], [part(EIO), NONE]),
    reading("S-124", [WHOLE, NONE], [part(data()), NONE]),
    reading("S-124", [WHOLE, WHOLE], [WHOLE, read(), WHOLE]),
    Case(("S-126",), (*SIMPLE, DISC), [SimpleReply(9)], []),
    Case(("S-128",), (*SIMPLE, read()), [SimpleReply(1, 0, bytes(4095))], [SimpleReply(1, 5)]),
    Case(("S-129",), (*SIMPLE, read()), [SimpleReply(1, 0, bytes(4097))], [SimpleReply(1, 22)]),
    Case(("S-130",), (*SIMPLE, read()), [SimpleReply(1, 5, bytes(9))], [SimpleReply(1, 108)]),
    reading(
        "S-157 S-138",
        [done(data(0, 512)), done(data(512, 3584))],
        [part(data(0, 512)), done(data(512, 3584))],
    ),
    reading("S-139", [part(NoneChunk()), WHOLE]),
    reading("S-139", [done(RawBody(b"data"), 0)]),
    *(reading("S-140", [done(RawBody(b""), kind)]) for kind in (3, 4, 100, 0x7FFF)),
    *(reading("S-141", [done(ErrorChunk(5), kind)], [done(EIO)]) for kind in (0x8003, 0xFFFF)),
    reading("S-142", [done(RawBody(b"\0\0\0\5"), 0x8003)], [done(EIO)]),
    reading("S-143 S-158", [done(Status(1, [Extent(4096)]))], [done(Hole(0, 4096))]),
    chunked("S-143", WRITE, [done(data(0, 512))], [NONE]),
    chunked("S-143", FLUSH, [done(Hole(0, 512))], [done(EIO)]),
    chunked("S-143", FLUSH, [done(at(0))], [OK]),
    Case(
        ("S-144",),
        (*opened(STRUCTURED, InfoBlockSize(1, 512, 2048)), read()),
        [WHOLE],
        [part(data(0, 2048)), done(data(2048, 2048))],
    ),
    Case(
        ("S-145",),
        (*WIDE, read(512, 512)),
        [done(data(512, 512), at=0)],
        [done(data(512, 512), at=512)],
    ),
]

READS = [
    reading("S-150 S-157", [done(data(0, 0))]),
    *(reading("S-150", [done(RawBody(bytes(size)), 1)]) for size in (0, 7)),
    reading("S-151 S-157", [done(Hole(0, 0))], [done(Hole(0, 4096))]),
    reading("S-151", [done(RawBody(bytes(13)), 2)]),
    chunked("S-152 S-157", read(4096), [done(data(4095))], [done(data(4096))]),
    chunked("S-152 S-157", read(4096), [done(Hole(0, 4096))], [done(Hole(4096, 4096))]),
    reading("S-153 S-157", [done(data(1))]),
    reading("S-153 S-157", [done(Hole(2**64 - 512, 512))]),
    reading(
        "S-155", [part(data()), done(data(512, 512))], [part(data(512, 3584)), done(data(0, 512))]
    ),
    reading(
        "S-155", [part(Hole(0, 4096)), done(Hole(0, 1))], [part(Hole(1, 4095)), done(Hole(0, 1))]
    ),
    reading(
        "S-156",
        [part(Hole(0, 4096)), done(data(4095, 1))],
        [part(Hole(0, 4095)), done(data(4095, 1))],
    ),
    reading(
        "S-156", [part(data()), done(Hole(0, 512))], [part(data(512, 3584)), done(Hole(0, 512))]
    ),
    reading("S-157", [done(data(0, 4095))]),
    reading(
        "S-157", [part(data(0, 512)), part(Hole(1024, 3072)), NONE], [part(data(0, 512)), done(EIO)]
    ),
    reading("S-158", [NONE], [done(EIO)]),
    chunked("S-158", read(512, 1), [NONE], [done(data(512, 1))]),
    chunked(
        "S-159",
        read(flags=CommandFlag.DF),
        [part(data(0, 512)), done(data(512, 3584))],
        [part(data()), NONE],
    ),
    chunked("S-161", read(flags=CommandFlag.DF), [done(ErrorChunk(75))], [done(ErrorChunk(22))]),
    chunked(
        "S-161", read(0, 65536, CommandFlag.DF), [done(ErrorChunk(75))], [done(Hole(0, 65536))]
    ),
    reading("S-162", [part(at(512)), done(data())], [part(data()), done(at(512))]),
    reading("S-163", [done(at(4096))], [done(at(4095))]),
    chunked("S-163", read(4096), [done(at(4095))], [done(at(4096))]),
    reading("S-164", [done(ErrorChunk(0))], [done(ErrorChunk(22))]),
    reading("S-165", [done(RawBody(bytes(5)), 0x8001)], [done(EIO)]),
    reading("S-165", [done(RawBody(bytes(13)), 0x8002)], [done(at(0))]),
    reading("S-166", [done(RawBody(b"\0\0\0\5\0\5four"), 0x8001)], [done(ErrorChunk(5, "four"))]),
    reading("S-166", [done(RawBody(b"\0\0\0\5\0\1x" + bytes(7)), 0x8002)], [done(at(1))]),
    *(
        reading("S-167", [done(ErrorChunk(5, text))], [done(ErrorChunk(5, "\x1b", rest=b"\0"))])
        for text in BAD_STRINGS
    ),
    reading("S-168", [part(EIO), done(EIO)], [part(EIO), NONE]),
    reading("S-168", [part(at(0)), done(EIO)], [part(at(0)), part(at(512)), done(at(1024))]),
    reading("S-168", [part(EIO), done(at(0))], [part(EIO), done(data())]),
    Case(
        ("S-170",),
        (*opened(START, size=1000), read(0, 1024)),
        [SimpleReply(1, 0, bytes(1024))],
        [SimpleReply(1, 22)],
    ),
    Case(
        ("S-170",),
        (*opened(STRUCTURED, size=1000), read(0, 1024)),
        [done(data(0, 1024))],
        [done(ErrorChunk(22))],
    ),
    reading("S-155 S-172", [part(data(0, 2048)), part(data(0, 1024)), done(data(3072, 1024))]),
]

WRITES = [
    chunked("S-182", ZEROES, [SimpleReply(1, 95)], [SimpleReply(1, 28)]),
    chunked("S-182", ZEROES, [done(ErrorChunk(95))], [done(ErrorChunk(1))]),
    chunked("S-183", TRIM, [SimpleReply(1, 75)], [SimpleReply(1, 22)]),
    chunked("S-183", FAST, [done(ErrorChunk(75))], [SimpleReply(1, 95)]),
    *(
        Case(
            ("S-184",),
            (*opened(STRUCTURED, flags=READ_ONLY), request),
            [reply],
            [SimpleReply(1, 1)],
        )
        for request in (WRITE, TRIM, ZEROES)
        for reply in (OK, NONE)
    ),
    *(
        chunked("S-188", WRITE, [SimpleReply(1, number)], [SimpleReply(1, 12)])
        for number in (2, 9999, 2**32 - 1)
    ),
    reading("S-188", [done(ErrorChunk(30))], [done(ErrorChunk(12))]),
]

MAPPED = opened((*STRUCTURED, *CONTEXTS), flags=WITH_DF)
MAPPED_WIDE = opened((*EXTENDED, *CONTEXTS), flags=WITH_DF)
ONE = (*STRUCTURED, select(BASE), selected(7, BASE), SET_ACK)


def query(offset: int = 0, length: int = 65536, flags: int = 0) -> Request:
    return Request(Command.BLOCK_STATUS, 1, offset, length, flags)


def status(*extents: tuple[int, int], context: int = 7) -> Status:
    return Status(context, [Extent(*extent) for extent in extents])


def mapping(
    rules: str, broken: Any, clean: Any, request: Request | None = None, **more: Any
) -> Case:
    """Replies to a BLOCK_STATUS of 0+65536 for base:allocation, id 7."""
    before = (*opened(ONE, **more), request or query())
    return Case(tuple(rules.split()), before, [broken], [clean])


FULL = done(status((65536, 0)))
REQ_ONE = query(flags=CommandFlag.REQ_ONE)
WIDE_FULL = Chunk(1, status((65536, 3)), request_offset=0)
BITS = part(status((65536, 1), context=1))
MANY = [Extent(512)] * (1 << 20)

EXTENTS = [
    Case(("S-132",), (*MAPPED, query()), [OK], [SimpleReply(1, 5)]),
    Case(
        ("S-200",),
        (*MAPPED, query()),
        [part(status((512, 0))), NONE],
        [part(status((512, 0))), done(EIO)],
    ),
    Case(("S-201",), (*MAPPED, query()), [BITS, BITS, FULL], [BITS, FULL]),
    Case(
        ("S-202",),
        (*MAPPED, query()),
        [BITS, part(status((512, 0), context=2)), FULL],
        [BITS, FULL],
    ),
    mapping("S-203", done(status()), FULL),
    *(mapping("S-203", done(RawBody(bytes(size)), 5), FULL) for size in (0, 3, 5, 13)),
    mapping("S-204", done(status((0, 0), (512, 0))), FULL),
    mapping("S-204 S-207", done(status((65536, 0), (0, 0))), done(status((131072, 3)))),
    mapping("S-205", done(status((512, 0), (512, 3))), done(status((512, 0))), REQ_ONE),
    mapping("S-206", done(status((131072, 0))), FULL, REQ_ONE),
    mapping("S-207", done(status((65536, 0), (512, 3))), done(status((65024, 0), (4096, 3)))),
    mapping("S-208", done(status((SIZE + 512, 0))), done(status((SIZE, 0)))),
    mapping("S-208", done(status((513, 0))), done(status((1, 0))), query(511, 1), size=512),
    mapping("S-209", done(status((1000, 0), (64536, 3))), done(status((1024, 0), (64512, 3)))),
    Case(
        ("S-209",),
        (*opened(ONE, InfoBlockSize(4096, 4096, 1 << 25)), query()),
        [done(status((512, 0)))],
        [done(status((4096, 0)))],
    ),
    Case(
        ("S-204",),
        (*opened(ONE, InfoBlockSize(1, 512, 1 << 25), size=65535), query(1, 65534)),
        [done(status((0, 0), (3, 0)))],
        [done(status((3, 0), (65531, 3)))],
    ),
    mapping("S-209", done(status((500, 0))), done(status((513, 0))), query(499, 513), size=4096),
    mapping(
        "S-210",
        done(Status(7, [*MANY, Extent(512)])),
        done(Status(7, MANY)),
        query(0, 2**31),
        size=2**40,
    ),
    Case(
        ("S-144",),
        (*opened(ONE, InfoBlockSize(1, 512, 512)), query()),
        [done(Status(7, MANY[:65]))],
        [done(Status(7, MANY[:64]))],
    ),
    mapping("S-211", done(status((65536, 7))), done(status((65536, 1)))),
    Case(("S-213",), (*CHUNKS, query()), [FULL], [done(ErrorChunk(22))]),
    Case(("S-213",), (*CHUNKS, query()), [NONE], [SimpleReply(1, 22)]),
    Case(("S-200", "S-214"), (*MAPPED, query()), [FULL, BITS], [BITS, FULL]),
    mapping("S-216", done(Status(7, [Extent(512)]), 6), FULL),
    *(
        Case(("S-216",), (*MAPPED_WIDE, query()), [broken], [WIDE_FULL])
        for broken in (
            Chunk(1, status((65536, 0)), 0, 5, request_offset=0),
            Chunk(1, status(), 0, request_offset=0),
            Chunk(1, status((65536, 1 << 32)), 0, request_offset=0),
            Chunk(1, RawBody(b"\0\0\0\7\0\0\0\2" + bytes(16)), 0, 6, request_offset=0),
        )
    ),
    Case(
        ("S-217", "S-208"),
        (*MAPPED_WIDE, query()),
        [Chunk(1, status((1 << 63, 0)), 0, request_offset=0)],
        [Chunk(1, status((SIZE, 0)), 0, request_offset=0)],
    ),
]

CASES = (
    *(*GREETINGS, *EXPORT_NAMES, *OPTIONS, *INFOS, *QUESTIONS, *METAS, *MODES),
    *(*FORMS, *READS, *WRITES, *EXTENTS),
)
