"""One connection in transmission: many requests in flight, replies in any order.

Three tasks serve it. The sender gathers all requests that are ready into one system call, the
receiver parses every whole reply that has come, and the watcher ends the connection when the reply
to the oldest request is overdue. A request is a slot in `_in_flight`, filled by the receiver, which
wakes the task that waits for it. The slot of a cancelled call stays until its reply has come.

A hard breach, a lost connection and a missed deadline fail every waiting call and all later ones.
After ESHUTDOWN the requests in flight finish (C-127). The last message is always DISC, unless the
server broke the protocol or is gone, or a message is half sent or half received.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import outcome
import trio

from fakenbd.client.channel import Timeouts
from fakenbd.client.noncompliance import Notes
from fakenbd.client.pending import Pending, Wakeup
from fakenbd.client.reassembly import Reply, asked
from fakenbd.client.receiver import Receiver
from fakenbd.client.transport import Transport
from fakenbd.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    FakenbdError,
    ProtocolError,
    ShutdownError,
)
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
)
from fakenbd.protocol.messages import Buffer
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Connection"]

RATE: Final = 1 << 20
"""Bytes of payload in flight for each further second that a reply may take."""

WITH_PAYLOAD: Final = frozenset({int(Command.READ), int(Command.WRITE)})
"""Commands whose length is that of a payload; a TRIM of 1 TiB transfers none."""


@attrs.define(eq=False)
class Connection:
    """The requests and replies of one session; `run` must be running while it is used."""

    transport: Transport
    negotiated: NegotiatedState
    deadlines: Timeouts
    notes: Notes
    leftover: bytes = b""
    failure: FakenbdError | None = attrs.field(default=None, init=False)
    """Why no request can be made any more; None while they can."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _cookie: int = attrs.field(default=0, init=False)
    _in_flight: dict[int, Pending] = attrs.field(factory=dict, init=False)
    _payload_in_flight: int = attrs.field(default=0, init=False)
    _outgoing: list[Buffer] = attrs.field(factory=list, init=False)
    _sender: Wakeup = attrs.field(factory=Wakeup, init=False)
    _watcher: Wakeup = attrs.field(factory=Wakeup, init=False)
    _sending: bool = attrs.field(default=False, init=False)
    _may_disconnect: bool = attrs.field(default=True, init=False)
    _idle: trio.Event | None = attrs.field(default=None, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    # --- requests ------------------------------------------------------------------------------

    def submit(
        self,
        command: int,
        offset: int,
        length: int,
        flags: int = 0,
        *,
        payload: Buffer | None = None,
        reply: Reply | None = None,
        target: memoryview | None = None,
    ) -> Pending:
        """Queue one request. Raises what ended the connection, if it has ended."""
        if self.failure is not None:
            raise copy.copy(self.failure)
        self._cookie = cookie = self._cookie + 1
        if command in WITH_PAYLOAD:
            self._payload_in_flight += length
        deadline = trio.current_time() + self.deadlines.reply + self._payload_in_flight / RATE
        pending = Pending(command, offset, length, flags, deadline, reply, target)
        self._in_flight[cookie] = pending
        self._outgoing.append(self._header(command, cookie, offset, length, flags))
        if payload is not None:
            self._outgoing.append(payload)
        if self._sender.sleeper is not None:
            self._sender.wake()
        if self._watcher.sleeper is not None:
            self._watcher.wake()
        return pending

    def _header(self, command: int, cookie: int, offset: int, length: int, flags: int) -> bytes:
        if self.negotiated.extended:
            if command == Command.WRITE:
                flags |= CommandFlag.PAYLOAD_LEN  # C-106
            return layout.EXTENDED_REQUEST.pack(
                EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length
            )
        return layout.COMPACT_REQUEST.pack(REQUEST_MAGIC, flags, command, cookie, offset, length)

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until it ends; raises nothing for what the server does."""
        receiver = Receiver(
            self.transport,
            self.negotiated,
            self._in_flight,
            self.notes,
            self._answer,
        )
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guarded, receiver.run, self.leftover)
                    nursery.start_soon(self._guarded, self._send)
                    nursery.start_soon(self._guarded, self._watch)
        finally:
            self._fail(ConnectionLostError("the connection was closed"))
            with trio.move_on_after(self.deadlines.close, shield=True):
                if self._may_disconnect and not (self._sending or receiver.mid_message):
                    # C-129: no range; C-130: nothing follows.
                    disconnect = self._header(Command.DISC, self._cookie + 1, 0, 0, 0)
                    with suppress(ConnectionLostError):
                        await self.transport.send([disconnect], stall=self.deadlines.close)
                await self.transport.aclose()
            self.ended.set()

    async def close(self) -> None:
        """Wait for the requests in flight, up to the deadline, and end the connection."""
        with trio.move_on_after(self.deadlines.close, shield=True):
            if self._in_flight:
                self._idle = trio.Event()
                await self._idle.wait()
        self._fail(ConnectionLostError("the connection was closed"))
        with trio.CancelScope(shield=True):
            await self.ended.wait()

    async def _guarded(self, task: Callable[..., Awaitable[None]], *arguments: bytes) -> None:
        """Run one of the tasks; a FakenbdError in it ends the connection."""
        try:
            await task(*arguments)
        except (ProtocolError, ConnectionLostError) as error:
            # After a missed deadline the server is still connected.
            self._may_disconnect = self._may_disconnect and isinstance(error, DeadlineExceededError)
            self._fail(error)

    def _fail(self, error: FakenbdError) -> None:
        """Fail every waiting call, and all that come later, with `error`."""
        if self.failure is None:
            self.failure = error
        for pending in self._in_flight.values():
            pending.fill(outcome.Error(copy.copy(error)))
        self._in_flight.clear()
        if self._idle is not None:
            self._idle.set()
        self._scope.cancel()

    # --- tasks ---------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            while not self._outgoing:
                await self._sender.wait()
            buffers, self._outgoing = self._outgoing, []
            self._sending = True  # stays set if sending fails: how much was sent is unknown
            await self.transport.send(buffers, stall=self.deadlines.stall)
            self._sending = False

    async def _watch(self) -> None:
        while True:
            if not self._in_flight:
                await self._watcher.wait()
                continue
            oldest = next(iter(self._in_flight.values()))
            if trio.current_time() < oldest.deadline:
                await trio.sleep_until(oldest.deadline)
                continue
            request = asked(oldest.command, oldest.offset, oldest.length)
            raise DeadlineExceededError(
                f"no whole reply to {request} came within {self.deadlines.reply:g} s"
            )

    def _answer(self, cookie: int, pending: Pending, result: outcome.Outcome[Any]) -> None:
        """Give a request the result of its reply, which is complete."""
        del self._in_flight[cookie]
        if pending.command in WITH_PAYLOAD:
            self._payload_in_flight -= pending.length
        pending.fill(result)
        if isinstance(result, outcome.Error) and isinstance(result.error, ShutdownError):
            self.failure = self.failure or result.error  # C-127: no further requests
        if not self._in_flight:
            if self._idle is not None:
                self._idle.set()
            if self.failure is not None:
                self._scope.cancel()
