"""Faults that never fired: the closest event and the condition it did not meet, in full."""

from __future__ import annotations

from typing import Any

import pytest

from fakenbd.faults import Event, Faults
from fakenbd.protocol.messages import Greeting, Request, SimpleReply
from tests.faults.firing import fire


def command(number: int, connection: int = 1, **fields: int) -> Event:
    return Event("command", connection, request=Request(number, **fields))


READ, WRITE = command(0, length=512), command(1, length=512)
GREETING, GO = Event("greeting", 1), Event("option", 1, option=7)
CONNECT = Event("connect", 1)


def add(faults: Faults, name: str, event: str | None, **conditions: Any) -> None:
    faults.on(event, name=name, **conditions).delay(1)


@pytest.mark.parametrize(
    ("event", "conditions", "seen", "report"),
    [
        (
            "read",
            {"nth": 2},
            [CONNECT, GREETING, GO, READ],
            "the closest was NBD_CMD_READ number 1 on connection 1 (wanted nth = 2)",
        ),
        (
            "read",
            {"nth": 9},
            [READ, READ, WRITE, READ],
            "the closest was NBD_CMD_READ number 3 on connection 1 (wanted nth = 9)",
        ),
        (
            "read",
            {"after": 2},
            [READ],
            "the closest was NBD_CMD_READ number 1 on connection 1 (wanted after = 2)",
        ),
        (
            "trim",
            {},
            [READ, WRITE],
            'the closest was NBD_CMD_READ number 1 on connection 1 (wanted command = "trim")',
        ),
        (
            "read",
            {"offset": 4096, "length": 512},
            [WRITE, command(0, length=1), READ, READ],
            "the closest was NBD_CMD_READ number 2 on connection 1 (wanted offset = 4096)",
        ),
        (
            "read",
            {"connection": 2},
            [READ],
            "the closest was NBD_CMD_READ number 1 on connection 1 (wanted connection = 2)",
        ),
        (
            None,
            {"option": "info"},
            [CONNECT, GREETING, GO, READ],
            'the closest was NBD_OPT_GO number 1 on connection 1 (wanted option = "info")',
        ),
        (
            "greeting",
            {"connection": 2},
            [CONNECT, GREETING],
            "the closest was the greeting of connection 1 (wanted connection = 2)",
        ),
        (
            "read",
            {"chance": 0},
            [READ, READ],
            "the closest was NBD_CMD_READ number 2 on connection 1 (wanted chance = 0)",
        ),
        ("read", {}, [CONNECT, GREETING, GO], "there was no event that it could fire at"),
        ("read", {}, [], "there was no event that it could fire at"),
    ],
)
def test_the_closest_event_and_what_it_lacked(
    event: str | None, conditions: dict[str, Any], seen: list[Event], report: str
) -> None:
    faults = Faults()
    add(faults, "the fault", event, **conditions)
    for each in seen:
        fire(faults, each, [SimpleReply(0)])
    assert faults.unfired(seen) == [f"fault 'the fault' never fired: {report}"]


def test_faults_that_fired_are_not_reported() -> None:
    faults = Faults()
    add(faults, "fired", "read")
    add(faults, "not fired", "write")
    fire(faults, READ, [SimpleReply(0)])
    assert faults.unfired([READ]) == [
        "fault 'not fired' never fired: the closest was NBD_CMD_READ number 1 on connection 1 "
        '(wanted command = "write")'
    ]


def test_a_fault_that_another_one_forestalled_says_so() -> None:
    faults = Faults()
    add(faults, "first", "read")
    add(faults, "second", "read")
    for event in (READ, READ):
        fire(faults, event, [SimpleReply(0)])
    assert faults.unfired([READ, READ]) == [
        "fault 'second' never fired: at NBD_CMD_READ number 1 on connection 1 "
        "fault 'first' came first"
    ]


def test_a_fault_that_found_nothing_to_change_says_so() -> None:
    faults = Faults()
    faults.on("greeting", name="no chunk here").drop("data")
    fire(faults, GREETING, [Greeting()])
    assert faults.unfired([CONNECT, GREETING]) == [
        "fault 'no chunk here' never fired: at the greeting of connection 1 "
        "it left the answer as it was"
    ]


def test_a_fault_added_too_late_says_so() -> None:
    faults = Faults()
    add(faults, "late", "read")
    assert faults.unfired([READ]) == [
        "fault 'late' never fired: the closest was NBD_CMD_READ number 1 on connection 1 "
        "(the fault came later, or failed)"
    ]


def test_occurrences_count_for_each_connection_where_the_fault_does() -> None:
    faults = Faults()
    add(faults, "per connection", "read", per="connection", nth=2)
    events = [READ, command(0, connection=2, length=512)]
    for event in events:
        fire(faults, event, [SimpleReply(0)])
    assert faults.unfired(events) == [
        "fault 'per connection' never fired: the closest was "
        "NBD_CMD_READ number 1 on connection 2 (wanted nth = 2)"
    ]
