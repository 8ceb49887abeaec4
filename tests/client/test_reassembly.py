"""Replies put together from chunks: what is good, what fails one reply, what ends a connection."""

from __future__ import annotations

import random

import pytest

from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.reassembly import Coverage, PlainReply, ReadReply, StatusReply, command_error
from fakenbd.errors import CommandError, ProtocolError, ShutdownError
from fakenbd.protocol.messages import Chunk, Data, ErrorChunk, Extent, Hole, NoneChunk, RawBody
from fakenbd.protocol.messages import Status as StatusBody

OFFSET, LENGTH = 4096, 8
CONTENT = b"abcdefgh"


def done(body, **fields):
    return Chunk(1, body, flags=1, **fields)


def more(body, **fields):
    return Chunk(1, body, **fields)


def data(offset, text):
    return Data(OFFSET + offset, text)


NONE = done(NoneChunk())

READS = {
    "one chunk": ([done(data(0, CONTENT))], CONTENT),
    "one chunk, then none": ([more(data(0, CONTENT)), NONE], CONTENT),
    "ascending": ([more(data(0, b"abcd")), done(data(4, b"efgh"))], CONTENT),
    "descending": ([more(data(4, b"efgh")), done(data(0, b"abcd"))], CONTENT),
    "the middle last": (
        [more(data(0, b"ab")), more(data(6, b"gh")), done(data(2, b"cdef"))],
        CONTENT,
    ),
    "a hole": ([done(Hole(OFFSET, 8))], bytes(8)),
    "data and a hole": ([more(data(0, b"abcd")), done(Hole(OFFSET + 4, 4))], b"abcd\0\0\0\0"),
    "unknown flags": ([Chunk(1, data(0, CONTENT), flags=0xFFFF)], CONTENT),
}


def read_reply(**fields):
    return ReadReply(offset=OFFSET, length=LENGTH, **fields)


def feed(reply, chunks):
    """Feed all chunks; only the last may be the end. Returns the finished reply's value."""
    *before, last = chunks
    for chunk in before:
        assert not reply.take(chunk)
    assert reply.take(last)
    return reply.finish()


@pytest.mark.parametrize(("chunks", "content"), READS.values(), ids=READS)
def test_read(chunks, content):
    dirty = bytearray(b"\xff" * LENGTH)
    assert feed(read_reply(target=memoryview(dirty)), chunks) == content
    assert dirty == content
    assert feed(read_reply(), chunks) == content


def test_read_byte_by_byte_in_any_order():
    content = random.Random(7).randbytes(2000)
    order = list(range(2000))
    random.Random(8).shuffle(order)
    reply = ReadReply(offset=100, length=2000)
    for position in order:
        assert not reply.take(more(Data(100 + position, content[position : position + 1])))
    assert reply.take(NONE)
    assert reply.finish() == content
    assert (reply.coverage.starts, reply.coverage.ends) == ([100], [2100])


ERROR = ErrorChunk(5, "bad sector")
ANSWERED = "the server answered NBD_CMD_READ of 4096+8 with "
FAILURES = {
    "error alone": ([done(ERROR)], ANSWERED + "NBD_EIO: bad sector", 5, None),
    "error without text": ([done(ErrorChunk(22))], ANSWERED + "NBD_EINVAL", 22, None),
    "error after content": (
        [more(data(0, CONTENT)), done(ERROR)],
        ANSWERED + "NBD_EIO: bad sector",
        5,
        None,
    ),
    "good-looking content after an error, S-171": (
        [more(ERROR), done(data(0, CONTENT))],
        ANSWERED + "NBD_EIO: bad sector",
        5,
        None,
    ),
    "error, then none": ([more(ERROR), NONE], ANSWERED + "NBD_EIO: bad sector", 5, None),
    "the first of two errors, S-168": (
        [more(ERROR), done(ErrorChunk(12))],
        ANSWERED + "NBD_EIO: bad sector",
        5,
        None,
    ),
    "error with an offset inside padded content, Q-28": (
        [more(data(0, CONTENT)), done(ErrorChunk(5, "", OFFSET + 4))],
        ANSWERED + "NBD_EIO at 4100",
        5,
        4100,
    ),
    "bytes behind the text, Q-29": (
        [done(ErrorChunk(5, "bad", rest=b"more"))],
        ANSWERED + "NBD_EIO: bad",
        5,
        None,
    ),
    "a number that NBD does not know": (
        [done(ErrorChunk(9999))],
        ANSWERED + "error 9999, taken as NBD_EINVAL",
        22,
        None,
    ),
    "an unknown type of error, S-141": (
        [done(ErrorChunk(5, "new"), type=0x8003)],
        ANSWERED + "NBD_EIO: new",
        5,
        None,
    ),
    "an unknown type of error without a number": (
        [done(ErrorChunk(0), type=0xFFFF)],
        ANSWERED + "NBD_EINVAL",
        22,
        None,
    ),
    "hostile text": (
        [done(ErrorChunk(5, "\x1b[2Jgone"))],
        ANSWERED + "NBD_EIO: \\x1b[2Jgone",
        5,
        None,
    ),
}


@pytest.mark.parametrize(("chunks", "message", "error", "at"), FAILURES.values(), ids=FAILURES)
def test_failed_read(chunks, message, error, at):
    with pytest.raises(CommandError) as caught:
        feed(read_reply(), chunks)
    assert str(caught.value) == message
    assert (caught.value.error, caught.value.offset) == (error, at)


def test_shutdown_outweighs_other_errors():
    with pytest.raises(ShutdownError, match="NBD_ESHUTDOWN: going down"):
        feed(read_reply(), [more(ERROR), done(ErrorChunk(108, "going down"))])


def test_long_error_text_is_noted():
    reply = read_reply()
    with pytest.raises(CommandError):
        feed(reply, [done(ErrorChunk(5, "x" * 5000))])
    assert reply.notes == [
        Noncompliance(
            "S-167", "an error message of 5000 characters came", "it is cut where it is shown"
        )
    ]


REPLY = "the reply to NBD_CMD_READ of 4096+8 "
BREACHES = {
    "before the request": (
        data(-1, b"x"),
        REPLY + "has content at 4095, before the request (S-152)",
    ),
    "relative offset": (Data(0, b"x"), REPLY + "has content at 0, before the request (S-152)"),
    "past the request": (
        data(4, b"efghi"),
        REPLY + "has content at 4100+5, past the request (S-153)",
    ),
    "an offset that wraps": (
        Data((1 << 64) - 4, b"abcdefgh"),
        REPLY + "has content at 18446744073709551612+8, past the request (S-153)",
    ),
    "a hole past the request": (
        Hole(OFFSET, 9),
        REPLY + "has content at 4096+9, past the request (S-153)",
    ),
    "data without content": (data(0, b""), REPLY + "has a chunk without content at 4096 (S-150)"),
    "a hole without size": (Hole(OFFSET, 0), REPLY + "has a hole without size at 4096 (S-151)"),
    "none without done": (
        NoneChunk(),
        REPLY + "has an NBD_REPLY_TYPE_NONE chunk without DONE (S-139)",
    ),
    "error 0": (ErrorChunk(0), REPLY + "has an error chunk with error 0 (S-164)"),
    "an error outside": (
        ErrorChunk(5, "", OFFSET + 8),
        REPLY + "has an error at offset 4104, outside of the request (S-163)",
    ),
    "a status": (
        StatusBody(1, [Extent(8)]),
        REPLY + "has a chunk of the wrong kind (status) (S-143)",
    ),
}


@pytest.mark.parametrize(("body", "message"), BREACHES.values(), ids=BREACHES)
def test_breach(body, message):
    with pytest.raises(ProtocolError) as caught:
        read_reply().take(more(body))
    assert str(caught.value) == message


MISFITS = {
    0: (b"x", "has an NBD_REPLY_TYPE_NONE chunk with 1 bytes that do not fit (S-139)"),
    1: (b"x", "has an NBD_REPLY_TYPE_OFFSET_DATA chunk with 1 bytes that do not fit (S-150)"),
    2: (b"x", "has an NBD_REPLY_TYPE_OFFSET_HOLE chunk with 1 bytes that do not fit (S-151)"),
    3: (b"", "has a chunk of the unknown type 3 (S-140)"),
    0x7FFF: (b"x", "has a chunk of the unknown type 32767 (S-140)"),
    0x8001: (b"x", "has an NBD_REPLY_TYPE_ERROR chunk with 1 bytes that do not fit (S-165)"),
    0x8003: (b"x", "has an NBD_REPLY_TYPE_(0x8003) chunk with 1 bytes that do not fit (S-142)"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_misfit(kind):
    payload, message = MISFITS[kind]
    with pytest.raises(ProtocolError) as caught:
        read_reply().take(done(RawBody(payload), type=kind))
    assert str(caught.value) == REPLY + message


OVERLAPS = {
    "identical": (0, 4, 0, 4),
    "contained": (0, 8, 2, 2),
    "containing": (2, 2, 0, 8),
    "overlapping on the left": (2, 4, 0, 3),
    "overlapping on the right": (2, 4, 5, 2),
}


@pytest.mark.parametrize(("first", "size", "second", "other"), OVERLAPS.values(), ids=OVERLAPS)
def test_overlap(first, size, second, other):
    for body in (data(second, b"x" * other), Hole(OFFSET + second, other)):
        reply = read_reply()
        reply.take(more(data(first, b"x" * size)))
        with pytest.raises(ProtocolError, match=r"over other content \(S-155\)"):
            reply.take(more(body))


GAPS = {
    "nothing": ([NONE], "ended without content for byte 4096 (S-158)"),
    "the start": ([done(data(4, b"efgh"))], "ended without content for byte 4096 (S-157)"),
    "the middle": (
        [more(data(0, b"abc")), done(data(4, b"efgh"))],
        "ended without content for byte 4099 (S-157)",
    ),
    "the end": ([done(data(0, b"abcd"))], "ended without content for byte 4100 (S-157)"),
}


@pytest.mark.parametrize(("chunks", "message"), GAPS.values(), ids=GAPS)
def test_gap(chunks, message):
    with pytest.raises(ProtocolError) as caught:
        feed(read_reply(), chunks)
    assert str(caught.value) == REPLY + message


def test_dont_fragment_allows_one_chunk():
    reply = read_reply(single=True)
    reply.take(more(data(0, b"abcd")))
    with pytest.raises(ProtocolError, match="second chunk of content in spite of DF"):
        reply.take(more(data(4, b"efgh")))


def test_extended_chunks_name_the_request():
    assert feed(read_reply(), [done(data(0, CONTENT), request_offset=OFFSET)]) == CONTENT
    with pytest.raises(ProtocolError) as caught:
        read_reply().take(done(data(0, CONTENT), request_offset=0))
    assert str(caught.value) == REPLY + "names offset 0 (S-145)"


def test_coverage_keeps_runs():
    coverage = Coverage()
    for start, end in [(10, 20), (30, 40), (20, 25), (28, 30)]:
        assert coverage.add(start, end)
    assert (coverage.starts, coverage.ends) == ([10, 28], [25, 40])
    assert not coverage.add(0, 11)
    assert (coverage.gap(0, 50), coverage.gap(10, 50), coverage.gap(12, 20)) == (0, 25, None)
    assert coverage.add(25, 28)
    assert (coverage.starts, coverage.ends) == ([10], [40])
    assert coverage.gap(10, 50) == 40


# --- block status ------------------------------------------------------------------------------

CONTEXTS = {7: "base:allocation", 0xFFFFFFFF: "qemu:allocation-depth"}
ALLOCATION = StatusBody(7, [(512, 0), (512, 3)])
DEPTH = StatusBody(0xFFFFFFFF, [(1024, 77)])


def status_reply(**fields):
    return StatusReply(offset=0, length=1024, contexts=CONTEXTS, **fields)


@pytest.mark.parametrize(
    "chunks",
    [
        [more(ALLOCATION), done(DEPTH)],
        [more(DEPTH), done(ALLOCATION)],
        [more(ALLOCATION), more(DEPTH), NONE],
    ],
)
def test_status(chunks):
    assert feed(status_reply(), chunks) == {
        "base:allocation": (Extent(512, 0), Extent(512, 3)),
        "qemu:allocation-depth": (Extent(1024, 77),),
    }


STATUS = "the reply to NBD_CMD_BLOCK_STATUS of 0+1024 "
STATUS_BREACHES = {
    "unknown context": ([done(StatusBody(8, [(1, 0)]))], "names context 8, never selected (S-202)"),
    "twice": (
        [more(ALLOCATION), done(ALLOCATION)],
        'has a second chunk for "base:allocation" (S-201)',
    ),
    "no extents": ([done(StatusBody(7, []))], 'has no extent for "base:allocation" (S-203)'),
    "64-bit flags": (
        [done(StatusBody(7, [(512, 1 << 32)]), request_offset=0)],
        'has 64-bit flags for "base:allocation" (S-216)',
    ),
    "the other header's type": (
        [done(ALLOCATION, type=6)],
        "has an NBD_REPLY_TYPE_BLOCK_STATUS_EXT chunk under the other header (S-216)",
    ),
    "content": ([done(Hole(0, 1024))], "has a chunk of the wrong kind (hole) (S-143)"),
    "stray bytes": (
        [done(RawBody(bytes(14)), type=5)],
        "has an NBD_REPLY_TYPE_BLOCK_STATUS chunk with 14 bytes that do not fit (S-203)",
    ),
}


@pytest.mark.parametrize(("chunks", "message"), STATUS_BREACHES.values(), ids=STATUS_BREACHES)
def test_status_breach(chunks, message):
    with pytest.raises(ProtocolError) as caught:
        feed(status_reply(), chunks)
    assert str(caught.value) == STATUS + message


def test_status_of_depth_may_use_all_64_bits():
    extents = feed(
        StatusReply(offset=0, length=1024, contexts={1: "qemu:allocation-depth"}),
        [done(StatusBody(1, [(1024, 1 << 40)]))],
    )
    assert extents == {"qemu:allocation-depth": (Extent(1024, 1 << 40),)}


@pytest.mark.parametrize("chunks", [[NONE], [done(DEPTH)]], ids=["none", "one of two"])
def test_status_without_a_context_fails_alone(chunks):
    with pytest.raises(CommandError) as caught:
        feed(status_reply(), chunks)
    assert str(caught.value) == (
        "the server answered NBD_CMD_BLOCK_STATUS of 0+1024 with success and no extent of"
        ' "base:allocation"'
    )
    assert (caught.value.error, caught.value.number) == (5, 0)


def test_status_with_an_error_fails():
    with pytest.raises(CommandError, match="NBD_EIO: bad sector"):
        feed(status_reply(), [more(ALLOCATION), more(DEPTH), done(ERROR)])


def test_stray_bytes_behind_the_one_extent_asked_for():
    reply = StatusReply(offset=0, length=1024, contexts={7: "base:allocation"}, req_one=True)
    payload = bytes.fromhex("00000007 00000200 00000003 dead")
    assert feed(reply, [done(RawBody(payload), type=5)]) == {"base:allocation": (Extent(512, 3),)}
    assert reply.notes == [
        Noncompliance(
            "S-203", "2 stray bytes came behind the extents of 0+1024", "they are ignored"
        )
    ]


# --- everything else ---------------------------------------------------------------------------


def test_plain_success():
    assert feed(PlainReply(command=1, offset=0, length=512), [NONE]) is None
    reply = PlainReply(command=1, offset=0, length=512)
    reply.simple(0)
    assert reply.finish() is None


def test_plain_error():
    reply = PlainReply(command=3)
    reply.simple(28)
    with pytest.raises(CommandError) as caught:
        reply.finish()
    assert str(caught.value) == "the server answered NBD_CMD_FLUSH with NBD_ENOSPC"


def test_an_offset_in_an_error_of_flush_means_nothing():
    with pytest.raises(CommandError) as caught:
        feed(PlainReply(command=3), [done(ErrorChunk(5, "", 77))])
    assert str(caught.value) == "the server answered NBD_CMD_FLUSH with NBD_EIO at 77"


def test_plain_reply_has_no_content():
    with pytest.raises(ProtocolError) as caught:
        PlainReply(command=1, offset=0, length=512).take(done(Data(0, b"x")))
    assert str(caught.value) == (
        "the reply to NBD_CMD_WRITE of 0+512 has a chunk of the wrong kind (data) (S-143)"
    )


LIMITS = [
    (read_reply(), 1, LENGTH + 8),
    (read_reply(), 0x8001, 1 << 17),
    (read_reply(), 5, 1 << 17),
    (status_reply(), 5, (1 << 25) + 8),
    (status_reply(), 1, 1 << 17),
    (PlainReply(command=1), 1, 1 << 17),
]


@pytest.mark.parametrize(("reply", "kind", "limit"), LIMITS)
def test_payload_is_bounded_by_the_request(reply, kind, limit):
    assert reply.limit(kind) == limit


@pytest.mark.parametrize(
    ("error", "name"),
    [(5, "NBD_EIO"), (108, "NBD_ESHUTDOWN"), (9999, "error 9999, taken as NBD_EINVAL")],
)
def test_errors_by_name(error, name):
    assert str(command_error(0, 4096, 8, error)) == (
        f"the server answered NBD_CMD_READ of 4096+8 with {name}"
    )


@pytest.mark.parametrize(("number", "error"), [(5, 5), (28, 28), (9999, 22), (1 << 31, 22)])
def test_errors_are_counted_as_the_protocol_counts_them(number, error):
    """C-126; what came on the wire is kept."""
    with pytest.raises(CommandError) as caught:
        feed(read_reply(), [done(ErrorChunk(number, "", OFFSET + 3), type=6)])
    assert (caught.value.error, caught.value.number) == (error, number)
    assert caught.value.offset == OFFSET + 3
