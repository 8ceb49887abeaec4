"""A stream during the handshake: performs the steps of a negotiation, each under its deadline.

A deadline covers everything from one Send to the next: neither the number of replies nor slow bytes
extend it. Where the negotiation ends while options may still be sent, by a refusal, a deadline or a
cancellation, the last message is ABORT, unless a message is half sent or half received.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import attrs
import trio

from fakenbd.client.negotiation import Negotiation
from fakenbd.client.option import Handshake, Receive, Send
from fakenbd.client.transport import broken
from fakenbd.errors import ConnectionLostError, DeadlineExceededError, ProtocolError, TLSError

__all__ = ["Channel", "Timeouts", "Upgrader"]

CHUNK: Final = 1 << 16

_T = TypeVar("_T")

Upgrader = Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]]


@attrs.frozen
class Timeouts:
    """Seconds that each wait may take; no wait is without a limit.

    `option` is for all replies to one option and for the TLS handshake; `reply` from a request to
    the last chunk of its reply, with one more second for each MiB of payload in flight; `stall` for
    sending while the server takes nothing.
    """

    connect: float = 15.0
    greeting: float = 15.0
    option: float = 15.0
    reply: float = 30.0
    stall: float = 30.0
    close: float = 5.0

    @classmethod
    def of(cls, seconds: float) -> Timeouts:
        """The same timeout for each wait, but at most the default for closing."""
        return cls(seconds, seconds, seconds, seconds, seconds, min(seconds, cls().close))

    @classmethod
    def given(cls, timeout: float | Timeouts | None) -> Timeouts:
        """Timeouts from a caller's argument: the defaults, one number for all, or Timeouts."""
        if timeout is None:
            return cls()
        return timeout if isinstance(timeout, Timeouts) else cls.of(timeout)


@attrs.define(eq=False)
class Channel:
    """The stream under a negotiation, and the bytes received that are not used yet."""

    stream: trio.abc.Stream
    deadlines: Timeouts = Timeouts()
    upgrader: Upgrader | None = None
    incoming: bytearray = attrs.field(factory=bytearray, init=False)
    _mid_message: bool = attrs.field(default=False, init=False)

    async def perform(self, handshake: Handshake[_T], *, seconds: float | None = None) -> _T:
        """Perform all steps. Raises what the negotiation raises, ConnectionLostError and
        DeadlineExceededError.

        `seconds` are for the steps before the first Send (default: the greeting's) and, if given,
        for each step.
        """
        awaiting = "greeting"
        allowed = self.deadlines.greeting if seconds is None else seconds
        with trio.move_on_after(allowed) as scope:
            try:
                step = next(handshake)
                while True:
                    if isinstance(step, Send):
                        awaiting = step.awaiting
                        allowed = self.deadlines.option if seconds is None else seconds
                        scope.deadline = trio.current_time() + allowed
                        await self._send(step.data)
                        step = next(handshake)
                    elif isinstance(step, Receive):
                        try:
                            message = await self._receive(step, awaiting)
                        except (ConnectionLostError, ProtocolError) as error:
                            step = handshake.throw(error)
                        else:
                            step = handshake.send(message)
                    else:
                        awaiting = "end of the TLS handshake"
                        scope.deadline = trio.current_time() + allowed
                        await self._upgrade()
                        step = next(handshake)
            except StopIteration as end:
                result: _T = end.value
                return result
        raise DeadlineExceededError(f"no {awaiting} came within {allowed:g} s")

    async def leave(self, negotiation: Negotiation, error: BaseException | None = None) -> None:
        """End a session in the handshake, after `error` or because it is not needed any more."""
        given_up = isinstance(error, (DeadlineExceededError, trio.Cancelled))
        lost = isinstance(error, (ConnectionLostError, ProtocolError)) and not given_up
        intact = not (lost or self._mid_message)
        with trio.move_on_after(self.deadlines.close, shield=True) as scope:
            if intact and negotiation.negotiating:
                with contextlib.suppress(ConnectionLostError):
                    # Its reply would come behind the one whose deadline has passed.
                    abort = negotiation.abort(awaited=not given_up)
                    await self.perform(abort, seconds=self.deadlines.close)
            elif intact and negotiation.transmitting:
                await self._send(negotiation.disconnect())
            await self.stream.aclose()
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self.stream)

    async def _send(self, data: bytes) -> None:
        self._mid_message = True
        # What the server sent before it closed is a better explanation, and is read next.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(data)
        self._mid_message = False

    async def _receive(self, step: Receive, awaiting: str) -> object:
        while True:
            with memoryview(self.incoming) as view:
                decoded = step.decode(view)
            self._mid_message = decoded is None and bool(self.incoming)
            if decoded is not None:
                message, length = decoded
                del self.incoming[:length]
                return message
            try:
                data = await self.stream.receive_some(CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                cause = error.__cause__
                if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                    # For example, because it requires a client certificate.
                    raise TLSError(f"the server ended TLS: {cause.reason or cause}") from error
                reason = broken(error)
                raise ConnectionLostError(
                    f"the connection broke while the {awaiting} was due: {reason}"
                ) from error
            if not data:
                raise ConnectionLostError(
                    f"the server closed the connection while the {awaiting} was due"
                )
            self.incoming += data

    async def _upgrade(self) -> None:
        if self.incoming:  # S-105
            count = len(self.incoming)
            raise ProtocolError(
                f"{count} bytes came in clear behind the NBD_REP_ACK to NBD_OPT_STARTTLS",
                rule="S-105",
            )
        assert self.upgrader is not None, "a negotiation that asks for TLS has an upgrader"
        self.stream = await self.upgrader(self.stream)
