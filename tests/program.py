"""The `fakenbd` program as a user types it: within this process, or as a process of its own.

A process costs half a second to start: it is for what only a process shows.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from fakenbd.cli import main

__all__ = ["FAKENBD", "captured", "content", "ended_at_last", "fakenbd", "process", "started"]

FAKENBD: Final = (
    sys.executable,
    "-c",
    "import sys; from fakenbd.cli import main; sys.exit(main())",
)


def process(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [*FAKENBD, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd
    )


@contextmanager
def ended_at_last(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Whatever becomes of the test: after the block the process is no more."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def started(*arguments: str, **options: Any) -> AbstractContextManager[subprocess.Popen[Any]]:
    """A process that is still running when the block begins; options as for Popen."""
    return ended_at_last(subprocess.Popen([*FAKENBD, *arguments], **options))


def fakenbd(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command within this process; its output has what its children write, too."""
    with captured(cwd) as (output, errors):
        status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, content(output), content(errors))


@contextmanager
def captured(cwd: Path | None = None) -> Iterator[tuple[TextIO, TextIO]]:
    """Files in place of standard output and error, and `cwd` as the current folder."""
    with (
        contextlib.chdir(cwd or os.curdir),
        _redirected("stdout") as output,
        _redirected("stderr") as errors,
    ):
        yield output, errors


@contextmanager
def _redirected(name: str) -> Iterator[TextIO]:
    """A file in place of standard output or error, for Python and for the children of this process.

    File and descriptor share one position, so nothing is overwritten.
    """
    number = 1 if name == "stdout" else 2
    kept_stream, kept_descriptor = getattr(sys, name), os.dup(number)
    try:
        with tempfile.TemporaryFile("w+", buffering=1, encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
            setattr(sys, name, file)
            yield file
    finally:
        setattr(sys, name, kept_stream)
        os.dup2(kept_descriptor, number)
        os.close(kept_descriptor)


def content(file: TextIO) -> str:
    """All that was written to the file."""
    file.flush()
    file.seek(0)
    return file.read()
