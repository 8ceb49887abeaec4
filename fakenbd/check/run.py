"""`fakenbd check`: a pytest session that collects only profiles.

Configuration, conftest and plugins of the current folder are ignored. The state for --last-failed
is kept in the user's cache, one folder a client.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs

from fakenbd.check.options import CheckOptions
from fakenbd.errors import FakenbdError
from fakenbd.profile import find_all, library_folder

__all__ = ["run_check"]

_IN_WORKERS: Final = "fakenbd.check.plugin"
_AUTOLOAD: Final = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


def run_check(options: CheckOptions) -> int:
    """Run the cases and return the exit status: 0, 1 failures, 2 usage, 3 trouble, 5 nothing.

    Verdicts go to the standard output as they are reached. Raises ProfileError or FakenbdError for
    options that cannot be met.
    """
    import pytest

    from fakenbd.check.collection import Cases, Setup

    places, ids = _places(options.profiles)
    # The seed is chosen before any worker starts: they all get this one.
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    options = attrs.evolve(options, select=(*options.select, *ids), seed=seed)
    cases = Cases(Setup.of(options))
    arguments = [*_arguments(options), *places]
    with _alone():
        status = int(pytest.main(arguments, plugins=[cases]))
    if cases.interrupted:
        return 128 + signal.SIGINT
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("fakenbd: no case was selected", file=sys.stderr)
    return 2 if status == pytest.ExitCode.USAGE_ERROR else status


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
    arguments = [
        *("-c", os.devnull, f"--rootdir={Path.cwd()}", "--noconftest", "-p", "no:python"),
        *("-o", f"cache_dir={_cache(options)}", "-rN", "--no-header"),
        "-q" if options.quiet else "-v",
    ]
    if options.junit is not None:
        arguments.append(f"--junit-xml={options.junit}")
    if options.jobs and options.jobs != "1":
        if find_spec("xdist") is None:
            raise FakenbdError("running cases in parallel needs pytest-xdist, which is not there")
        arguments += ["-p", "xdist", "-p", _IN_WORKERS, "-n", options.jobs]
    if options.exit_first:
        arguments.append("-x")
    if options.last_failed:
        arguments.append("--lf")
    return arguments


def _places(profiles: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The paths to collect profiles from, and the ids of the library that are selected.

    Raises ProfileError for an unknown id.
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
    client = Path((options.command or (options.client or "reference",))[0]).name
    return Path(base) / "fakenbd" / client
