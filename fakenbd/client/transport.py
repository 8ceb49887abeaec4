"""Transports of bytes, for the transmission phase.

A socket is read and written directly: one system call for all available bytes, and a wait only
where there are none. Everything else (TLS, memory streams, a caller's stream) uses trio's stream
interface. Both raise ConnectionLostError for a connection that broke.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

import attrs
import trio

from fakenbd.errors import ConnectionLostError, DeadlineExceededError
from fakenbd.protocol.messages import Buffer

__all__ = ["SocketTransport", "StreamTransport", "Transport", "broken", "transport_of"]

PIECE: Final = 1 << 18
"""Bytes sent through a stream under one deadline."""

JOINED: Final = 1 << 16
"""Up to so many bytes, joining buffers is cheaper than passing them to the kernel one by one."""

VECTOR: Final = 1000
"""Buffers passed to the kernel at once; Linux takes 1024."""


class Transport(Protocol):
    """The interface that a connection uses."""

    async def receive_into(self, view: memoryview) -> int:
        """Wait for bytes, put them at the start of `view`; returns their number, 0 at the end."""

    async def send(self, buffers: Sequence[Buffer], *, stall: float) -> None:
        """Send all buffers in order. Raises DeadlineExceededError after `stall` seconds without
        progress.
        """

    async def aclose(self) -> None:
        """End the connection, under TLS with close_notify."""


@attrs.define(eq=False)
class SocketTransport:
    """A connected non-blocking stream socket."""

    socket: socket.socket

    async def receive_into(self, view: memoryview) -> int:
        # Tasks woken by the last bytes run first, so that their requests are sent before this
        # waits.
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.socket.recv_into(view)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
            except OSError as error:
                raise _lost(error) from error

    async def send(self, buffers: Sequence[Buffer], *, stall: float) -> None:
        left = [memoryview(buffer).cast("B") for buffer in _joined(buffers)]
        while left:
            try:
                sent = self.socket.sendmsg(left[:VECTOR])
            except BlockingIOError:
                with trio.move_on_after(stall) as scope:
                    await trio.lowlevel.wait_writable(self.socket)
                if scope.cancelled_caught:
                    raise _stalled(stall) from None
                continue
            except OSError as error:
                raise _lost(error) from error
            done = 0
            while done < len(left) and sent >= len(left[done]):
                sent -= len(left[done])
                done += 1
            left = left[done:]
            if sent:
                left[0] = left[0][sent:]

    async def aclose(self) -> None:
        self.socket.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


@attrs.define(eq=False)
class StreamTransport:
    """Any trio Stream."""

    stream: trio.abc.Stream

    async def receive_into(self, view: memoryview) -> int:
        try:
            data = await self.stream.receive_some(min(len(view), PIECE))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _lost(error) from error
        view[: len(data)] = data
        return len(data)

    async def send(self, buffers: Sequence[Buffer], *, stall: float) -> None:
        for buffer in _joined(buffers):
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), PIECE):
                with trio.move_on_after(stall) as scope:
                    try:
                        await self.stream.send_all(view[start : start + PIECE])
                    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                        raise _lost(error) from error
                if scope.cancelled_caught:
                    raise _stalled(stall)

    async def aclose(self) -> None:
        await self.stream.aclose()


def transport_of(stream: trio.abc.Stream) -> Transport:
    """The fastest transport over `stream`, which must not be used otherwise from then on."""
    if isinstance(stream, trio.SocketStream):
        plain = socket.socket(fileno=stream.socket.detach())
        plain.setblocking(False)
        return SocketTransport(plain)
    return StreamTransport(stream)


def _joined(buffers: Sequence[Buffer]) -> Sequence[Buffer]:
    """The same buffers, joined where they have few bytes."""
    if len(buffers) == 1 or sum(map(len, buffers)) > JOINED:
        return buffers
    return [b"".join(buffers)]


def broken(error: Exception) -> str:
    """Why a connection broke: the text of the system's or TLS's error."""
    cause = error.__cause__ or error
    if isinstance(cause, (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLEOFError)):
        return "the other side closed it"
    return str(getattr(cause, "strerror", None) or cause)


def _lost(error: Exception) -> ConnectionLostError:
    return ConnectionLostError(f"the connection broke: {broken(error)}")


def _stalled(stall: float) -> DeadlineExceededError:
    return DeadlineExceededError(f"the server took no bytes for {stall:g} s")
