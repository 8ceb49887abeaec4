"""When a fault fires: each condition, what it says when it does not hold, and its mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from fakenbd.faults import Event, TableError, When, parse_when
from fakenbd.protocol.messages import Request


def command(
    number: int = 0, offset: int = 0, length: int = 512, flags: int = 0, **facts: Any
) -> Event:
    request = Request(number, offset=offset, length=length, flags=flags)
    return Event("command", facts.pop("connection", 1), request=request, **facts)


CONNECT, GREETING = Event("connect", 1), Event("greeting", 1)
GO, INFO = Event("option", 1, option=7), Event("option", 1, option=6)
READ, WRITE = command(0), command(1)

# Conditions, an event that meets them, one that does not, and what it lacks.
CONDITIONS: list[tuple[dict[str, Any], Event, Event, str]] = [
    ({"connect": True}, CONNECT, GREETING, "wanted connect = true"),
    ({"connect": False}, READ, CONNECT, "wanted connect = false"),
    ({"greeting": True}, GREETING, CONNECT, "wanted greeting = true"),
    ({"option": "go"}, GO, INFO, 'wanted option = "go"'),
    ({"option": "NBD_OPT_GO"}, GO, READ, 'wanted option = "go"'),
    ({"option": 77}, Event("option", 1, option=77), GO, "wanted option = 77"),
    ({"option": ["go", 6]}, INFO, READ, 'wanted option = ["info", "go"]'),
    ({"option": "any"}, INFO, READ, 'wanted option = "any"'),
    ({"command": "write"}, WRITE, READ, 'wanted command = "write"'),
    ({"command": 0}, READ, GO, 'wanted command = "read"'),
    ({"command": "any"}, command(99), GO, 'wanted command = "any"'),
    ({"connection": 2}, command(connection=2), READ, "wanted connection = 2"),
    ({"connection": [1, 3]}, READ, command(connection=2), "wanted connection = [1, 3]"),
    ({"offset": 4096}, command(offset=4096), command(offset=4095), "wanted offset = 4096"),
    ({"offset": "4KiB"}, command(offset=4096), command(offset=0), "wanted offset = 4096"),
    (
        {"offset": "1KiB..2KiB"},
        command(offset=513),
        command(offset=512),
        'wanted offset = "1024..2048"',
    ),
    (
        {"offset": "1024..2048"},
        command(offset=2047),
        command(offset=2048),
        'wanted offset = "1024..2048"',
    ),
    ({"offset": "1024.."}, command(offset=1 << 60), command(), 'wanted offset = "1024.."'),
    ({"offset": "..1"}, command(), command(offset=1), 'wanted offset = "0..1"'),
    (
        {"offset": "5..6"},
        command(offset=5, length=0),
        command(offset=6, length=0),
        'wanted offset = "5..6"',
    ),
    ({"offset": 0}, READ, GO, "wanted offset = 0"),
    ({"length": 512}, READ, command(length=511), "wanted length = 512"),
    ({"length": "1..512"}, READ, command(length=513), 'wanted length = "1..512"'),
    ({"length": "513.."}, command(length=513), READ, 'wanted length = "513.."'),
    ({"length": 0}, command(length=0), GO, "wanted length = 0"),
    ({"flags": "df"}, command(flags=5), command(flags=1), "wanted flags = NBD_CMD_FLAG_DF"),
    (
        {"flags": ["fua", "df"]},
        command(flags=7),
        command(flags=4),
        "wanted flags = NBD_CMD_FLAG_FUA|NBD_CMD_FLAG_DF",
    ),
    ({"without": "df"}, command(flags=1), command(flags=5), "wanted without = NBD_CMD_FLAG_DF"),
    ({"without": "df"}, READ, GO, "wanted without = NBD_CMD_FLAG_DF"),
    (
        {"without": ["fua", "df"]},
        command(flags=8),
        command(flags=1),
        "wanted without = NBD_CMD_FLAG_FUA|NBD_CMD_FLAG_DF",
    ),
    ({"tls": True}, command(tls=True), READ, "wanted tls = true"),
    ({"tls": False}, READ, command(tls=True), "wanted tls = false"),
    ({"structured": True}, command(structured=True), READ, "wanted structured = true"),
    ({"structured": True}, command(extended=True), READ, "wanted structured = true"),
    (
        {"extended": True},
        command(extended=True),
        command(structured=True),
        "wanted extended = true",
    ),
    ({"extended": False}, READ, command(extended=True), "wanted extended = false"),
    ({"structured": False}, READ, command(extended=True), "wanted structured = false"),
]


@pytest.mark.parametrize(("table", "meets", "lacks", "words"), CONDITIONS)
def test_a_condition_holds_or_says_what_it_wanted(
    table: dict[str, Any], meets: Event, lacks: Event, words: str
) -> None:
    when = parse_when(table)
    assert when.differs(meets) is None
    assert when.matches(meets)
    assert when.unmet(meets) == 0
    assert when.differs(lacks) == words
    assert not when.matches(lacks)
    assert when.unmet(lacks) > 0


@pytest.mark.parametrize(
    ("table", "due", "reason"),
    [
        ({}, [1, 2, 3, 4, 5, 6], ""),
        ({"nth": 2}, [2], "wanted nth = 2"),
        ({"after": 4}, [5, 6], "wanted after = 4"),
        ({"every": 3}, [3, 6], "wanted every = 3"),
        ({"after": 1, "every": 2}, [3, 5], "wanted after = 1"),
        ({"times": 2}, [1, 2], "wanted times = 2"),
        ({"after": 1, "every": 2, "times": 1}, [3], "wanted after = 1"),
    ],
)
def test_occurrences_are_counted_from_one(
    table: dict[str, Any], due: list[int], reason: str
) -> None:
    when, fired, reasons = When(**table), [], []
    for seen in range(1, 7):
        words = when.waits(seen, len(fired))
        if words is None:
            fired.append(seen)
        else:
            reasons.append(words)
    assert fired == due
    assert (reasons or [""])[0] == reason
    over = when.exhausted(6, len(fired))
    assert over == ("nth" in table or len(fired) == table.get("times"))


@pytest.mark.parametrize(
    ("table", "mistakes"),
    [
        ({"comand": "read"}, ['when: unknown condition "comand"; did you mean "command"?']),
        (
            {"command": "raed", "nth": "2", "tls": "false"},
            [
                'when.command: unknown name "raed"; did you mean "read"?',
                'when.nth: expected a whole number from 1, got "2"',
                'when.tls: expected true or false, got "false"',
            ],
        ),
        ({"nth": 0}, ["when.nth: expected a whole number from 1, got 0"]),
        ({"nth": True}, ["when.nth: expected a whole number from 1, got true"]),
        ({"times": 1.5}, ["when.times: expected a whole number from 1, got 1.5"]),
        ({"chance": 2}, ["when.chance: expected a number from 0 to 1, got 2"]),
        ({"chance": "0.5"}, ['when.chance: expected a number from 0 to 1, got "0.5"']),
        (
            {"per": "client"},
            ['when.per: expected one of "connection", "server", got "client"'],
        ),
        (
            {"offset": "1MiB..x"},
            ['when.offset: expected a size such as 512 or "64KiB", got "x"'],
        ),
        (
            {"offset": "2..1"},
            ['when.offset: expected a range that ends after its start, got "2..1"'],
        ),
        ({"length": -1}, ['when.length: expected a size such as 512 or "64KiB", got -1']),
        ({"command": []}, ["when.command: expected at least one name or number"]),
        ({"connection": "1"}, ['when.connection: expected a whole number from 1, got "1"']),
        (
            {"flags": "dff"},
            ['when.flags: unknown name "dff"; did you mean "df"?'],
        ),
        (
            {"option": "go", "command": "read"},
            ["when: expected only one of option and command"],
        ),
        (
            {"greeting": True, "without": "df"},
            ["when: expected no without with greeting, it belongs to commands"],
        ),
        (
            {"option": "go", "offset": 1},
            ["when: expected no offset with option, it belongs to commands"],
        ),
        (
            {"nth": 1, "times": 2},
            ["when: expected either nth, which names one event, or times"],
        ),
        ({"nth": None}, ["when.nth: expected a value, got nothing"]),
        ("read", ['when: expected a table of conditions, got "read"']),
    ],
)
def test_mistakes_are_listed_with_their_key_path(table: Any, mistakes: list[str]) -> None:
    with pytest.raises(TableError) as caught:
        parse_when(table)
    assert list(caught.value.mistakes) == mistakes


@pytest.mark.parametrize(
    ("table", "kinds", "target"),
    [
        (
            {},
            {"connect", "greeting", "option", "command"},
            "connect or greeting or option or command",
        ),
        ({"connect": False}, {"greeting", "option", "command"}, "greeting or option or command"),
        ({"connect": True}, {"connect"}, "connect"),
        ({"greeting": True}, {"greeting"}, "greeting"),
        ({"option": ["go", "info"]}, {"option"}, "info or go"),
        ({"command": "any"}, {"command"}, "any command"),
        ({"offset": 0}, {"command"}, "command"),
        ({"without": "df"}, {"command"}, "command"),
    ],
)
def test_conditions_tell_what_they_are_about(
    table: dict[str, Any], kinds: set[str], target: str
) -> None:
    assert When(**table).kinds == kinds
    assert When(**table).target == target
