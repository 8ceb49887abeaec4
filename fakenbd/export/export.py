"""An export: a content, an overlay for written data, and the values it advertises.

Nothing here checks a request against the size or the flags: the server does that, and faults may
change it. `read` and `write` are attributes and not methods: each is bound to the shortest path, so
that an export without written data reads straight from its content. Look them up for every request.
`write` returns its copy of the data, in immutable pieces. While `stable_read` is not None, it reads
the same bytes at any later time, so that a journal need not keep them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from fakenbd.export.content import Content, Pattern, ZeroPadded
from fakenbd.export.extents import AllData, ExtentFunction, ExtentSource, Query, extent_source
from fakenbd.export.overlay import Overlay
from fakenbd.protocol.constants import TransmissionFlag
from fakenbd.protocol.messages import Buffer, Extent
from fakenbd.protocol.negotiated import BlockSize

__all__ = ["ALL_FLAGS", "Export", "ExtentSpec", "StableRead"]

ALL_FLAGS: Final = int(
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_DF
    | TransmissionFlag.CAN_MULTI_CONN
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.SEND_FAST_ZERO
)
"""The transmission flags of all that the server implements."""

StableRead: TypeAlias = Callable[[int, int], Buffer]
"""Reads `(offset, length)`."""

_DEFAULT_SIZE: Final = 1 << 20
_PIECE: Final = 1 << 20
_HASHED: Final = 1 << 30
_UNKNOWN: Final = AllData()

ExtentSpec: TypeAlias = ExtentSource | ExtentFunction | Sequence[str | tuple[int, int]] | None
"""The extents of a context: a source, a function, a list, or None for the true ones."""


@attrs.define(eq=False)
class Export:
    """One disk that a server offers.

    `size` defaults to the content's natural size, or 1 MiB where it has none; `round_size_to`
    rounds it up, and what lies beyond reads as zeros. `flags` None means all that the server
    implements. `contexts` maps names of metadata contexts to their extents. `any_alignment` has
    requests off the minimum block answered and not refused.
    """

    name: str = ""
    given_size: int | None = attrs.field(default=None, alias="size", repr=False, kw_only=True)
    content: Content = attrs.field(factory=Pattern, kw_only=True)
    round_size_to: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
        kw_only=True,
    )
    block_size: BlockSize | None = attrs.field(default=None, kw_only=True)
    given_flags: int | None = attrs.field(default=None, alias="flags", repr=False, kw_only=True)
    description: str = attrs.field(default="", kw_only=True)
    canonical_name: str | None = attrs.field(default=None, kw_only=True)
    given_contexts: Mapping[str, ExtentSpec] = attrs.field(
        factory=lambda: {"base:allocation": None}, alias="contexts", repr=False, kw_only=True
    )
    any_alignment: bool = attrs.field(default=False, kw_only=True)
    tls_only: bool = attrs.field(default=False, kw_only=True)

    size: int = attrs.field(init=False)
    flags: int = attrs.field(init=False)
    contexts: dict[str, ExtentSource] = attrs.field(init=False)
    sparse: bool = attrs.field(init=False)
    read: Callable[[int, int], Buffer] = attrs.field(init=False, repr=False)
    write: Callable[[int, Buffer], Sequence[bytes]] = attrs.field(init=False, repr=False)
    stable_read: StableRead | None = attrs.field(init=False, repr=False)
    _overlay: Overlay = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        natural = self.content.size
        size = natural if self.given_size is None else self.given_size
        size = _DEFAULT_SIZE if size is None else size
        if self.round_size_to is not None and size % self.round_size_to:
            if natural is None or natural > size:
                self.content, natural = ZeroPadded(self.content, size), size
            size += -size % self.round_size_to
        self.size = size
        self.flags = ALL_FLAGS if self.given_flags is None else self.given_flags
        self.contexts = {
            name: extent_source(given, name) for name, given in self.given_contexts.items()
        }
        self.sparse = self.content.sparse or (natural is not None and size > natural)
        self._overlay = Overlay(self.content)
        self.read = self.content.read
        self.write = self._write_first
        self.stable_read = self.content.read if self.content.stable else None

    def _write_first(self, offset: int, data: Buffer) -> Sequence[bytes]:
        self._read_overlay()
        return self.write(offset, data)

    def _read_overlay(self) -> None:
        self.read = self._overlay.read
        self.write = self._overlay.write
        self.stable_read = None

    def reads_again(self, offset: int, data: Buffer) -> StableRead | None:
        """A function that reads `data` from `offset` on at any time; None if there is none."""
        content = self.content
        if content.stable and bytes(content.read(offset, len(data))) == bytes(data):
            return content.read
        return None

    def zero(self, offset: int, length: int, *, hole: bool) -> None:
        """Make a range read as zeros: a hole, or allocated zeros where `hole` is False."""
        self._read_overlay()
        self.sparse = True
        self._overlay.zero(offset, length, hole=hole)

    def trim(self, offset: int, length: int) -> None:
        """Make a range a hole; it reads as zeros."""
        self.zero(offset, length, hole=True)

    def segments(self, offset: int, length: int) -> list[Extent]:
        """The true extents of exactly `length` bytes: data 0, hole and zero 3, zero alone 2."""
        return list(self._overlay.segments(offset, length))

    def block_status(self, context: str, offset: int, length: int, flags: int) -> list[Extent]:
        """The extents that BLOCK_STATUS answers in one context; data for one it does not know."""
        query = Query(context, offset, length, flags, self.size, self._overlay.segments)
        return self.contexts.get(context, _UNKNOWN).block_status(query)

    def sha256(self) -> str | None:
        """The hexadecimal SHA-256 of the current content; None above 1 GiB."""
        if self.size > _HASHED:
            return None
        digest = hashlib.sha256()
        for offset in range(0, self.size, _PIECE):
            digest.update(self.read(offset, min(_PIECE, self.size - offset)))
        return digest.hexdigest()

    def close(self) -> None:
        """Release the content's resources; written data is kept."""
        self.content.close()
