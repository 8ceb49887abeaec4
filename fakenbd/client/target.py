"""Makes negotiated connections, from a URI or over a connected stream."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import attrs
import trio

from fakenbd.client.channel import Channel, Timeouts
from fakenbd.client.connection import Connection
from fakenbd.client.negotiation import HandshakeRequest, Negotiation
from fakenbd.client.noncompliance import Notes, Tolerance
from fakenbd.client.tls import TLS
from fakenbd.client.transport import transport_of
from fakenbd.errors import ConnectionLostError, TLSError
from fakenbd.protocol.uri import Uri

__all__ = ["Settings", "Source", "Target", "background", "begin", "fresh", "open_stream", "opened"]

Target: TypeAlias = str | Uri | trio.abc.Stream

Source: TypeAlias = Target | Callable[[], Awaitable[Target]]
"""A source of several connections: a URI, or a function that returns a new stream each time."""


@attrs.frozen
class Settings:
    """The settings of a connection.

    `export` None means the export that the URI names, or the default one.
    """

    target: Target
    export: str | None = None
    contexts: tuple[str, ...] = ()
    tolerance: Tolerance = "tolerant"
    deadlines: Timeouts = attrs.field(factory=Timeouts)
    tls: TLS | None = None
    structured: bool = True
    extended: bool = True

    @property
    def uri(self) -> Uri | None:
        """The URI to connect to; None where a stream was given instead."""
        if isinstance(self.target, str):
            return Uri.parse(self.target)
        return self.target if isinstance(self.target, Uri) else None

    @property
    def security(self) -> TLS:
        """The TLS settings given, or those of the URI. Raises TLSError if the two disagree."""
        uri = self.uri
        if self.tls is None:
            return TLS.of(uri) if uri is not None else TLS(policy="off")
        if uri is None or not uri.tls:
            return self.tls
        if self.tls.policy == "off":
            raise TLSError(f"{uri} requires TLS, which is switched off")
        return attrs.evolve(self.tls, policy="require")  # C-150

    def requested(self) -> HandshakeRequest:
        """The request for the negotiation."""
        uri = self.uri
        export = self.export
        if export is None:
            export = uri.export if uri is not None else ""
        return HandshakeRequest(
            export, self.contexts, self.security.policy, self.structured, self.extended
        )


async def begin(settings: Settings) -> tuple[Channel, Negotiation]:
    """Connect; returns a negotiation that has not begun.

    Raises UriError, TLSError (for credentials that cannot be used) and ConnectionLostError.
    """
    uri = settings.uri
    requested = settings.requested()
    upgrader = None
    if requested.tls != "off":
        upgrader = settings.security.upgrader("" if uri is None else uri.host)
    if uri is None:
        assert isinstance(settings.target, trio.abc.Stream), "what else it may be is a URI"
        stream = settings.target
    else:
        stream = await open_stream(uri, settings.deadlines.connect)
    channel = Channel(stream, settings.deadlines, upgrader)
    return channel, Negotiation(requested, Notes(settings.tolerance))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Connection, tuple[str, ...]]]:
    """A connection in transmission, and the requested contexts that were selected."""
    channel, negotiation = await begin(settings)
    try:
        negotiated = await channel.perform(negotiation.open())
    except BaseException as error:
        await channel.leave(negotiation, error)
        raise
    connection = Connection(
        transport_of(channel.stream),
        negotiated,
        settings.deadlines,
        negotiation.notes,
        bytes(channel.incoming),
    )
    selected = negotiated.contexts.values()
    contexts = tuple(name for name in settings.contexts if name in selected)
    async with background() as nursery:
        nursery.start_soon(connection.run)
        try:
            yield connection, contexts
        finally:
            await connection.close()


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery from whose block exceptions propagate unwrapped, not in a group."""
    failure = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


async def fresh(source: Source) -> Target:
    """The target of the next connection. Raises ConnectionLostError where the function fails."""
    if not callable(source):
        return source
    try:
        return await source()
    except OSError as error:
        raise ConnectionLostError(f"cannot connect: {error.strerror or error}") from error


async def open_stream(uri: Uri, seconds: float) -> trio.abc.Stream:
    """A stream to the server of `uri`. Raises ConnectionLostError where there is none."""
    with trio.move_on_after(seconds):
        try:
            if uri.transport == "tcp":
                return await trio.open_tcp_stream(uri.host, uri.port)
            if uri.transport == "unix":
                return await _connected(trio.socket.AF_UNIX, uri.socket)
            return await _connected(trio.socket.AF_VSOCK, (int(uri.host), uri.port))
        except OSError as error:
            raise ConnectionLostError(f"cannot connect to {uri}: {_reason(error)}") from error
    raise ConnectionLostError(f"cannot connect to {uri}: no answer within {seconds:g} s")


async def _connected(family: int, address: object) -> trio.abc.Stream:
    socket = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await socket.connect(address)
    except BaseException:
        with suppress(OSError):
            socket.close()
        raise
    return trio.SocketStream(socket)


def _reason(error: OSError) -> str:
    """Why connecting failed; trio wraps the errors of several attempts in a group."""
    cause: BaseException | None = error
    while isinstance(cause, OSError) and cause.__cause__ is not None:
        cause = cause.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    number = getattr(cause, "errno", None)
    if number is not None and number > 0:  # errors of the resolver have other numbers
        return os.strerror(number)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error)
