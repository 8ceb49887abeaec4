"""Repeats and pieces: what they stand for, what their bytes are, and how little of them is made."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs
import pytest

from fakenbd.faults import Answer, Faults, Firing, parse_do
from fakenbd.faults.answer import CloseConnection, NeverSend, Pause, RepeatMessages, SendPieces
from fakenbd.faults.selection import materialised
from fakenbd.faults.stream import carries_bytes, length, split_at, step_bytes
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Chunk, Data, Extent, Hole, Raw, ServerMessage, Status
from tests.faults.cases import CASES
from tests.faults.correct_answers import CHUNKS
from tests.faults.firing import fire

DATA, HOLE = CHUNKS.answer
BILLION = 1_000_000_000
MANY = Chunk(1, Data(4096, bytes(1 << 20)), flags=1)


def wire(steps: Any) -> bytes:
    return b"".join(map(step_bytes, steps))


def after(do: list[dict[str, Any]], answer: Answer) -> tuple[Answer, str]:
    """What kinds in a row make of an answer, and the note of the last one."""
    note = ""
    for kind in parse_do(do):
        answer, note = kind.apply(answer, Firing(CHUNKS.event))
    return answer, note


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[ServerMessage]:
    """Every message that a lazy step makes from now on."""
    messages: list[ServerMessage] = []

    def recording(step_type: type) -> None:
        original = step_type.messages

        def make(step: Any) -> Iterator[ServerMessage]:
            for message in original(step):
                messages.append(message)
                yield message

        monkeypatch.setattr(step_type, "messages", make)

    recording(RepeatMessages)
    recording(SendPieces)
    return messages


# --- what they stand for -----------------------------------------------------------------------


def test_a_repeat_gives_its_messages_in_rounds() -> None:
    step = RepeatMessages((DATA, HOLE), 2, 0.5)
    assert list(step.messages()) == [DATA, HOLE, DATA, HOLE]
    assert step.size() == len(CHUNKS.wire)
    endless = attrs.evolve(step, times=None)
    assert list(islice(endless.messages(), 5)) == [DATA, HOLE, DATA, HOLE, DATA]
    assert endless.size() == step.size()


ZEROES = b"x" * 12 + bytes(512) + b"y" * 512 + bytes(100)


@pytest.mark.parametrize("request_offset", [None, 4096])
@pytest.mark.parametrize(
    ("body", "by"),
    [
        (Data(4096, b"0123456789"), 1),
        (Data(4096, b"0123456789"), 3),
        (Data(4096, b"0123456789"), 5),
        (Data(4096, b""), 5),
        (Hole(4096, 1000), 7),
        (Hole(4096, 0), 7),
        (Data(4096, bytes(range(256)) * 40), "random"),
        (Hole(4096, 10000), "random"),
        (Data(500, ZEROES), "holes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pieces_cover_the_chunk_and_count_their_bytes(
    body: Data | Hole, by: int | str, request_offset: int | None
) -> None:
    step = SendPieces(Chunk(7, body, flags=3, request_offset=request_offset), by, "an address")
    pieces: list[Any] = list(step.messages())
    assert step.count() == len(pieces) <= 65536
    assert step.size() == sum(len(encode(piece)) for piece in pieces)
    assert [piece.flags for piece in pieces] == [2] * (len(pieces) - 1) + [3]
    assert {piece.request_offset for piece in pieces} == {request_offset}
    place = body.offset
    for piece in pieces:
        assert piece.body.offset == place
        place += piece.body.size if isinstance(piece.body, Hole) else len(piece.body.data)
    assert place == body.offset + (body.size if isinstance(body, Hole) else len(body.data))
    assert list(step.messages()) == pieces, "drawn sizes are addressed"


def test_several_chunks_are_not_split_alike_at_random() -> None:
    chunks: Answer = [Chunk(1, Data(place, bytes(4096))) for place in (0, 4096)]
    answer, note = after([{"split": "random"}], chunks)
    first, second = ([len(piece.body.data) for piece in step.messages()] for step in answer)
    assert first != second
    assert (
        note == f"split the data chunk into {len(first)}; split the data chunk into {len(second)}"
    )


# --- how little is made ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "answer", "note"),
    [
        (
            [{"repeat": BILLION}],
            [DATA, HOLE, RepeatMessages((HOLE,), BILLION)],
            "inserted 1000000000 x hole chunk",
        ),
        (
            [{"repeat": BILLION}, {"cut": 7}],
            [Raw(CHUNKS.wire[:7]), CloseConnection()],
            f"cut after 7 of {68 + 32 * BILLION} bytes, then close",
        ),
        (
            [{"repeat": BILLION}, {"stall": -33}],
            [
                DATA,
                HOLE,
                RepeatMessages((HOLE,), BILLION - 2),
                Raw(CHUNKS.wire[36:67]),
                NeverSend(),
            ],
            f"stalled after {68 + 32 * BILLION - 33} of {68 + 32 * BILLION} bytes",
        ),
        (
            [{"repeat": BILLION, "at": "each"}, {"corrupt": 68 * 500_000, "xor": "01"}],
            [
                DATA,
                HOLE,
                RepeatMessages((DATA, HOLE), 499_999),
                Raw(b"\x67" + CHUNKS.wire[1:36]),
                HOLE,
                RepeatMessages((DATA, HOLE), BILLION - 500_000),
            ],
            "changed byte 34000000: 0x66 -> 0x67",
        ),
        (
            [{"repeat": "forever"}, {"delay": 1, "at": "hole"}],
            [DATA, Pause(1.0), HOLE, RepeatMessages((HOLE,), None)],
            "delayed by 1 s",
        ),
        (
            [{"repeat": BILLION}, {"drop": "each"}],
            [RepeatMessages((HOLE,), BILLION)],
            "dropped data chunk, hole chunk",
        ),
    ],
)
def test_a_repeat_is_never_written_out(
    do: list[dict[str, Any]], answer: Answer, note: str, made: list[ServerMessage]
) -> None:
    assert after(do, CHUNKS.answer) == (answer, note)
    assert made == []


def test_pieces_are_made_as_far_as_a_byte_fault_needs_them(made: list[ServerMessage]) -> None:
    (pieces,), note = after([{"split": 1}], [MANY])
    assert (pieces, note) == (SendPieces(MANY, 1, "0/1//1"), "split the data chunk into 65536")
    assert made == []
    total = length([pieces])
    assert made == []
    answer, note = after([{"split": 1}, {"cut": 60}], [MANY])
    assert note == f"cut after 60 of {total} bytes, then close"
    assert len(made) == 3
    first = Chunk(1, Data(4096, b"\0"))
    second = attrs.evolve(first, body=Data(4097, b"\0"))
    assert answer == [
        first,
        second,
        Raw(encode(attrs.evolve(first, body=Data(4098, b"")))[:2]),
        CloseConnection(),
    ]


# --- kinds that come after ---------------------------------------------------------------------


def test_messages_by_place_are_those_that_leave() -> None:
    chunk = Chunk(1, Data(0, b"abcd"), flags=1)
    parts = [Chunk(1, Data(place, b"abcd"[place : place + 1])) for place in range(4)]
    parts[3] = attrs.evolve(parts[3], flags=1)
    answer, note = after([{"split": 1}, {"drop": 1}], [chunk])
    assert (answer, note) == ([parts[0], parts[2], parts[3]], "dropped data chunk")
    answer, note = after([{"split": 1}, {"set": {"cookie": 2}, "at": "last"}], [chunk])
    assert answer == [*parts[:3], attrs.evolve(parts[3], cookie=2)]
    answer, note = after([{"repeat": 2}, {"insert": "00", "before": 2}], [chunk])
    assert answer == [chunk, chunk, Raw(b"\0"), chunk]
    answer, note = after([{"split": 1}, {"reverse": True, "travels": True}], [chunk])
    assert answer == parts[::-1]
    answer, note = after([{"repeat": 1}, {"rate": 50}], [chunk])
    assert [wire([step]) for step in answer] == [encode(chunk)] * 2


def test_a_function_gets_the_pieces() -> None:
    faults = Faults()
    (split,) = parse_do({"split": 4, "at": "data"})
    faults.on("read").do(split, lambda answer, firing: answer[1:])
    answer, (record,) = fire(faults, CHUNKS.event, CHUNKS.answer)
    assert answer == [Chunk(DATA.cookie, Data(4100, b"4567")), HOLE]
    assert record.change == "split the data chunk into 2; changed by <lambda>"


def test_only_so_many_repeats_become_messages() -> None:
    small, large = RepeatMessages((DATA,), 65536), RepeatMessages((DATA,), 65537)
    paced, endless = RepeatMessages((DATA,), 2, 1.0), RepeatMessages((DATA,), None)
    assert materialised([small]) == [DATA] * 65536
    assert materialised([large, paced, endless]) == [large, paced, endless]


def test_the_extents_of_a_chunk_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakenbd.faults.kinds.messages._MAXIMUM_EXTENTS", 6)
    status = Chunk(1, Status(1, [Extent(2, 0), Extent(20, 3), Extent(5, 0)]), flags=1)
    (chunk,), _ = after([{"split": 1}], [status])
    assert chunk.body.extents == [(1, 0), (1, 0), (1, 3), (1, 3), (18, 3), (5, 0)]


@pytest.mark.parametrize(
    "steps",
    [
        [DATA, RepeatMessages((DATA, HOLE), 3), HOLE],
        [SendPieces(DATA, 3), HOLE],
        [SendPieces(Chunk(1, Data(500, ZEROES)), "holes")],
    ],
    ids=["repeat", "pieces", "holes"],
)
def test_a_stream_is_parted_at_any_position(steps: Answer) -> None:
    whole = wire(steps)
    for position in range(len(whole) + 1):
        before, rest = split_at(steps, position)
        assert wire(before) == whole[:position]
        assert wire(rest) == whole[position:]


LAZY: dict[str, Answer] = {
    "pieces": [SendPieces(DATA, 3, "an address"), HOLE],
    "repeat": [DATA, RepeatMessages((DATA, HOLE), 3), HOLE],
    "both": [SendPieces(HOLE, 3), RepeatMessages((DATA,), 2), HOLE],
}


@pytest.mark.parametrize("steps", LAZY.values(), ids=LAZY)
@pytest.mark.parametrize("do", sorted({each.do for each in CASES if each.correct_answer is CHUNKS}))
def test_a_kind_makes_the_same_bytes_of_lazy_steps_as_of_their_messages(
    do: str, steps: Answer
) -> None:
    (kind,) = parse_do(tomllib.loads(f"do = {do}")["do"])
    lazy, lazy_note = kind.apply(list(steps), Firing(CHUNKS.event))
    eager, eager_note = kind.apply(materialised(steps), Firing(CHUNKS.event))
    assert wire(lazy) == wire(eager)
    assert [step for step in lazy if not carries_bytes(step)] == [
        step for step in eager if not carries_bytes(step)
    ]
    assert bool(lazy_note) == bool(eager_note)
