"""The negotiated state that a client was shown by the messages that left.

Faults are included, because the client sees nothing else. Where the server never showed a size or
flags, the client breaks no rule about them, and the fields keep values that allow everything.
"""

from __future__ import annotations

from enum import Enum

import attrs

from fakenbd.protocol.constants import HandshakeFlag
from fakenbd.protocol.negotiated import ALL_OFFERED, NegotiatedState

__all__ = ["Phase", "Selection", "ShownState"]


class Phase(Enum):
    """The phase of a connection, from the client's point of view."""

    GREETING = "the client flags have not come"
    OPTIONS = "options are negotiated"
    TLS_HANDSHAKE = "NBD_OPT_STARTTLS was accepted"
    TLS_FAILED = "the TLS handshake has failed"
    ABORTED = "NBD_OPT_ABORT was sent"
    TRANSMISSION = "the handshake is over"
    DISCONNECTING = "NBD_CMD_DISC was sent"


class Selection(Enum):
    """The outcome of NBD_OPT_SET_META_CONTEXT."""

    NONE = "no metadata context was ever selected"
    LIVE = "metadata contexts are selected"
    FAILED = "the last NBD_OPT_SET_META_CONTEXT failed"
    STALE = "the metadata contexts were selected before TLS began"
    UNREADABLE = "the reply to NBD_OPT_SET_META_CONTEXT was malformed"


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)


@attrs.define(eq=False)
class ShownState(NegotiatedState):
    """The negotiated state, and what else the client's rules depend on.

    What was not shown allows everything, a greeting that has not left included.
    `chunks_before_tls`: replies in chunks were negotiated, but only before TLS.
    """

    handshake_flags: int = int(sum(HandshakeFlag))
    phase: Phase = Phase.GREETING
    oldstyle: bool = False
    opened_by_go: bool = False
    selection: Selection = Selection.NONE
    chunks_before_tls: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the opened export: the one asked for, then the canonical one."""
        return tuple(name for name in (self.export, self.canonical_name) if name is not None)

    @property
    def minimum(self) -> int:
        """The advertised minimum block in bytes; 1 where there is none, or an impossible one."""
        block = self.block_size
        return block.minimum if block and _is_power_of_two(block.minimum) else 1

    @property
    def preferred(self) -> int:
        """The advertised preferred block in bytes, if the client has to follow it; else 1."""
        block = self.block_size
        if block is None or not self.block_size_asked or not _is_power_of_two(block.preferred):
            return 1
        return block.preferred

    @property
    def maximum(self) -> int | None:
        """The advertised maximum payload in bytes; None if there is none, or an impossible one."""
        block = self.block_size
        return block.maximum if block and block.maximum >= block.preferred else None

    @property
    def block_size_negotiated(self) -> bool:
        """Whether the client asked for block sizes and was shown some."""
        return self.block_size_asked and self.block_size is not None

    def take_export(self, size: int, flags: int) -> None:
        """The server sent the export's size and transmission flags."""
        if self.size is None:
            self.size, self.flags = size, flags
        else:
            # Sent twice (S-52), the client may believe either.
            self.size = max(self.size, size)
            self.flags |= flags

    def forget_export(self) -> None:
        """Drop what an earlier option showed of an export."""
        self.size, self.flags = None, ALL_OFFERED
        self.block_size = self.canonical_name = None

    def forget(self) -> None:
        self.chunks_before_tls = self.chunks_before_tls or self.chunks
        if self.selection in (Selection.LIVE, Selection.UNREADABLE):
            self.selection = Selection.STALE
        super().forget()
