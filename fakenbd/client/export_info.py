"""The information that a server sends on its exports, checked and corrected.

Block sizes that no server may advertise end the session (S-54 to S-56), because all requests depend
on them. Flags that contradict the rest are cleared (S-62), and a tail that no aligned request can
reach is cut off the size (S-57); both are noted.
"""

from __future__ import annotations

from typing import Final

import attrs

from fakenbd.client.noncompliance import Noncompliance
from fakenbd.errors import ProtocolError
from fakenbd.protocol.constants import MAXIMUM_STRING, TransmissionFlag, spec_name
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["ExportInfo", "Listed", "changes", "validated", "well_formed"]

RELIED_ON: Final = (
    TransmissionFlag.SEND_FLUSH,
    TransmissionFlag.SEND_FUA,
    TransmissionFlag.SEND_TRIM,
    TransmissionFlag.SEND_WRITE_ZEROES,
    TransmissionFlag.SEND_DF,
    TransmissionFlag.CAN_MULTI_CONN,
    TransmissionFlag.SEND_CACHE,
    TransmissionFlag.SEND_FAST_ZERO,
)
"""Flags that must not disappear when a session continues over a new connection."""


@attrs.frozen
class Listed:
    """One export of a server's list."""

    name: str
    description: str = ""


@attrs.frozen
class ExportInfo:
    """The information on one export: `size` in bytes, `flags` as TransmissionFlag bits.

    `name` is the name asked for, `canonical_name` the server's own (None: it sent none).
    `contexts` are the metadata contexts that it lists for the export.
    """

    name: str
    size: int
    flags: int
    block_size: BlockSize | None = None
    canonical_name: str | None = None
    description: str | None = None
    contexts: tuple[str, ...] = ()


def well_formed(text: str) -> bool:
    """Whether a string is valid in the protocol: UTF-8, without NUL, at most 4096 bytes."""
    try:
        return "\0" not in text and len(text.encode()) <= MAXIMUM_STRING
    except UnicodeEncodeError:
        return False


def validated(
    export_info: ExportInfo, negotiated: NegotiatedState
) -> tuple[ExportInfo, list[Noncompliance]]:
    """`export_info` as far as it is usable with what was negotiated, and notes on the rest.

    Raises ProtocolError for block sizes that no server may advertise.
    """
    notes: list[Noncompliance] = []
    flags = _usable_flags(export_info.flags, notes, negotiated)
    size = export_info.size
    if export_info.block_size is not None:
        _check_block_size(export_info.block_size)
        size -= size % export_info.block_size.minimum
        if size != export_info.size:  # S-57
            minimum = export_info.block_size.minimum
            came = f"the size {export_info.size} is not a multiple of the minimum block {minimum}"
            notes.append(Noncompliance("S-57", came, f"the first {size} bytes are used"))
    return attrs.evolve(export_info, size=size, flags=flags), notes


def _usable_flags(flags: int, notes: list[Noncompliance], negotiated: NegotiatedState) -> int:
    usable = flags
    if not flags & TransmissionFlag.HAS_FLAGS:  # S-61
        came = "NBD_FLAG_HAS_FLAGS is clear"
        notes.append(Noncompliance("S-61", came, "the other flags are used all the same"))
    contradictions = (
        (TransmissionFlag.SEND_DF, negotiated.chunks, "structured replies"),
        (
            TransmissionFlag.SEND_FAST_ZERO,
            bool(flags & TransmissionFlag.SEND_WRITE_ZEROES),
            "NBD_FLAG_SEND_WRITE_ZEROES",
        ),
        (TransmissionFlag.BLOCK_STATUS_PAYLOAD, negotiated.extended, "extended headers"),
    )
    for flag, allowed, without in contradictions:
        if flags & flag and not allowed:  # S-62
            came = f"NBD_FLAG_{flag.name} is set without {without}"
            notes.append(Noncompliance("S-62", came, "it is ignored"))
            usable &= ~flag
    return usable


def _check_block_size(block_size: BlockSize) -> None:
    minimum, preferred, maximum = block_size.minimum, block_size.preferred, block_size.maximum
    if not _power_of_two(minimum) or minimum > 65536:
        raise ProtocolError(
            f"the minimum block is {minimum}, not a power of two from 1 to 65536", rule="S-54"
        )
    if not _power_of_two(preferred) or preferred < max(minimum, 512):
        least = max(minimum, 512)
        raise ProtocolError(
            f"the preferred block is {preferred}, not a power of two from {least} on", rule="S-55"
        )
    if maximum < preferred:
        raise ProtocolError(
            f"the maximum payload is {maximum}, less than the preferred block {preferred}",
            rule="S-56",
        )


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def changes(before: NegotiatedState, after: NegotiatedState) -> list[str]:
    """A sentence for each thing that `after` lacks and `before` offered."""
    found = []
    if (old := before.size or 0) > (new := after.size or 0):
        found.append(f"the export shrank from {old} to {new} bytes")
    found += [
        f"{spec_name(TransmissionFlag, flag)} is gone"
        for flag in RELIED_ON
        if before.flags & flag and not after.flags & flag
    ]
    if after.flags & ~before.flags & TransmissionFlag.READ_ONLY:
        found.append("the export is read-only now")
    lost = set(before.contexts.values()) - set(after.contexts.values())
    found += [f"the metadata context {quoted(name)} is gone" for name in sorted(lost)]
    least, larger = (each.block_size.minimum if each.block_size else 1 for each in (before, after))
    if larger > least:
        found.append(f"the minimum block grew from {least} to {larger} bytes")
    if before.tls and not after.tls:
        found.append("the connection is not protected by TLS any more")
    return found
