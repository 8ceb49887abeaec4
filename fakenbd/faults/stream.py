"""An answer as a stream of bytes: how long it is, where a message lies in it, and cutting it.

Only what a byte fault touches becomes raw bytes; messages before and after it stay what they are,
so that the journal can still name them. What repeats for ever counts as one round: no position
lies beyond it. Steps after a cut are built lazily.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import attrs

from fakenbd.faults.answer import Answer, PaceBytes, RepeatMessages, SendPieces, Step, message_size
from fakenbd.faults.selection import Selector, is_message, materialised, selected
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Raw, ServerMessage

__all__ = ["byte_count", "carries_bytes", "length", "place_of", "region", "split_at", "step_bytes"]


def carries_bytes(step: Step) -> bool:
    """Whether something goes on the wire in this step."""
    return is_message(step) or isinstance(step, (PaceBytes, RepeatMessages, SendPieces))


def step_bytes(step: Step) -> bytes:
    """The bytes of a step; of an endless one a single round, of others none."""
    if isinstance(step, PaceBytes):
        return step.data
    if isinstance(step, RepeatMessages):
        return b"".join(map(encode, step.one_round)) * (step.times or 1)
    if isinstance(step, SendPieces):
        return b"".join(map(encode, step.messages()))
    return encode(_message(step)) if is_message(step) else b""


def _message(step: Step) -> ServerMessage:
    return step  # type: ignore[return-value]


def byte_count(step: Step) -> int:
    """How many bytes a step sends, in a single round of an endless one."""
    if isinstance(step, PaceBytes):
        return len(step.data)
    if isinstance(step, RepeatMessages):
        return step.size() * (step.times or 1)
    if isinstance(step, SendPieces):
        return step.size()
    return message_size(_message(step)) if is_message(step) else 0


def length(answer: Iterable[Step]) -> int:
    """How many bytes an answer sends."""
    return sum(map(byte_count, answer))


def region(answer: Answer, at: Selector | None) -> tuple[int, int] | None:
    """Where the selected messages begin and end in the stream; the whole of it for None."""
    if at is None:
        return 0, length(answer)
    answer = materialised(answer)
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


def split_at(answer: Iterable[Step], position: int) -> tuple[Answer, Iterator[Step]]:
    """The steps before and after a position in the stream; a step that spans it is split."""
    head: Answer = []
    steps = iter(answer)
    while position > 0 and (step := next(steps, None)) is not None:
        count = byte_count(step)
        is_endless = isinstance(step, RepeatMessages) and step.times is None
        if count > position or (is_endless and count):
            before, after = _split_step(step, position)
            return head + before, chain(after, steps)
        head.append(step)
        position -= count
    return head, steps


def _split_step(step: Step, position: int) -> tuple[Answer, Iterator[Step]]:
    if isinstance(step, SendPieces):
        return split_at(step.messages(), position)
    if isinstance(step, RepeatMessages):
        rounds, within = divmod(position, step.size())
        head, rest = split_at(step.one_round, within)
        left = None if step.times is None else step.times - rounds
        if not within:
            return _rounds(step, rounds), iter(_rounds(step, left))
        left = None if left is None else left - 1
        return _rounds(step, rounds) + head, chain(rest, _rounds(step, left))
    data = step_bytes(step)
    before, after = data[:position], data[position:]
    if isinstance(step, PaceBytes):
        size = step.size if isinstance(step.size, int) else _left(step.size, position)
        paced = attrs.evolve(step, messages=())
        return [attrs.evolve(paced, data=before)], iter(
            (attrs.evolve(paced, data=after, size=size),)
        )
    return [Raw(before)], iter((Raw(after),))


def _rounds(step: RepeatMessages, times: int | None) -> Answer:
    """So many rounds of a step; none and one are no step of their own."""
    if times == 0:
        return []
    if times == 1:
        return list(step.one_round)
    return [attrs.evolve(step, times=times)]


def _left(sizes: tuple[int, ...], position: int) -> tuple[int, ...]:
    """The sizes of the writes that are still to come at a position."""
    for index, size in enumerate(sizes):
        if position < size:
            return (size - position, *sizes[index + 1 :])
        position -= size
    return ()
