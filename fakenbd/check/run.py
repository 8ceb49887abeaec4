"""`fakenbd check`: a pytest session that knows nothing but profiles.

No configuration, conftest or plugin of the folder it is called in has a say in it, and what it
remembers (for --last-failed) is kept in the user's cache, one folder a client.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from fakenbd.check.options import DEFAULT_MEMORY, DEFAULT_TIMEOUT, shard
from fakenbd.errors import FakenbdError
from fakenbd.profile import find_all, library_folder

if TYPE_CHECKING:
    import pytest

__all__ = ["CheckOptions", "run_check"]

_HOOKS: Final = "fakenbd.check.hooks"
_AUTOLOAD: Final = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


@attrs.frozen
class CheckOptions:
    """What `fakenbd check` can be told.

    `profiles` are paths or ids; without any, all of the library. `command` is what follows "--",
    and goes before `client`. `jobs` is a number, or "auto". `memory` is in MiB, `shard` "I/N".
    """

    profiles: tuple[str, ...] = ()
    client: str = "reference"
    command: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    jobs: str = ""
    timeout: float = DEFAULT_TIMEOUT
    memory: int = DEFAULT_MEMORY
    seed: int | None = None
    junit: Path | None = None
    report: Path | None = None
    shard: str = ""
    known: Path | None = None
    exit_first: bool = False
    last_failed: bool = False
    quiet: bool = False
    colour: bool | None = None


def run_check(options: CheckOptions) -> int:
    """Run the cases and return the exit status: 0, 1 failures, 2 usage, 3 trouble, 5 nothing.

    Verdicts go to the standard output as they are reached. Raises ProfileError or FakenbdError for
    options that cannot be met.
    """
    import pytest

    arguments = _arguments(options)
    ear = _Ear()
    with _alone():
        status = int(pytest.main(arguments, plugins=[ear]))
    if ear.interrupted:
        return 128 + signal.SIGINT
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("fakenbd: no case was selected", file=sys.stderr)
    return 2 if status == pytest.ExitCode.USAGE_ERROR else status


@attrs.define(eq=False)
class _Ear:
    """Hears Ctrl-C, which pytest's exit status does not tell from a collection that failed."""

    interrupted: bool = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # A collection that failed comes as a subclass.
        self.interrupted = excinfo.type is KeyboardInterrupt


@contextmanager
def _alone() -> Iterator[None]:
    before = os.environ.get(_AUTOLOAD)
    os.environ[_AUTOLOAD] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_AUTOLOAD]
        else:
            os.environ[_AUTOLOAD] = before


def _arguments(options: CheckOptions) -> list[str]:
    if options.shard:
        try:
            shard(options.shard)
        except ValueError as error:
            raise FakenbdError(f"--shard: {error}") from None
    places, selected = _places(options.profiles)
    arguments = [
        *("-c", os.devnull, f"--rootdir={Path.cwd()}", "--noconftest", "-p", "no:python"),
        *("-p", _HOOKS, "-o", f"cache_dir={_cache(options)}", "-rN", "--no-header"),
        "-q" if options.quiet else "-v",
        f"--fakenbd-timeout={options.timeout}",
        f"--fakenbd-memory={options.memory}",
        *(f"--fakenbd-select={pattern}" for pattern in (*options.select, *selected)),
        *(f"--fakenbd-skip={pattern}" for pattern in options.skip),
    ]
    if options.command:
        arguments.append(f"--fakenbd-command={json.dumps(options.command)}")
    else:
        arguments.append(f"--fakenbd-client={options.client}")
    for name, value in (
        ("--fakenbd-seed", options.seed),
        ("--fakenbd-shard", options.shard or None),
        ("--fakenbd-known", options.known),
        ("--fakenbd-report", options.report),
        ("--junit-xml", options.junit),
    ):
        if value is not None:
            arguments.append(f"{name}={value}")
    if options.jobs and options.jobs != "1":
        if find_spec("xdist") is None:
            raise FakenbdError("running cases in parallel needs pytest-xdist, which is not there")
        arguments += ["-p", "xdist", "-n", options.jobs]
    if options.exit_first:
        arguments.append("-x")
    if options.last_failed:
        arguments.append("--lf")
    if options.colour is not None:
        arguments.append(f"--color={'yes' if options.colour else 'no'}")
    return [*arguments, *places]


def _places(profiles: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Where to look for profiles, and which of them are meant: paths, and ids of the library.

    Raises ProfileError for an id that is not there.
    """
    paths = [name for name in profiles if Path(name).exists()]
    ids = [name for name in profiles if name not in paths]
    for name in ids:
        if not any(wild in name for wild in "*?["):
            find_all(name)
    if not paths or ids:
        paths.append(str(library_folder()))
    return paths, ids


def _cache(options: CheckOptions) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    client = Path((options.command or (options.client,))[0]).name
    return Path(base) / "fakenbd" / client
