"""The observer of one connection: bytes of both sides in, findings out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import attrs

from fakenbd.obligations.finding import Finding
from fakenbd.obligations.siblings import Siblings
from fakenbd.obligations.stream import Gap, Start
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import Buffer, ClientMessage, ServerMessage

__all__ = ["End", "Observer"]

End: TypeAlias = Literal["EOF", "RST", "TLS close"]

_NOTHING: Final[Sequence[Finding]] = ()


class InFlight(NamedTuple):
    command: int
    offset: int
    length: int


@attrs.define(eq=False)
class Observer:
    """Judges one connection by what each side really sent; every call returns what it found."""

    start: Start = Start.GREETING
    client: Hashable | None = None
    siblings: Siblings | None = None
    counts: Counter[str] = attrs.field(init=False, factory=Counter)
    in_flight: dict[int, InFlight] = attrs.field(init=False, factory=dict)
    client_offset: int = attrs.field(init=False, default=0)
    server_offset: int = attrs.field(init=False, default=0)
    broken: bool = attrs.field(init=False, default=False)

    @property
    def server_at_boundary(self) -> bool:
        """Whether the server's next byte begins a message; False where nobody can tell any more."""
        return True

    @property
    def owes(self) -> bool:
        """Whether the greeting, its half of TLS, a final option reply or a reply has not left."""
        return False

    def client_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """The next bytes of the client's stream, split anywhere."""
        return _NOTHING

    def client_message(self, message: ClientMessage, size: int, at: float) -> Sequence[Finding]:
        """A whole message of the client's, `size` bytes with its payload, at a boundary."""
        return _NOTHING

    def server_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """The next bytes that left, split anywhere."""
        return _NOTHING

    def server_message(self, message: ServerMessage, size: int, at: float) -> Sequence[Finding]:
        """A whole message that left as it encodes, `size` bytes, at a boundary."""
        return _NOTHING

    def plain_batch(self, headers: Buffer, count: int, at: float, received: int, sent: int) -> None:
        """`count` READs and WRITEs inside `limits`, each answered with success.

        `headers` are theirs, one after the other; `received` and `sent` count all bytes of the
        requests and of the replies.
        """

    def limits(self, command: int) -> Limits | None:
        """Inside of which requests with that command and without flags break no rule.

        None: each request has to be shown. A cookie that is in flight has to be shown, too.
        """
        return None

    def client_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The client's stream has ended. Bytes of it that nobody read: show them as a Gap first."""
        return _NOTHING

    def server_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The server's stream has ended: what has not left will not leave."""
        return _NOTHING

    def tls_started(self, version: str, at: float) -> Sequence[Finding]:
        """TLS is in force; `version` as OpenSSL names it, "" where it is not known."""
        return _NOTHING

    def tls_failed(self, by: str, head: Buffer, at: float) -> Sequence[Finding]:
        """The TLS handshake failed; `head` are the first bytes that the client sent for it."""
        return _NOTHING
