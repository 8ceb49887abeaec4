"""The servers that are compared, each a process of its own on a Unix socket."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PYTHON_PLUGIN", "folder", "host", "nbdkit", "resident", "serve"]

PYTHON_PLUGIN = """
API_VERSION = 2
disk = bytearray(64 << 20)
def open(readonly): return 1
def get_size(h): return len(disk)
def pread(h, buf, offset, flags): buf[:] = disk[offset : offset + len(buf)]
def pwrite(h, buf, offset, flags): disk[offset : offset + len(buf)] = buf
"""
"""A server of 64 MiB in memory, as people write them for nbdkit."""


@contextmanager
def folder() -> Iterator[Path]:
    """A private folder for sockets and files."""
    with tempfile.TemporaryDirectory(prefix="fakenbd-bench-") as name:
        yield Path(name)


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@contextmanager
def serve(profile: str = "", *options: str) -> Iterator[str]:
    """The URI of `fakenbd serve` with a profile given as TOML; 64 MiB of pattern by default."""
    with folder() as place:
        path = place / "bench.toml"
        path.write_text('summary = "For measuring"\n' + (profile or '[export]\nsize = "64MiB"\n'))
        command = [
            sys.executable,
            "-c",
            "import sys; from fakenbd.cli import main; sys.exit(main())",
        ]
        with _running(
            *command, "serve", str(path), "--unix", str(place / "ours.sock"), *options
        ) as process:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["uri"]


@contextmanager
def host(kind: str) -> Iterator[tuple[str, int]]:
    """URI and process id of one of the servers in host.py."""
    with folder() as place:
        command = [sys.executable, "-m", "tests.bench.host", kind, str(place / "host.sock")]
        with _running(*command) as process:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid


@contextmanager
def nbdkit(*arguments: str) -> Iterator[str]:
    """The URI of nbdkit with these arguments."""
    with folder() as place:
        path = place / "kit.sock"
        with _running("nbdkit", "-f", "-U", str(path), *arguments) as process:
            deadline = time.monotonic() + 30
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("nbdkit did not start")
                time.sleep(0.01)
            yield f"nbd+unix:///?socket={path}"


def resident(pid: int) -> int:
    """Bytes of memory that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
