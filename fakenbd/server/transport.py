"""Transports of bytes: a socket, used as directly as trio allows, or any trio Stream.

A transport is read by one task and written by one at a time. Sockets are tried first and waited
for only when they would block; every few turns that did not block end in a checkpoint, so that one
busy client does not starve the others.

A client with one request in flight sends the next within microseconds, sooner than a task can be
put to sleep and woken. A single client is therefore polled for a moment before waiting (busy
polling); after a poll without success there is none for a while.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final, Protocol

import attrs
import trio

from fakenbd.protocol.messages import Buffer

__all__ = ["SPIN_MS", "SPIN_POLLS", "SocketTransport", "StreamTransport", "Transport"]

TURNS_BEFORE_YIELD: Final = 32
SPIN_MS: Final = (1,)
"""Milliseconds that each poll for a client lasts."""
SPIN_POLLS: Final = (*(0,) * 16, *SPIN_MS)
"""The same where no other thread of this process needs the processor: most clients are back within
a few polls, before this thread could have been put to sleep and woken.
"""
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 1 << 26
"""Seconds, and bytes of the client's, for which its end is awaited after the server's."""
_ACKED_SECONDS: Final = 1.0
"""Seconds that a reset waits until the client's host has acknowledged all bytes."""
_SEND_BUFFER: Final = 1 << 20
_IOV_MAX: Final = 1024
_MISSES: Final = 10
"""After so many polls without success, only one in a thousand waits begins with a poll."""
_RESET: Final = struct.pack("ii", 1, 0)
_PIECE: Final = 1 << 18


def _never() -> bool:
    return False


class Transport(Protocol):
    """A connection; its errors are OSError or trio's BrokenResourceError."""

    blocked: bool
    """Whether the last `try_send` could not send all of it."""
    lingers: ClassVar[bool]
    """Whether bytes sent can be lost by closing too early."""

    async def receive_into(self, view: memoryview) -> int:
        """Receive at least one byte and return how many; 0 means the client's end."""

    def try_send(self, buffers: Sequence[Buffer]) -> int:
        """Send what can be sent without waiting; returns the number of bytes."""

    @property
    def send_some(self) -> Callable[[Sequence[Buffer]], Awaitable[int]] | None:
        """Sends at least a part, waits for that, and returns how many bytes it was.

        None where `try_send` is the way to send. One task at a time may use it.
        """

    async def wait_writable(self) -> None:
        """Wait until something can be sent."""

    async def wait_hangup(self) -> str:
        """Wait for the client's end without reading: returns "EOF", or "RST"."""

    async def send_eof(self) -> None:
        """Shut down the sending half; receiving goes on."""

    async def linger(self, observe: Callable[[memoryview], None]) -> str:
        """Shut down the sending half and wait for the client's end, passing its bytes to `observe`.

        Returns how the client ended, "" if it did not in time. Without this, closing a socket with
        unread bytes would discard bytes that were sent.
        """

    async def wait_acknowledged(self) -> None:
        """Wait, with a bound, until the client's host has acknowledged all bytes sent."""

    def reset(self) -> None:
        """End the connection by RST, where the transport has one."""

    async def close_abruptly(self, observe: Callable[[memoryview], None]) -> None:
        """End the connection without close_notify."""

    def close_reason(self, error: Exception | None) -> tuple[str, str]:
        """How the client ended the connection, in the journal's words, and a detail.

        `error` is what receiving raised, None where it returned 0.
        """

    async def exchange_close_notify(self) -> str:
        """Send close_notify and wait a little for the client's; how it ended, "" if unknown.

        Transports without TLS return "" at once.
        """

    async def close(self) -> None:
        """Close the connection, in an orderly way where that takes no waiting."""

    def stream(self) -> trio.abc.Stream:
        """The same connection as a trio Stream, for TLS."""


@attrs.define(eq=False)
class SocketTransport:
    """A connected non-blocking socket."""

    sock: socket.socket
    alone: Callable[[], bool] = _never
    """Whether polling is allowed: no other client would have to wait."""
    polls: Sequence[int] = SPIN_MS
    blocked: bool = False
    send_some: ClassVar[None] = None
    lingers: ClassVar[bool] = True
    _turns: int = 0
    _poll: Callable[[int], object] | None = None
    _brisk: bool = False
    """Whether the last poll succeeded, so that the next one probably does."""
    _misses: int = 0
    _skips: int = 0

    def __attrs_post_init__(self) -> None:
        if self.sock.family == socket.AF_UNIX:
            # The default holds less than one reply of 256 KiB, and each wait for more costs more
            # than the copying. TCP finds its own size.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    async def receive_into(self, view: memoryview) -> int:
        self._turns += 1
        if self._turns >= TURNS_BEFORE_YIELD:
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
        """Poll for the client; False if it sends nothing, or polling is not allowed."""
        if self._skips:
            self._skips -= 1
            return False
        if not self.alone():
            return False
        if self._poll is None:
            poller = select.poll()
            poller.register(self.sock, select.POLLIN)
            self._poll = poller.poll
        for moment in self.polls:
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

    def try_send(self, buffers: Sequence[Buffer]) -> int:
        wanted = sum(map(len, buffers))
        few = len(buffers) <= _IOV_MAX
        try:
            sent = self.sock.sendmsg(buffers if few else buffers[:_IOV_MAX])
        except BlockingIOError:
            sent = 0
        # What did not fit into one call does not show that the client takes nothing.
        self.blocked = sent < wanted and few
        return sent

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self.sock)

    async def wait_hangup(self) -> str:
        poller = select.epoll()
        try:
            poller.register(self.sock, select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(poller.fileno())
            ((_, events),) = poller.poll(0) or [(0, select.EPOLLRDHUP)]
        finally:
            trio.lowlevel.notify_closing(poller.fileno())
            poller.close()
        return "RST" if events & (select.EPOLLERR | select.EPOLLHUP) else "EOF"

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.sock.shutdown(socket.SHUT_WR)

    async def linger(self, observe: Callable[[memoryview], None]) -> str:
        view = memoryview(bytearray(_PIECE))
        left = LINGER_BYTES
        with trio.move_on_after(LINGER_SECONDS):
            try:
                await self.send_eof()
                while left > 0:
                    count = await self.receive_into(view)
                    if not count:
                        return "EOF"
                    observe(view[:count])
                    left -= count
            except OSError:
                return "RST"
        return ""

    async def wait_acknowledged(self) -> None:
        pause = 0.0005
        with trio.move_on_after(_ACKED_SECONDS):
            while self._unacknowledged():
                await trio.sleep(pause)
                pause = min(2 * pause, 0.05)

    def _unacknowledged(self) -> int:
        """Bytes that the client's host has not acknowledged yet (SIOCOUTQ)."""
        if self.sock.family == socket.AF_UNIX:
            return 0
        count = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(count, "little")

    def reset(self) -> None:
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close_now()

    async def close_abruptly(self, observe: Callable[[memoryview], None]) -> None:
        await self.linger(observe)
        self._close_now()

    def close_reason(self, error: Exception | None) -> tuple[str, str]:
        return _close_reason(error)

    async def exchange_close_notify(self) -> str:
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
    blocked: bool = False
    lingers: ClassVar[bool] = False
    _broken: bool = False

    async def receive_into(self, view: memoryview) -> int:
        data = await self.inner.receive_some(min(len(view), _PIECE))
        view[: len(data)] = data
        return len(data)

    def try_send(self, buffers: Sequence[Buffer]) -> int:
        return 0

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        data = b"".join(buffers)
        await self.inner.send_all(data)
        return len(data)

    async def wait_writable(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def wait_hangup(self) -> str:
        await trio.sleep_forever()
        return ""

    async def send_eof(self) -> None:
        if isinstance(self.inner, trio.abc.HalfCloseableStream):
            await self.inner.send_eof()
        else:
            await self.inner.aclose()

    async def linger(self, observe: Callable[[memoryview], None]) -> str:
        await self.send_eof()
        return ""

    async def wait_acknowledged(self) -> None:
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        self._broken = True

    async def close_abruptly(self, observe: Callable[[memoryview], None]) -> None:
        self._broken = True
        await trio.lowlevel.checkpoint()

    def close_reason(self, error: Exception | None) -> tuple[str, str]:
        return _close_reason(error)

    async def exchange_close_notify(self) -> str:
        return ""

    async def close(self) -> None:
        if self._broken:
            await trio.aclose_forcefully(self.inner)
            return
        with trio.move_on_after(LINGER_SECONDS):
            await self.inner.aclose()

    def stream(self) -> trio.abc.Stream:
        return self.inner


def _close_reason(error: Exception | None) -> tuple[str, str]:
    if error is None:
        return "EOF", ""
    # Without the error's number, which people cannot read.
    return "RST", getattr(error, "strerror", None) or str(error)
