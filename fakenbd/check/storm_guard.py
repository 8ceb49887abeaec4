"""Counts what a client sends while it runs, to stop one that never ends.

The guard is a sink of the journal: it is called with every record, keeps a few numbers, and any
thread can read whether the client exceeds a bound, and whether all of its connections have ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import attrs

from fakenbd.journal import Closed, Connected, Part, ReceivedBatch
from fakenbd.journal.record import EventRecord, MessageRecord
from fakenbd.protocol.messages import (
    ExportNameReply,
    InfoExport,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Request,
)
from fakenbd.protocol.messages import Server as Listed

__all__ = ["StormGuard"]

CONNECTIONS: Final = 100
OPTIONS: Final = 2_000
REQUESTS: Final = 20_000
_SECTOR: Final = 512
_EACH: Final = 4


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class StormGuard:
    """Counts what a client sends to an export of `size` bytes.

    The bounds allow a few requests for each sector of the export, a few options for each export of
    a list, and many connections. The first excess is a storm: then `alarm` is called, once.
    """

    size: int
    alarm: Callable[[], None] = _nothing
    storm: str = attrs.field(init=False, default="")
    sizes: set[int] = attrs.field(init=False, factory=set)
    _connections: int = attrs.field(init=False, default=0)
    _options: int = attrs.field(init=False, default=0)
    _requests: int = attrs.field(init=False, default=0)
    _bound: int = attrs.field(init=False)
    _options_bound: int = attrs.field(init=False, default=OPTIONS)
    _open: set[int | None] = attrs.field(init=False, factory=set)
    _alone: threading.Event = attrs.field(init=False, factory=threading.Event)

    def __attrs_post_init__(self) -> None:
        self._bound = REQUESTS + 4 * (self.size // _SECTOR)
        self._alone.set()

    def write(self, record: Part) -> None:
        """Count one record of the journal."""
        if isinstance(record, ReceivedBatch):
            self._requests += record.count
            self._look()
        elif isinstance(record, MessageRecord):
            if type(record.message) is Request:
                self._requests += 1
                self._look()
            elif type(record.message) is OptionRequest:
                self._options += 1
                self._look()
            else:
                self._heed(record.message)
        elif isinstance(record, EventRecord):
            self._happened(record)

    def close(self) -> None:
        """Do nothing."""

    def wait_alone(self, seconds: float) -> bool:
        """Wait until no connection is left; False if that takes too long."""
        return self._alone.wait(seconds)

    def _heed(self, message: object) -> None:
        """Raise the bound on options with each export that the server lists."""
        if type(message) is OptionReply:
            if type(message.body) is Listed:
                self._options_bound += _EACH
            elif type(message.body) is InfoExport:
                self.sizes.add(message.body.size)
        elif type(message) is ExportNameReply or type(message) is OldstyleGreeting:
            self.sizes.add(message.size)

    def _happened(self, record: EventRecord) -> None:
        if isinstance(record.entry, Connected):
            self._connections += 1
            self._open.add(record.connection)
            self._alone.clear()
            self._look()
        elif isinstance(record.entry, Closed):
            self._open.discard(record.connection)
            if not self._open:
                self._alone.set()

    def _look(self) -> None:
        if self.storm:
            return
        if self._connections > CONNECTIONS:
            self.storm = f"it made more than {CONNECTIONS} connections"
        elif self._options > self._options_bound:
            self.storm = f"it sent more than {self._options_bound} options"
        elif self._requests > self._bound:
            self.storm = f"it sent more than {self._bound} requests"
        if self.storm:
            self.alarm()
