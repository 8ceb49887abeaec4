from __future__ import annotations

import pytest

from fakenbd.protocol.encode import correct_value, encode, encode_buffers
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportName,
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
    Raw,
    RawBody,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)

from .vectors import VECTORS, Vector

Message = ServerMessage | ClientMessage


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector) -> None:
    assert encode(vector.message).hex() == vector.wire.hex()
    assert b"".join(encode_buffers(vector.message)) == vector.wire


GIVEN: list[tuple[Message, str]] = [
    (Raw(b"HTTP/1.1"), "485454502f312e31"),
    (Greeting(-1, magic=0, option_magic=-2), "0000000000000000 fffffffffffffffe ffff"),
    (
        OldstyleGreeting(-1, 1 << 32, magic=1, cliserv_magic=2, reserved=b"."),
        "0000000000000001 0000000000000002 ffffffffffffffff 00000000 2e",
    ),
    (ClientFlags(1 << 70), "00000000"),
    (
        OptionRequest(7, InfoQuery("ab", (1, -1), name_length=-1, count=9), length=0, magic=7),
        "0000000000000007 00000007 00000000 ffffffff 6162 0009 0001 ffff",
    ),
    (
        OptionRequest(10, MetaContextQuery("", ("q",), name_length=1 << 32, count=-1)),
        "49484156454f5054 0000000a 0000000d 00000000 ffffffff 00000001 71",
    ),
    (
        OptionReply(-1, Server("a", "b", name_length=99), type=-1, length=-1, magic=-1),
        "ffffffffffffffff ffffffff ffffffff ffffffff 00000063 61 62",
    ),
    (OptionReply(3, ErrorReply("x")), "0003e889045565a9 00000003 80000001 00000001 78"),
    (OptionReply(3, RawBody(b"x")), "0003e889045565a9 00000003 00000000 00000001 78"),
    (
        OptionReply(7, InfoExport(-1, 1 << 16)),
        "0003e889045565a9 00000007 00000003 0000000c 0000 ffffffffffffffff 0000",
    ),
    (
        OptionReply(7, InfoBlockSize(-1, 1 << 32, 0)),
        "0003e889045565a9 00000007 00000003 0000000e 0003 ffffffff 00000000 00000000",
    ),
    (
        OptionReply(7, InfoText(-1, "x")),
        "0003e889045565a9 00000007 00000003 00000003 ffff 78",
    ),
    (
        OptionReply(10, MetaContext(-1, "x:y")),
        "0003e889045565a9 0000000a 00000004 00000007 ffffffff 783a79",
    ),
    (
        Request(-1, -1, 2**70, -1, -1, payload=b"?", magic=-1),
        "ffffffff ffff ffff ffffffffffffffff 0000000000000000 ffffffff 3f",
    ),
    (
        Request(0, length=2**64 + 5, extended=True, magic=0x25609513),
        "25609513 0000 0000 0000000000000000 0000000000000000 0000000000000005",
    ),
    (
        SimpleReply(-1, -1, b"no data is due", magic=0),
        "00000000 ffffffff ffffffffffffffff " + b"no data is due".hex(),
    ),
    (
        Chunk(-1, Data(-1, b"x"), flags=-1, type=-1, length=-1, magic=-1),
        "ffffffff ffff ffff ffffffffffffffff ffffffff ffffffffffffffff 78",
    ),
    (
        Chunk(1, NoneChunk(), length=2**70, request_offset=-1),
        "6e8a278c 0000 0000 0000000000000001 ffffffffffffffff 0000000000000000",
    ),
    (
        Chunk(1, Hole(-1, 1 << 32)),
        "668e33ef 0000 0002 0000000000000001 0000000c ffffffffffffffff 00000000",
    ),
    (
        Chunk(1, ErrorChunk(-1, "x", offset=-1, message_length=-1, rest=b"..")),
        "668e33ef 0000 8002 0000000000000001 00000011 ffffffff ffff 78 ffffffffffffffff 2e2e",
    ),
    (
        Chunk(1, Status(-1, [(-1, 1 << 32)])),
        "668e33ef 0000 0005 0000000000000001 0000000c ffffffff ffffffff 00000000",
    ),
    # `count` asks for the extended form, whatever the header says.
    (
        Chunk(1, Status(1, [Extent(-1)], count=-1)),
        "668e33ef 0000 0006 0000000000000001 00000018 00000001 ffffffff"
        "ffffffffffffffff 0000000000000000",
    ),
    # A status chunk under a foreign type keeps the form of its header.
    (
        Chunk(1, Status(1, ((2, 3),)), type=1),
        "668e33ef 0000 0001 0000000000000001 0000000c 00000001 00000002 00000003",
    ),
    (
        Chunk(1, Status(1, ((2, 3),)), type=1, request_offset=0),
        "6e8a278c 0000 0001 0000000000000001 0000000000000000 0000000000000018"
        "00000001 00000001 0000000000000002 0000000000000003",
    ),
    (Chunk(1, RawBody(b"?")), "668e33ef 0000 0000 0000000000000001 00000001 3f"),
]


@pytest.mark.parametrize(("message", "text"), GIVEN, ids=lambda value: repr(value)[:50])
def test_lies_go_on_the_wire_cut_to_the_width_of_their_field(message: Message, text: str) -> None:
    assert encode(message).hex() == text.replace(" ", "")


PAYLOAD = memoryview(bytearray(b"content"))


@pytest.mark.parametrize(
    ("message", "head_length"),
    [
        (SimpleReply(1, data=PAYLOAD), 16),
        (Chunk(1, Data(0, PAYLOAD)), 28),
        (Chunk(1, Data(0, PAYLOAD), request_offset=0), 40),
        (Request(1, length=7, payload=PAYLOAD), 28),
        (OptionRequest(77, RawBody(PAYLOAD)), 16),
        (Raw(PAYLOAD), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_is_handed_on_uncopied(message: Message, head_length: int) -> None:
    *head, payload = encode_buffers(message)
    assert payload is PAYLOAD
    assert sum(map(len, head)) == head_length


def test_no_empty_buffer_is_sent() -> None:
    assert encode_buffers(Raw(b"")) == []
    assert len(encode_buffers(SimpleReply(1))) == 1


CORRECT: list[tuple[Message, str, int]] = [
    (Greeting(magic=1), "magic", 0x4E42444D41474943),
    (Greeting(option_magic=1), "option_magic", 0x49484156454F5054),
    (OldstyleGreeting(magic=1), "magic", 0x4E42444D41474943),
    (OldstyleGreeting(cliserv_magic=1), "cliserv_magic", 0x0000420281861253),
    (OptionRequest(7, magic=1), "magic", 0x49484156454F5054),
    (OptionRequest(7, InfoQuery("é", (1, 3)), length=-1), "length", 12),
    (OptionRequest(7, InfoQuery("é", (1, 3), name_length=-1)), "name_length", 2),
    (OptionRequest(7, InfoQuery("é", (1, 3), count=-1)), "count", 2),
    (OptionRequest(10, MetaContextQuery("abc", ("q", "r"))), "name_length", 3),
    (OptionRequest(10, MetaContextQuery("abc", ("q", "r"))), "count", 2),
    (OptionRequest(1, ExportName("abc")), "length", 3),
    (OptionReply(7, Ack(), magic=1), "magic", 0x0003E889045565A9),
    (OptionReply(7, Ack(), type=99), "type", 1),
    (OptionReply(7, Ack(b"abc"), length=-1), "length", 3),
    (OptionReply(3, Server("abc")), "type", 2),
    (OptionReply(3, Server("abc", "d")), "name_length", 3),
    (OptionReply(3, Server("abc", "d")), "length", 8),
    (OptionReply(7, InfoExport()), "type", 3),
    (OptionReply(7, InfoText(1)), "type", 3),
    (OptionReply(7, InfoBlockSize()), "type", 3),
    (OptionReply(10, MetaContext()), "type", 4),
    (OptionReply(7, ErrorReply()), "type", 0x80000001),
    (Request(0, magic=1), "magic", 0x25609513),
    (Request(0, extended=True), "magic", 0x21E41C71),
    (SimpleReply(0, magic=1), "magic", 0x67446698),
    (Chunk(0, NoneChunk(), magic=1), "magic", 0x668E33EF),
    (Chunk(0, NoneChunk(), request_offset=0), "magic", 0x6E8A278C),
    (Chunk(0, NoneChunk(), type=1), "type", 0),
    (Chunk(0, Data(0, b"abc"), length=-1), "length", 11),
    (Chunk(0, Data(0, b"abc")), "type", 1),
    (Chunk(0, Hole(0, 1)), "type", 2),
    (Chunk(0, Status(0, [(1, 0)]), type=77), "type", 5),
    (Chunk(0, Status(0, [(1, 0)], count=5)), "type", 6),
    (Chunk(0, Status(0, [(1, 0)], count=5)), "count", 1),
    (Chunk(0, Status(0, [(1, 0)]), request_offset=0), "type", 6),
    (Chunk(0, Status(0, [(1, 0)])), "length", 12),
    (Chunk(0, Status(0, [(1, 0)]), type=6), "length", 24),
    (Chunk(0, ErrorChunk(5, "é")), "type", 0x8001),
    (Chunk(0, ErrorChunk(5, "é", offset=0)), "type", 0x8002),
    (Chunk(0, ErrorChunk(5, "é", message_length=0)), "message_length", 2),
]


@pytest.mark.parametrize(("message", "field", "value"), CORRECT, ids=lambda value: repr(value)[:60])
def test_the_correct_value_ignores_the_given_one(message: Message, field: str, value: int) -> None:
    assert correct_value(message, field) == value


@pytest.mark.parametrize(
    ("message", "field", "text"),
    [
        (Request(0), "cookie", "Request has no computed field 'cookie'"),
        (Chunk(0, Hole(0, 1)), "count", "Chunk with Hole has no computed field 'count'"),
    ],
)
def test_a_field_that_is_not_computed_has_no_correct_value(
    message: Message, field: str, text: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        correct_value(message, field)
    assert str(caught.value) == text
