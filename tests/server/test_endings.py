"""A connection that a fault ends, ends for its client in one way, however busy the machine is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fakenbd import background_server
from fakenbd.journal import Closed, Noted
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake

LENGTH = 65536
REPLY = 16 + LENGTH
FLAGS = 3
REQUESTS = b"".join(encode(Request(Command.READ, n, 0, LENGTH)) for n in range(2000))

# The fault on the third READ, how many bytes of the replies arrive, and how the client sees the end
FAULTS = {
    "close": (lambda on: on.close(), 2 * REPLY, "EOF"),
    "close after": (lambda on: on.close(after=True), 3 * REPLY, "EOF"),
    "cut": (lambda on: on.cut(1000), 2 * REPLY + 1000, "EOF"),
    "cut in the header": (lambda on: on.cut(7), 2 * REPLY + 7, "EOF"),
    "reset": (lambda on: on.reset(), 2 * REPLY, "RST"),
    "reset after": (lambda on: on.reset(after=True), 3 * REPLY, "RST"),
    "cut and reset": (lambda on: on.cut(1000, then="reset"), 2 * REPLY + 1000, "RST"),
}
CASES = [
    pytest.param(name, transport, id=f"{name} over {transport}")
    for name in FAULTS
    for transport in ("tcp", "unix")
    if transport == "tcp" or FAULTS[name][2] == "EOF"  # Unix sockets have no RST
]


def connected(address: tuple[str, int] | str) -> socket.socket:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
        return sock
    return socket.create_connection(address)


def outcome(address: tuple[str, int] | str) -> tuple[int, str]:
    """What a client gets that sends a great many READs and reads only then: bytes, and the end."""
    with connected(address) as sock:
        sock.settimeout(60)
        sock.sendall(handshake())
        begin = b""
        while not begin.endswith(bytes([0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0])):
            begin += sock.recv(1 << 16)
        # Far more requests than are answered: those on their way must not turn the end into a loss.
        pusher = threading.Thread(target=push, args=(sock, REQUESTS))
        pusher.start()
        received = 0
        try:
            while data := sock.recv(1 << 16):
                received += len(data)
            end = "EOF"
        except ConnectionResetError:
            end = "RST"
        pusher.join()
        return received, end


def push(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # the server has ended the connection, as it was to
        sock.sendall(data)


@contextmanager
def busy(threads: int) -> Iterator[None]:
    """Other work for the processor meanwhile."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            sum(range(1000))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join()


def check(name: str, transport: str, repetitions: int) -> None:
    add, received, end = FAULTS[name]
    where = {"unix": "-"} if transport == "unix" else {}
    with background_server(size="1MiB", flags=FLAGS, journal={"limit": 100}, **where) as server:
        # The third of each connection: two replies come before it.
        add(server.on("read", nth=3, per="connection"))
        address = server.socket or ("127.0.0.1", server.port)
        seen = {outcome(address) for _ in range(repetitions)}
        assert seen == {(received, end)}
        server.settle()
        ends = [entry for entry in server.journal if isinstance(entry, Closed)]
        assert {(entry.by, entry.how) for entry in ends} == {("server", "fault")}
        assert not [entry for entry in server.journal if isinstance(entry, Noted)]


@pytest.mark.parametrize(("name", "transport"), CASES)
def test_one_outcome(name: str, transport: str) -> None:
    check(name, transport, 20)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "transport"), CASES)
def test_one_outcome_under_load(name: str, transport: str) -> None:
    with busy(2):
        check(name, transport, 200)


@pytest.mark.endurance
@pytest.mark.parametrize(("name", "transport"), CASES)
def test_one_outcome_always(name: str, transport: str) -> None:
    check(name, transport, 10_000)
