"""Faults from tables and from Python: what they become, and every mistake as a sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fakenbd.faults import (
    Fault,
    Faults,
    TableError,
    When,
    make_kind,
    parse_do,
    parse_fault,
)


def test_a_table_becomes_a_fault() -> None:
    table = {
        "name": "second read fails",
        "when": {"command": "read", "nth": 2},
        "do": [{"delay": 1}, {"error": "EIO", "message": "bad sector"}, "reset"],
        "also": True,
        "armed": False,
    }
    assert parse_fault(table) == Fault(
        "second read fails",
        When(command="read", nth=2),
        (make_kind("delay", 1), make_kind("error", 5, message="bad sector"), make_kind("reset")),
        also=True,
        armed=False,
    )


DO_MISTAKES: list[tuple[Any, list[str]]] = [
    ({"cutt": 3}, ['do: unknown kind "cutt"; did you mean "cut"?']),
    (7, ["do: expected a table with a kind, got 7"]),
    ([], ["do: expected at least one kind, got an empty list"]),
    (
        {"cut": 1, "delay": 2},
        ["do: expected one kind a table, got cut and delay; write a list of tables"],
    ),
    (
        [{"cut": "3"}, {"cut": 3, "then": "explode", "aat": 1}],
        [
            'do[0].cut: expected a whole number, got "3"',
            'do[1].then: expected one of "close", "reset", "half-close", "truncate", "stall", '
            'got "explode"',
            'do[1].cut: unknown parameter "aat"; did you mean "at"?',
        ],
    ),
    (
        {"drop": "middle"},
        [
            "do.drop: expected an index or one of first, last, each, data, hole, none, status, "
            "simple, ack, server, info-export, info-name, info-description, info-block-size, "
            "info, meta-context, refusal, error, greeting, export-name, chunk, option-reply, "
            'raw, got "middle"'
        ],
    ),
    ({"error": True}, ["do.error: expected a value, its error"]),
    ({"error": "EI"}, ['do.error: unknown name "EI"; did you mean "eio"?']),
    ({"error": 1 << 32}, ["do.error: expected a number of at most 32 bits, got 4294967296"]),
    (
        {"error": "EIO", "message": 3, "offset": "x"},
        [
            "do.message: expected a text, got 3",
            'do.offset: expected a size such as 512 or "64KiB", got "x"',
        ],
    ),
    (
        {"refuse": "nope"},
        [
            'do.refuse: unknown name "nope"; known are ack, server, info, meta-context, '
            "err-unsup, err-policy, err-invalid, err-platform, err-tls-reqd, err-unknown, "
            "err-shutdown, err-block-size-reqd, err-too-big, err-ext-header-reqd"
        ],
    ),
    (
        {"set": {"sise": 1, "flags": "don", "size": True, "data": "xyz", "extents": "1 data"}},
        [
            'do.set.sise: unknown field "sise"; did you mean "size"?',
            'do.set.flags: unknown name "don"; did you mean "done"?',
            'do.set.size: expected a number, a change such as "+1" or "swapped", got true',
            'do.set.data: expected bytes as hexadecimal "00 ff", got "xyz"',
            'do.set.extents: expected a list of extents such as "1000 data", got "1 data"',
        ],
    ),
    ({"set": {}}, ["do.set: expected a table of fields to set, got a table"]),
    (
        {"set": {"data": {"hex": "00", "text": "x"}}},
        ["do.set.data: expected exactly one of the keys hex, text, zeros, resize"],
    ),
    (
        {"set": {"data": {"zeros": "1GiB"}}},
        ["do.set.data: expected at most 256 MiB, got 1073741824 bytes"],
    ),
    (
        {"set": {"data": {"text": "x", "time": 3}}},
        ['do.set.data: unknown key "time"; did you mean "times"?'],
    ),
    (
        {"reply": [{"message": "dat"}]},
        ['do.reply.message: unknown message "dat"; did you mean "data"?'],
    ),
    (
        {"reply": [{"message": "data", "text": "x", "offset": "far"}]},
        [
            'do.reply.text: a message "data" has no such field',
            'do.reply.offset: expected a number, a change such as "+1" or "swapped", got "far"',
        ],
    ),
    ({"reply": "00"}, ['do.reply: expected a list of messages, got "00"']),
    (
        {"extents": ["1000"]},
        ['do.extents: expected an extent such as "1000 data" or "24 hole,zero", got \'1000\''],
    ),
    ({"extents": [[1, 2, 3]]}, ['do.extents: expected an extent such as "1000 data", got a list']),
    ({"split": 0}, ['do.split: expected a size from 1, "holes" or "random", got 0']),
    ({"repeat": "twice"}, ['do.repeat: expected a whole number from 1 or "forever", got "twice"']),
    ({"hold": "long"}, ['do.hold: expected a whole number from 1 or "idle", got "long"']),
    (
        {"insert": "00", "before": 0, "after": 0},
        ["do.insert: expected only one of before and after"],
    ),
    ({"corrupt": 0, "xor": ""}, ["do.xor: expected at least one byte"]),
    ({"dribble": []}, ["do.dribble: expected at least one size"]),
    ({"delay": -1}, ["do.delay: expected a number of seconds from 0, got -1"]),
    ({"delay": "1"}, ['do.delay: expected a number of seconds from 0, got "1"']),
    ({"delay": float("inf")}, ["do.delay: expected a number of seconds from 0, got inf"]),
    ({"rate": 0}, ["do.rate: expected at least 1 byte a second, got 0"]),
    ({"reset": 3}, ["do.reset: expected true, got 3"]),
    ({"close": True, "after": "false"}, ['do.after: expected true or false, got "false"']),
    ("stop-listening", ["do.stop-listening: expected either attempts or seconds"]),
    (
        {"certificate": "old"},
        [
            'do.certificate: expected one of "expired", "wrong-host", "untrusted", '
            '"self-signed", got "old"'
        ],
    ),
]


@pytest.mark.parametrize(("do", "mistakes"), DO_MISTAKES)
def test_mistakes_of_do_are_listed_with_their_key_path(do: Any, mistakes: list[str]) -> None:
    with pytest.raises(TableError) as caught:
        parse_do(do)
    assert list(caught.value.mistakes) == mistakes
    assert str(caught.value) == "\n".join(mistakes)


@pytest.mark.parametrize(
    ("table", "mistakes"),
    [
        (
            {"nam": 1, "when": {"nth": 0}, "do": {"error": "EOI"}, "also": "yes", "armed": 1},
            [
                'fault[1]: unknown key "nam"; did you mean "name"?',
                "fault[1].when.nth: expected a whole number from 1, got 0",
                'fault[1].do.error: unknown name "EOI"; did you mean "eio"?',
                'fault[1].also: expected true or false, got "yes"',
                "fault[1].armed: expected true or false, got 1",
            ],
        ),
        (
            {"name": 3},
            [
                "fault[1].name: expected a text, got 3",
                "fault[1]: expected a key do, which says what the fault does",
            ],
        ),
        (
            {"when": {"option": "go"}, "do": {"error": "EIO"}},
            ["fault[1]: error changes replies to commands, not to options"],
        ),
        (
            {"do": [{"no-greeting": True}, {"error": "EIO"}]},
            ["fault[1]: no-greeting and error have no kind of event in common"],
        ),
        ("x", ['fault[1]: expected a table, got "x"']),
    ],
)
def test_mistakes_of_a_fault_are_listed_together(table: Any, mistakes: list[str]) -> None:
    with pytest.raises(TableError) as caught:
        parse_fault(table, "fault[1]")
    assert list(caught.value.mistakes) == mistakes


def test_python_builds_the_same_faults() -> None:
    faults = Faults()
    assert faults.on("read", nth=2).error("EIO") == Fault(
        "error on read", When(command="read", nth=2), (make_kind("error", 5),)
    )
    assert faults.on(option="go", name="shrunk").set(at="info-export", size=0) == Fault(
        "shrunk",
        When(option="go"),
        parse_do({"set": {"size": 0}, "at": "info-export"}),
    )
    assert faults.on("connect").refuse_connection().name == "refuse-connection on connect"
    assert faults.on("greeting", also=True).no_greeting().also
    assert faults.on(77).do(make_kind("delay", 1), make_kind("drop")).words == "delay and drop"
    assert [fault.name for fault in faults] == [
        "error on read",
        "shrunk",
        "refuse-connection on connect",
        "no-greeting on greeting",
        "delay and drop on 77",
    ]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda on: on("reed").error("EIO"),
            'when.command: unknown name "reed"; did you mean "read"?',
        ),
        (lambda on: on("read", nths=2), 'when: unknown condition "nths"; did you mean "nth"?'),
        (lambda on: on("read", command="write"), "when.command: expected once, got it twice"),
        (lambda on: on("read").error("EIO", 5), "error: takes one value without a name, got 2"),
        (lambda on: on("read").reset(5), "reset: takes no value without a name, got 1"),
        (lambda on: on("read").error(), "error: expected a value, its error"),
        (
            lambda on: on("read").error("EIO", offst=1),
            'error: unknown parameter "offst"; did you mean "offset"?',
        ),
        (lambda on: on("read").do(), "expected at least one kind"),
        (lambda on: on("read").do("error"), 'expected a kind or a function, got "error"'),
        (
            lambda on: on(option="go").error("EIO"),
            "error changes replies to commands, not to options",
        ),
    ],
)
def test_python_mistakes_are_value_errors(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        call(Faults().on)


def test_an_unknown_method_names_the_nearest_kind() -> None:
    with pytest.raises(AttributeError) as caught:
        Faults().on("read").refuse_conection()
    expected = 'unknown kind "refuse_conection"; did you mean "refuse_connection"?'
    assert str(caught.value) == expected
    assert "refuse_connection" in dir(Faults().on("read"))
