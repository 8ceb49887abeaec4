"""What a server may not take away unnoticed, well-formed strings, and blocks of an export."""

from __future__ import annotations

import attrs
import pytest

from fakenbd.client.blocks import Blocks, cut, pieces
from fakenbd.client.export_info import changes, well_formed
from fakenbd.protocol.messages import Extent
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState

BEFORE = NegotiatedState(
    structured=True,
    tls=True,
    contexts={7: "base:allocation"},
    size=1 << 20,
    flags=0xFED,
    block_size=BlockSize(512, 4096, 1 << 25),
)


def after(**fields):
    return attrs.evolve(BEFORE, **fields)


CHANGES = {
    "nothing": (BEFORE, []),
    "other ids for the contexts": (after(contexts={9: "base:allocation"}), []),
    "larger": (after(size=1 << 21), []),
    "more flags": (after(flags=0x1FED), []),
    "smaller blocks": (after(block_size=BlockSize(1, 4096, 1 << 25)), []),
    "smaller": (after(size=512), ["the export shrank from 1048576 to 512 bytes"]),
    "fewer flags": (
        after(flags=0xFE1),
        ["NBD_FLAG_SEND_FLUSH is gone", "NBD_FLAG_SEND_FUA is gone"],
    ),
    "read-only": (after(flags=0xFEF), ["the export is read-only now"]),
    "a context less": (
        after(contexts={}),
        ['the metadata context "base:allocation" is gone'],
    ),
    "larger blocks": (
        after(block_size=BlockSize(4096, 4096, 1 << 25)),
        ["the minimum block grew from 512 to 4096 bytes"],
    ),
    "no TLS": (
        after(tls=False),
        ["the connection is not protected by TLS any more"],
    ),
}


@pytest.mark.parametrize(("now", "found"), CHANGES.values(), ids=CHANGES)
def test_changes(now, found):
    assert changes(BEFORE, now) == found


STRINGS = {"": True, "größe": True, "x" * 4096: True, "x" * 4097: False, "a\0": False}


@pytest.mark.parametrize(("text", "good"), STRINGS.items())
def test_well_formed(text, good):
    assert well_formed(text) == good


def test_not_utf8_is_not_well_formed():
    assert not well_formed(b"\xff".decode("utf-8", "surrogateescape"))


# --- blocks ------------------------------------------------------------------------------------

GEOMETRY = {
    (512, 4096, 1 << 25): Blocks(1 << 20, 512, 1 << 25, 512),
    (1, 4096, 0xFFFFFFFF): Blocks(1 << 20, 1, 1 << 25, 1),
    (4096, 4096, 5000): Blocks(1 << 20, 4096, 4096, 4096),
}


@pytest.mark.parametrize("sizes", GEOMETRY)
def test_geometry(sizes):
    assert Blocks.of(after(block_size=BlockSize(*sizes))) == GEOMETRY[sizes]


def test_geometry_without_block_sizes():
    assert Blocks.of(after(block_size=None)) == Blocks(1 << 20, 1, 1 << 25, 512)


# offset, length: whole blocks, edges
EDGES = {
    (0, 1024): (range(1024), ()),
    (100, 100): (range(100, 100), (range(100, 200),)),
    (100, 412): (range(512, 512), (range(100, 512),)),
    (100, 1000): (range(512, 1024), (range(100, 512), range(1024, 1100))),
    (500, 100): (range(512, 512), (range(500, 512), range(512, 600))),
    (512, 600): (range(512, 1024), (range(1024, 1112),)),
    (512, 0): (range(512, 512), ()),
}


@pytest.mark.parametrize("span", EDGES)
def test_edges(span):
    whole, edges = Blocks(1 << 20, 512).edges(*span)
    assert (whole, edges) == EDGES[span]


def test_half_is_whole_blocks():
    blocks = Blocks(1 << 20, 512)
    assert [blocks.half(length) for length in (1024, 1536, 5120)] == [512, 1024, 2560]


def test_pieces():
    assert list(pieces(10, 35, 10)) == [(10, 10), (20, 10), (30, 5)]
    assert list(pieces(10, 10, 10)) == []


def test_cut():
    extents = [Extent(100, 0), Extent(100, 3), Extent(100, 0)]
    assert list(cut(extents, 0, 1000)) == extents
    assert list(cut(extents, 150, 100)) == [Extent(50, 3), Extent(50, 0)]
    assert list(cut(extents, 100, 100)) == [Extent(100, 3)]
