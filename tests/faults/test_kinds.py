"""Every kind of fault against its table, and the table against registry and documentation."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from typing import Any

import attrs
import pytest

from fakenbd.faults import KINDS, Answer, Firing, Kind, make_kind, parse_do
from fakenbd.faults.answer import (
    BeginShutdown,
    CloseConnection,
    NeverSend,
    PaceBytes,
    RepeatMessages,
    SendPieces,
)
from fakenbd.faults.event import Event
from fakenbd.faults.registry import parameters
from fakenbd.faults.selection import materialised
from fakenbd.faults.stream import split_at, step_bytes
from fakenbd.protocol.constants import Command
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    Greeting,
    Hole,
    NoneChunk,
    Raw,
    Request,
    SimpleReply,
)
from tests.faults.cases import CASES, Case
from tests.faults.correct_answers import (
    ABORT,
    CHUNKS,
    COOKIE,
    CORRECT_ANSWERS,
    GREETING,
    SIMPLE,
    CorrectAnswer,
)


def written(do: str) -> Any:
    return tomllib.loads(f"do = {do}")["do"]


def wire(answer: list[Any]) -> bytes:
    return b"".join(map(step_bytes, answer))


@pytest.mark.parametrize(
    "correct_answer", CORRECT_ANSWERS, ids=lambda correct_answer: correct_answer.event.describe()
)
def test_the_correct_answers_are_what_was_written_out_by_hand(
    correct_answer: CorrectAnswer,
) -> None:
    assert wire(correct_answer.answer) == correct_answer.wire


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.correct_answer.event.kind} {case.do}"
)
def test_a_kind_turns_the_correct_answer_into_its_own(case: Case) -> None:
    (kind,) = parse_do(written(case.do))
    before = list(case.correct_answer.answer)
    after, change = kind.apply(before, Firing(case.correct_answer.event, "a lie"))
    assert after == case.answer
    assert wire(after) == bytes.fromhex(case.wire)
    assert change == case.change
    assert before == case.correct_answer.answer, "a kind must not touch the answer it was given"


@pytest.mark.parametrize("slug", KINDS)
def test_a_kind_leaves_alone_what_it_cannot_change(slug: str) -> None:
    """Every kind takes every correct answer of its events, with the same result twice."""
    for case in CASES:
        (kind,) = parse_do(written(case.do))
        if kind.slug != slug:
            continue
        for correct_answer in CORRECT_ANSWERS:
            if correct_answer.event.kind in kind.events:
                firing = Firing(correct_answer.event, "a lie")
                once, change = kind.apply(list(correct_answer.answer), firing)
                assert (once, change) == kind.apply(list(correct_answer.answer), firing)
                assert bool(change) == (once != correct_answer.answer)


def documented(kind: type[Kind]) -> dict[str, str]:
    """The parameters that a docstring lists, with their defaults."""
    lines = re.findall(r"^(\w+): .*\((required|default .*)\)$", inspect.getdoc(kind) or "", re.M)
    return dict(lines)


def default_words(field: attrs.Attribute[Any]) -> str:
    value = field.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, bytes):
        value = value.hex()
    return f"default {'nothing' if value is None else json.dumps(value)}"


def test_registry_and_table_hold_the_same_kinds_and_parameters() -> None:
    used: dict[str, set[str]] = {}
    for case in CASES:
        table = written(case.do)
        slug = next(key for key in table if key in KINDS)
        names = used.setdefault(slug, set())
        names |= {key.replace("-", "_") for key in table if key != slug}
        if table[slug] is not True:
            names.add(KINDS[slug].main or "")
    assert used == {slug: set(parameters(kind)) for slug, kind in KINDS.items()}


@pytest.mark.parametrize("slug", KINDS)
def test_documentation_names_every_parameter_with_its_default(slug: str) -> None:
    kind = KINDS[slug]
    expected = {name: default_words(field) for name, field in parameters(kind).items()}
    if slug == "hold":
        expected["replies"] = 'default "idle"'
    assert documented(kind) == expected


@pytest.mark.parametrize("slug", KINDS)
def test_the_example_of_a_kind_is_a_profile_line_that_works(slug: str) -> None:
    (example,) = re.findall(r"^Example: do = (.*)$", inspect.getdoc(KINDS[slug]) or "", re.M)
    (kind,) = parse_do(written(example))
    assert isinstance(kind, KINDS[slug])


def changed(kind: Kind | str, answer: Answer, firing: Firing, *values: Any) -> Answer:
    """What a kind makes of an answer."""
    kind = make_kind(kind, *values) if isinstance(kind, str) else kind
    return kind.apply(answer, firing)[0]


def many(count: int) -> list[Any]:
    """A reply of so many chunks of one byte, without the chunk that ends it."""
    return [Chunk(1, Data(offset, b"x")) for offset in range(count)]


def test_shuffle_never_gives_the_correct_order_and_keeps_what_ends_the_reply() -> None:
    correct = [*many(3), Chunk(1, NoneChunk(), flags=1)]
    orders = set()
    for occurrence in range(1, 60):
        firing = Firing(Event("command", 1), "a lie", occurrence)
        shuffled = changed("shuffle", correct, firing)
        assert shuffled[-1] == correct[-1]
        orders.add(tuple(chunk.body.offset for chunk in shuffled[:-1]))
    assert orders == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}


def test_split_at_holes_counts_sectors_from_the_start_of_the_export() -> None:
    data = b"x" * 12 + bytes(512) + bytes(500) + b"y" + bytes(511) + bytes(100)
    chunk = Chunk(1, Data(500, data), flags=1)
    answer = changed(make_kind("split", "holes"), [chunk], Firing(CHUNKS.event))
    assert answer == [SendPieces(chunk, "holes", "0/1//1")]
    assert materialised(answer) == [
        Chunk(1, Data(500, data[:12])),
        Chunk(1, Hole(512, 512)),
        Chunk(1, Data(1024, data[524:1036])),
        Chunk(1, Hole(1536, 600), flags=1),
    ]


def test_split_at_holes_makes_one_hole_of_zeroes_alone_and_leaves_data_whole() -> None:
    firing, split = Firing(CHUNKS.event), make_kind("split", "holes")
    zeroes, data = Chunk(1, Data(0, bytes(1024)), flags=1), Chunk(1, Data(0, b"x" * 1024), flags=1)
    hole: Answer = [Chunk(1, Hole(0, 1024), flags=1)]
    assert split.apply([zeroes], firing) == (hole, "replaced data chunk by hole chunk")
    assert split.apply([data], firing) == ([data], "")


def test_split_at_random_covers_the_same_bytes_in_pieces() -> None:
    data = bytes(range(256)) * 40
    chunk = Chunk(1, Data(0, data), flags=1)
    pieces = materialised(changed(make_kind("split", "random"), [chunk], Firing(CHUNKS.event)))
    assert len(pieces) > 5
    assert b"".join(bytes(piece.body.data) for piece in pieces) == data
    assert [piece.body.offset for piece in pieces][:2] == [0, len(pieces[0].body.data)]
    assert [piece.flags for piece in pieces] == [0] * (len(pieces) - 1) + [1]


def test_split_bounds_the_number_of_pieces() -> None:
    chunk = Chunk(1, Hole(0, 1 << 31), flags=1)
    pieces = materialised(changed(make_kind("split", 1), [chunk], Firing(CHUNKS.event)))
    assert len(pieces) == 65536
    assert pieces[-1].body.size == (1 << 31) - 65535


@pytest.mark.parametrize("position", range(len(CHUNKS.wire) + 1))
@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_every_byte_of_an_answer_is_a_place_to_stop(kind: str, position: int) -> None:
    firing = Firing(CHUNKS.event)
    answer = changed(make_kind(kind, position), CHUNKS.answer, firing)
    assert wire(answer) == CHUNKS.wire[:position]
    from_end = make_kind(kind, position - len(CHUNKS.wire) or len(CHUNKS.wire))
    assert answer == changed(from_end, CHUNKS.answer, firing)
    assert isinstance(answer[-1], {"cut": CloseConnection, "stall": NeverSend}[kind])


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        ("cut", 69, {}),
        ("cut", -69, {}),
        ("cut", 1, {"at": "status"}),
        ("cut", 33, {"at": "last"}),
        ("stall", 69, {}),
        ("corrupt", 69, {}),
        ("corrupt", 0, {"overwrite": "66"}),
        ("corrupt", None, {"at": "status"}),
        ("drop", "status", {}),
        ("repeat", 1, {"at": 7}),
        ("set", {"cookie": COOKIE}, {}),
        ("set", {"text": "x"}, {}),
        ("extents", ["1 data"], {}),
        ("insert", "00", {"before": "status"}),
        ("split", 512, {}),
        ("shuffle", 0, {}),
        ("reverse", "hole", {}),
        ("delay", 0, {}),
    ],
)
def test_what_cannot_be_done_changes_nothing(kind: str, value: Any, named: dict[str, Any]) -> None:
    fault_kind = make_kind(kind, value, **named)
    assert fault_kind.apply(CHUNKS.answer, Firing(CHUNKS.event)) == (CHUNKS.answer, "")


def test_bytes_that_repeat_for_ever_can_be_cut_and_corrupted_in_their_first_round() -> None:
    firing = Firing(GREETING.event)
    endless = changed("repeat", GREETING.answer, firing, "forever")
    cut = changed("cut", endless, firing, 20)
    assert cut == [Greeting(), Raw(GREETING.wire[:2]), CloseConnection()]
    corrupted = changed("corrupt", endless, firing, 18)
    wrong = b"\xb1" + GREETING.wire[1:]
    assert corrupted == [Greeting(), Raw(wrong), RepeatMessages((Greeting(),), None)]


def test_paced_bytes_stay_paced_on_both_sides_of_a_cut() -> None:
    firing = Firing(SIMPLE.event)
    paced = changed("dribble", SIMPLE.answer, firing, 2)
    assert changed("cut", paced, firing, 5) == [PaceBytes(SIMPLE.wire[:5], 2), CloseConnection()]


def test_writes_of_given_sizes_keep_their_borders_on_both_sides_of_a_cut() -> None:
    paced = PaceBytes(b"0123456789", (4, 3))
    assert list(paced.writes()) == [b"0123", b"456", b"789"]
    borders = {
        0: ([], [b"0123", b"456", b"789"]),
        2: ([b"01"], [b"23", b"456", b"789"]),
        4: ([b"0123"], [b"456", b"789"]),
        8: ([b"0123", b"456", b"7"], [b"89"]),
    }
    for position, (before, after) in borders.items():
        parts = [
            [write for step in steps if isinstance(step, PaceBytes) for write in step.writes()]
            for steps in split_at([paced], position)
        ]
        assert parts == [before, after]


def test_paced_bytes_remember_what_they_are_until_they_are_cut() -> None:
    firing = Firing(CHUNKS.event)
    for kind in (make_kind("dribble", 2), make_kind("dribble", [4]), make_kind("rate", 100)):
        steps = changed(kind, CHUNKS.answer, firing)
        assert [message for step in steps for message in step.messages] == CHUNKS.answer
        cut = changed("cut", steps, firing, 5)
        assert [step.messages for step in cut if isinstance(step, PaceBytes)] == [()]


def test_shutdown_answers_abort_as_ever_and_export_name_by_closing() -> None:
    shutdown = make_kind("shutdown")
    assert changed(shutdown, ABORT.answer, Firing(ABORT.event)) == [BeginShutdown(), *ABORT.answer]
    event = Event("option", 1, option=1)
    assert changed(shutdown, [], Firing(event)) == [BeginShutdown(), CloseConnection()]


def test_facts_are_those_of_the_table_of_kinds() -> None:
    facts = {
        fact: {slug for slug, kind in KINDS.items() if getattr(kind, fact)}
        for fact in ("replaces", "breaks_must", "may_stall")
    }
    assert facts["replaces"] == {"error", "refuse", "reply", "shutdown"}
    assert {slug for slug, kind in KINDS.items() if "effect" in parameters(kind)} == (
        facts["replaces"]
    )
    assert set(KINDS) - facts["breaks_must"] == {
        *("error", "refuse", "shutdown", "delay", "hold", "dribble", "rate"),
    }
    assert facts["may_stall"] == {
        *(
            "reply",
            "set",
            "drop",
            "insert",
            "cut",
            "corrupt",
            "stall",
            "no-greeting",
            "stop-reading",
        ),
        "no-handshake",
    }


@pytest.mark.parametrize(
    ("command", "effect", "change"),
    [
        (Command.WRITE, False, "sent the correct reply without its effect"),
        (Command.TRIM, False, "sent the correct reply without its effect"),
        (Command.WRITE_ZEROES, False, "sent the correct reply without its effect"),
        (Command.WRITE, True, ""),
        (Command.READ, False, ""),
    ],
)
def test_a_reply_that_claims_what_was_not_done_is_a_change(
    command: int, effect: bool, change: str
) -> None:
    event = Event("command", 1, request=Request(command, 9, 0, 512))
    reply = make_kind("reply", [{"message": "simple"}], effect=effect)
    correct: Answer = [SimpleReply(9)]
    assert reply.apply(correct, Firing(event)) == (correct, change)


def test_families_are_those_of_the_table_of_kinds() -> None:
    families: dict[str, list[str]] = {}
    for slug, kind in KINDS.items():
        families.setdefault(kind.family, []).append(slug)
    assert {family: sorted(slugs) for family, slugs in families.items()} == {
        "answer": ["error", "extents", "refuse", "reply"],
        "message": ["drop", "insert", "repeat", "reverse", "set", "shuffle", "split"],
        "bytes": ["corrupt", "cut", "dribble"],
        "time": ["delay", "hold", "rate", "stall"],
        "connection": [
            *("close", "no-greeting", "refuse-connection", "reset", "shutdown"),
            *("stop-listening", "stop-reading"),
        ],
        "tls": [
            *("abort-handshake", "certificate", "keep-state", "no-close-notify", "no-handshake"),
            *("plaintext-after-ack", "tls-version"),
        ],
    }
