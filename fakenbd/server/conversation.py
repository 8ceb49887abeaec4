"""One connection as a machine of bytes: what came in, what is to leave, and nothing of sockets.

    bytes -> decode -> message -> journal, obligations -> true answer -> faults -> agenda -> bytes

The owner reads into `room()` and says `received(count)`; then it takes what is `ready` on the
agenda and performs it. While `more` is set there is work left in the buffer that would have
produced too much to send at once: `resume()` after sending. While `secure` is set the owner must
perform the TLS handshake on the agenda before it reads on.

The phases follow the specification: the client's flags, options, transmission. A buffer is never
larger than twice what has really come in, whatever a length field says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.faults import refusal_answer
from fakenbd.faults.answer import Answer, CloseConnection, NeverSend, StartTLS
from fakenbd.faults.event import Event
from fakenbd.journal.obligations import Violation, Watch
from fakenbd.protocol.constants import ClientFlag, HandshakeFlag, Option, Reply
from fakenbd.protocol.decode_client import decode_client_flags, decode_option_request
from fakenbd.protocol.messages import (
    ClientFlags,
    ExportName,
    Greeting,
    InfoQuery,
    MetaContextQuery,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
)
from fakenbd.server.agenda import Agenda
from fakenbd.server.options import Decision, decide
from fakenbd.server.service import Service
from fakenbd.server.teller import Teller
from fakenbd.server.transmission import Transmission

__all__ = ["Conversation"]

_FIRST_BUFFER: Final = 1 << 12
_LARGE_BUFFER: Final = 1 << 20
_LARGEST_IDLE_BUFFER: Final = 1 << 22
_LARGEST_OPTION: Final = 1 << 18
_LEAVINGS: Final = ("EOF", "RST", "TLS close")


@attrs.define(eq=False)
class Conversation:
    """The server's side of one connection, from the greeting to the end."""

    service: Service
    connection: int
    client: object = None
    teller: Teller = attrs.field(init=False)
    agenda: Agenda = attrs.field(init=False)
    """What is to leave."""
    transmission: Transmission = attrs.field(init=False)
    more: bool = False
    secure: bool = False
    over: bool = False
    ending: tuple[str, str, str] | None = None
    """By whom, how and why the connection ends, once that is known."""
    _buffer: bytearray = attrs.field(factory=lambda: bytearray(_FIRST_BUFFER))
    _view: memoryview = attrs.field(init=False)
    _start: int = 0
    _end: int = 0
    _phase: Callable[[], bool] = attrs.field(init=False)
    _swallow: CloseConnection | None = None
    _swallowed: int = 0
    _early: bool = False
    _leaving: bool = False
    _parting: str = ""

    def __attrs_post_init__(self) -> None:
        self._view = memoryview(self._buffer)
        self.teller = Teller(
            self.service,
            self.connection,
            watch=Watch(clientele=self.service.clientele, client=self.client),
        )
        self.agenda = self.teller.agenda
        self.transmission = Transmission(self.teller)
        self._phase = self._client_flags

    @property
    def _offered(self) -> int:
        """The handshake flags that are true of this server."""
        handshake = self.service.catalogue.handshake
        flags = HandshakeFlag.FIXED_NEWSTYLE if handshake.style == "fixed" else 0
        return int(flags | (HandshakeFlag.NO_ZEROES if handshake.no_zeroes else 0))

    # --- the owner's calls ---------------------------------------------------------------------

    def begin(self) -> None:
        """The connection is there: greet."""
        handshake = self.service.catalogue.handshake
        terms = self.teller.terms
        if self.service.breaks_must and not self.service.faults:
            # The lie is in what is served, and stands there from the beginning.
            self.teller.watch.excused = True
        if handshake.style == "oldstyle":
            export = self.service.catalogue.find("")
            assert export is not None, "a server has an export"
            terms.open(export, export.name)
            self.teller.name_export(export.name)
            greeting: Answer = [OldstyleGreeting(export.size, terms.flags(export))]
            self._phase = self._transmit
        else:
            greeting = [Greeting(self._offered)]
        self.teller.tell(
            (Event("connect", self.connection), Event("greeting", self.connection)), greeting
        )
        self._settle()

    def room(self) -> memoryview:
        """Where to receive into; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _LARGEST_IDLE_BUFFER:
                self._replace(_LARGE_BUFFER)
        elif self._start and (
            self._end == len(self._buffer)
            or len(self._buffer) - self._start < self.transmission.needed
        ):
            self._move(len(self._buffer))
        if self._end == len(self._buffer):
            self._move(len(self._buffer) * (4 if len(self._buffer) < _LARGE_BUFFER else 2))
        if self._swallow is not None:
            return self._view[: self._swallow.reading - self._swallowed]
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """So many bytes came into `room()`."""
        if self._swallow is not None:
            self._swallowed += count
            if self._swallowed >= self._swallow.reading:
                self._finish(self._swallow)
            return
        if self.agenda.waiting:
            self.agenda.active()
        self._end += count
        if self._end == len(self._buffer) < _LARGE_BUFFER:
            self._move(len(self._buffer) * 4)
        self.resume()

    def resume(self) -> None:
        """Go on with what is in the buffer."""
        self.more = False
        while not self._leaving and self._start < self._end and self._phase():
            pass
        self._settle()

    def advance(self) -> None:
        """Time has passed, or bytes have left: go on with answers that waited for it."""
        self.agenda.advance()
        self._settle()

    def upgraded(self, version: str = "", *, keep: bool = False) -> None:
        """The TLS handshake succeeded: all said before is void, unless the lie is to `keep` it."""
        self.secure = False
        if keep:
            self.teller.terms.tls = True
        else:
            self.teller.terms.forget()
        self.teller.blame(self.teller.watch.tls_started(version))

    def not_upgraded(self, by: str, how: str, detail: str, head: bytes) -> None:
        """There is no TLS, and the connection is of no use any more.

        `head` are the first bytes that the client sent in place of a handshake, or of one.
        """
        watch = self.teller.watch
        if head:
            self.teller.blame(watch.misframed(head))  # C-52
        self.teller.blame(watch.tls_failed())
        self.end(by, how, detail)

    def parted(self, how: str) -> None:
        """The client announced its end and then left like that; "" if nobody knows how."""
        self._parting = how

    def swallow(self, end: CloseConnection) -> None:
        """Take `end.reading` more bytes from the client, then end."""
        self._start = self._end = 0
        self._swallow = end

    def end(self, by: str, how: str, detail: str = "") -> None:
        """The connection ends; the first reason given is the one that is remembered."""
        if self.ending is None:
            self.ending = (by, how, detail)

    def closed(self) -> None:
        """Nothing more will come or go: remember how it ended."""
        if self.over:
            return
        self.over = True
        by, how, detail = self.ending or ("server", "closed", "")
        watch = self.teller.watch
        if by == "client" and how in _LEAVINGS:
            self.teller.blame(watch.ended(how, "client", self._end - self._start))
        elif self._parting in _LEAVINGS:
            self.teller.blame(watch.ended(self._parting, "client", 0))  # C-62
        else:
            # After DISC and ABORT too: without TLS the server closes first and never sees how the
            # client would.
            self.teller.blame(watch.ended("EOF", "server", 0))
        self.service.journal.closed(self.connection, by, how, detail)
        self.service.faults.forget(self.connection)
        self.teller.faults.forget(self.connection)

    # --- phases: each takes one thing from the buffer and says whether it could ------------------

    def _client_flags(self) -> bool:
        decoded = decode_client_flags(self._view[self._start : self._end])
        if decoded is None:
            return False
        message, taken = decoded
        self._start += taken
        watch = self.teller.watch
        self.teller.hear(message, taken, lambda: watch.client_flags(message))
        if refusal := self._flags_refused(message):
            self.end("server", "refused", refusal)
            self.agenda.put([CloseConnection()])
            return False
        terms = self.teller.terms
        terms.fixed = bool(message.flags & ClientFlag.FIXED_NEWSTYLE)
        terms.no_zeroes = bool(message.flags & ClientFlag.NO_ZEROES)
        self._phase = self._option
        return True

    def _flags_refused(self, message: ClientFlags) -> str:
        extra = message.flags & ~self._offered
        return f"client flags {extra:#x} match nothing that was offered" if extra else ""

    def _option(self) -> bool:
        teller = self.teller
        try:
            decoded = decode_option_request(
                self._view[self._start : self._end], limit=_LARGEST_OPTION
            )
        except ProtocolError as error:
            misframed = teller.watch.misframed(self._head())
            if not misframed and error.rule == "C-12":
                misframed = [Violation(error.rule, str(error))]
            teller.blame(misframed)
            self.end("server", "refused", str(error))
            self.agenda.put([CloseConnection()])
            return False
        if decoded is None:
            return False
        request, taken = decoded
        self._start += taken
        early = self._early
        # Whatever is here already was sent before the answer that is only made now.
        self._early = self._start < self._end
        teller.hear(request, taken, lambda: teller.watch.option(request, early=early))
        self._answer_option(request)
        return True

    def _answer_option(self, request: OptionRequest) -> None:
        teller = self.teller
        terms = teller.terms
        body = request.body
        named = ""
        if isinstance(body, ExportName | InfoQuery | MetaContextQuery):
            named = body.name
            teller.name_export(named)
        event = Event(
            "option",
            self.connection,
            option=request.option,
            option_request=request,
            tls=terms.tls,
            structured=terms.structured,
            extended=terms.extended,
            export=named,
        )
        decision = self._decide(request)
        if decision.outcome == "transmit" and self._start < self._end:
            # What is here already did not wait for the answer that is only made now.  C-110
            teller.blame(teller.watch.misframed(self._head()))
        answer = teller.tell((event,), decision.answer)
        if _refused(answer) and not _refused(decision.answer):
            return
        if decision.commit is not None:
            decision.commit(terms)
        self._follow(decision, answer)

    def _decide(self, request: OptionRequest) -> Decision:
        if self.teller.shutting_down and request.option != Option.ABORT:
            return Decision(
                refusal_answer(request.option, Reply.ERR_SHUTDOWN, "the server is shutting down")
            )
        if self.service.catalogue.handshake.style == "newstyle" and request.option != (
            Option.EXPORT_NAME
        ):
            # Without fixed newstyle there is no reply to any other option.
            return Decision([], "drop")
        return decide(self.service.catalogue, self.teller.terms, request)

    def _follow(self, decision: Decision, answer: Answer) -> None:
        if decision.outcome == "transmit":
            self._phase = self._transmit
        elif decision.outcome == "leave":
            self.end("client", "ABORT")
            self._leaving = True
            self._after_abort()
        elif decision.outcome == "drop":
            self.end("server", "refused", "the option could not be met and has no reply for that")
            self._leaving = True
        elif any(isinstance(step, StartTLS) and not step.skip for step in answer):
            self.secure = True
            self._phase = self._handshake_pending
            if self._start < self._end:
                self._plaintext()
        elif decision.outcome == "tls" and any(isinstance(step, NeverSend) for step in answer):
            # What the client takes for a handshake must not end the silence.
            self._phase = self._nothing

    def _after_abort(self) -> None:
        """Blame the client for what it sent behind ABORT."""
        watch = self.teller.watch
        rest = self._view[self._start : self._end]
        try:
            decoded = decode_option_request(rest, limit=_LARGEST_OPTION)
        except ProtocolError:
            decoded = None
        if decoded is not None:
            option, taken = decoded
            self.teller.hear(option, taken, lambda: watch.option(option))
        elif len(rest):
            self.teller.blame(watch.misframed(self._head()))  # C-133

    def _handshake_pending(self) -> bool:
        if not self.secure:
            self._phase = self._option
            return True
        self._plaintext()
        return False

    def _plaintext(self) -> None:
        self.teller.blame(self.teller.watch.misframed(self._head()))
        # Bytes of before must never be taken for bytes that TLS protected.
        self.end("server", "refused", "plaintext received after NBD_OPT_STARTTLS")
        self._leaving = True
        self.secure = False

    def _transmit(self) -> bool:
        transmission = self.transmission
        self._start = transmission.take(self._buffer, self._view, self._start, self._end)
        self.more = transmission.more
        if transmission.refused:
            self.end("server", "refused", transmission.refused)
            self._leaving = True
        elif transmission.left:
            self.end("client", "DISC")
            self._leaving = True
            self.teller.blame(self.teller.watch.bytes_after_disc(self._end - self._start))
        elif transmission.over:
            self._phase = self._nothing
        return False

    # --- below the surface ---------------------------------------------------------------------

    def _head(self) -> memoryview:
        """The first bytes of what is in the buffer, enough to tell what it is."""
        return self._view[self._start : min(self._start + 8, self._end)]

    def _settle(self) -> None:
        """Close once the client has left and every answer that it is owed has left too."""
        if self._leaving and not self.agenda.waiting:
            self._finish(CloseConnection())

    def _finish(self, end: CloseConnection) -> None:
        self._swallow = None
        self._leaving = False
        self._phase = self._nothing
        self._start = self._end = 0
        self.agenda.put([attrs.evolve(end, reading=0)])

    def _nothing(self) -> bool:
        self._start = self._end = 0
        return False

    def _move(self, capacity: int) -> None:
        if capacity == len(self._buffer):
            self._view[: self._end - self._start] = self._view[self._start : self._end]
        else:
            self._replace(capacity)
        self._start, self._end = 0, self._end - self._start

    def _replace(self, capacity: int) -> None:
        buffer = bytearray(capacity)
        buffer[: self._end - self._start] = self._view[self._start : self._end]
        self._buffer = buffer
        self._view = memoryview(buffer)


def _refused(answer: Answer) -> bool:
    return any(isinstance(step, OptionReply) and (step.type or 0) & 0x80000000 for step in answer)
