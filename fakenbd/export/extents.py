"""The extents of an export in each metadata context, true or scripted.

A source yields extents from an offset on. The answer to a query is their beginning, cut as the
protocol requires: at the request's end, after one extent with REQ_ONE, after 2**20 extents. Where
the request reaches the export's end nothing is cut, so that a source can report more than the
export holds. `ExtentList` answers from slices of itself, so that a million extents cost a copy of
pointers.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, islice
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import attrs

from fakenbd.protocol.constants import CommandFlag, State
from fakenbd.protocol.messages import Extent

__all__ = [
    "DATA",
    "HOLE_ZERO",
    "MAXIMUM_EXTENTS",
    "AllData",
    "ExtentFunction",
    "ExtentList",
    "ExtentSource",
    "FunctionExtents",
    "Policy",
    "Query",
    "Repeated",
    "TrueExtents",
    "capped",
    "extent_source",
    "parse_extent",
    "parse_size",
]

DATA: Final = 0
HOLE_ZERO: Final = int(State.HOLE | State.ZERO)
MAXIMUM_EXTENTS: Final = 1 << 20
"""More extents than this do not belong in one reply (S-210)."""

_LONGEST_32: Final = (1 << 32) - 1
_REQ_ONE: Final = int(CommandFlag.REQ_ONE)
_UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"": 1, "B": 1}
    | {f"{letter}iB": 1 << 10 * power for power, letter in enumerate("KMGTPE", start=1)}
)
_WORDS: Final[Mapping[str, int]] = MappingProxyType({"data": 0, "hole": 1, "zero": 2, "dirty": 1})


def parse_size(text: str) -> int:
    """The number of bytes that "1000", "64KiB" or "0x200" stands for, up to 2^64 - 1.

    Raises ValueError, one sentence, for anything else.
    """
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[0-9]+) ?([A-Za-z]*)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f'expected a size such as 1000, "64KiB" or "1MiB", got {text!r}')
    digits = match[1]
    value = int(digits, 16 if digits[:2] in ("0x", "0X") else 10) * _UNITS[match[2]]
    if value >= 1 << 64:
        raise ValueError(f"expected a size of at most 2^64 - 1 bytes, got {text!r}")
    return value


@lru_cache(maxsize=1024)
def parse_extent(text: str) -> Extent:
    """The extent that "1000 data", "24 hole,zero", "4KiB dirty" or "64KiB 0x3" stands for.

    Raises ValueError, one sentence, for anything else.
    """
    length, _, words = text.strip().rpartition(" ")
    if not length:
        raise ValueError(f'expected an extent such as "1000 data" or "24 hole,zero", got {text!r}')
    flags = 0
    for word in words.split(","):
        if word in _WORDS:
            flags |= _WORDS[word]
        elif re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", word) and (value := int(word, 0)) < 1 << 64:
            flags |= value
        else:
            raise ValueError(
                f"expected data, hole, zero, dirty or a number as flags in the extent "
                f"{text!r}, got {word!r}"
            )
    return Extent(parse_size(length), flags)


@attrs.frozen
class Query:
    """A BLOCK_STATUS request for one context of one export."""

    context: str
    offset: int
    length: int
    flags: int
    size: int
    true_extents: Callable[[int, int], Iterator[Extent]]

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def at_end(self) -> bool:
        """Whether the request reaches the export's end."""
        return self.end >= self.size


class ExtentSource(Protocol):
    """A source of the extents that answer BLOCK_STATUS."""

    def block_status(self, query: Query) -> list[Extent]:
        """The extents to send, from the query's offset on."""

    def runs(self, query: Query) -> Iterator[Extent]:
        """The extents from the query's offset on, the last one reaching its end or past it."""


def _cut(runs: Iterable[Extent], query: Query, *, overrun: bool = False) -> list[Extent]:
    """The part of `runs` that answers the query."""
    limit = 1 if query.flags & _REQ_ONE else MAXIMUM_EXTENTS
    answer: list[Extent] = []
    left = query.length
    if not left:
        return answer
    for extent in runs:
        if left <= 0 and not query.at_end:
            break
        if extent.length > left and not (overrun or query.at_end):
            extent = Extent(left, extent.flags)
        answer.append(extent)
        left -= extent.length
        if len(answer) == limit:
            break
    return answer


@attrs.frozen
class TrueExtents:
    """The true extents: written areas are data, trimmed ones holes, the rest as in the content."""

    def runs(self, query: Query) -> Iterator[Extent]:
        return query.true_extents(query.offset, query.length)

    def block_status(self, query: Query) -> list[Extent]:
        return list(islice(self.runs(query), 1 if query.flags & _REQ_ONE else MAXIMUM_EXTENTS))


@attrs.frozen
class AllData:
    """One extent without flags: the default of every context but `base:allocation`."""

    def runs(self, query: Query) -> Iterator[Extent]:
        return iter(self.block_status(query))

    def block_status(self, query: Query) -> list[Extent]:
        return [Extent(query.length, DATA)] if query.length else []


def _extents(items: Iterable[str | tuple[int, int]]) -> list[Extent]:
    return [
        parse_extent(item)
        if isinstance(item, str)
        else (item if isinstance(item, Extent) else Extent(*item))
        for item in items
    ]


@attrs.frozen(eq=False)
class ExtentList:
    """Literal extents from offset 0 on: any lengths, any flags, as they stand.

    A query is answered from within the entry that holds its offset; past the end of the list
    everything is data.
    """

    extents: list[Extent] = attrs.field(converter=_extents)
    _ends: list[int] = attrs.field(init=False, repr=False)

    @_ends.default
    def _add_up(self) -> list[int]:
        return list(accumulate(length for length, _ in self.extents))

    def _first(self, offset: int) -> int:
        """The index of the entry that holds `offset`, or of an empty one that lies right there."""
        index = bisect_left(self._ends, offset)
        if offset and index < len(self._ends) and self._ends[index] == offset:
            index += 1
        return index

    def _rest(self, index: int, offset: int) -> Extent:
        return Extent(self._ends[index] - offset, self.extents[index].flags)

    def runs(self, query: Query) -> Iterator[Extent]:
        index = self._first(query.offset)
        if index == len(self.extents):
            return AllData().runs(query)
        return chain(
            [self._rest(index, query.offset)],
            map(self.extents.__getitem__, range(index + 1, len(self.extents))),
        )

    def block_status(self, query: Query) -> list[Extent]:
        if not query.length:
            return []
        first = self._first(query.offset)
        if first == len(self.extents):
            return AllData().block_status(query)
        if query.flags & _REQ_ONE:
            last = first + 1
        elif query.at_end:
            last = first + MAXIMUM_EXTENTS
        else:
            last = min(bisect_left(self._ends, query.end) + 1, first + MAXIMUM_EXTENTS)
        answer = self.extents[first:last]
        answer[0] = self._rest(first, query.offset)
        past = self._ends[first + len(answer) - 1] - query.end
        if past > 0 and not query.at_end:
            answer[-1] = Extent(answer[-1].length - past, answer[-1].flags)
        return answer


@attrs.frozen(eq=False)
class Repeated:
    """Literal extents over and over, up to the request's end."""

    extents: list[Extent] = attrs.field(converter=_extents)
    _list: ExtentList = attrs.field(init=False, repr=False)

    @extents.validator
    def _has_length(self, _: object, extents: list[Extent]) -> None:
        if not sum(extent.length for extent in extents):
            raise ValueError("expected extents to repeat that are longer than 0 bytes in all")

    @_list.default
    def _as_list(self) -> ExtentList:
        return ExtentList(self.extents)

    def runs(self, query: Query) -> Iterator[Extent]:
        # A repetition has no end of its own, so it ends where the request does.
        left = query.length
        within = query.offset % sum(extent.length for extent in self.extents)
        extents = self._list.runs(attrs.evolve(query, offset=within))
        while True:
            for extent in extents:
                if left <= extent.length:
                    yield Extent(left, extent.flags)
                    return
                yield extent
                left -= extent.length
            extents = iter(self.extents)

    def block_status(self, query: Query) -> list[Extent]:
        return _cut(self.runs(query), query)


ExtentFunction: TypeAlias = Callable[[str, int, int, int], Iterable[tuple[int, int]]]


@attrs.frozen
class FunctionExtents:
    """The extents of a function `(context, offset, length, flags) -> iterable of Extent`, as given.

    At most 2**20 extents are taken from the iterable.
    """

    function: ExtentFunction

    def runs(self, query: Query) -> Iterator[Extent]:
        given = self.function(query.context, query.offset, query.length, query.flags)
        return (Extent(length, flags) for length, flags in islice(given, MAXIMUM_EXTENTS))

    def block_status(self, query: Query) -> list[Extent]:
        return list(self.runs(query))


@attrs.frozen
class Policy:
    """The extents of another source (by default the true ones), reported differently.

    `one_extent` True gives one extent whether or not REQ_ONE asks for it, False many in spite of
    REQ_ONE. `merge` joins neighbours with equal flags, then `split` cuts at every multiple of so
    many bytes. With `overrun` the last extent keeps its own end, past the request's.
    """

    extent_source: ExtentSource | None = None
    one_extent: bool | None = None
    split: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    overrun: bool = False
    merge: bool = False

    def runs(self, query: Query) -> Iterator[Extent]:
        if self.overrun:
            query = attrs.evolve(query, length=max(query.size, query.end) - query.offset)
        runs = (self.extent_source or default_extent_source(query.context)).runs(query)
        if self.merge:
            # So many and no more, for a short list may repeat itself over an export of 8 EiB.
            runs = merged(islice(runs, MAXIMUM_EXTENTS))
        return _split(runs, query.offset, self.split) if self.split else runs

    def block_status(self, query: Query) -> list[Extent]:
        flags = query.flags
        if self.one_extent is not None:
            flags = flags | _REQ_ONE if self.one_extent else flags & ~_REQ_ONE
        asked = attrs.evolve(query, flags=flags & ~_REQ_ONE)
        return _cut(self.runs(asked), attrs.evolve(query, flags=flags), overrun=self.overrun)


def capped(extents: list[Extent], block: int) -> list[Extent]:
    """The extents cut to what 32-bit fields hold, none of them shortened to nothing.

    They end with the first that is too long, which has the largest length that is a multiple of
    `block`.
    """
    # Comparing the pairs themselves is the fastest look at a million of them.
    if not extents or max(extents).length <= _LONGEST_32:
        return extents
    place = next(i for i, extent in enumerate(extents) if extent.length > _LONGEST_32)
    longest = _LONGEST_32 - _LONGEST_32 % max(block, 1)
    return [*extents[:place], Extent(longest, extents[place].flags)]


def merged(runs: Iterable[Extent]) -> Iterator[Extent]:
    """The same extents with equal neighbours joined."""
    length, flags = 0, 0
    for extent in runs:
        if extent.flags == flags:
            length += extent.length
            continue
        if length:
            yield Extent(length, flags)
        length, flags = extent
    if length:
        yield Extent(length, flags)


def _split(runs: Iterable[Extent], offset: int, size: int) -> Iterator[Extent]:
    for extent in runs:
        end = offset + extent.length
        while offset < end:
            stop = min(end, offset - offset % size + size)
            yield Extent(stop - offset, extent.flags)
            offset = stop


def default_extent_source(context: str) -> ExtentSource:
    """The default of a context: TrueExtents for `base:allocation`, AllData for any other."""
    return TrueExtents() if context == "base:allocation" else AllData()


def extent_source(
    value: ExtentSource | ExtentFunction | Sequence[str | tuple[int, int]] | None, context: str
) -> ExtentSource:
    """The extent source for a value given by a user: a source, a list, a function, or None."""
    if value is None:
        return default_extent_source(context)
    if isinstance(value, Sequence):
        return ExtentList(value)
    if callable(value):
        return FunctionExtents(value)
    return value
