from __future__ import annotations

import hashlib
import re

import pytest

from fakenbd.export.content import (
    PERIOD,
    BytesContent,
    FunctionContent,
    Hex,
    Pattern,
    RandomBytes,
    Text,
    Zeros,
    describe_origin,
)
from fakenbd.protocol.messages import Extent

MIB = 1 << 20
DATA, HOLE = 0, 3


def exactly(message):
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(
    ("content", "size", "sparse", "offset", "length", "expected", "segments"),
    [
        (Zeros(), None, True, 5, 3, bytes(3), [(3, HOLE)]),
        (Zeros(), None, True, 2**64 - 3, 3, bytes(3), [(3, HOLE)]),
        (Zeros(), None, True, 0, 0, b"", []),
        (Pattern(), None, False, 0, 0, b"", []),
        (Text("häh"), 4, False, 0, 4, "häh".encode(), [(4, DATA)]),
        (Text("abc"), 3, False, 1, 4, b"bc\0\0", [(2, DATA), (2, HOLE)]),
        (Text("abc"), 3, False, 3, 2, bytes(2), [(2, HOLE)]),
        (Text("abc"), 3, False, 2**63, 2, bytes(2), [(2, HOLE)]),
        (Text(""), 0, False, 0, 2, bytes(2), [(2, HOLE)]),
        (Hex("00ff 7F"), 3, False, 1, 2, b"\xff\x7f", [(2, DATA)]),
        (BytesContent(b"12345"), 5, False, 2, 2, b"34", [(2, DATA)]),
        (FunctionContent(lambda o, n: b"%d" % o * n), None, False, 7, 3, b"777", [(3, DATA)]),
        (
            FunctionContent(lambda o, n: b"x" * n, size=8),
            8,
            False,
            7,
            3,
            b"xxx",
            [(1, DATA), (2, HOLE)],
        ),
    ],
)
def test_content(content, size, sparse, offset, length, expected, segments):
    assert content.size == size
    assert content.sparse is sparse
    assert content.read(offset, length) == expected
    assert list(content.segments(offset, length)) == [Extent(*s) for s in segments]
    content.close()
    assert content.read(offset, length) == expected


def test_a_pattern_is_the_same_everywhere_and_always():
    pattern = Pattern()
    assert hashlib.sha256(pattern.read(0, MIB)).hexdigest() == (
        "c8e1b7532db55568a7cf1fc7459ba3b79184c7d64292071897be7bd3bbae9159"
    )
    assert pattern.segments(2**64 - 512, 512) == [Extent(512, DATA)]


def test_the_period_is_the_largest_prime_below_1_mib():
    def prime(n):
        return all(n % d for d in range(2, 1025))

    assert [n for n in range(PERIOD, MIB) if prime(n)] == [PERIOD]


@pytest.mark.parametrize("offset", [0, 1, PERIOD - 1, PERIOD, 5 * PERIOD + 77, 2**63, 2**64 - 1])
@pytest.mark.parametrize("length", [1, 512, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
def test_a_pattern_repeats_after_its_period(offset, length):
    period = bytes(Pattern().read(0, PERIOD))
    start = offset % PERIOD
    expected = (period * (length // PERIOD + 2))[start : start + length]
    assert Pattern().read(offset, length) == expected


def test_reads_of_up_to_1_mib_are_slices_of_one_static_buffer():
    for content in (Pattern(), Zeros()):
        small, large = content.read(PERIOD - 1, 10), content.read(PERIOD - 1, MIB)
        assert isinstance(small, memoryview)
        assert small.readonly
        assert small.obj is large.obj


def test_random_bytes_follow_from_their_seed():
    assert RandomBytes(1).read(9, 100) == RandomBytes(1).read(9, 100)
    assert RandomBytes(1).read(9, 100) != RandomBytes(2).read(9, 100)
    assert RandomBytes(1).read(9, 100) != Pattern().read(9, 100)
    assert RandomBytes("one").size is None


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 8), (12345, 8), (PERIOD - 3, 8), (PERIOD + 77, 4096), (2**40, 16), (3, 2 * MIB)],
)
def test_locate_finds_where_bytes_came_from(offset, length):
    assert Pattern().locate(Pattern().read(offset, length)) == offset % PERIOD
    assert RandomBytes(3).locate(RandomBytes(3).read(offset, length)) == offset % PERIOD


@pytest.mark.parametrize(
    "data",
    [
        bytes(Pattern().read(0, 7)),
        bytes(8),
        b"",
        bytes(Pattern().read(0, 512)) + b"not from here",
        bytes(Pattern().read(0, MIB)) + b"not from here",
    ],
)
def test_locate_does_not_guess(data):
    assert Pattern().locate(data) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Pattern().read(4096, 512), "these 512 bytes belong at offset 4096, where they were read"),
        (
            Pattern().read(8192, 512),
            "from offset 4096 on these bytes belong at offset 8192 (+ k x 1048573)",
        ),
        (
            bytes(Pattern().read(4096, 100)) + bytes(Pattern().read(PERIOD + 9, 412)),
            "from offset 4196 on these bytes belong at offset 9 (+ k x 1048573)",
        ),
        (
            bytes(Pattern().read(4096, 256)) + bytes(256),
            "from offset 4352 on there are zeros instead of the content",
        ),
        (
            b"hello from elsewhere",
            "from offset 4096 on these bytes are not from this content: "
            "68 65 6c 6c 6f 20 66 72 6f 6d 20 65 6c 73 65 77 instead of "
            + bytes(Pattern().read(4096, 16)).hex(" "),
        ),
    ],
)
def test_describe_origin(data, expected):
    assert describe_origin(data, 4096) == expected


def test_describe_origin_of_random_bytes():
    content = RandomBytes(7)
    assert describe_origin(content.read(0, 64), 512, content) == (
        "from offset 512 on these bytes belong at offset 0 (+ k x 1048573)"
    )


def test_hex_refuses_what_is_not_hexadecimal():
    with pytest.raises(ValueError, match=exactly("expected pairs of hexadecimal digits, got '0g'")):
        Hex("0g")


def test_a_function_that_gives_the_wrong_number_of_bytes_is_reported():
    with pytest.raises(
        ValueError, match=exactly("the content function gave 3 bytes for offset 512, length 4")
    ):
        FunctionContent(lambda offset, length: b"abc").read(512, 4)


def test_what_a_function_gives_is_copied_when_it_could_change():
    buffer = bytearray(b"abcd")
    read = FunctionContent(lambda offset, length: buffer).read(0, 4)
    buffer[:] = b"efgh"
    assert read == b"abcd"
