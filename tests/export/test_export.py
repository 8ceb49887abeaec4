from __future__ import annotations

import hashlib

import pytest

import fakenbd.export as room
from fakenbd.export import (
    ALL_FLAGS,
    BlockSize,
    BytesContent,
    Content,
    Export,
    FunctionContent,
    Pattern,
    Policy,
    RandomBytes,
    Text,
    TrueExtents,
    Zeros,
)
from fakenbd.export.content import ZeroPadded
from fakenbd.protocol.constants import TransmissionFlag
from fakenbd.protocol.messages import Extent

MIB = 1 << 20
CONTEXT = "base:allocation"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, MIB),
        ({"content": Zeros()}, MIB),
        ({"content": Text("abc")}, 3),
        ({"content": Text("abc"), "round_size_to": 512}, 512),
        ({"content": Text("abc"), "size": 1000}, 1000),
        ({"content": Text("abc"), "size": 2}, 2),
        ({"size": 0}, 0),
        ({"size": 1000, "round_size_to": 512}, 1024),
        ({"size": 1024, "round_size_to": 512}, 1024),
        ({"size": 2**64 - 1}, 2**64 - 1),
        ({"content": FunctionContent(lambda o, n: bytes(n), size=77)}, 77),
    ],
)
def test_size(given, size):
    assert Export(**given).size == size


def test_a_size_cannot_be_rounded_to_nothing():
    with pytest.raises(ValueError, match="'round_size_to' must be >= 1: 0"):
        Export(round_size_to=0)


def test_defaults():
    export = Export()
    assert export.name == ""
    assert isinstance(export.content, Pattern)
    assert export.block_size is None
    assert export.description == ""
    assert export.canonical_name is None
    assert export.contexts == {CONTEXT: TrueExtents()}
    assert export.any_alignment is False
    assert export.tls_only is False
    assert export.flags == ALL_FLAGS == 0b1101_1110_1101
    assert not export.flags & TransmissionFlag.READ_ONLY


def test_what_is_advertised_may_be_false():
    export = Export(
        "disk", flags=0xFFFF, block_size=BlockSize(minimum=3, preferred=0, maximum=1), contexts={}
    )
    assert export.name == "disk"
    assert export.flags == 0xFFFF
    assert (export.block_size.minimum, export.block_size.preferred) == (3, 0)
    assert export.contexts == {}
    assert (BlockSize().minimum, BlockSize().preferred, BlockSize().maximum) == (1, 4096, 1 << 25)


def test_an_unwritten_export_reads_straight_from_its_content():
    content = Pattern()
    export = Export(content=content)
    assert export.read == content.read
    export.write(0, b"x")
    assert export.read != content.read


@pytest.mark.parametrize("offset", [0, 5, 2**64 - 100])
def test_what_is_written_is_read_and_reported(offset):
    export = Export(size=2**64 - 1)
    export.write(offset, memoryview(b"hello"))
    export.write(offset + 2, memoryview(b"LL"))
    assert export.read(offset, 6) == b"heLLo" + bytes(Pattern().read(offset + 5, 1))
    assert not export.sparse
    export.trim(offset + 1, 2)
    export.zero(offset + 3, 1, hole=False)
    assert export.sparse
    assert export.read(offset, 5) == b"h\0\0\0o"
    expected = [Extent(1, 0), Extent(2, 3), Extent(1, 2), Extent(1, 0)]
    assert export.segments(offset, 5) == expected
    assert export.block_status(CONTEXT, offset, 5, 0) == expected
    assert export.block_status(CONTEXT, offset, 5, 8) == expected[:1]


def test_zeroing_comes_first():
    export = Export()
    export.trim(0, 512)
    assert export.read(511, 2) == b"\0" + bytes(Pattern().read(512, 1))
    export.write(0, b"x")
    assert export.read(0, 2) == b"x\0"


@pytest.mark.parametrize("content", [Pattern(), BytesContent(bytes(Pattern().read(0, 1020)))])
def test_a_size_that_is_rounded_up_ends_in_zeros(content):
    export = Export(content=content, size=1000, round_size_to=512)
    assert export.read(0, 1024) == bytes(Pattern().read(0, 1000)) + bytes(24)
    assert export.read(1000, 24) == bytes(24)
    assert export.segments(512, 512) == [Extent(488, 0), Extent(24, 3)]
    assert export.segments(1000, 24) == [Extent(24, 3)]
    export.write(1010, b"x")
    assert export.read(1008, 4) == b"\0\0x\0"


def test_exports_do_not_share_what_is_written():
    first, second = Export(), Export()
    first.write(0, b"x" * 4096)
    assert second.read(0, 4096) == Pattern().read(0, 4096)


@pytest.mark.parametrize(
    ("given", "sparse"),
    [
        ({}, False),
        ({"content": RandomBytes(1), "size": 2**60}, False),
        ({"content": Zeros()}, True),
        ({"content": BytesContent(b"abc")}, False),
        ({"content": BytesContent(b"abc"), "size": 4}, True),
        ({"content": BytesContent(b"abc"), "round_size_to": 3}, False),
        ({"content": BytesContent(b"abc"), "round_size_to": 512}, True),
        ({"size": 1000, "round_size_to": 512}, True),
        ({"size": 1024, "round_size_to": 512}, False),
    ],
)
def test_sparse_is_whether_there_can_be_holes(given, sparse):
    export = Export(**given)
    assert export.sparse is sparse
    assert any(flags for _, flags in export.segments(0, export.size)) is sparse


def test_contexts_are_reported_each_by_its_script():
    export = Export(
        size=1024,
        contexts={
            CONTEXT: ["1000 data", "24 hole,zero"],
            "qemu:dirty-bitmap:b": ["512 data", "512 dirty"],
            "qemu:allocation-depth": None,
            "x:policy": Policy(split=512),
            "x:function": lambda context, offset, length, flags: [(7, 7)],
        },
    )
    expected = {
        CONTEXT: [(1000, 0), (24, 3)],
        "qemu:dirty-bitmap:b": [(512, 0), (512, 1)],
        "qemu:allocation-depth": [(1024, 0)],
        "x:policy": [(512, 0), (512, 0)],
        "x:function": [(7, 7)],
        "x:unknown": [(1024, 0)],
    }
    for context, given in expected.items():
        assert export.block_status(context, 0, 1024, 0) == [Extent(*e) for e in given]


def test_a_script_about_extents_leaves_the_segments_true():
    export = Export(size=1024, contexts={CONTEXT: ["1024 hole,zero"]})
    assert export.segments(0, 1024) == [Extent(1024, 0)]


def test_an_overrun_ends_where_the_export_does():
    export = Export(size=10000, content=Zeros(), contexts={CONTEXT: Policy(overrun=True)})
    assert export.block_status(CONTEXT, 4096, 512, 0) == [Extent(5904, 3)]


def test_sha256_is_of_the_bytes_as_they_are_now():
    export = Export(size=2 * MIB + 77)
    content = bytearray(Pattern().read(0, export.size))
    assert export.sha256() == hashlib.sha256(content).hexdigest()
    export.write(MIB - 2, b"abcd")
    content[MIB - 2 : MIB + 2] = b"abcd"
    assert export.sha256() == hashlib.sha256(content).hexdigest()
    assert Export(size=(1 << 30) + 1).sha256() is None


def test_every_public_name_exists():
    assert [name for name in room.__all__ if not hasattr(room, name)] == []
    assert len(set(room.__all__)) == len(room.__all__)


@pytest.mark.parametrize(
    ("content", "stable"),
    [
        (Pattern(), True),
        (RandomBytes("a"), True),
        (Zeros(), True),
        (BytesContent(b"abc"), True),
        (ZeroPadded(Pattern(), 700), True),
        (ZeroPadded(FunctionContent(lambda offset, length: bytes(length)), 700), False),
        (FunctionContent(lambda offset, length: bytes(length)), False),
    ],
)
def test_a_source_is_there_as_long_as_nobody_has_written(content: Content, stable: bool) -> None:
    written, zeroed = (Export(size=1 << 16, content=content) for _ in range(2))
    for export in (written, zeroed):
        assert (export.stable_read is not None) == stable
    source = written.stable_read
    before = bytes(written.read(0, 4096))
    written.write(512, bytes(range(256)))
    zeroed.trim(0, 512)
    assert written.stable_read is zeroed.stable_read is None
    if source is not None:
        assert bytes(source(0, 4096)) == before
