"""Puts the reply to each message into the queue, and records what was received and what left.

Every message passes here once on its way in (journal, observer) and every reply once on its way out
(choose, correct reply, apply, queue), and is recorded when it has left. Faults are chosen before
the correct reply is made, because one that replaces it prevents the effect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from fakenbd.conversation.send_item import Batch, SendItem, broken_up
from fakenbd.conversation.send_queue import PendingReply, SendQueue
from fakenbd.conversation.shared_state import SharedState
from fakenbd.conversation.source import PENDING
from fakenbd.conversation.span import waiting_steps
from fakenbd.errors import ServeError
from fakenbd.faults import Choice, Event, Faults, error_answer, refusal_answer
from fakenbd.faults.answer import Answer, BeginShutdown
from fakenbd.faults.stream import byte_count
from fakenbd.obligations import Finding, Gap, Observer
from fakenbd.protocol.constants import Command, Error, Option, Reply
from fakenbd.protocol.messages import (
    Buffer,
    ClientMessage,
    OptionRequest,
    Raw,
    Request,
)
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Outstanding", "Responder"]

_SHUTTING_DOWN = "the server is shutting down"


@attrs.frozen
class Outstanding:
    """A request whose correct reply the source gives later."""

    request: Request
    choice: Choice | None
    messages: Answer = attrs.field(factory=list)


@attrs.define(eq=False)
class Responder:
    """The replies of one connection; `state` is what the server has negotiated."""

    shared: SharedState
    connection: int
    client: object
    connected_at: float
    state: NegotiatedState = attrs.field(factory=NegotiatedState)
    observer: Observer = attrs.field(init=False)
    queue: SendQueue = attrs.field(init=False)
    faults: Faults = attrs.field(init=False)
    shutting_down: bool = False
    outstanding: dict[int, Outstanding] = attrs.field(factory=dict)
    received_at: float = 0.0
    _unrecorded: list[Buffer] = attrs.field(factory=list)
    """Bytes that left, of a message that has not left whole."""
    _sent_to: int = 0
    """The offset in the server's stream up to which messages are recorded."""

    def __attrs_post_init__(self) -> None:
        shared = self.shared
        self.observer = Observer(client=self.client, siblings=shared.siblings)
        self.queue = SendQueue(shared.clock, self._released)
        self.faults = shared.faults

    def name_export(self, name: str) -> None:
        """The client named an export: from now on that export's faults fire."""
        self.faults = self.shared.faults_for(name)

    # --- in ------------------------------------------------------------------------------------

    def received(self, message: ClientMessage, size: int) -> int:
        """Record a whole message of `size` bytes; returns the index of its entry in the journal."""
        observer = self.observer
        entry = self.shared.journal.received(self.connection, message, size, observer.client_offset)
        findings = observer.client_message(message, size, self.shared.clock())
        if findings:
            self.violations(findings, entry)
        return entry

    def violations(self, findings: Sequence[Finding], entry: int | None = None) -> None:
        """Record the client's violations; those of this server are intended."""
        for finding in findings:
            if finding.side == "client":
                self.shared.journal.violated(
                    self.connection,
                    finding.rule,
                    finding.level,
                    finding.sentence,
                    entry,
                    finding.offset,
                )

    def event(self, kind: str, **facts: object) -> Event:
        """An event of this connection, with all that conditions may use."""
        state, shared = self.state, self.shared
        return Event(
            kind,  # type: ignore[arg-type]
            self.connection,
            tls=state.tls,
            structured=state.structured,
            extended=state.extended,
            now=shared.clock(),
            connected_at=self.connected_at,
            last_received_at=self.received_at,
            clients=shared.clients,
            **facts,  # type: ignore[arg-type]
        )

    # --- requests ------------------------------------------------------------------------------

    def request(self, request: Request, entry: int, failure: Exception | None = None) -> None:
        """Answer a request that was recorded as `entry`.

        `failure` is the exception of the content, if the request was tried already.
        """
        choice = None
        if request.command in self.faults.touched_commands:
            event = self.event("command", request=request, export=self.state.export or "")
            choice = self.faults.choose(event) or None
        correct = self._correct(request, entry, choice, failure)
        if correct is None:
            self.outstanding[entry] = Outstanding(request, choice)
        else:
            self._put(choice, correct, request, entry)

    def _correct(
        self, request: Request, entry: int, choice: Choice | None, failure: Exception | None
    ) -> Answer | None:
        if request.command == Command.DISC:
            # The command has no reply, so a fault on it can only change the closing.
            return []
        if self.shutting_down:
            return self._error(request, Error.ESHUTDOWN, _SHUTTING_DOWN)
        if isinstance(failure, OSError | ServeError):
            return self._error(request, Error.EIO, str(failure))
        if failure is not None:
            raise failure
        correct = self.shared.source.answer(
            (self.connection, entry), request, self.state, effect=choice is None or choice.effect
        )
        return None if correct is PENDING else correct

    def _error(self, request: Request, error: int, text: str) -> Answer:
        state = self.state
        return error_answer(
            request, error, structured=state.structured, extended=state.extended, message=text
        )

    def answered(self, entry: int, messages: Answer, last: bool) -> None:
        """The source's correct reply, or a part of it, to a request that was PENDING."""
        waiting = self.outstanding[entry]
        if waiting.choice is None and not last:
            self.queue.put_messages(messages, entry)
            return
        waiting.messages.extend(messages)
        if last:
            del self.outstanding[entry]
            self._put(waiting.choice, waiting.messages, waiting.request, entry)

    def _put(self, choice: Choice | None, correct: Answer, request: Request, entry: int) -> None:
        if choice is None:
            self.queue.put_messages(correct, entry)
            return
        answer, plain, fault = self.apply(choice, correct, entry)
        steps = waiting_steps(answer, request, self.shared.source.direct(self.state))
        self.queue.put(PendingReply(deque(steps), entry, plain, fault=fault))

    def apply(self, choice: Choice, correct: Answer, entry: int | None) -> tuple[Answer, bool, str]:
        """The reply after the chosen faults, whether none fired, and the last that did."""
        answer, fired = self.faults.apply(choice, correct)
        fault = ""
        for firing in fired:
            fault = firing.fault
            self.shared.journal.fired(
                self.connection,
                firing.fault,
                firing.kinds,
                firing.occurrence,
                firing.change,
                entry,
            )
        if any(isinstance(step, BeginShutdown) for step in answer):
            self.shutting_down = True
        return answer, not fired, fault

    # --- options -------------------------------------------------------------------------------

    def option(self, request: OptionRequest, entry: int, choice: Choice | None) -> Answer | None:
        """The correct reply to an option, None where the source gives it later."""
        if self.shutting_down and request.option != Option.ABORT:
            if request.option == Option.EXPORT_NAME:
                return []
            return refusal_answer(request.option, Reply.ERR_SHUTDOWN, _SHUTTING_DOWN)
        effect = choice is None or choice.effect
        correct = self.shared.source.answer(
            (self.connection, entry), request, self.state, effect=effect
        )
        return None if correct is PENDING else correct

    # --- out -----------------------------------------------------------------------------------

    def left(self, count: int) -> None:
        """`count` bytes of the queue have left."""
        for item in self.queue.left(count):
            if isinstance(item, Batch):
                self._batch_left(item)
            else:
                self._left(item)

    def _batch_left(self, batch: Batch) -> None:
        shared, observer = self.shared, self.observer
        shared.journal.plain_batch(
            self.connection,
            batch.headers,
            batch.count,
            batch.payloads,
            batch.buffers,
            extended=False,
            structured=batch.structured,
            stable_read=batch.stable_read,
            at=observer.client_offset,
            sent_at=self._sent_to,
            received=batch.received,
            sent=batch.size,
        )
        self._sent_to += batch.size
        observer.plain_batch(batch.headers, batch.count, 0.0, batch.received, batch.size)

    def break_up_batch(self) -> None:
        """Split the first batch, which the client does not take: what has left is a smaller batch.

        The other requests are recorded one by one, and their replies wait one by one.
        """
        front = self.queue.out[0] if self.queue.out else None
        if not isinstance(front, Batch):
            return
        whole, replies = broken_up(front)
        if whole is not None:
            self._batch_left(whole)
        items = []
        for request, size, item in replies:
            item.entry = self.received(request, size)
            items.append(item)
        self.queue.replace_batch(items)

    def _left(self, item: SendItem) -> None:
        observer, shared = self.observer, self.shared
        now = shared.clock()
        findings: list[Finding] = []
        if item.counted:
            findings += observer.server_sent(Gap(item.size), now)
        elif item.plain and observer.server_at_boundary:
            findings += observer.server_message(item.messages[0], item.size, now)
        else:
            for buffer in item.buffers:
                findings += observer.server_sent(buffer, now)
        entry = None
        if len(item.messages) == 1 and not self._unrecorded:
            entry = shared.journal.sent(
                self.connection, item.messages[0], item.size, self._sent_to, item.entry
            )
            self._sent_to += item.size
        else:
            entry = self._record(item)
        if findings:
            self.violations(findings, entry)

    def _record(self, item: SendItem) -> int | None:
        """Record the messages that ended in a write; the bytes of a partial one are kept."""
        entry = None
        self._unrecorded += item.buffers
        for message in item.messages:
            size = byte_count(message)
            entry = self.shared.journal.sent(
                self.connection, message, size, self._sent_to, item.entry
            )
            self._sent_to += size
            rest = memoryview(b"".join(self._unrecorded))[size:]
            self._unrecorded = [rest] if rest else []
        return entry

    def finish(self) -> None:
        """Nothing more will leave: record the bytes of a message that left in part."""
        now = self.shared.clock()
        self.outstanding.clear()
        for item in self.queue.out:
            if item.sent:
                part = b"".join(item.buffers)[: item.sent]
                self._unrecorded.append(part)
                self.violations(self.observer.server_sent(part, now))
                break
        part = b"".join(self._unrecorded)
        if part:
            self.shared.journal.sent(self.connection, Raw(part), len(part), self._sent_to)
            self._unrecorded = []

    def _released(self, reply: PendingReply) -> None:
        self.shared.journal.noted(
            self.connection,
            f"released a reply held by fault '{reply.fault}': "
            f"{self.queue.size} bytes were waiting to leave",
        )
