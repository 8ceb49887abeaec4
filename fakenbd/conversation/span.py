"""Content of replies that wait: not held, but read again when they leave.

Only content that never changes can be read again, and only if it gives the bytes that were read at
first: then neither a fault nor a client has changed them. Other content is held.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import attrs

from fakenbd.export import Export
from fakenbd.export.export import StableRead
from fakenbd.faults.answer import Answer, Pause, Step, WaitForReplies
from fakenbd.protocol.messages import Chunk, Data, Request, SimpleReply

__all__ = ["Span", "WaitingStep", "waiting_steps"]

_LEAST: Final = 1 << 16
"""Bytes of content that are worth being read twice."""


@attrs.frozen
class Span:
    """Step: send `message` with `length` bytes of content from `offset` on, which it is without."""

    message: SimpleReply | Chunk
    read: StableRead
    offset: int
    length: int

    def whole(self) -> SimpleReply | Chunk:
        """The message with its content."""
        content = self.read(self.offset, self.length)
        if isinstance(self.message, SimpleReply):
            return attrs.evolve(self.message, data=content)
        return attrs.evolve(self.message, body=Data(self.offset, content))


WaitingStep: TypeAlias = Step | Span


def waiting_steps(answer: Answer, request: Request, export: Export | None) -> Iterable[WaitingStep]:
    """The steps of a reply that waits; `export` is the one that was read, None if it is unknown."""
    waits = any(isinstance(step, Pause | WaitForReplies) for step in answer)
    if export is None or not waits:
        return answer
    return [_without_content(step, request, export) for step in answer]


def _without_content(step: Step, request: Request, export: Export) -> WaitingStep:
    if isinstance(step, SimpleReply):
        offset, data = request.offset, step.data
    elif isinstance(step, Chunk) and isinstance(step.body, Data):
        offset, data = step.body.offset, step.body.data
    else:
        return step
    if len(data) < _LEAST:
        return step
    read = export.reads_again(offset, data)
    if read is None:
        return step
    empty = (
        attrs.evolve(step, data=b"")
        if isinstance(step, SimpleReply)
        else attrs.evolve(step, body=Data(offset, b""))
    )
    return Span(empty, read, offset, len(data))
