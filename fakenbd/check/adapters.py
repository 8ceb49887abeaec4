"""Clients as data: for each operation a command, and the check of its result.

    summary   = "qemu-img and qemu-io"
    transport = "unix"                                     # unix | tcp
    [operations.map]
    command = ["qemu-img", "map", "--output=json", "-f", "raw", "{uri}"]
    check   = "qemu-map"                                   # see CHECKS
    [operations.reconnect]
    cannot  = "its block driver has no command for it"

`large` is for exports that are too large to be taken whole: it uses {offset} and {length}. `tls` is
for servers that require TLS: it uses {tls-uri}, {ca} or {ca-dir}. `probe` is a command that must
succeed for the operation to be possible on this machine. A word with a slash may be the path of a
file, from the folder of the description.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from fakenbd.check.placeholders import unknown_placeholders
from fakenbd.check.toml_file import read_toml
from fakenbd.errors import ProfileError
from fakenbd.faults.readers import TableError, text, unknown
from fakenbd.profile.profile import OPERATIONS
from fakenbd.profile.table_reader import Reader, list_of, read_table, word

__all__ = [
    "BUNDLED",
    "CHECKS",
    "Adapter",
    "Check",
    "OperationCommand",
    "bundled",
    "one_command",
]

Check: TypeAlias = Literal["status", "file", "qemu-map", "nbdinfo-map", "input", "zeros", "trim"]

CHECKS: Final[Mapping[Check, str]] = {
    "status": "only the exit status is judged",
    "file": "{output} holds the export's bytes from {offset} on",
    "qemu-map": "the standard output is the map, as qemu-img writes it in JSON",
    "nbdinfo-map": "the standard output is the map, as nbdinfo writes it in JSON",
    "input": "the export holds the bytes of {input} from {offset} on, and nothing else has changed",
    "zeros": "the export reads as zeros for {length} bytes from {offset} on, all else unchanged",
    "trim": "all but {length} bytes from {offset} on is unchanged",
}
BUNDLED: Final = ("reference", "libnbd", "qemu", "nbd-client", "fio")

_CLIENTS: Final = Path(__file__).parent / "clients"
_PROBE_SECONDS: Final = 30
_EITHER_WILL_DO: Final = {"read": "copy", "copy": "read"}


@attrs.frozen
class OperationCommand:
    """The command of a client for one operation, or why it has none."""

    command: tuple[str, ...] = ()
    check: Check = "status"
    large: tuple[str, ...] = ()
    tls: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    cannot: str = ""

    def beside(self, path: Path) -> OperationCommand:
        """The same, with words that name files beside `path` replaced by the paths of these."""
        folder = path.parent
        return attrs.evolve(
            self,
            command=_at_hand(self.command, folder),
            large=_at_hand(self.large, folder),
            tls=_at_hand(self.tls, folder),
            probe=_at_hand(self.probe, folder),
        )

    def missing(self) -> str:
        """Why the operation cannot be performed on this machine; "" if it can."""
        return self.cannot or _missing(self.command) or (_probe(self.probe) if self.probe else "")


@attrs.frozen
class Adapter:
    """A client: its commands by operation; or `built_in`, the reference client, which has none."""

    name: str
    summary: str = ""
    transport: Literal["unix", "tcp"] = "unix"
    built_in: bool = False
    operations: Mapping[str, OperationCommand] = attrs.field(factory=dict)

    def command_for(self, operation: str) -> OperationCommand:
        """The command for an operation."""
        for name in (operation, _EITHER_WILL_DO.get(operation, operation)):
            if name in self.operations:
                return self.operations[name]
        return OperationCommand(cannot=f"{self.name} has no command for it")


# --- where adapters come from ------------------------------------------------------------------


def bundled(name: str) -> Adapter:
    """The bundled client of that name, or the one in the TOML file at that path.

    Raises ProfileError, one sentence for each mistake.
    """
    path = Path(name)
    if name in BUNDLED:
        path = _CLIENTS / f"{name}.toml"
    elif path.suffix != ".toml":
        raise ProfileError("--client", [_unknown_client(name)])
    return _read(path)


def _at_hand(argv: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The words with files of `folder` as absolute paths: a client runs in a scratch folder."""
    return tuple(
        str((folder / word_).absolute()) if "/" in word_ and (folder / word_).is_file() else word_
        for word_ in argv
    )


def _unknown_client(name: str) -> str:
    sentence = unknown("client", name, BUNDLED)
    stop = "" if sentence.endswith("?") else "."
    return f"{sentence}{stop} A client of your own is a .toml file"


def one_command(argv: Sequence[str]) -> Adapter:
    """The client that `fakenbd check -- CMD …` names: one command, for one operation.

    The operation is write if the command has {input}, and read if it has {output}. If it has
    neither, only its exit status and output are judged, in every case.
    """
    mistakes = unknown_placeholders(argv)
    if mistakes:
        raise ProfileError("the command", mistakes)
    words = " ".join(argv)
    name = Path(argv[0]).name
    argv = _at_hand(argv, Path.cwd())
    if "{input}" in words:
        operations = {"write": OperationCommand(tuple(argv), "input")}
    elif "{output}" in words:
        operations = {"read": OperationCommand(tuple(argv), "file")}
    else:
        operations = {operation: OperationCommand(tuple(argv)) for operation in OPERATIONS}
    return Adapter(name, transport="tcp", operations=operations)


def _read(path: Path) -> Adapter:
    adapter = read_toml(path, partial(_adapter, path.stem))
    operations = {
        name: operation_command.beside(path)
        for name, operation_command in adapter.operations.items()
    }
    return attrs.evolve(adapter, operations=operations)


def _adapter(name: str, tables: Mapping[str, Any]) -> Adapter:
    given = read_table(tables, _ADAPTER)
    operations = given.get("operations", {})
    built_in = given.get("built-in", False)
    if not operations and not built_in:
        raise TableError(["operations: expected at least one operation, got none"])
    return Adapter(
        name, given.get("summary", ""), given.get("transport", "unix"), built_in, operations
    )


# --- reading -----------------------------------------------------------------------------------


def _command(value: Any) -> tuple[str, ...]:
    argv = cast(tuple[str, ...], list_of(text)(value))
    if not argv or not argv[0]:
        raise ValueError("expected a program and its arguments, got an empty list")
    mistakes = unknown_placeholders(argv)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return argv


_OPERATION_COMMAND: Final[Mapping[str, Reader]] = {
    "command": _command,
    "check": word(*CHECKS),
    "large": _command,
    "tls": _command,
    "probe": _command,
    "cannot": text,
}


def _read_operation_command(value: Any) -> OperationCommand:
    given = read_table(value, _OPERATION_COMMAND)
    if ("command" in given) == ("cannot" in given):
        raise TableError([": expected either a command, or what it cannot do"])
    return OperationCommand(**given)


def _operations(value: Any) -> dict[str, OperationCommand]:
    return read_table(value, dict.fromkeys(OPERATIONS, _read_operation_command))


def _built_in(value: Any) -> bool:
    if value is not True:
        raise ValueError("expected true, or nothing")
    return True


_ADAPTER: Final[Mapping[str, Reader]] = {
    "summary": text,
    "transport": word("unix", "tcp"),
    "built-in": _built_in,
    "operations": _operations,
}


# --- this machine ------------------------------------------------------------------------------


def _program(argv: Sequence[str]) -> str:
    """The program that a command runs, perhaps through `env NAME=VALUE …`."""
    if argv[0] == "env":
        return next((word for word in argv[1:] if "=" not in word), argv[0])
    return argv[0]


def _missing(argv: Sequence[str]) -> str:
    program = _program(argv)
    if shutil.which(program) is None:
        return f"{program} is not installed"
    return ""


@cache
def _probe(argv: tuple[str, ...]) -> str:
    missing = _missing(argv)
    program = _program(argv)
    if missing:
        return missing
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run here: {error}"
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it fails"]
        return f"{program} does not run here: {lines[-1]}"
    return ""
