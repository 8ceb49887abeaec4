"""One connection as a state machine: bytes in, bytes out.

    bytes in -> decode -> validate -> faults chosen -> correct reply -> faults applied -> queue
        |                                                                                  |
     observer <------------------------------ what really left <-------------------- bytes out

The owner receives into `get_buffer()` and calls `buffer_updated(count)`, as for asyncio's
BufferedProtocol. It sends what `outgoing()` returns and calls `left(count)` with what the kernel
took; where `action` is set it does that first and calls `acted()`. While `more` is set there is
work left: `resume()` after sending. At `deadline()` it calls `advance()`. While `reads` is False it
receives nothing.

The state of the connection is in `standing`, see phases.py, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from fakenbd.conversation.ending import Ending
from fakenbd.conversation.greeting import greeting
from fakenbd.conversation.negotiation import Negotiation
from fakenbd.conversation.outcome import Outcome
from fakenbd.conversation.phases import Phase, Receiving, Sending, Standing
from fakenbd.conversation.receive_buffer import ReceiveBuffer
from fakenbd.conversation.responder import Responder
from fakenbd.conversation.send_item import Action
from fakenbd.conversation.send_queue import TURN_BYTES, PendingReply
from fakenbd.conversation.shared_state import SharedState
from fakenbd.conversation.transmission import Transmission
from fakenbd.errors import ProtocolError
from fakenbd.faults.answer import Answer, CeaseReading, CloseConnection
from fakenbd.obligations import Finding
from fakenbd.protocol.decode_client import decode_client_flags
from fakenbd.protocol.messages import Buffer, ClientFlags, Raw, Request

__all__ = ["QUEUE_BOUND", "Conversation"]

QUEUE_BOUND: Final = 1 << 24
"""Bytes; while more wait to leave, nothing is received."""


@attrs.define(eq=False)
class Conversation:
    """The server's side of connection number `connection`, from the greeting to the end.

    `client` is the label of its client, None where that is unknown.
    """

    shared: SharedState
    connection: int
    client: object = None
    standing: Standing = attrs.field(factory=Standing)
    responder: Responder = attrs.field(init=False)
    more: bool = False
    ending: Ending = attrs.field(init=False)
    _negotiation: Negotiation = attrs.field(init=False)
    _transmission: Transmission = attrs.field(init=False)
    _buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    _go_on: Callable[[Conversation], bool] = attrs.field(init=False)
    _full: bool = False
    """Whether bytes received wait until more has left."""
    _discard: int = 0
    _discarded: CloseConnection | None = None

    def __attrs_post_init__(self) -> None:
        shared = self.shared
        self._go_on = _PHASES[self.standing.phase]
        client = shared.client if self.client is None else self.client
        self.responder = Responder(shared, self.connection, client, shared.clock())
        self.ending = Ending(self.responder)
        self._negotiation = Negotiation(self.responder)
        self._transmission = Transmission(self.responder)

    # --- the owner's calls: begin, receive ------------------------------------------------------

    def begin(self) -> None:
        """The connection was made: send the greeting."""
        responder = self.responder
        self.shared.clients += 1
        answer: Answer = [greeting(self.shared, responder.state)]
        if responder.state.export is not None:
            responder.name_export(responder.state.export)
        plain = True
        for kind in ("connect", "greeting"):
            choice = responder.faults.choose(responder.event(kind))
            if choice:
                answer, unchanged, _ = responder.apply(choice, answer, None)
                plain = plain and unchanged
        responder.queue.put(PendingReply(deque(answer), None, plain, self._greeted))
        self._settle()

    def get_buffer(self) -> memoryview:
        """The buffer to receive into; never empty."""
        room = self._buffer.room(self._transmission.needed)
        return room[: self._discard] if self._discard else room

    def buffer_updated(self, count: int) -> None:
        """`count` bytes were received into `get_buffer()`."""
        if self._discarded is not None:
            self._discard -= count
            if self._discard <= 0:
                end, self._discarded = self._discarded, None
                self.standing.receive(Receiving.OPEN)
                self.responder.queue.end(attrs.evolve(end, reading=0))
            return
        responder = self.responder
        responder.queue.active()
        if self._go_on is not _TRANSMIT or responder.faults.touched_commands:
            responder.received_at = self.shared.clock()
        self._buffer.add(count)
        self._continue()

    def resume(self) -> None:
        """Continue with the bytes received, unless too much waits to leave already."""
        queue = self.responder.queue
        if queue.size < QUEUE_BOUND or queue.more:
            self._continue()
        else:
            self.more, self._full = False, True

    def _continue(self) -> None:
        self.more = self._full = False
        queue = self.responder.queue
        if queue.more:
            queue.pump()
        while not queue.more and self._go_on(self):
            pass
        self._settle()

    def advance(self) -> None:
        """Time has passed: continue replies that waited for it."""
        self.responder.queue.advance()
        self.resume()

    def answered(self, entry: int, messages: Answer, last: bool) -> None:
        """The source gives its correct reply, or a part of it, to a message that was PENDING.

        `entry` is the second part of the token.
        """
        if entry in self.responder.outstanding:
            self.responder.answered(entry, messages, last)
        else:
            self._negotiation.answered(entry, messages, last)
        self.resume()

    @property
    def reads(self) -> bool:
        """Whether bytes may be received now."""
        receiving, phase = self.standing.receiving, self.standing.phase
        if receiving is not _OPEN:
            return receiving is Receiving.DISCARDING
        if self.more or self.responder.queue.size >= QUEUE_BOUND:
            return False
        if self._go_on is _TRANSMIT:
            return True
        return phase is not Phase.TLS_HANDSHAKE and (
            phase is not Phase.OPTIONS or self._negotiation.looks_ahead
        )

    # --- the owner's calls: send ----------------------------------------------------------------

    @property
    def action(self) -> Action | None:
        """The action that has to be done before the next bytes leave."""
        return self.responder.queue.action

    @property
    def sends(self) -> bool:
        """Whether there are bytes or actions that can leave now."""
        return bool(self.responder.queue.out)

    @property
    def waits(self) -> bool:
        """Whether replies wait for a time, for others, or for their turn."""
        return self.responder.queue.waits

    @property
    def owes(self) -> bool:
        """Whether bytes or replies are still to leave."""
        if self.standing.sending is not Sending.OPEN:
            return False
        return bool(self.responder.outstanding) or not self.responder.queue.idle

    def outgoing(self) -> Sequence[Buffer]:
        """The bytes to send next, by one call; none where an action comes first."""
        return self.responder.queue.outgoing()

    def left(self, count: int) -> None:
        """`count` bytes of `outgoing()` have left."""
        self.responder.left(count)
        self._settle()

    def break_up(self) -> None:
        """The client does not take what is being sent: the replies of a batch wait one by one."""
        self.responder.break_up_batch()
        self.responder.queue.blocked = self.sends
        self.resume()

    def acted(self) -> None:
        """The first action is done."""
        action = self.action
        self.responder.queue.acted()
        if isinstance(action, CeaseReading):
            self.standing.receive(Receiving.STOPPED)
        elif isinstance(action, CloseConnection) and action.how == "half-close":
            self.standing.send(Sending.SHUT)
            self.ending.because("server", "fault")
            self.ending.server_closed("EOF")

    def deadline(self) -> float:
        """When `advance` has to be called even if nothing is received; infinity for never."""
        return self.responder.queue.deadline()

    def relieve(self) -> None:
        """Nothing is received because too much waits to leave: release replies that are held."""
        if self.responder.queue.size >= QUEUE_BOUND:
            self.responder.queue.relieve()

    # --- the owner's calls: TLS -----------------------------------------------------------------

    def tls_may_begin(self) -> bool:
        """Whether the TLS handshake may begin; ends the connection if plaintext was received."""
        if not len(self._buffer.unused()):
            return True
        # Bytes received before must never be taken for bytes that TLS protected.  C-52
        self._observe_unused()
        self._refuse("plaintext received after NBD_OPT_STARTTLS")
        self._settle()
        return False

    def tls_started(self, version: str, *, keep: bool) -> None:
        """TLS is in force: reset all that was negotiated, unless a fault is to `keep` it."""
        state = self.responder.state
        if keep:
            state.tls = True
        else:
            state.forget()
        self._enter(Phase.OPTIONS)
        self._violations(self.responder.observer.tls_started(version, self.shared.clock()))

    def tls_failed(self, by: str, how: str, detail: str, head: bytes) -> None:
        """The TLS handshake failed, and with it the connection.

        `head` are the first bytes that the client sent in it, or in place of it.
        """
        self._violations(self.responder.observer.tls_failed(by, head, self.shared.clock()))
        self.ending.because(by, how, detail)
        self._enter(Phase.DISCONNECTING)

    # --- the owner's calls: the end -------------------------------------------------------------

    def discard(self, end: CloseConnection) -> None:
        """Discard `end.reading` more bytes from the client, then end."""
        self._buffer.clear()
        self._discard, self._discarded = end.reading, end
        self.standing.receive(Receiving.DISCARDING)

    def observe(self, data: Buffer) -> None:
        """Record bytes that were received while the connection ends."""
        if self.ending.announced:
            self._violations(self.responder.observer.client_sent(data, self.shared.clock()))

    def client_closed(self, how: str, detail: str = "") -> None:
        """The client's end was read: "EOF", "RST", "TLS close" or a failure of TLS."""
        if self._go_on is not _DISCONNECT or self.ending.announced:
            self._observe_unused()
        self.standing.receive(Receiving.ENDED)
        self.ending.client_closed(how, detail)

    def closed(self) -> None:
        """The transport is closed: record how the connection ended."""
        if self.standing.phase is Phase.CLOSED:
            return
        self.ending.record()
        self._enter(Phase.CLOSED)
        self.shared.clients -= 1
        self.shared.faults.forget(self.connection)
        self.responder.faults.forget(self.connection)

    # --- phases: each does one step and returns whether there may be another ----------------------

    def _greeted(self) -> None:
        oldstyle = self.shared.handshake.style == "oldstyle"
        self._enter(Phase.TRANSMISSION if oldstyle else Phase.CLIENT_FLAGS)

    def _wait(self) -> bool:
        return False

    def _client_flags(self) -> bool:
        buffer = self._buffer
        decoded = decode_client_flags(buffer.unused())
        if decoded is None:
            return False
        message, size = decoded
        buffer.start += size
        self.responder.received(message, size)
        state = self.responder.state
        state.client_flags = message.flags
        refusal = _flags_refused(message, state.handshake_flags)
        if refusal:
            self._refuse(refusal)
            return False
        self._enter(Phase.OPTIONS)
        return True

    def _options(self) -> bool:
        negotiation, buffer = self._negotiation, self._buffer
        if negotiation.is_silent:
            buffer.clear()
            return False
        outcome = negotiation.outcome
        if outcome is not Outcome.OPTIONS:
            negotiation.outcome = Outcome.OPTIONS
            self._follow(outcome)
            return True
        try:
            size = negotiation.take(buffer.unused())
        except ProtocolError as error:
            self._observe_unused()
            self._refuse(str(error))
            return False
        if size is None:
            return False
        buffer.start += size
        return True

    def _follow(self, outcome: Outcome) -> None:
        if outcome is Outcome.TRANSMISSION:
            self._enter(Phase.TRANSMISSION)
        elif outcome is Outcome.TLS:
            self._enter(Phase.TLS_HANDSHAKE)
        elif outcome is Outcome.ABORTED:
            self.ending.because("client", "ABORT")
            self._enter(Phase.DISCONNECTING)
        else:
            self._refuse("the option could not be met and has no reply for that")

    def _transmit(self) -> bool:
        transmission, buffer = self._transmission, self._buffer
        inbox = self._negotiation.inbox
        early = bool(inbox)
        if early:
            if self.responder.queue.size >= TURN_BYTES:
                self.more = True
                return False
            received = inbox.pop(0)
            if not isinstance(received.message, Request):
                self._refuse("an option came where a request was due")
                return False
            transmission.answer(received.message, received.entry)
        else:
            buffer.start = transmission.take(buffer.data, buffer.view, buffer.start, buffer.end)
            self.more = transmission.more
        if transmission.refused:
            self._observe_unused()
            self._refuse(transmission.refused)
        elif transmission.disconnected:
            self.ending.because("client", "DISC")
            self._enter(Phase.DISCONNECTING)
            return True
        return early

    def _disconnecting(self) -> bool:
        if self.ending.announced:
            self._observe_unused()
        self._buffer.clear()
        return False

    # --- internals -----------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self.standing.enter(phase)
        self._go_on = _PHASES[phase]

    def _refuse(self, why: str) -> None:
        self.ending.because("server", "refused", why)
        self._enter(Phase.DISCONNECTING)

    def _observe_unused(self) -> None:
        """Record and observe bytes that will not be decoded."""
        unused = bytes(self._buffer.unused())
        if unused:
            responder = self.responder
            at = responder.observer.client_offset
            entry = self.shared.journal.received(self.connection, Raw(unused), len(unused), at)
            findings = responder.observer.client_sent(unused, self.shared.clock())
            responder.violations(findings, entry)
            self._buffer.clear()

    def _violations(self, findings: Sequence[Finding]) -> None:
        if findings:
            self.responder.violations(findings)

    def _settle(self) -> None:
        """Apply the state of the queue; close once all that was owed has left."""
        queue = self.responder.queue
        if queue.more or (self._full and queue.size < QUEUE_BOUND):
            self.more = True
        if queue.stalled:
            self.standing.send(Sending.STALLED)
        elif queue.closing:
            if self.standing.phase not in (Phase.DISCONNECTING, Phase.CLOSED):
                self._enter(Phase.DISCONNECTING)
                self._buffer.clear()
        elif self._go_on is _DISCONNECT and not (queue.waits or self.responder.outstanding):
            queue.end(CloseConnection())


def _flags_refused(message: ClientFlags, offered: int) -> str:
    extra = message.flags & ~offered
    return f"client flags {extra:#x} match nothing that was offered" if extra else ""


_OPEN: Final = Receiving.OPEN
_TRANSMIT: Final = Conversation._transmit
_DISCONNECT: Final = Conversation._disconnecting
_PHASES: Final[dict[Phase, Callable[[Conversation], bool]]] = {
    Phase.GREETING: Conversation._wait,
    Phase.CLIENT_FLAGS: Conversation._client_flags,
    Phase.OPTIONS: Conversation._options,
    Phase.TLS_HANDSHAKE: Conversation._wait,
    Phase.TRANSMISSION: _TRANSMIT,
    Phase.DISCONNECTING: _DISCONNECT,
    Phase.CLOSED: _DISCONNECT,
}
