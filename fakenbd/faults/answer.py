"""What the server is about to say to one event, and how: the material that faults work on.

An answer is a list of steps in order. Most steps are messages of the protocol; the others are
things to do on the way (pause, stall, close). The truth is messages only; a fault turns one list
into another. The session then performs the list: it never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Literal, TypeAlias

import attrs

from fakenbd.protocol.messages import ServerMessage

__all__ = [
    "Answer",
    "Away",
    "End",
    "Ending",
    "Forever",
    "Hold",
    "Paced",
    "Pause",
    "Shutdown",
    "Stall",
    "StartTLS",
    "Step",
    "StopReading",
]

Ending: TypeAlias = Literal["close", "reset", "half-close", "truncate"]


@attrs.frozen
class Pause:
    """Let `seconds` pass before the next step; other answers go on meanwhile."""

    seconds: float


@attrs.frozen
class Hold:
    """Wait until `replies` other answers have left, or until the conversation is idle.

    Idle means that for `idle` seconds nothing came and nothing else was left to say. With
    `replies` None only idleness releases the answer.
    """

    replies: int | None = None
    idle: float = 0.05


@attrs.frozen
class Stall:
    """Never go on with this answer.

    In mid-message it silences the connection, for the bytes of answers cannot be mixed.
    """


@attrs.frozen
class Paced:
    """Bytes that leave `size` at a time, with `seconds` between two writes.

    Several sizes are those of the first writes; the rest is one write. `messages` are what the
    bytes are, so that the journal can name them; none where they are no whole messages any more.
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
class Forever:
    """The same bytes again and again: as fast as the client takes them, or `seconds` apart."""

    data: bytes
    seconds: float = 0.0


@attrs.frozen
class End:
    """End the connection: orderly (FIN), by RST, only the sending half, or without TLS's goodbye.

    With `reading`, so many bytes of the client's are taken (and thrown away) first.
    """

    how: Ending = "close"
    reading: int = 0


@attrs.frozen
class StopReading:
    """Read nothing more from this client; its bytes pile up in the socket's buffers."""


@attrs.frozen
class Shutdown:
    """From now on every command gets ESHUTDOWN and every option but ABORT gets ERR_SHUTDOWN."""


@attrs.frozen
class Away:
    """The listener is gone for so many connection attempts, or for so many seconds."""

    attempts: int | None = None
    seconds: float | None = None


@attrs.frozen
class StartTLS:
    """Begin the TLS handshake; what stands before it in the answer leaves in clear.

    `certificate` is "good", "expired", "wrong-host", "untrusted" or "self-signed". With `abort`
    the connection is dropped after so many bytes of the server's half of the handshake, or at its
    end; with `skip` there is no handshake, and the conversation goes on in clear. With `version`
    the server speaks that version of TLS only; with `keep` it forgets nothing of what was
    negotiated in clear.
    """

    certificate: str = "good"
    abort: int | None = None
    skip: bool = False
    version: str | None = None
    keep: bool = False


Step: TypeAlias = (
    ServerMessage
    | Pause
    | Hold
    | Stall
    | Paced
    | Forever
    | End
    | StopReading
    | Shutdown
    | Away
    | StartTLS
)
Answer: TypeAlias = list[Step]
