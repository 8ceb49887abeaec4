"""Faults written back as TOML data: what is read from it again is the same fault."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from fakenbd.faults import (
    KINDS,
    Fault,
    TableError,
    When,
    make_kind,
    parse_do,
    parse_fault,
    parse_when,
)
from fakenbd.faults.registry import parameters
from fakenbd.profile import find, library
from fakenbd.protocol.messages import Ack, OptionReply
from tests.faults.cases import CASES

FOLDERS = sorted({name.partition("/")[0] for name in library()})


def assert_is_data(value: Any) -> None:
    """Only what a TOML file can hold."""
    if type(value) is dict:
        assert all(type(key) is str for key in value)
        for item in value.values():
            assert_is_data(item)
    elif type(value) is list:
        for item in value:
            assert_is_data(item)
    else:
        assert type(value) in (str, int, bool, float), value


@pytest.mark.parametrize("do", sorted({case.do for case in CASES}))
def test_a_kind_is_read_back_as_it_was(do: str) -> None:
    (kind,) = parse_do(tomllib.loads(f"do = {do}")["do"])
    table = kind.to_table()
    assert_is_data(table)
    assert parse_do(table) == (kind,)


def test_every_parameter_of_every_kind_is_read_back() -> None:
    written = {slug: set[str]() for slug in KINDS}
    for case in CASES:
        (kind,) = parse_do(tomllib.loads(f"do = {case.do}")["do"])
        table = kind.to_table()
        written[kind.slug] |= {
            name
            for name in parameters(type(kind))
            if name.replace("_", "-") in table
            or (name == kind.main and table[kind.slug] is not True)
        }
    left_out = {slug: set(parameters(kind)) - written[slug] for slug, kind in KINDS.items()}
    # Their examples are the defaults, which are not written.
    assert {slug: names for slug, names in left_out.items() if names} == {
        "reverse": {"at"},
        "shuffle": {"at", "travels"},
    }


CONDITIONS = [
    {"connect": True},
    {"greeting": False, "connect": False},
    {"option": "go"},
    {"option": "any"},
    {"option": ["go", 77]},
    {"command": "read"},
    {"command": ["write", 99]},
    {"connection": [2, 1]},
    {"command": "any", "offset": "1MiB..2MiB"},
    {"offset": 4096, "length": "..64KiB"},
    {"length": "1.."},
    {"command": "write", "flags": "fua"},
    {"command": "read", "without": ["df", 256]},
    {"tls": True, "structured": False, "extended": True},
    {"nth": 2, "per": "connection"},
    {"after": 1, "every": 3, "times": 2},
    {"chance": 0.25},
    {},
]


@pytest.mark.parametrize("conditions", CONDITIONS, ids=str)
def test_conditions_are_read_back_as_they_were(conditions: dict[str, Any]) -> None:
    when = parse_when(conditions)
    table = when.to_table()
    assert_is_data(table)
    assert parse_when(table) == when
    assert set(table) == set(conditions)


def test_there_is_an_example_of_every_condition() -> None:
    names = {name for conditions in CONDITIONS for name in conditions}
    assert names == set(parameters(When)) - {"_checks"}  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_faults_of_the_library_are_read_back_as_they_were(folder: str) -> None:
    names = [name for name in library() if name.startswith(f"{folder}/")]
    for profile, fault in [(name, fault) for name in names for fault in find(name).faults]:
        table = fault.to_table()
        assert_is_data(table)
        assert parse_fault(table) == fault, f"{profile}: {fault.name}"


def test_also_and_armed_are_written_where_they_are_not_the_default() -> None:
    fault = Fault("", When(), make_kind("drop"), also=True, armed=False)
    assert fault.to_table() == {"do": [{"drop": True}], "also": True, "armed": False}
    assert parse_fault(fault.to_table()) == fault


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda answer, firing: answer, "the function <lambda> cannot be written as a table"),
        (
            make_kind("reply", [OptionReply(7, Ack())]),
            "expected something that a table can hold, got a value of type OptionReply",
        ),
    ],
)
def test_what_only_python_can_make_is_refused(change: Any, words: str) -> None:
    with pytest.raises(TableError) as caught:
        Fault("", When(), change).to_table()
    assert str(caught.value) == words
