"""Just enough NBD for clients that are bad in one way each, and good in all others.

They are called as `CLIENT SOCKET OUTPUT SIZE`, the last being that of the export.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

READ, WRITE, DISC, FLUSH = 0, 1, 2, 3
_OPTION = 0x49484156454F5054
_GO, _STRUCTURED = 7, 8
_SIMPLE, _CHUNK = 0x67446698, 0x668E33EF
_DONE, _DATA, _HOLE, _ERROR = 1, 1, 2, 1 << 15


class Reply(NamedTuple):
    error: int
    data: dict[int, bytes]


class Wire:
    """A connection in transmission."""

    def __init__(self, path: str, *, structured: bool = False, sizes: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.cookie = 0
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3))
        if structured:
            self._option(_STRUCTURED, b"")
        # No export name, and one question: the block sizes.
        self._option(_GO, struct.pack(">IHH", 0, 1, 3) if sizes else bytes(6))

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError("the server is gone")
            data += more
        return data

    def _option(self, option: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">QII", _OPTION, option, len(body)) + body)
        while True:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            self.receive(length)
            if kind != 3:
                return

    def send(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"") -> None:
        self.cookie += 1
        header = struct.pack(">IHHQQI", 0x25609513, 0, command, self.cookie, offset, length)
        self.socket.sendall(header + data)

    def reply(self, length: int = 0) -> Reply:
        """The answer to one request; `length` bytes of data if it is simple and no error."""
        reply = Reply(0, {})
        while True:
            (magic,) = struct.unpack(">I", self.receive(4))
            if magic == _SIMPLE:
                error, _ = struct.unpack(">IQ", self.receive(12))
                return Reply(error, {0: self.receive(length)} if length and not error else {})
            flags, kind, _, size = struct.unpack(">HHQI", self.receive(16))
            body = self.receive(size)
            if kind & _ERROR:
                reply = Reply(struct.unpack(">I", body[:4])[0], reply.data)
            elif kind == _DATA:
                reply.data[struct.unpack(">Q", body[:8])[0]] = body[8:]
            elif kind == _HOLE:
                offset, hole = struct.unpack(">QI", body)
                reply.data[offset] = bytes(hole)
            if flags & _DONE:
                return reply

    def read(self, offset: int, length: int) -> Reply:
        self.send(READ, offset, length)
        return self.reply(length)

    def leave(self) -> None:
        self.send(DISC)
        self.socket.close()


def path() -> str:
    return sys.argv[1]


def output(data: bytes) -> None:
    with open(sys.argv[2], "wb") as file:
        file.write(data)


def size() -> int:
    return int(sys.argv[3])
