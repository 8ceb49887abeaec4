"""One conversation as TCP packets over IP, made up around the bytes that both sides really sent.

The server sees streams, not packets. What a capture needs besides (TCP handshake, sequence numbers,
acknowledgements, checksums, ends) follows from the bytes and their order. A peer without an IP
address gets one from the ranges reserved for documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.protocol.constants import DEFAULT_PORT

__all__ = ["Address", "Side", "TcpStream", "addresses"]

Side: TypeAlias = Literal["client", "server"]
Address: TypeAlias = tuple[IPv4Address | IPv6Address, int]

_TCP: Final = 6
_TTL: Final = 64
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_SEGMENT: Final = 65_000
_WINDOW: Final = 0xFFFF
# Maximum segment size 65000, then window scale 14: Wireshark never reports a full window.
_SYN_OPTIONS: Final = struct.pack("!BBHBBBB", 2, 4, _SEGMENT, 1, 3, 3, 14)
_FIRST_PORT: Final = 32_768
_STAND_INS: Final[dict[int, dict[Side, str]]] = {
    4: {"client": "192.0.2.1", "server": "192.0.2.2"},
    6: {"client": "2001:db8::1", "server": "2001:db8::2"},
}
_OTHER: Final[dict[Side, Side]] = {"client": "server", "server": "client"}


def addresses(connection: int, peer: str, local: str) -> dict[Side, Address]:
    """The addresses of both ends: the real ones if they are IP, else invented ones."""
    client, server = _parse(peer), _parse(local)
    if client and server and client[0].version != server[0].version:
        client = server = None
    known = client or server
    stand_ins = _STAND_INS[known[0].version if known else 4]
    port = _FIRST_PORT + connection % (1 << 15)
    return {
        "client": client or (ip_address(stand_ins["client"]), port),
        "server": server or (ip_address(stand_ins["server"]), DEFAULT_PORT),
    }


def _parse(text: str) -> Address | None:
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]").partition("%")[0]), int(port) & 0xFFFF
    except ValueError:
        return None


@attrs.define(eq=False)
class TcpStream:
    """Makes the packets of one connection; each method yields IP packets, ready to be written."""

    ends: dict[Side, Address]
    _next: dict[Side, int] = attrs.field(factory=lambda: {"client": 0, "server": 0})
    _over: bool = False
    _number: int = 0

    def opening(self) -> Iterator[bytes]:
        """The three-way handshake."""
        yield self._packet("client", _SYN)
        self._next["client"] = 1
        yield self._packet("server", _SYN | _ACK)
        self._next["server"] = 1
        yield self._packet("client", _ACK)

    def data(self, side: Side, data: bytes) -> Iterator[bytes]:
        """Bytes that `side` sent."""
        for start in range(0, len(data), _SEGMENT):
            segment = data[start : start + _SEGMENT]
            yield self._packet(side, _PSH | _ACK, segment)
            self._next[side] = (self._next[side] + len(segment)) & 0xFFFFFFFF

    def ending(self, side: Side, *, reset: bool) -> Iterator[bytes]:
        """The end: by RST from `side`, or orderly, with `side` the first to send FIN."""
        if self._over:
            return
        self._over = True
        if reset:
            yield self._packet(side, _RST | _ACK)
            return
        for one in (side, _OTHER[side]):
            yield self._packet(one, _FIN | _ACK)
            self._next[one] = (self._next[one] + 1) & 0xFFFFFFFF
        yield self._packet(side, _ACK)

    def _packet(self, side: Side, flags: int, data: bytes = b"") -> bytes:
        other = _OTHER[side]
        source, destination = self.ends[side], self.ends[other]
        options = _SYN_OPTIONS + bytes(-len(_SYN_OPTIONS) % 4) if flags & _SYN else b""
        acknowledged = self._next[other] if flags & _ACK else 0
        header = struct.pack(
            "!HHIIBBHHH",
            source[1],
            destination[1],
            self._next[side],
            acknowledged,
            (20 + len(options)) // 4 << 4,
            flags,
            _WINDOW,
            0,
            0,
        )
        segment = header + options + data
        pseudo = source[0].packed + destination[0].packed + struct.pack("!II", len(segment), _TCP)
        checksum = _checksum(pseudo + segment)
        segment = b"".join((segment[:16], struct.pack("!H", checksum), segment[18:]))
        return self._internet_header(source[0], destination[0], len(segment)) + segment

    def _internet_header(
        self,
        source: IPv4Address | IPv6Address,
        destination: IPv4Address | IPv6Address,
        length: int,
    ) -> bytes:
        if source.version == 6:
            return (
                struct.pack("!IHBB", 6 << 28, length, _TCP, _TTL)
                + source.packed
                + destination.packed
            )
        self._number = self._number + 1 & 0xFFFF
        fields = (0x45, 0, 20 + length, self._number, 0x4000, _TTL, _TCP)
        ends = source.packed + destination.packed
        checksum = _checksum(struct.pack("!BBHHHBBH", *fields, 0) + ends)
        return struct.pack("!BBHHHBBH", *fields, checksum) + ends


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): a sum modulo 65535, for which one division is enough."""
    if len(data) % 2:
        data += b"\0"
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - total
