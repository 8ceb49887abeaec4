"""Adapters are data: read strictly, filled in faithfully, and clear about what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakenbd.check.adapters import (
    BUNDLED,
    CHECKS,
    Adapter,
    OperationCommand,
    bundled,
    one_command,
)
from fakenbd.errors import ProfileError
from fakenbd.profile.profile import OPERATIONS


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_clients_can_be_read(name: str) -> None:
    adapter = bundled(name)
    assert adapter.name == name
    assert adapter.summary
    assert adapter.built_in == (name == "reference")
    assert set(adapter.operations) <= set(OPERATIONS)


def test_there_is_a_file_for_each_bundled_client_and_no_other() -> None:
    folder = Path(bundled.__code__.co_filename).parent / "clients"
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_results_that_are_compared_have_what_is_compared(name: str) -> None:
    for operation_command in bundled(name).operations.values():
        words = " ".join(operation_command.command)
        assert ("{output}" in words) == (operation_command.check == "file")
        assert ("{input}" in words) == (operation_command.check == "input")
        assert operation_command.check in CHECKS


def refused(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        bundled(str(path))
    assert caught.value.source == str(path)
    return list(caught.value.mistakes)


def test_a_client_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'transport = "tcp"\n[operations.read]\ncommand = ["mine", "{uri}", "{output}"]\n'
        'check = "file"\n[operations.map]\ncannot = "it has no maps"\n',
        encoding="utf-8",
    )
    adapter = bundled(str(path))
    assert (adapter.name, adapter.transport) == ("mine", "tcp")
    assert adapter.command_for("read") == OperationCommand(("mine", "{uri}", "{output}"), "file")
    assert adapter.command_for("copy") == adapter.command_for("read")
    assert adapter.command_for("map").missing() == "it has no maps"
    assert adapter.command_for("trim").missing() == "mine has no command for it"
    assert adapter.command_for("read").missing() == "mine is not installed"


def test_files_beside_the_description_are_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "client.py").touch()
    path = tmp_path / "mine.toml"
    path.write_text(
        '[operations.read]\ncommand = ["python3", "./client.py", "{uri}", "{output}", "a/b"]\n'
        'probe = ["./client.py", "client.py"]\n',
        encoding="utf-8",
    )
    operation_command = bundled(str(path)).command_for("read")
    script = str(tmp_path / "client.py")
    assert operation_command.command == ("python3", script, "{uri}", "{output}", "a/b")
    assert operation_command.probe == (script, "client.py")


def test_every_mistake_is_reported(tmp_path: Path) -> None:
    text = """
transport = "vsock"
sumary = "x"
[operations.read]
command = ["a", "{urk}"]
check = "eyes"
[operations.fly]
command = ["a"]
[operations.map]
command = []
[operations.trim]
check = "trim"
[operations.zero]
command = "dd"
cannot = 7
"""
    assert refused(tmp_path, text) == [
        'transport: expected one of "unix", "tcp", got "vsock"',
        'unknown key "sumary"; did you mean "summary"?',
        'operations.read.command: unknown placeholder "urk"; did you mean "uri"?',
        "operations.read.check: expected one of "
        + ", ".join(f'"{check}"' for check in CHECKS)
        + ', got "eyes"',
        f'operations: unknown key "fly"; known are {", ".join(OPERATIONS)}',
        "operations.map.command: expected a program and its arguments, got an empty list",
        "operations.trim: expected either a command, or what it cannot do",
        'operations.zero.command: expected a list, got "dd"',
        "operations.zero.cannot: expected a text, got 7",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "operations: expected at least one operation, got none"),
        ("built-in = false", "built-in: expected true, or nothing"),
    ],
)
def test_an_adapter_has_something_to_do(tmp_path: Path, text: str, mistake: str) -> None:
    assert refused(tmp_path, text) == [mistake]


def test_what_is_no_toml_is_reported_so(tmp_path: Path) -> None:
    (mistake,) = refused(tmp_path, "= 1")
    assert mistake.startswith("is no TOML: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "libnb",
            '--client: unknown client "libnb"; did you mean "libnbd"? A client of your own is a '
            ".toml file",
        ),
        ("nowhere/mine.toml", "nowhere/mine.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_client_that_is_not_there(name: str, text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        bundled(name)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("argv", "operation", "check"),
    [
        (["./mine", "{uri}", "{output}"], "read", "file"),
        (["./mine", "{input}", "{uri}"], "write", "input"),
    ],
)
def test_one_command_shows_by_its_words_what_it_does(
    argv: list[str], operation: str, check: str
) -> None:
    adapter = one_command(argv)
    assert adapter == Adapter(
        "mine",
        transport="tcp",
        operations={operation: OperationCommand(tuple(argv), check)},  # type: ignore[arg-type]
    )


def test_one_command_without_a_result_is_run_in_every_case() -> None:
    adapter = one_command(["mine", "{uri}"])
    assert set(adapter.operations) == set(OPERATIONS)
    assert {operation_command.check for operation_command in adapter.operations.values()} == {
        "status"
    }


def test_one_command_with_a_placeholder_that_nobody_knows() -> None:
    with pytest.raises(ProfileError) as caught:
        one_command(["mine", "{ouput}"])
    assert str(caught.value) == ('the command: unknown placeholder "ouput"; did you mean "output"?')


def test_a_program_that_does_not_run_here_is_reported_in_its_own_words() -> None:
    operation_command = OperationCommand(
        ("sh", "x"), probe=("sh", "-c", "echo first >&2; echo no such module >&2; exit 1")
    )
    assert operation_command.missing() == "sh does not run here: no such module"
    assert OperationCommand(("sh", "x"), probe=("sh", "-c", "exit 0")).missing() == ""
    assert OperationCommand(("sh", "x"), probe=("sh", "-c", "exit 1")).missing() == (
        "sh does not run here: it fails"
    )


def test_it_is_the_program_that_is_missing_and_not_the_one_that_sets_its_environment() -> None:
    assert OperationCommand(("env", "A=b", "mine", "{uri}")).missing() == "mine is not installed"
    assert OperationCommand(("env", "A=b", "sh", "{uri}")).missing() == ""
    failing = ("env", "A=b", "sh", "-c", "exit 1")
    assert (
        OperationCommand(("env", "sh"), probe=failing).missing() == "sh does not run here: it fails"
    )
