"""Every kind of fault: the changed answer, step by step and byte by byte."""

from __future__ import annotations

from typing import Final

import attrs

from fakenbd.faults.answer import (
    Answer,
    BeginShutdown,
    CeaseReading,
    CloseConnection,
    NeverSend,
    PaceBytes,
    Pause,
    RepeatMessages,
    SendPieces,
    StartTLS,
    TakeListenerDown,
    WaitForReplies,
)
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    Data,
    ErrorChunk,
    ErrorReply,
    Extent,
    Greeting,
    Hole,
    InfoExport,
    InfoText,
    NoneChunk,
    OptionReply,
    Raw,
    RawBody,
    SimpleReply,
    Status,
)
from tests.faults.correct_answers import (
    ABORT,
    CHUNKS,
    CONNECT,
    COOKIE,
    EXTENDED,
    GO,
    GREETING,
    SIMPLE,
    STARTTLS,
    STATUS,
    CorrectAnswer,
)


@attrs.frozen
class Case:
    """`do` of a profile: the changed answer, its bytes in hexadecimal, the sentence."""

    do: str
    correct_answer: CorrectAnswer
    answer: Answer
    wire: str
    change: str


DATA, HOLE = CHUNKS.answer
DATA_HEX, HOLE_HEX = CHUNKS.pieces
EXPORT, NAME, ACK = GO.answer
EXPORT_HEX, NAME_HEX, ACK_HEX = GO.pieces
HEADER_HEX, CONTENT_HEX = SIMPLE.pieces
SIMPLE_HEX = HEADER_HEX + CONTENT_HEX
STATUS_HEX = STATUS.pieces[0]
GREETING_HEX = GREETING.pieces[0]
TLS_ACK_HEX = STARTTLS.pieces[0]
CHUNK_DONE = "668e33ef 0001"
CHUNK_MORE = "668e33ef 0000"
COOKIE_HEX = "0102030405060708"

CASES: Final[tuple[Case, ...]] = (
    # --- answer ---
    Case(
        '{ error = "EIO", message = "bad sector", effect = true }',
        SIMPLE,
        [SimpleReply(COOKIE, 5)],
        f"67446698 00000005 {COOKIE_HEX}",
        "replaced simple reply by NBD_EIO",
    ),
    Case(
        '{ error = 9999, message = "bad" }',
        CHUNKS,
        [Chunk(COOKIE, ErrorChunk(9999, "bad"), flags=1)],
        f"{CHUNK_DONE} 8001 {COOKIE_HEX} 00000009 0000270f 0003 626164",
        "replaced data chunk, hole chunk by NBD_(9999)",
    ),
    Case(
        '{ error = "eio", offset = "+8" }',
        EXTENDED,
        [Chunk(COOKIE, ErrorChunk(5, "", 4104), flags=1, request_offset=4096)],
        f"6e8a278c 0001 8002 {COOKIE_HEX} 0000000000001000 000000000000000e"
        "00000005 0000 0000000000001008",
        "replaced hole chunk by NBD_EIO",
    ),
    Case(
        '{ error = "EIO", offset = "4KiB" }',
        CHUNKS,
        [Chunk(COOKIE, ErrorChunk(5, "", 4096), flags=1)],
        f"{CHUNK_DONE} 8002 {COOKIE_HEX} 0000000e 00000005 0000 0000000000001000",
        "replaced data chunk, hole chunk by NBD_EIO",
    ),
    Case(
        '{ refuse = "policy", message = "no", effect = true }',
        GO,
        [OptionReply(7, ErrorReply("no"), type=0x80000002)],
        "0003e889045565a9 00000007 80000002 00000002 6e6f",
        "replaced info-export reply, info-name reply, ack by NBD_REP_ERR_POLICY",
    ),
    Case(
        '{ reply = [{ message = "data", data = "ff", offset = "+1" }, { message = "none" }] }',
        CHUNKS,
        [Chunk(COOKIE, Data(4097, b"\xff")), Chunk(COOKIE, NoneChunk(), flags=1)],
        f"{CHUNK_MORE} 0001 {COOKIE_HEX} 00000009 0000000000001001 ff"
        f"{CHUNK_DONE} 0000 {COOKIE_HEX} 00000000",
        "replaced data chunk, hole chunk by data chunk, none chunk",
    ),
    Case(
        '{ reply = ["00 ff", { text = "HTTP" }, { message = "hole" }] }',
        CHUNKS,
        [Raw(b"\x00\xff"), Raw(b"HTTP"), Chunk(COOKIE, Hole(4096, 16), flags=1)],
        f"00ff 48545450 {CHUNK_DONE} 0002 {COOKIE_HEX} 0000000c 0000000000001000 00000010",
        "replaced data chunk, hole chunk by 2 x raw bytes, hole chunk",
    ),
    Case(
        "{ reply = [], effect = true }",
        SIMPLE,
        [],
        "",
        "dropped simple reply",
    ),
    Case(
        '{ extents = ["2000 data", [0, 3]], context-id = 1, at = "last" }',
        STATUS,
        [Chunk(COOKIE, Status(1, [Extent(2000, 0), Extent(0, 3)]), flags=1)],
        f"{CHUNK_DONE} 0005 {COOKIE_HEX} 00000014 00000001 000007d0 00000000 00000000 00000003",
        "set extents of the status chunk: [(1000, 0), (24, 3)] -> [(2000, 0), (0, 3)]",
    ),
    # --- message ---
    Case(
        '{ set = { cookie = "+1" } }',
        CHUNKS,
        [
            Chunk(COOKIE + 1, Data(4096, b"01234567")),
            Chunk(COOKIE + 1, Hole(4104, 8), flags=1),
        ],
        f"{CHUNK_MORE} 0001 0102030405060709 00000010 0000000000001000 3031323334353637"
        f"{CHUNK_DONE} 0002 0102030405060709 0000000c 0000000000001008 00000008",
        "set cookie of the data chunk: 0x102030405060708 -> 0x102030405060709; "
        "set cookie of the hole chunk: 0x102030405060708 -> 0x102030405060709",
    ),
    Case(
        '{ set = { size = 0, flags = ["has-flags", "read-only"], length = "-1" }, '
        'at = "info-export" }',
        GO,
        [OptionReply(7, InfoExport(0, 3), length=11), NAME, ACK],
        "0003e889045565a9 00000007 00000003 0000000b 0000 0000000000000000 0003"
        + NAME_HEX
        + ACK_HEX,
        "set size of the info-export reply: 1024 -> 0; "
        "set flags of the info-export reply: 0x6d -> 0x3; "
        "set length of the info-export reply: 12 -> 11",
    ),
    Case(
        '{ set = { magic = "swapped", flags = "+0xfffc" } }',
        GREETING,
        [Greeting(flags=0xFFFF, magic=0x434947414D44424E)],
        "434947414d44424e 49484156454f5054 ffff",
        "set magic of the greeting: 0x4e42444d41474943 -> 0x434947414d44424e; "
        "set flags of the greeting: 0x3 -> 0xffff",
    ),
    Case(
        '{ set = { data = { resize = "-15" } } }',
        SIMPLE,
        [SimpleReply(COOKIE, 0, b"0")],
        HEADER_HEX + "30",
        "set data of the simple reply: 16 -> 1 byte",
    ),
    Case(
        '{ set = { payload = "0000", type = "ack" }, at = 1 }',
        GO,
        [EXPORT, OptionReply(7, RawBody(b"\0\0"), type=1), ACK],
        EXPORT_HEX + "0003e889045565a9 00000007 00000001 00000002 0000" + ACK_HEX,
        "set payload of the info-name reply: 6 -> 2 bytes; "
        "set type of the info-name reply: 3 -> 1 NBD_REP_ACK",
    ),
    Case(
        '{ set = { text = { text = "x", times = 3 } }, at = "info-name" }',
        GO,
        [EXPORT, OptionReply(7, InfoText(1, "xxx")), ACK],
        EXPORT_HEX + "0003e889045565a9 00000007 00000003 00000005 0001 787878" + ACK_HEX,
        "set text of the info-name reply: 'disk' -> 'xxx'",
    ),
    Case(
        '{ set = { extents = ["1 zero"], length = 4 } }',
        STATUS,
        [Chunk(COOKIE, Status(1, [Extent(1, 2)]), flags=1, length=4)],
        f"{CHUNK_DONE} 0005 {COOKIE_HEX} 00000004 00000001 00000001 00000002",
        "set extents of the status chunk: [(1000, 0), (24, 3)] -> [(1, 2)]; "
        "set length of the status chunk: 12 -> 4",
    ),
    Case('{ drop = "last" }', CHUNKS, [DATA], DATA_HEX, "dropped hole chunk"),
    Case("{ drop = true }", CHUNKS, [], "", "dropped data chunk, hole chunk"),
    Case('{ drop = "chunk", nth = 2 }', CHUNKS, [DATA], DATA_HEX, "dropped hole chunk"),
    Case('{ drop = "data", nth = 2 }', CHUNKS, [DATA, HOLE], DATA_HEX + HOLE_HEX, ""),
    Case(
        "{ repeat = 2, at = 0 }",
        CHUNKS,
        [DATA, RepeatMessages((DATA,), 2), HOLE],
        DATA_HEX * 3 + HOLE_HEX,
        "inserted 2 x data chunk",
    ),
    Case(
        '{ repeat = "forever", at = "each" }',
        GREETING,
        [Greeting(), RepeatMessages((Greeting(),), None)],
        GREETING_HEX * 2,
        "repeated 18 bytes for ever",
    ),
    Case(
        '{ repeat = "forever", seconds = 0.5 }',
        GREETING,
        [Greeting(), RepeatMessages((Greeting(),), None, 0.5)],
        GREETING_HEX * 2,
        "repeated 18 bytes for ever, 0.5 s apart",
    ),
    Case(
        '{ insert = { message = "none", flags = 0 }, before = "hole" }',
        CHUNKS,
        [DATA, Chunk(COOKIE, NoneChunk()), HOLE],
        DATA_HEX + f"{CHUNK_MORE} 0000 {COOKIE_HEX} 00000000" + HOLE_HEX,
        "inserted none chunk",
    ),
    Case(
        '{ insert = "00", after = 0 }',
        GO,
        [EXPORT, Raw(b"\0"), NAME, ACK],
        EXPORT_HEX + "00" + NAME_HEX + ACK_HEX,
        "inserted raw bytes",
    ),
    Case(
        '{ insert = { message = "raw", zeros = 124 } }',
        GO,
        [EXPORT, NAME, ACK, Raw(bytes(124))],
        "".join(GO.pieces) + "00" * 124,
        "inserted raw bytes",
    ),
    Case(
        '{ insert = { message = "greeting" } }',
        CONNECT,
        [Greeting()],
        GREETING_HEX,
        "inserted greeting",
    ),
    Case(
        '{ split = 4, at = "data" }',
        CHUNKS,
        [SendPieces(DATA, 4, "0/1/a lie/1"), HOLE],
        f"{CHUNK_MORE} 0001 {COOKIE_HEX} 0000000c 0000000000001000 30313233"
        f"{CHUNK_MORE} 0001 {COOKIE_HEX} 0000000c 0000000000001004 34353637" + HOLE_HEX,
        "split the data chunk into 2",
    ),
    Case(
        "{ split = 600 }",
        STATUS,
        [Chunk(COOKIE, Status(1, [Extent(600, 0), Extent(400, 0), Extent(24, 3)]), flags=1)],
        f"{CHUNK_DONE} 0005 {COOKIE_HEX} 0000001c 00000001"
        "00000258 00000000 00000190 00000000 00000018 00000003",
        "set extents of the status chunk: [(1000, 0), (24, 3)] -> [(600, 0), (400, 0), (24, 3)]",
    ),
    Case(
        '{ shuffle = "each", travels = false }',
        CHUNKS,
        [Chunk(COOKIE, Hole(4104, 8)), Chunk(COOKIE, Data(4096, b"01234567"), flags=1)],
        f"{CHUNK_MORE} 0002 {COOKIE_HEX} 0000000c 0000000000001008 00000008"
        f"{CHUNK_DONE} 0001 {COOKIE_HEX} 00000010 0000000000001000 3031323334353637",
        "sent in the order 2, 1",
    ),
    Case(
        "{ reverse = true, travels = true }",
        CHUNKS,
        [HOLE, DATA],
        HOLE_HEX + DATA_HEX,
        "sent in the order 2, 1",
    ),
    Case(
        '{ reverse = "each" }',
        GO,
        [NAME, EXPORT, ACK],
        NAME_HEX + EXPORT_HEX + ACK_HEX,
        "sent in the order 2, 1, 3",
    ),
    # --- bytes ---
    Case(
        "{ cut = 7 }",
        SIMPLE,
        [Raw(bytes.fromhex("67446698 000000")), CloseConnection()],
        "67446698 000000",
        "cut after 7 of 32 bytes, then close",
    ),
    Case(
        '{ cut = -1, then = "reset", at = "data" }',
        CHUNKS,
        [Raw(bytes.fromhex(DATA_HEX)[:-1]), CloseConnection("reset")],
        DATA_HEX[:-2],
        "cut after 35 of 68 bytes, then reset",
    ),
    Case(
        '{ cut = 0, then = "stall" }',
        CHUNKS,
        [NeverSend()],
        "",
        "stalled after 0 of 68 bytes",
    ),
    Case(
        '{ cut = 0, at = "last", then = "half-close" }',
        CHUNKS,
        [DATA, CloseConnection("half-close")],
        DATA_HEX,
        "cut after 36 of 68 bytes, then half-close",
    ),
    Case(
        '{ corrupt = 3, xor = "80" }',
        SIMPLE,
        [Raw(bytes.fromhex(SIMPLE_HEX.replace("67446698", "67446618")))],
        SIMPLE_HEX.replace("67446698", "67446618"),
        "changed byte 3: 0x98 -> 0x18",
    ),
    Case(
        '{ corrupt = -2, overwrite = "0000", at = "data" }',
        CHUNKS,
        [Raw(bytes.fromhex(DATA_HEX[:-4] + "0000")), HOLE],
        DATA_HEX[:-4] + "0000" + HOLE_HEX,
        "changed 2 bytes, the first at 34",
    ),
    Case(
        "{ corrupt = true, count = 2 }",
        GREETING,
        [Raw(bytes.fromhex("4ebd444d41474943 b6484156454f5054 0003"))],
        "4ebd444d41474943 b6484156454f5054 0003",
        "changed 2 bytes, the first at 1",
    ),
    Case(
        "{ dribble = 3, seconds = 0.5 }",
        CHUNKS,
        [PaceBytes(CHUNKS.wire, 3, 0.5)],
        DATA_HEX + HOLE_HEX,
        "sent 3 bytes a write, 0.5 s apart",
    ),
    Case(
        '{ dribble = [20, 8], at = "data" }',
        CHUNKS,
        [PaceBytes(CHUNKS.wire[:36], (20, 8)), HOLE],
        DATA_HEX + HOLE_HEX,
        "sent in writes of 20, 8, 8 bytes",
    ),
    # --- time ---
    Case("{ delay = 2 }", SIMPLE, [Pause(2.0), *SIMPLE.answer], SIMPLE_HEX, "delayed by 2 s"),
    Case(
        "{ delay = 2, jitter = 0.5 }",
        SIMPLE,
        [Pause(2.478850029582968), *SIMPLE.answer],
        SIMPLE_HEX,
        "delayed by 2.47885 s",
    ),
    Case(
        '{ delay = 2, at = "each" }',
        CHUNKS,
        [Pause(2.0), DATA, Pause(2.0), HOLE],
        DATA_HEX + HOLE_HEX,
        "delayed by 2 s, 2 times",
    ),
    Case(
        '{ hold = 1, at = "hole" }',
        CHUNKS,
        [DATA, WaitForReplies(1), HOLE],
        DATA_HEX + HOLE_HEX,
        "held until 1 other answer left",
    ),
    Case(
        "{ hold = 2, idle = 0.5 }",
        SIMPLE,
        [WaitForReplies(2, 0.5), *SIMPLE.answer],
        SIMPLE_HEX,
        "held until 2 other answers left",
    ),
    Case(
        '{ hold = "idle" }',
        SIMPLE,
        [WaitForReplies(), *SIMPLE.answer],
        SIMPLE_HEX,
        "held until idle",
    ),
    Case("{ stall = true }", SIMPLE, [NeverSend()], "", "stalled after 0 of 32 bytes"),
    Case(
        '{ stall = 8, at = "hole" }',
        CHUNKS,
        [DATA, Raw(bytes.fromhex(HOLE_HEX)[:8]), NeverSend()],
        DATA_HEX + f"{CHUNK_DONE} 0002",
        "stalled after 44 of 68 bytes",
    ),
    Case(
        "{ rate = 100 }",
        SIMPLE,
        [PaceBytes(SIMPLE.wire, 2, 0.02)],
        SIMPLE_HEX,
        "sent 2 bytes a write, 0.02 s apart",
    ),
    # --- connection ---
    Case(
        "{ refuse-connection = true }",
        CONNECT,
        [CloseConnection("reset")],
        "",
        "reset instead of going on",
    ),
    Case("{ no-greeting = true }", GREETING, [NeverSend()], "", "stalled after 0 of 18 bytes"),
    Case(
        '{ close = true, reading = "1KiB" }',
        SIMPLE,
        [CloseConnection("close", 1024)],
        "",
        "cut after 0 of 32 bytes, then close after taking 1024 bytes",
    ),
    Case(
        '{ close = true, after = true, how = "half-close" }',
        SIMPLE,
        [*SIMPLE.answer, CloseConnection("half-close")],
        SIMPLE_HEX,
        "cut after 32 of 32 bytes, then half-close",
    ),
    Case(
        "{ reset = true, after = true, reading = 4 }",
        GREETING,
        [Greeting(), CloseConnection("reset", 4)],
        GREETING_HEX,
        "cut after 18 of 18 bytes, then reset after taking 4 bytes",
    ),
    Case(
        "{ stop-reading = true }",
        SIMPLE,
        [CeaseReading(), *SIMPLE.answer],
        SIMPLE_HEX,
        "stopped reading",
    ),
    Case(
        "{ shutdown = true }",
        SIMPLE,
        [BeginShutdown(), SimpleReply(COOKIE, 108)],
        f"67446698 0000006c {COOKIE_HEX}",
        "shut down: NBD_ESHUTDOWN",
    ),
    Case(
        "{ shutdown = true, effect = true }",
        GO,
        [BeginShutdown(), OptionReply(7, ErrorReply(), type=0x80000007)],
        "0003e889045565a9 00000007 80000007 00000000",
        "shut down: NBD_REP_ERR_SHUTDOWN",
    ),
    Case(
        "{ stop-listening = 2 }",
        SIMPLE,
        [TakeListenerDown(2), CloseConnection()],
        "",
        "took the listener away for 2 attempts; cut after 0 of 32 bytes, then close",
    ),
    Case(
        '{ stop-listening = true, seconds = 1.5, then = "answer" }',
        SIMPLE,
        [TakeListenerDown(None, 1.5), *SIMPLE.answer],
        SIMPLE_HEX,
        "took the listener away for 1.5 s",
    ),
    # --- tls ---
    Case(
        '{ certificate = "expired" }',
        STARTTLS,
        [OptionReply(5, Ack()), StartTLS("expired")],
        TLS_ACK_HEX,
        "began TLS with certificate expired",
    ),
    Case(
        '{ plaintext-after-ack = { message = "ack", option = "structured-reply" } }',
        STARTTLS,
        [OptionReply(5, Ack()), OptionReply(8, Ack()), StartTLS()],
        TLS_ACK_HEX + "0003e889045565a9 00000008 00000001 00000000",
        "inserted ack",
    ),
    Case(
        "{ no-handshake = true }",
        STARTTLS,
        [OptionReply(5, Ack()), StartTLS(skip=True)],
        TLS_ACK_HEX,
        "went on in clear instead of TLS",
    ),
    Case(
        '{ no-handshake = "silence" }',
        STARTTLS,
        [OptionReply(5, Ack()), NeverSend()],
        TLS_ACK_HEX,
        "stalled instead of TLS",
    ),
    Case(
        "{ abort-handshake = 100 }",
        STARTTLS,
        [OptionReply(5, Ack()), StartTLS(abort=100)],
        TLS_ACK_HEX,
        "ended the TLS handshake after 100 bytes",
    ),
    Case(
        '{ tls-version = "1.1" }',
        STARTTLS,
        [OptionReply(5, Ack()), StartTLS(version="1.1")],
        TLS_ACK_HEX,
        "began TLS with version 1.1",
    ),
    Case(
        "{ keep-state = true }",
        STARTTLS,
        [OptionReply(5, Ack()), StartTLS(keep=True)],
        TLS_ACK_HEX,
        "kept what was negotiated before TLS",
    ),
    Case(
        "{ no-close-notify = true }",
        ABORT,
        [OptionReply(2, Ack()), CloseConnection("truncate")],
        ABORT.pieces[0],
        "cut after 20 of 20 bytes, then close without close_notify",
    ),
)
