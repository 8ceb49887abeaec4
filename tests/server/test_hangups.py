"""Clients that leave while nobody reads what they send."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
import trio

from fakenbd import Server, open_server
from fakenbd.journal import Closed, Noted, Received, Sent
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake

CLIENTS = 300
LARGE = 1 << 22


async def until(server: Server, holds: Callable[[], bool]) -> None:
    """Wait until the journal shows it."""
    news = trio.Event()
    unsubscribe = server.journal.subscribe(lambda: news.set())
    try:
        with trio.fail_after(60):
            while not holds():
                await news.wait()
                news = trio.Event()
    finally:
        unsubscribe()


def ends(server: Server) -> list[tuple[str, str]]:
    return [(entry.by, entry.how) for entry in server.journal if isinstance(entry, Closed)]


@pytest.mark.trio
@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_clients_of_a_server_that_stopped_reading_are_let_go(transport: str) -> None:
    async with open_server(unix="-" if transport == "unix" else None) as server:
        server.on("read").stop_reading()
        before = len(os.listdir("/proc/self/fd"))
        for start in range(0, CLIENTS, 50):
            clients = [await reached(server) for _ in range(50)]
            for client in clients:
                await client.send_all(handshake() + encode(Request(Command.READ, 1, 0, 512)))
            await server.wait_for("read", count=start + 50, timeout=60)
            for client in clients:
                await client.aclose()
        await until(server, lambda: len(ends(server)) == CLIENTS)
        assert {by for by, _ in ends(server)} == {"client"}
        assert len(os.listdir("/proc/self/fd")) <= before


async def reached(server: Server) -> trio.SocketStream:
    if server.socket:
        return await trio.open_unix_socket(server.socket)
    return await trio.open_tcp_stream("127.0.0.1", server.port)


@pytest.mark.trio
@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_what_a_client_does_not_take_was_not_sent(transport: str) -> None:
    where = {"unix": "-"} if transport == "unix" else {}
    async with open_server(size="64MiB", **where) as server:
        stream = await reached(server)
        requests = b"".join(encode(Request(Command.READ, n, n * LARGE, LARGE)) for n in range(8))
        await stream.send_all(handshake() + requests)
        await server.wait_for("read", timeout=60)
        stream.socket.shutdown(socket.SHUT_WR)
        await until(server, lambda: any(isinstance(e, Noted) for e in server.journal))
        journal = server.journal
        assert journal.totals.bytes_sent < 8 * LARGE
        assert sum(isinstance(e, Sent) and e.command is None for e in journal) < 8 + 4
        assert not ends(server)
        await stream.aclose()
        await until(server, lambda: bool(ends(server)))
        assert {by for by, _ in ends(server)} == {"client"}


@pytest.mark.trio
async def test_a_half_close_is_followed_by_what_is_owed() -> None:
    async with open_server(size="64MiB", unix="-") as server:
        stream = await reached(server)
        requests = b"".join(encode(Request(Command.READ, n, n * LARGE, LARGE)) for n in range(8))
        await stream.send_all(handshake() + requests)
        stream.socket.shutdown(socket.SHUT_WR)
        received = 0
        while data := await stream.receive_some(1 << 20):
            received += len(data)
        assert received > 8 * LARGE
        await stream.aclose()
        await until(server, lambda: bool(ends(server)))
        assert server.journal.totals.commands == {"read": 8}
        assert sum(isinstance(entry, Received) for entry in server.journal) == 10


@pytest.mark.trio
async def test_the_server_closed_where_a_fault_half_closes() -> None:
    async with open_server(endpoints=[]) as server:
        server.on(option="go").close(how="half-close")
        stream = server.connect()
        await stream.send_all(handshake())
        received = b""
        while data := await stream.receive_some():
            received += data
        await stream.aclose()
        await until(server, lambda: bool(ends(server)))
        assert ends(server) == [("server", "fault")]
        sent = [entry for entry in server.journal if isinstance(entry, Sent)]
        assert len(received) == 18
        assert len(sent) == 1
