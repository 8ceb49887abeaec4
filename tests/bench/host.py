"""Servers that the command line does not offer: `python -m tests.bench.host KIND SOCKET`.

`map` serves a million scripted extents; `quiet` has a journal that remembers nothing; `correct` is
the same server with its journal. Prints the URI once it listens.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import trio

from fakenbd import open_server
from fakenbd.journal import Journal

EXTENTS = 1_000_000
MAP_BLOCK = 4096


class Forgetful(Journal):
    """What recording costs is what a server saves with this."""

    def received(self, *_: Any, **__: Any) -> int:
        return 0

    sent = connected = closed = received

    def plain_batch(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def options(kind: str) -> dict[str, Any]:
    """What to serve."""
    if kind == "map":
        extents = [(MAP_BLOCK, 0), (MAP_BLOCK, 3)] * (EXTENTS // 2)
        return {"size": EXTENTS * MAP_BLOCK, "contexts": {"base:allocation": extents}}
    return {"size": "64MiB"}


async def main(kind: str, path: str) -> None:
    async with open_server(unix=path, **options(kind)) as server:
        if kind == "quiet":
            server.shared.journal = Forgetful(trio.current_time)
        print(server.uri, flush=True)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                return


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
