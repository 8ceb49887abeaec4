"""What holds for every message and for all bytes, not only for those that somebody thought of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenbd.errors import ProtocolError
from fakenbd.protocol import messages as m
from fakenbd.protocol.constants import ChunkType, Option, Reply
from fakenbd.protocol.encode import correct_value, encode, encode_buffers
from fakenbd.protocol.layout import unpack_string

from . import vectors
from .vectors import Decoder, reply_decoder

u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
data = st.binary(max_size=64)
text = data.map(unpack_string)

GREETINGS = st.one_of(
    st.builds(m.Greeting, u16),
    st.builds(m.OldstyleGreeting, u64, u32, reserved=st.binary(min_size=124, max_size=124)),
)

# --- options -----------------------------------------------------------------------------------

info_queries = st.builds(m.InfoQuery, text, st.lists(u16, max_size=5).map(tuple))
context_queries = st.builds(m.MetaContextQuery, text, st.lists(text, max_size=5).map(tuple))
OPTION_BODIES: dict[int, st.SearchStrategy[Any]] = {
    Option.EXPORT_NAME: st.builds(m.ExportName, text),
    Option.INFO: info_queries,
    Option.GO: info_queries,
    Option.LIST_META_CONTEXT: context_queries,
    Option.SET_META_CONTEXT: context_queries,
}
raw_bodies = st.builds(m.RawBody, data)
option_numbers = st.one_of(st.sampled_from(Option), u32)
OPTIONS = option_numbers.flatmap(
    lambda option: st.builds(
        m.OptionRequest, st.just(option), OPTION_BODIES.get(option, raw_bodies)
    )
)
REPLIES = st.one_of(
    st.builds(
        m.OptionReply,
        option_numbers,
        st.one_of(
            st.builds(m.Ack, data),
            st.builds(m.Server, text, text),
            st.builds(m.InfoExport, u64, u16),
            st.builds(m.InfoText, u16.filter(lambda info: info not in (0, 3)), text),
            st.builds(m.InfoBlockSize, u32, u32, u32),
            st.builds(m.MetaContext, u32, text),
        ),
    ),
    st.builds(
        m.OptionReply,
        option_numbers,
        st.builds(m.ErrorReply, text),
        st.integers(1 << 31, (1 << 32) - 1),
    ),
    st.builds(
        m.OptionReply,
        option_numbers,
        raw_bodies,
        st.integers(0, (1 << 31) - 1).filter(lambda kind: kind not in set(Reply)),
    ),
)
EXPORT_NAME_REPLIES = st.builds(m.ExportNameReply, u64, u16, st.binary(min_size=124, max_size=124))
SHORT_EXPORT_NAME_REPLIES = st.builds(m.ExportNameReply, u64, u16, st.just(b""))

# --- transmission ------------------------------------------------------------------------------


def writes(extended: bool) -> st.SearchStrategy[m.Request]:
    return data.flatmap(
        lambda payload: st.builds(
            m.Request,
            st.just(1),
            u64,
            u64,
            st.just(len(payload)),
            u16,
            st.just(payload),
            st.just(extended),
        )
    )


other_commands = u16.filter(lambda command: command != 1)
COMPACT_REQUESTS = st.one_of(
    writes(False), st.builds(m.Request, other_commands, u64, u64, u32, u16)
)
EXTENDED_REQUESTS = st.one_of(
    writes(True),
    st.builds(
        m.Request,
        other_commands,
        u64,
        u64,
        u64,
        u16.map(lambda flags: flags & ~32),
        st.just(b""),
        st.just(True),
    ),
)
SIMPLE_REPLIES = st.one_of(
    st.builds(m.SimpleReply, u64, st.just(0), st.binary(min_size=4, max_size=4)),
    st.builds(m.SimpleReply, u64, u32.filter(bool)),
)
unknown_chunk_types = st.integers(0, 0x7FFF).filter(lambda kind: kind not in set(ChunkType))
unknown_error_types = st.integers(0x8003, 0xFFFF)


def chunks(
    request_offset: st.SearchStrategy[int | None], field: st.SearchStrategy[int]
) -> st.SearchStrategy[m.Chunk]:
    extents = st.lists(st.builds(m.Extent, field, field), max_size=5).map(tuple)
    typed = st.one_of(
        st.just(m.NoneChunk()),
        st.builds(m.Data, u64, data),
        st.builds(m.Hole, u64, u32),
        st.builds(m.Status, u32, extents),
        st.builds(m.ErrorChunk, u32, text, st.one_of(st.none(), u64), rest=data),
    )
    foreign = st.one_of(
        st.tuples(raw_bodies, unknown_chunk_types),
        st.tuples(st.builds(m.ErrorChunk, u32, text, rest=data), unknown_error_types),
    )
    return st.one_of(
        st.builds(m.Chunk, u64, typed, u16, request_offset=request_offset),
        st.builds(
            lambda cookie, pair, flags, offset: m.Chunk(
                cookie, pair[0], flags, pair[1], request_offset=offset
            ),
            u64,
            foreign,
            u16,
            request_offset,
        ),
    )


STRUCTURED_CHUNKS = chunks(st.none(), u32)
EXTENDED_CHUNKS = chunks(u64, u64)

MESSAGES: list[tuple[str, Decoder, st.SearchStrategy[Any]]] = [
    ("greeting", vectors.greeting, GREETINGS),
    ("client flags", vectors.client_flags, st.builds(m.ClientFlags, u32)),
    ("option", vectors.option, OPTIONS),
    ("option reply", vectors.option_reply, REPLIES),
    ("EXPORT_NAME reply", vectors.zeroes, EXPORT_NAME_REPLIES),
    ("short EXPORT_NAME reply", vectors.no_zeroes, SHORT_EXPORT_NAME_REPLIES),
    ("request", vectors.compact, COMPACT_REQUESTS),
    ("extended request", vectors.extended, EXTENDED_REQUESTS),
    ("simple reply", vectors.simple_of_4, SIMPLE_REPLIES),
    ("structured chunk", vectors.structured, STRUCTURED_CHUNKS),
    ("extended chunk", vectors.extended_reply, EXTENDED_CHUNKS),
]
IDS = [name for name, _, _ in MESSAGES]


@pytest.mark.parametrize(("decoder", "strategy"), [entry[1:] for entry in MESSAGES], ids=IDS)
@given(drawn=st.data(), tail=data)
def test_an_correct_message_comes_back(
    decoder: Decoder, strategy: st.SearchStrategy[Any], drawn: st.DataObject, tail: bytes
) -> None:
    message = drawn.draw(strategy)
    wire = encode(message)
    assert b"".join(encode_buffers(message)) == wire
    assert decoder(wire + tail) == (message, len(wire))
    cut = drawn.draw(st.integers(0, len(wire) - 1))
    assert decoder(wire[:cut]) is None


def framed(magic: str, head: int, length: int) -> st.SearchStrategy[bytes]:
    """A magic, `head` bytes of anything, a true length of `length` bytes, and so many bytes."""
    return st.builds(
        lambda front, body: b"".join(
            (bytes.fromhex(magic), front, len(body).to_bytes(length), body)
        ),
        st.binary(min_size=head, max_size=head),
        data,
    )


def typed(magic: str, before: int, numbers: Any, width: int, after: int, length: int) -> Any:
    """The same with a type from `numbers` in its place, so that bodies of that type are met."""
    return st.builds(
        lambda left, kind, right, body: b"".join(
            (
                bytes.fromhex(magic),
                left,
                int(kind).to_bytes(width),
                right,
                len(body).to_bytes(length),
                body,
            )
        ),
        st.binary(min_size=before, max_size=before),
        st.sampled_from(numbers),
        st.binary(min_size=after, max_size=after),
        # Small numbers make inner lengths and counts that nearly add up.
        st.one_of(data, st.lists(st.sampled_from(b"\0\0\0\1\2\4"), max_size=40).map(bytes)),
    )


anything = st.binary(max_size=200)
FRAMES: list[tuple[str, Decoder, st.SearchStrategy[bytes]]] = [
    ("greeting", vectors.greeting, framed("4e42444d4147494349484156454f5054", 0, 2)),
    ("oldstyle", vectors.greeting, framed("4e42444d414749430000420281861253", 12, 124)),
    ("client flags", vectors.client_flags, anything),
    ("EXPORT_NAME reply", vectors.zeroes, st.binary(min_size=134, max_size=140)),
    ("short EXPORT_NAME reply", vectors.no_zeroes, anything),
    ("option", vectors.option, framed("49484156454f5054", 4, 4)),
    ("known option", vectors.option, typed("49484156454f5054", 0, list(Option), 4, 0, 4)),
    ("option reply", vectors.option_reply, framed("0003e889045565a9", 8, 4)),
    ("known reply", vectors.option_reply, typed("0003e889045565a9", 4, list(Reply), 4, 0, 4)),
    ("request", vectors.compact, framed("25609513", 20, 4)),
    ("WRITE", vectors.compact, typed("25609513", 2, [1], 2, 16, 4)),
    ("extended request", vectors.extended, framed("21e41c71", 20, 8)),
    ("extended WRITE", vectors.extended, typed("21e41c71", 2, [1], 2, 16, 8)),
    ("simple reply", reply_decoder(data=4), framed("67446698", 8, 4)),
    ("chunk", reply_decoder(structured=True), framed("668e33ef", 12, 4)),
    (
        "known chunk",
        reply_decoder(structured=True),
        typed("668e33ef", 2, list(ChunkType), 2, 8, 4),
    ),
    ("extended chunk", reply_decoder(extended=True), framed("6e8a278c", 20, 8)),
    (
        "known extended chunk",
        reply_decoder(extended=True),
        typed("6e8a278c", 2, list(ChunkType), 2, 16, 8),
    ),
]


def check_bytes(decoder: Decoder, wire: bytes) -> bool:
    """Whether `wire` begins with a message; if so, that it encodes to what it was decoded from."""
    try:
        decoded = decoder(wire)
    except ProtocolError:
        return False
    if decoded is None:
        return False
    message, consumed = decoded
    assert 0 < consumed <= len(wire)
    assert encode(message) == wire[:consumed]
    return True


@pytest.mark.parametrize(
    ("decoder", "strategy"), [frame[1:] for frame in FRAMES], ids=[frame[0] for frame in FRAMES]
)
@given(drawn=st.data(), garbage=anything)
def test_whatever_is_accepted_encodes_to_the_same_bytes(
    decoder: Decoder, strategy: st.SearchStrategy[bytes], drawn: st.DataObject, garbage: bytes
) -> None:
    check_bytes(decoder, garbage)
    wire = drawn.draw(strategy)
    check_bytes(decoder, wire[: drawn.draw(st.integers(0, len(wire)))])
    check_bytes(decoder, wire + garbage)


@pytest.mark.parametrize(
    ("decoder", "strategy"),
    [frame[1:] for frame in FRAMES if frame[0].startswith("known")],
    ids=[frame[0] for frame in FRAMES if frame[0].startswith("known")],
)
@given(drawn=st.data())
def test_a_true_length_is_all_it_takes_to_be_accepted(
    decoder: Decoder, strategy: st.SearchStrategy[bytes], drawn: st.DataObject
) -> None:
    assert check_bytes(decoder, drawn.draw(strategy))


any_integer = st.one_of(st.integers(-3, 3), st.integers(-(2**70), 2**70))
LIARS = st.one_of(
    st.builds(
        m.Chunk,
        any_integer,
        st.one_of(
            st.builds(m.Data, any_integer, data),
            st.builds(
                m.Status, any_integer, st.lists(st.tuples(any_integer, any_integer), max_size=3)
            ),
            st.builds(m.ErrorChunk, any_integer, text, any_integer, any_integer, data),
        ),
        any_integer,
        any_integer,
        any_integer,
        st.one_of(st.none(), any_integer),
        any_integer,
    ),
    st.builds(
        m.OptionReply, any_integer, st.builds(m.Server, text, text, any_integer), any_integer
    ),
    st.builds(m.Request, any_integer, any_integer, any_integer, any_integer, any_integer),
)


@given(message=LIARS)
def test_no_integer_is_too_large_to_be_given(message: Any) -> None:
    wire = encode(message)
    assert b"".join(encode_buffers(message)) == wire
    if isinstance(message, m.Chunk):
        header = 20 if message.request_offset is None else 32
        assert len(wire) == header + correct_value(message, "length")
