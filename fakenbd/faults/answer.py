"""What the server is about to say to one event, and how: the material that faults work on.

An answer is a list of steps in order. Most steps are messages of the protocol; the others are
things to do on the way (pause, stall, close). The truth is messages only; a fault turns one list
into another. The session then performs the list: it never decides anything.
"""

from __future__ import annotations

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
    "Push",
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
class Push:
    """What came before leaves in a system call (a segment) of its own."""


@attrs.frozen
class Paced:
    """Bytes that leave `size` at a time, with `seconds` between two writes."""

    data: bytes
    size: int = 1
    seconds: float = 0.0


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
    | Push
    | Paced
    | Forever
    | End
    | StopReading
    | Shutdown
    | Away
    | StartTLS
)
Answer: TypeAlias = list[Step]
