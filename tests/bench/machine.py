"""Microseconds a request in the protocol machine alone: no socket, no task, no client.

The peer is a bare loop that takes the same requests apart and packs the same replies, with nothing
checked, recorded or observed. Time is that of the processor, so that other processes hardly count.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

from fakenbd.conversation import Handshake
from fakenbd.conversation.conversation import Conversation
from fakenbd.conversation.export_options import Catalogue
from fakenbd.conversation.shared_state import SharedState
from fakenbd.conversation.source import ExportSource
from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import ClientFlags, InfoQuery, OptionRequest, Request
from tests.bench.loads import Setting
from tests.bench.measure import Sides, row

LENGTH = 4096
REQUESTS = 64
UNIT = "us/request"
BARE = "a bare loop"
_REQUEST = struct.Struct(">LHHQQL")
_CHUNK = struct.Struct(">LHHQLQ")


def _machine(*, extended: bool = False, armed: bool = False) -> Callable[[bytes], None]:
    """A connection in transmission: takes requests and lets all replies leave."""
    faults = Faults()
    if armed:
        faults.on("read", nth=1 << 40).error("EIO")
    handshake = Handshake()
    source = ExportSource(Catalogue({"": Export(size=1 << 30)}, handshake))
    clock = time.perf_counter
    shared = SharedState(source, handshake, faults, Journal(clock), clock)
    conversation = Conversation(shared, 1)
    conversation.begin()

    def feed(data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = conversation.get_buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            conversation.buffer_updated(count)
            while True:
                if buffers := conversation.outgoing():
                    conversation.left(sum(map(len, buffers)))
                elif conversation.more:
                    conversation.resume()
                else:
                    break

    option = Option.EXTENDED_HEADERS if extended else Option.STRUCTURED_REPLY
    feed(b"")
    for message in (ClientFlags(3), OptionRequest(option), OptionRequest(Option.GO, InfoQuery())):
        feed(encode(message))
    return feed


def _bare(export: Export) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        out: list[bytes | memoryview] = []
        for _, _, _, cookie, offset, length in _REQUEST.iter_unpack(data):
            out.append(_CHUNK.pack(0x668E33EF, 1, 1, cookie, length + 8, offset))
            out.append(export.read(offset, length))  # type: ignore[arg-type]
        sum(map(len, out))

    return feed


def _cost(feed: Callable[[bytes], None], in_flight: int, *, extended: bool = False) -> float:
    """Microseconds of processor time a request."""
    requests = [
        encode(Request(Command.READ, n, n * LENGTH, LENGTH, extended=extended))
        for n in range(REQUESTS)
    ]
    pieces = [
        b"".join(requests[start : start + in_flight]) for start in range(0, REQUESTS, in_flight)
    ]
    rounds = 100
    begin = time.process_time()
    for _ in range(rounds):
        for piece in pieces:
            feed(piece)
    return (time.process_time() - begin) / (rounds * REQUESTS) * 1e6


def _compared(in_flight: int, *, extended: bool = False, armed: bool = False) -> Iterator[Sides]:
    ours, theirs = _machine(extended=extended, armed=armed), _bare(Export(size=1 << 30))
    yield (
        lambda: _cost(ours, in_flight, extended=extended),
        lambda: _cost(theirs, in_flight),
    )


@row("machine", "4 KiB reads, 64 in flight, no socket", BARE, UNIT, 3.0, "at most", short=True)
def machine(_setting: Setting) -> Iterator[Sides]:
    yield from _compared(64)


@row("machine-alone", "4 KiB reads, 1 in flight, no socket", BARE, UNIT, 12.0, "at most")
def machine_alone(_setting: Setting) -> Iterator[Sides]:
    yield from _compared(1)


@row("machine-armed", "the same 64, a fault armed", BARE, UNIT, 120.0, "at most")
def machine_armed(_setting: Setting) -> Iterator[Sides]:
    yield from _compared(64, armed=True)


@row("machine-extended", "the same 64, extended headers", BARE, UNIT, 100.0, "at most")
def machine_extended(_setting: Setting) -> Iterator[Sides]:
    yield from _compared(64, extended=True)
