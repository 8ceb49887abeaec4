"""What a server must not leave behind: descriptors, threads, tasks, files, memory.

Memory is asked of the operating system, after what is free was given back to it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from fakenbd import Server, open_server

__all__ = ["MIB", "no_traces", "resident", "server_without_traces", "until"]

MIB = 1 << 20
_ALLOWED = 16 * MIB


def resident() -> int:
    """Bytes of memory that this process has, without what it only has not given back yet."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _descriptors() -> list[str]:
    folder = "/proc/self/fd"
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue  # the one that the folder was listed by
    return sorted(found)


def _private_folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("fakenbd-")}


@contextmanager
def no_traces(memory: int = _ALLOWED) -> Iterator[None]:
    """What happens in the block leaves nothing behind, and no more memory than `memory` bytes."""
    threads, descriptors = threading.enumerate(), _descriptors()
    folders, before = _private_folders(), resident()
    yield
    gc.collect()
    # An idle thread of trio's that was there before may have ended meanwhile.
    assert set(threading.enumerate()) <= set(threads)
    assert _descriptors() == descriptors
    # Other tests may run beside this one and have folders of their own.
    own = f"fakenbd-{os.getpid()}"
    assert not [name for name in _private_folders() - folders if name.startswith(own)]
    grown = resident() - before
    assert grown < memory, f"{grown / MIB:.1f} MiB more than before"


async def until(condition: Any, seconds: float = 30) -> None:
    """Wait for something that another task or process brings about."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (there is no event for it)
            await trio.sleep(0.001)


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@asynccontextmanager
async def server_without_traces(**options: Any) -> AsyncIterator[Server]:
    """A server that must survive what happens in the block, and be as before when it is over.

    Its journal is small, for what a journal keeps is no leak.
    """
    options.setdefault("journal", {"limit": 1000, "payload_limit": MIB})
    with no_traces():
        before = _tasks()
        async with open_server(**options) as server:
            path = server.socket
            serving = _tasks()
            yield server
            await until(lambda: _tasks() == serving)
            assert server.errors == []
            assert server.journal.totals.failures == 0
        await until(lambda: _tasks() == before)
        assert not path or not Path(path).is_socket()  # noqa: ASYNC240 (local and quick)
