"""The bytes received from a client that are not used yet.

A buffer grows with the bytes received, never with what a length field announces, and shrinks again
once it is empty.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["ReceiveBuffer"]

_FIRST: Final = 1 << 10
_LARGE: Final = 1 << 20
_LARGEST_IDLE: Final = 1 << 22


@attrs.define(eq=False)
class ReceiveBuffer:
    """`data[start:end]` are the bytes received; `view` is a memoryview of all of `data`."""

    data: bytearray = attrs.field(factory=lambda: bytearray(_FIRST))
    view: memoryview = attrs.field(init=False)
    start: int = 0
    end: int = 0

    def __attrs_post_init__(self) -> None:
        self.view = memoryview(self.data)

    def room(self, needed: int) -> memoryview:
        """The part to receive into, never empty; `needed` bytes from `start` on are waited for."""
        if self.start == self.end:
            self.start = self.end = 0
            if len(self.data) > _LARGEST_IDLE:
                self._replace(_LARGE)
            return self.view
        if self.start and (self.end == len(self.data) or len(self.data) - self.start < needed):
            self._move()
        if self.end == len(self.data):
            self._replace(len(self.data) * (4 if len(self.data) < _LARGE else 2))
        return self.view[self.end :]

    def add(self, count: int) -> None:
        """`count` bytes were received into `room`."""
        self.end += count
        if self.end == len(self.data) and self.end < _LARGE:
            self._replace(len(self.data) * 4)

    def unused(self) -> memoryview:
        """The bytes received and not used."""
        return self.view[self.start : self.end]

    def clear(self) -> None:
        """Discard them."""
        self.start = self.end = 0

    def _move(self) -> None:
        self.view[: self.end - self.start] = self.view[self.start : self.end]
        self.start, self.end = 0, self.end - self.start

    def _replace(self, capacity: int) -> None:
        data = bytearray(capacity)
        count = self.end - self.start
        data[:count] = self.view[self.start : self.end]
        self.data, self.view = data, memoryview(data)
        self.start, self.end = 0, count
