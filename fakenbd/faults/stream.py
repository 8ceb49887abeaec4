"""An answer as a stream of bytes: how long it is, where a message lies in it, and cutting it.

Only what a byte fault touches becomes raw bytes; messages before and after it stay what they are,
so that the journal can still name them. What repeats for ever counts as one round: no position
lies beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from fakenbd.faults.answer import Answer, Forever, Paced, Step
from fakenbd.faults.selection import Selector, is_message, selected
from fakenbd.protocol.encode import encode, encode_buffers
from fakenbd.protocol.messages import Raw, ServerMessage

__all__ = ["byte_count", "carries_bytes", "length", "place_of", "region", "split_at", "step_bytes"]


def carries_bytes(step: Step) -> bool:
    """Whether something goes on the wire in this step."""
    return is_message(step) or isinstance(step, (Paced, Forever))


def step_bytes(step: Step) -> bytes:
    """The bytes of a step; of an endless one a single round, of others none."""
    if isinstance(step, (Paced, Forever)):
        return step.data
    return encode(_message(step)) if is_message(step) else b""


def _message(step: Step) -> ServerMessage:
    return step  # type: ignore[return-value]


def byte_count(step: Step) -> int:
    """How many bytes a step sends."""
    if isinstance(step, (Paced, Forever)):
        return len(step.data)
    if not is_message(step):
        return 0
    return sum(len(buffer) for buffer in encode_buffers(_message(step)))


def length(answer: Iterable[Step]) -> int:
    """How many bytes an answer sends."""
    return sum(map(byte_count, answer))


def region(answer: Answer, at: Selector | None) -> tuple[int, int] | None:
    """Where the selected messages begin and end in the stream; the whole of it for None."""
    if at is None:
        return 0, length(answer)
    places = selected(answer, at)
    if not places:
        return None
    return length(answer[: places[0]]), length(answer[: places[-1] + 1])


def place_of(answer: Answer, at: Selector | None, offset: int) -> int | None:
    """The position in the stream that lies `offset` bytes into the selected messages.

    A negative offset counts from their end. None where there is no such position.
    """
    within = region(answer, at)
    if within is None:
        return None
    start, stop = within
    place = start + offset if offset >= 0 else stop + offset
    return place if start <= place <= stop else None


def split_at(answer: Answer, position: int) -> tuple[Answer, Answer]:
    """The steps before and after a position in the stream; what spans it is parted."""
    head: Answer = []
    for index, step in enumerate(answer):
        if position <= 0:
            return head, answer[index:]
        count = byte_count(step)
        if count > position or isinstance(step, Forever):
            before, after = _parted(step, position)
            return [*head, before], [*after, *answer[index + 1 :]]
        head.append(step)
        position -= count
    return head, []


def _left(sizes: tuple[int, ...], position: int) -> tuple[int, ...]:
    """The sizes of the writes that are still to come at a position."""
    for index, size in enumerate(sizes):
        if position < size:
            return (size - position, *sizes[index + 1 :])
        position -= size
    return ()


def _parted(step: Step, position: int) -> tuple[Step, Answer]:
    data = step_bytes(step)
    before, after = data[:position], data[position:]
    if isinstance(step, Paced):
        size = step.size if isinstance(step.size, int) else _left(step.size, position)
        paced = attrs.evolve(step, messages=())
        return attrs.evolve(paced, data=before), [attrs.evolve(paced, data=after, size=size)]
    if isinstance(step, Forever):
        return Raw(before), [Raw(after), step]
    return Raw(before), [Raw(after)]
