"""One direction of a connection, cut into messages as its bytes come.

A framer keeps the bytes of the message that is not whole yet: its header, and a body that is to be
judged. Bulk data is counted and never kept. Bytes may be split anywhere with the same result;
messages are produced one at a time, so that what one of them changes is in force at the next.

A framer that meets bytes which begin no message is lost and produces no more. Where bytes were
never seen it searches for a magic instead, and trusts the position only when the message after that
begins with a magic, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import ClassVar, Final, Generic, Literal, TypeAlias, TypeVar, cast

import attrs

from fakenbd.protocol.messages import Buffer

__all__ = ["Counted", "End", "Framer", "Gap", "Start", "counted"]

_LONGEST_MAGIC: Final = 8
_Event = TypeVar("_Event")

End: TypeAlias = Literal["EOF", "RST", "TLS close"]
"""How a stream ended; "EOF" of a TLS connection: without close_notify."""


class Start(Enum):
    """What is known of a connection when its observation begins."""

    GREETING = "the server has sent nothing yet"
    UNKNOWN = "bytes were sent before observation began"


@attrs.frozen
class Gap:
    """`size` bytes of a stream whose content is unknown: lost segments, payloads dropped."""

    size: int


@attrs.frozen
class Counted:
    """A stand-in for bulk data that was counted and not kept: it has only a length."""

    size: int

    def __len__(self) -> int:
        return self.size


def counted(size: int) -> Buffer:
    """A stand-in for `size` bytes of data, for a message of which only the length is used."""
    return cast(Buffer, Counted(size)) if size else b""


@attrs.define(eq=False)
class Framer(Generic[_Event]):
    """`offset` counts the bytes received; the message that is not whole begins at `begin`.

    `head` holds what is kept of it, `want` is how much of it is needed for the next step, and
    `skip` how many bytes of bulk data come after it. `lost`: it produces no more. `hunting`: it
    searches for a magic. `hunted`: it did, so that bytes which begin no message may be its own
    mistake. `trusted`: the position is certain.
    """

    MAGICS: ClassVar[tuple[bytes, ...]]

    hunting: bool = False
    offset: int = 0
    begin: int = 0
    want: int = 0
    skip: int = 0
    lost: bool = False
    hunted: bool = False
    trusted: bool = True
    head: bytearray = attrs.field(init=False, factory=bytearray)

    def __attrs_post_init__(self) -> None:
        if self.hunting:
            self.hunt()

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a message, and the position is known."""
        return not (self.head or self.skip or self.lost or self.hunting)

    def feed(self, data: Buffer | Gap) -> Iterator[_Event]:
        """Take bytes; yields each message that became whole before the next one is cut."""
        if isinstance(data, Gap):
            yield from self._gap(data.size)
            return
        view = memoryview(data)
        while view:
            if self.lost:
                self.offset += len(view)
                return
            if self.hunting:
                view = self._hunt(view)
            elif self.skip:
                taken = min(self.skip, len(view))
                view = view[taken:]
                yield from self._skipped(taken)
            else:
                if not self.head:
                    self._begin()
                taken = min(self.want - len(self.head), len(view))
                self.head += view[:taken]
                self.offset += taken
                view = view[taken:]
                while self.head and len(self.head) == self.want and not self.skip:
                    yield from self._step()

    def restart(self) -> None:
        """The next byte begins a message: TLS is in force."""
        self._clear()
        self.lost = self.hunting = self.hunted = False
        self.trusted = True

    def take(self, size: int) -> None:
        """Skip a whole message that the caller decoded."""
        self.begin = self.offset
        self.offset += size

    def lose(self) -> None:
        """Stop cutting: the position is lost."""
        self._clear()
        self.lost = True

    def hunt(self) -> None:
        """Bytes were not seen: search for the next magic."""
        self._clear()
        self.hunting = self.hunted = True
        self.trusted = False

    # --- for the two directions ----------------------------------------------------------------

    def _begin(self) -> None:
        """A message begins: set `want`."""
        raise NotImplementedError

    def _step(self) -> Iterable[_Event]:
        """`want` bytes are there: set it or `skip` higher, or yield the message."""
        raise NotImplementedError

    def _ended(self) -> Iterable[_Event]:
        """The bulk data are complete."""
        raise NotImplementedError

    def _missed(self) -> Iterable[_Event]:
        """Bytes of this stream were never seen."""
        raise NotImplementedError

    def _give(self, event: _Event) -> Iterable[_Event]:
        """The message is whole."""
        self._clear()
        trusted, self.trusted = self.trusted, True
        return (event,) if trusted else ()

    def _refuse(self, event: _Event) -> Iterable[_Event]:
        """Bytes cannot be cut: yield the event and stop, or hunt on if the place was a guess."""
        if self.hunted:
            self.hunt()
            return ()
        self.lose()
        return (event,)

    # --- bytes that are not looked at ------------------------------------------------------------

    def _clear(self) -> None:
        self.head.clear()
        self.skip = 0

    def _skipped(self, count: int) -> Iterator[_Event]:
        self.skip -= count
        self.offset += count
        if not self.skip:
            yield from self._ended()

    def _gap(self, size: int) -> Iterator[_Event]:
        taken = 0 if self.lost else min(self.skip, size)
        if taken:
            yield from self._skipped(taken)
        if size > taken:
            self.offset += size - taken
            if not self.lost:
                self.hunt()
                yield from self._missed()

    def _hunt(self, view: memoryview) -> memoryview:
        """Search for a magic; returns the rest from where one was found."""
        data = bytes(self.head) + view
        start = self.offset - len(self.head)
        found = [place for place in map(data.find, self.MAGICS) if place >= 0]
        self.head.clear()
        if found:
            place = min(found)
            self.hunting = False
            self.offset = start + place
            return memoryview(data)[place:]
        self.offset += len(view)
        self.head += data[1 - _LONGEST_MAGIC :]
        return view[:0]
