"""Several connections to one export, where the server offers that (CAN_MULTI_CONN).

Calls go to the connections in turn. A FLUSH is sent when all writes that were in flight at its call
have been answered, on any connection (C-103). A connection beyond the first is optional, and one
that offers something else is not used. When a connection is lost, its calls are repeated, whole,
on the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Final, TypeVar

import attrs
import trio

from fakenbd.client.client import Client
from fakenbd.client.export_info import changes
from fakenbd.client.forwarding import ForwardingDevice
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.target import Source, fresh
from fakenbd.errors import ClientError, ConnectionLostError, ProtocolError
from fakenbd.protocol.constants import Command, TransmissionFlag
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Pool"]

_WRITES: Final = (Command.WRITE, Command.WRITE_ZEROES, Command.TRIM)

_T = TypeVar("_T")


@attrs.define(eq=False)
class Pool(ForwardingDevice):
    """An export over several connections. `Pool.connect` makes one."""

    _clients: Sequence[Client]
    _turn: int = 0
    _writes: set[trio.Event] = attrs.field(factory=set)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        source: Source,
        *,
        connections: int = 4,
        **options: Any,
    ) -> AsyncIterator[Pool]:
        """Connect as `Client.connect` does (`options` are for that), up to `connections` times."""
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(Client.connect(await fresh(source), **options))
            clients = [first]
            several = first.offers(TransmissionFlag.CAN_MULTI_CONN)  # C-102
            while several and len(clients) < connections:
                try:
                    other = Client.connect(await fresh(source), **options)
                    client = await stack.enter_async_context(other)
                except (ClientError, ProtocolError):
                    break
                if changes(first.negotiated, client.negotiated):  # S-220
                    await client.close()
                    break
                client.share_edge_lock(first)
                clients.append(client)
            yield cls(clients)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return sum(client.failure is None for client in self._clients)

    @property
    def negotiated(self) -> NegotiatedState:
        return self._clients[0].negotiated

    @property
    def contexts(self) -> tuple[str, ...]:
        return self._clients[0].contexts

    @property
    def notes(self) -> Sequence[Noncompliance]:
        return [note for client in self._clients for note in client.notes]

    async def _perform(self, command: Command, call: Callable[[Client], Awaitable[_T]]) -> _T:
        """Make a call on the next connection, or on another if that is lost."""
        if command == Command.FLUSH:
            for answered in tuple(self._writes):
                await answered.wait()
        with self._writing() if command in _WRITES else nullcontext():
            return await self._on_any(call)

    async def _on_any(self, call: Callable[[Client], Awaitable[_T]]) -> _T:
        while True:
            client = self._next()
            try:
                return await call(client)
            except ConnectionLostError:
                if not self.connections:
                    raise

    def _next(self) -> Client:
        living = [client for client in self._clients if client.failure is None]
        if not living:
            return self._clients[0]  # to raise the error that ended it
        self._turn += 1
        return living[self._turn % len(living)]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        answered = trio.Event()
        self._writes.add(answered)
        try:
            yield
        finally:
            self._writes.remove(answered)
            answered.set()
