"""Any field of any message can be set, whether or not the message computes it."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest

from fakenbd.faults import Event, TableError
from fakenbd.faults.fields import FIELDS, field_of, read_setting, with_field
from fakenbd.faults.message_template import MESSAGE_TEMPLATES, message_template
from fakenbd.faults.selection import SELECTORS, noun, selected, selector
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Raw, Request, ServerMessage

COMPACT = Event("command", 1, request=Request(0, cookie=9, offset=4096, length=512))
EXTENDED = Event("command", 1, request=Request(0, 9, 4096, 512), extended=True)
MESSAGES = [build(event) for event in (COMPACT, EXTENDED) for build in MESSAGE_TEMPLATES.values()]


def names(message: ServerMessage) -> list[str]:
    owners = [message, getattr(message, "body", None)]
    return [
        field.name
        for owner in owners
        if owner is not None
        for field in attrs.fields(type(owner))
        if field.name != "body"
    ]


FIELDS_OF_MESSAGES = [
    pytest.param(message, name, id=f"{index} {noun(message)} {name}")
    for index, message in enumerate(MESSAGES)
    for name in names(message)
]
VALUES: dict[str, Any] = {
    **dict.fromkeys(("name", "description", "text", "message"), "grün"),
    **dict.fromkeys(("data", "rest", "reserved"), "de ad"),
    "extents": ["7 hole", "9 data"],
}


@pytest.mark.parametrize(("message", "name"), FIELDS_OF_MESSAGES)
def test_every_field_of_every_message_can_be_set(message: ServerMessage, name: str) -> None:
    assert name in FIELDS
    changed = with_field(message, name, read_setting(name, VALUES.get(name, 0x77)))
    assert type(changed) is type(message)
    assert encode(changed) != encode(message)


@pytest.mark.parametrize(("message", "name"), FIELDS_OF_MESSAGES)
def test_a_number_can_be_changed_from_the_correct_one(message: ServerMessage, name: str) -> None:
    correct = field_of(message, name)
    if not isinstance(correct, int):
        assert name in VALUES or correct is None
        return
    for words, change in (("+1", 1), ("-2", -2), ("+4KiB", 4096)):
        changed = with_field(message, name, read_setting(name, words))
        assert field_of(changed, name) == correct + change
    there = with_field(message, name, read_setting(name, "swapped"))
    back = with_field(there, name, read_setting(name, "swapped"))
    assert encode(back) == encode(message), "swapped twice is correct again"
    assert sorted(encode(there)) == sorted(encode(message)), "swapped within the field's width"


@pytest.mark.parametrize("message", MESSAGES, ids=noun)
def test_setting_a_field_to_its_correct_value_changes_nothing(message: ServerMessage) -> None:
    for name in names(message):
        correct = field_of(message, name)
        if isinstance(correct, int):
            assert with_field(message, name, read_setting(name, correct)) is message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flags", ["done", 0x8000], 0x8001),
        ("flags", "fixed-newstyle", 1),
        ("flags", ["has-flags", "df"], 0x81),
        ("type", "error-offset", 0x8002),
        ("type", "NBD_REP_ERR_POLICY", 0x80000002),
        ("error", "NBD_ENOSPC", 28),
        ("option", "go", 7),
        ("info", "block-size", 3),
        ("size", "64KiB", 65536),
        ("size", (1 << 64) - 1, (1 << 64) - 1),
        ("length", -1, -1),
    ],
)
def test_numbers_are_words_sizes_or_integers(name: str, value: Any, expected: int) -> None:
    setting = read_setting(name, value)
    assert getattr(setting, "value", None) == expected


@pytest.mark.parametrize(
    ("value", "correct", "expected"),
    [
        ("00 fF", b"honest", b"\x00\xff"),
        (b"raw", b"honest", b"raw"),
        ({"text": "é"}, b"honest", b"\xc3\xa9"),
        ({"text": "ab", "times": 2}, b"honest", b"abab"),
        ({"hex": "ff"}, b"honest", b"\xff"),
        ({"zeros": "2"}, b"honest", b"\0\0"),
        ({"resize": "-2"}, b"honest", b"hone"),
        ({"resize": "+2"}, b"honest", b"honest\0\0"),
        ({"resize": 3}, b"honest", b"hon"),
        ({"resize": "-9"}, b"honest", b""),
    ],
)
def test_bytes_are_hexadecimal_or_a_table(value: Any, correct: bytes, expected: bytes) -> None:
    assert read_setting("data", value).over(correct) == expected  # type: ignore[union-attr, call-arg, arg-type]


def test_texts_may_hold_bytes_that_are_no_text() -> None:
    message = MESSAGE_TEMPLATES["refusal"](COMPACT)
    changed = with_field(message, "text", read_setting("text", {"hex": "ff00"}))
    assert encode(changed)[20:] == b"\xff\0"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"resize": -1}, 'expected a length, or a change of it such as "-1", got -1'),
        ({"resize": "x"}, 'expected a size such as 512 or "64KiB", got "x"'),
        ({"zeros": 1, "hex": ""}, "expected exactly one of the keys hex, text, zeros, resize"),
    ],
)
def test_mistakes_in_bytes(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        read_setting("data", value)


# --- literals and selection --------------------------------------------------------------------


@pytest.mark.parametrize("word", MESSAGE_TEMPLATES)
def test_a_literal_is_selected_by_its_own_word(word: str) -> None:
    built = message_template({"message": word})
    message = built.build(COMPACT)  # type: ignore[union-attr]
    at = word.removeprefix("oldstyle-")
    assert at in SELECTORS
    assert selected([message, Raw(b"")], at) == [0]


def test_literals_take_what_is_correct_from_the_event() -> None:
    assert encode(MESSAGE_TEMPLATES["hole"](EXTENDED)) == bytes.fromhex(
        "6e8a278c 0000 0002 0000000000000009 0000000000001000 000000000000000c"
        "0000000000001000 00000200"
    )
    assert encode(MESSAGE_TEMPLATES["ack"](Event("option", 1, option=3))) == bytes.fromhex(
        "0003e889045565a9 00000003 00000001 00000000"
    )


def test_a_message_from_python_is_a_literal_too() -> None:
    assert message_template(Raw(b"x")) == Raw(b"x")
    assert message_template(b"x") == Raw(b"x")


def test_a_literal_with_mistakes_lists_them() -> None:
    with pytest.raises(TableError) as caught:
        message_template({"message": "hole", "size": "big", "data": "00"})
    assert caught.value.mistakes == (
        'size: expected a number, a change such as "+1" or "swapped", got "big"',
        'data: a message "hole" has no such field',
    )


@pytest.mark.parametrize("value", ["middle", 1.5, True, None])
def test_other_selectors_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        selector(value)
