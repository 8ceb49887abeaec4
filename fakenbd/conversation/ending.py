"""How a connection ends: which side began, and how each side's stream ended.

The first cause is kept. The observer gets only the first end: an end of the client's is judged, one
after the server's own is not.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.conversation.responder import Responder

__all__ = ["Ending", "How"]

How: TypeAlias = Literal["EOF", "RST", "TLS close"]

_JUDGED: Final = ("EOF", "RST", "TLS close")
_ANNOUNCED: Final = (("client", "DISC", ""), ("client", "ABORT", ""))


@attrs.define(eq=False)
class Ending:
    """`cause`: by which side, how and why the connection ends, once that is known."""

    responder: Responder
    cause: tuple[str, str, str] | None = None
    _observed: bool = False

    @property
    def announced(self) -> bool:
        """Whether the client announced its end, which may still be a violation in itself."""
        return self.cause in _ANNOUNCED

    def because(self, by: str, how: str, detail: str = "") -> None:
        """Set the cause of the end, by "client" or "server", if there is none yet."""
        if self.cause is None:
            self.cause = (by, how, detail)

    def client_closed(self, how: str, detail: str = "") -> None:
        """The client's end was read: the end of its stream, or a failure of TLS."""
        self.because("client", how, detail)
        if not self._observed and how in _JUDGED:
            self._observed = True
            responder = self.responder
            responder.violations(
                responder.observer.client_closed(how, responder.shared.clock())  # type: ignore[arg-type]
            )

    def server_closed(self, how: How) -> None:
        """The server's end leaves before the client's was read."""
        if not self._observed:
            self._observed = True
            self.responder.observer.server_closed(how, self.responder.shared.clock())

    def hung_up(self, how: str, *, unread: bool) -> None:
        """The client's end came behind bytes that are not read yet, or never will be (`unread`)."""
        responder = self.responder
        waiting = responder.queue.size
        responder.shared.journal.noted(
            responder.connection,
            f"the client's {how} has come; {waiting} bytes still wait to be sent",
        )
        if unread:
            # How the client ended is unknown.
            responder.observer.stopped_reading(responder.shared.clock())

    def undelivered(self) -> None:
        """The client did not end in time: what was sent last may never reach it."""
        responder = self.responder
        responder.shared.journal.noted(
            responder.connection, "undelivered: the client did not end its side in time"
        )

    def record(self) -> None:
        """Record the end in the journal."""
        responder = self.responder
        responder.finish()
        self.server_closed("EOF")
        by, how, detail = self.cause or ("server", "closed", "")
        responder.shared.journal.closed(responder.connection, by, how, detail)
