"""From the truth to what is said, on one connection: fire, remember, put on the agenda.

Everything that a connection hears or says passes here, so the journal, the obligations and the
faults see the same conversation. (The hot path of `transmission` records its batches itself, when
it is sure that neither a fault nor an obligation has anything to say about them.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from fakenbd.faults import Faults, FiringRecord
from fakenbd.faults.answer import Answer, BeginShutdown, PaceBytes, RepeatMessages, Step
from fakenbd.faults.event import Event
from fakenbd.journal.obligations import Violation, Watch
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientMessage,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    Raw,
    ServerMessage,
    SimpleReply,
)
from fakenbd.server.agenda import Agenda
from fakenbd.server.service import Service
from fakenbd.server.terms import Terms

__all__ = ["Teller"]

_LEGAL_KINDS: Final = frozenset(
    {"delay", "dribble", "error", "rate", "refuse", "reverse", "split", "shutdown"}
)
"""Kinds of faults that, of themselves, break no MUST."""

_SILENT_KINDS: Final = frozenset({"drop", "hold", "no-greeting", "stall", "stop-reading"})
"""Kinds that may leave a client waiting for an answer that never comes."""


@attrs.define(eq=False)
class Teller:
    """What one connection says and hears; `watch` notices what its client owed."""

    service: Service
    connection: int
    terms: Terms = attrs.field(factory=Terms)
    watch: Watch = attrs.field(factory=Watch)
    shutting_down: bool = False
    faults: Faults = attrs.field(init=False)
    agenda: Agenda = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.faults = self.service.faults
        self.agenda = Agenda(self.service.clock, self._said)

    def name_export(self, name: str) -> None:
        """The client named an export: from here on that export's faults fire."""
        self.faults = self.service.faults_for(name)

    def hear(
        self, message: ClientMessage, size: int, violations: Callable[[], Sequence[Violation]]
    ) -> None:
        """Remember what the client said, in `size` bytes, and what it thereby broke."""
        about = self.service.journal.received(self.connection, message, size, 0)
        self.blame(violations(), about)

    def blame(self, violations: Iterable[Violation], about: int | None = None) -> None:
        """Remember breaches of obligations."""
        for violation in violations:
            self.service.journal.violated(
                self.connection, violation.rule, violation.level, violation.sentence, about
            )

    def tell(self, events: Iterable[Event], answer: Answer) -> Answer:
        """Let the faults change the correct answer to what happened, then say what they made of
        it.
        """
        for event in events:
            answer, fired = self.faults.fire(event, answer)
            self._remember(fired)
            if event.request is not None and fired and any(map(_is_blurred, answer)):
                self.blame(self.watch.blurred(event.request.cookie))
        if any(isinstance(step, BeginShutdown) for step in answer):
            self.shutting_down = True
        self.agenda.put(answer)
        return answer

    def _remember(self, fired: Iterable[FiringRecord]) -> None:
        for firing in fired:
            self.service.journal.fired(
                firing.connection, firing.fault, firing.kinds, firing.occurrence, firing.change
            )
            if self._permits_disconnect(firing):
                self.watch.breached("")

    def _permits_disconnect(self, firing: FiringRecord) -> bool:
        """Whether the client may leave as it likes after this firing."""
        if not _SILENT_KINDS.isdisjoint(firing.kinds):
            # A client cannot wait for ever, whatever the profile says it shows.
            return True
        breaks = self.service.breaks_must
        return not _LEGAL_KINDS.issuperset(firing.kinds) if breaks is None else breaks

    def _said(self, message: ServerMessage, buffers: list[Buffer]) -> None:
        about = self.service.journal.sent(self.connection, message, sum(map(len, buffers)), 0)
        notice = _NOTICES.get(type(message))
        if notice is not None:
            self.blame(notice(self.watch, message), about)


def _is_blurred(step: Step) -> bool:
    """Whether what leaves in this step may be a message, but cannot be told to be one."""
    if isinstance(step, RepeatMessages):
        return any(map(_is_blurred, step.one_round))
    return isinstance(step, Raw) or (isinstance(step, PaceBytes) and not step.messages)


_NOTICES: Final[dict[type, Callable[..., Sequence[Violation]]]] = {
    Greeting: Watch.greeted,
    OldstyleGreeting: Watch.greeted,
    OptionReply: Watch.option_replied,
    ExportNameReply: Watch.export_name_replied,
    SimpleReply: Watch.replied,
    Chunk: Watch.replied,
}
