"""One connection in trio: moves bytes between a transport and a conversation.

The reader receives, lets the conversation answer, and sends by itself what can leave at once: the
usual case costs no task switch. What has to wait (for the client to take bytes, for a time, for an
action) is done by a writer, started when it is first needed. Both take what is next from the
conversation and report what left without a wait in between, so the order is kept.

While nothing may be received, the socket is watched for the client's end.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from fakenbd.conversation.conversation import Conversation
from fakenbd.conversation.phases import Phase, Receiving
from fakenbd.faults.answer import CeaseReading, CloseConnection, StartTLS, TakeListenerDown
from fakenbd.server.tls_transport import TLSHandshakeError
from fakenbd.server.transport import Transport

__all__ = ["Session"]

_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

_FLUSHES: Final = 16
"""Sends in a row by the reader, before it lets other tasks run."""

_PUSH_SECONDS: Final = 0.02
"""Seconds after which a client that takes nothing is taken not to read."""


@attrs.define(eq=False)
class Session:
    """Serves one client.

    `secure(transport, step)` performs a TLS handshake or raises TLSHandshakeError, and returns the
    transport over TLS and the version; `away(step)` takes the listeners down.
    """

    conversation: Conversation
    transport: Transport
    secure: Callable[[Transport, StartTLS], Awaitable[tuple[Transport, str]]]
    away: Callable[[TakeListenerDown], None]
    _nursery: trio.Nursery = attrs.field(init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _moved: trio.Event = attrs.field(factory=trio.Event)
    _receiving: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _reader_is_out: trio.Event = attrs.field(factory=trio.Event)
    _has_writer: bool = False
    _is_closing: bool = False
    _hangup: str = ""

    async def run(self) -> None:
        """Serve until the connection ends, and record how in the journal."""
        conversation = self.conversation
        try:
            async with trio.open_nursery() as self._nursery:
                conversation.begin()
                await self._read()
                self._nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    if self._hangup:
                        conversation.ending.because("client", self._hangup)
                    conversation.closed()
                finally:
                    with suppress(*_BROKEN):
                        await self.transport.close()

    # --- reading -------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._is_closing:
            with self._receiving:
                await self._converse()
                return
            # An action cancelled receiving.
            self._receiving = trio.CancelScope()
        self._reader_is_out.set()
        await trio.sleep_forever()

    async def _converse(self) -> None:
        conversation = self.conversation
        get_buffer = conversation.get_buffer
        while True:
            if not self._flush():
                step = conversation.action
                if isinstance(step, CloseConnection) and not self._has_writer and _is_final(step):
                    await self._finish(step.how)
                    return
                if await self._push():
                    continue
                self._wake_writer()
                if not self.transport.blocked:
                    await self._let_writer_send()
            if not conversation.reads:
                if not await self._wait_until_it_reads():
                    return
                continue
            try:
                count = await self.transport.receive_into(get_buffer())
            except _BROKEN as error:
                conversation.client_closed(*self.transport.close_reason(error))
                return
            if count == 0:
                conversation.client_closed(*self.transport.close_reason(None))
                # A client may shut down its sending half only: its replies still leave.
                await self._wait_while(lambda: conversation.owes)
                return
            conversation.buffer_updated(count)

    def _flush(self) -> bool:
        """Send what can leave at once; False where the writer has to continue."""
        conversation, transport = self.conversation, self.transport
        for _ in range(_FLUSHES):
            if conversation.sends:
                buffers = conversation.outgoing()
                if not buffers:
                    return False  # an action comes first
                try:
                    count = transport.try_send(buffers)
                except _BROKEN as error:
                    self._lose(error)
                    return True
                if count:
                    conversation.left(count)
                if transport.blocked or not count:
                    return False
            elif conversation.more:
                conversation.resume()
            else:
                # A reply that waits for a time or for others is left to the writer.
                return not conversation.waits
        return False

    async def _push(self) -> bool:
        """Wait a moment for a client that is slow to take replies; False if it takes none.

        Most likely it requested more than it can take at once; while nothing is read, there is
        nothing else to do.
        """
        transport = self.transport
        if not transport.blocked or self._has_writer:
            return False
        with trio.move_on_after(_PUSH_SECONDS):
            await transport.wait_writable()
            return True
        self.conversation.break_up()
        return False

    async def _let_writer_send(self) -> None:
        """Let the writer send what it can at once, before the next bytes are read."""
        conversation = self.conversation
        if conversation.sends:
            with trio.move_on_after(_PUSH_SECONDS):
                await self._wait_while(lambda: conversation.sends)

    async def _wait_until_it_reads(self) -> bool:
        """Wait until bytes may be received; False where the client has ended the connection."""
        conversation = self.conversation
        conversation.relieve()
        self._wake_writer()
        if self._hangup or conversation.standing.phase is Phase.TLS_HANDSHAKE:
            await self._wait_while(lambda: not conversation.reads)
            return True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_for_hangup, nursery.cancel_scope)
            await self._wait_while(lambda: not conversation.reads)
            nursery.cancel_scope.cancel()
        if self._hangup and not conversation.reads:
            stopped = conversation.standing.receiving is Receiving.STOPPED
            conversation.ending.hung_up(self._hangup, unread=stopped)
            if self._hangup == "RST" or stopped or not conversation.owes:
                await self._wait_while(lambda: self._hangup == "EOF" and conversation.owes)
                return False
        return True

    async def _watch_for_hangup(self, scope: trio.CancelScope) -> None:
        self._hangup = await self.transport.wait_hangup()
        scope.cancel()

    async def _wait_while(self, holds: Callable[[], bool]) -> None:
        self._wake_writer()
        while holds():
            self._moved = trio.Event()
            await self._moved.wait()

    def _wake_writer(self) -> None:
        self._wake.set()
        if not self._has_writer:
            self._has_writer = True
            self._nursery.start_soon(self._write)

    # --- writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        conversation = self.conversation
        turn = 0
        while True:
            self._wake = trio.Event()
            if conversation.outgoing():
                try:
                    await self._send()
                except _BROKEN as error:
                    self._lose(error)
                    await trio.sleep_forever()
                turn += 1
                if not turn % _FLUSHES:
                    await trio.lowlevel.checkpoint()
            elif conversation.action is not None:
                await _ACTIONS[type(conversation.action)](self, conversation.action)
            elif conversation.more:
                conversation.resume()
                await trio.lowlevel.checkpoint()
            else:
                self._moved.set()
                with trio.move_on_at(conversation.deadline()):
                    await self._wake.wait()
                conversation.advance()
                continue
            self._moved.set()

    async def _send(self) -> None:
        """Send a part of what is next, or wait until that is possible.

        Between taking bytes and reporting that they left there is no wait, for the reader sends
        as well; a transport whose sending waits has one sender only.
        """
        conversation, transport = self.conversation, self.transport
        buffers = conversation.outgoing()
        if transport.send_some is not None:
            count = await transport.send_some(buffers)
        else:
            count = transport.try_send(buffers)
        if count:
            conversation.left(count)
        else:
            await transport.wait_writable()

    def _lose(self, error: Exception) -> None:
        how = "EOF" if getattr(error, "errno", None) == errno.EPIPE else "RST"
        # Without the error's number, which people cannot read.
        self._stop("client", how, getattr(error, "strerror", None) or str(error))

    def _stop(self, by: str, how: str, detail: str = "") -> None:
        self.conversation.ending.because(by, how, detail)
        self._nursery.cancel_scope.cancel()

    def _interrupt_reader(self) -> None:
        self._receiving.cancel()

    # --- actions -------------------------------------------------------------------------------

    async def _end(self, step: CloseConnection) -> None:
        conversation = self.conversation
        if step.reading:
            conversation.acted()
            conversation.discard(step)
            self._interrupt_reader()
        elif step.how == "half-close":
            try:
                await self.transport.send_eof()
            except _BROKEN as error:
                self._lose(error)
                await trio.sleep_forever()
            conversation.acted()
        else:
            self._is_closing = True
            self._interrupt_reader()
            await self._reader_is_out.wait()
            await self._finish(step.how)
            self._nursery.cancel_scope.cancel()
            await trio.sleep_forever()

    async def _finish(self, how: str) -> None:
        self.conversation.ending.because("server", "fault")
        await self._close(how)

    async def _close(self, how: str) -> None:
        conversation, transport = self.conversation, self.transport
        announced = conversation.ending.announced
        if not announced:
            conversation.ending.server_closed("RST" if how == "reset" else "EOF")
            conversation.closed()
        if how == "reset":
            await transport.wait_acknowledged()
            transport.reset()
        elif how == "truncate":
            await transport.close_abruptly(conversation.observe)
        else:
            left = await transport.exchange_close_notify() if announced else ""
            if not left:
                left = await transport.linger(conversation.observe)
            if left:
                conversation.client_closed(left)
            elif not announced and transport.lingers:
                conversation.ending.undelivered()

    async def _stop_reading(self, _step: CeaseReading) -> None:
        self.conversation.acted()
        self._interrupt_reader()
        await trio.lowlevel.checkpoint()

    async def _start_tls(self, step: StartTLS) -> None:
        conversation = self.conversation
        if step.skip or not conversation.tls_may_begin():
            conversation.acted()
            await trio.lowlevel.checkpoint()
            return
        try:
            self.transport, version = await self.secure(self.transport, step)
        except TLSHandshakeError as error:
            conversation.tls_failed(error.by, error.how, error.detail, error.head)
            self._nursery.cancel_scope.cancel()
            await trio.sleep_forever()
        conversation.acted()
        conversation.tls_started(version, keep=step.keep)

    async def _take_listener_down(self, step: TakeListenerDown) -> None:
        self.away(step)
        self.conversation.acted()
        await trio.lowlevel.checkpoint()


def _is_final(step: CloseConnection) -> bool:
    """Whether neither side of the connection is used afterwards."""
    return not step.reading and step.how != "half-close"


_ACTIONS: Final[dict[type, Callable[[Session, Any], Awaitable[None]]]] = {
    CloseConnection: Session._end,
    CeaseReading: Session._stop_reading,
    StartTLS: Session._start_tls,
    TakeListenerDown: Session._take_listener_down,
}
