"""What puts servers under load: programs that others wrote.

`fio --ioengine=nbd` by default. FAKENBD_NBDLOAD may name the C source of a lighter generator on
libnbd, `nbdload URI read|write BYTES IN_FLIGHT SECONDS`, which prints requests/s first: fio itself
costs as much as a fast server, and so hides differences.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import attrs

__all__ = ["LIBNBD_PYTHON", "Setting", "load", "output"]

LIBNBD_PYTHON = "/usr/bin/python3"
"""The interpreter that Debian's python3-libnbd belongs to."""


@attrs.frozen
class Setting:
    """How thorough to be: runs of each side, seconds of load in each."""

    runs: int = 5
    seconds: float = 1.0
    short: bool = False


def output(*command: str) -> str:
    """Run a program and return what it prints. Raises RuntimeError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {last}")
    return done.stdout


@functools.cache
def _nbdload() -> Path | None:
    source = os.environ.get("FAKENBD_NBDLOAD")
    if not source:
        return None
    folder = tempfile.TemporaryDirectory(prefix="fakenbd-bench-")
    program = Path(folder.name) / "nbdload"
    output("cc", "-O2", "-o", str(program), source, "-lnbd")
    _FOLDERS.append(folder)
    return program


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def load(
    uri: str, verb: Literal["read", "write"], size: int, in_flight: int, seconds: float
) -> float:
    """Random aligned requests of `size` bytes on one connection; requests a second."""
    program = _nbdload()
    if program is not None:
        printed = output(str(program), uri, verb, str(size), str(in_flight), str(seconds))
        return float(printed.split()[0])
    milliseconds = max(1, round(seconds * 1000))
    printed = output(
        "fio",
        "--name=load",
        "--ioengine=nbd",
        f"--uri={uri}",
        f"--rw=rand{verb}",
        f"--bs={size}",
        f"--iodepth={in_flight}",
        "--time_based",
        f"--runtime={milliseconds}ms",
        "--norandommap",
        "--output-format=json",
    )
    return float(json.loads(printed[printed.index("{") :])["jobs"][0][verb]["iops"])
