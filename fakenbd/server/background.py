"""The server in a thread of its own, for callers that are synchronous or use asyncio.

Sockets are bound in the caller's thread, so a server that cannot start fails there and at once, and
a client that connects before the thread runs waits for its greeting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import attrs
import trio

from fakenbd.errors import ServeError
from fakenbd.journal import Entry, Waiter
from fakenbd.profile import Profile
from fakenbd.server.factory import close, follow_clock, prepare
from fakenbd.server.server import Server

__all__ = ["BackgroundServer", "background_server"]


@attrs.define(eq=False, repr=False)
class BackgroundServer:
    """A server that another thread runs. It has all that Server has; waiting blocks."""

    server: Server
    _thread: threading.Thread = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _stopping: bool = False

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(
            target=trio.run, args=(self._main,), name="fakenbd", daemon=True
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def __repr__(self) -> str:
        return f"<Background{str(self.server)[1:]}"

    async def _main(self) -> None:
        follow_clock(self.server)
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            if not self._stopping:
                await self.server.serve()

    def start(self) -> None:
        """Start the thread, which serves."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection and stop listening; returns when the thread has ended."""
        self._stopping = True
        while self._thread.is_alive():
            # Until the thread runs there is no token to call it with.
            if self._token is not None:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._scope.cancel)
                self._thread.join()
            else:
                self._thread.join(0.0005)
        close(self.server)

    def settle(self, timeout: float = 1) -> None:
        """Block until the server has handled all that has reached it; see `Server.settle`."""
        while self._token is None and self._thread.is_alive():
            self._thread.join(0.0005)
        with suppress(trio.RunFinishedError):
            trio.from_thread.run(self.server.settle, timeout, trio_token=self._token)

    def connect(self) -> None:
        """Raise RuntimeError: connections in memory belong to one event loop; use the URI."""
        raise ServeError("a server in a thread has no connections in memory: use its uri")

    def wait_for(
        self, command: str | int | None = None, *, count: int = 1, timeout: float = 5, **wanted: Any
    ) -> list[Entry]:
        """Block until entries meet the conditions; those that are there already count.

        Raises ExpectationError after `timeout` seconds.
        """
        conditions = wanted if command is None else {"command": command, **wanted}
        waiter = Waiter(self.server.journal, conditions, count)
        news = threading.Event()
        deadline = monotonic() + timeout
        unsubscribe = self.server.journal.subscribe(news.set)
        try:
            # The thread may be recording meanwhile: each look starts where the last one ended.
            while not waiter.done():
                # Other entries do not extend the deadline.
                left = deadline - monotonic()
                if left <= 0 or not news.wait(left):
                    raise waiter.error(timeout)
                news.clear()
        finally:
            unsubscribe()
        return waiter.found


@contextmanager
def background_server(
    profile: Profile | str | os.PathLike[str] | None = None, **options: Any
) -> Iterator[BackgroundServer]:
    """A server in a thread as long as the block lasts; options as for `prepare`.

    It is listening when the block begins. Raises ServeError or ProfileError.
    """
    background = BackgroundServer(prepare(profile, **options))
    background.start()
    try:
        yield background
    finally:
        background.stop()
