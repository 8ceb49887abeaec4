"""What a client owes across requests: cookies, order, room for a resize, an end that is announced.

A Traffic knows which requests are unanswered. Requests that the hot path answers at once never
come here; that can only hide a breach, never invent one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from fakenbd.journal.agreement import Agreement, Phase
from fakenbd.journal.framing import HEADER_SIZES
from fakenbd.journal.violation import Violation
from fakenbd.protocol.constants import ChunkFlag, Command, Error, spec_name
from fakenbd.protocol.messages import Chunk, ErrorChunk, Request, SimpleReply

__all__ = ["InFlight", "Traffic"]

# So many requests may have been on their way when ESHUTDOWN was said; a client that sends more
# goes on as if nothing had been.
_ON_THEIR_WAY: Final = 1024
_DONE: Final = int(ChunkFlag.DONE)


class InFlight(NamedTuple):
    """What is remembered of a request that has not been answered."""

    command: int
    offset: int
    length: int


@attrs.define(eq=False)
class Traffic:
    """The requests of one connection."""

    agreed: Agreement
    pending: dict[int, InFlight] = attrs.Factory(dict)
    commanded: bool = False
    last_command: int | None = None
    resizing: tuple[int, int] | None = None
    _shutdown_cookies: set[int] = attrs.Factory(set)
    _since_shutdown: int = 0

    @property
    def shutdown_said(self) -> bool:
        return bool(self._shutdown_cookies)

    def request(self, request: Request) -> Iterator[Violation]:
        name = spec_name(Command, request.command)
        if request.cookie in self.pending:  # C-72
            yield Violation(
                "C-72", f"{name} has the cookie {request.cookie:#x} of a request still in flight"
            )
        if request.command == Command.DISC:
            yield from self._disconnect()
            return
        if self.shutdown_said:
            self._since_shutdown += 1
            # Only what cannot have been on its way already proves that the client goes on.
            if (
                request.cookie in self._shutdown_cookies or self._since_shutdown > _ON_THEIR_WAY
            ):  # C-127
                yield Violation("C-127", f"{name} came after NBD_ESHUTDOWN, not NBD_CMD_DISC")
        if request.command == Command.RESIZE:
            yield from self._resize(request)
        elif self.resizing is not None and _overlaps(request, self.resizing):  # C-111
            yield Violation("C-111", f"{name} came for an area that NBD_CMD_RESIZE is changing")
        self.commanded = True
        self.last_command = request.command
        self.pending[request.cookie] = InFlight(request.command, request.offset, request.length)

    def replied(self, reply: SimpleReply | Chunk) -> bool:
        """Take in a reply, or a chunk of one; whether it changed what the client may do."""
        if isinstance(reply, SimpleReply):
            error, done = reply.error, True
        else:
            error = reply.body.error if isinstance(reply.body, ErrorChunk) else 0
            done = bool(reply.flags & _DONE)
        if error == Error.ESHUTDOWN and len(self._shutdown_cookies) < _ON_THEIR_WAY:
            self._shutdown_cookies.add(reply.cookie)
        request = self.pending.pop(reply.cookie, None) if done else None
        if request is not None and request.command == Command.RESIZE:
            self.resizing = None
            if not error:
                self.agreed.size = request.offset
            return True
        return error == Error.ESHUTDOWN

    def blurred(self, cookie: int) -> bool:
        """Bytes that are no message left in place of a reply: the client may take it for answered.

        Whether that changed what the client may do.
        """
        request = self.pending.pop(cookie, None)
        if request is None or request.command != Command.RESIZE:
            return False
        self.resizing = None
        self.agreed.size = max(self.agreed.size or 0, request.offset)
        return True

    def left(self, leftover: int) -> Iterator[Violation]:
        """The client is gone without NBD_CMD_DISC, `leftover` bytes into a message."""
        if leftover >= HEADER_SIZES[self.agreed.extended]:  # C-100
            yield Violation("C-100", "the client left before it had sent the whole payload")
        elif self.shutdown_said:  # C-127
            yield Violation("C-127", "the client left after NBD_ESHUTDOWN without NBD_CMD_DISC")
        elif not self.agreed.oldstyle or self.commanded:  # C-128
            # Oldstyle has no other way to decline an export than to leave at once.
            yield Violation("C-128", "the client left transmission without NBD_CMD_DISC")

    def _disconnect(self) -> Iterator[Violation]:
        if self.pending:  # C-131
            yield Violation(
                "C-131", f"NBD_CMD_DISC came with requests unanswered: {len(self.pending)}"
            )
        self.agreed.phase = Phase.DISCONNECTED

    def _resize(self, request: Request) -> Iterator[Violation]:
        size = self.agreed.size
        if size is None:
            return
        self.resizing = area = (min(size, request.offset), max(size, request.offset))
        busy = sum(_overlaps(place, area) for place in self.pending.values())
        if busy:  # C-111
            yield Violation(
                "C-111",
                f"NBD_CMD_RESIZE came with requests in flight in the area it changes: {busy}",
            )


def _overlaps(place: InFlight | Request, area: tuple[int, int]) -> bool:
    return place.offset < area[1] and place.offset + place.length > area[0]
