"""A reply to one event, and how it is sent: the material that faults work on.

An answer is a list of steps in order. Most steps are messages of the protocol; the others are
things to do on the way (pause, stall, close). A correct reply is messages only; a fault turns one
list into another, and the sender only carries it out. A step that stands for very many messages
is lazy: `messages()` makes them one at a time, `size()` counts their bytes without making them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, Final, Literal, TypeAlias

import attrs

from fakenbd.faults.pieces import MAXIMUM_PIECES, hole_runs, piece_lengths, runs
from fakenbd.protocol.constants import ChunkFlag
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import Chunk, Data, Hole, ServerMessage

__all__ = [
    "Answer",
    "BeginShutdown",
    "CeaseReading",
    "CloseConnection",
    "Ending",
    "NeverSend",
    "PaceBytes",
    "Pause",
    "RepeatMessages",
    "SendPieces",
    "StartTLS",
    "Step",
    "TakeListenerDown",
    "WaitForReplies",
    "message_size",
]

_DONE: Final = int(ChunkFlag.DONE)

Ending: TypeAlias = Literal["close", "reset", "half-close", "truncate"]


@attrs.frozen
class Pause:
    """Let `seconds` pass before the next step; other answers go on meanwhile."""

    seconds: float


@attrs.frozen
class WaitForReplies:
    """Wait until `replies` other answers have left, or until the conversation is idle.

    Idle means that for `idle` seconds nothing was received and nothing else was left to send. With
    `replies` None only idleness releases the answer.
    """

    replies: int | None = None
    idle: float = 0.05


@attrs.frozen
class NeverSend:
    """Never go on with this answer.

    In the middle of a message it stops the whole connection: the bytes of two messages cannot be
    interleaved.
    """


@attrs.frozen
class PaceBytes:
    """Bytes that leave `size` at a time, with `seconds` between two writes.

    Several sizes are those of the first writes; the rest is one write. `messages` are the messages
    that the bytes encode, for the journal; empty if the bytes are no longer whole messages.
    """

    data: bytes
    size: int | tuple[int, ...] = 1
    seconds: float = 0.0
    messages: tuple[ServerMessage, ...] = attrs.field(default=(), eq=False, repr=False)

    def writes(self) -> Iterator[bytes]:
        """The bytes of each write."""
        start = 0
        sizes = repeat(self.size) if isinstance(self.size, int) else self.size
        for size in sizes:
            if start >= len(self.data):
                return
            yield self.data[start : start + size]
            start += size
        if start < len(self.data):
            yield self.data[start:]


@attrs.frozen
class RepeatMessages:
    """The same messages again and again: `times` rounds, or for ever where that is None.

    Two rounds are `seconds` apart. Bytes that are no whole message are Raw messages here.
    """

    _messages: tuple[ServerMessage, ...]
    times: int | None
    seconds: float = 0.0

    @property
    def one_round(self) -> tuple[ServerMessage, ...]:
        """The messages of one round."""
        return self._messages

    def messages(self) -> Iterator[ServerMessage]:
        """The messages of all rounds, without end where they go on for ever."""
        for _ in repeat(None) if self.times is None else repeat(None, self.times):
            yield from self._messages

    def size(self) -> int:
        """The bytes of one round."""
        return sum(map(message_size, self._messages))


@attrs.frozen
class SendPieces:
    """A data or hole chunk as many chunks, made when they leave; the last one has its flags.

    A piece is `by` bytes, or runs of zero sectors are holes where that is "holes", or sizes are
    drawn at `address` where it is "random". There are at most 65536; the last takes what is left.
    """

    chunk: Chunk
    by: int | str
    address: str = ""

    def messages(self) -> Iterator[ServerMessage]:
        """The pieces in order."""
        chunk, total = self.chunk, self._total
        offset, data = self._body.offset, memoryview(getattr(self._body, "data", b""))
        for start, stop, is_hole in self._runs():
            flags = chunk.flags if stop == total else chunk.flags & ~_DONE
            place, length = offset + start, stop - start
            piece = Hole(place, length) if is_hole else Data(place, data[start:stop])
            yield attrs.evolve(chunk, body=piece, flags=flags)

    def count(self) -> int:
        """How many pieces there are."""
        if isinstance(self.by, int):
            return max(1, min(-(-self._total // self.by), MAXIMUM_PIECES))
        return sum(1 for _ in self._runs())

    def size(self) -> int:
        """The bytes of all pieces."""
        # What a piece has besides its data: a header, and the body of a hole or of no data.
        hole, nothing = (
            message_size(attrs.evolve(self.chunk, body=body)) for body in (Hole(0, 0), Data(0, b""))
        )
        if self.by == "holes":
            return sum(
                hole if is_hole else nothing + stop - start for start, stop, is_hole in self._runs()
            )
        if isinstance(self._body, Hole):
            return self.count() * hole
        return self.count() * nothing + self._total

    @property
    def _body(self) -> Any:
        return self.chunk.body

    @property
    def _total(self) -> int:
        body = self._body
        return body.size if isinstance(body, Hole) else len(body.data)

    def _runs(self) -> Iterator[tuple[int, int, bool]]:
        body = self._body
        if self.by == "holes":
            return hole_runs(body.data, body.offset)
        is_hole = isinstance(body, Hole)
        lengths = piece_lengths(self.by, self.address)
        return ((start, stop, is_hole) for start, stop in runs(self._total, lengths))


def message_size(message: ServerMessage) -> int:
    """How many bytes a message is on the wire."""
    return sum(len(buffer) for buffer in encode_buffers(message))


@attrs.frozen
class CloseConnection:
    """End the connection: orderly (FIN), by RST, only the sending half, or without close_notify.

    With `reading`, so many bytes of the client's are taken (and thrown away) first.
    """

    how: Ending = "close"
    reading: int = 0


@attrs.frozen
class CeaseReading:
    """Read nothing more from this client; its bytes pile up in the socket's buffers."""


@attrs.frozen
class BeginShutdown:
    """From now on every command gets ESHUTDOWN and every option but ABORT gets ERR_SHUTDOWN."""


@attrs.frozen
class TakeListenerDown:
    """The listener is gone for so many connection attempts, or for so many seconds."""

    attempts: int | None = None
    seconds: float | None = None


@attrs.frozen
class StartTLS:
    """Begin the TLS handshake; the steps before it in the answer are sent in clear.

    `certificate` is "good", "expired", "wrong-host", "untrusted" or "self-signed". With `abort`
    the connection is dropped after so many bytes of the server's half of the handshake, or at its
    end; with `skip` there is no TLS handshake, and the connection continues in clear. With
    `version` the server speaks that version of TLS only; with `keep` what was negotiated in
    clear stays in force.
    """

    certificate: str = "good"
    abort: int | None = None
    skip: bool = False
    version: str | None = None
    keep: bool = False


Step: TypeAlias = (
    ServerMessage
    | Pause
    | WaitForReplies
    | NeverSend
    | PaceBytes
    | RepeatMessages
    | SendPieces
    | CloseConnection
    | CeaseReading
    | BeginShutdown
    | TakeListenerDown
    | StartTLS
)
Answer: TypeAlias = list[Step]
