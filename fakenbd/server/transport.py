"""How bytes get to a client and back: a socket used as directly as trio allows, or any trio Stream.

A transport is read by one task and written by one at a time. Sockets are tried first and waited
for only when they would block; so that one busy client cannot starve the others, every few turns
that did not block end in a checkpoint.

A client that asks again once it has its answer is back within microseconds, sooner than a task can
be put to sleep and woken. Where it has the server to itself it is therefore waited for on the spot,
for a moment; one that does not come in that moment is not waited for like that for a while.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Protocol

import attrs
import trio

from fakenbd.protocol.messages import Buffer

__all__ = ["SocketTransport", "StreamTransport", "Transport"]

_GREED: Final = 32
_SEND_BUFFER: Final = 1 << 20
_IOV_MAX: Final = 1024
MOMENT: Final = (1,)
"""Milliseconds that a client is waited for on the spot, look by look."""
GLANCES: Final = (*(0,) * 16, *MOMENT)
"""The same where nobody else in this process could use the processor: most clients are back within
a few glances, before this thread could have fallen asleep and been woken.
"""
_MISSES: Final = 10
"""After so many moments in vain, one in a thousand waits begins with another."""
_RESET: Final = struct.pack("ii", 1, 0)


def _never() -> bool:
    return False


class Transport(Protocol):
    """Errors of the connection are OSError or trio's BrokenResourceError."""

    async def receive_into(self, view: memoryview) -> int:
        """Receive at least one byte and return how many; 0 means the client's end."""

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Send all of it."""

    async def finish(self) -> None:
        """Say that nothing more will come, but go on receiving."""

    def reset(self) -> None:
        """End the connection the hard way (RST, where the transport knows it)."""

    def truncate(self) -> None:
        """End the connection without any goodbye but the transport's own (FIN)."""

    def fate(self, error: Exception | None) -> tuple[str, str]:
        """How the client ended the connection, in the journal's words, and a detail.

        `error` is what receiving raised, None where it returned 0.
        """

    async def part(self) -> str:
        """Say goodbye and wait a little for the client's; how it left, "" if that is not known.

        Only TLS has goodbyes; other transports know nothing, at once.
        """

    async def close(self) -> None:
        """End the connection in an orderly way."""

    def stream(self) -> trio.abc.Stream:
        """The same connection as a trio Stream, for TLS."""


@attrs.define(eq=False)
class SocketTransport:
    """A connected non-blocking socket."""

    sock: socket.socket
    alone: Callable[[], bool] = _never
    """Whether nobody else would have to wait meanwhile."""
    patience: Sequence[int] = MOMENT
    _turns: int = 0
    _poll: Callable[[int], object] | None = None
    _brisk: bool = False
    """Whether the client came back in the moment that it was given, and likely does so again."""
    _misses: int = 0
    _skips: int = 0

    def __attrs_post_init__(self) -> None:
        if self.sock.family == socket.AF_UNIX:
            # The default holds less than one reply of 256 KiB, and each wait for more costs more
            # than the copying. TCP finds its own size.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    async def receive_into(self, view: memoryview) -> int:
        self._turns += 1
        if self._turns >= _GREED:
            # Before receiving: what has been received must not be lost to a cancellation.
            await self._let_others()
        if self._brisk and not self._is_back():
            await self._sleep()
        while True:
            try:
                return self.sock.recv_into(view)
            except BlockingIOError:
                if not self._is_back():
                    await self._sleep()

    def _is_back(self) -> bool:
        """Give the client a moment; False if it does not come, or may not be waited for here."""
        if self._skips:
            self._skips -= 1
            return False
        if not self.alone():
            return False
        if self._poll is None:
            poller = select.poll()
            poller.register(self.sock, select.POLLIN)
            self._poll = poller.poll
        for moment in self.patience:
            if self._poll(moment):
                self._brisk, self._misses = True, 0
                return True
        self._brisk = False
        self._misses = min(self._misses + 1, _MISSES)
        self._skips = 1 << self._misses
        return False

    async def _sleep(self) -> None:
        self._turns = 0
        self._brisk = False
        await trio.lowlevel.wait_readable(self.sock)

    async def _let_others(self) -> None:
        self._turns = 0
        self._brisk = False
        await trio.lowlevel.checkpoint()

    async def send(self, buffers: Sequence[Buffer]) -> None:
        self._turns += 1
        if self._turns >= _GREED:
            await self._let_others()
        wanted = sum(map(len, buffers))
        few = len(buffers) <= _IOV_MAX
        try:
            sent = self.sock.sendmsg(buffers if few else buffers[:_IOV_MAX])
        except BlockingIOError:
            sent = 0
        if sent < wanted:
            await self._send_rest(buffers, sent)

    async def _send_rest(self, buffers: Sequence[Buffer], sent: int) -> None:
        first = 0
        while True:
            while first < len(buffers) and sent >= len(buffers[first]):
                sent -= len(buffers[first])
                first += 1
            if first == len(buffers):
                return
            batch = list(islice(buffers, first, first + _IOV_MAX))
            if sent:
                batch[0] = memoryview(batch[0])[sent:]
            try:
                sent += self.sock.sendmsg(batch)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close_now()

    def truncate(self) -> None:
        self._close_now()

    def fate(self, error: Exception | None) -> tuple[str, str]:
        return _fate(error)

    async def part(self) -> str:
        return ""

    async def close(self) -> None:
        self._close_now()
        await trio.lowlevel.checkpoint()

    def stream(self) -> trio.abc.Stream:
        return trio.SocketStream(trio.socket.from_stdlib_socket(self.sock))

    def _close_now(self) -> None:
        if self.sock.fileno() != -1:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


@attrs.define(eq=False)
class StreamTransport:
    """Any trio Stream: a pair of pipes, memory."""

    inner: trio.abc.Stream
    broken: bool = False

    async def receive_into(self, view: memoryview) -> int:
        data = await self.inner.receive_some(min(len(view), 1 << 18))
        view[: len(data)] = data
        return len(data)

    async def send(self, buffers: Sequence[Buffer]) -> None:
        await self.inner.send_all(b"".join(buffers))

    async def finish(self) -> None:
        if isinstance(self.inner, trio.abc.HalfCloseableStream):
            await self.inner.send_eof()
        else:
            await self.inner.aclose()

    def reset(self) -> None:
        self.broken = True

    def truncate(self) -> None:
        self.broken = True

    def fate(self, error: Exception | None) -> tuple[str, str]:
        return _fate(error)

    async def part(self) -> str:
        return ""

    async def close(self) -> None:
        if self.broken:
            await trio.aclose_forcefully(self.inner)
            return
        with trio.move_on_after(_PATIENCE):
            await self.inner.aclose()

    def stream(self) -> trio.abc.Stream:
        return self.inner


_PATIENCE: Final = 2.0
"""Seconds that an orderly close may take."""


def _fate(error: Exception | None) -> tuple[str, str]:
    if error is None:
        return "EOF", ""
    # The number of an error says nothing to people.
    return "RST", getattr(error, "strerror", None) or str(error)
