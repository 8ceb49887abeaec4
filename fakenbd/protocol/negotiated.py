"""What client and server have negotiated on one connection, in numbers and names.

Each point of view has its own: the server's, that of the messages its client received, a client's.
Nothing here refers to an export or to a side.
"""

from __future__ import annotations

from typing import Final

import attrs

from fakenbd.protocol.constants import ClientFlag, HandshakeFlag, TransmissionFlag

__all__ = ["ALL_OFFERED", "BlockSize", "NegotiatedState"]

ALL_OFFERED: Final = 0xFFFF & ~int(TransmissionFlag.READ_ONLY)
"""Transmission flags of an export that were never shown: they allow everything."""


@attrs.frozen
class BlockSize:
    """Minimum and preferred block and maximum payload, in bytes, as in NBD_INFO_BLOCK_SIZE.

    Any numbers, impossible ones included.
    """

    minimum: int = 1
    preferred: int = 4096
    maximum: int = 1 << 25


@attrs.define(eq=False)
class NegotiatedState:
    """The state of one negotiation.

    `handshake_flags` are the server's, `client_flags` the client's. `contexts` maps the ids that
    the last NBD_OPT_SET_META_CONTEXT gave to context names, for the export called
    `contexts_export`. `export` is the opened export as the client called it, None before;
    `canonical_name` what the server called it, if it did. `size` is in bytes, `flags` are
    transmission flags. `block_size_asked` tells whether the client asked for the block sizes of the
    export it opened. `description` is what the server said about it, if anything. `oldstyle` means
    a handshake that is a greeting and nothing else.
    """

    handshake_flags: int = 0
    client_flags: int = 0
    tls: bool = False
    structured: bool = False
    extended: bool = False
    contexts: dict[int, str] = attrs.field(factory=dict)
    contexts_export: str | None = None
    export: str | None = None
    canonical_name: str | None = None
    size: int | None = None
    flags: int = ALL_OFFERED
    block_size: BlockSize | None = None
    block_size_asked: bool = False
    description: str | None = None
    oldstyle: bool = False

    @property
    def fixed(self) -> bool:
        """Whether both sides announced fixed newstyle."""
        return bool(
            self.handshake_flags & HandshakeFlag.FIXED_NEWSTYLE
            and self.client_flags & ClientFlag.FIXED_NEWSTYLE
        )

    @property
    def no_zeroes(self) -> bool:
        """Whether both sides announced that the reply to NBD_OPT_EXPORT_NAME has no padding."""
        return bool(
            self.handshake_flags & HandshakeFlag.NO_ZEROES
            and self.client_flags & ClientFlag.NO_ZEROES
        )

    @property
    def chunks(self) -> bool:
        """Whether replies may consist of chunks."""
        return self.structured or self.extended

    def forget(self) -> None:
        """Reset everything but the flags, as STARTTLS requires."""
        self.tls = True
        self.structured = self.extended = False
        self.contexts = {}
        self.contexts_export = None
