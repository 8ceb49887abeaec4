"""What client and server have agreed on so far, on one connection."""

from __future__ import annotations

from typing import Final

import attrs

from fakenbd.export import Export
from fakenbd.protocol.constants import MAXIMUM_PAYLOAD, TransmissionFlag

__all__ = ["LARGEST_PAYLOAD", "Terms"]

LARGEST_PAYLOAD: Final = 1 << 26
"""What one request may carry or ask for, in bytes, whatever was advertised."""


@attrs.define(eq=False)
class Terms:
    """The negotiated state; STARTTLS makes both sides forget all but the first two fields.

    `contexts` are the (id, name) pairs that the last SET_META_CONTEXT selected, for the export
    named `contexts_export`; `export` is the one that was opened.
    """

    fixed: bool = False
    no_zeroes: bool = False
    tls: bool = False
    structured: bool = False
    extended: bool = False
    contexts: tuple[tuple[int, str], ...] = ()
    contexts_export: str | None = None
    export: Export | None = None
    export_name: str = ""
    maximum_payload: int = 0
    """The most bytes that a WRITE, or a READ with simple replies, may have."""

    def forget(self) -> None:
        """TLS is up: whatever was negotiated in clear is void."""
        self.tls = True
        self.structured = self.extended = False
        self.contexts = ()
        self.contexts_export = None

    def open(self, export: Export, name: str) -> None:
        """Enter transmission on `export`, which the client called `name`."""
        self.export = export
        self.export_name = name
        advertised = MAXIMUM_PAYLOAD if export.block_size is None else export.block_size.maximum
        self.maximum_payload = min(max(advertised, 1), LARGEST_PAYLOAD)
        if self.contexts_export != name:
            # A selection is bound to the export it was made for, name by name.
            self.contexts = ()

    def flags(self, export: Export) -> int:
        """The transmission flags to advertise: what depends on other terms follows them."""
        flags = export.flags
        if not (self.structured or self.extended):
            flags &= ~int(TransmissionFlag.SEND_DF)
        if not self.extended:
            flags &= ~int(TransmissionFlag.BLOCK_STATUS_PAYLOAD)
        return flags
