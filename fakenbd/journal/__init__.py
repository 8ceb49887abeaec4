"""The record of all messages, firings, violations and ends of a server's connections.

See journal.py. Files and captures are imported when first named; transcripts are in transcript.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.journal.entries import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Noted,
    Received,
    Sent,
    Violated,
)
from fakenbd.journal.expectations import Waiter
from fakenbd.journal.journal import Journal, Sink
from fakenbd.journal.payload import Payload
from fakenbd.journal.plain_batch import ReceivedBatch
from fakenbd.journal.record import Part
from fakenbd.journal.totals import Totals
from fakenbd.lazy import lazy_getattr

if TYPE_CHECKING:
    from fakenbd.journal.jsonl import Header, JsonlSink, load
    from fakenbd.journal.pcap import PcapSink

__all__ = [
    "Closed",
    "Connected",
    "Entry",
    "FaultFired",
    "Header",
    "InternalFailure",
    "Journal",
    "JsonlSink",
    "Noted",
    "Part",
    "Payload",
    "PcapSink",
    "Received",
    "ReceivedBatch",
    "Sent",
    "Sink",
    "Totals",
    "Violated",
    "Waiter",
    "load",
]

_LAZY = {
    "Header": "jsonl",
    "JsonlSink": "jsonl",
    "load": "jsonl",
    "PcapSink": "pcap",
}


__getattr__ = lazy_getattr(__name__, _LAZY)
