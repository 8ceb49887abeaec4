"""The true content and map of an export, and how far a client's results can be compared with them.

Where a fault changes what no client can notice (a flipped bit, a short simple reply), results are
not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from fakenbd.export import Export, Query, TrueExtents
from fakenbd.faults import Fault, Kind
from fakenbd.faults.condition import ANY
from fakenbd.profile import Profile
from fakenbd.protocol.constants import Command
from fakenbd.protocol.messages import Buffer, Extent

__all__ = ["GroundTruth", "first_difference"]

UNSEEN_DATA: Final = frozenset(("S-128", "S-169"))
UNSEEN_MAP: Final = frozenset(("S-212",))
"""Rules whose breach shows only in the data, or in the map."""

_HARMLESS: Final = frozenset(
    ("delay", "hold", "dribble", "rate", "close", "reset", "cut", "stall", "error", "shuffle")
)
"""Kinds of faults that leave the extents of a reply correct, or remove them all."""


@attrs.frozen
class GroundTruth:
    """The server's own export, which the client's writes change, to compare results with.

    `data` and `map`: whether what the client reads, and maps, can be compared at all.
    """

    export: Export
    data: bool = True
    map: bool = True

    @classmethod
    def of(cls, profile: Profile, export: Export) -> GroundTruth:
        """The truth about `export`, as far as it can be compared where `profile` is served."""
        rules = frozenset(profile.rules)
        reported = not any(map(_changes_extents, profile.faults))
        return cls(export, not rules & UNSEEN_DATA, reported and not rules & UNSEEN_MAP)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The metadata contexts to ask for: those of the export, or base:allocation."""
        return tuple(self.export.contexts) or ("base:allocation",)

    def wrong_data(self, offset: int, data: Buffer) -> str:
        """A clause on the first byte of `data` that is not the export's; "" if all are right."""
        if not self.data:
            return ""
        return first_difference(offset, data, self.export.read(offset, len(data)))

    def wrong_map(
        self, context: str, offset: int, extents: Sequence[Extent], *, mask: int = -1
    ) -> str:
        """A clause on the first extent whose flags are not the export's; "" if all are right.

        Only flags in `mask` are compared: the client's map may have no others. Where the profile
        lists the extents, data is never wrong: a client reports invalid extents as data.
        """
        extent_source = self.export.contexts.get(context)
        if not self.map or extent_source is None:
            return ""
        size = sum(extent.length for extent in extents)
        query = Query(context, offset, size, 0, self.export.size, self._segments)
        exact = isinstance(extent_source, TrueExtents)
        for place, length, reported, meant in _side_by_side(extents, extent_source.runs(query)):
            reported, meant = reported & mask, meant & mask
            if reported != meant and (exact or reported):
                return (
                    f"the map has flags {reported:#x} for {offset + place}+{length}, not {meant:#x}"
                )
        return ""

    def _segments(self, offset: int, length: int) -> Iterator[Extent]:
        return iter(self.export.segments(offset, length))


def _changes_extents(fault: Fault) -> bool:
    commands = fault.when.command
    if "command" not in fault.events or not (
        commands is None or commands == ANY or Command.BLOCK_STATUS in commands
    ):
        return False
    return any(not isinstance(change, Kind) or change.slug not in _HARMLESS for change in fault.do)


def first_difference(offset: int, data: Buffer, expected: Buffer) -> str:
    """A clause on the first byte of `data` that is not the one of `expected`; "" if all are
    right.
    """
    if bytes(data) == bytes(expected):
        return ""
    for place, (got, meant) in enumerate(zip(data, expected, strict=False)):
        if got != meant:
            return f"byte {offset + place} is {got:#04x}, not {meant:#04x}"
    return f"{len(data)} bytes came for {offset}+{len(expected)}"


def _side_by_side(
    left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, int, int]]:
    """Two lists of extents cut at each other's borders: place, length, and the flags of both."""
    others = iter(right)
    place = spare = meant = 0
    for extent, reported in left:
        while extent:
            while not spare:
                following = next(others, None)
                if following is None:
                    return
                spare, meant = following
            length = min(extent, spare)
            yield place, length, reported, meant
            place, extent, spare = place + length, extent - length, spare - length
