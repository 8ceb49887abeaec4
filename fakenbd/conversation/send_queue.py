"""The replies of one connection that have not left; none waits for another.

A reply is put in whole, as steps. Steps are taken in order until one has to wait; those taken are
in `out` as SendItems, in the order in which they leave. A reply that waits (for a time, or for
other replies) lets those behind it pass, unless it stopped in the middle of a message: then nothing
else can leave before the rest of that message does. Ties are broken by order of arrival, so that
the same requests give the same bytes.

Messages are encoded when their step is taken, and lazy steps make theirs only then. One turn takes
at most TURN_MESSAGES messages or TURN_BYTES bytes; `more`: there is more to take.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from fakenbd.conversation.send_item import (
    Action,
    Batch,
    SendItem,
    held_size,
    message_item,
    rest,
    rounds,
    writes,
)
from fakenbd.conversation.span import Span, WaitingStep
from fakenbd.faults.answer import (
    Answer,
    BeginShutdown,
    CeaseReading,
    CloseConnection,
    NeverSend,
    PaceBytes,
    Pause,
    RepeatMessages,
    SendPieces,
    StartTLS,
    TakeListenerDown,
    WaitForReplies,
)
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Buffer, Raw

__all__ = ["TURN_BYTES", "TURN_MESSAGES", "PendingReply", "SendQueue"]

TURN_MESSAGES: Final = 256
TURN_BYTES: Final = 1 << 23
NEVER: Final = float("inf")

_GATHERED: Final = 1024


@attrs.define(eq=False)
class PendingReply:
    """A reply whose steps have not all been taken.

    `entry` as in SendItem; `plain`: no fault changed the reply. `done` is called when the last step
    was taken. `fault` is the name of the fault that holds it, for the journal.
    """

    steps: deque[WaitingStep]
    entry: int | None = None
    plain: bool = False
    done: Callable[[], None] | None = None
    fault: str = ""
    split: bool = False
    """Whether the last bytes taken end in the middle of a message."""
    stalled: bool = False
    """Whether it will never continue."""
    lazy: Iterator[SendItem | Pause] | None = None
    size: int = 0


@attrs.define(eq=False)
class SendQueue:
    """`clock` returns seconds; `released(reply)` is called for a reply that is released early."""

    clock: Callable[[], float]
    released: Callable[[PendingReply], None]
    out: deque[SendItem | Batch] = attrs.field(factory=deque)
    more: bool = False
    stalled: bool = False
    """Whether a message was left unfinished for good: nothing else can leave."""
    closing: bool = False
    """Whether the end of the connection was taken: nothing follows it."""
    blocked: bool = False
    """Whether the client does not take the bytes in `out`, as reported by the owner."""
    _running: deque[PendingReply] = attrs.field(factory=deque)
    _due: list[tuple[float, int, PendingReply]] = attrs.field(factory=list)
    _held: list[tuple[float, float, PendingReply]] = attrs.field(factory=list)
    _resumes: float | None = None
    """When the first reply, in the middle of a message, continues."""
    _ready: int = 0
    _waiting: int = 0
    _order: int = 0
    _taken: int = 0
    _active: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that have not left."""
        return self._ready + self._waiting

    @property
    def action(self) -> Action | None:
        """The action that has to be done before the next bytes leave."""
        return self.out[0].action if self.out else None

    @property
    def waits(self) -> bool:
        """Whether replies wait for a time, for others, or for their turn."""
        return bool(self._due or self._held or self._running)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is to be sent."""
        return not (self.out or self._due or self._held or self._running)

    @property
    def is_silent(self) -> bool:
        """Whether replies put in are dropped."""
        return self.stalled or self.closing

    def put(self, reply: PendingReply) -> None:
        """Add a reply, and take its steps up to the first that has to wait."""
        if self.is_silent:
            return
        self._running.append(reply)
        self.pump()
        if self._running and self._running[-1] is reply:
            self._account(reply, sum(map(held_size, reply.steps)))

    def put_messages(self, messages: Answer, entry: int | None) -> None:
        """Add a reply of messages that no fault changed: the fast path for most replies."""
        if self._running or self.is_silent or len(messages) > TURN_MESSAGES:
            self.put(PendingReply(deque(messages), entry, plain=True))
            return
        for message in messages:
            self._add_message(message, entry, plain=True)
        self._count(1)

    def put_batch(self, batch: Batch) -> None:
        """Add replies that are encoded already; `out` must be empty."""
        self.out.append(batch)
        self._ready += batch.size
        self._count(batch.count)

    def replace_batch(self, items: list[SendItem]) -> None:
        """Replace the first batch by those of its replies that have not left."""
        batch = self.out.popleft()
        self._ready += sum(item.size - item.sent for item in items) - (batch.size - batch.sent)
        self.out.extendleft(reversed(items))

    def _count(self, replies: int) -> None:
        self._finish(replies)
        if self._running:
            self.pump()

    def outgoing(self) -> list[Buffer]:
        """The bytes that may leave next, in one call; empty where an action comes first."""
        out = self.out
        if len(out) == 1 and not out[0].sent and out[0].action is None:
            return out[0].buffers
        buffers: list[Buffer] = []
        for item in out:
            if item.action is not None or (item.alone and buffers):
                break
            if item.sent:
                buffers += rest(item)
            else:
                buffers += item.buffers
            if item.alone or len(buffers) >= _GATHERED:
                break
        return buffers

    def left(self, count: int) -> list[SendItem | Batch]:
        """`count` bytes of `outgoing` have left; returns the items that have left whole."""
        through: list[SendItem | Batch] = []
        self._ready -= count
        out = self.out
        while count:
            item = out[0]
            due = item.size - item.sent
            if count < due:
                item.sent += count
                break
            count -= due
            item.sent = item.size
            through.append(out.popleft())
        self.blocked = self.blocked and bool(out)
        return through

    def acted(self) -> None:
        """The first action is done."""
        self.out.popleft()

    def active(self) -> None:
        """Bytes were received: replies that wait until idle wait on."""
        if self._held:
            self._active = self.clock()

    def end(self, action: CloseConnection) -> None:
        """End the connection by `action` once `out` has left; waiting replies never leave."""
        self._clear()
        self.closing = True
        self._add(SendItem([], 0, action=action))

    def drop(self, reply: PendingReply) -> None:
        """Remove a reply; those of its bytes that are in `out` still leave."""
        if reply in self._running:
            if reply is self._running[0]:
                self._resumes = None
            self._running.remove(reply)
        self._due = [each for each in self._due if each[2] is not reply]
        heapq.heapify(self._due)
        self._held = [each for each in self._held if each[2] is not reply]
        self._account(reply, 0)

    def deadline(self) -> float:
        """When a waiting reply continues even if nothing is received; infinity for never."""
        if self._resumes is not None:
            return self._resumes
        when = self._due[0][0] if self._due else NEVER
        if self._held and not self._due:
            when = self._active + min(idle for _, idle, _ in self._held)
        return when

    def advance(self) -> None:
        """Continue every reply whose time has come."""
        now = self.clock()
        if self._resumes is not None and self._resumes > now:
            return
        self._resumes = None
        while self._due and self._due[0][0] <= now:
            self._resume(heapq.heappop(self._due)[2])
        if not self._due and self._held:
            # The same sum as in `deadline`: with another rounding it could be due for ever.
            since = self._active
            self._release(lambda target, idle: since + idle <= now)
        self.pump()

    def relieve(self) -> None:
        """Release what is held for other replies, since no more of them can come."""
        held = [reply for _, _, reply in self._held]
        self._release(lambda target, idle: True)
        for reply in held:
            self.released(reply)
        self.pump()

    def pump(self) -> None:
        """Take steps until every reply waits, or the turn is over."""
        taken = 0
        self.more = False
        while self._running and self._resumes is None and not self.is_silent:
            if taken >= TURN_MESSAGES or self._ready >= TURN_BYTES:
                self.more = True
                break
            self._take(self._running[0])
            # An endless repetition lets other replies pass after each block.
            taken += TURN_MESSAGES if self.out and self.out[-1].counted else 1

    # --- steps ---------------------------------------------------------------------------------

    def _take(self, reply: PendingReply) -> None:
        if reply.lazy is not None:
            item = next(reply.lazy, None)
            if item is None:
                reply.lazy = None
            elif isinstance(item, Pause):
                self._pause(reply, item)
            else:
                self._add(item)
            return
        if not reply.steps:
            self._running.popleft()
            self._account(reply, 0)
            self._finish(1)
            if reply.done is not None:
                reply.done()
            return
        step = reply.steps.popleft()
        if reply.size:
            self._account(reply, reply.size - held_size(step))
        take = _STEPS.get(type(step))
        if take is None:
            self._add_message(step, reply.entry, reply.plain)
            reply.split = isinstance(step, Raw)
        else:
            take(self, reply, step)

    def _add_message(self, message: Any, entry: int | None, plain: bool) -> None:
        buffers = encode_buffers(message)
        self._add(SendItem(buffers, sum(map(len, buffers)), (message,), entry, plain))

    def _add(self, item: SendItem) -> None:
        if not item.size and item.action is None:
            return
        self.out.append(item)
        self._ready += item.size

    def _pause(self, reply: PendingReply, step: Pause) -> None:
        if reply.split or reply.lazy is not None:
            # Nothing else can leave before the rest of the message does.
            self._resumes = self.clock() + step.seconds
            return
        self._running.popleft()
        self._order += 1
        heapq.heappush(self._due, (self.clock() + step.seconds, self._order, reply))
        self._account(reply, sum(map(held_size, reply.steps)))

    def _hold(self, reply: PendingReply, step: WaitForReplies) -> None:
        if reply.split:
            self._pause(reply, Pause(step.idle))
            return
        self._running.popleft()
        target = NEVER if step.replies is None else self._taken + step.replies
        self._held.append((target, step.idle, reply))
        self._active = self.clock()
        self._account(reply, sum(map(held_size, reply.steps)))

    def _stall(self, reply: PendingReply, _step: NeverSend) -> None:
        # Not in the middle of a message: the others continue; this one is never done.
        self._running.popleft()
        self._account(reply, 0)
        reply.stalled = True
        if reply.split:
            self.stalled = True
            self._clear()

    def _pace(self, reply: PendingReply, step: PaceBytes) -> None:
        reply.lazy = writes(step, reply.entry)
        reply.split = not step.messages

    def _repeat(self, reply: PendingReply, step: RepeatMessages) -> None:
        reply.lazy = rounds(step, reply.entry)

    def _pieces(self, reply: PendingReply, step: SendPieces) -> None:
        reply.lazy = (message_item(message, reply.entry) for message in step.messages())
        reply.split = False

    def _act(self, reply: PendingReply, step: Action) -> None:
        if isinstance(step, CloseConnection):
            self.end(step)
        else:
            self._add(SendItem([], 0, entry=reply.entry, action=step))

    def _read(self, reply: PendingReply, step: Span) -> None:
        self._add_message(step.whole(), reply.entry, reply.plain)
        reply.split = False

    def _skip(self, _reply: PendingReply, _step: BeginShutdown) -> None:
        """Do nothing: the conversation has handled this step."""

    # --- waiting -------------------------------------------------------------------------------

    def _finish(self, replies: int) -> None:
        self._taken += replies
        if self._held:
            taken = self._taken
            self._release(lambda target, idle: target <= taken)

    def _release(self, ready: Callable[[float, float], bool]) -> None:
        released = [held for held in self._held if ready(held[0], held[1])]
        if released:
            self._held = [held for held in self._held if not ready(held[0], held[1])]
            for _, _, reply in released:
                self._resume(reply)

    def _resume(self, reply: PendingReply) -> None:
        self._running.append(reply)

    def _account(self, reply: PendingReply, size: int) -> None:
        self._waiting += size - reply.size
        reply.size = size

    def _clear(self) -> None:
        for replies in (self._running, (due[2] for due in self._due), (h[2] for h in self._held)):
            for reply in replies:
                self._account(reply, 0)
        self._running.clear()
        self._due.clear()
        self._held.clear()
        self._resumes = None
        self.more = False


_STEPS: Final[dict[type, Callable[[SendQueue, PendingReply, Any], None]]] = {
    Pause: SendQueue._pause,
    WaitForReplies: SendQueue._hold,
    NeverSend: SendQueue._stall,
    PaceBytes: SendQueue._pace,
    RepeatMessages: SendQueue._repeat,
    SendPieces: SendQueue._pieces,
    Span: SendQueue._read,
    BeginShutdown: SendQueue._skip,
    CloseConnection: SendQueue._act,
    CeaseReading: SendQueue._act,
    StartTLS: SendQueue._act,
    TakeListenerDown: SendQueue._act,
}
