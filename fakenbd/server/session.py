"""One connection in trio: it performs what the conversation has put on its agenda.

The reader receives, lets the conversation answer, and sends what is ready itself: the usual case
costs no task switch. As soon as something needs time (an answer that waits, a paced write, the TLS
handshake) a writer is started, which alone sends until nothing is left, while the reader reads on.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from fakenbd.faults.answer import (
    BeginShutdown,
    CeaseReading,
    CloseConnection,
    NeverSend,
    PaceBytes,
    Pause,
    RepeatMessages,
    StartTLS,
    TakeListenerDown,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Buffer
from fakenbd.server.agenda import Departure
from fakenbd.server.conversation import Conversation
from fakenbd.server.handshake import TLSHandshakeError
from fakenbd.server.transport import Transport

__all__ = ["Session"]

_CROWD: Final = 1 << 14
"""So many answers may wait before the reader waits with them."""

_FAREWELLS: Final = (("client", "DISC", ""), ("client", "ABORT", ""))
"""Ends that the client announced: how it then leaves is its affair, and may be a breach."""

_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define(eq=False)
class Session:
    """`secure(transport, step)` performs a TLS handshake or raises TLSHandshakeError, and returns
    what speaks TLS over the transport, and its version; `away(step)` takes the listeners down.
    """

    conversation: Conversation
    transport: Transport
    secure: Callable[[Transport, StartTLS], Awaitable[tuple[Transport, str]]]
    away: Callable[[TakeListenerDown], None]
    _queue: list[Departure] = attrs.field(factory=list)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _settled: trio.Event = attrs.field(factory=trio.Event)
    _writing: bool = False
    _deaf: bool = False
    _silent: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Serve until the connection ends; the journal then knows how."""
        try:
            async with trio.open_nursery() as nursery:
                with self._scope:
                    try:
                        self.conversation.begin()
                        await self._read(nursery)
                    finally:
                        nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                if self.conversation.ending in _FAREWELLS:
                    self.conversation.parted(await self.transport.part())
                self.conversation.closed()
                await self._close()

    async def _close(self) -> None:
        with suppress(*_BROKEN):
            await self.transport.close()

    # --- reading -------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            with self._reading:
                await self._converse(nursery)
                return
            # A marker wants the reader elsewhere: deaf, or taking a few last bytes.
            self._reading = trio.CancelScope()
            if self._deaf:
                await trio.sleep_forever()

    async def _converse(self, nursery: trio.Nursery) -> None:
        conversation = self.conversation
        agenda = conversation.agenda
        receive_into, room = self.transport.receive_into, conversation.room
        while True:
            if agenda.ready or agenda.waiting:
                await self._hand_over(nursery)
                while conversation.more:
                    conversation.resume()
                    await self._hand_over(nursery)
                if self._writing and await self._is_held_up():
                    receive_into = self.transport.receive_into
            try:
                count = await receive_into(room())
            except _BROKEN as error:
                await self._hear_end(error)
                return
            if count == 0:
                await self._hear_end(None)
                return
            conversation.received(count)

    async def _is_held_up(self) -> bool:
        """Wait for the writer where reading on would be wrong or too much; True if it was so."""
        conversation = self.conversation
        held_up = False
        while self._writing and (
            conversation.secure or conversation.agenda.waiting + len(self._queue) > _CROWD
        ):
            held_up = True
            await self._wait_for_writer()
        return held_up

    async def _wait_for_writer(self) -> None:
        self._settled = trio.Event()
        await self._settled.wait()

    async def _hear_end(self, error: Exception | None) -> None:
        how, detail = self.transport.fate(error)
        if error is None:
            # A client may shut down its sending half only: what it is owed still leaves.
            while self._writing and not self._silent:
                await self._wait_for_writer()
        self.conversation.end("client", how, detail)

    async def _hand_over(self, nursery: trio.Nursery) -> None:
        agenda = self.conversation.agenda
        ready = agenda.ready
        if not (self._writing or agenda.marked or agenda.waiting):
            agenda.ready = []
            # What `_send` does, without another coroutine for every turn of the hot path.
            try:
                await self.transport.send(ready)  # type: ignore[arg-type]
            except _BROKEN as error:
                self._lose(error)
            return
        self._queue += ready
        agenda.ready, agenda.marked = [], False
        self._wake.set()
        if not self._writing:
            self._writing = True
            nursery.start_soon(self._write)

    # --- writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        agenda = self.conversation.agenda
        while True:
            self._wake = trio.Event()
            if self._queue:
                departures, self._queue = self._queue, []
                await self._perform(departures)
                continue
            self.conversation.advance()
            if agenda.ready:
                self._queue += agenda.ready
                agenda.ready, agenda.marked = [], False
                continue
            if not agenda.waiting:
                break
            self._settled.set()
            with trio.move_on_at(agenda.due()):
                await self._wake.wait()
        self._writing = False
        self._settled.set()

    async def _perform(self, departures: list[Departure]) -> None:
        buffers: list[Buffer] = []
        for departure in departures:
            if isinstance(departure, bytes | bytearray | memoryview):
                buffers.append(departure)
                continue
            if buffers:
                await self._send(buffers)
                buffers = []
            await _PERFORMANCES[type(departure)](self, departure)
        if buffers:
            await self._send(buffers)

    async def _send(self, buffers: list[Buffer]) -> None:
        try:
            await self.transport.send(buffers)
        except _BROKEN as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        how = "EOF" if getattr(error, "errno", None) == errno.EPIPE else "RST"
        self._stop("client", how, _reason(error))

    def _stop(self, by: str, how: str, detail: str = "") -> None:
        self.conversation.end(by, how, detail)
        self._scope.cancel()

    # --- markers -------------------------------------------------------------------------------

    async def _pause(self, step: Pause) -> None:
        await trio.sleep(step.seconds)

    async def _pace(self, step: PaceBytes) -> None:
        for index, data in enumerate(step.writes()):
            if index and step.seconds:
                await trio.sleep(step.seconds)
            await self._send([data])

    async def _repeat(self, step: RepeatMessages) -> None:
        one = b"".join(map(encode, step.one_round))
        left = math.inf if step.times is None else step.times
        together = 1 if step.seconds else max(1, (1 << 16) // len(one))
        while left > 0:
            rounds = int(min(left, together))
            await self._send([one * rounds])
            left -= rounds
            await trio.sleep(step.seconds if left else 0)

    async def _end(self, step: CloseConnection) -> None:
        if step.reading:
            self.conversation.swallow(step)
            self._reading.cancel()
            return
        if step.how == "half-close":
            try:
                await self.transport.finish()
            except _BROKEN as error:
                self._stop("client", "RST", _reason(error))
            return
        if step.how == "reset":
            self.transport.reset()
        elif step.how == "truncate":
            self.transport.truncate()
        self._stop("server", "fault" if self.conversation.ending is None else "closed")

    async def _stop_reading(self, _step: CeaseReading) -> None:
        self._deaf = True
        self._reading.cancel()
        await trio.lowlevel.checkpoint()

    async def _silence(self, _step: NeverSend) -> None:
        # Nothing will ever leave again, so nobody need wait for it.
        self._silent = True
        self._settled.set()
        await trio.sleep_forever()

    async def _start_tls(self, step: StartTLS) -> None:
        if step.skip:
            await trio.lowlevel.checkpoint()
            return
        try:
            self.transport, version = await self.secure(self.transport, step)
        except TLSHandshakeError as error:
            self.conversation.not_upgraded(error.by, error.how, error.detail, error.head)
            self._scope.cancel()
        else:
            self.conversation.upgraded(version, keep=step.keep)

    async def _shut_down(self, _step: BeginShutdown) -> None:
        await trio.lowlevel.checkpoint()

    async def _go_away(self, step: TakeListenerDown) -> None:
        self.away(step)
        await trio.lowlevel.checkpoint()


def _reason(error: Exception) -> str:
    # The number of an error says nothing to people.
    return getattr(error, "strerror", None) or str(error)


_PERFORMANCES: Final[dict[type, Callable[[Session, Any], Awaitable[None]]]] = {
    Pause: Session._pause,
    PaceBytes: Session._pace,
    RepeatMessages: Session._repeat,
    CloseConnection: Session._end,
    CeaseReading: Session._stop_reading,
    NeverSend: Session._silence,
    StartTLS: Session._start_tls,
    BeginShutdown: Session._shut_down,
    TakeListenerDown: Session._go_away,
}
