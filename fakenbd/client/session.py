"""What a server offers, and what the client makes of the offer before it believes it.

A size, flags and block sizes come from the other side of the network. Block sizes that no server
may advertise end the session (S-54 to S-56): every later computation would rest on them. Flags
that contradict the rest of the offer are cleared (S-62), and a tail that no aligned request can
reach is cut off the size (S-57); both are noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.client.noncompliance import Noncompliance
from fakenbd.errors import ProtocolError
from fakenbd.protocol.constants import MAXIMUM_STRING, TransmissionFlag, spec_name
from fakenbd.protocol.negotiated import BlockSize
from fakenbd.protocol.text import quoted

__all__ = ["Listed", "Offer", "Session", "Style", "changes", "judged", "well_formed"]

Style: TypeAlias = Literal["oldstyle", "newstyle", "fixed"]

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
"""Flags that a caller may count on in a session that goes on over another connection."""


@attrs.frozen
class Listed:
    """One export of a server's list."""

    name: str
    description: str = ""


@attrs.frozen
class Offer:
    """What a server says of one export: `size` in bytes, `flags` as TransmissionFlag bits.

    `name` is the name asked for, `canonical_name` what the server calls the export (None: it did
    not say). `contexts` are the metadata contexts that it lists for the export.
    """

    name: str
    size: int
    flags: int
    block_size: BlockSize | None = None
    canonical_name: str | None = None
    description: str | None = None
    contexts: tuple[str, ...] = ()


@attrs.frozen
class Session:
    """What both sides agreed on. `contexts` are the selected contexts by their ids."""

    style: Style
    offer: Offer
    structured: bool = False
    extended: bool = False
    tls: bool = False
    contexts: Mapping[int, str] = attrs.field(factory=dict)


def well_formed(text: str) -> bool:
    """Whether a string is one of the protocol's: UTF-8, without NUL, at most 4096 bytes."""
    try:
        return "\0" not in text and len(text.encode()) <= MAXIMUM_STRING
    except UnicodeEncodeError:
        return False


def judged(
    offer: Offer, *, structured: bool, extended: bool
) -> tuple[Offer, tuple[Noncompliance, ...]]:
    """`offer` as far as it can be used, and notes on the rest.

    Raises ProtocolError for block sizes that no server may advertise.
    """
    notes: list[Noncompliance] = []
    flags = _usable_flags(offer.flags, notes, structured=structured, extended=extended)
    size = offer.size
    if offer.block_size is not None:
        _check_block_size(offer.block_size)
        size -= size % offer.block_size.minimum
        if size != offer.size:  # S-57
            minimum = offer.block_size.minimum
            came = f"the size {offer.size} is not a multiple of the minimum block {minimum}"
            notes.append(Noncompliance("S-57", came, f"the first {size} bytes are used"))
    return attrs.evolve(offer, size=size, flags=flags), tuple(notes)


def _usable_flags(
    flags: int, notes: list[Noncompliance], *, structured: bool, extended: bool
) -> int:
    usable = flags
    if not flags & TransmissionFlag.HAS_FLAGS:  # S-61
        came = "NBD_FLAG_HAS_FLAGS is clear"
        notes.append(Noncompliance("S-61", came, "the other flags are believed all the same"))
    contradictions = (
        (TransmissionFlag.SEND_DF, structured or extended, "structured replies"),
        (
            TransmissionFlag.SEND_FAST_ZERO,
            bool(flags & TransmissionFlag.SEND_WRITE_ZEROES),
            "NBD_FLAG_SEND_WRITE_ZEROES",
        ),
        (TransmissionFlag.BLOCK_STATUS_PAYLOAD, extended, "extended headers"),
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


def changes(before: Session, after: Session) -> list[str]:
    """What `after` offers less than `before`, one sentence each; nothing where it is as good."""
    old, new = before.offer, after.offer
    found = []
    if new.size < old.size:
        found.append(f"the export shrank from {old.size} to {new.size} bytes")
    found += [
        f"{spec_name(TransmissionFlag, flag)} is gone"
        for flag in RELIED_ON
        if old.flags & flag and not new.flags & flag
    ]
    if new.flags & ~old.flags & TransmissionFlag.READ_ONLY:
        found.append("the export is read-only now")
    lost = set(before.contexts.values()) - set(after.contexts.values())
    found += [f"the metadata context {quoted(name)} is gone" for name in sorted(lost)]
    least, larger = (offer.block_size.minimum if offer.block_size else 1 for offer in (old, new))
    if larger > least:
        found.append(f"the minimum block grew from {least} to {larger} bytes")
    if before.tls and not after.tls:
        found.append("the connection is not protected by TLS any more")
    return found
