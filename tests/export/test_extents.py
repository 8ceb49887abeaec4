from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakenbd.export.extents as extents_module
from fakenbd.export.extents import (
    MAXIMUM_EXTENTS,
    AllData,
    ExtentList,
    FunctionExtents,
    Policy,
    Query,
    Repeated,
    TrueExtents,
    capped,
    extent_source,
    parse_extent,
    parse_size,
)
from fakenbd.protocol.messages import Extent

REQ_ONE = 8
CONTEXT = "base:allocation"


def exactly(message):
    return f"^{re.escape(message)}$"


def no_truth(offset, length):
    raise AssertionError("literal extents do not need the true ones")


def ask(reported, size, offset, length, flags=0, *, context=CONTEXT, true_extents=no_truth):
    return reported.block_status(Query(context, offset, length, flags, size, true_extents))


def extents(*pairs):
    return [Extent(*pair) for pair in pairs]


# --- parsing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("7B", 7),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        (" 1MiB ", 1 << 20),
        ("3GiB", 3 << 30),
        ("2TiB", 2 << 40),
        ("1PiB", 1 << 50),
        ("8EiB", 1 << 63),
        ("0x200", 512),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_parse_size(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "KiB", "1.5MiB", "-1", "1 000", "64KB", "64k", "0x", "1e3"])
def test_parse_size_refuses(text):
    with pytest.raises(
        ValueError, match=exactly(f'expected a size such as 1000, "64KiB" or "1MiB", got {text!r}')
    ):
        parse_size(text)


def test_parse_size_refuses_what_no_field_holds():
    with pytest.raises(
        ValueError, match=exactly("expected a size of at most 2^64 - 1 bytes, got '16EiB'")
    ):
        parse_size("16EiB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000 data", (1000, 0)),
        ("24 hole,zero", (24, 3)),
        ("24 zero", (24, 2)),
        ("4KiB data", (4096, 0)),
        ("4 KiB hole", (4096, 1)),
        ("64KiB 0x3", (65536, 3)),
        ("0 data", (0, 0)),
        ("512 dirty", (512, 1)),
        ("512 5", (512, 5)),
        ("512 hole,0x80000000", (512, 0x80000001)),
        ("512 0xffffffffffffffff", (512, 2**64 - 1)),
    ],
)
def test_parse_extent(text, expected):
    assert parse_extent(text) == Extent(*expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000", 'expected an extent such as "1000 data" or "24 hole,zero", got \'1000\''),
        ("", 'expected an extent such as "1000 data" or "24 hole,zero", got \'\''),
        (
            "24 hole,zerro",
            "expected data, hole, zero, dirty or a number as flags in the extent "
            "'24 hole,zerro', got 'zerro'",
        ),
        (
            "24 hole, zero",
            'expected a size such as 1000, "64KiB" or "1MiB", got \'24 hole,\'',
        ),
        (
            "24 0x10000000000000000",
            "expected data, hole, zero, dirty or a number as flags in the extent "
            "'24 0x10000000000000000', got '0x10000000000000000'",
        ),
        ("x data", 'expected a size such as 1000, "64KiB" or "1MiB", got \'x\''),
    ],
)
def test_parse_extent_refuses(text, message):
    with pytest.raises(ValueError, match=exactly(message)):
        parse_extent(text)


# --- literal lists ----------------------------------------------------------------------------

ODD = ["1000 data", "24 hole,zero"]
FOUR = ["512 data", "0 zero", "512 data", "0 hole", "0 dirty", "1024 hole,zero"]


@pytest.mark.parametrize(
    ("size", "listed", "offset", "length", "flags", "expected"),
    [
        (1024, ODD, 0, 1024, 0, [(1000, 0), (24, 3)]),
        (1024, ODD, 0, 1000, 0, [(1000, 0)]),
        (1024, ODD, 0, 1001, 0, [(1000, 0), (1, 3)]),
        (1024, ODD, 0, 512, 0, [(512, 0)]),
        (1024, ODD, 0, 512, REQ_ONE, [(512, 0)]),
        (1024, ODD, 100, 200, 0, [(200, 0)]),
        (1024, ODD, 512, 512, 0, [(488, 0), (24, 3)]),
        (1024, ODD, 1000, 24, 0, [(24, 3)]),
        (1024, ODD, 1010, 4, 0, [(4, 3)]),
        # A short list: what is behind it is data.
        (1024, ["1000 data"], 0, 1024, 0, [(1000, 0)]),
        (1024, ["1000 zero"], 1000, 24, 0, [(24, 0)]),
        (8192, ["1000 zero"], 2000, 100, REQ_ONE, [(100, 0)]),
        (1024, [], 0, 1024, 0, [(1024, 0)]),
        # A long list: given where the request reaches the export's end, and only there.
        (1024, ["2000 data"], 0, 1024, 0, [(2000, 0)]),
        (1024, ["2000 data"], 512, 512, REQ_ONE, [(1488, 0)]),
        (1024, ["2000 data"], 0, 1023, 0, [(1023, 0)]),
        (1024, ["1024 data", "9 hole", "0 zero"], 0, 1024, 0, [(1024, 0), (9, 1), (0, 2)]),
        (1024, ["1024 data", "9 hole"], 0, 1000, 0, [(1000, 0)]),
        # Empty extents, at the offset and after it; not before it, nor at the request's end.
        (1024, ["0 data", "1024 zero"], 0, 1024, 0, [(0, 0), (1024, 2)]),
        (1024, ["0 data", "1024 zero"], 0, 512, REQ_ONE, [(0, 0)]),
        (2048, FOUR, 0, 512, 0, [(512, 0)]),
        (2048, FOUR, 0, 513, 0, [(512, 0), (0, 2), (1, 0)]),
        (2048, FOUR, 512, 512, 0, [(0, 2), (512, 0)]),
        (2048, FOUR, 513, 600, 0, [(511, 0), (0, 1), (0, 1), (89, 3)]),
        (2048, FOUR, 1024, 1024, 0, [(0, 1), (0, 1), (1024, 3)]),
        (2048, FOUR, 1024, 1024, REQ_ONE, [(0, 1)]),
        # Equal neighbours stay as they are.
        (1024, ["512 data", "512 data"], 0, 1024, 0, [(512, 0), (512, 0)]),
        (1024, ODD, 0, 0, 0, []),
    ],
)
def test_a_list_answers_from_within_itself(size, listed, offset, length, flags, expected):
    assert ask(ExtentList(listed), size, offset, length, flags) == extents(*expected)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0, 3])), max_size=12),
    st.integers(1, 40),
    st.integers(0, 39),
    st.integers(1, 40),
    st.sampled_from([0, REQ_ONE]),
)
def test_a_list_agrees_with_walking_it(listed, size, offset, length, flags):
    offset = min(offset, size - 1)
    end = min(offset + length, size)
    expected = []
    start = 0
    for extent_length, extent_flags in listed:
        stop = start + extent_length
        begun = start < end or end == size
        if begun and (stop > offset or (extent_length == 0 and start >= offset)):
            cut = stop if end == size else min(stop, end)
            expected.append(Extent(cut - max(start, offset), extent_flags))
        start = stop
    expected = expected or [Extent(end - offset, 0)]
    if flags:
        expected = expected[:1]
    for reported in (ExtentList(listed), Policy(ExtentList(listed))):
        assert ask(reported, size, offset, end - offset, flags) == expected


# The rows of qemu.md section 2: what a server has to say for each, asked with REQ_ONE.
MANY = {"one_extent": False}


@pytest.mark.parametrize(
    ("size", "reported", "answers"),
    [
        (1024, ExtentList(ODD), {0: [(1000, 0)], 512: [(488, 0)]}),
        (1024, ExtentList(["1 data", "511 data", "512 hole,zero"]), {0: [(1, 0)], 512: [(512, 3)]}),
        (
            1024,
            ExtentList(["511 hole,zero", "1 data", "512 hole,zero"]),
            {0: [(511, 3)], 512: [(512, 3)]},
        ),
        (1024, ExtentList(["2000 data"]), {0: [(2000, 0)]}),
        (1024, ExtentList(["2048 hole,zero"]), {0: [(2048, 3)]}),
        (
            1024,
            Policy(ExtentList(ODD), one_extent=False),
            {0: [(1000, 0), (24, 3)], 512: [(488, 0), (24, 3)]},
        ),
        (
            1024,
            Policy(ExtentList(["512 data", "512 hole,zero"]), one_extent=False),
            {0: [(512, 0), (512, 3)], 512: [(512, 3)]},
        ),
        (1536, ExtentList(["1300 data", "236 hole,zero"]), {0: [(1300, 0)], 1024: [(276, 0)]}),
        (8192, ExtentList(["5000 hole,zero", "3192 data"]), {0: [(5000, 3)], 4096: [(904, 3)]}),
        (
            66560,
            ExtentList(["64KiB hole,zero", "1000 data", "24 hole,zero"]),
            {0: [(65536, 3)], 65536: [(1000, 0)], 66048: [(488, 0)]},
        ),
        (1024, ExtentList(ODD), {0: [(1000, 0)], 1000: [(24, 3)]}),
        (1024, ExtentList(["0 data"]), {0: [(0, 0)]}),
        (512, ExtentList(["1 data", "511 hole,zero"]), {0: [(1, 0)]}),
    ],
)
def test_the_decision_table_can_be_provoked(size, reported, answers):
    for offset, expected in answers.items():
        assert ask(reported, size, offset, size - offset, REQ_ONE) == extents(*expected)


def test_a_million_extents_are_slices_of_the_list():
    listed = [Extent(4096, index & 1) for index in range(1_000_000)]
    reported = ExtentList(listed)
    answer = ask(reported, 4096 * 1_000_000, 4096 * 500_000 + 1, 4096 * 100_000)
    assert len(answer) == 100_001
    assert answer[0] == Extent(4095, 0)
    assert all(
        given is own for given, own in zip(answer[1:-1], reported.extents[500_001:], strict=False)
    )
    assert answer[-1] == Extent(1, 0)


@pytest.mark.parametrize(
    "reported",
    [
        ExtentList([Extent(1, 0)] * 32),
        Policy(ExtentList([Extent(1, 0)] * 32)),
        Repeated(["1 data"]),
        Policy(split=1),
        TrueExtents(),
        FunctionExtents(lambda *_: itertools.repeat(Extent(1, 0))),
    ],
)
@pytest.mark.parametrize("length", [31, 32])
def test_no_answer_has_more_than_the_most_extents(reported, length, monkeypatch):
    assert MAXIMUM_EXTENTS == 1 << 20
    monkeypatch.setattr(extents_module, "MAXIMUM_EXTENTS", 16)

    def true_extents(offset, length):
        return iter([Extent(1, 0)] * length)

    assert ask(reported, 32, 0, length, true_extents=true_extents) == [Extent(1, 0)] * 16


# --- other scripts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "offset", "length", "flags", "expected"),
    [
        (2**63, 0, 10000, 0, [(4096, 0), (4096, 3), (1808, 0)]),
        (2**63, 2**62 + 5, 8192, 0, [(4091, 0), (4096, 3), (5, 0)]),
        (2**63, 4096, 8192, REQ_ONE, [(4096, 3)]),
        (2**63, 2**63 - 1, 1, 0, [(1, 3)]),
        (6000, 0, 6000, 0, [(4096, 0), (1904, 3)]),
        (6000, 5000, 1000, 0, [(1000, 3)]),
        (6000, 0, 0, 0, []),
        (6000, 6000, 0, 0, []),
    ],
)
def test_a_repeated_list(size, offset, length, flags, expected):
    reported = Repeated(["4KiB data", "4KiB hole,zero"])
    assert ask(reported, size, offset, length, flags) == extents(*expected)
    assert ask(Policy(reported), size, offset, length, flags) == extents(*expected)


def test_a_repeated_list_tells_its_empty_extents():
    reported = Repeated(["0 zero", "512 data"])
    assert ask(reported, 4096, 256, 512) == extents((256, 0), (0, 2), (256, 0))


def test_repeating_nothing_is_refused():
    for listed in ([], ["0 data", "0 hole"]):
        with pytest.raises(
            ValueError,
            match=exactly("expected extents to repeat that are longer than 0 bytes in all"),
        ):
            Repeated(listed)


def halves(offset, length):
    """The true extents of an export that is data below 4096 and a hole from there on."""
    data = min(max(4096 - offset, 0), length)
    return (extent for extent in extents((data, 0), (length - data, 3)) if extent.length)


@pytest.mark.parametrize(
    ("policy", "offset", "length", "flags", "expected"),
    [
        (Policy(), 0, 8192, 0, [(4096, 0), (4096, 3)]),
        (Policy(), 1000, 2000, 0, [(2000, 0)]),
        (Policy(), 0, 8192, REQ_ONE, [(4096, 0)]),
        (Policy(one_extent=True), 0, 8192, 0, [(4096, 0)]),
        (Policy(one_extent=True), 0, 100, 0, [(100, 0)]),
        (Policy(one_extent=False), 0, 8192, REQ_ONE, [(4096, 0), (4096, 3)]),
        (Policy(split=3000), 0, 7000, 0, [(3000, 0), (1096, 0), (1904, 3), (1000, 3)]),
        (Policy(split=512), 100, 1000, 0, [(412, 0), (512, 0), (76, 0)]),
        (Policy(split=512), 100, 1000, REQ_ONE, [(412, 0)]),
        (Policy(overrun=True), 0, 100, 0, [(4096, 0)]),
        (Policy(overrun=True), 1000, 100, REQ_ONE, [(3096, 0)]),
        (Policy(overrun=True), 0, 4096, 0, [(4096, 0)]),
        (Policy(overrun=True), 0, 4097, 0, [(4096, 0), (4096, 3)]),
        (Policy(overrun=True), 5000, 3192, 0, [(3192, 3)]),
        (Policy(overrun=True, split=512), 0, 700, 0, [(512, 0), (512, 0)]),
        (Policy(overrun=True, one_extent=True), 0, 5000, 0, [(4096, 0)]),
        (Policy(), 0, 0, 0, []),
        # A request past the export's end, which a server may answer on purpose.
        (Policy(overrun=True), 9000, 100, 0, [(100, 3)]),
    ],
)
def test_a_policy_reports_the_true_extents_differently(policy, offset, length, flags, expected):
    assert ask(policy, 8192, offset, length, flags, true_extents=halves) == extents(*expected)


@pytest.mark.parametrize(
    ("merge", "split", "expected"),
    [
        (False, None, [(100, 0), (0, 0), (100, 0), (100, 3), (100, 3)]),
        (True, None, [(200, 0), (200, 3)]),
        (True, 150, [(150, 0), (50, 0), (100, 3), (100, 3)]),
    ],
)
def test_a_policy_over_a_list(merge, split, expected):
    listed = ExtentList(["100 data", "0 data", "100 data", "100 hole,zero", "100 hole,zero"])
    assert ask(Policy(listed, merge=merge, split=split), 400, 0, 400) == extents(*expected)


def test_merging_ends_where_a_repetition_does_not(monkeypatch):
    monkeypatch.setattr(extents_module, "MAXIMUM_EXTENTS", 1000)
    reported = Policy(Repeated(["1 data"]), merge=True, overrun=True)
    assert ask(reported, 2**63, 0, 512) == [Extent(1000, 0)]


def test_a_split_of_nothing_is_refused():
    with pytest.raises(ValueError, match="'split' must be >= 1: 0"):
        Policy(split=0)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("given", "block", "expected"),
    [
        ([], 1, []),
        ([(4 * GIB - 1, 3), (512, 0)], 512, [(4 * GIB - 1, 3), (512, 0)]),
        ([(4 * GIB, 0)], 1, [(4 * GIB - 1, 0)]),
        ([(4 * GIB, 0)], 512, [(4 * GIB - 512, 0)]),
        ([(8 * GIB, 0)], 4096, [(4 * GIB - 4096, 0)]),
        # The rest would be reported from the wrong offset on.
        ([(512, 0), (2**64 - 1, 3), (512, 0)], 512, [(512, 0), (4 * GIB - 512, 3)]),
        # A block that no length is a multiple of.
        ([(8 * GIB, 0)], 2**32 - 1, [(4 * GIB - 1, 0)]),
        ([(8 * GIB, 0)], 0, [(4 * GIB - 1, 0)]),
    ],
)
def test_lengths_are_capped_for_32_bits(given, block, expected):
    assert capped(extents(*given), block) == extents(*expected)


def test_a_function_is_sent_as_it_stands():
    asked = []

    def reported(context, offset, length, flags):
        asked.append((context, offset, length, flags))
        yield Extent(600, 3)
        yield 0, 7

    answer = ask(FunctionExtents(reported), 1024, 512, 100, REQ_ONE, context="x:y")
    assert answer == extents((600, 3), (0, 7))
    assert asked == [("x:y", 512, 100, REQ_ONE)]


@pytest.mark.parametrize(
    ("offset", "length", "flags", "expected"),
    [
        (0, 8192, 0, [(4096, 0), (4096, 3)]),
        (0, 8192, REQ_ONE, [(4096, 0)]),
        (4095, 2, 0, [(1, 0), (1, 3)]),
        (0, 0, 0, []),
    ],
)
def test_true_extents(offset, length, flags, expected):
    assert ask(TrueExtents(), 8192, offset, length, flags, true_extents=halves) == extents(
        *expected
    )


def test_a_context_without_a_script_is_one_extent_of_data():
    for reported in (AllData(), Policy()):
        assert ask(reported, 8192, 5, 100, context="qemu:dirty-bitmap:b") == [Extent(100, 0)]
        assert ask(reported, 8192, 5, 0, context="qemu:dirty-bitmap:b") == []


def test_script_takes_what_users_give():
    def reported(context, offset, length, flags):
        return []

    assert extent_source(None, CONTEXT) == TrueExtents()
    assert extent_source(None, "x:y") == AllData()
    assert extent_source(Policy(split=5), CONTEXT) == Policy(split=5)
    assert extent_source(reported, CONTEXT) == FunctionExtents(reported)
    listed = extent_source(["5 data", (6, 1), Extent(7, 2)], CONTEXT)
    assert isinstance(listed, ExtentList)
    assert listed.extents == extents((5, 0), (6, 1), (7, 2))
