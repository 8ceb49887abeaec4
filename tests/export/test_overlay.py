from __future__ import annotations

import gc
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakenbd.export.overlay as overlay_module
from fakenbd.export.content import BytesContent, Pattern, Zeros
from fakenbd.export.overlay import BLOCK, PAGE, Overlay
from fakenbd.protocol.messages import Extent

SPAN = 2 * BLOCK + 2 * PAGE
MIB = 1 << 20
DATA, ZERO, HOLE = 0, 2, 3

edges = st.sampled_from(
    [
        *(0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE - 512),
        *(BLOCK - PAGE, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + PAGE, 2 * BLOCK, SPAN),
    ]
)
places = st.one_of(edges, st.integers(0, SPAN))
spans = st.tuples(places, places).map(sorted)
operations = st.lists(
    st.tuples(st.sampled_from(["write", "write", "zero", "trim", "read", "segments"]), spans),
    max_size=25,
)
contents = st.sampled_from(
    [Pattern(), Zeros(), BytesContent(bytes(Pattern().read(7, 5000)))],
)


def run_lengths(states):
    runs = re.finditer(rb"(.)\1*", states, re.DOTALL)
    return [Extent(len(run[0]), run[0][0]) for run in runs]


few_pages = pytest.mark.parametrize("few", [0, 1024], ids=["runs of pages", "page by page"])
all_kinds = given(
    content=contents, base=st.sampled_from([0, PAGE, 2**63 - PAGE]), extent_source=operations
)


@few_pages
@all_kinds
def test_it_is_a_plain_bytearray(few, content, base, extent_source):
    check_against_bytearray(few, content, base, extent_source)


@pytest.mark.soak
@few_pages
@settings(max_examples=2000)
@all_kinds
def test_it_is_a_plain_bytearray_in_the_long_run(few, content, base, extent_source):
    check_against_bytearray(few, content, base, extent_source)


def check_against_bytearray(few, content, base, extent_source):
    overlay = Overlay(content)
    model = bytearray(content.read(base, SPAN))
    states = bytearray()
    for length, flags in content.segments(base, SPAN):
        states += bytes([flags]) * length
    promises = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay_module, "_FEW", few)
        for count, (verb, (start, end)) in enumerate(extent_source, start=1):
            length = end - start
            if verb == "write":
                data = bytes([count]) * length
                kept = overlay.write(base + start, memoryview(bytearray(data)))
                promises.append((b"".join(kept), data))
                model[start:end] = data
                states[start:end] = bytes([DATA]) * length
            elif verb in ("zero", "trim"):
                hole = verb == "trim"
                overlay.zero(base + start, length, hole=hole)
                model[start:end] = bytes(length)
                states[start:end] = bytes([HOLE if hole else ZERO]) * length
            elif verb == "read":
                read = overlay.read(base + start, length)
                assert read == model[start:end]
                promises.append((read, bytes(read)))
            else:
                given = list(overlay.segments(base + start, length))
                assert given == run_lengths(states[start:end])
        assert overlay.read(base, SPAN) == model
        assert list(overlay.segments(base, SPAN)) == run_lengths(states)
    for read, at_the_time in promises:
        assert read == at_the_time


def test_an_aligned_page_is_handed_out_without_a_copy():
    overlay = Overlay(Zeros())
    overlay.write(PAGE, b"x" * PAGE)
    assert overlay.read(PAGE, PAGE) is overlay.read(PAGE, PAGE)


def test_an_aligned_block_is_one_piece_until_a_part_of_it_is_written_anew():
    overlay = Overlay(Zeros())
    (block,) = overlay.write(BLOCK, b"x" * BLOCK)
    assert overlay.read(BLOCK, BLOCK) is block
    (page,) = overlay.write(BLOCK + PAGE, b"y" * PAGE)
    assert overlay.read(BLOCK + PAGE, PAGE) is page
    assert overlay.read(BLOCK, BLOCK) == b"x" * PAGE + b"y" * PAGE + b"x" * (BLOCK - 2 * PAGE)
    (again,) = overlay.write(BLOCK, b"z" * BLOCK)
    assert overlay.read(BLOCK, BLOCK) is again


def test_unwritten_stretches_are_read_from_the_content_in_one_piece():
    asked = []

    class Recorder(Zeros):
        def read(self, offset, length):
            asked.append((offset, length))
            return super().read(offset, length)

    overlay = Overlay(Recorder())
    overlay.write(100 * PAGE, b"x" * PAGE)
    assert overlay.read(0, 256 * PAGE) == bytes(100 * PAGE) + b"x" * PAGE + bytes(155 * PAGE)
    assert asked == [(0, 100 * PAGE), (101 * PAGE, 155 * PAGE)]


def test_8_eib_are_trimmed_at_once():
    overlay = Overlay(Pattern())
    for place in range(0, 2**63, 2**59):
        overlay.write(place, b"x" * 5000)
    overlay.zero(1, 2**63 - 1, hole=True)
    assert list(overlay.segments(0, 2**63)) == [Extent(1, DATA), Extent(2**63 - 1, HOLE)]
    overlay.zero(0, 2**63, hole=False)
    assert list(overlay.segments(0, 2**63)) == [Extent(2**63, ZERO)]
    assert overlay.read(2**62, 4) == bytes(4)


@pytest.fixture
def traced():
    gc.collect()
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


@pytest.mark.parametrize("shift", [0, 512], ids=["aligned", "unaligned"])
def test_memory_grows_with_what_was_written_and_trim_gives_it_back(traced, shift):
    overlay = Overlay(Pattern())
    overlay.read(0, 1)
    piece = bytes(65536)
    before = traced()
    for index in range(256):
        # Far apart, so that unaligned pieces cannot share a page.
        overlay.write((index << 40) + shift, piece)
    assert traced() - before <= 1.3 * 256 * len(piece)
    overlay.zero(0, 1 << 50, hole=True)
    assert traced() - before <= 65536


def test_trims_smaller_than_a_page_give_memory_back_too(traced):
    overlay = Overlay(Pattern())
    overlay.read(0, 1)
    before = traced()
    overlay.write(0, bytes(MIB))
    assert traced() - before >= MIB
    for offset in range(0, MIB, 512):
        overlay.zero(offset, 512, hole=True)
    assert traced() - before <= 16384
    assert list(overlay.segments(0, MIB)) == [Extent(MIB, HOLE)]


def test_a_map_sorts_the_pages_only_after_they_changed(monkeypatch):
    sorts = []

    def counting(pages):
        sorts.append(len(pages))
        return sorted(pages)

    monkeypatch.setattr(overlay_module, "sorted", counting, raising=False)
    overlay = Overlay(Zeros())
    size = 1 << 30
    for index in (7, 3, 4, 262_000):
        overlay.write(index * PAGE, b"x" * PAGE)
    expected = [(3 * PAGE, HOLE), (2 * PAGE, DATA), (2 * PAGE, HOLE), (PAGE, DATA)]
    for _ in range(3):
        assert list(overlay.segments(0, size))[:4] == [Extent(*e) for e in expected]
        assert next(overlay.segments(7 * PAGE, size)) == Extent(PAGE, DATA)
    overlay.write(7 * PAGE, b"y" * PAGE)
    overlay.write(7 * PAGE + 5, b"y")
    assert list(overlay.segments(0, size))[:4] == [Extent(*e) for e in expected]
    assert sorts == [4]
    overlay.write(5 * PAGE, b"y" * PAGE)
    assert list(overlay.segments(0, size))[1] == Extent(3 * PAGE, DATA)
    overlay.zero(4 * PAGE, PAGE, hole=True)
    assert list(overlay.segments(0, size))[1] == Extent(PAGE, DATA)
    assert sorts == [4, 5, 4]
