"""What is to leave on one connection, and when: answers that wait never keep the others.

An answer is put in whole. Its steps run until one of them has to wait; what is ready goes to
`ready`, in order, as buffers and as markers that only the session can perform (pace, repeat,
close). Waiting answers are due at a time, or held until others have left. Ties are broken by order
of arrival, never by a scheduler, so that the same conversation gives the same bytes.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

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
    Step,
    TakeListenerDown,
    WaitForReplies,
)
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Buffer, Raw, ServerMessage

__all__ = ["Agenda", "Departure", "Marker", "Plan"]

Marker: TypeAlias = (
    PaceBytes
    | RepeatMessages
    | Pause
    | CloseConnection
    | CeaseReading
    | StartTLS
    | NeverSend
    | BeginShutdown
    | TakeListenerDown
)
Departure: TypeAlias = Buffer | Marker

_MARKERS: Final = (
    PaceBytes,
    RepeatMessages,
    CloseConnection,
    CeaseReading,
    StartTLS,
    BeginShutdown,
    TakeListenerDown,
)

NEVER: Final = float("inf")


@attrs.define(eq=False)
class Plan:
    """One answer on its way: the steps not yet taken, in order."""

    steps: deque[Step]
    broken: bool = False
    """Whether the last thing said was part of a message."""


@attrs.define(eq=False)
class Agenda:
    """`said(message, buffers)` is called for each message at the moment it is ready to leave."""

    clock: Callable[[], float]
    said: Callable[[ServerMessage, list[Buffer]], None]
    ready: list[Departure] = attrs.field(factory=list)
    marked: bool = False
    """Whether `ready` holds a marker."""
    blocked: bool = False
    """Whether something leaves for ever, or part of a message for good: nothing follows it."""
    _due: list[tuple[float, int, Plan]] = attrs.field(factory=list)
    _held: list[tuple[float, float, Plan]] = attrs.field(factory=list)
    _order: int = 0
    _left: int = 0
    _active: float = 0.0

    @property
    def waiting(self) -> int:
        """How many answers wait for a time or for others."""
        return len(self._due) + len(self._held)

    def put(self, answer: Answer) -> None:
        """Begin an answer: what can leave at once is in `ready` afterwards."""
        if not self.blocked:
            self._run(Plan(deque(answer)))

    def gathered(self, buffers: list[Buffer], answers: int) -> None:
        """Whole answers that are encoded already."""
        self.ready += buffers
        if self._held:
            self._depart(answers)

    def active(self) -> None:
        """Something came from the client: whoever waits for idleness waits on."""
        self._active = self.clock()

    def due(self) -> float:
        """When something will be ready without anything coming in; infinity for never."""
        when = self._due[0][0] if self._due else NEVER
        if self._held and not self._due:
            when = min(when, self._active + min(idle for _, idle, _ in self._held))
        return when

    def advance(self) -> None:
        """Go on with every answer whose time has come."""
        now = self.clock()
        while self._due and self._due[0][0] <= now:
            self._run(heapq.heappop(self._due)[2])
        if not self._due and self._held:
            # The same sum as in `due`: by a rounding error less, it would be due for ever.
            since = self._active
            released = [held for held in self._held if since + held[1] <= now]
            self._held = [held for held in self._held if since + held[1] > now]
            for _, _, plan in released:
                self._run(plan)

    def _run(self, plan: Plan) -> None:
        steps = plan.steps
        while steps:
            step = steps.popleft()
            if isinstance(step, Pause) and plan.broken:
                # Nothing else can leave before the rest of the message does.
                self._mark(step)
                continue
            if isinstance(step, Pause):
                self._order += 1
                heapq.heappush(self._due, (self.clock() + step.seconds, self._order, plan))
                return
            if isinstance(step, WaitForReplies):
                target = NEVER if step.replies is None else self._left + step.replies
                self._held.append((target, step.idle, plan))
                self._active = self.clock()
                return
            if isinstance(step, NeverSend):
                if plan.broken:
                    # The rest of the message would have to come first, and it never does.
                    self._mark(step)
                    self.blocked = True
                return
            if isinstance(step, SendPieces):
                steps.extendleft(reversed(list(step.messages())))
            elif isinstance(step, _MARKERS):
                self._mark(step)
                if isinstance(step, RepeatMessages) and step.times is None:
                    self.blocked = True
                    return
            else:
                buffers = encode_buffers(step)
                self.ready += buffers
                plan.broken = isinstance(step, Raw)
                self.said(step, buffers)
        self._depart(1)

    def _mark(self, step: Marker) -> None:
        self.marked = True
        self.ready.append(step)
        messages: tuple[ServerMessage, ...] = ()
        if isinstance(step, PaceBytes):
            messages = step.messages or (Raw(step.data),)
        elif isinstance(step, RepeatMessages):
            messages = step.one_round
        for message in messages:
            self.said(message, encode_buffers(message))

    def _depart(self, answers: int) -> None:
        self._left += answers
        if not self._held:
            return
        released = [held for held in self._held if held[0] <= self._left]
        if released:
            self._held = [held for held in self._held if held[0] > self._left]
            for _, _, plan in released:
                self._run(plan)
