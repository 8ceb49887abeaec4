"""One connection as bytes, from the greeting to the end that the journal tells of."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from fakenbd.conversation import Handshake
from fakenbd.export import BlockSize, Export
from fakenbd.export.content import BytesContent, Pattern
from fakenbd.faults import Faults
from fakenbd.faults.answer import CloseConnection
from fakenbd.journal import Closed, Violated
from fakenbd.protocol.constants import Command, CommandFlag, Info, Option, Reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    Data,
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
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)
from tests.conversation.talk import Talk, handshake

SIZE = 1 << 20
FLAGS = 0x808D
PATTERN = Pattern()
DISC = encode(Request(Command.DISC, 9))
HELLO = encode(ClientFlags(3))


def disk(name: str = "", **options: Any) -> Export:
    return Export(name, **({"size": SIZE, "flags": FLAGS} | options))


def option(number: int, *body: Any) -> bytes:
    return encode(OptionRequest(number, *body))


def wire(*messages: ServerMessage) -> bytes:
    return b"".join(map(encode, messages))


def ended(talk: Talk) -> tuple[str, str, str]:
    (end,) = [entry for entry in talk.journal if isinstance(entry, Closed)]
    return end.by, end.how, end.detail


def spoken(said: bytes, **options: Any) -> Talk:
    """All of it at once, and then the client's end."""
    talk = Talk([disk()], **options)
    talk.say(said)
    talk.leave()
    return talk


# --- the greeting -------------------------------------------------------------------------------

GREETINGS = [
    (Handshake(), Greeting(3)),
    (Handshake(no_zeroes=False), Greeting(1)),
    (Handshake(style="newstyle"), Greeting(2)),
    (Handshake(style="newstyle", no_zeroes=False), Greeting(0)),
    (Handshake(style="oldstyle"), OldstyleGreeting(SIZE, FLAGS & ~0x80)),
]


@pytest.mark.parametrize(("speaks", "greeting"), GREETINGS)
def test_greeting(speaks: Handshake, greeting: ServerMessage) -> None:
    assert Talk([disk()], speaks=speaks).answers == encode(greeting)


def test_oldstyle_goes_straight_to_transmission() -> None:
    talk = Talk([disk()], speaks=Handshake(style="oldstyle"))
    talk.answers.clear()
    talk.say(encode(Request(Command.READ, 7, 512, 4)))
    assert talk.answers == wire(SimpleReply(7, 0, PATTERN.read(512, 4)))


# --- whole conversations ------------------------------------------------------------------------

HALF = bytes(range(256)) * 2
QUERY = MetaContextQuery("disk", ["base:allocation"])
PAYLOAD_LEN = CommandFlag.PAYLOAD_LEN


def extended(command: int, cookie: int, *fields: Any) -> bytes:
    return encode(Request(command, cookie, *fields, extended=True))


def acked(number: int, *bodies: Any) -> list[ServerMessage]:
    return [OptionReply(number, body) for body in (*bodies, Ack())]


# what the client says, and what is answered to each of it
CONVERSATIONS: dict[str, list[tuple[bytes, list[ServerMessage]]]] = {
    "simple": [
        (HELLO, []),
        (option(Option.LIST), []),
        (
            option(Option.GO, InfoQuery("disk", [Info.NAME, Info.BLOCK_SIZE])),
            acked(
                Option.GO,
                InfoText(Info.NAME, "disk"),
                InfoBlockSize(1, 4096, 65536),
                InfoExport(1024, FLAGS & ~0x80),
            ),
        ),
        (encode(Request(Command.READ, 1, 256, 512)), [SimpleReply(1, 0, HALF[256:] + bytes(256))]),
        (encode(Request(Command.WRITE, 2, 0, 5, 0, b"hello")), [SimpleReply(2)]),
        (encode(Request(Command.READ, 3, 0, 8)), [SimpleReply(3, 0, b"hello" + HALF[5:8])]),
        (encode(Request(Command.READ, 4, 1024, 1)), [SimpleReply(4, 22)]),
        (DISC, []),
    ],
    "structured": [
        (HELLO, []),
        (option(Option.STRUCTURED_REPLY), acked(Option.STRUCTURED_REPLY)),
        (
            option(Option.SET_META_CONTEXT, QUERY),
            acked(Option.SET_META_CONTEXT, MetaContext(1, "base:allocation")),
        ),
        (option(Option.GO, InfoQuery("disk")), acked(Option.GO, InfoExport(1024, FLAGS))),
        (
            encode(Request(Command.READ, 1, 256, 512)),
            [Chunk(1, Data(256, HALF[256:])), Chunk(1, Hole(512, 256), 1)],
        ),
        (
            encode(Request(Command.BLOCK_STATUS, 2, 256, 512)),
            [Chunk(2, Status(1, [(256, 0), (256, 3)]), 1)],
        ),
        (encode(Request(Command.WRITE, 3, 512, 2, 0, b"hi")), [SimpleReply(3)]),
        (DISC, []),
    ],
    "extended": [
        (HELLO, []),
        (option(Option.EXTENDED_HEADERS), acked(Option.EXTENDED_HEADERS)),
        (option(Option.GO, InfoQuery("disk")), acked(Option.GO, InfoExport(1024, FLAGS))),
        (
            extended(Command.READ, 1, 0, 4),
            [Chunk(1, Data(0, HALF[:4]), 1, request_offset=0)],
        ),
        (
            extended(Command.WRITE, 2, 512, 2, PAYLOAD_LEN, b"hi"),
            [Chunk(2, NoneChunk(), 1, request_offset=512)],
        ),
        (extended(Command.DISC, 9), []),
    ],
    "by name only": [
        (HELLO, []),
        (
            option(Option.EXPORT_NAME, ExportName("disk")),
            [ExportNameReply(1024, FLAGS & ~0x80, b"")],
        ),
        (encode(Request(Command.READ, 1, 0, 4)), [SimpleReply(1, 0, HALF[:4])]),
        (DISC, []),
    ],
    "by name only, with zeroes": [
        (encode(ClientFlags(1)), []),
        (
            option(Option.EXPORT_NAME, ExportName("disk")),
            [ExportNameReply(1024, FLAGS & ~0x80, bytes(124))],
        ),
        (DISC, []),
    ],
    "given up": [
        (HELLO, []),
        (
            option(Option.GO, InfoQuery("missing")),
            [OptionReply(Option.GO, ErrorReply("there is no export of that name"), 0x80000006)],
        ),
        (option(Option.ABORT), acked(Option.ABORT)),
    ],
}


def talk_about(name: str) -> tuple[Talk, bytes, bytes]:
    """A server, all that its client says, and all that must come of it."""
    conversation = CONVERSATIONS[name]
    blocks = BlockSize(1, 4096, 65536)
    talk = Talk([disk("disk", size=1024, content=BytesContent(HALF), block_size=blocks)])
    answers: list[ServerMessage] = [Greeting(3)]
    for said, answered in conversation:
        answers += acked(Option.LIST, Server("disk")) if said == option(Option.LIST) else answered
    return talk, b"".join(said for said, _ in conversation), wire(*answers)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    talk, said, answers = talk_about(name)
    talk.say(said)
    assert talk.answers == answers
    assert talk.markers == [CloseConnection()]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_it_is_the_same_however_it_is_cut(name: str) -> None:
    """In single bytes, and in two pieces that end anywhere."""
    talk, said, answers = talk_about(name)
    for cuts in (range(len(said)), *([place] for place in range(len(said)))):
        talk, said, answers = talk_about(name)
        talk.say(said, cuts)
        assert talk.answers == answers, cuts
        assert talk.markers == [CloseConnection()]


def test_exports_are_picked_by_name() -> None:
    exports = [disk("one", content=BytesContent(b"1")), disk("two", content=BytesContent(b"2"))]
    for name, content in (("one", b"1"), ("two", b"2"), ("", b"1")):
        talk = Talk(exports)
        talk.say(handshake(name=name) + encode(Request(Command.READ, 5, 0, 1)))
        assert talk.answers.endswith(encode(SimpleReply(5, 0, content)))


def test_connections_share_what_was_written() -> None:
    talk = Talk([disk()])
    first = talk.conversation
    talk.say(handshake() + encode(Request(Command.WRITE, 5, 0, 5, 0, b"hello")))
    talk.connect()
    assert talk.conversation is not first
    talk.say(handshake() + encode(Request(Command.READ, 6, 0, 5)))
    assert talk.answers.endswith(encode(SimpleReply(6, 0, b"hello")))


# --- how it ends --------------------------------------------------------------------------------

OPEN = handshake()
FIXED, PLAIN = Handshake(), Handshake(style="newstyle")
WRITE_OF = "25609513 0000 0001 0000000000000007 0000000000000000"

ENDS: dict[str, tuple[bytes, Handshake, tuple[str, str, str]]] = {
    "DISC": (OPEN + DISC, FIXED, ("client", "DISC", "")),
    "ABORT": (HELLO + option(Option.ABORT), FIXED, ("client", "ABORT", "")),
    "nothing said": (b"", FIXED, ("client", "EOF", "")),
    "in mid-option": (HELLO + option(Option.LIST)[:9], FIXED, ("client", "EOF", "")),
    "in mid-request": (OPEN + DISC[:20], FIXED, ("client", "EOF", "")),
    "in mid-payload": (
        OPEN + encode(Request(Command.WRITE, 1, 0, 512, 0, bytes(512)))[:-1],
        FIXED,
        ("client", "EOF", ""),
    ),
    "unknown client flags": (
        encode(ClientFlags(7)),
        FIXED,
        ("server", "refused", "client flags 0x4 match nothing that was offered"),
    ),
    "not NBD": (
        b"GET / HTTP/1.1\r\n\r\n",
        FIXED,
        ("server", "refused", "client flags 0x47455420 match nothing that was offered"),
    ),
    "fixed newstyle was not offered": (
        encode(ClientFlags(1)),
        PLAIN,
        ("server", "refused", "client flags 0x1 match nothing that was offered"),
    ),
    "an option without fixed newstyle": (
        encode(ClientFlags(2)) + option(Option.LIST),
        PLAIN,
        ("server", "refused", "the option could not be met and has no reply for that"),
    ),
    "no such export": (
        HELLO + option(Option.EXPORT_NAME, ExportName("missing")),
        FIXED,
        ("server", "refused", "the option could not be met and has no reply for that"),
    ),
    "no option": (
        HELLO + bytes(16),
        FIXED,
        (
            "server",
            "refused",
            "the client's option begins with 0x0000000000000000, not with IHAVEOPT "
            "(0x49484156454f5054) (C-07)",
        ),
    ),
    "no request": (
        OPEN + bytes(28),
        FIXED,
        (
            "server",
            "refused",
            "the client's request begins with 0x00000000, not with 0x25609513 (C-70)",
        ),
    ),
    "an option that is too long": (
        HELLO + struct.pack(">QLL", 0x49484156454F5054, Option.GO, 0xFFFFFFFF),
        FIXED,
        (
            "server",
            "refused",
            "the client's NBD_OPT_GO announces 4294967295 bytes of data; at most 262144 are taken "
            "(C-12)",
        ),
    ),
    "a payload that is too long": (
        OPEN + bytes.fromhex(WRITE_OF + "04000001"),
        FIXED,
        (
            "server",
            "refused",
            "the client's NBD_CMD_WRITE with cookie 7 announces 67108865 bytes of payload; "
            "at most 67108864 are taken (C-92)",
        ),
    ),
}


@pytest.mark.parametrize(("said", "speaks", "expected"), ENDS.values(), ids=ENDS.keys())
def test_end(said: bytes, speaks: Handshake, expected: tuple[str, str, str]) -> None:
    assert ended(spoken(said, speaks=speaks)) == expected


# --- what a client may cost ---------------------------------------------------------------------

FLOODS = {
    "a write": (OPEN + bytes.fromhex(WRITE_OF + "04000000"), 1 << 26),
    "an option": (HELLO + struct.pack(">QLL", 0x49484156454F5054, 77, 1 << 18), 1 << 18),
}


@pytest.mark.parametrize(("head", "length"), FLOODS.values(), ids=FLOODS.keys())
def test_memory_follows_what_came_and_not_what_was_announced(head: bytes, length: int) -> None:
    talk = Talk([disk(size=1 << 30)])
    talk.say(head)
    came = len(head)
    while came < length // 2:
        room = len(talk.conversation.get_buffer())
        assert 0 < room <= max(1 << 14, 4 * came)
        talk.say(bytes(room))
        came += room
    assert talk.markers == []


def test_a_large_buffer_is_given_back() -> None:
    talk = Talk([disk(size=1 << 30)])
    write = Request(Command.WRITE, 1, 0, 1 << 25, 0, bytes(1 << 25))
    talk.say(OPEN + encode(write))
    assert talk.answers.endswith(encode(SimpleReply(1)))
    assert len(talk.conversation.get_buffer()) <= 1 << 20


@pytest.mark.parametrize("pieces", [1, 4096])
def test_a_flood_of_reads_is_answered_bit_by_bit(pieces: int) -> None:
    """Requests of a gibibyte in all, said at once, never wait together to leave."""
    length = 1 << 25 if pieces == 1 else 1 << 18
    talk = Talk([disk(size=1 << 30)])
    talk.say(OPEN)
    requests = [Request(Command.READ, place, 0, length) for place in range((1 << 30) // length)]
    conversation = talk.conversation
    data = memoryview(b"".join(map(encode, requests)))
    waiting = replies = 0
    while data:
        room = conversation.get_buffer()
        count = min(len(room), len(data))
        room[:count], data = data[:count], data[count:]
        conversation.buffer_updated(count)
        while True:
            size = sum(map(len, conversation.outgoing()))
            waiting, replies = max(waiting, conversation.responder.queue.size), replies + size
            conversation.left(size)
            if not conversation.more:
                break
            conversation.resume()
    assert replies == len(requests) * (16 + length)
    assert waiting < (1 << 23) + (1 << 25) + (1 << 12)


# --- shutting down ------------------------------------------------------------------------------


def test_a_server_that_shuts_down_says_so_to_everything_but_abort() -> None:
    faults = Faults()
    faults.on(option="list").shutdown()
    talk = Talk([disk()], faults)
    talk.say(HELLO + option(Option.LIST) + option(Option.GO, InfoQuery()) + option(Option.ABORT))
    assert talk.answers == wire(
        Greeting(3),
        OptionReply(Option.LIST, ErrorReply(), Reply.ERR_SHUTDOWN),
        OptionReply(Option.GO, ErrorReply("the server is shutting down"), Reply.ERR_SHUTDOWN),
        OptionReply(Option.ABORT, Ack()),
    )


def test_what_a_client_broke_is_told_with_the_message_that_broke_it() -> None:
    talk = Talk([disk()])
    talk.say(OPEN)
    talk.say(encode(Request(Command.READ, 5, SIZE, 512)))
    (violation,) = [entry for entry in talk.journal if isinstance(entry, Violated)]
    about = talk.journal.since(violation.about)[0]
    assert (violation.rule, about.command, about.offset) == ("C-88", "read", SIZE)
