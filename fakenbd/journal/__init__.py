"""The memory: what both sides said, what struck, what the client owed; see journal.py.

What is seldom needed (files, captures) is imported when it is first named; transcripts are in
transcript.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.journal.entries import (
    Connected,
    Ended,
    Entry,
    Failed,
    Heard,
    Said,
    Struck,
    Violated,
)
from fakenbd.journal.exchange import HeardBatch
from fakenbd.journal.expectations import Waiter
from fakenbd.journal.journal import Journal, Sink
from fakenbd.journal.payload import Payload
from fakenbd.journal.record import Part
from fakenbd.journal.totals import Totals
from fakenbd.later import later

if TYPE_CHECKING:
    from fakenbd.journal.jsonl import Header, JsonlSink, load
    from fakenbd.journal.pcap import PcapSink

__all__ = [
    "Connected",
    "Ended",
    "Entry",
    "Failed",
    "Header",
    "Heard",
    "HeardBatch",
    "Journal",
    "JsonlSink",
    "Part",
    "Payload",
    "PcapSink",
    "Said",
    "Sink",
    "Struck",
    "Totals",
    "Violated",
    "Waiter",
    "load",
]

_LATER = {
    "Header": "jsonl",
    "JsonlSink": "jsonl",
    "load": "jsonl",
    "PcapSink": "pcap",
}


__getattr__ = later(__name__, _LATER)
