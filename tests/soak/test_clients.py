"""Clients that nobody would want, over real sockets: the server survives them all, as it was."""

from __future__ import annotations

import socket
import struct
from random import Random

import pytest
import trio

from fakenbd import Client, Server, open_server
from fakenbd.journal import Closed
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake
from tests.soak.mutations import RECORDINGS, mutants
from tests.soak.traces import MIB, resident, server_without_traces, until

RESET = struct.pack("ii", 1, 0)
SIZE = 64 << 10
READ = encode(Request(0, 1, 0, 4096))
DISC = encode(Request(2, 2))
ENDS = {"EOF", "RST"}
AT_ONCE = 50


async def dial(server: Server) -> trio.SocketStream:
    if server.port:
        return await trio.open_tcp_stream("127.0.0.1", server.port)
    return await trio.open_unix_socket(server.socket)


async def drain(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    try:
        while data := await stream.receive_some(1 << 16):
            received += data
    except trio.BrokenResourceError:
        pass
    return bytes(received)


async def still_serves(server: Server) -> None:
    with trio.fail_after(60):
        async with Client.connect(server.uri) as client:
            assert await client.read(0, 4096) == bytes(server.export.read(0, 4096))


def short_and_soak(short: int, soak: int) -> pytest.MarkDecorator:
    counts = [short, pytest.param(soak, marks=pytest.mark.soak)]
    return pytest.mark.parametrize("count", counts, ids=["short", "soak"])


def conversation() -> bytes:
    """A bit of everything, 20 KiB long."""
    requests = [
        Request(1, 1, 4096, 8192, payload=bytes(8192)),
        Request(0, 2, 4096, 8192),
        Request(7, 3, 0, 65536),
        Request(4, 4, 8192, 4096),
        Request(1, 5, 100, 9000, payload=bytes(9000)),
        *[Request(0, 6 + number, 512 * number, 512) for number in range(50)],
        Request(2, 99),
    ]
    return handshake(structured=True, context="base:allocation") + b"".join(map(encode, requests))


@short_and_soak(300, 10_000)
@pytest.mark.trio
async def test_connections_dropped_at_any_byte(count: int) -> None:
    random, sent = Random(3), conversation()

    async def drop(server: Server, number: int) -> None:
        stream = await dial(server)
        with stream.socket:
            cut = random.randrange(len(sent) + 1)
            listening = random.random() < 0.5
            try:
                await stream.send_all(sent[:cut])
                if listening:
                    await stream.receive_some(random.choice((1, 100, 65536)))
            except trio.BrokenResourceError:
                pass
            if number % 2:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with server_without_traces(size=SIZE) as server:
        for start in range(0, count, AT_ONCE):
            async with trio.open_nursery() as nursery:
                for number in range(start, min(start + AT_ONCE, count)):
                    nursery.start_soon(drop, server, number)
        await still_serves(server)
        assert server.journal.totals.connections == count + 1


@short_and_soak(300, 20_000)
@pytest.mark.trio
async def test_mutated_conversations(count: int) -> None:
    async def converse(server: Server, sent: bytes) -> None:
        async with await dial(server) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(drain, stream)
            try:
                await stream.send_all(sent)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass

    async with server_without_traces(size=SIZE, unix="-") as server:
        conversations = mutants(count, seed=4)
        with trio.fail_after(60 + count / 50):
            for _ in range(0, count, AT_ONCE):
                async with trio.open_nursery() as nursery:
                    for sent, _ in zip(conversations, range(AT_ONCE), strict=False):
                        nursery.start_soon(converse, server, sent)
        await still_serves(server)


@pytest.mark.parametrize("where", [{"tcp": "127.0.0.1:0"}, {"unix": "-"}], ids=["tcp", "unix"])
@pytest.mark.trio
async def test_a_client_that_never_reads(where: dict[str, str]) -> None:
    asked = encode(Request(0, 1, 0, 1 << 25)) * 1000
    async with server_without_traces(size="64MiB", **where) as server:
        async with await dial(server) as stream:
            await stream.send_all(handshake(structured=True))
            before = resident()
            with trio.move_on_after(1) as scope:
                while True:
                    await stream.send_all(asked)
            assert scope.cancelled_caught
            # A reply of 32 MiB, its journal, and what the requests take.
            assert resident() - before < 160 * MIB
            await still_serves(server)


@pytest.mark.trio
async def test_clients_that_never_write() -> None:
    async with server_without_traces(size=SIZE) as server:
        streams = [await dial(server) for _ in range(100)]
        for stream in streams:
            assert len(await stream.receive_some(100)) == 18
        await still_serves(server)
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.trio
async def test_a_client_that_trickles(name: str) -> None:
    sent = RECORDINGS[name][:2000]
    async with server_without_traces(size=SIZE, unix="-") as server:
        async with await dial(server) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(drain, stream)
            try:
                for at in range(len(sent)):
                    await stream.send_all(sent[at : at + 1])
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass
        await until(lambda: any(isinstance(entry, Closed) for entry in server.journal))
        assert server.journal.totals.options


@pytest.mark.parametrize("where", [{"tcp": "127.0.0.1:0"}, {"unix": "-"}], ids=["tcp", "unix"])
@pytest.mark.trio
async def test_a_client_that_half_closes_gets_all_its_answers(where: dict[str, str]) -> None:
    async with server_without_traces(size="16MiB", **where) as server:
        async with await dial(server) as stream:
            await stream.send_all(handshake())
            reads = [Request(0, cookie, 0, 1 << 20) for cookie in range(64)]
            await stream.send_all(b"".join(map(encode, reads)))
            await stream.send_eof()
            with trio.fail_after(60):
                assert len(await drain(stream)) >= 64 * (16 + MIB)
        assert server.journal.totals.commands == {"read": 64}


@short_and_soak(100, 1000)
@pytest.mark.trio
async def test_many_connections_at_once(count: int) -> None:
    async def visit(server: Server, present: list[int], everyone: trio.Event) -> None:
        async with await dial(server) as stream:
            await stream.send_all(handshake() + READ)
            received = 0
            while received < 4096:
                received += len(await stream.receive_some(65536))
            present.append(1)
            if len(present) == count:
                everyone.set()
            await everyone.wait()
            await stream.send_all(READ + DISC)
            assert len(await drain(stream)) >= 16 + 4096

    async def many_clients(server: Server) -> None:
        everyone = trio.Event()
        present: list[int] = []
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(visit, server, present, everyone)
        assert server.journal.totals.commands == {"read": 2 * count, "disc": count}

    # The first many_clients is what Python's allocator grows to; the second must find room in that.
    async with open_server(size=SIZE) as server:
        await many_clients(server)
    async with server_without_traces(size=SIZE) as server:
        await many_clients(server)
