"""The server's TLS handshake, which a fault may abort, and the transport over TLS.

TLS runs over a stream that keeps the client's first bytes (to distinguish TLS from bytes in clear)
and may stop the server's half after a number of bytes. The result is a transport that also sends,
receives, or omits close_notify.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import attrs
import trio

from fakenbd.protocol.messages import Buffer
from fakenbd.server.transport import Transport

__all__ = ["SecureTransport", "TLSHandshakeError", "start_tls"]

_CLOSE_SECONDS: Final = 2.0
"""Seconds that the client has for its close_notify."""

_GRACE: Final = 0.25
"""Seconds before the server's: a client that closes without reading it would send RST, not FIN."""

_PIECE: Final = 1 << 18
"""Bytes encrypted at once; TLS holds a second copy of them meanwhile."""

_JOINED: Final = 1 << 14
"""Up to so many bytes (one TLS record), joining buffers is cheaper than a record for each."""

_HEAD: Final = 8


class TLSHandshakeError(Exception):
    """The TLS handshake failed: which side ended it, how, and the client's first bytes in it."""

    def __init__(self, by: str, how: str, detail: str = "", head: bytes = b"") -> None:
        super().__init__(by, how, detail, head)
        self.by, self.how, self.detail, self.head = by, how, detail, head

    def __str__(self) -> str:
        return self.detail or self.how


class _HandshakeAbortedError(Exception):
    """The number of bytes after which a fault aborts the TLS handshake has left."""


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


async def start_tls(
    transport: Transport, context: ssl.SSLContext, *, deadline: float, abort: int | None = None
) -> SecureTransport:
    """Upgrade a transport to TLS. Raises TLSHandshakeError.

    With `abort` it is aborted after so many bytes of the server's, or at its end at the latest.
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
        how, detail = _close_reason(error)
        raise TLSHandshakeError("client", how, detail, wire.head) from error
    if abort is not None:
        raise TLSHandshakeError("server", "fault")
    return SecureTransport(secured, transport)


@attrs.define(eq=False)
class SecureTransport:
    """TLS over the transport `below`."""

    inner: trio.SSLStream[Any]
    below: Transport
    blocked: bool = False
    lingers: ClassVar[bool] = False
    _cut: bool = False
    _reason: str = ""

    async def receive_into(self, view: memoryview) -> int:
        data = await self.inner.receive_some(min(len(view), _PIECE))
        view[: len(data)] = data
        return len(data)

    def try_send(self, buffers: Sequence[Buffer]) -> int:
        return 0

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        piece = next(_pieces(buffers))
        await self.inner.send_all(piece)
        return len(piece)

    async def wait_writable(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def wait_hangup(self) -> str:
        return await self.below.wait_hangup()

    async def send_eof(self) -> None:
        # trio's TLS has no close_notify for one direction only.
        await self.below.send_eof()

    async def linger(self, observe: Callable[[memoryview], None]) -> str:
        with trio.move_on_after(_CLOSE_SECONDS):
            await self.inner.aclose()
        self._cut = True
        return ""

    async def wait_acknowledged(self) -> None:
        await self.below.wait_acknowledged()

    def reset(self) -> None:
        self._cut = True
        self.below.reset()

    async def close_abruptly(self, observe: Callable[[memoryview], None]) -> None:
        self._cut = True
        await self.below.close_abruptly(lambda data: None)

    def close_reason(self, error: Exception | None) -> tuple[str, str]:
        how, detail = ("TLS close", "") if error is None else _close_reason(error)
        self._reason = how
        return how, detail

    async def exchange_close_notify(self) -> str:
        if self._cut or self._reason:
            return self._reason
        try:
            with trio.move_on_after(_GRACE):
                return "" if await self.inner.receive_some(1) else "TLS close"
            with trio.move_on_after(_CLOSE_SECONDS):
                await self.inner.unwrap()
                return "TLS close"
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return _close_reason(error)[0]
        return ""

    async def close(self) -> None:
        if not self._cut:
            with trio.move_on_after(_CLOSE_SECONDS):
                await self.inner.aclose()
        await self.below.close()

    def stream(self) -> trio.abc.Stream:
        return self.inner


def _pieces(buffers: Sequence[Buffer]) -> Iterator[Buffer]:
    """The same bytes in pieces: small buffers joined, large ones cut."""
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


def _close_reason(error: Exception) -> tuple[str, str]:
    """How the client ended the connection, in the journal's words, and the TLS error."""
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLEOFError) or "UNEXPECTED_EOF" in str(cause):
        return "EOF", ""
    if isinstance(cause, ssl.SSLSyscallError):
        return "EOF", ""
    if isinstance(cause, ssl.SSLError):
        return "TLS failure", (cause.reason or str(cause)).replace("_", " ").lower()
    return "RST", str(cause)
