"""When an answer leaves: later, after others, slowly, or never. Other answers go on meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs

from fakenbd.faults.answer import Answer, NeverSend, PaceBytes, Pause, WaitForReplies
from fakenbd.faults.change_summary import counted, ended, pacing
from fakenbd.faults.firing import Firing
from fakenbd.faults.readers import byte_size, duration, integer, positive, shown
from fakenbd.faults.registry import Kind, register
from fakenbd.faults.selection import Selector, is_message, materialised, optional_selector, selected
from fakenbd.faults.stream import place_of, split_at, step_bytes

__all__ = ["Delay", "Hold", "Rate", "Stall"]

_WRITES_A_SECOND: Final = 50

_Wait = TypeVar("_Wait", Pause, WaitForReplies)


@register("delay", family="time", main="seconds", breaks_must=False)
@attrs.frozen
class Delay(Kind):
    """Let time pass before the answer leaves, or before some of its messages.

    Between two messages other answers go on, so that chunks of several replies interleave. While
    16 MiB wait, not counting content that can be read again, nothing is received.

    Example: do = { delay = 2, jitter = 0.5 }

    seconds: how long (required)
    jitter: up to so many seconds more, drawn by seed (default 0.0)
    at: before each of these messages instead of the whole answer (default nothing)
    """

    seconds: float = attrs.field(converter=duration)
    jitter: float = attrs.field(default=0.0, converter=duration)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        if not self.seconds + self.jitter:
            return answer, ""
        random = firing.random()

        def pause() -> Pause:
            more = self.jitter * random.random() if self.jitter else 0.0
            return Pause(self.seconds + more)

        return _before(answer, self.at, pause, lambda step: f"delayed by {step.seconds:g} s")


def _before(
    answer: Answer, at: Selector | None, wait: Callable[[], _Wait], words: Callable[[_Wait], str]
) -> tuple[Answer, str]:
    """The answer with a wait before it, or before each of the selected messages."""
    if at is None:
        first = wait()
        return [first, *answer], words(first)
    answer = materialised(answer)
    places = set(selected(answer, at))
    changed: Answer = []
    notes: Counter[str] = Counter()
    for place, step in enumerate(answer):
        if place in places:
            waiting = wait()
            notes[words(waiting)] += 1
            changed.append(waiting)
        changed.append(step)
    return changed, "; ".join(
        note if times == 1 else f"{note}, {times} times" for note, times in notes.items()
    )


def _replies(value: Any) -> int | None:
    if value in (None, "idle"):
        return None
    if isinstance(value, str):
        raise ValueError(f'expected a whole number from 1 or "idle", got {shown(value)}')
    return positive(value)


@register("hold", family="time", main="replies", breaks_must=False)
@attrs.frozen
class Hold(Kind):
    """Keep the answer back until other answers have left, or until the conversation is idle.

    Idleness always releases it, so that a client that waits for it is not held for ever. So do
    16 MiB that wait, not counting content that can be read again.

    Example: do = { hold = 2 }

    replies: how many other answers go first, or "idle" for all of them (default "idle")
    idle: seconds without any traffic that count as idle (default 0.05)
    at: before each of these messages instead of the whole answer (default nothing)
    """

    replies: int | None = attrs.field(default=None, converter=_replies)
    idle: float = attrs.field(default=0.05, converter=duration)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        if self.replies is None:
            note = "held until idle"
        else:
            note = f"held until {counted(self.replies, 'other answer')} left"
        hold = WaitForReplies(self.replies, self.idle)
        return _before(answer, self.at, lambda: hold, lambda _: note)


@register("stall", family="time", main="byte", may_stall=True)
@attrs.frozen
class Stall(Kind):
    """Never go on with the answer. In mid-message that silences the whole connection.

    Example: do = { stall = 8, at = "last" }

    byte: bytes that leave before; a negative number counts from the end (default 0)
    at: count within these messages instead of the whole answer (default nothing)
    """

    byte: int = attrs.field(default=0, converter=integer)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        place = place_of(answer, self.at, self.byte)
        if place is None:
            return answer, ""
        head, _ = split_at(answer, place)
        changed = [*head, NeverSend()]
        return changed, ended(answer, changed)


def _rate(value: Any) -> int:
    rate = byte_size(value)
    if not rate:
        raise ValueError("expected at least 1 byte a second, got 0")
    return rate


@register("rate", family="time", main="rate", breaks_must=False)
@attrs.frozen
class Rate(Kind):
    """Send the answer slowly, in about fifty writes a second, or one byte at a time below that.

    Example: do = { rate = "64KiB" }

    rate: bytes a second, from 1 (required)
    """

    rate: int = attrs.field(converter=_rate)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        size = max(1, self.rate // _WRITES_A_SECOND)
        answer = materialised(answer)
        changed: Answer = [
            PaceBytes(step_bytes(step), size, size / self.rate, (step,))  # type: ignore[arg-type]
            if is_message(step)
            else step
            for step in answer
        ]
        is_paced = any(map(is_message, answer))
        return changed, pacing(size, size / self.rate) if is_paced else ""
