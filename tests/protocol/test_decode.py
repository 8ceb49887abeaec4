from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest

from fakenbd.errors import ProtocolError
from fakenbd.protocol import layout
from fakenbd.protocol.constants import ChunkType, Command, Error, Info, Option, Reply
from fakenbd.protocol.decode import (
    decode_option_reply,
    decode_option_request,
    decode_reply,
    decode_request,
    decode_request_header,
    payload_length,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import RawBody, Request, SimpleReply

from . import vectors
from .vectors import MISFITS, VECTORS, Decoder, Vector, reply_decoder

TAIL = b"\x00what comes next"

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


@each_vector
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whole(vector: Vector, kind: type) -> None:
    assert vector.decoder(kind(vector.wire)) == (vector.message, len(vector.wire))


@each_vector
def test_byte_by_byte(vector: Vector) -> None:
    for length in range(len(vector.wire)):
        assert vector.decoder(vector.wire[:length]) is None, f"after {length} bytes"


@each_vector
def test_with_a_tail(vector: Vector) -> None:
    assert vector.decoder(vector.wire + TAIL) == (vector.message, len(vector.wire))


@each_vector
def test_a_decoded_message_outlives_its_buffer(vector: Vector) -> None:
    buffer = bytearray(vector.wire)
    decoded = vector.decoder(buffer)
    buffer.clear()  # raises BufferError if the message still held on to it
    assert decoded == (vector.message, len(vector.wire))


@pytest.mark.parametrize(
    ("kind", "field"),
    [(Option, "option"), (Reply, "type"), (ChunkType, "type"), (Command, "command")],
)
def test_every_number_of_the_specification_has_a_vector(kind: Any, field: str) -> None:
    headers: dict[Any, tuple[str, slice]] = {
        Option: ("49484156454f5054", slice(8, 12)),
        Reply: ("0003e889045565a9", slice(12, 16)),
        ChunkType: ("668e33ef", slice(6, 8)),
        Command: ("25609513", slice(6, 8)),
    }
    magic, place = headers[kind]
    wires = [vector.wire for vector in VECTORS if vector.wire.startswith(bytes.fromhex(magic))]
    assert set(kind) <= {int.from_bytes(wire[place]) for wire in wires}, field


def test_every_info_and_error_has_a_vector() -> None:
    infos = {wire[20:22] for vector in VECTORS if (wire := vector.wire)[12:16] == b"\0\0\0\3"}
    errors = {wire[4:8] for vector in VECTORS if (wire := vector.wire)[:4] == b"\x67\x44\x66\x98"}
    assert set(Info) <= {int.from_bytes(info) for info in infos}
    assert set(Error) <= {int.from_bytes(error) for error in errors}


@pytest.mark.parametrize(
    ("decoder", "text"), [misfit[1:] for misfit in MISFITS], ids=[misfit[0] for misfit in MISFITS]
)
def test_a_body_that_does_not_fit_its_type_stays_raw(decoder: Decoder, text: str) -> None:
    wire = bytes.fromhex(text)
    decoded = decoder(wire + TAIL)
    assert decoded is not None
    message, consumed = decoded
    assert consumed == len(wire)
    assert type(message.body) is RawBody
    assert encode(message) == wire


GREETING = bytes.fromhex("4e42444d41474943")
BREACHES = [
    (
        "garbage for a greeting",
        vectors.greeting,
        b"HTTP/1.1",
        "the server's greeting begins with 0x485454502f312e31, not with NBDMAGIC"
        " (0x4e42444d41474943) (S-01)",
    ),
    (
        "garbage for the second magic",
        vectors.greeting,
        GREETING + bytes(8),
        "the server's greeting goes on with 0x0000000000000000, neither with IHAVEOPT"
        " (0x49484156454f5054) nor with the oldstyle magic (0x0000420281861253) (S-02)",
    ),
    (
        "garbage for an option reply",
        vectors.option_reply,
        bytes(8),
        "the server's option reply begins with 0x0000000000000000, not with 0x0003e889045565a9"
        " (S-20)",
    ),
    (
        "an option reply that is too long",
        vectors.option_reply,
        bytes.fromhex("0003e889045565a9 00000007 00000003 ffffffff"),
        "the server's NBD_REP_INFO to NBD_OPT_GO announces 4294967295 bytes of data; at most 65536"
        " are taken (S-26)",
    ),
    (
        "garbage for an option",
        vectors.option,
        b"\x25\x60\x95\x13\x00\x00\x00\x00",
        "the client's option begins with 0x2560951300000000, not with IHAVEOPT"
        " (0x49484156454f5054) (C-07)",
    ),
    (
        "an option that is too long",
        vectors.option,
        bytes.fromhex("49484156454f5054 0000004d 00010001"),
        "the client's NBD_OPT_(77) announces 65537 bytes of data; at most 65536 are taken (C-12)",
    ),
    (
        "garbage for a request",
        vectors.compact,
        b"IHAV",
        "the client's request begins with 0x49484156, not with 0x25609513 (C-70)",
    ),
    (
        "an extended request under compact headers",
        vectors.compact,
        bytes.fromhex("21e41c71"),
        "the client's request begins with 0x21e41c71, not with 0x25609513 (C-71)",
    ),
    (
        "a compact request under extended headers",
        vectors.extended,
        bytes.fromhex("25609513"),
        "the client's request begins with 0x25609513, not with 0x21e41c71 (C-71)",
    ),
    (
        "a WRITE that is too long",
        vectors.compact,
        bytes.fromhex("25609513 0000 0001 0000000000000002 0000000000000000 00010001"),
        "the client's NBD_CMD_WRITE with cookie 2 announces 65537 bytes of payload; at most 65536"
        " are taken (C-92)",
    ),
    (
        "garbage for a simple reply",
        vectors.simple,
        bytes(4),
        "the server's reply begins with 0x00000000, not with 0x67446698 (S-120)",
    ),
    (
        "garbage for a structured reply",
        vectors.structured,
        bytes(4),
        "the server's reply begins with 0x00000000, not with 0x67446698 or 0x668e33ef (S-120)",
    ),
    (
        "garbage for an extended reply",
        vectors.extended_reply,
        bytes(4),
        "the server's reply begins with 0x00000000, not with 0x6e8a278c (S-120)",
    ),
    (
        "a chunk though structured replies are off",
        vectors.simple,
        bytes.fromhex("668e33ef"),
        "the server's reply begins with 0x668e33ef, not with 0x67446698 (S-121)",
    ),
    (
        "an extended chunk under structured replies",
        vectors.structured,
        bytes.fromhex("6e8a278c"),
        "the server's reply begins with 0x6e8a278c, not with 0x67446698 or 0x668e33ef (S-90)",
    ),
    (
        "a simple reply under extended headers",
        vectors.extended_reply,
        bytes.fromhex("67446698"),
        "the server's reply begins with 0x67446698, not with 0x6e8a278c (S-90)",
    ),
    (
        "a structured chunk under extended headers",
        reply_decoder(extended=True, structured=True),
        bytes.fromhex("668e33ef"),
        "the server's reply begins with 0x668e33ef, not with 0x6e8a278c (S-90)",
    ),
    (
        "a chunk that is too long",
        vectors.structured,
        bytes.fromhex("668e33ef 0000 0001 0000000000000007 00010001"),
        "the server's NBD_REPLY_TYPE_OFFSET_DATA chunk for cookie 7 announces 65537 bytes of"
        " payload; at most 65536 are taken (S-144)",
    ),
    (
        "an extended chunk that is too long",
        vectors.extended_reply,
        bytes.fromhex("6e8a278c 0000 8009 0000000000000007 0000000000000000 00000000ffffffff"),
        "the server's NBD_REPLY_TYPE_(0x8009) chunk for cookie 7 announces 4294967295 bytes of"
        " payload; at most 65536 are taken (S-144)",
    ),
    (
        "an extended chunk of 64 bits",
        vectors.extended_reply,
        bytes.fromhex("6e8a278c 0000 0001 0000000000000007 0000000000000000 0000000100000000"),
        "the server's NBD_REPLY_TYPE_OFFSET_DATA chunk for cookie 7 announces 4294967296 bytes of"
        " payload; at most 65536 are taken (S-146)",
    ),
]


@pytest.mark.parametrize(
    ("decoder", "wire", "text"),
    [breach[1:] for breach in BREACHES],
    ids=[breach[0] for breach in BREACHES],
)
def test_impossible_framing_is_refused_as_soon_as_it_shows(
    decoder: Decoder, wire: bytes, text: str
) -> None:
    for length in range(len(wire)):
        assert decoder(wire[:length]) is None
    with pytest.raises(ProtocolError) as caught:
        decoder(wire)
    assert str(caught.value) == text
    assert text.endswith(f"({caught.value.rule})")


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        (decode_option_request, "49484156454f5054 0000004d 00000003 616263"),
        (decode_option_reply, "0003e889045565a9 00000007 00000001 00000003 616263"),
        (
            partial(decode_request, extended=False),
            "25609513 0000 0001 0000000000000002 0000000000000000 00000003 616263",
        ),
        (
            partial(decode_reply, extended=False, structured=True, data_length=abs),
            "668e33ef 0000 0003 0000000000000001 00000003 616263",
        ),
        (
            partial(decode_reply, extended=True, structured=False, data_length=abs),
            "6e8a278c 0000 0003 0000000000000001 0000000000000000 0000000000000003 616263",
        ),
    ],
)
def test_the_limit_itself_is_within_bounds(decoder: Callable[..., Any], text: str) -> None:
    wire = bytes.fromhex(text)
    assert decoder(wire, limit=3) is not None
    with pytest.raises(ProtocolError):
        decoder(wire, limit=2)


REQUESTS = [vector.message for vector in VECTORS if isinstance(vector.message, Request)]


@pytest.mark.parametrize("message", REQUESTS, ids=repr)
def test_a_request_header_is_known_before_its_payload(message: Request) -> None:
    size = 32 if message.extended else 28
    wire = encode(message)
    header = decode_request_header(wire[:size], extended=message.extended)
    assert header == attrs.evolve(message, payload=b"")
    assert decode_request_header(wire[: size - 1], extended=message.extended) is None


@pytest.mark.parametrize(
    ("request_", "length"),
    [
        (Request(Command.WRITE, length=7), 7),
        (Request(Command.WRITE, length=7, extended=True), 7),
        (Request(Command.WRITE, length=7, flags=32, extended=True), 7),
        (Request(Command.READ, length=7), 0),
        (Request(Command.READ, length=7, flags=32), 0),  # C-105: the bit means nothing here
        (Request(Command.READ, length=7, flags=32, extended=True), 7),
        (Request(Command.BLOCK_STATUS, length=8, flags=32, extended=True), 8),
        (Request(Command.BLOCK_STATUS, length=8, flags=8, extended=True), 0),
        (Request(0x7777, length=7, flags=0xFFFF, extended=True), 7),
    ],
)
def test_payload_length(request_: Request, length: int) -> None:
    assert payload_length(request_) == length


def test_the_cookie_tells_how_much_data_follows_a_simple_reply() -> None:
    asked: list[int] = []

    def data_length(cookie: int) -> int:
        asked.append(cookie)
        return 3

    wire = bytes.fromhex("67446698 00000000 0000000000000009") + b"abcdef"
    decoded = decode_reply(wire, extended=False, structured=False, data_length=data_length, limit=0)
    assert decoded == (SimpleReply(9, data=b"abc"), 19)
    assert asked == [9]


HUGE = 1 << 64
HUGE_CLAIMS = [
    (
        "option",
        lambda wire: decode_option_request(wire, limit=HUGE),
        "49484156454f5054 00000007 ffffffff",
        False,
    ),
    (
        "option reply",
        lambda wire: decode_option_reply(wire, limit=HUGE),
        "0003e889045565a9 00000007 00000003 ffffffff",
        False,
    ),
    (
        "WRITE",
        lambda wire: decode_request(wire, extended=False, limit=HUGE),
        "25609513 0000 0001 0000000000000002 0000000000000000 ffffffff",
        False,
    ),
    (
        "extended WRITE",
        lambda wire: decode_request(wire, extended=True, limit=HUGE),
        "21e41c71 0020 0001 0000000000000002 0000000000000000 ffffffffffffffff",
        False,
    ),
    (
        "simple reply",
        reply_decoder(data=1 << 32),
        "67446698 00000000 0000000000000001",
        False,
    ),
    (
        "structured chunk",
        reply_decoder(structured=True, limit=HUGE),
        "668e33ef 0000 0001 0000000000000001 ffffffff",
        False,
    ),
    (
        "extended chunk",
        reply_decoder(extended=True, limit=HUGE),
        "6e8a278c 0000 0001 0000000000000001 0000000000000000 ffffffffffffffff",
        False,
    ),
    (
        "number of queries",
        vectors.option,
        "49484156454f5054 0000000a 0000000c 00000000 ffffffff 00000000",
        True,
    ),
    (
        "name of an option",
        vectors.option,
        "49484156454f5054 00000007 00000006 ffffffff 0000",
        True,
    ),
    (
        "number of extents",
        vectors.extended_reply,
        "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000008 00000007 ffffffff",
        True,
    ),
]


@pytest.mark.parametrize(
    ("decoder", "text", "complete"),
    [claim[1:] for claim in HUGE_CLAIMS],
    ids=[claim[0] for claim in HUGE_CLAIMS],
)
def test_nothing_is_allocated_on_the_word_of_a_length(
    decoder: Decoder, text: str, complete: bool
) -> None:
    wire = bytes.fromhex(text)
    wire = wire if complete else wire + bytes(100)
    tracemalloc.start()
    try:
        decoded = decoder(wire)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (decoded is not None) == complete
    assert peak < 1 << 16


def test_the_fixed_sizes_of_the_specification() -> None:
    sizes = {
        "greeting": layout.GREETING.size,
        "oldstyle": layout.OLDSTYLE_GREETING.size + layout.RESERVED_ZEROES,
        "option": layout.OPTION_REQUEST.size,
        "option reply": layout.OPTION_REPLY.size,
        "EXPORT_NAME": layout.EXPORT_NAME_REPLY.size,
        "compact": layout.COMPACT_REQUEST.size,
        "extended": layout.EXTENDED_REQUEST.size,
        "simple": layout.SIMPLE_REPLY.size,
        "structured": layout.STRUCTURED_CHUNK.size,
        "extended chunk": layout.EXTENDED_CHUNK.size,
    }
    assert list(sizes.values()) == [18, 152, 16, 20, 10, 28, 32, 16, 20, 32]
