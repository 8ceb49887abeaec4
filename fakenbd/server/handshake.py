"""The TLS handshake of the server's side, watched and, where told, broken off.

TLS runs over a wire that remembers how the client's half began (to tell TLS from bytes in clear)
and may stop our half after a number of bytes. What comes out is a transport like any other, that
also knows goodbyes: close_notify given, taken, or left out.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
import trio

from fakenbd.protocol.messages import Buffer
from fakenbd.server.transport import Transport

__all__ = ["SecureTransport", "TLSHandshakeError", "shake_hands"]

_PATIENCE: Final = 2.0
"""Seconds that the client has for its goodbye."""

_GRACE: Final = 0.25
"""Seconds before ours: a client that leaves without reading it would end in RST, not in FIN."""

_PIECE: Final = 1 << 18
"""Bytes encrypted at once; TLS holds a second copy of them."""

_JOINED: Final = 1 << 14
"""Up to so many bytes (a TLS record), joining buffers is cheaper than a record for each."""

_HEAD: Final = 8


class TLSHandshakeError(Exception):
    """There is no TLS: who ended the attempt, how, and the client's first bytes in it."""

    def __init__(self, by: str, how: str, detail: str = "", head: bytes = b"") -> None:
        super().__init__(by, how, detail, head)
        self.by, self.how, self.detail, self.head = by, how, detail, head

    def __str__(self) -> str:
        return self.detail or self.how


class _HandshakeAbortedError(Exception):
    """As many bytes of our half have left as were to leave."""


@attrs.define(eq=False)
class _Wire(trio.abc.Stream):
    """The stream below TLS; `left` bytes may still be sent, if that is not None."""

    inner: trio.abc.Stream
    left: int | None
    head: bytes = b""

    async def send_all(self, data: Buffer) -> None:
        if self.left is None:
            await self.inner.send_all(data)
            return
        allowed = bytes(data[: self.left])
        self.left -= len(allowed)
        await self.inner.send_all(allowed)
        if not self.left:
            raise _HandshakeAbortedError

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.inner.receive_some(max_bytes)
        if len(self.head) < _HEAD:
            self.head += bytes(data[: _HEAD - len(self.head)])
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


async def shake_hands(
    transport: Transport, context: ssl.SSLContext, *, deadline: float, abort: int | None = None
) -> SecureTransport:
    """Upgrade a transport to TLS. Raises TLSHandshakeError.

    With `abort` it is broken off after so many bytes of our half, or at its end at the latest.
    """
    wire = _Wire(transport.stream(), abort)
    secured = trio.SSLStream(wire, context, server_side=True)
    try:
        with trio.fail_after(deadline):
            await secured.do_handshake()
    except _HandshakeAbortedError:
        raise TLSHandshakeError("server", "fault") from None
    except trio.TooSlowError:
        detail = f"the client did not finish the TLS handshake within {deadline:g} s"
        raise TLSHandshakeError("server", "refused", detail, wire.head) from None
    except (OSError, trio.BrokenResourceError) as error:
        how, detail = _fate(error)
        raise TLSHandshakeError("client", how, detail, wire.head) from error
    if abort is not None:
        raise TLSHandshakeError("server", "fault")
    return SecureTransport(secured, transport)


@attrs.define(eq=False)
class SecureTransport:
    """TLS over the transport `below`."""

    inner: trio.SSLStream[Any]
    below: Transport
    _cut: bool = False
    _parting: str = ""

    async def receive_into(self, view: memoryview) -> int:
        data = await self.inner.receive_some(min(len(view), _PIECE))
        view[: len(data)] = data
        return len(data)

    async def send(self, buffers: Sequence[Buffer]) -> None:
        for piece in _pieces(buffers):
            await self.inner.send_all(piece)

    async def finish(self) -> None:
        # trio's TLS has no goodbye for one direction only.
        await self.below.finish()

    def reset(self) -> None:
        self._cut = True
        self.below.reset()

    def truncate(self) -> None:
        self._cut = True
        self.below.truncate()

    def fate(self, error: Exception | None) -> tuple[str, str]:
        how, detail = ("TLS close", "") if error is None else _fate(error)
        self._parting = how
        return how, detail

    async def part(self) -> str:
        if self._cut or self._parting:
            return self._parting
        try:
            with trio.move_on_after(_GRACE):
                return "" if await self.inner.receive_some(1) else "TLS close"
            with trio.move_on_after(_PATIENCE):
                await self.inner.unwrap()
                return "TLS close"
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return _fate(error)[0]
        return ""

    async def close(self) -> None:
        if not self._cut:
            with trio.move_on_after(_PATIENCE):
                await self.inner.aclose()
        await self.below.close()

    def stream(self) -> trio.abc.Stream:
        return self.inner


def _pieces(buffers: Sequence[Buffer]) -> Iterator[Buffer]:
    """The same bytes in pieces of a size that is neither wasteful nor large."""
    small: list[Buffer] = []
    size = 0
    for buffer in buffers:
        if len(buffer) <= _JOINED:
            small.append(buffer)
            size += len(buffer)
            if size < _PIECE:
                continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        if len(buffer) > _JOINED:
            view = memoryview(buffer)
            for start in range(0, len(view), _PIECE):
                yield view[start : start + _PIECE]
    if small:
        yield b"".join(small)


def _fate(error: Exception) -> tuple[str, str]:
    """How the client ended the connection, in the journal's words, and what TLS says to it."""
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLEOFError) or "UNEXPECTED_EOF" in str(cause):
        return "EOF", ""
    if isinstance(cause, ssl.SSLSyscallError):
        return "EOF", ""
    if isinstance(cause, ssl.SSLError):
        return "TLS failure", (cause.reason or str(cause)).replace("_", " ").lower()
    return "RST", str(cause)
