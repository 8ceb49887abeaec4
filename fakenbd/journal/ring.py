"""The newest records, within two bounds: so many entries, so many bytes.

Bytes are the bulk data that records refer to, and what records weigh where that is a lot. Over the
limit, the oldest records let go of their bulk first; only if that is not enough, or if all that is
held must be whole, are they dropped. The newest record stays whatever it weighs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs

from fakenbd.journal.entries import Entry
from fakenbd.journal.record import Record

__all__ = ["Ring"]


@attrs.define(eq=False, repr=False)
class Ring:
    """Holds at most `limit` entries and about `byte_limit` bytes; `whole` forbids forgetting."""

    limit: int
    byte_limit: int
    whole: bool = False
    _records: deque[Record] = attrs.field(init=False, factory=deque)
    _bulky: deque[Record] = attrs.field(init=False, factory=deque)
    _weight: int = attrs.field(init=False, default=0)
    _end: int = attrs.field(init=False, default=0)

    def append(self, record: Record) -> None:
        """Take a record, at the cost of the oldest ones."""
        records = self._records
        records.append(record)
        self._end = end = record.index + record.count
        if record.bulk:
            self._bulky.append(record)
        self._weight += record.bulk + record.fixed
        if self._weight > self.byte_limit:
            self._lighten()
        while end - records[0].index > self.limit and len(records) > 1:
            self._evict()

    def since(self, index: int) -> list[Entry]:
        """The entries held with serial numbers from `index` on, oldest first."""
        first = max(index, self._end - self.limit)
        records: list[Record] = []
        for record in reversed(self._records):
            if record.index + record.count <= first:
                break
            records.append(record)
        return [
            entry
            for record in reversed(records)
            for entry in record.entries()
            if entry.index >= first
        ]

    def newest_first(self) -> Iterator[Entry]:
        """The entries held, newest first, decoded only as far as the caller goes."""
        first = self._end - self.limit
        for record in tuple(reversed(self._records)):
            for entry in reversed(record.entries()):
                if entry.index >= first:
                    yield entry

    def __len__(self) -> int:
        return min(self._end - self._records[0].index, self.limit) if self._records else 0

    def _lighten(self) -> None:
        if not self.whole:
            while self._weight > self.byte_limit and self._bulky:
                record = self._bulky.popleft()
                self._weight -= record.bulk
                record.forget()
        while self._weight > self.byte_limit and len(self._records) > 1:
            self._evict()

    def _evict(self) -> None:
        record = self._records.popleft()
        self._weight -= record.bulk + record.fixed
        if self._bulky and self._bulky[0] is record:
            self._bulky.popleft()
