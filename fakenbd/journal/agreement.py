"""What has been said on one connection that binds the client from then on.

Only what left the server counts, lies included: the client cannot know better. Where the server
never said a thing (a size, flags), nothing can be held against the client, and the fields keep
values that allow everything.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from fakenbd.protocol.constants import (
    ClientFlag,
    HandshakeFlag,
    TransmissionFlag,
)
from fakenbd.protocol.messages import InfoBlockSize

__all__ = ["Agreement", "Phase", "Selection", "is_power_of_two"]

_ALL_OFFERED: Final = 0xFFFF & ~int(TransmissionFlag.READ_ONLY)


class Phase(Enum):
    """Where a conversation stands, as the client must see it."""

    GREETING = "the greeting"
    HAGGLING = "option haggling"
    TLS_DUE = "TLS"
    TLS_FAILED = "the failed TLS handshake"
    LEFT_HAGGLING = "NBD_OPT_ABORT"
    TRANSMISSION = "transmission"
    DISCONNECTED = "NBD_CMD_DISC"
    ENDED = "the end"


class Selection(Enum):
    """What became of NBD_OPT_SET_META_CONTEXT."""

    NONE = "no metadata context was ever selected"
    LIVE = "metadata contexts are selected"
    FAILED = "the last NBD_OPT_SET_META_CONTEXT failed"
    STALE = "the metadata contexts were selected before TLS began"


def is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)


@attrs.define(eq=False)
class Agreement:
    """The state of the negotiation.

    `names` are the names of the opened export: the one asked for and, if it was said, the canonical
    one. `forgotten` tells that replies with structure were negotiated, but only before TLS.
    `asked_block_size` tells that the client asked for the block sizes in the GO that opened the
    export, and so is bound by them.
    """

    phase: Phase = Phase.GREETING
    oldstyle: bool = False
    handshake_flags: int = 0
    client_flags: int = 0
    tls: bool = False
    structured: bool = False
    extended: bool = False
    forgotten: bool = False
    selection: Selection = Selection.NONE
    contexts: dict[int, str] = attrs.Factory(dict)
    selected_for: str = ""
    names: tuple[str, ...] = ()
    size: int | None = None
    flags: int = _ALL_OFFERED
    block_size: InfoBlockSize | None = None
    asked_block_size: bool = False
    opened_by_go: bool = False

    @property
    def fixed(self) -> bool:
        """Whether both sides announced fixed newstyle."""
        return bool(
            self.handshake_flags & HandshakeFlag.FIXED_NEWSTYLE
            and self.client_flags & ClientFlag.FIXED_NEWSTYLE
        )

    @property
    def minimum(self) -> int:
        """The advertised minimum block, or 1 where none was said or none that can be honoured."""
        block = self.block_size
        return block.minimum if block and is_power_of_two(block.minimum) else 1

    @property
    def preferred(self) -> int:
        """The preferred block that binds the client, or 1."""
        block = self.block_size
        if block is None or not self.asked_block_size or not is_power_of_two(block.preferred):
            return 1
        return block.preferred

    @property
    def maximum(self) -> int | None:
        """The advertised maximum payload, or None where none was said or none that makes sense."""
        block = self.block_size
        return block.maximum if block and block.maximum >= block.preferred else None

    @property
    def sizes_agreed(self) -> bool:
        """Whether the client asked for block sizes and was told them."""
        return self.asked_block_size and self.block_size is not None

    def forget(self) -> None:
        """TLS begins: all that was negotiated in clear is void (C-56)."""
        self.forgotten = self.forgotten or self.structured or self.extended
        self.structured = self.extended = False
        if self.selection is Selection.LIVE:
            self.selection = Selection.STALE
        self.contexts = {}
