"""The state of a connection: three small machines, as tables.

1. The *phase* follows the specification. It changes only by the transitions of PHASES: when an
   option is done, when TLS is in force, when a side has announced or reached its end.
2. *Receiving*: how the client's bytes are treated.
3. *Sending*: how the server's bytes are treated.

Not every combination exists: ALLOWED lists, for each phase, what receiving and sending may be.
A Standing holds the three and refuses what is not in the tables; nothing else in this package keeps
the state of the connection.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

__all__ = ["ALLOWED", "PHASES", "Phase", "Receiving", "Sending", "Standing"]


class Phase(Enum):
    """The phase of the protocol, from the server's point of view."""

    GREETING = "greeting"
    CLIENT_FLAGS = "client flags"
    OPTIONS = "options"
    TLS_HANDSHAKE = "TLS handshake"
    TRANSMISSION = "transmission"
    DISCONNECTING = "disconnecting"
    CLOSED = "closed"


class Receiving(Enum):
    """How bytes from the client are treated.

    OPEN: they are decoded. DISCARDING: a number of them is discarded, then the connection ends.
    STOPPED: they are not read. ENDED: the client's end was read.
    """

    OPEN = "open"
    DISCARDING = "discarding"
    STOPPED = "stopped"
    ENDED = "ended"


class Sending(Enum):
    """How replies are treated.

    OPEN: they leave. STALLED: nothing leaves any more, in the middle of a message. SHUT: the
    sending half is closed.
    """

    OPEN = "open"
    STALLED = "stalled"
    SHUT = "shut"


PHASES: Final[dict[Phase, frozenset[Phase]]] = {
    # Oldstyle begins in transmission.
    Phase.GREETING: frozenset(
        {Phase.CLIENT_FLAGS, Phase.TRANSMISSION, Phase.DISCONNECTING, Phase.CLOSED}
    ),
    Phase.CLIENT_FLAGS: frozenset({Phase.OPTIONS, Phase.DISCONNECTING, Phase.CLOSED}),
    Phase.OPTIONS: frozenset(
        {Phase.TLS_HANDSHAKE, Phase.TRANSMISSION, Phase.DISCONNECTING, Phase.CLOSED}
    ),
    Phase.TLS_HANDSHAKE: frozenset({Phase.OPTIONS, Phase.DISCONNECTING, Phase.CLOSED}),
    Phase.TRANSMISSION: frozenset({Phase.DISCONNECTING, Phase.CLOSED}),
    Phase.DISCONNECTING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}

_EITHER: Final = frozenset({Receiving.OPEN, Receiving.STOPPED, Receiving.ENDED})
_SENDS: Final = frozenset({Sending.OPEN, Sending.STALLED})

ALLOWED: Final[dict[Phase, tuple[frozenset[Receiving], frozenset[Sending]]]] = {
    Phase.GREETING: (_EITHER, _SENDS),
    Phase.CLIENT_FLAGS: (_EITHER, _SENDS),
    Phase.OPTIONS: (_EITHER, _SENDS),
    # TLS reads and writes by itself; other bytes are ignored.
    Phase.TLS_HANDSHAKE: (
        frozenset({Receiving.OPEN, Receiving.ENDED}),
        frozenset({Sending.OPEN}),
    ),
    Phase.TRANSMISSION: (_EITHER, _SENDS),
    Phase.DISCONNECTING: (frozenset(Receiving), frozenset(Sending)),
    Phase.CLOSED: (frozenset(Receiving), frozenset(Sending)),
}


@attrs.define(eq=False)
class Standing:
    """Phase, receiving and sending of one connection."""

    phase: Phase = Phase.GREETING
    receiving: Receiving = Receiving.OPEN
    sending: Sending = Sending.OPEN

    def enter(self, phase: Phase) -> None:
        """Change to another phase. Raises ValueError for a transition that PHASES does not have."""
        if phase is self.phase:
            return
        if phase not in PHASES[self.phase]:
            raise ValueError(f"no way leads from {self.phase.value} to {phase.value}")
        self.phase = phase
        self._check()

    def receive(self, receiving: Receiving) -> None:
        """Change Receiving. Without effect once it is ENDED. Raises ValueError as `enter`."""
        if self.receiving is not Receiving.ENDED:
            self.receiving = receiving
            self._check()

    def send(self, sending: Sending) -> None:
        """Change Sending. Without effect unless it is OPEN. Raises ValueError as `enter`."""
        if self.sending is Sending.OPEN:
            self.sending = sending
            self._check()

    def _check(self) -> None:
        receiving, sending = ALLOWED[self.phase]
        if self.receiving not in receiving or self.sending not in sending:
            raise ValueError(
                f"{self.phase.value} does not go with receiving {self.receiving.value} "
                f"and sending {self.sending.value}"
            )
