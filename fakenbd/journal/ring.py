"""The newest records, within two bounds: so many entries, so many bytes.

Bytes are the bulk data that records refer to, and the memory of records where that is a lot. Over
the limit, the oldest records are replaced by lighter ones without their bulk; only if that is not
enough, or if all that is held must be whole, are they dropped. The newest record always stays.

One thread appends; any thread may read meanwhile, without a lock. A reader takes a tuple of the
records before it looks into any, and records do not change. A record on its way from `_recent` to
`_light` is in both for a moment, and never in neither: readers take `_recent` first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

import attrs

from fakenbd.journal.entries import Entry
from fakenbd.journal.record import Record

__all__ = ["Ring"]


@attrs.define(eq=False, repr=False)
class Ring:
    """Holds at most `limit` entries and about `byte_limit` bytes; `whole` forbids lighter records.

    `_light` are the oldest records, that hold no bulk any more, and `_recent` all newer ones.
    """

    limit: int
    byte_limit: int
    whole: bool = False
    _light: deque[Record] = attrs.field(init=False, factory=deque)
    _recent: deque[Record] = attrs.field(init=False, factory=deque)
    _weight: int = attrs.field(init=False, default=0)
    _first: int = attrs.field(init=False, default=0)
    _end: int = attrs.field(init=False, default=0)

    def append(self, record: Record) -> None:
        """Take a record, at the cost of the oldest ones."""
        self._recent.append(record)
        self._end = end = record.index + record.count
        self._weight += record.bulk + record.fixed
        if self._weight > self.byte_limit:
            self._lighten(record.index)
        while end - self._first > self.limit and self._first < record.index:
            self._evict()

    def since(self, index: int) -> list[Entry]:
        """The entries held with serial numbers from `index` on, oldest first."""
        first = max(index, self._end - self.limit)
        return [
            entry
            for record in reversed(self._records(first))
            for entry in record.entries()
            if entry.index >= first
        ]

    def newest_first(self) -> Iterator[Entry]:
        """The entries held, newest first, decoded only as far as the caller goes."""
        first = self._end - self.limit
        for record in self._records(first):
            for entry in reversed(record.entries()):
                if entry.index >= first:
                    yield entry

    def __len__(self) -> int:
        return min(self._end - self._first, self.limit)

    def _records(self, first: int) -> Sequence[Record]:
        """The records with entries from serial number `first` on, newest first."""
        whole = self._newest(self._recent, first)
        light = self._newest(self._light, first)
        end = whole[-1].index if whole else self._end
        records = *whole, *(record for record in light if record.index < end)
        return [record for record in records if record.index + record.count > first]

    def _newest(self, records: deque[Record], first: int) -> Sequence[Record]:
        """Enough of the newest records to hold all entries from `first` on."""
        while True:
            enough = max(self._end - first, 0)
            with suppress(RuntimeError):  # the other thread changed the deque meanwhile
                taken = tuple(islice(reversed(records), enough))
                if len(taken) < enough or not taken or taken[-1].index <= first:
                    return taken

    def _lighten(self, newest: int) -> None:
        if not self.whole:
            while self._weight > self.byte_limit and self._recent:
                record = self._recent[0]
                self._weight -= record.bulk
                self._light.append(record.lighter())
                self._recent.popleft()
        while self._weight > self.byte_limit and self._first < newest:
            self._evict()

    def _evict(self) -> None:
        record = (self._light or self._recent).popleft()
        self._weight -= record.bulk + record.fixed
        self._first = record.index + record.count
