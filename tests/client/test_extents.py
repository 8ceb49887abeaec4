"""The decision table of block status, row by row, as measured on the client that has it."""

from __future__ import annotations

import logging

import pytest

from fakenbd.client.extents import Repaired, repair
from fakenbd.client.noncompliance import Noncompliance, Notes
from fakenbd.errors import NoncomplianceError, ProtocolError
from fakenbd.protocol.messages import Extent

DATA, HOLE_ZERO = 0, 3

# size, minimum, {offset: extents the server answers}, requests, map, rules noted
MEASURED = {
    "the seed": (
        (1024, 512),
        {0: [(1000, 0)], 512: [(488, 0)]},
        [(0, 1024), (512, 512)],
        [(0, 1024, DATA)],
        ["S-209"] * 2,
    ),
    "a short tail forgets hole and zero": (
        (1024, 512),
        {0: [(1000, 0)], 512: [(488, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 1024, DATA)],
        ["S-209"] * 2,
    ),
    "rounding down keeps the flags": (
        (1024, 512),
        {0: [(600, 3)], 512: [(512, 0)]},
        [(0, 1024), (512, 512)],
        [(0, 512, HOLE_ZERO), (512, 512, DATA)],
        ["S-209"],
    ),
    "one byte too many": (
        (1024, 512),
        {0: [(513, 3)], 512: [(512, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 1024, HOLE_ZERO)],
        ["S-209"],
    ),
    "one byte of zeroes": (
        (1024, 512),
        {0: [(1, 3)], 512: [(512, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 512, DATA), (512, 512, HOLE_ZERO)],
        ["S-209"],
    ),
    "one byte too few": (
        (1024, 512),
        {0: [(511, 0)], 512: [(512, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 512, DATA), (512, 512, HOLE_ZERO)],
        ["S-209"],
    ),
    "unaligned and too large": (
        (1024, 512),
        {0: [(2000, 0)]},
        [(0, 1024)],
        [(0, 1024, DATA)],
        ["S-209", "S-206"],
    ),
    "too large": (
        (1024, 512),
        {0: [(2048, 3)]},
        [(0, 1024)],
        [(0, 1024, HOLE_ZERO)],
        ["S-206"],
    ),
    "unaligned, and more than one": (
        (1024, 512),
        {0: [(1000, 0), (24, 3)], 512: [(488, 0), (24, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 1024, DATA)],
        ["S-209", "S-205"] * 2,
    ),
    "more than one": (
        (1024, 512),
        {0: [(512, 0), (512, 3)], 512: [(512, 3)]},
        [(0, 1024), (512, 512)],
        [(0, 512, DATA), (512, 512, HOLE_ZERO)],
        ["S-205"],
    ),
    "three sectors": (
        (1536, 512),
        {0: [(1300, 0)], 1024: [(276, 0)]},
        [(0, 1536), (1024, 512)],
        [(0, 1536, DATA)],
        ["S-209"] * 2,
    ),
    "blocks of 4096": (
        (8192, 4096),
        {0: [(5000, 3)], 4096: [(904, 3)]},
        [(0, 8192), (4096, 4096)],
        [(0, 4096, HOLE_ZERO), (4096, 4096, DATA)],
        ["S-209"] * 2,
    ),
    "the odd tail behind a hole": (
        (66560, 512),
        {0: [(65536, 3)], 65536: [(1000, 0)], 66048: [(488, 0)]},
        [(0, 66560), (65536, 1024), (66048, 512)],
        [(0, 65536, HOLE_ZERO), (65536, 1024, DATA)],
        ["S-209"] * 2,
    ),
    "no minimum block": (
        (1024, 0),
        {0: [(1000, 0)], 1000: [(24, 3)]},
        [(0, 1024), (1000, 24)],
        [(0, 1000, DATA), (1000, 24, HOLE_ZERO)],
        [],
    ),
    "a minimum block of 1": (
        (1024, 1),
        {0: [(1000, 0)], 1000: [(24, 3)]},
        [(0, 1024), (1000, 24)],
        [(0, 1000, DATA), (1000, 24, HOLE_ZERO)],
        [],
    ),
    "one sector of one byte": (
        (512, 512),
        {0: [(1, 0)]},
        [(0, 512)],
        [(0, 512, DATA)],
        ["S-209"],
    ),
}


@pytest.mark.parametrize(
    ("geometry", "answers", "requests", "mapped", "rules"), MEASURED.values(), ids=MEASURED
)
def test_measured_row(geometry, answers, requests, mapped, rules):
    size, minimum = geometry
    asked, found, noted = [], [], []
    offset = 0
    while offset < size:
        asked.append((offset, size - offset))
        repaired = repair(
            answers[offset],
            offset=offset,
            length=size - offset,
            minimum=minimum,
            req_one=True,
            size=size,
        )
        noted += [note.rule for note in repaired.notes]
        for length, flags in repaired.extents:
            if found and found[-1][2] == flags:
                start, before, _ = found.pop()
                found.append((start, before + length, flags))
            else:
                found.append((offset, length, flags))
            offset += length
    assert asked == requests
    assert found == mapped
    assert noted == rules


SEVERAL = {
    "all aligned": (
        [(512, 0), (512, 3)],
        [(512, 0), (512, 3)],
        [],
    ),
    "equal neighbours stay as they came": (
        [(512, 3), (512, 3)],
        [(512, 3), (512, 3)],
        [],
    ),
    "short is legal": ([(512, 7)], [(512, 7)], []),
    "the last may run past the request": (
        [(512, 0), (1024, 3)],
        [(512, 0), (512, 3)],
        [],
    ),
    "but not past the export": (
        [(512, 0), (4096, 3)],
        [(512, 0), (512, 3)],
        [
            Noncompliance(
                "S-208",
                "the extent at 1536 ends at 5632, past the export's end at 4096",
                "taken as 512 bytes",
            )
        ],
    ),
    "a sum past 2^64": (
        [((1 << 64) - 512, 0)],
        [(1024, 0)],
        [
            Noncompliance(
                "S-208",
                "the extent at 1024 ends at 18446744073709552128, past the export's end at 4096",
                "taken as 1024 bytes",
            )
        ],
    ),
    "the seed's server in one answer": (
        [(1000, 0), (24, 3)],
        [(512, 0)],
        [
            Noncompliance(
                "S-209",
                "the extent at 1024 is 1000 bytes long, not a multiple of 512",
                "taken as 512 bytes",
            )
        ],
    ),
    "an unaligned extent in second place ends the usable ones": (
        [(512, 3), (100, 3), (412, 0)],
        [(512, 3), (512, 0)],
        [
            Noncompliance(
                "S-209",
                "the extent at 1536 is 100 bytes long, not a multiple of 512",
                "taken as 512 bytes of data",
            )
        ],
    ),
    "extents behind the end": (
        [(512, 0), (512, 3), (512, 0), (0, 0)],
        [(512, 0), (512, 3)],
        [
            Noncompliance(
                "S-207",
                "2 extents came behind those that cover 1024+1024",
                "they are ignored",
            )
        ],
    ),
}


@pytest.mark.parametrize(("extents", "usable", "notes"), SEVERAL.values(), ids=SEVERAL)
def test_several_extents(extents, usable, notes):
    repaired = repair(extents, offset=1024, length=1024, minimum=512, size=4096)
    assert repaired == Repaired(tuple(Extent(*extent) for extent in usable), tuple(notes))


FATAL = {
    "none": ([], "the status of 1024+1024 holds no extent (S-203)"),
    "first empty": ([(0, 0)], "the extent at 1024 has length 0 (S-204)"),
    "second empty": ([(512, 0), (0, 3)], "the extent at 1536 has length 0 (S-204)"),
}


@pytest.mark.parametrize(("extents", "message"), FATAL.values(), ids=FATAL)
def test_fatal(extents, message):
    with pytest.raises(ProtocolError) as caught:
        repair(extents, offset=1024, length=1024, minimum=512, size=4096)
    assert str(caught.value) == message


def test_one_empty_extent_is_fatal_where_one_was_asked_for():
    with pytest.raises(ProtocolError, match="S-204"):
        repair([(0, 0)], offset=0, length=1024, minimum=512, req_one=True)


NOTE = Noncompliance("S-209", "an odd extent", "taken as even")


def test_tolerant_notes_are_kept_and_logged(caplog):
    notes = Notes()
    with caplog.at_level(logging.WARNING, logger="fakenbd.client"):
        notes.add([NOTE, NOTE])
    assert notes.kept == [NOTE, NOTE]
    assert caplog.messages == ["an odd extent; taken as even (S-209)"] * 2


def test_strict_notes_are_raised():
    notes = Notes("strict")
    with pytest.raises(NoncomplianceError) as caught:
        notes.add([NOTE])
    assert str(caught.value) == "an odd extent (S-209)"
    assert caught.value.rule == "S-209"


def test_notes_are_bounded():
    notes = Notes()
    logging.getLogger("fakenbd.client").disabled = True
    try:
        notes.add([NOTE] * 10_001)
    finally:
        logging.getLogger("fakenbd.client").disabled = False
    assert (len(notes.kept), notes.count) == (10_000, 10_001)
