"""The options of the handshake: received at once, acted on one after the other.

An option is recorded and observed when it was received, regardless of replies still to be sent. It
is acted on once the reply to the one before it is done: its last step taken, or all of it dropped;
after a stall no option is acted on. Only then do phase and negotiated state change. One exception:
NBD_OPT_ABORT is acted on at once.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from fakenbd.conversation.framing import frame
from fakenbd.conversation.outcome import Outcome, export_named, is_refused, negotiate, outcome_of
from fakenbd.conversation.responder import Responder
from fakenbd.conversation.send_queue import PendingReply
from fakenbd.errors import ProtocolError
from fakenbd.faults import Choice
from fakenbd.faults.answer import Answer, StartTLS
from fakenbd.protocol.constants import Option
from fakenbd.protocol.messages import OptionRequest, Request

__all__ = ["Negotiation", "Received"]

_LOOKED_AHEAD: Final = 64


@attrs.frozen
class Received:
    """A whole message, and the index of its entry in the journal."""

    message: OptionRequest | Request
    entry: int


@attrs.define(eq=False)
class _Current:
    """The option whose reply is not done yet."""

    request: OptionRequest
    entry: int
    choice: Choice | None
    reply: PendingReply | None = None
    messages: Answer = attrs.field(factory=list)


@attrs.define(eq=False)
class Negotiation:
    """`outcome` is that of the last option that is done."""

    responder: Responder
    outcome: Outcome = Outcome.OPTIONS
    inbox: list[Received] = attrs.field(factory=list)
    """Messages received and not acted on yet."""
    _current: _Current | None = None

    @property
    def looks_ahead(self) -> bool:
        """Whether more may be received: not after STARTTLS, where the bytes may be TLS."""
        if self.is_silent:
            return True
        if len(self.inbox) >= _LOOKED_AHEAD:
            return False
        last: object = None
        if self.inbox:
            last = self.inbox[-1].message
        elif self._current is not None:
            last = self._current.request
        return not (isinstance(last, OptionRequest) and last.option == Option.STARTTLS)

    @property
    def is_silent(self) -> bool:
        """Whether STARTTLS will never be done: the client's bytes of TLS are discarded."""
        current = self._current
        return (
            current is not None
            and current.reply is not None
            and current.reply.stalled
            and current.request.option == Option.STARTTLS
        )

    def take(self, view: memoryview) -> int | None:
        """Receive all messages in `view`, and act on the next one; returns the bytes used.

        None if nothing can be done now. Raises ProtocolError for bytes that are no message of the
        handshake, once all messages before them were acted on.
        """
        used = 0
        broken: ProtocolError | None = None
        while self.looks_ahead:
            try:
                message, size = frame(view[used:], option=True)
            except ProtocolError as error:
                broken = error
                break
            if message is None:
                break
            self._receive(message, size)
            used += size
        if self._current is None and self.inbox:
            request = self.inbox[0].message
            if not isinstance(request, Request):
                self._act(request, self.inbox.pop(0).entry)
            elif not used:
                # Not before the bytes that were received here are the caller's no more.
                raise ProtocolError("a request came where an option was due", rule="C-110")
        elif broken is not None and self._current is None:
            raise broken
        elif not used:
            return None
        return used

    def _receive(self, message: OptionRequest | Request, size: int) -> None:
        received = Received(message, self.responder.received(message, size))
        if (
            self._current is not None
            and isinstance(message, OptionRequest)
            and message.option == Option.ABORT
        ):
            self._give_up(self._current)
        self.inbox.append(received)

    def answered(self, entry: int, messages: Answer, last: bool) -> None:
        """The source's correct reply, or a part of it, to the option that was PENDING."""
        current = self._current
        if current is None or current.entry != entry:
            return  # NBD_OPT_ABORT was received since
        current.messages.extend(messages)
        if last:
            self._reply(current, current.messages)

    def _give_up(self, current: _Current) -> None:
        if current.reply is not None:
            self.responder.queue.drop(current.reply)
        self._current = None
        self.inbox.clear()

    def _act(self, request: OptionRequest, entry: int) -> None:
        responder = self.responder
        name = export_named(request)
        if name is not None:
            responder.name_export(name)
        event = responder.event(
            "option", option=request.option, option_request=request, export=name or ""
        )
        choice = responder.faults.choose(event) or None
        current = self._current = _Current(request, entry, choice)
        correct = responder.option(request, entry, choice)
        if correct is not None:
            self._reply(current, correct)

    def _reply(self, current: _Current, correct: Answer) -> None:
        responder = self.responder
        request, choice = current.request, current.choice
        outcome = outcome_of(request, correct)
        answer: Answer = [*correct, StartTLS()] if outcome is Outcome.TLS else list(correct)
        plain = effect = True
        if choice is not None:
            answer, plain, _ = responder.apply(choice, answer, current.entry)
            # The client takes the option for refused, so it is not acted on.
            refused = is_refused(answer) and not (choice.replaces or is_refused(correct))
            effect = choice.effect and not refused
            if not effect:
                # A DROPPED option has no correct reply, but a fault may have given it one.
                outcome = Outcome.OPTIONS
        if outcome is Outcome.TLS and not any(_begins_tls(step) for step in answer):
            outcome = Outcome.OPTIONS

        def done() -> None:
            self._current = None
            if effect:
                negotiate(responder.state, request, correct)
            self.outcome = outcome

        current.reply = PendingReply(deque(answer), current.entry, plain, done)
        responder.queue.put(current.reply)


def _begins_tls(step: Any) -> bool:
    return isinstance(step, StartTLS) and not step.skip
