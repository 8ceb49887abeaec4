"""A journal as a capture for Wireshark: pcapng, each connection a TCP conversation of its own.

Messages received and sent (under TLS: the clear bytes) become segments at the times of the records.
Firings and violations become comments on the next packet of the connection, so that Wireshark's
expert view leads to them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import IO, Final

import attrs

from fakenbd.journal.entries import Closed, Connected, FaultFired, InternalFailure, Noted, Violated
from fakenbd.journal.record import EventRecord, Part
from fakenbd.journal.tcp import Side, TcpStream, addresses
from fakenbd.journal.transcript import phrase

__all__ = ["PcapSink"]

_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_ENHANCED_PACKET: Final = 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_RAW_IP: Final = 101
_END_OF_OPTIONS, _COMMENT, _APPLICATION = 0, 1, 4
_RESETS: Final = frozenset({"rst", "reset"})


@attrs.define(eq=False)
class PcapSink:
    """Writes a capture to `stream`, which it closes; `began` is the Unix time of second 0."""

    stream: IO[bytes]
    began: float = 0.0
    _conversations: dict[int, TcpStream] = attrs.field(init=False, factory=dict)
    _comments: dict[int, list[str]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        version = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
        application = _options([(_APPLICATION, "fakenbd")])
        self.stream.write(_block(_SECTION_HEADER, version + application))
        self.stream.write(_block(_INTERFACE, struct.pack("<HHI", _RAW_IP, 0, 0)))
        self.stream.flush()

    def write(self, record: Part) -> None:
        """Append the packets of one record."""
        connection = record.connection
        if connection is None:
            return
        if isinstance(record, EventRecord):
            self._record_event(connection, record.entry)
        else:
            conversation = self._stream_of(record.time, connection, "", "")
            side: Side = "server" if record.outgoing else "client"
            data = b"".join(record.wire())
            self._packets(record.time, connection, conversation.data(side, data))
        self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def __str__(self) -> str:
        return f"the capture file {getattr(self.stream, 'name', '')}".rstrip()

    def _record_event(
        self,
        connection: int,
        entry: Connected | FaultFired | Violated | Closed | InternalFailure | Noted,
    ) -> None:
        if isinstance(entry, Connected):
            self._conversations.pop(connection, None)
            self._stream_of(entry.time, connection, entry.peer, entry.local)
        elif isinstance(entry, Closed):
            conversation = self._stream_of(entry.time, connection, "", "")
            side: Side = "server" if entry.by == "server" else "client"
            reset = entry.how.lower() in _RESETS
            self._packets(entry.time, connection, conversation.ending(side, reset=reset))
        else:
            self._comments.setdefault(connection, []).append(phrase(entry))

    def _stream_of(self, time: float, connection: int, peer: str, local: str) -> TcpStream:
        conversation = self._conversations.get(connection)
        if conversation is None:
            conversation = TcpStream(addresses(connection, peer, local))
            self._conversations[connection] = conversation
            self._packets(time, connection, conversation.opening())
        return conversation

    def _packets(self, time: float, connection: int, packets: Iterable[bytes]) -> None:
        microseconds = round((self.began + time) * 1_000_000)
        for packet in packets:
            comments = self._comments.pop(connection, [])
            head = struct.pack(
                "<IIIII",
                0,
                microseconds >> 32,
                microseconds & 0xFFFFFFFF,
                len(packet),
                len(packet),
            )
            options = _options([(_COMMENT, comment) for comment in comments])
            self.stream.write(
                _block(_ENHANCED_PACKET, head + packet + bytes(-len(packet) % 4) + options)
            )


def _options(options: list[tuple[int, str]]) -> bytes:
    if not options:
        return b""
    return b"".join(_option(*option) for option in [*options, (_END_OF_OPTIONS, "")])


def _option(code: int, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<HH", code, len(data)) + data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
