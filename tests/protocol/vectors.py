"""One correct message of every kind with its bytes, written out by hand from the specification."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from fakenbd.protocol import decode
from fakenbd.protocol.constants import Error, Info, Option, Reply
from fakenbd.protocol.messages import (
    Ack,
    Buffer,
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportName,
    ExportNameReply,
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

LIMIT = 1 << 16
Decoder = Callable[[Buffer], tuple[Any, int] | None]

greeting: Decoder = decode.decode_greeting
client_flags: Decoder = decode.decode_client_flags
option: Decoder = partial(decode.decode_option_request, limit=LIMIT)
option_reply: Decoder = partial(decode.decode_option_reply, limit=LIMIT)
zeroes: Decoder = partial(decode.decode_export_name_reply, zeroes=True)
no_zeroes: Decoder = partial(decode.decode_export_name_reply, zeroes=False)
compact: Decoder = partial(decode.decode_request, extended=False, limit=LIMIT)
extended: Decoder = partial(decode.decode_request, extended=True, limit=LIMIT)


def reply_decoder(
    *, extended: bool = False, structured: bool = False, data: int = 0, limit: int = LIMIT
) -> Decoder:
    return partial(
        decode.decode_reply,
        extended=extended,
        structured=structured,
        data_length=lambda cookie: data,
        limit=limit,
    )


simple = reply_decoder()
simple_of_4 = reply_decoder(data=4)
structured = reply_decoder(structured=True)
extended_reply = reply_decoder(extended=True)


@attrs.frozen
class Vector:
    name: str
    decoder: Decoder
    message: ServerMessage | ClientMessage
    text: str

    @property
    def wire(self) -> bytes:
        return bytes.fromhex(self.text)


def _replies() -> list[Vector]:
    """Every error reply, with a text that names it."""
    header = "0003e889045565a9 0000004d"
    return [
        Vector(
            f"{reply.name} to an unknown option",
            option_reply,
            OptionReply(77, ErrorReply("no: " + "é"), reply),
            f"{header} {reply:08x} 00000006 6e6f3a20c3a9",
        )
        for reply in Reply
        if reply >> 31
    ]


def _errors() -> list[Vector]:
    """Every error number in a simple reply, and one that nobody defined."""
    return [
        Vector(
            f"simple reply with error {error}",
            simple_of_4,
            SimpleReply(5, error),
            f"67446698 {error:08x} 0000000000000005",
        )
        for error in [*Error, 0xFFFFFFFF]
    ]


VECTORS = [
    # --- the greeting
    Vector("greeting, flags 3", greeting, Greeting(3), "4e42444d41474943 49484156454f5054 0003"),
    Vector(
        "greeting, all flags", greeting, Greeting(0xFFFF), "4e42444d41474943 49484156454f5054 ffff"
    ),
    Vector(
        "oldstyle greeting",
        greeting,
        OldstyleGreeting(1 << 20, 0x6D),
        "4e42444d41474943 0000420281861253 0000000000100000 0000006d" + "00" * 124,
    ),
    Vector(
        "oldstyle greeting with junk in the zeroes",
        greeting,
        OldstyleGreeting((1 << 64) - 1, 0x00010001, reserved=b"\xaa" * 124),
        "4e42444d41474943 0000420281861253 ffffffffffffffff 00010001" + "aa" * 124,
    ),
    Vector("client flags 3", client_flags, ClientFlags(3), "00000003"),
    # --- options
    Vector(
        "EXPORT_NAME of the default export",
        option,
        OptionRequest(Option.EXPORT_NAME, ExportName("")),
        "49484156454f5054 00000001 00000000",
    ),
    Vector(
        "EXPORT_NAME that is not UTF-8",
        option,
        OptionRequest(Option.EXPORT_NAME, ExportName("disk\udcff")),
        "49484156454f5054 00000001 00000005 6469736bff",
    ),
    *(
        Vector(
            f"{bare.name} without data",
            option,
            OptionRequest(bare),
            f"49484156454f5054 {bare:08x} 00000000",
        )
        for bare in (
            Option.ABORT,
            Option.LIST,
            Option.PEEK_EXPORT,
            Option.STARTTLS,
            Option.STRUCTURED_REPLY,
            Option.EXTENDED_HEADERS,
        )
    ),
    Vector(
        "LIST with data",
        option,
        OptionRequest(Option.LIST, RawBody(b"x")),
        "49484156454f5054 00000003 00000001 78",
    ),
    Vector(
        "unknown option with data",
        option,
        OptionRequest(0xFFFFFFFF, RawBody(b"xyz")),
        "49484156454f5054 ffffffff 00000003 78797a",
    ),
    Vector(
        "GO abc asking BLOCK_SIZE",
        option,
        OptionRequest(Option.GO, InfoQuery("abc", (Info.BLOCK_SIZE,))),
        "49484156454f5054 00000007 0000000b 00000003 616263 0001 0003",
    ),
    Vector(
        "INFO of the default export asking nothing",
        option,
        OptionRequest(Option.INFO, InfoQuery()),
        "49484156454f5054 00000006 00000006 00000000 0000",
    ),
    Vector(
        "SET_META_CONTEXT base:allocation",
        option,
        OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery("", ("base:allocation",))),
        "49484156454f5054 0000000a 0000001b 00000000 00000001 0000000f"
        "626173653a616c6c6f636174696f6e",
    ),
    Vector(
        "LIST_META_CONTEXT of all",
        option,
        OptionRequest(Option.LIST_META_CONTEXT, MetaContextQuery("a")),
        "49484156454f5054 00000009 00000009 00000001 61 00000000",
    ),
    Vector(
        "LIST_META_CONTEXT with two queries, one empty",
        option,
        OptionRequest(Option.LIST_META_CONTEXT, MetaContextQuery("", ("", "q:"))),
        "49484156454f5054 00000009 00000012 00000000 00000002 00000000 00000002 713a",
    ),
    # --- replies to options
    Vector(
        "ACK for GO",
        option_reply,
        OptionReply(Option.GO, Ack()),
        "0003e889045565a9 00000007 00000001 00000000",
    ),
    Vector(
        "ACK with data",
        option_reply,
        OptionReply(Option.LIST, Ack(b"\x00\x01")),
        "0003e889045565a9 00000003 00000001 00000002 0001",
    ),
    Vector(
        "SERVER with a description",
        option_reply,
        OptionReply(Option.LIST, Server("disk", "spinning")),
        "0003e889045565a9 00000003 00000002 00000010 00000004 6469736b 7370696e6e696e67",
    ),
    Vector(
        "SERVER for the default export",
        option_reply,
        OptionReply(Option.LIST, Server("")),
        "0003e889045565a9 00000003 00000002 00000004 00000000",
    ),
    Vector(
        "INFO_EXPORT for GO, 1 MiB, flags 0x006d",
        option_reply,
        OptionReply(Option.GO, InfoExport(1 << 20, 0x6D)),
        "0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 006d",
    ),
    Vector(
        "INFO_NAME",
        option_reply,
        OptionReply(Option.INFO, InfoText(Info.NAME, "disk0")),
        "0003e889045565a9 00000006 00000003 00000007 0001 6469736b30",
    ),
    Vector(
        "INFO_DESCRIPTION, empty",
        option_reply,
        OptionReply(Option.INFO, InfoText(Info.DESCRIPTION)),
        "0003e889045565a9 00000006 00000003 00000002 0002",
    ),
    Vector(
        "INFO_BLOCK_SIZE",
        option_reply,
        OptionReply(Option.GO, InfoBlockSize(512, 4096, 1 << 25)),
        "0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 02000000",
    ),
    Vector(
        "INFO of an unknown type",
        option_reply,
        OptionReply(Option.GO, InfoText(0xFFFF, "\udc80?")),
        "0003e889045565a9 00000007 00000003 00000004 ffff 803f",
    ),
    Vector(
        "META_CONTEXT",
        option_reply,
        OptionReply(Option.SET_META_CONTEXT, MetaContext(0xFFFFFFFF, "x-a:b")),
        "0003e889045565a9 0000000a 00000004 00000009 ffffffff 782d613a62",
    ),
    Vector(
        "reply of an unknown type",
        option_reply,
        OptionReply(Option.GO, RawBody(b"?"), type=5),
        "0003e889045565a9 00000007 00000005 00000001 3f",
    ),
    Vector(
        "error reply of an unknown type",
        option_reply,
        OptionReply(Option.GO, ErrorReply(""), type=0xFFFFFFFF),
        "0003e889045565a9 00000007 ffffffff 00000000",
    ),
    *_replies(),
    Vector(
        "EXPORT_NAME reply with zeroes",
        zeroes,
        ExportNameReply(1 << 63, 0x6D),
        "8000000000000000 006d" + "00" * 124,
    ),
    Vector(
        "EXPORT_NAME reply without zeroes",
        no_zeroes,
        ExportNameReply(1, 0xFFFF, b""),
        "0000000000000001 ffff",
    ),
    # --- requests
    Vector(
        "READ cookie 1 offset 4096 length 512",
        compact,
        Request(0, cookie=1, offset=4096, length=512),
        "25609513 0000 0000 0000000000000001 0000000000001000 00000200",
    ),
    Vector(
        "WRITE with FUA",
        compact,
        Request(1, cookie=2, offset=1 << 40, length=4, flags=1, payload=b"data"),
        "25609513 0001 0001 0000000000000002 0000010000000000 00000004 64617461",
    ),
    Vector(
        "WRITE of nothing",
        compact,
        Request(1, cookie=2),
        "25609513 0000 0001 0000000000000002 0000000000000000 00000000",
    ),
    *(
        Vector(
            f"command {command} has no payload",
            compact,
            Request(command, cookie=(1 << 64) - 1, length=0xFFFFFFFF, flags=0xFFFF),
            f"25609513 ffff {command:04x} ffffffffffffffff 0000000000000000 ffffffff",
        )
        for command in (0, 2, 3, 4, 5, 6, 7, 8, 0x7777)
    ),
    Vector(
        "extended WRITE",
        extended,
        Request(1, cookie=2, length=4, flags=0x20, payload=b"data", extended=True),
        "21e41c71 0020 0001 0000000000000002 0000000000000000 0000000000000004 64617461",
    ),
    Vector(
        "extended WRITE that forgot PAYLOAD_LEN",
        extended,
        Request(1, cookie=2, length=4, payload=b"data", extended=True),
        "21e41c71 0000 0001 0000000000000002 0000000000000000 0000000000000004 64617461",
    ),
    Vector(
        "extended BLOCK_STATUS with a payload",
        extended,
        Request(7, cookie=2, length=8, flags=0x20, payload=bytes(8), extended=True),
        "21e41c71 0020 0007 0000000000000002 0000000000000000 0000000000000008 0000000000000000",
    ),
    Vector(
        "extended TRIM of the whole range",
        extended,
        Request(4, cookie=2, offset=1, length=(1 << 64) - 1, extended=True),
        "21e41c71 0000 0004 0000000000000002 0000000000000001 ffffffffffffffff",
    ),
    # --- replies
    Vector("simple ok", simple, SimpleReply(1), "67446698 00000000 0000000000000001"),
    Vector(
        "simple ok with data",
        simple_of_4,
        SimpleReply(1, data=b"data"),
        "67446698 00000000 0000000000000001 64617461",
    ),
    Vector(
        "simple ok where structured replies are on",
        structured,
        SimpleReply(1),
        "67446698 00000000 0000000000000001",
    ),
    *_errors(),
    Vector(
        "NONE chunk, DONE",
        structured,
        Chunk(1, NoneChunk(), flags=1),
        "668e33ef 0001 0000 0000000000000001 00000000",
    ),
    Vector(
        "DATA chunk",
        structured,
        Chunk(1, Data(4096, b"data")),
        "668e33ef 0000 0001 0000000000000001 0000000c 0000000000001000 64617461",
    ),
    Vector(
        "DATA chunk with no data",
        structured,
        Chunk(1, Data(4096, b"")),
        "668e33ef 0000 0001 0000000000000001 00000008 0000000000001000",
    ),
    Vector(
        "HOLE chunk, DONE, offset 4096 size 512",
        structured,
        Chunk(1, Hole(4096, 512), flags=1),
        "668e33ef 0001 0002 0000000000000001 0000000c 0000000000001000 00000200",
    ),
    Vector(
        "BLOCK_STATUS ctx 7, 64 KiB hole+zero, DONE",
        structured,
        Chunk(1, Status(7, ((65536, 3),)), flags=1),
        "668e33ef 0001 0005 0000000000000001 0000000c 00000007 00010000 00000003",
    ),
    Vector(
        "BLOCK_STATUS without extents",
        structured,
        Chunk(1, Status(7, ())),
        "668e33ef 0000 0005 0000000000000001 00000004 00000007",
    ),
    Vector(
        "BLOCK_STATUS_EXT in a structured chunk",
        structured,
        Chunk(1, Status(7, ((1, 2),)), type=6),
        "668e33ef 0000 0006 0000000000000001 00000018 00000007 00000001"
        "0000000000000001 0000000000000002",
    ),
    Vector(
        "ERROR EINVAL no text, DONE",
        structured,
        Chunk(1, ErrorChunk(22), flags=1),
        "668e33ef 0001 8001 0000000000000001 00000006 00000016 0000",
    ),
    Vector(
        "ERROR with text and bytes after it",
        structured,
        Chunk(1, ErrorChunk(5, "bad", rest=b"\x00\xff")),
        "668e33ef 0000 8001 0000000000000001 0000000b 00000005 0003 626164 00ff",
    ),
    Vector(
        "ERROR_OFFSET",
        structured,
        Chunk(1, ErrorChunk(5, "bad", offset=4096)),
        "668e33ef 0000 8002 0000000000000001 00000011 00000005 0003 626164 0000000000001000",
    ),
    Vector(
        "ERROR_OFFSET with bytes after it",
        structured,
        Chunk(1, ErrorChunk(5, offset=0, rest=b"+")),
        "668e33ef 0000 8002 0000000000000001 0000000f 00000005 0000 0000000000000000 2b",
    ),
    Vector(
        "error chunk of an unknown type",
        structured,
        Chunk(1, ErrorChunk(5, "?"), type=0xFFFF),
        "668e33ef 0000 ffff 0000000000000001 00000007 00000005 0001 3f",
    ),
    Vector(
        "chunk of an unknown type",
        structured,
        Chunk(1, RawBody(b"?"), flags=0xFFFF, type=3),
        "668e33ef ffff 0003 0000000000000001 00000001 3f",
    ),
    Vector(
        "extended NONE chunk",
        extended_reply,
        Chunk(1, NoneChunk(), flags=1, request_offset=4096),
        "6e8a278c 0001 0000 0000000000000001 0000000000001000 0000000000000000",
    ),
    Vector(
        "extended DATA chunk",
        extended_reply,
        Chunk(1, Data(4096, b"data"), flags=1, request_offset=4096),
        "6e8a278c 0001 0001 0000000000000001 0000000000001000 000000000000000c"
        "0000000000001000 64617461",
    ),
    Vector(
        "extended BLOCK_STATUS_EXT, a 2**40 extent",
        extended_reply,
        Chunk(1, Status(7, ((1 << 40, 3), (1, 1 << 63))), flags=1, request_offset=0),
        "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000028"
        "00000007 00000002 0000010000000000 0000000000000003 0000000000000001 8000000000000000",
    ),
    Vector(
        "BLOCK_STATUS in an extended chunk",
        extended_reply,
        Chunk(1, Status(7, ((1, 2),)), type=5, request_offset=0),
        "6e8a278c 0000 0005 0000000000000001 0000000000000000 000000000000000c"
        "00000007 00000001 00000002",
    ),
    Vector(
        "extended ERROR",
        extended_reply,
        Chunk(1, ErrorChunk(108, "bye"), flags=1, request_offset=9),
        "6e8a278c 0001 8001 0000000000000001 0000000000000009 00000000000000090000006c 0003 627965",
    ),
]

# Bodies that do not have the layout of their type: (name, decoder, bytes).
MISFITS: list[tuple[str, Decoder, str]] = [
    ("GO: name past the end (C-25)", option, "49484156454f5054 00000007 00000006 00000001 0000"),
    ("GO: no name length (C-08)", option, "49484156454f5054 00000007 00000003 000000"),
    ("GO: no count (C-08)", option, "49484156454f5054 00000007 00000004 00000000"),
    ("GO: too few infos (C-08)", option, "49484156454f5054 00000007 00000006 00000000 0001"),
    ("GO: a byte too many (C-08)", option, "49484156454f5054 00000007 00000007 00000000 0000 00"),
    ("INFO: huge count", option, "49484156454f5054 00000006 00000006 00000000 ffff"),
    ("SET: empty data", option, "49484156454f5054 0000000a 00000000"),
    ("SET: no query count", option, "49484156454f5054 0000000a 00000004 00000000"),
    (
        "SET: query past the end (C-40)",
        option,
        "49484156454f5054 0000000a 0000000d 00000000 00000001 00000002 61",
    ),
    (
        "SET: too few queries",
        option,
        "49484156454f5054 0000000a 0000000c 00000000 ffffffff 00000000",
    ),
    (
        "SET: too many queries",
        option,
        "49484156454f5054 0000000a 0000000c 00000000 00000000 00000000",
    ),
    (
        "SERVER: too short (S-41)",
        option_reply,
        "0003e889045565a9 00000003 00000002 00000003 000000",
    ),
    (
        "SERVER: name past the end (S-40)",
        option_reply,
        "0003e889045565a9 00000003 00000002 00000004 00000001",
    ),
    ("INFO: no type (S-71)", option_reply, "0003e889045565a9 00000007 00000003 00000001 00"),
    ("INFO: empty (S-71)", option_reply, "0003e889045565a9 00000007 00000003 00000000"),
    (
        "INFO_EXPORT: 11 bytes (S-51)",
        option_reply,
        "0003e889045565a9 00000007 00000003 0000000b 0000 000000000000000000",
    ),
    (
        "INFO_EXPORT: 13 bytes (S-51)",
        option_reply,
        "0003e889045565a9 00000007 00000003 0000000d 0000 0000000000000000000000",
    ),
    (
        "INFO_BLOCK_SIZE: 2 bytes (S-53)",
        option_reply,
        "0003e889045565a9 00000007 00000003 00000002 0003",
    ),
    (
        "META_CONTEXT: 3 bytes (S-84)",
        option_reply,
        "0003e889045565a9 0000000a 00000004 00000003 000000",
    ),
    ("NONE: with data (S-139)", structured, "668e33ef 0001 0000 0000000000000001 00000001 00"),
    (
        "DATA: 7 bytes (S-150)",
        structured,
        "668e33ef 0001 0001 0000000000000001 00000007" + "00" * 7,
    ),
    (
        "HOLE: 11 bytes (S-151)",
        structured,
        "668e33ef 0001 0002 0000000000000001 0000000b" + "00" * 11,
    ),
    (
        "HOLE: 13 bytes (S-151)",
        structured,
        "668e33ef 0001 0002 0000000000000001 0000000d" + "00" * 13,
    ),
    ("STATUS: empty (S-203)", structured, "668e33ef 0001 0005 0000000000000001 00000000"),
    (
        "STATUS: 8 bytes (S-203)",
        structured,
        "668e33ef 0001 0005 0000000000000001 00000008" + "00" * 8,
    ),
    (
        "STATUS_EXT: 4 bytes (S-203)",
        structured,
        "668e33ef 0001 0006 0000000000000001 00000004 00000000",
    ),
    (
        "STATUS_EXT: count without extents (S-216)",
        extended_reply,
        "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000008 00000007 ffffffff",
    ),
    (
        "ERROR: 5 bytes (S-165)",
        structured,
        "668e33ef 0001 8001 0000000000000001 00000005 0000001600",
    ),
    (
        "ERROR: text past the end (S-166)",
        structured,
        "668e33ef 0001 8001 0000000000000001 00000006 00000016 0001",
    ),
    (
        "ERROR_OFFSET: 13 bytes (S-165)",
        structured,
        "668e33ef 0001 8002 0000000000000001 0000000d 00000016 0000 00000000000000",
    ),
    (
        "ERROR_OFFSET: text in the place of the offset (S-166)",
        structured,
        "668e33ef 0001 8002 0000000000000001 0000000e 00000016 0001 0000000000000000",
    ),
    (
        "unknown error type: too short (S-142)",
        structured,
        "668e33ef 0001 8003 0000000000000001 00000001 00",
    ),
]
